"""HDF5 shards through h5py, and what any HDF5 file from a stranger must be before a byte of it is read."""

import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from synthgen.fashion import CLASS_NAMES
from synthgen.formats.base import IMAGE_SHAPE, MAX_DEFLATE_RATIO, Batch, Format, Run, Writer, array_loader
from synthgen.index import BLOCK_IMAGES, Shard

if TYPE_CHECKING:
    import h5py  # takes a tenth of a second: imported where it is used

_CHUNK_IMAGES = 64  # random access decompresses 50 KB, not a megabyte
_MAX_CHUNK_BYTES = 16 << 20  # 16 MiB: what reading any one element may have to decompress


class HDF5(Format):
    """Datasets ``images`` (N, 28, 28) and ``labels`` (N,), uint8; class names and digest as attributes."""

    name = "hdf5"
    bytes_an_image = 500
    data_files = "{split}-*.h5"
    encodings: ClassVar = {".h5": "application/x-hdf5"}

    def writer(self, folder: Path, shard: Shard, split: str, *, labelled: bool) -> Writer:
        return _HDF5Writer(folder, shard, split, labelled=labelled, names=[f"{shard.name(split)}.h5"])

    def read(self, folder: Path, names: Sequence[str], count: int) -> Iterator[Run]:
        import h5py

        with h5py.File(folder / names[0], "r") as file:
            images = _checked_dataset(file, "images", (count, *IMAGE_SHAPE))
            labels = _checked_dataset(file, "labels", (count,)) if "labels" in file else None
            for first in range(0, count, BLOCK_IMAGES):
                piece = slice(first, first + BLOCK_IMAGES)
                yield images[piece], None if labels is None else labels[piece]

    def loader(self, split: str, *, labelled: bool) -> list[str]:
        return array_loader("h5py", "h5py.File", f"{split}-*.h5", "[:]", labelled=labelled)


class _HDF5Writer(Writer):
    def begin(self) -> None:
        import h5py

        stream = self.opened.enter_context(_HeldErrorFile(self.paths[0], "w+"))
        self._file = self.opened.enter_context(h5py.File(stream, "w"))
        self._images = self._file.create_dataset(
            "images",
            (self.shard.count, *IMAGE_SHAPE),
            np.uint8,
            chunks=(min(_CHUNK_IMAGES, self.shard.count), *IMAGE_SHAPE),
            compression="gzip",
            compression_opts=4,
        )
        self._labels = self._file.create_dataset("labels", (self.shard.count,), np.uint8) if self.labelled else None
        self._file.attrs["class_names"] = list(CLASS_NAMES)
        self._file.attrs["first_id"] = self.shard.start

    def write(self, batch: Batch) -> None:
        first = batch.start - self.shard.start
        self._images[first : first + len(batch)] = batch.images
        if self._labels is not None:
            self._labels[first : first + len(batch)] = batch.labels

    def finish(self, digest: str) -> None:
        self._file.attrs["digest"] = digest


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


def own_dataset(group: "h5py.Group", name: str) -> "h5py.Dataset":
    """The dataset ``group[name]`` of a file that may come from a stranger.

    Raises:
        ValueError: it is missing, a link, no dataset, keeps its data elsewhere, or comes in huge chunks.
    """
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):  # another link could reach another file
        raise ValueError(f"{name!r:.80} is missing or a link")
    dataset = group[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
        raise ValueError(f"{name!r:.80} does not hold its own data")
    if dataset.chunks and math.prod(dataset.chunks) * int(dataset.dtype.itemsize) > _MAX_CHUNK_BYTES:
        raise ValueError(f"{name!r:.80} has chunks of {dataset.chunks}, too large to read piece by piece")
    return dataset


def _checked_dataset(file: "h5py.File", name: str, shape: tuple[int, ...]) -> "h5py.Dataset":
    dataset = own_dataset(file, name)
    if dataset.shape != shape or dataset.dtype != np.uint8:
        raise ValueError(f"'{name}' is {dataset.dtype} {dataset.shape}; expected uint8 {shape}")
    if math.prod(shape) > dataset.id.get_storage_size() * MAX_DEFLATE_RATIO:  # HDF5 gives zeros for what is not there
        raise ValueError(f"'{name}' claims {shape} and stores {dataset.id.get_storage_size()} bytes")
    return dataset
