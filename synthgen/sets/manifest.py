"""The manifest: what a set is, in one JSON file that is written last, so that its presence means complete.

It records everything needed to make the same pixels again and to prove that the files are unchanged. More than a
thousand shards are kept in lists, files beside it whose hashes it holds. ``load_manifest`` treats the file as hostile:
every field is checked, and no path leaves the folder.
"""

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from synthgen.errors import RecipeError, VerificationError
from synthgen.files import (
    is_inside,
    is_own_file,
    json_bytes,
    sha256_of_bytes,
    sha256_of_file,
    sha256_of_json,
)
from synthgen.index import MAX_SHARDS, LabelRule, pieces
from synthgen.model.claims import FLOAT32, INTEGERS
from synthgen.model.recipe import Recipe
from synthgen.privacy.statement import PrivacyStatement
from synthgen.sets.consistency import expect_consistent, is_sha256
from synthgen.sets.records import expect, record_of, records_of, texts_of
from synthgen.subject import Subject
from synthgen.untrusted.files import read_file
from synthgen.untrusted.text import parse_json

MANIFEST_NAME = "manifest.json"
SIGNATURE_SUFFIX = ".sig"  # of a file beside the manifest, or a checkpoint's metadata: see ``signatures``
WORK_FOLDER = ".synthgen"  # of an unfinished export: the claim, records of finished shards, files being written
SCHEMA_VERSION = 1  # the manifest holds every shard
LISTED_SCHEMA_VERSION = 2  # lists beside it hold the shards, and it holds the hashes of the lists
SHARDS_PER_LIST = 1_000  # also how many shards a manifest holds itself
LIST_FOLDER = "shard-lists"
DIGEST_METHOD = (
    "SHA-256 over the SHA-256 of every block (the images that share id // 256, in order of id), "
    "an image counting as its label byte (255: unlabelled) and its 784 pixels row by row"
)
REPRODUCIBILITY = {  # by the checkpoint's arithmetic
    INTEGERS: "Image i is a function of the checkpoint's integers, the seed, the label rule and i alone "
    "(docs/pixels.md): every machine and every version draws the same pixels.",
    FLOAT32: "Image i is a function of the checkpoint's float32 weights, the seed, the label rule and i, and of "
    "rounding: the same pixels come from the software and the processor that manifest.json names in made_with.",
}
_SEAL = "manifest_sha256"
_MAX_VALUES_PER_SHARD = 100  # in a list of shards; a shard of two files has about 20
MAX_MANIFEST_BYTES = 64 << 20  # 64 MiB


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


def content_record(name: str, data: bytes) -> FileRecord:
    """The record of a file with the content ``data``."""
    return FileRecord(name=name, bytes=len(data), sha256=sha256_of_bytes(data))


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """One shard as it was written: which images, their digest (see ``SetDigest``), and the files that hold them."""

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
    arithmetic: str  # ``integers``, or ``float32``: that of all checkpoints of synthgen 0.1 and 0.2

    @functools.cached_property
    def subject(self) -> Subject:
        """What its images show."""
        return Recipe.from_dict(self.recipe).subject


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
    made_with: dict[str, str]  # versions and machines, for information; only a float checkpoint's pixels depend on them
    shard_lists: tuple[FileRecord, ...] = ()  # the files that hold ``shards`` where these are many

    @property
    def labelled(self) -> bool:
        """Whether the images have labels."""
        return self.label_rule.labelled

    @property
    def label_rule(self) -> LabelRule:
        """Which label each image has."""
        return LabelRule.recorded(self.labels, self.subject.num_classes)

    @property
    def subject(self) -> Subject:
        """What the images show."""
        return self.checkpoint.subject

    @property
    def reproducibility(self) -> str:
        """What its pixels depend on, in one sentence."""
        return REPRODUCIBILITY[self.checkpoint.arithmetic]

    def files(self) -> list[FileRecord]:
        """Every file whose hash the manifest holds."""
        return [*(file for shard in self.shards for file in shard.files), *self.sidecars, *self.shard_lists]

    def to_dict(self) -> dict[str, Any]:
        """The manifest as JSON-ready values; without the shards if lists hold them."""
        left_out = "shards" if self.shard_lists else "shard_lists"
        whole = self if left_out == "shard_lists" else replace(self, shards=())
        return {
            "schema_version": LISTED_SCHEMA_VERSION if self.shard_lists else SCHEMA_VERSION,
            "class_names": list(self.subject.class_names),
            "digest_method": DIGEST_METHOD,
            "reproducibility": self.reproducibility,
            **{name: value for name, value in asdict(whole).items() if name != left_out},
            "privacy": self.privacy.to_dict(),
        }


