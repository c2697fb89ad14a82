"""HDF5 files from strangers: what a dataset must be before a byte of it is read."""

import math

import h5py

_MAX_CHUNK_BYTES = 16 << 20  # 16 MiB: what reading any one element may have to decompress


def own_dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """The dataset ``group[name]``.

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
