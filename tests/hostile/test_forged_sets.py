"""Sets that contradict themselves though every hash is right: none is called sound, evaluated or shown."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from support import forge

from synthgen.errors import ExportError, VerificationError
from synthgen.evaluation.run import evaluate
from synthgen.export.outputs import LocalOutput
from synthgen.export.plan import Job
from synthgen.export.run import generate, generate_share, merge, plan_export
from synthgen.export.shard import generate_shard
from synthgen.export.splits import generate_splits, plan_splits
from synthgen.files import json_bytes
from synthgen.index import LabelRule
from synthgen.sets.cards import sidecar_files
from synthgen.sets.digest import SetDigest
from synthgen.sets.inspection import describe, preview_images
from synthgen.sets.manifest import load_manifest, load_manifests, sealed
from synthgen.sets.reading import read_set
from synthgen.sets.verification import verify

FORMATS = ("tfrecord", "hdf5", "png", "idx", "npz")


@pytest.fixture(scope="module")
def originals(tiny_checkpoint, tmp_path_factory) -> Path:
    """A sound set of 300 images and one of two splits in every format."""
    root = tmp_path_factory.mktemp("sets")
    for name in FORMATS:
        plan = plan_export(tiny_checkpoint, count=300, file_format=name)
        generate(tiny_checkpoint, plan, root / name, allow_unprotected=True)
        splits = plan_splits(tiny_checkpoint, "train=256,test=256", file_format=name)
        generate_splits(tiny_checkpoint, splits, root / f"{name}-splits", allow_unprotected=True, workers=1)
    return root


@pytest.fixture
def copy(originals, tmp_path):
    return lambda name: shutil.copytree(originals / name, tmp_path / name)


def rewritten(folder: Path, name: str, data: bytes) -> None:
    """Put other content into one of a set's sidecars, and its hash into the manifest."""
    (folder / name).write_bytes(data)
    record = {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def change(document):
        others = [file for file in document["sidecars"] if file["name"] != name]
        document["sidecars"] = [*others, record]

    forge(folder, change, cards=False)


def altered_split(folder: Path, change) -> None:
    """Alter the manifest of the second split, and its hash in that of the first."""
    path = folder / "manifest-test.json"
    document = json.loads(path.read_text("utf-8"))
    change(document, json.loads((folder / "manifest.json").read_text("utf-8")))
    rewritten(folder, path.name, json_bytes(sealed(document)))


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("splits", ["", "-splits"])
def test_what_an_export_writes_beside_the_shards_follows_from_the_manifests(copy, file_format: str, splits: str):
    folder = copy(file_format + splits)
    files = sidecar_files(load_manifests(folder))
    assert {"README.md", "croissant.json"} <= set(files)
    for name, data in files.items():
        assert (folder / name).read_bytes() == data
    report = verify(folder)
    assert report.sound, report.problems


@pytest.mark.parametrize(
    ("file_format", "name", "old", "new"),
    [
        ("npz", "README.md", b"# 300 synthetic", b"# 300 real"),
        ("npz", "README.md", b"No formal privacy guarantee", b"Private with epsilon 0.1"),
        ("npz", "croissant.json", b"No formal privacy guarantee", b"Private with epsilon 0.1"),
        ("npz-splits", "croissant.json", b"No formal privacy guarantee", b"Private with epsilon 0.1"),
        ("tfrecord", "dataset_info.json", b'"300"', b'"301"'),
        ("tfrecord-splits", "dataset_info.json", b'"256"', b'"257"'),
        ("tfrecord", "label.labels.txt", b"Trouser", b"Jeans"),
    ],
)
def test_a_sidecar_that_contradicts_the_manifest_is_found(copy, file_format: str, name: str, old: bytes, new: bytes):
    folder = copy(file_format)
    data = (folder / name).read_bytes()
    assert old in data
    if "splits" in file_format:
        altered = data.replace(old, new)
        record = {"bytes": len(altered), "sha256": hashlib.sha256(altered).hexdigest()}

        def change(document, _):
            next(file for file in document["sidecars"] if file["name"] == name).update(record)

        altered_split(folder, change)
    rewritten(folder, name, data.replace(old, new))
    assert verify(folder).problems == (f"{name}: does not say what the manifest says",)
    with pytest.raises(VerificationError, match="does not say what the manifest says"):
        evaluate(folder)


def test_a_file_beside_the_shards_that_no_export_writes_is_found(copy):
    folder = copy("npz")
    rewritten(folder, "dataset.py", b"print('run by a loader')")
    assert verify(folder).problems == ("dataset.py: no file that an export writes beside its shards",)


def test_cards_of_another_version_are_not_compared_and_that_is_said(copy):
    folder = copy("npz")
    rewritten(folder, "README.md", b"As another version words it.")
    forge(folder, lambda m: m["made_with"].update(synthgen="0.2.0"), cards=False)
    report = verify(folder)
    assert report.sound, report.problems
    assert report.unchecked[0] == "cards not compared with the manifest: written by synthgen 0.2.0"


def take_the_shards_of_the_first(document, first):
    start = document["start"]
    document["shards"] = [dict(shard, start=start) for shard in first["shards"]]
    document.update(digest=first["digest"], class_counts=document["class_counts"])


def take_one_file_of_the_first(document, first):
    document["shards"][0]["files"].append(first["shards"][0]["files"][0])


def begin_where_the_first_begins(document, first):
    document.update(start=first["start"], class_counts=first["class_counts"])
    document["shards"] = [dict(shard, start=shard["start"] - 256) for shard in document["shards"]]


def name_a_sidecar_of_the_first_as_a_shard(document, first):
    document["sidecars"] = [file for file in document["sidecars"] if file["name"] != "README.md"]
    document["shards"][0]["files"].append(next(file for file in first["sidecars"] if file["name"] == "README.md"))


def have_a_sidecar_of_its_own(document, first):
    next(file for file in document["sidecars"] if file["name"] == "README.md")["sha256"] = "0" * 64


@pytest.mark.parametrize("file_format", ["npz", "hdf5", "png"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (take_the_shards_of_the_first, "names files that manifest.json has otherwise"),
        (take_one_file_of_the_first, "names files that manifest.json has otherwise"),
        (name_a_sidecar_of_the_first_as_a_shard, "names files that manifest.json has otherwise"),
        (have_a_sidecar_of_its_own, "names files that manifest.json has otherwise"),
        (begin_where_the_first_begins, "does not go on where manifest.json ends"),
    ],
)
def test_splits_have_no_file_and_no_image_in_common(copy, file_format: str, change, words: str):
    folder = copy(f"{file_format}-splits")
    altered_split(folder, change)
    for read in (verify, lambda f: describe(str(f)), lambda f: preview_images(str(f), 1), evaluate):
        with pytest.raises(VerificationError, match=words):
            read(folder)


def test_no_picture_is_listed_by_two_shards(export, tmp_path):
    folder = tmp_path / "set"
    export(folder, count=512, shards=2, labels="3", file_format="png")
    first, second = sorted((folder / "checksums").iterdir())
    for line in second.read_text("utf-8").splitlines():
        (folder / line.partition("  ")[2]).unlink()
    second.write_bytes(first.read_bytes())

    def repeat_the_first_shard(document):
        shards = document["shards"]
        shards[1]["files"][0].update(bytes=second.stat().st_size, sha256=shards[0]["files"][0]["sha256"])
        shards[1]["digest"] = shards[0]["digest"]

    forge(folder, repeat_the_first_shard, cards=False)
    digest = SetDigest(0)
    for batch in read_set(folder, load_manifest(folder)):
        digest.update(batch)
    forge(folder, lambda m: m.update(digest=digest.hexdigest()))
    problems = verify(folder).problems
    assert len(problems) == 10
    assert problems[0].endswith(": listed twice")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m["shards"][0]["files"].append(m["sidecars"][0]), "a file is named twice"),
        (lambda m: m["shards"][0]["files"].append(m["shards"][0]["files"][0]), "a file is named twice"),
        (lambda m: m["shards"][0]["files"][0].update(name="manifest.json"), "is no file of a set"),
        (lambda m: m["shards"][0]["files"][0].update(name=".synthgen/x"), "is no file of a set"),
        (lambda m: m["shards"][0]["files"][0].update(name="x" * 300), "is no file of a set"),
        (lambda m: m["shards"][0]["files"][0].update(sha256="[x](y)"), "no size and SHA-256"),
        (lambda m: m["shards"][0]["files"][0].update(bytes=-1), "no size and SHA-256"),
        (lambda m: m["checkpoint"].update(sha256="<b>x</b>"), "no name or SHA-256 of a checkpoint"),
        (lambda m: m["checkpoint"].update(name="x" * 300), "no name or SHA-256 of a checkpoint"),
        (lambda m: m.update(digest="`<b>`"), "a digest is no SHA-256"),
        (lambda m: m["shards"][0].update(digest="A" * 64), "a digest is no SHA-256"),
        (lambda m: m["made_with"].update(synthgen="x" * 2000), "made_with is too long"),
        (lambda m: m.update(class_counts=[29, 31, *[30] * 8]), "class_counts are not those of labels balanced"),
        (lambda m: m.update(labels="0,1"), "class_counts are not those of labels 0,1"),
        (lambda m: m.update(labels="none"), "class_counts of images without labels"),
    ],
)
def test_a_manifest_whose_values_do_not_fit_is_refused_everywhere(copy, change, words: str):
    folder = copy("npz")
    forge(folder, change, cards=False)
    for read in (verify, lambda f: describe(str(f)), lambda f: preview_images(str(f), 1), evaluate):
        with pytest.raises(VerificationError, match=words):
            read(folder)


