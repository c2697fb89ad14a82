"""Files that are either whole or absent, and their SHA-256.

Content is written under a temporary name in the same folder, flushed to the disk, and then renamed. A reader of the
final name sees all of it or nothing.
"""

import contextlib
import errno
import hashlib
import json
import lzma
import os
import shutil
import stat
import struct
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# What HDF5, zip, gzip and NumPy's header parser raise on damaged or hostile files.
MALFORMED: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    KeyError,
    TypeError,
    ValueError,
    RuntimeError,
    OverflowError,
    struct.error,
    tokenize.TokenError,
    zlib.error,
    zipfile.BadZipFile,
    lzma.LZMAError,
)

_READ_BYTES = 1 << 20  # 1 MiB
_FEW_FILES = 16
_UNFOLLOWED = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # no link; a pipe does not keep us waiting
_NO_FILE = (errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENODEV)  # links, sockets, folders, devices


class NotOwnError(OSError):
    """A link, a pipe or the like stands where a file or folder of our own is expected; the message names it."""


def own_folder(root: Path, name: str) -> Path:
    """The folder ``root / name``; below ``root``, every part of it is made if need be and is no link.

    Raises:
        NotOwnError: a part is a link or no folder: what is written below it would land elsewhere.
        OSError: it cannot be made.
    """
    path = root
    for part in name.split("/") if name else []:
        path /= part
        with contextlib.suppress(FileExistsError):
            path.mkdir()
        if not is_own_folder(path):
            raise NotOwnError(f"{path}: a link or no folder; expected the folder itself")
    return path


def is_own_folder(path: Path) -> bool:
    """Whether ``path`` is a folder and no link to one."""
    found = os.lstat(path)
    junction: int = getattr(found, "st_reparse_tag", False)  # Windows' other kind of link
    return stat.S_ISDIR(found.st_mode) and not junction


def open_own(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file that is no link, and return its descriptor; never waits for the other end of a pipe.

    Raises:
        NotOwnError: it is a link, a pipe, a device or a folder.
        OSError: it is not there or cannot be opened.
    """
    try:
        descriptor = os.open(path, flags | _UNFOLLOWED, 0o666)
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
    else:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
    raise NotOwnError(f"{path}: a link, a pipe or the like; expected the file itself")


def read_own(path: Path, limit: int) -> bytes:
    """The content of a regular file that is no link; raises as ``open_own``, and for more than ``limit`` bytes."""
    with os.fdopen(open_own(path), "rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise NotOwnError(f"{path}: larger than {limit:,} bytes; expected a small file")
    return data


@contextlib.contextmanager
def publish(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success flush it and rename it into place, else delete it."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    os.close(descriptor)
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o666 & ~_umask())  # mkstemp makes the file private; a published file follows the umask
        move_into_place(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def publish_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside ``path``, which is not there; on success rename it into place, else delete it."""
    partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial"))
    try:
        yield partial
        partial.chmod(0o777 & ~_umask())  # mkdtemp makes the folder private
        move_into_place(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def move_into_place(partial: Path, path: Path) -> None:
    """Flush ``partial`` to the disk, then rename it to ``path`` (same file system) and flush the folder."""
    flush_to_disk(partial)
    partial.replace(path)
    flush_to_disk(path.parent)


@contextlib.contextmanager
def exclusive_lock(path: Path) -> Iterator[bool]:
    """Yield whether this process alone holds the lock ``path``; the system frees the lock of a killed process."""
    with folder_lock(path, shared=False) as held:
        yield held


@contextlib.contextmanager
def folder_lock(path: Path, *, shared: bool) -> Iterator[bool]:
    """Yield whether this process holds the lock ``path``: alone, or together with others that hold it ``shared``."""
    with os.fdopen(open_own(path, os.O_RDWR | os.O_CREAT), "rb") as stream:
        try:
            import fcntl
        except ImportError:  # Windows: no advisory locks in the standard library
            yield True
            return
        try:
            fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError as error:  # some network file systems have no locks; atomic renames still keep files whole
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
        yield True


def flush_to_disk(path: Path) -> None:
    """``fsync`` a file or, where the system allows it, a folder."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open a folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_all(paths: Sequence[Path]) -> None:
    """Flush files: one by one if they are few, otherwise the whole system's buffers at once, which is faster."""
    if len(paths) > _FEW_FILES and hasattr(os, "sync"):
        os.sync()
    else:
        for path in paths:
            flush_to_disk(path)


def write_json(path: Path, document: Any) -> None:
    """Publish ``json_bytes(document)``."""
    with publish(path) as partial:
        partial.write_bytes(json_bytes(document))


def json_bytes(document: Any) -> bytes:
    """``document`` as indented UTF-8 JSON; raises ValueError for NaN and infinity, which JSON lacks."""
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def write_json_once(path: Path, document: Any) -> bool:
    """Publish ``document`` unless ``path`` exists, and return whether it did; of several processes, one succeeds."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".once-") as folder:
        whole = Path(folder) / path.name
        write_json(whole, document)
        try:
            os.link(whole, path)
        except FileExistsError:
            return False
        except OSError:  # no hard links here: the last one wins, but all processes of a job write the same
            whole.replace(path)
    flush_to_disk(path.parent)
    return True


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_bytes(data: bytes) -> str:
    """The SHA-256 of ``data``, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_json(document: Any) -> str:
    """The SHA-256 of a JSON document in canonical form: sorted keys, no spaces, UTF-8."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return sha256_of_bytes(text.encode())


def is_inside(name: str) -> bool:
    """Whether a relative path stays in its folder: no root, no drive, no ``..``, no backslash."""
    parts = name.split("/")
    return not any(part in ("", ".", "..") or "\\" in part or ":" in part or "\0" in part for part in parts)


def is_own_file(folder: Path, name: str) -> bool:
    """Whether ``folder / name`` is a regular file in the folder itself, not a pipe and not reached through a link."""
    if not is_inside(name):
        return False
    *parents, last = name.split("/")
    path = str(folder)
    try:
        for parent in parents:
            path = f"{path}/{parent}"
            found = os.lstat(path)
            junction: int = getattr(found, "st_reparse_tag", False)  # Windows' other kind of link
            if not stat.S_ISDIR(found.st_mode) or junction:
                return False
        return stat.S_ISREG(os.lstat(f"{path}/{last}").st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def remove_litter(folder: Path) -> None:
    """Delete temporary files that a killed ``publish`` left directly in ``folder``."""
    for partial in folder.glob(".*.partial"):
        if partial.is_symlink() or not partial.is_dir():
            partial.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
