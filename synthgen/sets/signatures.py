"""Signatures of sets and checkpoints: whose word a privacy claim is.

A signature lies beside what it signs, as ``manifest.json.sig`` or ``checkpoint.json.sig``, and changes nothing there.
It covers the whole file by its SHA-256, and with it all that the file has hashes of: every shard and the manifest of
every split, or the generator. Digest, checkpoint and sentence stand in it once more, for people to read. It proves that
the owner of a key has said so, not that it is true.
"""

import base64
import datetime
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthgen.errors import UsageError, VerificationError
from synthgen.files import sha256_of_bytes, sha256_of_json, write_json
from synthgen.model.checkpoint import MAX_METADATA_BYTES, METADATA_NAME, load_checkpoint
from synthgen.sets.keys import SIGNATURE_BYTES, PrivateKey, PublicKey, expect_name, is_name
from synthgen.sets.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, SIGNATURE_SUFFIX, load_manifest
from synthgen.untrusted.files import read_file
from synthgen.untrusted.text import parse_json

_FORMAT = "synthgen signature 1"
# Before every message, so that no signature that the key gives for another purpose is one of ours.
_DOMAIN = b"synthgen signature of a set or a checkpoint, version 1\0"
_MAX_SIGNATURE_BYTES, _MAX_VALUES, _MAX_TEXT = 16 << 10, 100, 1000
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")

Signed = dict[str, str]  # what is signed: the file's name and hash, and what people want to know of it


@dataclass(frozen=True, kw_only=True)
class Signature:
    """A signature as its file has it; nothing of it is to be believed before ``check`` returns.

    Attributes:
        signed: see ``subject_of``.
        key: the fingerprint of the key.
        name, date: who signed when, in the signer's words; signed too.
        signature: of all these, 64 bytes.
    """

    signed: Signed
    key: str
    name: str
    date: str
    signature: bytes

    @property
    def message(self) -> bytes:
        """The bytes that are signed."""
        said = {"signed": self.signed, "key": self.key, "name": self.name, "date": self.date}
        return _DOMAIN + sha256_of_json(said).encode()

    def to_dict(self) -> dict[str, Any]:
        """The document in its file."""
        return {
            "format": _FORMAT,
            "signed": self.signed,
            "key": self.key,
            "name": self.name,
            "date": self.date,
            "signature": base64.b64encode(self.signature).decode(),
        }

    @classmethod
    def from_dict(cls, document: Any) -> "Signature":
        """Read a document that may come from anyone; raises ValueError in one line."""
        keys = {"format", "signed", "key", "name", "date", "signature"}
        if not isinstance(document, dict) or set(document) != keys or document["format"] != _FORMAT:
            raise ValueError(f"expected an object of {', '.join(sorted(keys))}, of the format '{_FORMAT}'")
        signed, key, name, date, encoded = (document[k] for k in ("signed", "key", "name", "date", "signature"))
        if not isinstance(signed, dict) or not all(isinstance(v, str) and len(v) <= _MAX_TEXT for v in signed.values()):
            raise ValueError("what is signed is no object of short texts")
        if not all(isinstance(text, str) for text in (key, name, date, encoded)):
            raise ValueError("key, name, date and signature are not all texts")
        if not (_FINGERPRINT.fullmatch(key) and is_name(name) and _DATE.fullmatch(date)):
            raise ValueError("no fingerprint, name and date as this version writes them")
        if len(encoded) > 2 * SIGNATURE_BYTES:
            raise ValueError("the signature is too long")
        raw = base64.b64decode(encoded, validate=True)  # binascii.Error is a ValueError
        return cls(signed=signed, key=key, name=name, date=date, signature=raw)


def subject_of(folder: Path) -> Signed:
    """What a signature of a set's or checkpoint's folder signs.

    Raises:
        UsageError: the folder is neither.
        VerificationError, CheckpointError: its manifest cannot be trusted, or its checkpoint was altered.
    """
    if (folder / MANIFEST_NAME).is_file():
        manifest = load_manifest(folder)
        data = read_file(folder / MANIFEST_NAME, MAX_MANIFEST_BYTES)
        said = {"digest": manifest.digest, "checkpoint": manifest.checkpoint.sha256}
        name = MANIFEST_NAME
    elif (folder / METADATA_NAME).is_file():
        checkpoint = load_checkpoint(folder.absolute())  # absolute: a folder may have a built-in checkpoint's name
        data = read_file(folder / METADATA_NAME, MAX_METADATA_BYTES, links=True)
        said = {"checkpoint": checkpoint.sha256}
        name = METADATA_NAME
    else:
        raise UsageError(f"{folder}: expected the folder of a set or of a checkpoint")
    sentence = parse_json(data)["privacy"]["sentence"]  # as it stands there: another version may word it otherwise
    return {"file": name, "sha256": sha256_of_bytes(data), **said, "privacy": sentence}


def sign(folder: Path, key: PrivateKey, name: str) -> Signature:
    """Sign a set or a checkpoint, and write the signature beside it.

    Args:
        folder: of a set or a checkpoint; its files should have been verified.
        key: whose word it will be.
        name: of the signer; one printable line.

    Raises:
        UsageError: it is no name, or the folder is neither set nor checkpoint.
        VerificationError, CheckpointError: the folder cannot be trusted.
    """
    expect_name(name)
    now = datetime.datetime.now(datetime.UTC)
    unsigned = Signature(
        signed=subject_of(folder),
        key=key.public.fingerprint,
        name=name,
        date=f"{now:%Y-%m-%dT%H:%M:%SZ}",
        signature=b"",
    )
    made = Signature(**{**vars(unsigned), "signature": key.sign(unsigned.message)})
    write_json(folder / signature_name(made.signed["file"]), made.to_dict())
    return made


def signature_name(file: str) -> str:
    """The name of the signature of a file."""
    return file + SIGNATURE_SUFFIX


def is_signed(folder: Path, file: str) -> bool:
    """Whether a signature of ``file``, good or bad, lies in the folder."""
    return os.path.lexists(folder / signature_name(file))


def check(folder: Path, key: PublicKey) -> str:
    """Who signed a set or a checkpoint, in one line, if it was the owner of ``key``.

    Raises:
        VerificationError: there is no signature, or not one of this content by this key.
        UsageError, CheckpointError: as ``subject_of``, or ``cryptography`` is not installed.
    """
    subject = subject_of(folder)
    name = signature_name(subject["file"])
    if not is_signed(folder, subject["file"]):
        raise VerificationError(f"{name}: missing; not signed by {key.fingerprint}")
    try:
        data = read_file(folder / name, _MAX_SIGNATURE_BYTES)
        found = Signature.from_dict(parse_json(data, _MAX_VALUES))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise VerificationError(f"{name}: not a signature that this version reads: {reason}") from error
    if found.key != key.fingerprint:
        raise VerificationError(f"{name}: signed by the key {found.key}; expected {key.fingerprint}")
    if not key.verifies(found.signature, found.message):
        raise VerificationError(f"{name}: not by the key that it names, or altered since it was signed")
    other = [what for what in subject if found.signed.get(what) != subject[what]]
    if other or len(found.signed) != len(subject):
        raise VerificationError(f"{name}: signs another {subject['file']}: {', '.join(other) or 'more'} differ")
    return f"signed by {found.name} ({found.key}) on {found.date[:10]}"
