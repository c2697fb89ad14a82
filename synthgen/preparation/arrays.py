"""Images in arrays: IDX files by MNIST's names, NPZ and HDF5 by usual names. They are read some rows at a time."""

import contextlib
import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from synthgen.errors import DataError
from synthgen.formats.base import MAX_DEFLATE_RATIO
from synthgen.preparation.parts import Part, Pixels, Source, classes_of, reading
from synthgen.untrusted.archives import open_npz
from synthgen.untrusted.datasets import Rows, open_hdf5, own_dataset, whole
from synthgen.untrusted.files import open_unpacked

# Lower-case names of images and labels, of the training and of the test split.
_PAIRS = {
    "train": [
        ("images", "labels"), ("image", "label"), ("x_train", "y_train"), ("train_images", "train_labels"),
        ("train_x", "train_y"), ("x", "y"), ("data", "labels"), ("data", "target"), ("data", "label"),
    ],
    "test": [("x_test", "y_test"), ("test_images", "test_labels"), ("test_x", "test_y")],
}  # fmt: skip
_IDX_IMAGES = re.compile(r"(.*)images[.-]idx(\d)-ubyte(\.gz)?$")
_IDX_PREFIXES = {"train": "train-", "test": "t10k-"}
_CHUNK_IMAGES, _CHUNK_BYTES = 256, 32 << 20
_MAX_IMAGE_BYTES = 512 << 20  # 512 MiB
_MAX_LABEL_BYTES = 1 << 30
_CHANNELS = (1, 3, 4)

Take = Callable[[int], Pixels]  # the next so many rows
OpenRows = Callable[[], AbstractContextManager[Take]]


def npz_source(path: Path) -> Source:
    """What an NPZ archive holds; raises DataError."""
    with reading(path, "NPZ"), open_npz(path, links=True, texts=True) as archive:
        pairs, left_out = _pairs(path, list(archive))
        parts: dict[str, Part] = {}
        for split, (images, labels) in pairs.items():
            found = _flat(archive[labels])
            with archive.stream(images) as (stream, dtype, shape, in_columns):
                held = archive.size(images) - stream.tell()
            _expect_numbers(images, dtype)
            if math.prod(shape) * dtype.itemsize != held:
                raise ValueError(f"'{images}' claims {dtype} {shape}, which is not what it holds")
            rows = _npz_columns(path, images) if in_columns else _npz_rows(path, images)
            parts[split] = _part(path, "NPZ", images, shape, dtype, found, rows)
    return Source(kind="NPZ", train=parts.get("train"), test=parts.get("test"), left_out=left_out)


def hdf5_source(path: Path) -> Source:
    """What an HDF5 file holds; raises DataError."""
    with reading(path, "HDF5"), open_hdf5(path, links=True) as file:
        pairs, left_out = _pairs(path, [str(name) for name in file])
        parts: dict[str, Part] = {}
        for split, (images, labels) in pairs.items():
            dataset, marks = (own_dataset(file, name, any_chunks=True) for name in (images, labels))
            for found in (dataset, marks):
                size = math.prod(found.shape) * found.dtype.itemsize
                if size > found.id.get_storage_size() * MAX_DEFLATE_RATIO:  # HDF5 gives zeros for what is not there
                    raise ValueError(f"{found.name!r:.80} claims {found.shape}, which is not what it holds")
            if math.prod(marks.shape) * marks.dtype.itemsize > _MAX_LABEL_BYTES:
                raise ValueError(f"'{labels}' has more than 1 GiB")
            flat = _flat(whole(marks)) if marks.shape else np.empty(0, np.uint8)
            rows = _hdf5_rows(path, images)
            parts[split] = _part(path, "HDF5", images, dataset.shape, dataset.dtype, flat, rows)
    return Source(kind="HDF5", train=parts.get("train"), test=parts.get("test"), left_out=left_out)


