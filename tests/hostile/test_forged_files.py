"""Forged sets and checkpoints: one line, no hang, no gigabyte, and never called sound."""

import io
import json
import os
import re
import shutil
import warnings
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from forged import expect_one_line, first_shard_file, golden_copy, seal, synthgen
from PIL import Image
from support import weights_file

from synthgen.audit.run import audit
from synthgen.errors import CheckpointError, PrivacyError, SynthgenError, UsageError, VerificationError
from synthgen.export.run import generate, plan_export
from synthgen.files import sha256_of_bytes
from synthgen.formats.tfrecord import next_record, record_bytes
from synthgen.index import LabelRule
from synthgen.model.checkpoint import load_checkpoint
from synthgen.model.recipe import load_recipe
from synthgen.privacy.accounting import Budget
from synthgen.privacy.ledger import OpenLedger
from synthgen.sets.manifest import load_manifest
from synthgen.sets.reading import read_set
from synthgen.sets.verification import verify
from synthgen.training.folder import open_state, write_state

BOMB = zlib.compress(bytes(400 << 20), 9)  # 400 MiB of zeros in 400 KB


@pytest.fixture(params=["hdf5", "npz", "tfrecord"])
def any_set(request, tmp_path: Path) -> Path:
    return golden_copy(request.param, tmp_path / "set")


@pytest.fixture(params=["0.2.0", "0.3.0"])
def checkpoint(request, tmp_path: Path) -> Path:
    """With float32 weights, and with integers."""
    return golden_copy("checkpoint", tmp_path / "checkpoint", request.param)


def test_a_golden_set_stays_sound_under_the_ceiling(any_set):
    done = synthgen("verify", any_set)
    assert done.returncode == 0, done.stderr
    assert "sound: 20 images" in done.stdout


def test_a_set_of_chunks_that_inflate_past_their_size(tmp_path):
    folder = golden_copy("hdf5", tmp_path / "set")
    with h5py.File(first_shard_file(folder), "r+") as file:
        file["images"].id.write_direct_chunk((0, 0, 0), BOMB)
    seal(folder)
    # The chunk is larger than any honest one, so it is refused even before it is inflated.
    expect_one_line(synthgen("verify", folder), "not readable as hdf5")
    with h5py.File(first_shard_file(folder), "r+") as file:
        file["images"].id.write_direct_chunk((0, 0, 0), zlib.compress(bytes(10 << 20), 9))
    seal(folder)
    expect_one_line(synthgen("verify", folder), "unpacks to more than")


def test_a_set_with_a_damaged_chunk(tmp_path):
    folder = golden_copy("hdf5", tmp_path / "set")
    for data in (zlib.compress(bytes(100)), b"no zlib"):
        with h5py.File(first_shard_file(folder), "r+") as file:
            file["images"].id.write_direct_chunk((0, 0, 0), data)
        with pytest.raises(VerificationError, match="not readable as hdf5"):
            list(read_set(folder, load_manifest(folder)))


def test_a_dataset_packed_by_a_filter_that_would_be_a_plug_in(tmp_path):
    folder = golden_copy("hdf5", tmp_path / "set")
    with h5py.File(first_shard_file(folder), "r+") as file:
        images = file["images"][:]
        del file["images"]
        file.create_dataset("images", data=images, chunks=images.shape, compression="lzf")
    with pytest.raises(VerificationError, match="packed by gzip or not at all"):
        list(read_set(folder, load_manifest(folder)))


def test_a_set_with_another_dataset_beside(tmp_path):
    folder = golden_copy("hdf5", tmp_path / "set")
    with h5py.File(first_shard_file(folder), "r+") as file:
        file["more"] = 1
    with pytest.raises(VerificationError, match="other datasets"):
        list(read_set(folder, load_manifest(folder)))


def weights_bomb(path: Path) -> None:
    with h5py.File(path, "w") as file:
        big = file.create_dataset("x", (100, 1 << 16), "f4", chunks=(10, 1 << 16), compression="gzip")
        for first in range(0, 100, 10):
            big.id.write_direct_chunk((first, 0), BOMB)


def test_weights_that_inflate_past_their_size(checkpoint):
    weights_bomb(weights_file(checkpoint))
    expect_one_line(synthgen("info", checkpoint), "larger than the file")
    with h5py.File(weights_file(checkpoint), "r+") as file:  # as large as the file: now the chunks matter
        file["ballast"] = np.random.default_rng(0).random(4 << 20, np.float32)
    expect_one_line(synthgen("info", checkpoint), "no readable weights")


def test_weights_in_groups_that_double(checkpoint):
    with h5py.File(weights_file(checkpoint), "w") as file:
        group = file
        for _ in range(30):
            below = group.create_group("a")
            group["b"] = below  # a second name for it: 2^30 paths
            group = below
        group["x"] = np.zeros(3)
    with pytest.raises(CheckpointError, match="more than 2,000 arrays"):
        load_checkpoint(checkpoint)


