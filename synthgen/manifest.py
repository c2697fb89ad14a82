"""The manifest: what a set is, in one JSON file that is written last, so that its presence means complete.

It records everything needed to make the same pixels again and to prove that the files are what they claim.
``load_manifest`` treats the file as hostile: every field is checked, and no path leaves the folder.
"""

import json
import typing
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from synthgen.errors import RecipeError, UsageError, VerificationError
from synthgen.fashion import CLASS_NAMES
from synthgen.files import is_inside, sha256_of_file, sha256_of_json, write_json
from synthgen.recipe import Recipe
from synthgen.shards import MAX_INDEX, MAX_SEED, MAX_SHARDS, LabelRule
from synthgen.statement import PrivacyStatement

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 1
DIGEST_METHOD = (
    "SHA-256 over the SHA-256 of every block (the images that share id // 256, in order of id), "
    "an image counting as its label byte (255: unlabelled) and its 784 pixels row by row"
)
_SEAL = "manifest_sha256"
_MAX_MANIFEST_BYTES = 256 << 20  # 256 MiB


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """One file of a set: its path relative to the set's folder, its size and its SHA-256."""

    name: str
    bytes: int
    sha256: str

    @classmethod
    def of(cls, folder: Path, name: str) -> "FileRecord":
        """Measure and hash ``folder / name``."""
        path = folder / name
        return cls(name=name, bytes=path.stat().st_size, sha256=sha256_of_file(path))


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """One shard as it was written: which images, their logical digest, and the files that hold them."""

    index: int
    start: int
    count: int
    digest: str
    files: tuple[FileRecord, ...]


@dataclass(frozen=True, kw_only=True)
class CheckpointRecord:
    """The generator a set was drawn from."""

    name: str
    sha256: str
    recipe: dict[str, Any]
    recipe_sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything about a set that is needed to reproduce and to verify it."""

    checkpoint: CheckpointRecord
    privacy: PrivacyStatement
    seed: int
    labels: str  # balanced, uniform, a list of labels, or none for an unlabelled set
    start: int
    count: int
    split: str
    format: str
    class_counts: tuple[int, ...]  # per class; empty for an unlabelled set
    digest: str
    shards: tuple[ShardRecord, ...]
    sidecars: tuple[FileRecord, ...]
    made_with: dict[str, str]  # versions and machine: the same pixels are promised for these

    @property
    def labelled(self) -> bool:
        """Whether the images bear labels."""
        return self.labels != "none"

    def files(self) -> list[FileRecord]:
        """Every file the manifest vouches for."""
        return [*(file for shard in self.shards for file in shard.files), *self.sidecars]

    def to_dict(self) -> dict[str, Any]:
        """The manifest as JSON-ready values, its readers' notes first."""
        return {
            "schema_version": SCHEMA_VERSION,
            "class_names": list(CLASS_NAMES),
            "digest_method": DIGEST_METHOD,
            **asdict(self),
        }


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Publish ``manifest.json``; do this last."""
    write_json(folder / MANIFEST_NAME, sealed(manifest.to_dict()))


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """A manifest's document with its seal: the SHA-256 of its canonical JSON without the seal.

    It finds accidents anywhere in the manifest, also in what no image depends on. Who forges can seal anew.
    """
    bare = {key: value for key, value in document.items() if key != _SEAL}
    return {**bare, _SEAL: sha256_of_json(bare)}


def seal_problem(folder: Path) -> str | None:
    """What is wrong with the seal of a manifest that ``load_manifest`` accepts, or None."""
    try:
        document = json.loads((folder / MANIFEST_NAME).read_text("utf-8"))
        if document == sealed(document):
            return None
    except (OSError, ValueError) as error:
        return f"{MANIFEST_NAME}: cannot be read: {error}"
    return f"{MANIFEST_NAME}: altered: it is not the document whose SHA-256 it bears"


def load_manifest(folder: Path) -> Manifest:
    """Read and check a set's manifest.

    Raises:
        VerificationError: no manifest, no valid JSON, an unknown schema, or a field that cannot be.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        unfinished = (folder / ".synthgen").is_dir()
        cure = "its export is unfinished; run it again with --resume" if unfinished else "expected an exported set"
        raise VerificationError(f"{folder}: no {MANIFEST_NAME} here: {cure}")
    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise ValueError("it is larger than 256 MiB")
        return _parse(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, RecursionError, RecipeError) as error:
        raise VerificationError(f"{path}: not a manifest this version can trust: {error}") from error


