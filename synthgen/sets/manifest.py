"""The manifest: what a set is, in one JSON file that is written last, so that its presence means complete.

It records everything needed to make the same pixels again and to prove that the files are what they claim. Beyond a
thousand shards it keeps them in lists, files of their own whose hashes it holds.
``load_manifest`` treats the file as hostile: every field is checked, and no path leaves the folder.
"""

import functools
import json
import typing
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from synthgen.errors import RecipeError, UsageError, VerificationError
from synthgen.fashion import CLASS_NAMES
from synthgen.files import (
    is_inside,
    is_own_file,
    json_bytes,
    sha256_of_bytes,
    sha256_of_file,
    sha256_of_json,
)
from synthgen.index import MAX_INDEX, MAX_SEED, MAX_SHARDS, LabelRule, pieces
from synthgen.model.recipe import Recipe
from synthgen.privacy.statement import PrivacyStatement

MANIFEST_NAME = "manifest.json"
WORK_FOLDER = ".synthgen"  # of an export under way: the claim, finished shards' records, what is being written
SCHEMA_VERSION = 1  # every shard stands in the manifest itself
LISTED_SCHEMA_VERSION = 2  # shards stand in lists beside it, which the manifest vouches for
SHARDS_PER_LIST = 1_000  # also how many shards a manifest holds itself
LIST_FOLDER = "shard-lists"
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

    @property
    def names(self) -> list[str]:
        """The names of its files."""
        return [file.name for file in self.files]


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
    shard_lists: tuple[FileRecord, ...] = ()  # the files that hold ``shards`` where these are many

    @property
    def labelled(self) -> bool:
        """Whether the images bear labels."""
        return self.labels != "none"

    def files(self) -> list[FileRecord]:
        """Every file the manifest vouches for."""
        return [*(file for shard in self.shards for file in shard.files), *self.sidecars, *self.shard_lists]

    def to_dict(self) -> dict[str, Any]:
        """The manifest as JSON-ready values, its readers' notes first; shards that are listed elsewhere left out."""
        left_out = "shards" if self.shard_lists else "shard_lists"
        whole = self if left_out == "shard_lists" else replace(self, shards=())
        return {
            "schema_version": LISTED_SCHEMA_VERSION if self.shard_lists else SCHEMA_VERSION,
            "class_names": list(CLASS_NAMES),
            "digest_method": DIGEST_METHOD,
            **{name: value for name, value in asdict(whole).items() if name != left_out},
            "privacy": self.privacy.to_dict(),
        }


def manifest_documents(manifest: Manifest) -> tuple[Manifest, dict[str, bytes]]:
    """The files that hold a manifest, by name, ``manifest.json`` last; and the manifest with their records.

    Up to 1,000 shards it is one file. Beyond, shards stand a thousand to a list in ``shard-lists``, and the manifest
    names the lists with their hashes: it stays small, and whoever holds it can check any list, and any shard in it,
    apart from all others.
    """
    documents: dict[str, bytes] = {}
    if len(manifest.shards) > SHARDS_PER_LIST:
        for number, piece in enumerate(pieces(len(manifest.shards), SHARDS_PER_LIST)):
            name = f"{LIST_FOLDER}/{number:05d}.json"
            documents[name] = json_bytes({"shards": [asdict(shard) for shard in manifest.shards[piece]]})
    lists = tuple(FileRecord(name=n, bytes=len(d), sha256=sha256_of_bytes(d)) for n, d in documents.items())
    manifest = replace(manifest, shard_lists=lists)
    documents[MANIFEST_NAME] = json_bytes(sealed(manifest.to_dict()))
    return manifest, documents


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """A manifest's document with its seal: the SHA-256 of its canonical JSON without the seal.

    It finds accidents anywhere in the manifest, also in what no image depends on. Who forges can seal anew.
    """
    bare = {key: value for key, value in document.items() if key != _SEAL}
    return {**bare, _SEAL: sha256_of_json(bare)}


def seal_problems(folder: Path) -> list[str]:
    """What is wrong with the seal of a manifest that ``load_manifest`` accepts: one line, or none."""
    try:
        document = json.loads((folder / MANIFEST_NAME).read_text("utf-8"))
        if document == sealed(document):
            return []
    except (OSError, ValueError) as error:
        return [f"{MANIFEST_NAME}: cannot be read: {error}"]
    return [f"{MANIFEST_NAME}: altered: it is not the document whose SHA-256 it bears"]


def split_manifest(split: str) -> str:
    """The name of the manifest of a split that is not the first of its folder."""
    return f"manifest-{split}.json"


def load_manifests(folder: Path) -> tuple[Manifest, ...]:
    """The manifest of every split in a set's folder, the first as ``load_manifest`` gives it.

    Raises:
        VerificationError: as ``load_manifest``; or splits overlap, or are not of one export.
    """
    first = load_manifest(folder)
    own = {file.name for file in first.sidecars}
    others = [load_manifest(folder, split_manifest(s)) for s in ("train", "test") if split_manifest(s) in own]
    end = first.start + first.count
    for other in others:
        alike = all(
            getattr(first, k) == getattr(other, k) for k in ("checkpoint", "privacy", "seed", "labels", "format")
        )
        if not alike or other.start != end or other.split == first.split:
            raise VerificationError(
                f"{folder / split_manifest(other.split)}: does not go on where {MANIFEST_NAME} ends"
            )
        end += other.count
    return first, *others


