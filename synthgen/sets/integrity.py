"""Integrity: do the files of a set still hold the bytes that were written?"""

from collections.abc import Sequence
from pathlib import Path

from synthgen.files import is_own_file, sha256_of_file
from synthgen.formats.readers import read_listing
from synthgen.sets.manifest import FileRecord, Manifest, ShardRecord


def set_problems(folder: Path, manifest: Manifest) -> list[str]:
    """What is wrong with a set's files, one line each."""
    problems = files_problems(folder, manifest.sidecars)  # lists of shards are checked when loaded
    for shard in manifest.shards:
        problems += shard_problems(folder, manifest.format, shard)
    return problems


def files_problems(folder: Path, files: Sequence[FileRecord]) -> list[str]:
    """What is wrong with files, one line each."""
    return [problem for file in files if (problem := file_problem(folder, file))]


def shard_problems(folder: Path, file_format: str, shard: ShardRecord) -> list[str]:
    """What is wrong with a shard's files, one line each; for PNG, every image in its listing too."""
    problems = files_problems(folder, shard.files)
    if file_format == "png" and not problems:
        problems += _listing_problems(folder, shard.files[0].name, shard.count)
    return problems


def file_problem(folder: Path, file: FileRecord) -> str | None:
    """What is wrong with one file, or None: missing, of another size, or of another SHA-256."""
    path = folder / file.name
    try:
        if not is_own_file(folder, file.name):
            return f"{file.name}: missing"
        size = path.stat().st_size
        if size != file.bytes:
            return f"{file.name}: {size} bytes; expected {file.bytes}"
        if sha256_of_file(path) != file.sha256:
            return f"{file.name}: altered: its SHA-256 is not the one recorded"
    except OSError as error:
        return f"{file.name}: cannot be read: {error.strerror}"
    return None


def _listing_problems(folder: Path, listing: str, count: int) -> list[str]:
    """Check the images of a PNG shard against its listing, which is itself a file of the manifest."""
    try:
        entries = read_listing(folder / listing, count)
    except (OSError, ValueError) as error:
        return [f"{listing}: {error}"]
    problems = []
    for digest, name in entries:
        if not is_own_file(folder, name):
            problems.append(f"{name}: missing")
        elif sha256_of_file(folder / name) != digest:
            problems.append(f"{name}: altered: its SHA-256 is not the one listed")
    return problems
