"""Whatever is altered in a set, ``verify`` names it."""

import contextlib
import gzip
import json
import os
import shutil

import h5py
import numpy as np
import pytest
from support import forge

from synthgen.errors import UsageError, VerificationError
from synthgen.formats.idx import idx_header
from synthgen.sets.manifest import load_manifest, sealed
from synthgen.sets.reading import read_set
from synthgen.sets.verification import verify


@pytest.fixture(scope="module")
def originals(tiny_checkpoint, tmp_path_factory):
    """A sound set of 700 images in every format, two shards where the format has shards."""
    from synthgen.export.run import generate, plan_export

    root = tmp_path_factory.mktemp("sets")
    for name in ("tfrecord", "hdf5", "png", "idx", "npz"):
        plan = plan_export(tiny_checkpoint, count=700, file_format=name, shards=1 if name == "idx" else 2)
        generate(tiny_checkpoint, plan, root / name, allow_unprotected=True)
    return root


@pytest.fixture
def copy(originals, tmp_path):
    def copy_of(file_format: str):
        return shutil.copytree(originals / file_format, tmp_path / file_format)

    return copy_of


FORMATS = ("tfrecord", "hdf5", "png", "idx", "npz")


def problems_of(folder) -> str:
    report = verify(folder)
    assert not report.sound
    return "\n".join(report.problems)


@pytest.mark.parametrize("file_format", FORMATS)
def test_one_flipped_bit_is_found_and_its_file_named(copy, file_format: str):
    folder = copy(file_format)
    random = np.random.default_rng(7)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json")
    for path in random.choice(np.array(files, dtype=object), min(6, len(files)), replace=False):
        data = bytearray(path.read_bytes())
        data[random.integers(len(data))] ^= 1 << random.integers(8)
        before = path.read_bytes()
        path.write_bytes(bytes(data))
        assert path.relative_to(folder).as_posix() in problems_of(folder)
        path.write_bytes(before)
    assert verify(folder).sound


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_missing_file_is_named(copy, file_format: str):
    folder = copy(file_format)
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json")[:4]:
        before = path.read_bytes()
        path.unlink()
        assert f"{path.relative_to(folder).as_posix()}: missing" in problems_of(folder)
        path.write_bytes(before)


@pytest.mark.parametrize("file_format", ["tfrecord", "hdf5", "npz"])
def test_swapped_shards_are_found(copy, file_format: str):
    folder = copy(file_format)
    first, second = (folder / shard.files[0].name for shard in load_manifest(folder).shards)
    first.rename(folder / "aside")
    second.rename(first)
    (folder / "aside").rename(second)
    found = problems_of(folder)
    assert first.name in found
    assert second.name in found


def test_a_stranger_among_the_images_is_found(copy):
    folder = copy("png")
    source = next((folder / "train").rglob("*.png"))
    shutil.copy(source, source.parent / "stranger.png")
    assert "stranger.png: not part of the set" in problems_of(folder)


@pytest.mark.parametrize(
    ("file_format", "stranger"),
    [
        ("idx", "train-images-idx3-ubyte"),  # a reader that looks for the uncompressed name would take it
        ("png", "train/0_t-shirt-top/x.jpg"),
        ("png", "train/0_zzz/"),  # an empty folder shifts every label of an image folder
        ("hdf5", "train-00002-of-00003.h5"),
    ],
)
def test_whatever_a_loader_might_take_for_part_of_the_set_is_found(copy, file_format: str, stranger: str):
    folder = copy(file_format)
    if stranger.endswith("/"):
        (folder / stranger).mkdir()
    else:
        (folder / stranger).write_bytes(b"")
    assert f"{stranger.rstrip('/')}: not part of the set" in problems_of(folder)


def test_a_class_folder_that_is_a_link_is_found(copy, tmp_path):
    folder = copy("png")
    (folder / "train" / "0_t-shirt-top").rename(tmp_path / "moved")
    (folder / "train" / "0_t-shirt-top").symlink_to(tmp_path / "moved")
    assert "missing" in problems_of(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("file_format", FORMATS)
def test_a_pipe_in_place_of_a_file_is_not_waited_for(copy, file_format: str):
    folder = copy(file_format)
    victim = folder / load_manifest(folder).shards[0].files[0].name
    victim.unlink()
    os.mkfifo(victim)
    assert f"{victim.relative_to(folder).as_posix()}: missing" in problems_of(folder)
    with pytest.raises(VerificationError, match="missing"):
        list(read_set(folder, load_manifest(folder)))


def test_chunks_too_large_to_read_are_refused(copy):
    folder = copy("hdf5")
    shard = load_manifest(folder).shards[0]
    with h5py.File(folder / shard.files[0].name, "w") as file:
        shape, chunks = (shard.count, 28, 28), (100_000, 28, 28)
        file.create_dataset("images", shape, "u1", chunks=chunks, maxshape=(None, 28, 28), compression="gzip")
        file.create_dataset("labels", (shard.count,), "u1")
    with pytest.raises(VerificationError, match="too large to read piece by piece"):
        list(read_set(folder, load_manifest(folder)))


def test_idx_that_claims_other_than_the_manifest_is_refused_unread(copy):
    folder = copy("idx")
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx_header(800, images=True) + bytes(800 * 784)))
    with pytest.raises(VerificationError, match="claims 800 items; expected 700"):
        list(read_set(folder, load_manifest(folder)))


