"""Outputs: where a set is written, a folder or any fsspec URL. A file gets its final name only when it is whole.

In a folder, files are written under temporary names on the same file system and then renamed. An object store cannot
rename, but shows an object only when its upload is complete: there, files are made in a temporary folder and uploaded.
Both have a work folder ``.synthgen`` with the job and the records of finished shards until the set is complete.
"""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from synthgen.errors import ExportError, SynthgenError, UsageError
from synthgen.export.claim import JOB_NAME, claim_folder, expect_same_job, expect_same_set, read_job
from synthgen.files import flush_all, flush_to_disk, publish
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

_STAGING = "staging-"
_JOB = f"{WORK_FOLDER}/{JOB_NAME}"


def open_output(out: str | Path) -> "Output":
    """The output named by a folder or a URL (``s3://bucket/set``; ``file://`` is a folder).

    Raises:
        UsageError: fsspec, or its package for this kind of URL, is not installed.
    """
    text = str(out)
    if text.startswith("file://"):
        return LocalOutput(Path(text.removeprefix("file://")))
    return RemoteOutput(text) if "://" in text else LocalOutput(Path(out))


class LocalOutput:
    """A folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    @contextlib.contextmanager
    def claim(self, job: dict[str, Any], *, resume: bool, shared: bool = False) -> Iterator[None]:
        """Hold the output for this job, alone or shared with other writers of its shards; see ``claim_folder``."""
        with claim_folder(self.path, job, resume=resume, shared=shared):
            if not shared:  # no other process is at work: staging folders are left by killed ones
                for leftover in (self.path / WORK_FOLDER).glob(f"{_STAGING}*"):
                    shutil.rmtree(leftover, ignore_errors=True)
            yield

    def manifest(self) -> Manifest | None:
        """The manifest, if the set is complete."""
        return load_manifest(self.path) if (self.path / MANIFEST_NAME).exists() else None

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """An empty temporary folder to write files into."""
        folder = Path(tempfile.mkdtemp(dir=self.path / WORK_FOLDER, prefix=_STAGING))
        folder.chmod(0o755)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, staging: Path) -> None:
        """Give every file below ``staging`` its final name, whole."""
        paths = sorted(staging.rglob("*"))
        flush_all([path for path in paths if path.is_file()])
        changed = {self.path}
        for path in paths:
            target = self.path / path.relative_to(staging)
            changed.add(target.parent)
            if path.is_dir():
                target.mkdir(exist_ok=True)
            else:
                path.replace(target)
        for folder in changed:
            flush_to_disk(folder)

    def read(self, name: str) -> bytes | None:
        """A small file's content; None if it does not exist."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Publish a small file."""
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        with publish(path) as partial:
            partial.write_bytes(data)

    def problems(self, file_format: str, shard: ShardRecord, *, hashed: bool) -> list[str]:
        """What is wrong with a shard's files: missing, another size or, when ``hashed``, other content.

        The files that a shard's own files list are checked too, which at a URL they are not.
        """
        if hashed:
            return shard_problems(self.path, FORMATS[file_format], shard)
        problems = _size_problems(shard.files, lambda name: (self.path / name).stat().st_size)
        if problems:
            return problems
        try:
            entries = FORMATS[file_format].listed(self.path, shard.names, shard.count)
        except ValueError as error:
            return [f"{shard.names[0]}: {error}"]
        return [f"{name}: missing" for _, name in entries if not (self.path / name).is_file()]

    def release(self) -> None:
        """Remove the work folder of a complete set."""
        shutil.rmtree(self.path / WORK_FOLDER, ignore_errors=True)


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
        manifest, found = self.manifest(), self.read(_JOB)
        if manifest is not None:
            expect_same_set(self._url, manifest, job, resume or shared)
        elif found is not None:
            expect_same_job(self._url, read_job(self._url, found), job, resume or shared)
        elif self._holds_something():
            raise ExportError(f"{self._url}: is not empty; choose a new folder with --out")
        else:
            self.write(_JOB, json.dumps(job).encode())
            # Two exports may both come here at once; the one whose claim was overwritten sees the other's.
            if (found := self.read(_JOB)) is not None:
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

    def read(self, name: str) -> bytes | None:
        try:
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