def manifest_documents(manifest: Manifest, own_name: str = MANIFEST_NAME) -> tuple[Manifest, dict[str, bytes]]:
    """The files that hold a manifest, by name, ``own_name`` last; and the manifest with their records.

    Up to 1,000 shards it is one file. More are kept in ``shard-lists``, a thousand to a list, and the manifest holds
    the hashes of the lists: it stays small, and any list, and any shard in it, can be checked apart from all others.
    """
    documents: dict[str, bytes] = {}
    if len(manifest.shards) > SHARDS_PER_LIST:
        for number, piece in enumerate(pieces(len(manifest.shards), SHARDS_PER_LIST)):
            name = f"{LIST_FOLDER}/{number:05d}.json"
            documents[name] = json_bytes({"shards": [asdict(shard) for shard in manifest.shards[piece]]})
    lists = tuple(content_record(name, data) for name, data in documents.items())
    manifest = replace(manifest, shard_lists=lists)
    documents[own_name] = json_bytes(sealed(manifest.to_dict()))
    return manifest, documents


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """A manifest's document with its seal: the SHA-256 of its canonical JSON without the seal.

    It finds accidents anywhere in the manifest, also in values that no image depends on. A forger can write a new seal.
    """
    bare = {key: value for key, value in document.items() if key != _SEAL}
    return {**bare, _SEAL: sha256_of_json(bare)}


def seal_problems(folder: Path) -> list[str]:
    """What is wrong with the seal of a manifest that ``load_manifest`` accepts: a list of one line, or empty."""
    try:
        document = parse_json(read_file(folder / MANIFEST_NAME, MAX_MANIFEST_BYTES))
        if document == sealed(document):
            return []
    except (OSError, ValueError) as error:
        return [f"{MANIFEST_NAME}: cannot be read: {error}"]
    return [f"{MANIFEST_NAME}: altered: its SHA-256 is not the one it records"]


def split_manifest(split: str) -> str:
    """The name of the manifest of a split that is not the first of its folder."""
    return f"manifest-{split}.json"


def load_manifests(folder: Path) -> tuple[Manifest, ...]:
    """The manifest of every split in a set's folder, the first as ``load_manifest`` gives it.

    Raises:
        VerificationError: as ``load_manifest``; or a split does not begin where the one before it ends, is of another
            export, or names a file of the other.
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
        shards = {file.name for file in other.files()} - {file.name for file in other.sidecars}
        if shards & {file.name for file in first.files()} or not set(other.sidecars) <= set(first.sidecars):
            raise VerificationError(
                f"{folder / split_manifest(other.split)}: names files that {MANIFEST_NAME} has otherwise"
            )
        end += other.count
    return first, *others


def load_manifest(folder: str | Path, name: str = MANIFEST_NAME) -> Manifest:
    """Read and check a set's manifest, that of its first split unless another is named.

    Raises:
        VerificationError: no manifest, no valid JSON, an unknown schema, or a value out of range or inconsistent.
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
        return read_file(folder / name, MAX_MANIFEST_BYTES)

    return read_manifest(str(folder), read, name)


def read_manifest(place: str, read: Callable[[str], bytes | None], name: str = MANIFEST_NAME) -> Manifest:
    """Read and check the manifest ``name`` of a set in ``place``; ``read`` gives the content of a file, or None.

    Raises:
        VerificationError: as ``load_manifest``, or a list of shards is altered.
    """
    try:
        return _parse(parse_json(read(name) or b""), read)
    except (OSError, ValueError, RecipeError) as error:
        raise VerificationError(f"{place}/{name}: not a manifest this version can trust: {error}") from error


