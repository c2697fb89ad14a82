"""``synthgen sign``, and ``verify`` with a key."""

import getpass
import json
import re
import shutil
import sys

import pytest
from typer.testing import CliRunner

from synthgen.cli.app import app
from synthgen.errors import UsageError, VerificationError


def run(*arguments: object):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture
def terminal(monkeypatch):
    """A terminal at which these answers are typed."""
    answers = []
    monkeypatch.setattr("synthgen.cli.sign._at_terminal", lambda: True)
    monkeypatch.setattr(getpass, "getpass", lambda prompt: answers.pop(0))
    return answers


@pytest.fixture
def key(tmp_path):
    pytest.importorskip("cryptography", reason="needs the extra synthgen[sign]")
    made = run("sign", "--new-key", tmp_path / "ada", "--name", "Ada Lovelace")
    assert made.exit_code == 0, made.output
    assert re.fullmatch(r"SHA256:[A-Za-z0-9+/]{43}\n", made.stdout)
    assert "not encrypted" in made.stderr
    return tmp_path / "ada"


def test_a_set_is_signed_and_verified(export, private_checkpoint, key, tmp_path):
    out = tmp_path / "set"
    export(out, checkpoint=private_checkpoint, count=20)
    signed = run("sign", out, "--key", key)
    assert signed.stdout.startswith(f"{out}: signed as Ada Lovelace (SHA256:")
    assert private_checkpoint.privacy.sentence in signed.stdout
    told = run("verify", out, "--signed-by", f"{key}.pub", "--require-known-checkpoint")
    assert told.exit_code == 0
    assert re.search(rf"^{out}: signed by Ada Lovelace \(SHA256:\S{{43}}\) on \d{{4}}-\d\d-\d\d$", told.stdout, re.M)
    plain = run("verify", out)
    assert "manifest.json.sig: a signature, not checked; --signed-by PUBLICKEY would" in plain.stdout
    assert "Ada" not in plain.stdout
    (out / "manifest.json.sig").unlink()
    unsigned = run("verify", out, "--signed-by", f"{key}.pub")
    assert unsigned.exit_code == 1
    assert "manifest.json.sig: missing; not signed by SHA256:" in unsigned.stderr


def test_a_checkpoint_is_verified_by_itself(private_checkpoint, key, tmp_path):
    folder = shutil.copytree(private_checkpoint.path, tmp_path / "mine")
    plain = run("verify", folder)
    assert plain.exit_code == 0
    assert plain.stdout.splitlines()[0] == f"{folder}: sound: its content is what its hash names"
    assert "privacy claim not proven" in plain.stdout.splitlines()[-1]
    assert run("verify", folder, "--require-known-checkpoint").exit_code == 1
    assert run("sign", folder, "--key", key, "--name", "A. L.").exit_code == 0
    told = run("verify", folder, "--signed-by", f"{key}.pub", "--require-known-checkpoint")
    assert told.exit_code == 0
    assert f"{folder}: signed by A. L. (SHA256:" in told.stdout
    for option in (("--regenerate", 5), ("--checkpoint", folder), ("--files-only",)):
        assert isinstance(run("verify", folder, *option).exception, UsageError)


def test_an_altered_set_is_not_signed(export, key, tmp_path):
    made = export(tmp_path / "set", count=20)
    path = tmp_path / "set" / made.shards[0].files[0].name
    path.write_bytes(path.read_bytes() + b"x")
    refused = run("sign", tmp_path / "set", "--key", key)
    assert isinstance(refused.exception, VerificationError)
    assert "not signed, for it is not what its manifest claims" in str(refused.exception)
    assert not (tmp_path / "set" / "manifest.json.sig").exists()


def test_a_passphrase_is_asked_for(export, terminal, tmp_path):
    pytest.importorskip("cryptography", reason="needs the extra synthgen[sign]")
    export(tmp_path / "set", count=20)
    terminal[:] = ["sesame", "simsim"]
    assert "differ; no key was made" in str(run("sign", "--new-key", tmp_path / "k", "--name", "Ada").exception)
    assert not (tmp_path / "k").exists()
    terminal[:] = ["sesame", "sesame", "sesame", "wrong"]
    for command in (("sign", "--new-key", tmp_path / "k", "--name", "Ada"), ("sign", tmp_path / "set", "--key", "k")):
        command = [tmp_path / "k" if each == "k" else each for each in command]
        assert call(command) is None
    assert "a wrong passphrase" in str(call(["sign", tmp_path / "set", "--key", tmp_path / "k"]))
    assert json.loads((tmp_path / "set" / "manifest.json.sig").read_text())["name"] == "Ada"


def call(command):
    return run(*command).exception


def test_an_encrypted_key_needs_a_terminal(export, key, tmp_path):
    from synthgen.sets.keys import new_key

    export(tmp_path / "set", count=20)
    new_key(tmp_path / "k", "Ada", "sesame")
    assert "there is no terminal" in str(call(["sign", tmp_path / "set", "--key", tmp_path / "k"]))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "expected FOLDER --key KEYFILE to sign"),
        (("set",), "expected FOLDER --key KEYFILE to sign"),
        (("--key", "k"), "expected FOLDER --key KEYFILE to sign"),
        (("set", "--key", "none"), "none: no key"),
        (("--new-key", "k"), "--new-key needs --name"),
        (("set", "--new-key", "k", "--name", "Ada"), "makes a key and signs nothing"),
        (("--new-key", "k", "--name", "a\nb"), "expected one printable line"),
    ],
)
def test_what_cannot_be_signed_is_refused_in_a_line(arguments, words: str, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused = run("sign", *arguments).exception
    assert isinstance(refused, UsageError)
    assert words in str(refused)
    assert "\n" not in str(refused)


def test_without_cryptography_the_extra_is_named(export, key, tmp_path, monkeypatch):
    export(tmp_path / "set", count=20)
    run("sign", tmp_path / "set", "--key", key)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    for command in (
        ("sign", tmp_path / "set", "--key", key),
        ("sign", "--new-key", tmp_path / "k", "--name", "Ada"),
        ("verify", tmp_path / "set", "--signed-by", f"{key}.pub"),
    ):
        assert str(call(command)) == "signatures need cryptography: pip install 'synthgen[sign]'"
    assert run("verify", tmp_path / "set").exit_code == 0
