"""Files and packed bytes: regular files only, and never more bytes than expected."""

import contextlib
import errno
import gzip
import hashlib
import io
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

_READ_BYTES = 1 << 20  # 1 MiB
_BLOCK_BYTES = 512  # of st_blocks, whatever the file system's own blocks are
_LARGE_BYTES, _MOST_PACKED = 1 << 30, 1_000  # a file system that compresses stores a shard in no thousandth of its size
# A pipe is opened without waiting for its other end, and a link planted in a folder is not followed.
_FLAGS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)


def open_file(path: Path, *, links: bool = False) -> io.BufferedReader:
    """Open a regular file for reading.

    Args:
        path: the file.
        links: it may be a symbolic link. True for a path that the user names; False inside a folder of others.

    Raises:
        OSError: it is missing, may not be read, or is a link, pipe, device or folder.
    """
    found = path.stat() if links else path.lstat()
    _expect_regular(found.st_mode, path)  # before it is opened: merely opening some devices does something
    descriptor = os.open(path, os.O_RDONLY | _FLAGS | (0 if links else _NO_LINKS))
    try:
        _expect_regular(os.fstat(descriptor).st_mode, path)
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _expect_regular(mode: int, path: Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        kind = "a link" if stat.S_ISLNK(mode) else "a pipe or a device"
        raise OSError(errno.EINVAL, f"{kind}; expected a regular file", str(path))


def read_file(path: Path, limit: int, *, links: bool = False) -> bytes:
    """The content of a regular file of at most ``limit`` bytes; ``links`` as for ``open_file``.

    Raises:
        OSError: as ``open_file``.
        ValueError: it is larger, or grows while it is read.
    """
    with open_file(path, links=links) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > limit:
            raise ValueError(f"{size:,} bytes; expected at most {limit:,}")
        data = stream.read(size + 1)
    if len(data) > size:
        raise ValueError("it grows while it is read")
    return data


@contextlib.contextmanager
def open_unpacked(path: Path, *, links: bool = False) -> Iterator[BinaryIO]:
    """A regular file's content as a stream, unpacked where it is gzipped; ``links`` as for ``open_file``.

    What it unpacks to is not bounded: read as much as is expected.

    Raises:
        OSError: as ``open_file``; while it is read, also EOFError and zlib.error.
    """
    with open_file(path, links=links) as stream:
        packed = stream.peek(2)[:2] == b"\x1f\x8b"
        yield cast(BinaryIO, gzip.GzipFile(fileobj=stream, mode="rb")) if packed else stream


def sha256_of(path: Path, size: int) -> str | None:
    """The SHA-256 of a regular file's ``size`` bytes, in hexadecimal digits.

    None where it has more or fewer, or is a gigabyte of almost nothing but a hole: to hash a sparse tebibyte takes half
    an hour, to send it nothing.

    Raises:
        OSError: as ``open_file``.
    """
    digest, left = hashlib.sha256(), size
    with open_file(path) as stream:
        found = os.fstat(stream.fileno())
        stored = getattr(found, "st_blocks", size) * _BLOCK_BYTES  # Windows does not say
        if found.st_size != size or (size > _LARGE_BYTES and stored < size // _MOST_PACKED):
            return None
        while block := stream.read(min(_READ_BYTES, left + 1)):
            digest.update(block)
            left -= len(block)
            if left < 0:
                return None
    return None if left else digest.hexdigest()


def inflated(data: bytes, limit: int, *, gzipped: bool = False) -> bytes:
    """What zlib's (or gzip's) ``data`` unpacks to.

    Raises:
        ValueError: it is damaged, or unpacks to more than ``limit`` bytes.
    """
    inflater = zlib.decompressobj(zlib.MAX_WBITS + (16 if gzipped else 0))
    try:
        raw = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise ValueError(f"damaged: {error}") from error
    if len(raw) > limit:
        raise ValueError(f"unpacks to more than {limit:,} bytes")
    if not inflater.eof:
        raise ValueError("damaged: its end is missing")
    return raw