def _parse(document: Any, read: Callable[[str], bytes | None]) -> Manifest:
    expect(isinstance(document, dict), "it is no JSON object")
    version = document.get("schema_version")
    known = (SCHEMA_VERSION, LISTED_SCHEMA_VERSION)
    readable = type(version) is int and version in known  # True is equal to 1
    expect(readable, f"schema_version {version!r:.80}; this version reads {known[0]} and {known[1]}")
    expect(document.get("digest_method") == DIGEST_METHOD, "digest_method is unknown")
    derived = ("schema_version", "class_names", "digest_method", "reproducibility", _SEAL)
    body = {k: v for k, v in document.items() if k not in derived}
    if version == LISTED_SCHEMA_VERSION:
        expect("shards" not in body and bool(body.get("shard_lists")), "its shards are not in lists")
        lists = records_of(_file_record, body["shard_lists"])
        names = {record.name for record in lists}
        few = len(names) == len(lists) <= -(-MAX_SHARDS // SHARDS_PER_LIST)
        small = sum(record.bytes for record in lists) <= MAX_MANIFEST_BYTES
        expect(few and small, f"{len(lists)} lists of shards: too many, too large, or one named twice")
        body["shards"] = [shard for record in lists for shard in _listed_shards(record, read(record.name))]
    else:
        expect("shard_lists" not in body, "unknown or missing in Manifest: shard_lists")
        body["shard_lists"] = []
    manifest: Manifest = record_of(
        Manifest,
        body,
        checkpoint=_checkpoint_record,
        privacy=PrivacyStatement.from_dict,
        made_with=texts_of,
        class_counts=_integers,
        shards=lambda value: records_of(shard_record, value),
        sidecars=lambda value: records_of(_file_record, value),
        shard_lists=lambda value: records_of(_file_record, value),
    )
    known_names = list(manifest.subject.class_names)
    expect(document.get("class_names") == known_names, f"class_names are not those of {manifest.subject.name}")
    said = manifest.reproducibility if "arithmetic" in body["checkpoint"] else None  # synthgen 0.1 and 0.2 said nothing
    expect(document.get("reproducibility") == said, "reproducibility is not that of its checkpoint's arithmetic")
    expect_consistent(manifest)
    return manifest


def _checkpoint_record(value: Any) -> CheckpointRecord:
    if isinstance(value, dict):
        value = {"arithmetic": FLOAT32, **value}
    record: CheckpointRecord = record_of(CheckpointRecord, value)
    expect(record.arithmetic in REPRODUCIBILITY, f"arithmetic {record.arithmetic!r:.80}")
    return record


def _listed_shards(record: FileRecord, data: bytes | None) -> list[Any]:
    expect(data is not None, f"{record.name}: missing")
    data = data or b""
    expect(
        len(data) == record.bytes and sha256_of_bytes(data) == record.sha256,
        f"{record.name}: altered: its size or SHA-256 is not the one recorded",
    )
    listed = parse_json(data, SHARDS_PER_LIST * _MAX_VALUES_PER_SHARD)
    expect(isinstance(listed, dict) and isinstance(listed.get("shards"), list), f"{record.name}: no list of shards")
    shards: list[Any] = listed["shards"]
    return shards


def shard_record(value: Any) -> ShardRecord:
    """Check and read a shard's record; raises ValueError."""
    record: ShardRecord = record_of(ShardRecord, value, files=lambda files: records_of(_file_record, files))
    return record


def _file_record(value: Any) -> FileRecord:
    record: FileRecord = record_of(FileRecord, value)
    expect(is_inside(record.name), f"file name {record.name!r:.200} leaves the folder")
    kept = (
        record.name in (MANIFEST_NAME, MANIFEST_NAME + SIGNATURE_SUFFIX) or record.name.partition("/")[0] == WORK_FOLDER
    )
    expect(not kept and len(record.name) <= 255, f"{record.name!r:.200} is no file of a set")
    expect(is_sha256(record.sha256) and record.bytes >= 0, f"{record.name!r:.200}: no size and SHA-256 of a file")
    return record


def _integers(value: Any) -> tuple[int, ...]:
    expect(isinstance(value, list) and all(type(item) is int for item in value), "class_counts are no integers")
    return tuple(value)
