"""``synthgen sign``."""

import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer

from synthgen.cli.console import print_line, say
from synthgen.errors import UsageError, VerificationError


def sign(
    folder: Annotated[Path | None, typer.Argument(help="A set or a checkpoint: the folder.")] = None,
    key: Annotated[Path | None, typer.Option(help="The private key to sign with.")] = None,
    name: Annotated[str | None, typer.Option(help="Who signs. [default: the name in the key's .pub file]")] = None,
    new_key: Annotated[
        Path | None, typer.Option(help="Make a key: the private one in this new file, the public one in FILE.pub.")
    ] = None,
) -> None:
    """``synthgen sign``."""
    if new_key is not None:
        if folder is not None or key is not None:
            raise UsageError("--new-key makes a key and signs nothing; give it with --name alone")
        if not name:
            raise UsageError("--new-key needs --name: whose key it is")
        _make(new_key, name)
        return
    if folder is None or key is None:
        raise UsageError("expected FOLDER --key KEYFILE to sign, or --new-key KEYFILE --name NAME to make a key")
    _sign(folder, key, name)


def _make(path: Path, name: str) -> None:
    from synthgen.sets.keys import PUBLIC_SUFFIX, expect_name
    from synthgen.sets.keys import new_key as new_key_

    expect_name(name)
    passphrase = _asked(f"Passphrase for {path} (empty for none): ") or ""
    if passphrase and _asked("The same passphrase again: ") != passphrase:
        raise UsageError("the two passphrases differ; no key was made")
    public = new_key_(path, name, passphrase)
    if not passphrase:
        say(f"{path}: not encrypted; keep it as you keep passwords")
    say(f"wrote {path} and {path}{PUBLIC_SUFFIX}; give others the latter, and tell them its fingerprint in person")
    print_line(public.fingerprint)


def _sign(folder: Path, path: Path, name: str | None) -> None:
    from synthgen.sets.keys import PrivateKey, is_encrypted
    from synthgen.sets.manifest import MANIFEST_NAME
    from synthgen.sets.signatures import sign as sign_
    from synthgen.sets.signatures import signature_name
    from synthgen.sets.verification import verify

    passphrase = None
    if is_encrypted(path):
        passphrase = _asked(f"Passphrase for {path}: ")
        if passphrase is None:
            raise UsageError(f"{path}: encrypted, and there is no terminal to ask for its passphrase")
    key = PrivateKey.read(path, passphrase)
    name = name or key.public.name
    if not name:
        raise UsageError("--name: expected the name of the signer, since there is none in the key's .pub file")
    if (folder / MANIFEST_NAME).is_file() and (problems := verify(folder, files_only=True).problems):
        raise VerificationError(f"{folder}: not signed, for it is not what its manifest claims: {problems[0]}")
    made = sign_(folder, key, name)
    say(f"wrote {folder / signature_name(made.signed['file'])}")
    print_line(f"{folder}: signed as {made.name} ({made.key}): {made.signed['privacy']}")


def _asked(prompt: str) -> str | None:
    """What is typed at the terminal, unseen; None where there is none."""
    if not _at_terminal():
        return None
    try:
        return getpass.getpass(prompt)
    except EOFError:
        return None


def _at_terminal() -> bool:
    return sys.stdin.isatty()
