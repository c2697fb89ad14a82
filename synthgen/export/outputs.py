"""Outputs: where a set is written, a folder or any fsspec URL. A file gets its final name only when it is whole.

In a folder, files are written under temporary names on the same file system and then renamed. An object store cannot
rename, but shows an object only when its upload is complete: there, files are made in a temporary folder and uploaded.
Both have a work folder ``.synthgen`` with the job and the records of finished shards until the set is complete.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from synthgen.errors import ExportError, SynthgenError, UsageError
from synthgen.export.claim import (
    JOB_NAME,
    MAX_JOB_BYTES,
    claim_folder,
    expect_same_job,
    expect_same_set,
    is_finished,
    read_job,
    remove_leftovers,
    remove_tree,
)
from synthgen.files import NotOwnError, flush_all, flush_to_disk, is_own_file, own_folder, publish, read_own
from synthgen.formats.table import FORMATS
from synthgen.sets.integrity import shard_problems
from synthgen.sets.manifest import (
    MANIFEST_NAME,
    WORK_FOLDER,
    FileRecord,
    Manifest,
    ShardRecord,
    load_manifest,
    read_manifest,
)

MAX_DOCUMENT_BYTES = 256 << 20  # 256 MiB: what a manifest, a list of shards or a shard's record may take
_STAGING = "staging-"
_JOB = f"{WORK_FOLDER}/{JOB_NAME}"


def open_output(out: str | Path) -> "Output":
    """The output named by a folder or a URL (``s3://bucket/set``; ``file://`` is a folder).

    Raises:
        UsageError: it is no name; or fsspec, or its package for this kind of URL, is not installed.
    """
    text = str(out).removeprefix("file://")
    if not text or "\0" in text:
        raise UsageError(f"out {str(out)!r:.80}: expected a folder, or a URL such as s3://bucket/set")
    return RemoteOutput(text) if "://" in text else LocalOutput(Path(text))


class LocalOutput:
    """A folder, which may be named by a link. It may be a stranger's: below it no link is followed."""

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.realpath(path)) if path.is_symlink() else path

    def __str__(self) -> str:
        return str(self.path)

    @contextlib.contextmanager
    def claim(self, job: dict[str, Any], *, resume: bool, shared: bool = False) -> Iterator[None]:
        """Hold the output for this job, alone or shared with other writers of its shards; see ``claim_folder``."""
        with claim_folder(self.path, job, resume=resume, shared=shared):
            if not shared:  # no other process is at work: staging folders are left by killed ones
                for leftover in (self.path / WORK_FOLDER).glob(f"{_STAGING}*"):
                    remove_tree(leftover)
            yield

    def manifest(self) -> Manifest | None:
        """The manifest, if the set is complete."""
        return load_manifest(self.path) if is_finished(self.path) else None

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """An empty temporary folder to write files into."""
        folder = Path(tempfile.mkdtemp(dir=own_folder(self.path, WORK_FOLDER), prefix=_STAGING))
        folder.chmod(0o755)
        try:
            yield folder
        finally:
            remove_tree(folder)

    def publish(self, staging: Path) -> None:
        """Give every file below ``staging`` its final name, whole."""
        paths = sorted(staging.rglob("*"))
        flush_all([path for path in paths if path.is_file()])
        changed = {self.path}
        for path in paths:
            target = self.path / path.relative_to(staging)
            changed.add(target.parent)
            if path.is_dir():
                own_folder(self.path, path.relative_to(staging).as_posix())
            else:
                path.replace(target)
        for folder in changed:
            flush_to_disk(folder)

    def read(self, name: str, limit: int = MAX_DOCUMENT_BYTES) -> bytes | None:
        """A small file's content; None if it does not exist; raises OSError for more than ``limit`` bytes."""
        try:
            return read_own(self.path / name, limit)
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Publish a small file."""
        parent, _, last = name.rpartition("/")
        with publish(own_folder(self.path, parent) / last) as partial:
            partial.write_bytes(data)

    def problems(self, file_format: str, shard: ShardRecord, *, hashed: bool) -> list[str]:
        """What is wrong with a shard's files: missing, another size or, when ``hashed``, other content.

        The files that a shard's own files list are checked too, which at a URL they are not.
        """
        if hashed:
            return shard_problems(self.path, FORMATS[file_format], shard)
        problems = _size_problems(shard.files, self._size)
        if problems:
            return problems
        try:
            entries = FORMATS[file_format].listed(self.path, shard.names, shard.count)
        except (OSError, ValueError) as error:
            return [f"{shard.names[0]}: {error}"]
        return [f"{name}: missing" for _, name in entries if not is_own_file(self.path, name)]

    def release(self) -> None:
        """Remove the work folder of a complete set, which is still claimed: nobody may find it without its claim."""
        remove_tree(self.path / WORK_FOLDER)

    def remove_leftovers(self) -> None:
        """Remove the work folder that a killed export left in a complete set."""
        remove_leftovers(self.path)

    def _size(self, name: str) -> int | None:
        return (self.path / name).stat().st_size if is_own_file(self.path, name) else None


class RemoteOutput:
    """A URL that fsspec can write to; methods as ``LocalOutput``. No locks, but two writers of a job write the same."""

    def __init__(self, url: str) -> None:
        with _as_os_error():
            try:
                import fsspec

                self._files, self._root = fsspec.core.url_to_fs(url)
            except (ImportError, ValueError) as error:
                raise UsageError(
                    f"{url}: {error}; install fsspec and its package for this kind of URL, as in "
                    "pip install 'synthgen[remote]' s3fs"
                ) from error
        self._url = url

    def __str__(self) -> str:
        return self._url

    @contextlib.contextmanager
    def claim(self, job: dict[str, Any], *, resume: bool, shared: bool = False) -> Iterator[None]:
        manifest, found = self.manifest(), self.read(_JOB, MAX_JOB_BYTES)
        if manifest is not None:
            expect_same_set(self._url, manifest, job, resume or shared)
            self.remove_leftovers()
        elif found is not None:
            expect_same_job(self._url, read_job(self._url, found), job, resume or shared)
        elif self._holds_something():
            raise ExportError(f"{self._url}: is not empty; choose a new folder with --out")
        else:
            self.write(_JOB, json.dumps(job).encode())
            # Two exports may both come here at once; the one whose claim was overwritten sees the other's.
            if (found := self.read(_JOB, MAX_JOB_BYTES)) is not None:
                expect_same_job(self._url, read_job(self._url, found), job, resume=True)
        yield

    def _holds_something(self) -> bool:
        with _as_os_error():
            return bool(self._files.exists(self._root) and self._files.ls(self._root, detail=False))

    def manifest(self) -> Manifest | None:
        if self.read(MANIFEST_NAME) is None:
            return None
        return read_manifest(self._url, self.read)

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="synthgen-") as name:
            yield Path(name)

    def publish(self, staging: Path) -> None:
        for path in sorted(path for path in staging.rglob("*") if path.is_file()):
            target = self._path(path.relative_to(staging).as_posix())
            with _as_os_error():
                self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
                self._files.put_file(str(path), target)

    def read(self, name: str, limit: int = MAX_DOCUMENT_BYTES) -> bytes | None:
        try:
            if (self._size(name) or 0) > limit:
                raise NotOwnError(f"{self._url}/{name}: larger than {limit:,} bytes; expected a small file")
            with _as_os_error():
                data: bytes = self._files.cat_file(self._path(name))
        except FileNotFoundError:
            return None
        return data

    def write(self, name: str, data: bytes) -> None:
        target = self._path(name)
        with _as_os_error():
            self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._files.pipe_file(target, data)

    def problems(self, file_format: str, shard: ShardRecord, *, hashed: bool) -> list[str]:
        """Compare sizes only: to hash the files, they would have to be downloaded."""
        return _size_problems(shard.files, self._size)

    def release(self) -> None:
        with contextlib.suppress(OSError), _as_os_error():
            self._files.rm(self._path(WORK_FOLDER), recursive=True)

    def remove_leftovers(self) -> None:
        self.release()

    def _size(self, name: str) -> int | None:
        with _as_os_error():
            size: int | None = self._files.size(self._path(name))
        return size

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


Output = LocalOutput | RemoteOutput


def _size_problems(files: Sequence[FileRecord], size_of: Any) -> list[str]:
    problems = []
    for file in files:
        try:
            size = size_of(file.name)
        except OSError:
            size = None
        if size != file.bytes:
            found = "missing" if size is None else f"{size} bytes; expected {file.bytes}"
            problems.append(f"{file.name}: {found}")
    return problems


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """Turn the errors of a store's own package into OSError."""
    try:
        yield
    except (OSError, SynthgenError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or "no reason given"
        raise OSError(f"{type(error).__name__}: {reason}") from error
