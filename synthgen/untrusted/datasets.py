"""HDF5 files: own datasets of plain numbers only, inflated here and never by the library.

The library inflates a chunk to whatever it unpacks to, and loads a filter it does not know from a plug-in.
"""

import contextlib
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from synthgen.untrusted.files import inflated, open_file
from synthgen.untrusted.text import MAX_DEPTH

Array = npt.NDArray[Any]

_MAX_CHUNK_BYTES = 16 << 20  # 16 MiB: what reading any one element may have to decompress
_DEFLATE, _SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE
_MAX_ROWS_BYTES = 512 << 20  # 512 MiB: of all chunks that hold the same rows
_MAX_ENTRIES = 2_000  # groups and datasets of a file


@contextlib.contextmanager
def open_hdf5(path: Path, *, links: bool = False) -> Iterator[h5py.File]:
    """An HDF5 file to read; ``links`` as for ``open_file``; use ``own_dataset`` and ``Rows`` on it.

    Raises:
        OSError: it is no regular file, or no HDF5.
    """
    open_file(path, links=links).close()
    while h5py.h5pl.size():  # places where the library would look for code
        h5py.h5pl.remove(0)
    with h5py.File(path, "r") as file:
        yield file


def own_entry(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    """``group[name]``; raises ValueError where it is missing or a link, which could reach another file."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name!r:.80} is missing or a link")
    return group[name]


def own_dataset(group: h5py.Group, name: str, *, any_chunks: bool = False) -> h5py.Dataset:
    """The dataset ``group[name]``, of numbers.

    Args:
        group: an open file, or a group in it.
        name: of the dataset.
        any_chunks: its chunks may be parts of rows and their bytes shuffled, as h5py makes them unless told otherwise.

    Raises:
        ValueError: it is missing, a link, no dataset of numbers, keeps its data elsewhere, comes in huge chunks or,
            without ``any_chunks``, in chunks that are no rows, or is packed otherwise than by gzip.
    """
    dataset = own_entry(group, name)
    if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
        raise ValueError(f"{name!r:.80} does not hold its own data")
    if dataset.dtype.kind not in "fiu" or dataset.dtype.itemsize > 8:
        raise ValueError(f"{name!r:.80} is {dataset.dtype}; expected numbers")
    if dataset.chunks is not None:
        _expect_plain_chunks(dataset, name, any_chunks)
    return dataset


def own_datasets(group: h5py.Group) -> Iterator[h5py.Dataset]:
    """Every dataset below ``group``, sorted by name; raises as ``own_dataset``, and where there are above 2,000."""
    yield from _below(group, iter(range(_MAX_ENTRIES)), 0)


def _below(group: h5py.Group, left: Iterator[int], depth: int) -> Iterator[h5py.Dataset]:
    # Groups may hold each other: in a circle, or each twice the next, which doubles their number at every step.
    if len(group) > _MAX_ENTRIES or depth > MAX_DEPTH:
        raise ValueError(f"more than {_MAX_ENTRIES:,} arrays, or groups nested deeper than {MAX_DEPTH}")
    for name in sorted(group):
        if next(left, None) is None:
            raise ValueError(f"more than {_MAX_ENTRIES:,} arrays")
        entry = own_entry(group, name)
        if isinstance(entry, h5py.Group):
            yield from _below(entry, left, depth + 1)
        else:
            yield own_dataset(group, name)


def _expect_plain_chunks(dataset: h5py.Dataset, name: str, any_chunks: bool) -> None:
    chunks: tuple[int, ...] = dataset.chunks
    if math.prod(chunks) * int(dataset.dtype.itemsize) > _MAX_CHUNK_BYTES:
        raise ValueError(f"{name!r:.80} has chunks of {chunks}, too large to read piece by piece")
    filters = _filters(dataset)
    as_stored = dataset.id.get_type().equal(h5py.h5t.py_create(dataset.dtype))
    if any_chunks:
        if filters not in ([], [_DEFLATE], [_SHUFFLE, _DEFLATE]) or not as_stored:
            raise ValueError(f"{name!r:.80}: expected chunks packed by gzip or not at all")
        if chunks[0] * math.prod(dataset.shape[1:]) * int(dataset.dtype.itemsize) > _MAX_ROWS_BYTES:
            raise ValueError(f"{name!r:.80} has chunks of {chunks}: too many rows to read at once")
        return
    if filters not in ([], [_DEFLATE]) or chunks[1:] != dataset.shape[1:] or not as_stored:
        raise ValueError(f"{name!r:.80}: expected whole rows in a chunk, packed by gzip or not at all")


def _filters(dataset: h5py.Dataset) -> list[int]:
    layout = dataset.id.get_create_plist()
    return [layout.get_filter(i)[0] for i in range(layout.get_nfilters())]


class Rows:
    """The rows of a dataset from ``own_dataset``, along its first axis, taken in order; a chunk is inflated once.

    >>> rows = Rows(own_dataset(file, "images"))  # doctest: +SKIP
    >>> images = rows.take(256)  # doctest: +SKIP
    """

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset, self._next = dataset, 0
        self._rest: Array = np.empty((0, *dataset.shape[1:]), dataset.dtype)  # of the chunk last read
        self._chunk_bytes = math.prod(dataset.chunks or ()) * int(dataset.dtype.itemsize)
        # What does not shrink is stored with a few bytes for every 16 KiB.
        self._buffer = bytearray(self._chunk_bytes + (self._chunk_bytes >> 10) + 1024)

    def take(self, count: int) -> Array:
        """The next ``count`` rows.

        Raises:
            OSError, ValueError: they are not stored, or damaged.
        """
        parts = []
        while count:
            if not len(self._rest):
                self._rest = self._read(count)
            parts.append(self._rest[:count])
            self._rest = self._rest[count:]
            count -= len(parts[-1])
        return parts[0] if len(parts) == 1 else np.concatenate([self._rest[:0], *parts])

    def _read(self, count: int) -> Array:
        """At least one row more: a chunk, or what is wanted of a dataset without chunks."""
        dataset, first = self._dataset, self._next
        if first >= dataset.shape[0]:
            raise ValueError(f"{dataset.name!r:.80} has {dataset.shape[0]} rows, not more")
        if dataset.chunks is None:
            self._next = min(first + count, dataset.shape[0])
            rows: Array = dataset[first : self._next]
            return rows
        chunks = dataset.chunks
        self._next = first + chunks[0]
        starts = [range(0, size, step) for size, step in zip(dataset.shape[1:], chunks[1:], strict=True)]
        if chunks[1:] == dataset.shape[1:]:
            return self._chunk((first, *(0 for _ in starts)))[: dataset.shape[0] - first]
        joined = np.empty((chunks[0], *dataset.shape[1:]), dataset.dtype)
        for offsets in itertools.product(*starts):
            place = tuple(slice(start, start + step) for start, step in zip(offsets, chunks[1:], strict=True))
            part = joined[:, *place]  # less than a chunk at the far edges
            part[...] = self._chunk((first, *offsets))[:, *(slice(size) for size in part.shape[1:])]
        return joined[: dataset.shape[0] - first]

    def _chunk(self, offsets: tuple[int, ...]) -> Array:
        """The chunk that begins at ``offsets``."""
        dataset = self._dataset
        mask, stored = dataset.id.read_direct_chunk(offsets, out=self._buffer)
        packed = dataset.compression is not None and not mask
        data = inflated(bytes(stored), self._chunk_bytes) if packed else bytes(stored)
        if len(data) != self._chunk_bytes:
            raise ValueError(f"{dataset.name!r:.80}: a chunk holds {len(data):,} of {self._chunk_bytes:,} bytes")
        if dataset.shuffle:
            if mask:
                raise ValueError(f"{dataset.name!r:.80}: a chunk is packed otherwise than the others")
            data = np.frombuffer(data, np.uint8).reshape(dataset.dtype.itemsize, -1).T.tobytes()
        array: Array = np.frombuffer(data, dataset.dtype).reshape(dataset.chunks)
        return array


def whole(dataset: h5py.Dataset) -> Array:
    """All of a dataset from ``own_dataset``, whose size the caller has found acceptable; raises as ``Rows.take``."""
    array: Array = dataset[()] if dataset.chunks is None else Rows(dataset).take(dataset.shape[0])
    return array
