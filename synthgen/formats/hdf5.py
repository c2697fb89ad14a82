"""HDF5 shards: written by h5py, read through ``untrusted.datasets``."""

import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np

from synthgen.formats.base import IMAGE_SHAPE, MAX_DEFLATE_RATIO, Batch, Digest, Format, Run, array_loader
from synthgen.index import BLOCK_IMAGES, Shard, pieces
from synthgen.untrusted.datasets import Rows, open_hdf5, own_dataset

_NAMES = "images", "labels"
_CHUNK_IMAGES = 64  # random access decompresses 50 KB, not a megabyte


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
            file.attrs["class_names"] = list(self.subject.class_names)
            file.attrs["first_id"] = shard.start
            for batch in batches:
                first = batch.start - shard.start
                images[first : first + len(batch)] = batch.images
                if labels is not None:
                    labels[first : first + len(batch)] = batch.labels
            file.attrs["digest"] = digest()
        return [name]

    def read(self, folder: Path, names: Sequence[str], count: int) -> Iterator[Run]:
        with open_hdf5(folder / names[0]) as file:
            if len(file) > len(_NAMES) or set(file) not in ({"images"}, set(_NAMES)):
                raise ValueError("holds other datasets than images and labels")
            shapes = dict(zip(_NAMES, ((count, *IMAGE_SHAPE), (count,)), strict=True))
            datasets = [Rows(_checked_dataset(file, name, shapes[name])) for name in _NAMES if name in set(file)]
            for piece in pieces(count, BLOCK_IMAGES):
                images, *labels = (rows.take(piece.stop - piece.start) for rows in datasets)
                yield images, labels[0] if labels else None

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


def _checked_dataset(file: h5py.File, name: str, shape: tuple[int, ...]) -> h5py.Dataset:
    dataset = own_dataset(file, name)
    if dataset.shape != shape or dataset.dtype != np.uint8:
        raise ValueError(f"'{name}' is {dataset.dtype} {dataset.shape}; expected uint8 {shape}")
    if math.prod(shape) > dataset.id.get_storage_size() * MAX_DEFLATE_RATIO:  # HDF5 gives zeros for what is not there
        raise ValueError(f"'{name}' claims {shape} and stores {dataset.id.get_storage_size()} bytes")
    return dataset