def _parse(document: Any) -> Manifest:
    _expect(isinstance(document, dict), "it is no JSON object")
    version = document.get("schema_version")
    _expect(version == SCHEMA_VERSION, f"schema_version {version!r}; this version reads {SCHEMA_VERSION}")
    _expect(document.get("class_names") == list(CLASS_NAMES), "class_names are not Fashion-MNIST's")
    _expect(document.get("digest_method") == DIGEST_METHOD, "digest_method is unknown")
    body = {k: v for k, v in document.items() if k not in ("schema_version", "class_names", "digest_method", _SEAL)}
    manifest: Manifest = _record(
        Manifest,
        body,
        checkpoint=lambda value: _record(CheckpointRecord, value),
        privacy=PrivacyStatement.from_dict,
        made_with=_texts,
        class_counts=_integers,
        shards=lambda value: _records(_shard_record, value),
        sidecars=lambda value: _records(_file_record, value),
    )
    _check_consistency(manifest)
    return manifest


def _check_consistency(manifest: Manifest) -> None:
    Recipe.from_dict(manifest.checkpoint.recipe)
    recipe_sha256 = sha256_of_json(manifest.checkpoint.recipe)
    _expect(recipe_sha256 == manifest.checkpoint.recipe_sha256, "the recipe is not the one its hash names")
    _expect(0 <= manifest.seed <= MAX_SEED, f"seed {manifest.seed} is out of range")
    _expect(manifest.split in ("train", "test"), f"split {manifest.split!r}")
    _expect(manifest.start >= 0 and manifest.count >= 1, f"start {manifest.start}, count {manifest.count}")
    _expect(manifest.start + manifest.count <= MAX_INDEX, f"start {manifest.start} + count {manifest.count}: too many")
    _expect(1 <= len(manifest.shards) <= MAX_SHARDS, f"{len(manifest.shards)} shards")
    if manifest.labelled:
        try:
            LabelRule.parse(manifest.labels)
        except UsageError as error:
            raise ValueError(str(error)) from error
        counted = len(manifest.class_counts) == len(CLASS_NAMES) and min(manifest.class_counts) >= 0
        _expect(counted and sum(manifest.class_counts) == manifest.count, "class_counts do not sum to count")
    next_start = manifest.start
    for index, shard in enumerate(manifest.shards):
        follows = shard.index == index and shard.start == next_start and shard.count >= 1
        _expect(follows and bool(shard.files), f"shard {index} does not follow the one before it")
        next_start += shard.count
    _expect(next_start == manifest.start + manifest.count, "the shards do not add up to count")
    names = [file.name for file in manifest.files()]
    _expect(len(set(names)) == len(names), "a file is named twice")


def _record(record: type[Any], document: Any, **converters: Callable[[Any], Any]) -> Any:
    """Build a dataclass from a JSON object with exactly its fields, each of its declared type."""
    _expect(isinstance(document, dict), f"a {record.__name__} is no JSON object")
    names = {field.name for field in fields(record)}
    odd = names.symmetric_difference(document)
    _expect(not odd, f"unknown or missing in {record.__name__}: {', '.join(sorted(map(str, odd)))[:200]}")
    hints = typing.get_type_hints(record)
    values = {}
    for name in names:
        if name in converters:
            values[name] = converters[name](document[name])
            continue
        expected = typing.get_origin(hints[name]) or hints[name]
        _expect(
            type(document[name]) is expected,
            f"{name} is {document[name]!r:.80}; expected {expected.__name__}",
        )
        _expect_printable(document[name], name)
        values[name] = document[name]
    return record(**values)


def _expect_printable(value: Any, name: str) -> None:
    """Refuse texts that would play tricks on a terminal or cannot be encoded, also inside nested values."""
    if isinstance(value, str):
        _expect(value.isprintable(), f"{name} holds characters that cannot be printed")
    elif isinstance(value, dict):
        for key, item in value.items():
            _expect_printable(key, name)
            _expect_printable(item, name)
    elif isinstance(value, list):
        for item in value:
            _expect_printable(item, name)


def _records(parse: Callable[[Any], Any], value: Any) -> tuple[Any, ...]:
    _expect(isinstance(value, list), "a list of records is no list")
    return tuple(parse(item) for item in value)


def _shard_record(value: Any) -> ShardRecord:
    record: ShardRecord = _record(ShardRecord, value, files=lambda files: _records(_file_record, files))
    return record


def _file_record(value: Any) -> FileRecord:
    record: FileRecord = _record(FileRecord, value)
    _expect(is_inside(record.name), f"file name {record.name!r:.200} leaves the folder")
    return record


def _texts(value: Any) -> dict[str, str]:
    _expect(isinstance(value, dict) and all(type(v) is str for v in value.values()), "made_with holds no texts")
    _expect_printable(value, "made_with")
    return dict(value)


def _integers(value: Any) -> tuple[int, ...]:
    _expect(isinstance(value, list) and all(type(item) is int for item in value), "class_counts are no integers")
    return tuple(value)


def _expect(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)