def test_the_counts_of_random_labels_are_counted(export, tmp_path):
    export(tmp_path / "set", labels="uniform", count=300)

    def change(document):
        first, second, *others = document["class_counts"]
        document["class_counts"] = [first + 1, second - 1, *others]

    forge(tmp_path / "set", change)
    assert verify(tmp_path / "set").problems == ("manifest.json: class_counts are not those of the images",)


@pytest.mark.parametrize("labels", ["balanced", "uniform", "3,1,4", "none"])
@pytest.mark.parametrize(("start", "count"), [(0, 1), (0, 256), (255, 2), (7, 1000), (2**62 + 5, 300)])
def test_the_counts_of_a_label_rule_are_those_of_its_labels(labels: str, start: int, count: int):
    rule, expected = LabelRule.recorded(labels), [0] * 10
    for block in range(start // 256, (start + count - 1) // 256 + 1):
        drawn = rule.labels(5, block)
        for i, label in enumerate([] if drawn is None else drawn.tolist()):
            expected[label] += start <= block * 256 + i < start + count
    assert rule.class_counts(5, start, count) == tuple(expected)


@pytest.mark.parametrize("labels", ["balanced", "uniform"])
def test_merge_believes_no_class_counts(tiny_checkpoint, tmp_path, labels: str):
    out = tmp_path / "set"
    plan = plan_export(tiny_checkpoint, count=512, file_format="npz", shards=2, labels=labels)
    generate_share(tiny_checkpoint, plan, out, share=0, of=1, allow_unprotected=True)
    path = out / ".synthgen" / "shard-00001.json"
    document = json.loads(path.read_text("utf-8"))
    first, second, *others = document["class_counts"]
    path.write_text(json.dumps({**document, "class_counts": [first + 1, second - 1, *others]}), "utf-8")
    with pytest.raises(ExportError, match=r"1 of 2 shards are missing or of another export: 1"):
        merge(out)
    path.write_text(json.dumps(document), "utf-8")
    merge(out)
    assert verify(out).sound


def test_merge_does_not_seal_a_job_that_claims_what_its_recipe_cannot(tiny_checkpoint, private_checkpoint, tmp_path):
    job = Job.of(tiny_checkpoint, plan_export(tiny_checkpoint, count=20, file_format="npz"))
    forged = dataclasses.replace(job, privacy=private_checkpoint.privacy)
    output = LocalOutput(tmp_path / "set")
    with output.claim(forged.to_dict(), resume=False):
        generate_shard(forged, 0, output)
    with pytest.raises(ExportError, match="its job or a shard's record was altered: it claims privacy"):
        merge(tmp_path / "set")
    assert not (tmp_path / "set" / "manifest.json").exists()
