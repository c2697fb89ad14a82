"""``data.json``: what prepared images show, what was done to them, and the SHA-256 of their files.

It stands beside the IDX files and is written last: where it is, they are complete. It is as private as the images: it
holds the exact numbers of images of each class. It names no path.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthgen.errors import DataError
from synthgen.formats.idx import IDX_PREFIX, idx_sha256
from synthgen.subject import Subject
from synthgen.untrusted.files import read_file
from synthgen.untrusted.text import parse_json

DATA_JSON, SHEET_NAME = "data.json", "contact-sheet-real-images.png"
SCHEMA_VERSION = 1
SPLITS = ("train", "test")
_MAX_BYTES = 1 << 20  # 1 MiB
_MAX_COUNT = 50_000_000
_MAX_TEXT = 300
_KEYS = {"schema_version", "synthgen_version", "subject", "counts", "treatment", "files"}


@dataclass(frozen=True, kw_only=True)
class Treatment:
    """What was done to the images.

    Attributes:
        source: what they were: ``class folders``, ``IDX``, ``NPZ``, ``HDF5`` or ``Parquet``.
        test_source: what the test images were where they came separately, else None.
        test_share: the share of each class that was set aside as test images, else None.
        seed: which decides the images set aside, where any were.
        size: rows and columns, in pixels.
        grey, resampling, fit, order: in words.
        inverted: whether black and white were exchanged.
        skipped: how many images could not be read and were left out.
    """

    source: str
    test_source: str | None
    test_share: float | None
    seed: int | None
    size: tuple[int, int]
    grey: str
    resampling: str
    fit: str
    order: str
    inverted: bool
    skipped: int


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """The content of ``data.json``.

    Attributes:
        subject: what the images show.
        counts: split → images of each class, in label order; ``test`` is empty where there is no test split.
        treatment: what was done to the images.
        files: IDX file, without ``.gz`` → SHA-256 of its unpacked content.
        synthgen_version: of the program that wrote it.
    """

    subject: Subject
    counts: dict[str, tuple[int, ...]]
    treatment: Treatment
    files: dict[str, str]
    synthgen_version: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        treatment = {**vars(self.treatment), "size": list(self.treatment.size)}
        return {
            "schema_version": SCHEMA_VERSION,
            "synthgen_version": self.synthgen_version,
            "subject": self.subject.to_dict(),
            "counts": {split: list(counts) for split, counts in self.counts.items()},
            "treatment": treatment,
            "files": dict(self.files),
        }

    @classmethod
    def from_dict(cls, document: Any) -> "Preparation":
        """The inverse of ``to_dict``.

        Raises:
            ValueError: it has another schema, other keys, or values of other types or out of range.
        """
        _expect(isinstance(document, dict), "it is no JSON object")
        version = document.get("schema_version")
        _expect(type(version) is int, "it has no schema_version")
        _expect(version == SCHEMA_VERSION, f"schema {version}; this synthgen reads {SCHEMA_VERSION}")
        _expect(document.keys() == _KEYS, f"expected the keys {', '.join(sorted(_KEYS))}")
        subject = Subject.from_dict(document["subject"])
        counts = _counts(document["counts"], subject)
        files = document["files"]
        names = {name for split in SPLITS if counts[split] for name in idx_names(split)}
        _expect(isinstance(files, dict) and files.keys() == names, f"files are not {', '.join(sorted(names))}")
        _expect(all(_is_hash(value) for value in files.values()), "a file's SHA-256 is none")
        return cls(
            subject=subject,
            counts=counts,
            treatment=_treatment(document["treatment"]),
            files={name: files[name] for name in sorted(files)},
            synthgen_version=_text(document["synthgen_version"], "synthgen_version"),
        )


def idx_names(split: str) -> tuple[str, str]:
    """The names of a split's images and labels, without ``.gz``."""
    return f"{IDX_PREFIX[split]}-images-idx3-ubyte", f"{IDX_PREFIX[split]}-labels-idx1-ubyte"


def read_data_json(folder: Path) -> Preparation | None:
    """What ``folder``'s ``data.json`` says, or None where there is none.

    Raises:
        DataError: it cannot be read, or is not what ``prepare`` writes.
    """
    path = folder / DATA_JSON
    try:
        return Preparation.from_dict(parse_json(read_file(path, _MAX_BYTES, links=True)))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise DataError(f"{path}: {reason}; run synthgen prepare anew") from error


def expect_files(folder: Path, preparation: Preparation) -> None:
    """Check that a folder's IDX files are those that its ``data.json`` describes.

    Raises:
        DataError: one is missing, damaged or another.
    """
    for split in SPLITS:
        for name, images in zip(idx_names(split), (True, False), strict=True):
            if name not in preparation.files:
                continue
            path = next((p for p in (folder / f"{name}.gz", folder / name) if p.is_file()), None)
            if path is None:
                raise DataError(f"{folder}: {name}.gz is missing; run synthgen prepare anew")
            if idx_sha256(path, sum(preparation.counts[split]), images=images) != preparation.files[name]:
                raise DataError(f"{path}: not the file that {DATA_JSON} describes; run synthgen prepare anew")


def _counts(value: Any, subject: Subject) -> dict[str, tuple[int, ...]]:
    _expect(isinstance(value, dict) and value.keys() == set(SPLITS), "counts are not of train and test")
    for split, counts in value.items():
        lengths = (subject.num_classes,) if split == "train" else (subject.num_classes, 0)
        _expect(isinstance(counts, list) and len(counts) in lengths, f"counts of {split} are not one for each class")
        _expect(all(type(n) is int and 0 <= n <= _MAX_COUNT for n in counts), f"counts of {split} are no numbers")
    return {split: tuple(value[split]) for split in SPLITS}


def _treatment(value: Any) -> Treatment:
    checks: dict[str, Callable[[Any], bool]] = {
        **dict.fromkeys(("source", "grey", "resampling", "fit", "order"), _is_text),
        "test_source": lambda v: v is None or _is_text(v),
        "test_share": lambda v: v is None or (type(v) is float and 0 < v < 1),
        "seed": lambda v: v is None or (type(v) is int and v >= 0),
        "size": lambda v: isinstance(v, list) and len(v) == 2 and all(type(n) is int and n > 0 for n in v),
        "inverted": lambda v: type(v) is bool,
        "skipped": lambda v: type(v) is int and 0 <= v <= _MAX_COUNT,
    }
    _expect(isinstance(value, dict) and value.keys() == checks.keys(), f"treatment has the keys {', '.join(checks)}")
    for name, check in checks.items():
        _expect(check(value[name]), f"{name} is {value[name]!r:.80}, which cannot be")
    return Treatment(**{**value, "size": tuple(value["size"])})


def _text(value: Any, name: str) -> str:
    _expect(_is_text(value), f"{name} is no short printable text")
    return str(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and 1 <= len(value) <= _MAX_TEXT


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def _expect(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)
