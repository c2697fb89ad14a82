"""Several splits in one folder: disjoint, resumable, verified as a whole."""

import gzip
import json

import numpy as np
import pytest
from kill_exports import cheap_pixels, content
from support import DATA  # noqa: F401  # the fixtures' home
from typer.testing import CliRunner

from synthgen.cli.app import app
from synthgen.errors import ExportError, UsageError
from synthgen.export.run import generate, plan_export
from synthgen.export.splits import generate_splits, plan_splits
from synthgen.formats.table import FORMATS
from synthgen.sets.inspection import describe
from synthgen.sets.manifest import WORK_FOLDER, load_manifest, load_manifests
from synthgen.sets.reading import claimed_content
from synthgen.sets.verification import verify

SPLITS = "train=300,test=50"


@pytest.fixture
def export_splits(tiny_checkpoint, monkeypatch):
    monkeypatch.setattr("synthgen.model.sampling.loaded_generator", cheap_pixels)

    def export(out, file_format="npz", splits=SPLITS, **options):
        exports = plan_splits(tiny_checkpoint, splits, file_format=file_format, start=options.pop("start", 0))
        return generate_splits(tiny_checkpoint, exports, out, allow_unprotected=True, **options)

    return export


@pytest.mark.parametrize("file_format", FORMATS)
def test_both_splits_stand_in_one_folder_and_verify(export_splits, tiny_checkpoint, tmp_path, file_format: str):
    train, test = export_splits(tmp_path / "set", file_format)
    assert (train.split, train.start, train.count) == ("train", 0, 300)
    assert (test.split, test.start, test.count) == ("test", 300, 50)
    report = verify(tmp_path / "set", regenerate=20, checkpoint=tiny_checkpoint)
    assert report.sound, report.problems
    assert (report.count, report.regenerated) == (350, 40)
    assert not (tmp_path / "set" / WORK_FOLDER).exists()
    alone = plan_export(tiny_checkpoint, count=50, start=300, file_format=file_format, split="test")
    assert generate(tiny_checkpoint, alone, tmp_path / "alone", allow_unprotected=True).digest == test.digest


