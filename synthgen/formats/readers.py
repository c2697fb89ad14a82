"""Read exported shards back, each format by its own reader and none through TensorFlow.

A reader takes the shard's files and yields runs of (images, labels): uint8 of shape (n, 28, 28) and uint8 of
shape (n,) or None. Files may come from strangers: shapes and lengths are checked before anything is allocated.
"""

import math
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from synthgen.errors import DataError, VerificationError
from synthgen.fashion import CLASS_NAMES, IMAGE_SIDE, NUM_CLASSES, class_folder
from synthgen.files import MALFORMED, is_inside, is_own_file, sha256_of_bytes
from synthgen.formats.hdf5 import own_dataset
from synthgen.formats.idx import iterate_idx_images, read_idx_labels
from synthgen.formats.png import decode_png
from synthgen.formats.tfrecord import next_record, parse_example
from synthgen.index import BLOCK_IMAGES, pieces

Run = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]

_IMAGE_SHAPE = (IMAGE_SIDE, IMAGE_SIDE)
_UNREADABLE: tuple[type[Exception], ...] = (*MALFORMED, DataError)
_MAX_PNG_BYTES = 1 << 16  # a 28×28 PNG takes about 600
_MAX_LISTING_LINE_BYTES = 200  # an image: 64 hexadecimal digits and a path of about 40
_MAX_DEFLATE_RATIO = 1032  # no deflated byte stands for more


def read_shard(file_format: str, folder: Path, names: list[str], count: int) -> Iterator[Run]:
    """Yield the images of one shard, in index order.

    Args:
        file_format: a key of ``READERS``.
        folder: the exported set.
        names: the shard's files, relative to ``folder``.
        count: how many images the shard must hold.

    Raises:
        VerificationError: a file is malformed, holds a label above 9, or the shard holds fewer or more than ``count``
            images.
    """
    found = 0
    for name in names:
        if not is_own_file(folder, name):
            raise VerificationError(f"{name}: missing")
    try:
        for images, labels in READERS[file_format](folder, names, count):
            found += len(images)
            if found > count:
                break
            if labels is not None and labels.max(initial=0) >= NUM_CLASSES:
                raise VerificationError(f"{names[0]}: label {labels.max()} found; expected 0 to {NUM_CLASSES - 1}")
            yield images, labels
    except _UNREADABLE as error:
        raise VerificationError(f"{names[0]}: not readable as {file_format}: {error}") from error
    if found != count:
        amount = f"{found} images" if found < count else "more images"
        raise VerificationError(f"{names[0]}: {amount} found; expected {count}")


def _read_tfrecord(folder: Path, names: list[str], count: int) -> Iterator[Run]:
    with (folder / names[0]).open("rb") as stream:
        while records := [record for _ in range(BLOCK_IMAGES) if (record := next_record(stream)) is not None]:
            examples = [parse_example(record) for record in records]
            images = np.stack([decode_png(image) for image, _ in examples])
            yield images, _as_labels([label for _, label in examples])


def _as_labels(labels: list[int | None]) -> npt.NDArray[np.uint8] | None:
    known = [label for label in labels if label is not None]
    if not known:
        return None
    if len(known) != len(labels) or max(known) >= NUM_CLASSES:
        raise ValueError("a record's label is missing or out of range")
    return np.array(known, np.uint8)


def _read_hdf5(folder: Path, names: list[str], count: int) -> Iterator[Run]:
    with h5py.File(folder / names[0], "r") as file:
        images = _checked_dataset(file, "images", (count, *_IMAGE_SHAPE))
        labels = _checked_dataset(file, "labels", (count,)) if "labels" in file else None
        for first in range(0, count, BLOCK_IMAGES):
            piece = slice(first, first + BLOCK_IMAGES)
            yield images[piece], None if labels is None else labels[piece]


def _checked_dataset(file: h5py.File, name: str, shape: tuple[int, ...]) -> h5py.Dataset:
    dataset = own_dataset(file, name)
    if dataset.shape != shape or dataset.dtype != np.uint8:
        raise ValueError(f"'{name}' is {dataset.dtype} {dataset.shape}; expected uint8 {shape}")
    if math.prod(shape) > dataset.id.get_storage_size() * _MAX_DEFLATE_RATIO:  # HDF5 gives zeros for what is not there
        raise ValueError(f"'{name}' claims {shape} and stores {dataset.id.get_storage_size()} bytes")
    return dataset