def load_manifest(folder: str | Path, name: str = MANIFEST_NAME) -> Manifest:
    """Read and check a set's manifest, that of its first split unless another is named.

    Raises:
        VerificationError: no manifest, no valid JSON, an unknown schema, or a field that cannot be.
    """
    folder = Path(folder)
    path = folder / name
    if not path.is_file():
        unfinished = (folder / WORK_FOLDER).is_dir()
        cure = "its export is unfinished; run it again with --resume" if unfinished else "expected an exported set"
        raise VerificationError(f"{folder}: no {name} here: {cure}")
    if not is_own_file(folder, name):
        raise VerificationError(f"{path}: a link; expected the file itself, for a set is whole in its folder")

    def read(name: str) -> bytes | None:
        if not is_own_file(folder, name):
            return None
        if (folder / name).stat().st_size > _MAX_MANIFEST_BYTES:
            raise ValueError(f"{name} is larger than 256 MiB")
        return (folder / name).read_bytes()

    return read_manifest(str(folder), read, name)


def read_manifest(place: str, read: Callable[[str], bytes | None], name: str = MANIFEST_NAME) -> Manifest:
    """Read and check the manifest ``name`` of a set in ``place``, whose files ``read`` gives by name.

    Raises:
        VerificationError: no valid JSON, an unknown schema, a field that cannot be, or a list of shards altered.
    """
    try:
        return _parse(json.loads(read(name) or b""), read)
    except (OSError, ValueError, RecursionError, RecipeError) as error:
        raise VerificationError(f"{place}/{name}: not a manifest this version can trust: {error}") from error


def _parse(document: Any, read: Callable[[str], bytes | None]) -> Manifest:
    _expect(isinstance(document, dict), "it is no JSON object")
    version = document.get("schema_version")
    known = (SCHEMA_VERSION, LISTED_SCHEMA_VERSION)
    _expect(version in known, f"schema_version {version!r}; this version reads {known[0]} and {known[1]}")
    _expect(document.get("class_names") == list(CLASS_NAMES), "class_names are not Fashion-MNIST's")
    _expect(document.get("digest_method") == DIGEST_METHOD, "digest_method is unknown")
    body = {k: v for k, v in document.items() if k not in ("schema_version", "class_names", "digest_method", _SEAL)}
    if version == LISTED_SCHEMA_VERSION:
        _expect("shards" not in body and bool(body.get("shard_lists")), "its shards are not in lists")
        lists = _records(_file_record, body["shard_lists"])
        names = {record.name for record in lists}
        few = len(names) == len(lists) <= -(-MAX_SHARDS // SHARDS_PER_LIST)
        small = sum(record.bytes for record in lists) <= _MAX_MANIFEST_BYTES
        _expect(few and small, f"{len(lists)} lists of shards: too many, too large, or one named twice")
        body["shards"] = [shard for record in lists for shard in _listed_shards(record, read(record.name))]
    else:
        _expect("shard_lists" not in body, "unknown or missing in Manifest: shard_lists")
        body["shard_lists"] = []
    manifest: Manifest = _record(
        Manifest,
        body,
        checkpoint=lambda value: _record(CheckpointRecord, value),
        privacy=PrivacyStatement.from_dict,
        made_with=_texts,
        class_counts=_integers,
        shards=lambda value: _records(shard_record, value),
        sidecars=lambda value: _records(_file_record, value),
        shard_lists=lambda value: _records(_file_record, value),
    )
    _check_consistency(manifest)
    return manifest


def _listed_shards(record: FileRecord, data: bytes | None) -> list[Any]:
    _expect(data is not None, f"{record.name}: missing")
    data = data or b""
    _expect(
        len(data) == record.bytes and sha256_of_bytes(data) == record.sha256,
        f"{record.name}: altered: its size or SHA-256 is not the one recorded",
    )
    listed = json.loads(data)
    _expect(isinstance(listed, dict) and isinstance(listed.get("shards"), list), f"{record.name}: no list of shards")
    shards: list[Any] = listed["shards"]
    return shards


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


def _record(record: Any, document: Any, **converters: Callable[[Any], Any]) -> Any:
    """Build a dataclass from a JSON object with exactly its fields, each of its declared type."""
    _expect(isinstance(document, dict), f"a {record.__name__} is no JSON object")
    hints = _field_types(record)
    names = set(hints)
    odd = names.symmetric_difference(document)
    _expect(not odd, f"unknown or missing in {record.__name__}: {', '.join(sorted(map(str, odd)))[:200]}")
    values = {}
    for name in names:
        if name in converters:
            values[name] = converters[name](document[name])
            continue
        if type(document[name]) is not hints[name]:  # the message is made only where it is needed
            raise ValueError(f"{name} is {document[name]!r:.80}; expected {hints[name].__name__}")
        _expect_printable(document[name], name)
        values[name] = document[name]
    return record(**values)


@functools.cache
def _field_types(record: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(record)
    return {field.name: typing.get_origin(hints[field.name]) or hints[field.name] for field in fields(record)}


def _expect_printable(value: Any, name: str) -> None:
    """Refuse texts that would play tricks on a terminal or cannot be encoded, also inside nested values."""
    if isinstance(value, str):
        if not value.isprintable():
            raise ValueError(f"{name} holds characters that cannot be printed")
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


def shard_record(value: Any) -> ShardRecord:
    """Check and read a shard's record; raises ValueError."""
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