def idx_source(path: Path) -> Source | None:
    """What a folder holds in IDX files, or the two files of which ``path`` is the images'; None: no such file is there.

    Raises:
        DataError: they cannot be read, or there are images without labels.
    """
    if path.is_file():
        return Source(kind="IDX", train=_idx_part(path), test=None)
    found = {name: _IDX_IMAGES.fullmatch(name) for name in sorted(child.name for child in path.iterdir())}
    parts: dict[str, Part] = {}
    for split, prefix in _IDX_PREFIXES.items():
        names = [name for name, match in found.items() if match and match[1] == prefix]
        if names:
            parts[split] = _idx_part(path / names[-1])  # the gzipped one, if both are there, as elsewhere
    return Source(kind="IDX", train=parts.get("train"), test=parts.get("test")) if parts else None


def _pairs(path: Path, names: list[str]) -> tuple[dict[str, tuple[str, str]], tuple[str, ...]]:
    """The names of images and labels by split, and the names that stand for neither."""
    lower: Mapping[str, str] = {name.lower(): name for name in sorted(names, reverse=True)}
    found: dict[str, tuple[str, str]] = {}
    for split, pairs in _PAIRS.items():
        for pair in pairs:
            if split not in found and all(name in lower for name in pair):
                found[split] = lower[pair[0]], lower[pair[1]]
    if not found:
        known = [pair[0] for pairs in _PAIRS.values() for pair in pairs]
        alone = next((lower[name] for name in known if name in lower), None)
        listed = ", ".join(sorted(names))[:200] or "nothing"
        problem = f"'{alone}' has no labels beside it" if alone else "no images under a name that is understood"
        raise DataError(f"{path}: {problem}; expected images and labels, or x_train and y_train, and found {listed}")
    used = {name for pair in found.values() for name in pair}
    return found, tuple(sorted(name for name in names if name not in used))