def _read_png(folder: Path, names: list[str], count: int) -> Iterator[Run]:
    entries = read_listing(folder / names[0], count)
    for piece in pieces(len(entries), BLOCK_IMAGES):
        images = np.stack([_read_png_file(folder, digest, name) for digest, name in entries[piece]])
        labels = [_LABEL_OF_FOLDER.get(name.split("/")[-2]) for _, name in entries[piece] if "/" in name]
        known = [label for label in labels if label is not None]
        yield images, np.array(known, np.uint8) if len(known) == len(images) else None


def _read_png_file(folder: Path, digest: str, name: str) -> npt.NDArray[np.uint8]:
    """One image, hashed before it is decoded: the listing vouches for it, as the manifest does for the listing."""
    if not is_own_file(folder, name):
        raise ValueError(f"{name}: missing")
    with (folder / name).open("rb") as stream:
        data = stream.read(_MAX_PNG_BYTES)
    if sha256_of_bytes(data) != digest:
        raise ValueError(f"{name}: altered: its SHA-256 is not the one listed")
    return decode_png(data)


def read_listing(path: Path, count: int) -> list[tuple[str, str]]:
    """(SHA-256, name) of every image in a PNG shard, from its ``sha256sum`` listing in index order.

    Args:
        path: the listing.
        count: how many images the shard is said to hold.

    Raises:
        ValueError: a line that is not of that form, a name that leaves the folder, or far too many bytes for ``count``.
    """
    if path.stat().st_size > count * _MAX_LISTING_LINE_BYTES:
        raise ValueError(f"the listing is too large for {count} images")
    entries = []
    for line in path.read_text("utf-8").splitlines():
        digest, separator, name = line.partition("  ")
        if not separator or len(digest) != 64 or not is_inside(name):
            raise ValueError(f"listing line {line[:120]!r} is not of the form 'SHA-256  name'")
        entries.append((digest, name))
    return entries


def _read_idx(folder: Path, names: list[str], count: int) -> Iterator[Run]:
    labels = read_idx_labels(folder / names[1], count) if len(names) > 1 else None
    first = 0
    for images in iterate_idx_images(folder / names[0], count, BLOCK_IMAGES):
        yield images, None if labels is None else labels[first : first + len(images)]
        first += len(images)


def _read_npz(folder: Path, names: list[str], count: int) -> Iterator[Run]:
    with zipfile.ZipFile(folder / names[0]) as archive:
        images = _npy_member(archive, "images.npy", (count, *_IMAGE_SHAPE))
        if "labels.npy" in archive.namelist():  # side by side: labels for which there are no images take no memory
            yield from zip(images, _npy_member(archive, "labels.npy", (count,)), strict=True)
        else:
            yield from ((piece, None) for piece in images)


def _npy_member(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...]) -> Iterator[npt.NDArray[np.uint8]]:
    """An array of an archive, a block of rows at a time."""
    with archive.open(name) as stream:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"'{name}' has .npy version {version}; expected (1, 0)")
        found_shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
        if found_shape != shape or dtype != np.uint8 or fortran_order:
            raise ValueError(f"'{name}' is {dtype} {found_shape}; expected uint8 {shape}")
        for piece in pieces(shape[0], BLOCK_IMAGES):
            rows = (piece.stop - piece.start, *shape[1:])
            data = stream.read(math.prod(rows))
            if len(data) != math.prod(rows):
                raise ValueError(f"'{name}' is cut short")
            yield np.frombuffer(data, np.uint8).reshape(rows)
        if stream.read(1):
            raise ValueError(f"'{name}' is longer than {shape}")


_LABEL_OF_FOLDER = {class_folder(label): label for label in range(len(CLASS_NAMES))}

READERS: dict[str, Callable[[Path, list[str], int], Iterator[Run]]] = {
    "tfrecord": _read_tfrecord,
    "hdf5": _read_hdf5,
    "png": _read_png,
    "idx": _read_idx,
    "idx-raw": _read_idx,
    "npz": _read_npz,
}