def test_a_link_in_place_of_a_file_is_found(copy, tmp_path):
    folder = copy("npz")
    shard = folder / load_manifest(folder).shards[0].files[0].name
    shard.rename(tmp_path / "elsewhere.npz")
    shard.symlink_to(tmp_path / "elsewhere.npz")
    assert f"{shard.name}: missing" in problems_of(folder)


def edit(folder, change) -> None:
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    with contextlib.suppress(UnicodeEncodeError):
        document = sealed(document)  # as who forges would
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(digest="0" * 64), "the set's digest is not that of its shards"),
        (lambda m: m["shards"][1].update(digest="0" * 64), "do not give the digest"),
        (lambda m: m["shards"][0]["files"][0].update(bytes=1), "bytes; expected 1"),
        (lambda m: m["shards"][0]["files"][0].update(sha256="0" * 64), "altered"),
    ],
)
def test_an_edited_manifest_is_found(copy, change, words: str):
    folder = copy("hdf5")
    edit(folder, change)
    assert words in problems_of(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(schema_version=3), "schema_version 3; this version reads 1 and 2"),
        (lambda m: m.update(schema_version=2), "its shards are not in lists"),
        (lambda m: m.update(count=701, class_counts=[71, *m["class_counts"][1:]]), "the shards do not add up to count"),
        (lambda m: m.update(count="700"), "count is '700'; expected int"),
        (lambda m: m.update(class_counts=[71, 69, *[70] * 8]), "class_counts are not those of labels balanced"),
        (lambda m: m.update(seed=-1), "seed -1 is out of range"),
        (lambda m: m.update(extra=1), "unknown or missing in Manifest: extra"),
        (lambda m: m.pop("seed"), "unknown or missing in Manifest: seed"),
        (lambda m: m["shards"].pop(0), "shard 0 does not follow"),
        (lambda m: m["shards"][0]["files"][0].update(name="../x.h5"), "leaves the folder"),
        (lambda m: m["shards"][0]["files"][0].update(name="/etc/passwd"), "leaves the folder"),
        (lambda m: m["checkpoint"]["recipe"].update(name="other"), "the recipe is not the one its hash names"),
        (lambda m: m.update(privacy=None), "privacy statement"),
        (lambda m: m["privacy"].update(sentence="Proven: epsilon = 0.1"), "sentence is not that of its guarantee"),
        (lambda m: m.update(format="exe"), "format 'exe'; expected tfrecord"),
        (lambda m: m.update(labels="shoes"), "labels 'shoes'"),
        (lambda m: m.update(start=2**63), "too many"),
        (lambda m: m["checkpoint"].update(name="\x1b[2J"), "characters that cannot be printed"),
        (lambda m: m["made_with"].update(python="\ud800"), "half a surrogate pair"),
        (lambda m: m.update(made_with={"python": 3}), "made_with holds no texts"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused_in_one_line(copy, change, words: str):
    folder = copy("hdf5")
    edit(folder, change)
    with pytest.raises(VerificationError) as refusal:
        verify(folder)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda m: m["privacy"].update(trained_on="1 images of Fashion-MNIST, training split"),
            "the privacy statement is not that of its checkpoint",
        ),
        (lambda m: m.update(labels="none", class_counts=[]), "labels 'none' cannot come from its checkpoint"),
    ],
)
def test_a_claim_that_is_not_the_checkpoints_is_found(copy, tiny_checkpoint, change, words: str):
    folder = copy("hdf5")
    edit(folder, change)
    report = verify(folder, checkpoint=tiny_checkpoint)
    assert words in "\n".join(report.problems)


def test_a_listing_that_leaves_the_folder_is_not_followed(copy, tmp_path):
    folder = copy("png")
    listing = folder / load_manifest(folder).shards[0].files[0].name
    lines = listing.read_text().splitlines()
    listing.write_text("\n".join([f"{lines[0].split()[0]}  ../../secret.png", *lines[1:]]) + "\n")
    found = problems_of(folder)
    assert listing.name in found


def test_an_edit_that_no_image_depends_on_breaks_the_seal(copy):
    folder = copy("npz")
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"system": "', '"system": "Not '))
    assert "manifest.json: altered" in problems_of(folder)


def test_a_manifest_that_is_a_link_is_refused(copy, tmp_path):
    folder = copy("npz")
    (folder / "manifest.json").rename(tmp_path / "elsewhere")
    (folder / "manifest.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(VerificationError, match=r"manifest\.json: a link; expected the file itself"):
        verify(folder)


def test_no_manifest_is_one_line(tmp_path):
    with pytest.raises(VerificationError, match=r"no manifest\.json here: expected an exported set"):
        verify(tmp_path)


def test_regenerating_compares_pixels_and_labels(originals, tiny_checkpoint):
    report = verify(originals / "tfrecord", regenerate=100, checkpoint=tiny_checkpoint)
    assert report.sound
    assert report.regenerated == 100


def test_regenerating_finds_a_set_of_another_seed(copy, tiny_checkpoint):
    folder = copy("npz")
    forge(folder, lambda m: m.update(seed=1))
    report = verify(folder, regenerate=10, checkpoint=tiny_checkpoint)
    assert "10 of 10 images drawn anew differ" in report.problems[0]


def test_regenerating_wants_the_very_checkpoint(originals, unlabelled_checkpoint):
    with pytest.raises(UsageError, match="the set was drawn from"):
        verify(originals / "npz", regenerate=1, checkpoint=unlabelled_checkpoint)
    with pytest.raises(UsageError, match="not built in; name its folder with --checkpoint"):
        verify(originals / "npz", regenerate=1)
