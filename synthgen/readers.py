"""Read exported shards back, each format by its own reader and none through TensorFlow.

A reader takes the shard's files and yields runs of (images, labels): uint8 of shape (n, 28, 28) and uint8 of
shape (n,) or None. Files may come from strangers: shapes and lengths are checked before anything is allocated.
"""

import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from synthgen.datasets import read_idx_images, read_idx_labels
from synthgen.errors import DataError, VerificationError
from synthgen.fashion import CLASS_NAMES, IMAGE_SIDE, NUM_CLASSES, class_folder
from synthgen.files import is_inside, is_own_file
from synthgen.hdf5 import own_dataset
from synthgen.shards import BLOCK_IMAGES

Run = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]

_IMAGE_SHAPE = (IMAGE_SIDE, IMAGE_SIDE)
_MAX_RECORD_BYTES = 1 << 16  # a 28×28 PNG takes about 600
_MAX_LISTING_BYTES = 1 << 30


def read_shard(file_format: str, folder: Path, names: list[str], count: int) -> Iterator[Run]:
    """Yield the images of one shard, in index order.

    Args:
        file_format: a key of ``READERS``.
        folder: the exported set.
        names: the shard's files, relative to ``folder``.
        count: how many images the shard must hold.

    Raises:
        VerificationError: a file is malformed, or the shard holds fewer or more than ``count`` images.
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
            yield images, labels
    except (OSError, EOFError, KeyError, ValueError, zlib.error, zipfile.BadZipFile, DataError) as error:
        raise VerificationError(f"{names[0]}: not readable as {file_format}: {error}") from error
    if found != count:
        amount = f"{found} images" if found < count else "more images"
        raise VerificationError(f"{names[0]}: {amount} found; expected {count}")


def _read_tfrecord(folder: Path, names: list[str], count: int) -> Iterator[Run]:
    with (folder / names[0]).open("rb") as stream:
        while records := [record for _ in range(BLOCK_IMAGES) if (record := _next_record(stream)) is not None]:
            examples = [_parse_example(record) for record in records]
            images = np.stack([_decode_png(example["image"]) for example in examples])
            labels = [example["label"] for example in examples if "label" in example]
            yield images, _as_labels(labels, len(images))


def _next_record(stream: io.BufferedReader) -> bytes | None:
    """One TFRecord: length (u64), its checksum (u32), data, its checksum (u32). SHA-256 guards the whole file."""
    header = stream.read(12)
    if not header:
        return None
    length = int.from_bytes(header[:8], "little")
    if len(header) < 12 or length > _MAX_RECORD_BYTES:
        raise ValueError(f"a record claims {length} bytes")
    data = stream.read(length + 4)
    if len(data) < length + 4:
        raise ValueError("the last record is cut short")
    return data[:length]


def _parse_example(record: bytes) -> dict[str, bytes]:
    """The features of a serialised tf.train.Example: bytes as they are, an integer as its varint's bytes.

    Example {features=1 {feature=1 map {key=1, value=2 {bytes_list=1 | int64_list=3 {value=1}}}}}
    """
    found = {}
    for features in _submessages(record, 1):
        for entry in _submessages(features, 1):
            key = _only(entry, 1).decode()
            (value,) = (v for number, v in _wire_fields(_only(entry, 2)) if number in (1, 3))
            found[key] = _only(value, 1)
    if "image" not in found:
        raise ValueError("a record has no feature 'image'")
    return found


def _only(message: bytes, number: int) -> bytes:
    (value,) = _submessages(message, number)
    return value


def _submessages(message: bytes, number: int) -> list[bytes]:
    return [value for n, value in _wire_fields(message) if n == number]


def _wire_fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Field numbers and payloads of a protocol-buffer message of length-delimited fields."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        if tag & 7 != 2:
            raise ValueError("a record is no tf.train.Example of this layout")
        length, position = _varint(message, position)
        if position + length > len(message):
            raise ValueError("a record's field is cut short")
        yield tag >> 3, message[position : position + length]
        position += length


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a record's integer is cut short")


def _as_labels(varints: list[bytes], count: int) -> npt.NDArray[np.uint8] | None:
    if not varints:
        return None
    if len(varints) != count or any(len(v) != 1 or v[0] >= NUM_CLASSES for v in varints):
        raise ValueError("a record's label is missing or out of range")
    return np.frombuffer(b"".join(varints), np.uint8)


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
    return dataset


def _read_png(folder: Path, names: list[str], count: int) -> Iterator[Run]:
    entries = read_listing(folder / names[0])
    for first in range(0, len(entries), BLOCK_IMAGES):
        piece = [name for _, name in entries[first : first + BLOCK_IMAGES]]
        images = np.stack([_read_png_file(folder, name) for name in piece])
        labels = [_LABEL_OF_FOLDER.get(Path(name).parent.name) for name in piece]
        known = [label for label in labels if label is not None]
        yield images, np.array(known, np.uint8) if len(known) == len(piece) else None


def _read_png_file(folder: Path, name: str) -> npt.NDArray[np.uint8]:
    if not is_own_file(folder, name):
        raise ValueError(f"{name} is missing")
    with (folder / name).open("rb") as stream:
        return _decode_png(stream.read(_MAX_RECORD_BYTES))


def read_listing(path: Path) -> list[tuple[str, str]]:
    """(SHA-256, name) of every image in a PNG shard, from its ``sha256sum`` listing in index order.

    Raises:
        ValueError: a line that is not of that form, or a name that leaves the folder.
    """
    if path.stat().st_size > _MAX_LISTING_BYTES:
        raise ValueError("the listing is too large")
    entries = []
    for line in path.read_text("utf-8").splitlines():
        digest, separator, name = line.partition("  ")
        if not separator or len(digest) != 64 or not is_inside(name):
            raise ValueError(f"listing line {line[:120]!r} is not of the form 'SHA-256  name'")
        entries.append((digest, name))
    return entries


def _read_idx(folder: Path, names: list[str], count: int) -> Iterator[Run]:
    images = read_idx_images(folder / names[0], count)
    labels = read_idx_labels(folder / names[1], count) if len(names) > 1 else None
    yield images, labels


def _read_npz(folder: Path, names: list[str], count: int) -> Iterator[Run]:
    with zipfile.ZipFile(folder / names[0]) as archive:
        images = _npy_member(archive, "images.npy", (count, *_IMAGE_SHAPE))
        labelled = "labels.npy" in archive.namelist()
        yield images, _npy_member(archive, "labels.npy", (count,)) if labelled else None


def _npy_member(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    with archive.open(name) as stream:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"'{name}' has .npy version {version}; expected (1, 0)")
        found_shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
        if found_shape != shape or dtype != np.uint8 or fortran_order:
            raise ValueError(f"'{name}' is {dtype} {found_shape}; expected uint8 {shape}")
        size = int(np.prod(shape, dtype=np.int64))
        data = stream.read(size + 1)
    if len(data) != size:
        raise ValueError(f"'{name}' holds {len(data)} bytes or more; expected {size}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _decode_png(data: bytes) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.size != _IMAGE_SHAPE or image.mode != "L":
                raise ValueError(f"an image is {image.mode} {image.size}; expected L {_IMAGE_SHAPE}")
            return np.asarray(image)
    except (UnidentifiedImageError, SyntaxError) as error:
        raise ValueError(f"an image is no PNG: {error}") from error


_LABEL_OF_FOLDER = {class_folder(label): label for label in range(len(CLASS_NAMES))}

READERS: dict[str, Callable[[Path, list[str], int], Iterator[Run]]] = {
    "tfrecord": _read_tfrecord,
    "hdf5": _read_hdf5,
    "png": _read_png,
    "idx": _read_idx,
    "idx-raw": _read_idx,
    "npz": _read_npz,
}