def test_every_format_has_its_own_way_of_holding_two_splits(export_splits, tmp_path):
    export_splits(tmp_path / "idx", "idx")
    names = {path.name for path in (tmp_path / "idx").glob("*.gz")}
    assert names == {
        f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    }
    labels = gzip.decompress((tmp_path / "idx/t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    np.testing.assert_array_equal(np.frombuffer(labels, np.uint8), np.arange(300, 350) % 10)
    export_splits(tmp_path / "tfrecord", "tfrecord")
    info = json.loads((tmp_path / "tfrecord/dataset_info.json").read_text())
    assert [(split["name"], split["shardLengths"]) for split in info["splits"]] == [
        ("train", ["300"]),
        ("test", ["50"]),
    ]
    export_splits(tmp_path / "png", "png", start=7)
    assert len(list((tmp_path / "png/test").rglob("*.png"))) == 50
    card = (tmp_path / "png/README.md").read_text()
    assert "| train | 300 | 7 to 306 |" in card
    assert 'path: "test/*/*.png"' in card


def test_what_is_altered_in_either_split_is_named(export_splits, tmp_path):
    out = tmp_path / "set"
    export_splits(out, "hdf5")
    for name in ("test-00000-of-00001.h5", "manifest-test.json", "train-00000-of-00001.h5"):
        before = (out / name).read_bytes()
        (out / name).write_bytes(before[:-1])
        assert name in "\n".join(verify(out).problems)
        (out / name).unlink()
        assert f"{name}: missing" in "\n".join(verify(out).problems)
        (out / name).write_bytes(before)
    (out / "stranger.h5").write_bytes(b"")
    assert "stranger.h5" in verify(out).problems[0]


@pytest.mark.parametrize("file_format", ["png", "tfrecord"])
@pytest.mark.parametrize("after", [1, 301])
def test_an_interrupted_export_resumes_to_the_same_files(export_splits, tmp_path, file_format: str, after: int):
    export_splits(tmp_path / "whole", file_format)
    drawn = 0

    def interrupt(images: int) -> None:
        nonlocal drawn
        drawn += images
        if drawn >= after:
            raise KeyboardInterrupt

    out = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        export_splits(out, file_format, progress=interrupt)
    assert not content(out)
    with pytest.raises(ExportError, match="--resume"):
        export_splits(out, file_format)
    with pytest.raises(ExportError, match="different"):
        export_splits(out, file_format, splits="train=300,test=51", resume=True)
    export_splits(out, file_format, resume=True)
    assert content(out) == content(tmp_path / "whole")


def test_one_that_broke_off_while_it_was_put_together_resumes_too(export_splits, tmp_path, monkeypatch):
    export_splits(tmp_path / "whole", "png")
    with monkeypatch.context() as patch:
        patch.setattr("synthgen.export.splits.publish_manifests", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            export_splits(tmp_path / "broken", "png")
    assert not (tmp_path / "broken/manifest.json").exists()
    export_splits(tmp_path / "broken", "png", resume=True)
    assert content(tmp_path / "broken") == content(tmp_path / "whole")


def test_a_finished_set_is_found_finished_or_refused(export_splits, tmp_path):
    manifests = export_splits(tmp_path / "set")
    assert export_splits(tmp_path / "set", resume=True) == manifests == load_manifests(tmp_path / "set")
    for refused in ({}, {"resume": True, "splits": "train=300,test=51"}, {"resume": True, "splits": "train=300"}):
        with pytest.raises(ExportError, match="holds a finished set"):
            export_splits(tmp_path / "set", **refused)


def test_what_was_left_behind_the_manifest_goes_away(export_splits, tmp_path):
    export_splits(tmp_path)
    (tmp_path / WORK_FOLDER / "splits").mkdir(parents=True)
    export_splits(tmp_path, resume=True)
    assert not (tmp_path / WORK_FOLDER).exists()


def test_a_file_system_without_links_gets_copies(export_splits, tmp_path, monkeypatch):
    export_splits(tmp_path / "linked", "png")

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("os.link", refuse)
    export_splits(tmp_path / "copied", "png")
    assert content(tmp_path / "copied") == content(tmp_path / "linked")
    assert verify(tmp_path / "copied").sound


def test_a_split_of_too_many_shards_is_refused_before_anything_is_drawn(tiny_checkpoint):
    with pytest.raises(UsageError, match="test makes 1,001 shards; expected at most 1,000"):
        plan_splits(tiny_checkpoint, "train=6000000,test=6000001", file_format="png")


def test_info_tells_of_every_split(export_splits, tmp_path):
    train, test = export_splits(tmp_path)
    lines = describe(str(tmp_path))
    assert (lines["digest"], lines["test: digest"]) == (train.digest, test.digest)
    assert lines["test: images"] == "300 to 349 of seed 0"
    assert claimed_content(tmp_path)[0] == 350
    (tmp_path / "manifest-test.json").unlink()
    assert claimed_content(tmp_path)[0] == 300


@pytest.mark.parametrize("splits", ["train", "train=", "train=0", "train=5,train=5", "train=5,dev=5", "", "train=-1"])
def test_bad_requests_are_refused(tiny_checkpoint, splits: str):
    with pytest.raises(UsageError):
        plan_splits(tiny_checkpoint, splits, file_format="npz")


def test_an_unprotected_checkpoint_needs_a_word(tiny_checkpoint, tmp_path):
    with pytest.raises(ExportError, match="--allow-unprotected"):
        generate_splits(tiny_checkpoint, plan_splits(tiny_checkpoint, SPLITS, file_format="npz"), tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_the_command(tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("synthgen.model.sampling.loaded_generator", cheap_pixels)
    command = [
        "export",
        "--checkpoint",
        str(tiny_checkpoint.path),
        "--allow-unprotected",
        "--json",
        "--splits",
        "test=20,train=30",
        "--format",
        "idx",
        "--out",
        str(tmp_path / "set"),
        "--workers",
        "1",
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert load_manifest(tmp_path / "set").split == "test"
    events = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert [(event["event"], event.get("done")) for event in events] == [("shard", 1), ("shard", 2), ("done", None)]
    result = CliRunner().invoke(app, ["verify", str(tmp_path / "set"), "--workers", "1"])
    assert "sound: 50 images" in result.stdout
