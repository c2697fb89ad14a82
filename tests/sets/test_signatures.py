"""Signatures: what one proves, and that a bad one is told of in a line."""

import json
import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from support import forge

from synthgen.errors import UsageError, VerificationError
from synthgen.export.splits import generate_splits, plan_splits
from synthgen.model.checkpoint import load_checkpoint
from synthgen.sets.keys import PrivateKey, PublicKey, is_encrypted, new_key
from synthgen.sets.origin import checkpoint_origin
from synthgen.sets.signatures import Signature, check, sign
from synthgen.sets.verification import verify

pytest.importorskip("cryptography", reason="needs the extra synthgen[sign]")

# RFC 8032, section 7.1, test 2: what any implementation of Ed25519 signs.
RFC_PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
RFC_SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


@pytest.fixture(scope="module")
def key(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "ada"
    new_key(path, "Ada Lovelace")
    return path


@pytest.fixture(scope="module")
def other_key(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "eve"
    new_key(path, "Ada Lovelace")  # says she is Ada
    return path


def public(key: Path) -> PublicKey:
    return PublicKey.read(key.with_name(key.name + ".pub"))


@pytest.fixture
def signed_set(export, private_checkpoint, key, tmp_path) -> Path:
    export(tmp_path / "set", checkpoint=private_checkpoint, count=20)
    sign(tmp_path / "set", PrivateKey.read(key), "Ada Lovelace")
    return tmp_path / "set"


def test_signatures_are_those_of_rfc_8032():
    assert PublicKey(RFC_PUBLIC).verifies(RFC_SIGNATURE, b"\x72")
    assert not PublicKey(RFC_PUBLIC).verifies(RFC_SIGNATURE, b"\x73")
    assert not PublicKey(RFC_PUBLIC).verifies(b"", b"\x72")


def test_a_key_is_a_private_file_and_a_public_line(key):
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    line = key.with_name("ada.pub").read_text("utf-8")
    assert line == public(key).line
    assert line.startswith("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI")  # what ssh-keygen reads
    assert line.endswith(" Ada Lovelace\n")
    assert PrivateKey.read(key).public == public(key)
    assert not is_encrypted(key)


def test_fingerprints_are_those_of_openssh():
    # ssh-keygen -l shows this of GitHub's published host key.
    raw = PublicKey.read(Path(__file__).parents[1] / "data" / "github-ed25519.pub")
    assert raw.fingerprint == "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"


def test_a_key_is_never_overwritten(key, tmp_path):
    before = key.read_bytes()
    with pytest.raises(UsageError, match="exists; a key is never overwritten"):
        new_key(key, "Eve")
    assert key.read_bytes() == before
    (tmp_path / "new.pub").write_text("mine")
    with pytest.raises(UsageError, match=r"new\.pub: exists"):
        new_key(tmp_path / "new", "Eve")
    assert not (tmp_path / "new").exists()


def test_a_key_may_be_encrypted(tmp_path):
    new_key(tmp_path / "k", "Ada", "open sesame")
    assert is_encrypted(tmp_path / "k")
    assert PrivateKey.read(tmp_path / "k", "open sesame").public.name == "Ada"
    for wrong in (None, "", "open"):
        with pytest.raises(UsageError, match="a wrong passphrase, or no private key"):
            PrivateKey.read(tmp_path / "k", wrong)


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_a_key_that_others_may_read_is_not_used(key, tmp_path):
    shutil.copy(key, tmp_path / "k")
    (tmp_path / "k").chmod(0o640)
    with pytest.raises(UsageError, match="others may read this private key; chmod 600"):
        PrivateKey.read(tmp_path / "k")


@pytest.mark.parametrize("content", [b"", b"x" * 5000, b"\xff\0", b"-----BEGIN PRIVATE KEY-----\nAAAA\n", "rsa"])
def test_what_is_no_key_is_refused_in_a_line(content, tmp_path):
    path = tmp_path / "k"
    if content == "rsa":
        from cryptography.hazmat.primitives import serialization as s
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

        content = generate_private_key(SECP256R1()).private_bytes(
            s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()
        )
    path.write_bytes(content)
    path.chmod(0o600)
    for read in (PrivateKey.read, PublicKey.read):
        with pytest.raises(UsageError) as refused:
            read(path)
        assert "\n" not in str(refused.value)
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(UsageError, match="no key"):
            PublicKey.read(missing)


@pytest.mark.parametrize("name", ["", " ", "a\nb", "\x1b[2J", "x" * 101])
def test_who_signs_has_a_name_in_one_line(name: str, signed_set, key, tmp_path):
    with pytest.raises(UsageError, match="expected one printable line"):
        new_key(tmp_path / "k", name)
    with pytest.raises(UsageError, match="expected one printable line"):
        sign(signed_set, PrivateKey.read(key), name)


def test_a_signature_changes_nothing_and_vouches(signed_set, key):
    before = (signed_set / "manifest.json").read_bytes()
    assert verify(signed_set).unchecked == (
        "manifest.json.sig: a signature, not checked; --signed-by PUBLICKEY would",
        "privacy claim not checked: checkpoint unknown",
    )
    assert not verify(signed_set, require_known_checkpoint=True).sound
    report = verify(signed_set, signed_by=public(key), require_known_checkpoint=True)
    assert report.sound, report.problems
    date = json.loads((signed_set / "manifest.json.sig").read_text())["date"][:10]
    assert report.signatures == (f"signed by Ada Lovelace ({public(key).fingerprint}) on {date}",)
    assert report.unchecked[-1] == "privacy claim not checked beyond its ledger: it is as good as the name that signed"
    assert (signed_set / "manifest.json").read_bytes() == before


def test_a_set_is_sealed_again_and_another_key_signs(signed_set, key, other_key):
    forge(signed_set, lambda m: m["privacy"].update(trained_on="59,999 images of nobody"), cards=False)
    with pytest.raises(VerificationError):
        check(signed_set, public(key))
    forge(
        signed_set, lambda m: m["privacy"].update(trained_on="60,000 images of the user's own images, training split")
    )
    forge(signed_set, lambda m: m["made_with"].update(backend="numpy "), cards=False)
    problems = verify(signed_set, signed_by=public(key)).problems
    assert problems == ("manifest.json.sig: signs another manifest.json: sha256 differ",)
    sign(signed_set, PrivateKey.read(other_key), "Ada Lovelace")
    (problem,) = verify(signed_set, signed_by=public(key), require_known_checkpoint=True).problems[:1]
    fingerprints = public(other_key).fingerprint, public(key).fingerprint
    assert problem == "manifest.json.sig: signed by the key {}; expected {}".format(*fingerprints)


def test_a_set_without_a_signature_is_not_signed(export, key, tmp_path):
    export(tmp_path / "set", count=20)
    report = verify(tmp_path / "set", signed_by=public(key))
    assert report.problems == (f"manifest.json.sig: missing; not signed by {public(key).fingerprint}",)


@pytest.mark.parametrize("field", ["name", "date", "key", "digest", "sha256", "checkpoint", "privacy", "file"])
def test_every_word_of_a_signature_is_signed(signed_set, key, other_key, field: str):
    path = signed_set / "manifest.json.sig"
    document = json.loads(path.read_text("utf-8"))
    changes = {"date": "2020-01-01T00:00:00Z", "key": public(other_key).fingerprint}
    place = document if field in document else document["signed"]
    place[field] = changes.get(field, "Eve")
    path.write_text(json.dumps(document), "utf-8")
    signer = public(other_key) if field == "key" else public(key)
    with pytest.raises(VerificationError, match=r"manifest\.json\.sig: not by the key that it names, or altered"):
        check(signed_set, signer)


def test_a_signature_of_one_set_is_not_anothers(signed_set, export, private_checkpoint, key, tmp_path):
    export(tmp_path / "other", checkpoint=private_checkpoint, count=30)
    shutil.copy(signed_set / "manifest.json.sig", tmp_path / "other")
    with pytest.raises(VerificationError, match=r"signs another manifest\.json: sha256, digest differ"):
        check(tmp_path / "other", public(key))


HOSTILE = [
    b"",
    b"null",
    b"[]",
    b"[" * 10_000,
    b"{" + b" " * 20_000 + b"}",
    b'{"format": 1}',
    b"\xff\xfe",
    b"9" * 10_000,
]


@pytest.mark.parametrize("data", HOSTILE)
def test_a_hostile_signature_is_refused_in_a_line(signed_set, key, data: bytes):
    (signed_set / "manifest.json.sig").write_bytes(data)
    (problem,) = verify(signed_set, signed_by=public(key)).problems
    assert problem.startswith("manifest.json.sig: not a signature that this version reads: ")
    assert "\n" not in problem
    assert verify(signed_set).sound  # nobody has asked for it


@pytest.mark.parametrize(
    "change",
    [
        {"signed": None},
        {"signed": {"file": 3}},
        {"signed": {"file": "x" * 1001}},
        {"key": "SHA256:\x1b[2J"},
        {"key": ["a"]},
        {"name": "Ada\nsound"},
        {"name": 3},
        {"date": "yesterday"},
        {"signature": "%%%"},
        {"signature": "A" * 1000},
        {"signature": "ü"},
        {"format": "synthgen signature 2"},
        {"more": 1},
    ],
)
def test_a_signature_of_another_form_is_refused(signed_set, change):
    document = json.loads((signed_set / "manifest.json.sig").read_text("utf-8"))
    Signature.from_dict(document)
    with pytest.raises(ValueError, match=r"^[^\n]*$"):
        Signature.from_dict(document | change)


def test_a_signature_that_is_a_link_or_a_folder_is_not_followed(signed_set, key, tmp_path):
    path = signed_set / "manifest.json.sig"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert "link" in verify(signed_set, signed_by=public(key)).problems[0]
    path.unlink()
    path.mkdir()
    assert verify(signed_set).problems == ("manifest.json.sig: not part of the set; the manifest does not name it",)


def test_a_manifest_may_not_name_its_own_signature(signed_set):
    record = {"name": "manifest.json.sig", "bytes": 1, "sha256": "0" * 64}
    forge(signed_set, lambda m: m["sidecars"].append(record), cards=False)
    with pytest.raises(VerificationError, match=r"'manifest\.json\.sig' is no file of a set"):
        verify(signed_set)


def test_a_signature_covers_all_splits(private_checkpoint, key, tmp_path):
    out = tmp_path / "both"
    parts = plan_splits(private_checkpoint, "train=30,test=20", file_format="npz")
    generate_splits(private_checkpoint, parts, out)
    sign(out, PrivateKey.read(key), "Ada")
    assert verify(out, signed_by=public(key)).sound
    other = out / "manifest-test.json"
    other.write_bytes(other.read_bytes().replace(b'"numpy"', b'"NumPy"', 1) + b"\n")
    assert verify(out, signed_by=public(key)).problems[0].startswith("manifest-test.json: ")


def test_a_checkpoint_is_signed_and_vouches_for_sets_drawn_from_it(
    export, private_checkpoint, key, other_key, tmp_path
):
    folder = tmp_path / "mine"
    shutil.copytree(private_checkpoint.path, folder)
    sign(folder, PrivateKey.read(key), "Ada")
    origin = checkpoint_origin(folder, public(key), require_known=True)
    assert not origin.problems
    assert origin.signatures[0].startswith("signed by Ada (SHA256:")
    assert checkpoint_origin(folder, None, require_known=True).problems
    assert checkpoint_origin(folder, public(other_key), require_known=True).problems
    checkpoint = load_checkpoint(folder)
    export(tmp_path / "set", checkpoint=checkpoint, count=20)
    report = verify(
        tmp_path / "set", checkpoint=checkpoint, regenerate=5, signed_by=public(key), require_known_checkpoint=True
    )
    assert report.sound, report.problems
    assert report.signatures[0].startswith("checkpoint signed by Ada (SHA256:")
    document = json.loads((folder / "checkpoint.json").read_text("utf-8"))
    document["training"] = {"steps": 1}  # no hash but that of the file covers it
    (folder / "checkpoint.json").write_text(json.dumps(document), "utf-8")
    problems = checkpoint_origin(folder, public(key), require_known=True).problems
    assert problems[0] == "checkpoint.json.sig: signs another checkpoint.json: sha256 differ"


def test_the_message_belongs_to_this_use_alone(signed_set):
    found = Signature.from_dict(json.loads((signed_set / "manifest.json.sig").read_text("utf-8")))
    assert found.message.startswith(b"synthgen signature of a set or a checkpoint, version 1\0")
    assert replace(found, name="x").message != found.message


def test_a_folder_that_is_neither_is_not_signed(key, tmp_path):
    with pytest.raises(UsageError, match="expected the folder of a set or of a checkpoint"):
        sign(tmp_path, PrivateKey.read(key), "Ada")
