"""HDF5 shards through h5py, and what any HDF5 file from a stranger must be before a byte of it is read."""

import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np

from synthgen.fashion import CLASS_NAMES
from synthgen.formats.base import IMAGE_SHAPE, MAX_DEFLATE_RATIO, Batch, Digest, Format, Run, array_loader
from synthgen.index import BLOCK_IMAGES, Shard

_CHUNK_IMAGES = 64  # random access decompresses 50 KB, not a megabyte
_MAX_CHUNK_BYTES = 16 << 20  # 16 MiB: what reading any one element may have to decompress


class HDF5(Format):
    """Datasets ``images`` (N, 28, 28) and ``labels`` (N,), uint8; class names and digest as attributes."""

    name = "hdf5"
    bytes_an_image = 500
    data_files = "{split}-*.h5"
    encodings: ClassVar = {".h5": "application/x-hdf5"}

    def write(
        self, folder: Path, shard: Shard, split: str, batches: Iterator[Batch], digest: Digest, *, labelled: bool
    ) -> list[str]:
        name, chunk = f"{shard.name(split)}.h5", min(_CHUNK_IMAGES, shard.count)
        with _HeldErrorFile(folder / name, "w+") as stream, h5py.File(stream, "w") as file:
            images = file.create_dataset(
                "images",
                (shard.count, *IMAGE_SHAPE),
                np.uint8,
                chunks=(chunk, *IMAGE_SHAPE),
                compression="gzip",
                compression_opts=4,
            )
            labels = file.create_dataset("labels", (shard.count,), np.uint8) if labelled else None
            file.attrs["class_names"] = list(CLASS_NAMES)
            file.attrs["first_id"] = shard.start
            for batch in batches:
                first = batch.start - shard.start
                images[first : first + len(batch)] = batch.images
                if labels is not None:
                    labels[first : first + len(batch)] = batch.labels
            file.attrs["digest"] = digest()
        return [name]

    def read(self, folder: Path, names: Sequence[str], count: int) -> Iterator[Run]:
        with h5py.File(folder / names[0], "r") as file:
            images = _checked_dataset(file, "images", (count, *IMAGE_SHAPE))
            labels = _checked_dataset(file, "labels", (count,)) if "labels" in file else None
            for first in range(0, count, BLOCK_IMAGES):
                piece = slice(first, first + BLOCK_IMAGES)
                yield images[piece], None if labels is None else labels[piece]

    def loader(self, split: str, *, labelled: bool) -> list[str]:
        return array_loader("h5py", "h5py.File", f"{split}-*.h5", "[:]", labelled=labelled)


class _HeldErrorFile(io.FileIO):
    """A file whose first failed write is raised when it is closed.

    The HDF5 library flushes its caches whenever and from wherever it likes, and a flush that fails brings the whole
    process down. So writes after a failure are dropped, and the failure is raised once HDF5 is out of the way.
    """

    _failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        written = 0
        while written < len(view) and self._failure is None:  # a raw write may be short, and h5py does not check
            try:
                written += super().write(view[written:])
            except OSError as error:
                self._failure = error
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        return super().truncate(size) if self._failure is None else (size or 0)

    def close(self) -> None:
        super().close()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure


def own_dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """The dataset ``group[name]`` of a file that may come from a stranger.

    Raises:
        ValueError: it is missing, a link, no dataset, keeps its data elsewhere, or comes in huge chunks.
    """
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):  # another link could reach another file
        raise ValueError(f"{name!r:.80} is missing or a link")
    dataset = group[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
        raise ValueError(f"{name!r:.80} does not hold its own data")
    if dataset.chunks and math.prod(dataset.chunks) * int(dataset.dtype.itemsize) > _MAX_CHUNK_BYTES:
        raise ValueError(f"{name!r:.80} has chunks of {dataset.chunks}, too large to read piece by piece")
    return dataset


def _checked_dataset(file: h5py.File, name: str, shape: tuple[int, ...]) -> h5py.Dataset:
    dataset = own_dataset(file, name)
    if dataset.shape != shape or dataset.dtype != np.uint8:
        raise ValueError(f"'{name}' is {dataset.dtype} {dataset.shape}; expected uint8 {shape}")
    if math.prod(shape) > dataset.id.get_storage_size() * MAX_DEFLATE_RATIO:  # HDF5 gives zeros for what is not there
        raise ValueError(f"'{name}' claims {shape} and stores {dataset.id.get_storage_size()} bytes")
    return dataset
