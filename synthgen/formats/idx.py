"""IDX, the layout of the original Fashion-MNIST files (LeCun, Cortes and Burges, the MNIST database)."""

import contextlib
import gzip
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from synthgen.errors import DataError
from synthgen.fashion import IMAGE_SIDE, NUM_CLASSES, Images, Labels
from synthgen.index import pieces

IDX_PREFIX = {"train": "train", "test": "t10k"}
_IMAGE_MAGIC, _LABEL_MAGIC = 0x00000803, 0x00000801  # unsigned bytes in three and in one dimension
MAX_IDX_IMAGES = 50_000_000  # 39 GB; what a header claims beyond this is refused unread
_MAX_COMPRESSED_BYTES = 256 << 20  # 256 MiB


def read_idx_images(path: Path, count: int | None = None) -> Images:
    """Read an IDX file of 28×28 images, gzipped or not: uint8, shape (N, 28, 28).

    Args:
        path: the file.
        count: how many images it must hold, if that is known.

    Raises:
        DataError: wrong magic number, shape or count, truncated, or longer than its header says.
    """
    return _read_idx(path, _IMAGE_MAGIC, (IMAGE_SIDE, IMAGE_SIDE), count)


def read_idx_labels(path: Path, count: int | None = None) -> Labels:
    """Read an IDX file of labels, gzipped or not: uint8, shape (N,), values 0 to 9.

    Raises:
        DataError: as ``read_idx_images``, or a label above 9.
    """
    labels = _read_idx(path, _LABEL_MAGIC, (), count)
    if labels.size and labels.max() >= NUM_CLASSES:
        raise DataError(f"{path}: label {labels.max()} found; expected 0 to {NUM_CLASSES - 1}")
    return labels


def iterate_idx_images(path: Path, count: int, batch: int) -> Iterator[Images]:
    """The images of an IDX file that must hold ``count``, ``batch`` at a time, so that none is kept in memory.

    Raises:
        DataError: as ``read_idx_images``.
    """
    item_shape = (IMAGE_SIDE, IMAGE_SIDE)
    with _idx_data(path, _IMAGE_MAGIC, item_shape, count) as (stream, _):
        for piece in pieces(count, batch):
            yield _idx_items(path, stream, piece, count, item_shape)
        _expect_end(path, stream, count)


def idx_header(count: int, *, images: bool) -> bytes:
    """The bytes before an IDX file's data: magic number and shape, big-endian 32-bit integers."""
    header = [_IMAGE_MAGIC, count, IMAGE_SIDE, IMAGE_SIDE] if images else [_LABEL_MAGIC, count]
    return np.array(header, ">u4").tobytes()


def _read_idx(path: Path, magic: int, item_shape: tuple[int, ...], expected_count: int | None) -> npt.NDArray[np.uint8]:
    with _idx_data(path, magic, item_shape, expected_count) as (stream, count):
        items = _idx_items(path, stream, slice(0, count), count, item_shape)
        _expect_end(path, stream, count)
        return items


@contextlib.contextmanager
def _idx_data(
    path: Path, magic: int, item_shape: tuple[int, ...], expected_count: int | None
) -> Iterator[tuple[BinaryIO, int]]:
    """The stream of an IDX file behind its checked header, and how many items the header claims."""
    header_bytes = 4 * (2 + len(item_shape))
    try:
        with _open(path) as stream:
            header = np.frombuffer(stream.read(header_bytes).ljust(header_bytes, b"\0"), ">u4")
            found, count, shape = int(header[0]), int(header[1]), tuple(int(n) for n in header[2:])
            if found != magic:
                raise DataError(f"{path}: magic number 0x{found:08x}; expected 0x{magic:08x}")
            if shape != item_shape:
                raise DataError(f"{path}: images of shape {shape}; expected {item_shape}")
            if count > MAX_IDX_IMAGES or count * math.prod(item_shape) > _most_decompressed(path):
                raise DataError(f"{path}: the header claims {count} items, more than the file can hold")
            if expected_count not in (None, count):
                raise DataError(f"{path}: the header claims {count} items; expected {expected_count}")
            yield stream, count
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _idx_items(
    path: Path, stream: BinaryIO, piece: slice, count: int, item_shape: tuple[int, ...]
) -> npt.NDArray[np.uint8]:
    shape = (piece.stop - piece.start, *item_shape)
    data = stream.read(math.prod(shape))
    if len(data) != math.prod(shape):
        raise DataError(f"{path}: shorter than the {count} items its header claims")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _expect_end(path: Path, stream: BinaryIO, count: int) -> None:
    if stream.read(1):
        raise DataError(f"{path}: longer than the {count} items its header claims")


def _most_decompressed(path: Path) -> int:
    """The most bytes a file can decompress to: deflate packs at most 1,032 to one."""
    return min(path.stat().st_size, _MAX_COMPRESSED_BYTES) * 1032


def _open(path: Path) -> BinaryIO:
    """Open a file for reading, unpacking it where it is gzipped."""
    with path.open("rb") as stream:
        gzipped = stream.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path)) if gzipped else path.open("rb")