def test_weights_in_groups_that_hold_each_other(checkpoint):
    with h5py.File(weights_file(checkpoint), "w") as file:
        group = file.create_group("a")
        group["a"] = group
    with pytest.raises(CheckpointError, match="nested deeper"):
        load_checkpoint(checkpoint)


def npy_bytes(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_an_npz_with_a_bzip2_member(tmp_path):
    folder = golden_copy("npz", tmp_path / "set")
    with zipfile.ZipFile(first_shard_file(folder), "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("images.npy", npy_bytes(np.zeros((20, 28, 28), "u1")) + bytes(20 << 20))
        archive.writestr("labels.npy", npy_bytes(np.zeros(20, "u1")))
    seal(folder)
    expect_one_line(synthgen("verify", folder), "neither stored nor deflated")


@pytest.mark.parametrize("name", ["../../up.npy", "more.npy", "images.npy", "readme.txt"])
def test_an_npz_with_another_member(tmp_path, name: str):
    folder = golden_copy("npz", tmp_path / "set")
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(first_shard_file(folder), "a") as archive:
        archive.writestr(name, npy_bytes(np.zeros(3, "u1")))  # zipfile warns of a name twice
    seal(folder)
    report = verify(folder)
    assert "not readable as npz" in report.problems[0]


def png_bytes(width: int, height: int, *, twice: bool = False) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    def header(width: int, height: int) -> bytes:
        return chunk(b"IHDR", width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0]))

    first = header(28, 28) if twice else b""
    rows = chunk(b"IDAT", zlib.compress(bytes(29 * 28), 6))
    return b"\x89PNG\r\n\x1a\n" + first + header(width, height) + rows + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def png_set(tiny_checkpoint, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("png") / "set"
    generate(tiny_checkpoint, plan_export(tiny_checkpoint, count=20, file_format="png"), folder, allow_unprotected=True)
    return folder


def replace_first_png(folder: Path, data: bytes) -> None:
    listing = first_shard_file(folder)
    digest, _, name = listing.read_text().splitlines()[0].partition("  ")
    (folder / name).write_bytes(data)
    listing.write_text(listing.read_text().replace(digest, sha256_of_bytes(data)))
    seal(folder)


@pytest.mark.parametrize("command", ["verify", "preview"])
def test_a_png_that_claims_sixty_thousand_pixels_a_side(png_set, tmp_path, command: str):
    folder = shutil.copytree(png_set, tmp_path / "set")
    replace_first_png(folder, png_bytes(60_000, 60_000))
    options = ["--out", tmp_path / "grid.png", "--columns", "2"] if command == "preview" else []
    expect_one_line(synthgen(command, folder, *options), "60000 by 60000 pixels")


def test_a_png_with_a_second_header(png_set, tmp_path):
    folder = shutil.copytree(png_set, tmp_path / "set")
    replace_first_png(folder, png_bytes(60_000, 60_000, twice=True))
    assert not verify(folder).sound  # the second header is left out; what remains is not what the manifest says


def test_a_png_with_texts_that_unpack_is_read_without_them(png_set, tmp_path):
    text = Image.new("L", (28, 28), 7)
    stream = io.BytesIO()
    text.save(stream, "PNG")
    data = stream.getvalue()
    content = b"a\0\0" + zlib.compress(bytes(50 << 20), 9)
    bomb = len(content).to_bytes(4, "big") + b"zTXt" + content + zlib.crc32(b"zTXt" + content).to_bytes(4, "big")
    folder = shutil.copytree(png_set, tmp_path / "set")
    replace_first_png(folder, data[:33] + bomb + data[33:])
    images = next(read_set(folder, load_manifest(folder))).images
    assert (images[0] == 7).all()


def test_a_tfrecord_with_a_wrong_checksum(tmp_path):
    folder = golden_copy("tfrecord", tmp_path / "set")
    file = first_shard_file(folder)
    data = bytearray(file.read_bytes())
    for place in (8, len(data) - 1):  # of the first length, of the last record
        changed = bytearray(data)
        changed[place] ^= 1
        file.write_bytes(changed)
        seal(folder)
        assert "wrong checksum" in verify(folder).problems[0]
    with pytest.raises(ValueError, match="wrong checksum"):
        next_record(io.BytesIO(record_bytes(b"x")[:-1] + b"\0"))


def test_a_sparse_shard_of_a_tebibyte_is_not_hashed(any_set):
    with first_shard_file(any_set).open("r+b") as stream:
        stream.truncate(1 << 40)
    assert "bytes; expected" in verify(any_set).problems[0]  # sealed as before: another size
    document = json.loads((any_set / "manifest.json").read_text())
    document["shards"][0]["files"][0]["bytes"] = 1 << 40
    seal(any_set, shards=document["shards"])
    with pytest.raises(VerificationError, match="bytes are too many for 20 images"):
        load_manifest(any_set)
    many = 1 << 30  # images: a tebibyte would be right for them
    document["shards"][0]["count"] = many
    counts = LabelRule.parse(document["labels"]).class_counts(document["seed"], document["start"], many)
    seal(any_set, shards=document["shards"], count=many, class_counts=counts)
    expect_one_line(synthgen("verify", any_set, timeout=20), "altered")


DOCUMENTS = {
    "duplicate": (lambda text: text.replace(b'"seed"', b'"seed": 1, "seed"', 1), "'seed' stands twice"),
    "brackets": (lambda text: b"[" * (32 << 20), "more than 1,500,000 values"),
    "deep": (lambda text: b"[" * 5_000 + b"]" * 5_000, "nested deeper than 32"),
    "digits": (lambda text: b'{"schema_version": ' + b"9" * 5_000 + b"}", "5,000 digits"),
    "true": (lambda text: re.sub(rb'"schema_version":\d', b'"schema_version":true', text), "schema_version True"),
    "nan": (lambda text: re.sub(rb'"schema_version":\d', b'"schema_version":NaN', text), "NaN is no JSON"),
    "surrogate": (lambda text: text.replace(b'"split":"train"', b'"split":"\\ud800"', 1), "surrogate"),
    "long": (lambda text: b'"' + b"a" * (2 << 20) + b'"', "longer than 1 MiB"),
}


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_forged_manifest(tmp_path, kind: str):
    folder = golden_copy("npz", tmp_path / "set")
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    forge, said = DOCUMENTS[kind]
    text = json.dumps(document, separators=(",", ":")).encode()
    forged = forge(text)
    assert forged != text
    path.write_bytes(forged)
    if len(forged) > 1 << 20:
        expect_one_line(synthgen("verify", folder), said)
    with pytest.raises(VerificationError, match=said):
        load_manifest(folder)


@pytest.mark.parametrize("kind", ["brackets", "deep", "digits", "true", "nan"])
def test_forged_metadata_of_a_checkpoint(checkpoint, kind: str):
    path = checkpoint / "checkpoint.json"
    forge, said = DOCUMENTS[kind]
    path.write_bytes(forge(json.dumps(json.loads(path.read_text()), separators=(",", ":")).encode())[: 8 << 20])
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(checkpoint)


def test_a_forged_ledger(tmp_path):
    OpenLedger.open(tmp_path / "ledger.json", Budget(1.0, 1e-5))
    text = (tmp_path / "ledger.json").read_text()
    for forged in (text.replace('"schema_version": 2', '"schema_version": 2, "schema_version": 2'), "[" * 5_000):
        (tmp_path / "ledger.json").write_text(forged)
        with pytest.raises(PrivacyError, match="not an intact ledger"):
            OpenLedger.open(tmp_path / "ledger.json", Budget(1.0, 1e-5))


TOML = {
    "dots": "a." * 30_000 + "a = 1",
    "brackets": "a = " + "[" * 5_000,
    "digits": "a = " + "9" * 4_200,
    "long": "#" * 800_000,
    "keys": "".join(f"a.b.c{i} = 1\n" for i in range(3_000)),
}


@pytest.mark.parametrize("kind", TOML)
def test_a_forged_recipe(tmp_path, kind: str):
    (tmp_path / "recipe.toml").write_text(TOML[kind])
    with pytest.raises(SynthgenError) as refused:
        load_recipe(str(tmp_path / "recipe.toml"))
    assert len(str(refused.value)) < 1_000


OVERRIDES = ["training.epochs=" + "9" * 5_000, "a." * 5_000 + "b=1", "name=" + "[" * 5_000, "a" * 5_000 + "=1"]


@pytest.mark.parametrize("override", OVERRIDES, ids=["digits", "dots", "brackets", "long"])
def test_absurd_overrides(override: str):
    with pytest.raises(SynthgenError) as refused:
        load_recipe("smoke", [override])
    assert len(str(refused.value)) < 1_000


@pytest.mark.parametrize(
    "options", [["--labels", f"0,{'9' * 5_000}"], ["--splits", f"train={'9' * 5_000}"]], ids=["labels", "splits"]
)
def test_absurd_numbers_in_options(tmp_path, options: list[str]):
    expect_one_line(synthgen("export", "--out", tmp_path / "set", *options), "expected")


def test_canaries_without_end():
    with pytest.raises(UsageError, match="expected 20 to 5,000"):
        audit("private", canaries=int("9" * 20))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
class TestPipes:
    """Nothing waits for the other end of a pipe."""

    def test_weights(self, checkpoint):
        path = weights_file(checkpoint)
        path.unlink()
        os.mkfifo(path)
        expect_one_line(synthgen("info", checkpoint, timeout=20), "expected a regular file")

    def test_shard(self, any_set):
        first_shard_file(any_set).unlink()
        os.mkfifo(first_shard_file(any_set))
        expect_one_line(synthgen("verify", any_set, timeout=20), "missing")

    def test_state(self, tmp_path):
        write_state(tmp_path, {}, {})
        (tmp_path / "training-state.npz").unlink()
        os.mkfifo(tmp_path / "training-state.npz")
        with pytest.raises(SynthgenError), open_state(tmp_path):
            pass
