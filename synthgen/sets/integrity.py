"""Integrity: do the files of a set still hold the bytes that were written?"""

from collections.abc import Sequence
from pathlib import Path

from synthgen.errors import VerificationError
from synthgen.files import is_own_file, sha256_of_bytes
from synthgen.formats.base import Format
from synthgen.formats.table import FORMATS
from synthgen.sets.manifest import MANIFEST_NAME, FileRecord, Manifest, ShardRecord
from synthgen.untrusted.files import read_file, sha256_of

_MAX_LISTED_BYTES = 1 << 16  # of a file that a listing names: an image


def format_of(folder: Path, manifest: Manifest) -> Format:
    """The format of a set.

    Raises:
        VerificationError: this version does not know it.
    """
    if manifest.format not in FORMATS:
        raise VerificationError(f"{folder / MANIFEST_NAME}: format {manifest.format!r}; expected {', '.join(FORMATS)}")
    return FORMATS[manifest.format].showing(manifest.subject)


def set_problems(folder: Path, manifest: Manifest) -> list[str]:
    """What is wrong with a set's files, one line each."""
    problems = files_problems(folder, manifest.sidecars)  # lists of shards are checked when loaded
    for shard in manifest.shards:
        problems += shard_problems(folder, format_of(folder, manifest), shard)
    return problems


def files_problems(folder: Path, files: Sequence[FileRecord]) -> list[str]:
    """What is wrong with files, one line each."""
    return [problem for file in files if (problem := file_problem(folder, file))]


def shard_problems(folder: Path, file_format: Format, shard: ShardRecord) -> list[str]:
    """What is wrong with a shard's files and with those that they list, one line each."""
    return files_problems(folder, shard.files) or listed_problems(folder, file_format, shard)


def file_problem(folder: Path, file: FileRecord) -> str | None:
    """What is wrong with one file, or None: missing, of another size, or of another SHA-256."""
    path = folder / file.name
    try:
        if not is_own_file(folder, file.name):
            return f"{file.name}: missing"
        size = path.stat().st_size
        if size != file.bytes:
            return f"{file.name}: {size} bytes; expected {file.bytes}"
        if sha256_of(path, size) != file.sha256:
            return f"{file.name}: altered: its SHA-256 is not the one recorded"
    except OSError as error:
        return f"{file.name}: cannot be read: {error.strerror}"
    return None


def listed_problems(folder: Path, file_format: Format, shard: ShardRecord) -> list[str]:
    """What is wrong with the files that a shard's own files list, one line each."""
    try:
        entries = file_format.listed(folder, shard.names, shard.count)
    except (OSError, ValueError) as error:
        return [f"{shard.names[0]}: {error}"]
    problems = []
    for digest, name in entries:
        if not is_own_file(folder, name):
            problems.append(f"{name}: missing")
        elif not _is_listed(folder / name, digest):
            problems.append(f"{name}: altered: its SHA-256 is not the one listed")
    return problems


def _is_listed(path: Path, digest: str) -> bool:
    """Whether a small file has that SHA-256."""
    try:
        return sha256_of_bytes(read_file(path, _MAX_LISTED_BYTES)) == digest
    except ValueError:
        return False
