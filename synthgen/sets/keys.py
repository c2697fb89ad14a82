"""Keys to sign with: Ed25519 (RFC 8032), by ``cryptography``, which the extra ``synthgen[sign]`` installs.

A private key is a PEM file that only its owner may read (PKCS #8, encrypted where a passphrase is given). A public key
is one line in the form of OpenSSH, so that ``ssh-keygen -l -f`` shows the same fingerprint.
"""

import base64
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from synthgen.errors import UsageError
from synthgen.files import publish
from synthgen.untrusted.files import read_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PUBLIC_SUFFIX = ".pub"
SIGNATURE_BYTES = 64
_MAX_KEY_BYTES = 4096
_MAX_NAME = 100
_KIND = "ssh-ed25519"
_HEAD = b"\0\0\0\x0b" + _KIND.encode() + b"\0\0\0\x20"  # lengths and texts of an OpenSSH key, before its 32 bytes
_LINE = re.compile(rf"{_KIND} ([A-Za-z0-9+/]{{68}})(?: ([^\r\n]{{1,200}}))?\r?\n?")


@dataclass(frozen=True)
class PublicKey:
    """What checks signatures.

    Attributes:
        raw: its 32 bytes.
        name: whose it is, as its file says; may be empty.
    """

    raw: bytes
    name: str = ""

    @classmethod
    def read(cls, path: Path) -> "PublicKey":
        """Read a public key's file.

        Raises:
            UsageError: it is missing, or no Ed25519 key in one line.
        """
        line = _LINE.fullmatch(_key_bytes(path).decode("utf-8", "replace"))
        blob = base64.b64decode(line[1]) if line else b""
        if line is None or not blob.startswith(_HEAD) or not (line[2] or "").isprintable():
            raise UsageError(f"{path}: no public key; expected one line, '{_KIND} AAAA… name', as sign --new-key makes")
        return cls(blob.removeprefix(_HEAD), line[2] or "")

    @property
    def line(self) -> str:
        """The content of its file."""
        return f"{_KIND} {base64.b64encode(_HEAD + self.raw).decode()} {self.name}".rstrip() + "\n"

    @property
    def fingerprint(self) -> str:
        """A short name that no other key has, as OpenSSH writes it."""
        digest = hashlib.sha256(_HEAD + self.raw).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether the owner of this key has signed ``message``."""
        _require_cryptography()
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


class PrivateKey:
    """What signs."""

    def __init__(self, key: "Ed25519PrivateKey", name: str) -> None:
        self._key = key
        self.public = PublicKey(key.public_key().public_bytes_raw(), name)

    @classmethod
    def read(cls, path: Path, passphrase: str | None = None) -> "PrivateKey":
        """Read a private key's file; its name is that in the public key's file beside it, if this is its own.

        Raises:
            UsageError: it is missing, may be read by others, is no Ed25519 key, or the passphrase is wrong.
        """
        _require_cryptography()
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        data = _key_bytes(path)
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise UsageError(f"{path}: others may read this private key; chmod 600 it, or make another")
        try:
            key = load_pem_private_key(data, passphrase.encode() if passphrase else None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            cure = "a wrong passphrase, or no" if is_encrypted(path) else "no"
            raise UsageError(f"{path}: {cure} private key; expected a file that sign --new-key made") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise UsageError(f"{path}: a private key of another kind; expected Ed25519, as sign --new-key makes")
        return cls(key, _name_beside(path, key.public_key().public_bytes_raw()))

    def sign(self, message: bytes) -> bytes:
        """The signature of ``message``, 64 bytes."""
        return self._key.sign(message)


def is_encrypted(path: Path) -> bool:
    """Whether a private key's file needs a passphrase; raises UsageError where there is no such file."""
    return b"BEGIN ENCRYPTED PRIVATE KEY" in _key_bytes(path)


def expect_name(name: str) -> None:
    """Raise UsageError unless ``name`` can stand for a person: one printable line of at most 100 characters."""
    if not is_name(name):
        raise UsageError(f"name {name!r:.120}: expected one printable line of 1 to {_MAX_NAME} characters")


def is_name(name: str) -> bool:
    """Whether ``expect_name`` accepts it."""
    return 0 < len(name) <= _MAX_NAME and name.isprintable() and name == name.strip()


def new_key(path: Path, name: str, passphrase: str = "") -> PublicKey:
    """Make a key pair: the private key in ``path``, the public one in ``path`` with ``.pub``.

    Args:
        path: of a file that is not there yet.
        name: whose key it is.
        passphrase: encrypts the private key; empty: it is written as it is.

    Raises:
        UsageError: one of both files exists, the name is none, or ``cryptography`` is not installed.
    """
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    expect_name(name)
    public_path = path.with_name(path.name + PUBLIC_SUFFIX)
    key = Ed25519PrivateKey.generate()
    how: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        how = serialization.BestAvailableEncryption(passphrase.encode())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
    if os.path.lexists(public_path):
        raise UsageError(f"{public_path}: exists; a key is never overwritten: choose another path")
    try:
        path.touch(0o600, exist_ok=False)  # the owner's before there is anything in it
    except FileExistsError:
        raise UsageError(f"{path}: exists; a key is never overwritten: choose another path") from None
    path.write_bytes(pem)
    public = PublicKey(key.public_key().public_bytes_raw(), name)
    with publish(public_path) as partial:
        partial.write_text(public.line, "utf-8")
    return public


def _name_beside(path: Path, raw: bytes) -> str:
    """The name in the public key's file of the private key ``path``; empty if it is another's or not there."""
    beside = path.with_name(path.name + PUBLIC_SUFFIX)
    if not beside.is_file():
        return ""
    public = PublicKey.read(beside)
    return public.name if public.raw == raw else ""


def _key_bytes(path: Path) -> bytes:
    try:
        return read_file(path, _MAX_KEY_BYTES, links=True)
    except ValueError as error:
        raise UsageError(f"{path}: no key: {error}") from error
    except OSError as error:
        raise UsageError(f"{path}: no key: {error.strerror or error}") from error


def _require_cryptography() -> None:
    try:
        import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401
    except ImportError as error:
        raise UsageError("signatures need cryptography: pip install 'synthgen[sign]'") from error
