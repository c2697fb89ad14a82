"""IDX, the layout of the original Fashion-MNIST files (LeCun, Cortes and Burges, the MNIST database)."""

import contextlib
import gzip
import hashlib
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, ClassVar, cast

import numpy as np
import numpy.typing as npt

from synthgen.errors import DataError
from synthgen.formats.base import IMAGE_SHAPE, MAX_DEFLATE_RATIO, Batch, Digest, Format, Run
from synthgen.index import BLOCK_IMAGES, Shard, pieces
from synthgen.subject import Images, Labels
from synthgen.untrusted.files import open_unpacked

IDX_PREFIX = {"train": "train", "test": "t10k"}
_IMAGE_MAGIC, _LABEL_MAGIC = 0x00000803, 0x00000801  # unsigned bytes in three and in one dimension
_MAX_IMAGES = 50_000_000  # 39 GB; what a header claims beyond this is refused unread
_MAX_COMPRESSED_BYTES = 256 << 20  # 256 MiB
_GZIP_LEVEL = 6


class IDX(Format):
    """The original's own file names and layout, gzipped, so that any Fashion-MNIST loader reads the set."""

    name = "idx"
    bytes_an_image = 500
    one_shard = one_file = True
    max_images = _MAX_IMAGES
    encodings: ClassVar = {".gz": "application/gzip"}
    suffix: ClassVar[str] = ".gz"

    def write(
        self, folder: Path, shard: Shard, split: str, batches: Iterator[Batch], digest: Digest, *, labelled: bool
    ) -> list[str]:
        names = self._names(split)[: 1 + labelled]
        with contextlib.ExitStack() as opened:
            images, *labels = (self._create(folder / name, opened) for name in names)
            images.write(idx_header(shard.count, images=True))
            for stream in labels:
                stream.write(idx_header(shard.count, images=False))
            for batch in batches:
                images.write(batch.images.tobytes())
                if batch.labels is not None:
                    labels[0].write(batch.labels.tobytes())
        return names

    def read(self, folder: Path, names: Sequence[str], count: int) -> Iterator[Run]:
        labels = read_idx_labels(folder / names[1], count) if len(names) > 1 else None
        first = 0
        for images in _iterate_images(folder / names[0], count):
            yield images, None if labels is None else labels[first : first + len(images)]
            first += len(images)

    def loader(self, split: str, *, labelled: bool) -> list[str]:
        reads = [f'gzip.open("{name}")' if self.suffix else f'open("{name}", "rb")' for name in self._names(split)]
        lines = [
            "import gzip, numpy" if self.suffix else "import numpy",
            f'images = numpy.frombuffer({reads[0]}.read(), "u1", offset=16).reshape(-1, 28, 28)',
            f'labels = numpy.frombuffer({reads[1]}.read(), "u1", offset=8)',
        ]
        return lines[: 2 + labelled]

    def _create(self, path: Path, opened: contextlib.ExitStack) -> BinaryIO:
        """A file to write to; a gzip header holds no name and no time: the same set gives the same bytes."""
        file = opened.enter_context(path.open("wb"))
        if not self.suffix:
            return file
        packed = gzip.GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=file, mtime=0)
        return cast(BinaryIO, opened.enter_context(packed))

    def _names(self, split: str) -> list[str]:
        """Of images and labels."""
        prefix = IDX_PREFIX[split]
        return [f"{prefix}-images-idx3-ubyte{self.suffix}", f"{prefix}-labels-idx1-ubyte{self.suffix}"]


class RawIDX(IDX):
    """The same uncompressed, as torchvision's ``FashionMNIST`` wants it in ``ROOT/FashionMNIST/raw``."""

    name = "idx-raw"
    bytes_an_image = 800
    encodings: ClassVar = {}
    suffix = ""


def read_idx_images(path: Path, count: int | None = None) -> Images:
    """Read an IDX file of 28×28 images, gzipped or not: uint8, shape (N, 28, 28).

    Args:
        path: the file.
        count: how many images it must hold, if that is known.

    Raises:
        DataError: wrong magic number, shape or count, truncated, or longer than its header says.
    """
    return _read_idx(path, _IMAGE_MAGIC, IMAGE_SHAPE, count)


def read_idx_labels(path: Path, count: int | None = None) -> Labels:
    """Read an IDX file of labels, gzipped or not: uint8, shape (N,).

    Raises:
        DataError: as ``read_idx_images``.
    """
    return _read_idx(path, _LABEL_MAGIC, (), count)


def idx_count(path: Path) -> int:
    """How many 28×28 images an IDX file claims to hold; raises as ``read_idx_images``."""
    with _idx_data(path, _IMAGE_MAGIC, IMAGE_SHAPE, None) as (_, count):
        return count


def idx_sha256(path: Path, count: int, *, images: bool) -> str:
    """The SHA-256 of the unpacked content of an IDX file that must hold ``count`` 28×28 images, or labels of any value.

    Raises:
        DataError: as ``read_idx_images``.
    """
    magic, shape = (_IMAGE_MAGIC, IMAGE_SHAPE) if images else (_LABEL_MAGIC, ())
    digest = hashlib.sha256(idx_header(count, images=images))
    with _idx_data(path, magic, shape, count) as (stream, _):
        for piece in pieces(count, BLOCK_IMAGES):
            digest.update(_idx_items(path, stream, piece, count, shape).tobytes())
        _expect_end(path, stream, count)
    return digest.hexdigest()


def idx_header(count: int, *, images: bool) -> bytes:
    """The bytes before an IDX file's data: magic number and shape, big-endian 32-bit integers."""
    header = [_IMAGE_MAGIC, count, *IMAGE_SHAPE] if images else [_LABEL_MAGIC, count]
    return np.array(header, ">u4").tobytes()


def _iterate_images(path: Path, count: int) -> Iterator[Images]:
    """The images of a file that must hold ``count``, a block at a time, so that none is kept in memory."""
    with _idx_data(path, _IMAGE_MAGIC, IMAGE_SHAPE, count) as (stream, _):
        for piece in pieces(count, BLOCK_IMAGES):
            yield _idx_items(path, stream, piece, count, IMAGE_SHAPE)
        _expect_end(path, stream, count)


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
        with open_unpacked(path, links=True) as stream:  # a set's files are no links (``read_shard``)
            header = np.frombuffer(stream.read(header_bytes).ljust(header_bytes, b"\0"), ">u4")
            found, count, shape = int(header[0]), int(header[1]), tuple(int(n) for n in header[2:])
            if found != magic:
                raise DataError(f"{path}: magic number 0x{found:08x}; expected 0x{magic:08x}")
            if shape != item_shape:
                raise DataError(f"{path}: images of shape {shape}; expected {item_shape}")
            if count > _MAX_IMAGES or count * math.prod(item_shape) > _most_decompressed(path):
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
    return min(path.stat().st_size, _MAX_COMPRESSED_BYTES) * MAX_DEFLATE_RATIO
