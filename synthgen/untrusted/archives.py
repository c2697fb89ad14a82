"""NumPy's ``.npz`` archives: stored or deflated members with plain numbers or texts, never pickles."""

import contextlib
import io
import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from synthgen.untrusted.files import open_file

Array = npt.NDArray[Any]

_MAX_ARRAY_BYTES = 1 << 30  # 1 GiB: of an array that is read whole
_MAX_READ_BYTES = 1 << 20  # 1 MiB at once: also bounds the table of contents, which zipfile reads whole
_MAGIC = b"\x93NUMPY\x01\x00"
# As NumPy writes it, and nothing else: NumPy's own reader would evaluate it as Python.
_REST = (
    rb"', 'fortran_order': (True|False), "
    rb"'shape': \((|\d{1,18},|\d{1,18}(?:, \d{1,18}){1,7})\), \} *\n"
)
_HEADER = re.compile(rb"\{'descr': '([<>|=][biuf][1248])" + _REST)
_TEXT_HEADER = re.compile(rb"\{'descr': '([<>|=](?:[biuf][1248]|[US][1-9]\d{0,3}))" + _REST)


class _InPieces(io.BufferedReader):
    """A stream that refuses to read much at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        """As usual, but at most 1 MiB."""
        wanted = _MAX_READ_BYTES + 1 if size is None or size < 0 else size
        data = super().read(min(wanted, _MAX_READ_BYTES + 1))
        if len(data) > _MAX_READ_BYTES:
            raise ValueError("its table of contents is too large")
        return data


class Npz(Mapping[str, Array]):
    """The arrays of an open archive by name, each read when it is asked for."""

    def __init__(self, archive: zipfile.ZipFile, *, texts: bool = False) -> None:
        self._archive = archive
        self._header = _TEXT_HEADER if texts else _HEADER
        self._members: dict[str, zipfile.ZipInfo] = {}
        for info in archive.infolist():
            name, dot, ending = info.filename.rpartition(".")
            plain = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) and not info.flag_bits & 1
            if not plain:  # bzip2 makes 4 GB of 2 KB at one go
                raise ValueError(f"'{name:.80}' is neither stored nor deflated")
            if not re.fullmatch(r"\w{1,80}", name) or dot + ending != ".npy" or name in self._members:
                raise ValueError(f"{info.filename!r:.80} is no array's name, or stands there twice")
            self._members[name] = info

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, name: object) -> bool:  # Mapping's own would read the array
        return name in self._members

    def __getitem__(self, name: str) -> Array:
        """The whole array.

        Raises:
            KeyError: there is none of that name.
            ValueError: it is larger than 1 GiB, or the archive does not hold as much as its header claims.
        """
        with self.stream(name) as (stream, dtype, shape, in_columns):
            size = math.prod(shape) * dtype.itemsize
            if size > _MAX_ARRAY_BYTES or size != self._members[name].file_size - stream.tell():
                raise ValueError(f"'{name}' claims {dtype} {shape}, which is not what it holds")
            data = bytearray()
            while piece := stream.read(_MAX_READ_BYTES):
                data += piece
        if len(data) != size:
            raise ValueError(f"'{name}' is cut short")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if in_columns else "C")

    def size(self, name: str) -> int:
        """How many bytes a member unpacks to, header included, by the archive's own account."""
        return self._members[name].file_size

    @contextlib.contextmanager
    def stream(self, name: str) -> Iterator[tuple[IO[bytes], np.dtype[Any], tuple[int, ...], bool]]:
        """An array's data as a stream, with its type and shape and whether it goes column by column (Fortran's order).

        Raises:
            KeyError, ValueError: there is none of that name, or its header is not of the form that NumPy writes.
        """
        with self._archive.open(self._members[name]) as stream:
            start = stream.read(len(_MAGIC) + 2)
            header = self._header.fullmatch(stream.read(int.from_bytes(start[len(_MAGIC) :], "little")))
            if start[: len(_MAGIC)] != _MAGIC or not header:
                raise ValueError(f"'{name}' is no plain array of numbers")
            shape = tuple(int(size) for size in re.findall(rb"\d+", header[3]))
            yield stream, np.dtype(header[1].decode()), shape, header[2] == b"True"


@contextlib.contextmanager
def open_npz(path: Path, *, links: bool = False, texts: bool = False) -> Iterator[Npz]:
    """An archive's arrays of numbers and, with ``texts``, of texts; ``links`` as for ``open_file``.

    Raises:
        OSError, ValueError, zipfile.BadZipFile: it is no regular file, no archive, or has a member that is no array.
    """
    with _InPieces(open_file(path, links=links).detach()) as stream, zipfile.ZipFile(stream) as archive:
        yield Npz(archive, texts=texts)