def _part(
    path: Path, kind: str, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike, labels: Pixels, rows: OpenRows
) -> Part:
    """A part of an array of images whose rows ``rows`` opens."""
    item = np.dtype(dtype).itemsize
    first = len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in _CHANNELS  # channels before rows, as PyTorch
    usual = len(shape) == 3 or (len(shape) == 4 and (first or shape[3] in _CHANNELS))
    if not usual or 0 in shape[1:] or math.prod(shape[1:]) * item > _MAX_IMAGE_BYTES:
        raise ValueError(
            f"'{name:.80}' has the shape {shape}; expected (images, rows, columns), or with 1 to 4 channels"
        )
    if len(labels) != shape[0]:
        raise DataError(f"{path}: {shape[0]:,} images in '{name:.80}', but {len(labels):,} labels")
    class_names, indices = classes_of(labels)
    step = max(1, min(_CHUNK_IMAGES, _CHUNK_BYTES // (math.prod(shape[1:]) * item)))

    def chunks() -> Iterator[Pixels]:
        with reading(path, kind), rows() as take:
            for start in range(0, shape[0], step):
                images = take(min(step, shape[0] - start))
                yield np.moveaxis(images, 1, 3) if first else images

    return Part(
        place=str(path), class_names=class_names, labels=indices, chunks=chunks, chunk_count=-(-shape[0] // step)
    )


def _flat(labels: Pixels) -> Pixels:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(f"labels of shape {labels.shape}; expected one for an image")
    if labels.dtype.kind not in "iuUS":
        raise ValueError(f"labels are {labels.dtype}; expected integers or class names")
    return labels


def _expect_numbers(name: str, dtype: npt.DTypeLike) -> None:
    if np.dtype(dtype).kind not in "biuf":
        raise ValueError(f"'{name}' is {dtype}; expected numbers")


def _npz_rows(path: Path, name: str) -> OpenRows:
    @contextlib.contextmanager
    def opened() -> Iterator[Take]:
        with open_npz(path, links=True, texts=True) as archive, archive.stream(name) as (stream, dtype, shape, _):

            def take(count: int) -> Pixels:
                size = count * math.prod(shape[1:]) * dtype.itemsize
                data = bytearray()
                while len(data) < size and (piece := stream.read(min(size - len(data), 1 << 20))):
                    data += piece
                return _rows_of(bytes(data), dtype, (count, *shape[1:]))

            yield take

    return opened


def _npz_columns(path: Path, name: str) -> OpenRows:
    """Of an array in Fortran's order, which has to be held whole: at most 1 GiB."""

    @contextlib.contextmanager
    def opened() -> Iterator[Take]:
        with open_npz(path, links=True, texts=True) as archive:
            yield _taking(archive[name])

    return opened


def _taking(array: Pixels) -> Take:
    place = 0

    def take(count: int) -> Pixels:
        nonlocal place
        place += count
        return array[place - count : place]

    return take


def _hdf5_rows(path: Path, name: str) -> OpenRows:
    @contextlib.contextmanager
    def opened() -> Iterator[Take]:
        with open_hdf5(path, links=True) as file:
            yield Rows(own_dataset(file, name, any_chunks=True)).take

    return opened


def _idx_part(path: Path) -> Part:
    match = _IDX_IMAGES.fullmatch(path.name)
    if match is None:
        raise DataError(f"{path}: an IDX file; name the one of images, such as train-images-idx3-ubyte.gz")
    stem, digit = path.name[: match.end(1)], match[2]
    joints = [f"{stem}labels{dash}idx1-ubyte{gz}" for gz in (".gz", "") for dash in "-."]
    labels_path = next((path.with_name(name) for name in joints if path.with_name(name).is_file()), None)
    if labels_path is None:
        raise DataError(f"{path}: images without labels; expected {joints[0]} beside it (.gz or not)")
    with reading(labels_path, "IDX"), open_unpacked(labels_path, links=True) as stream:
        (count,) = _idx_shape(labels_path, stream, 1)
        labels = np.frombuffer(_exactly(stream, count), np.uint8)
        if stream.read(1):
            raise ValueError(f"longer than the {count:,} labels that its header claims")
    with reading(path, "IDX"), open_unpacked(path, links=True) as stream:
        shape = _idx_shape(path, stream, int(digit))
        return _part(path, "IDX", "images", shape, np.uint8, labels, _idx_rows(path, shape))


def _idx_rows(path: Path, shape: tuple[int, ...]) -> OpenRows:
    @contextlib.contextmanager
    def opened() -> Iterator[Take]:
        with open_unpacked(path, links=True) as stream:
            _idx_shape(path, stream, len(shape))
            yield lambda count: _rows_of(_exactly(stream, count * math.prod(shape[1:])), np.uint8, (count, *shape[1:]))
            if stream.read(1):
                raise ValueError(f"longer than the {shape[0]:,} images that its header claims")

    return opened


def _idx_shape(path: Path, stream: BinaryIO, dimensions: int) -> tuple[int, ...]:
    """The shape in an IDX header of unsigned bytes."""
    header = _exactly(stream, 4 * (1 + dimensions))
    if header[:4] != bytes([0, 0, 8, dimensions]):
        raise ValueError(f"it begins with 0x{header[:4].hex()}; expected 0x000008{dimensions:02x}: unsigned bytes")
    shape = struct.unpack(f">{dimensions}I", header[4:])
    if math.prod(shape) > path.stat().st_size * MAX_DEFLATE_RATIO:
        raise ValueError(f"the header claims {shape}, more than the file can hold")
    return shape


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (piece := stream.read(min(size - len(data), 1 << 20))):
        data += piece
    if len(data) < size:
        raise ValueError("it is cut short")
    return bytes(data)


def _rows_of(data: bytes, dtype: Any, shape: tuple[int, ...]) -> Pixels:
    if len(data) != math.prod(shape) * np.dtype(dtype).itemsize:
        raise ValueError("the images are cut short")
    return np.frombuffer(data, dtype).reshape(shape)
