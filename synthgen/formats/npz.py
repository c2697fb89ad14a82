"""NumPy's ``.npz`` archives: written and read a block at a time, so that no shard is held in memory."""

import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, ClassVar

import numpy as np

from synthgen.formats.base import IMAGE_SHAPE, Batch, Digest, Format, Run, array_loader
from synthgen.index import BLOCK_IMAGES, Shard, pieces
from synthgen.subject import Images
from synthgen.untrusted.archives import Npz, open_npz


class NPZ(Format):
    """``images`` (N, 28, 28) and ``labels`` (N,), uint8, for ``numpy.load``; compressed."""

    name = "npz"
    bytes_an_image = 500
    one_shard = True
    encodings: ClassVar = {".npz": "application/zip"}

    def write(
        self, folder: Path, shard: Shard, split: str, batches: Iterator[Batch], digest: Digest, *, labelled: bool
    ) -> list[str]:
        name, labels = f"{shard.name(split)}.npz", []
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
            with _new_member(archive, "images.npy", (shard.count, *IMAGE_SHAPE)) as stream:
                for batch in batches:
                    stream.write(batch.images.tobytes())
                    if batch.labels is not None:
                        labels.append(batch.labels.tobytes())
            if labelled:
                with _new_member(archive, "labels.npy", (shard.count,)) as stream:
                    stream.write(b"".join(labels))
        return [name]

    def read(self, folder: Path, names: Sequence[str], count: int) -> Iterator[Run]:
        with open_npz(folder / names[0]) as archive:
            if set(archive) not in ({"images"}, {"images", "labels"}):
                raise ValueError(f"holds {', '.join(sorted(archive))[:200]}; expected images and labels alone")
            images = _read_member(archive, "images", (count, *IMAGE_SHAPE))
            if "labels" in archive:  # side by side: labels for which there are no images take no memory
                yield from zip(images, _read_member(archive, "labels", (count,)), strict=True)
            else:
                yield from ((piece, None) for piece in images)

    def loader(self, split: str, *, labelled: bool) -> list[str]:
        return array_loader("", "numpy.load", f"{split}-*.npz", "", labelled=labelled)


def _new_member(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...]) -> IO[bytes]:
    """A stream for the data of a new array of an archive."""
    info = zipfile.ZipInfo(name)  # dated 1980: the same set gives the same bytes
    info.compress_type = zipfile.ZIP_DEFLATED
    stream = archive.open(info, "w", force_zip64=True)
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return stream


def _read_member(archive: Npz, name: str, shape: tuple[int, ...]) -> Iterator[Images]:
    """An array of an archive, a block of rows at a time."""
    with archive.stream(name) as (stream, dtype, found_shape, in_columns):
        if found_shape != shape or dtype != np.uint8 or in_columns:
            raise ValueError(f"'{name}' is {dtype} {found_shape}; expected uint8 {shape}")
        for piece in pieces(shape[0], BLOCK_IMAGES):
            rows = (piece.stop - piece.start, *shape[1:])
            data = stream.read(math.prod(rows))
            if len(data) != math.prod(rows):
                raise ValueError(f"'{name}' is cut short")
            yield np.frombuffer(data, np.uint8).reshape(rows)
        if stream.read(1):
            raise ValueError(f"'{name}' is longer than {shape}")
