"""``synthgen export`` and ``synthgen merge``."""

import json

import pytest
from kill_exports import cheap_pixels
from small_exports import COUNT, SHARDS, small_job
from typer.testing import CliRunner

from synthgen.cli.app import app
from synthgen.errors import UsageError
from synthgen.export.outputs import open_output
from synthgen.sets.manifest import load_manifest


def test_options_that_would_be_ignored_are_refused(tiny_checkpoint, tmp_path):
    base = ["export", "--checkpoint", str(tiny_checkpoint.path), "--out", str(tmp_path / "set")]
    for more, words in (
        (["--splits", "train=5", "--count", "5"], "without --count"),
        (["--splits", "train=5", "--split", "test"], "without --count"),
        (["--address", "head:6379"], "--engine ray"),
    ):
        result = CliRunner().invoke(app, [*base, *more])
        assert isinstance(result.exception, UsageError), result.output
        assert words in str(result.exception)
    assert not (tmp_path / "set").exists()


def test_json_tells_machines_how_far_an_export_is(tiny_checkpoint, whole, tmp_path):
    arguments = ["export", "--checkpoint", tiny_checkpoint.path, "--count", COUNT, "--shards", SHARDS, "--json"]
    arguments += ["--format", "npz", "--allow-unprotected", "--out", tmp_path / "set"]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    events = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert [event["event"] for event in events] == ["shard"] * SHARDS + ["done"]
    assert events[-1]["digest"] == whole.digest


def test_shares_and_merge_on_the_command_line(tiny_checkpoint, whole, tmp_path):
    arguments = ["--checkpoint", tiny_checkpoint.path, "--count", COUNT, "--shards", SHARDS, "--format", "npz"]
    arguments += ["--allow-unprotected", "--out", tmp_path / "set"]
    for number in (1, 0):
        command = ["export", *map(str, arguments), "--shard", str(number), "--of", "2"]
        result = CliRunner().invoke(app, [*command, "--json"])
        assert result.exit_code == 0
        assert '"event": "done"' in result.stdout
    assert CliRunner().invoke(app, ["merge", str(tmp_path / "set")]).exit_code == 0
    assert load_manifest(tmp_path / "set") == whole
    assert CliRunner().invoke(app, ["verify", str(tmp_path / "set"), "--files-only"]).exit_code == 0
    alone = CliRunner().invoke(app, ["export", "--shard", "1"])
    assert isinstance(alone.exception, UsageError)
    assert "go together" in str(alone.exception)


@pytest.fixture
def run(tiny_checkpoint, monkeypatch, tmp_path):
    """Run ``synthgen export`` of the small set into ``set`` in this process."""
    monkeypatch.setattr("synthgen.model.sampling.loaded_generator", cheap_pixels)
    monkeypatch.chdir(tmp_path)

    def export(*options: object, unprotected: bool = True, count: bool = True):
        arguments = ["export", "--checkpoint", tiny_checkpoint.path, "--out", "set", "--format", "npz", *options]
        arguments += ["--workers", 1] if "--workers" not in options else []
        arguments += ["--count", 300, "--shards", 2] if count else []
        arguments += ["--allow-unprotected"] if unprotected else []
        return CliRunner().invoke(app, list(map(str, arguments)))

    return export


SPLITS = {"options": ["--splits", "train=200,test=100"], "count": False}
SHARE = {"options": ["--shard", 0, "--of", 2], "count": True}
SET = {"options": [], "count": True}
KINDS = pytest.mark.parametrize("kind", [SET, SHARE, SPLITS], ids=["set", "share", "splits"])


def expect_refused(result, words: str) -> None:
    assert result.exit_code != 0
    assert words in str(result.exception)
    assert "drawing" not in result.output


@KINDS
def test_what_is_drawn_is_said_once(run, kind):
    result = run(*kind["options"], count=kind["count"])
    assert result.exit_code == 0, result.output
    assert result.output.count("drawing 300 images from checkpoint tiny") == 1


@KINDS
def test_nothing_is_drawn_without_the_guarantee_asked_for(run, kind):
    options, count = kind["options"], kind["count"]
    expect_refused(run(*options, count=count, unprotected=False), "no formal privacy guarantee")
    expect_refused(run(*options, "--max-epsilon", 1, count=count), "asked for was epsilon 1 or less")
    expect_refused(run(*options, "--max-epsilon", 0, count=count), "expected a number above 0")


@KINDS
def test_nothing_is_drawn_without_workers(run, kind):
    expect_refused(run(*kind["options"], "--workers", 0, count=kind["count"]), "workers 0")


@KINDS
def test_nothing_is_drawn_into_a_folder_that_is_not_empty(run, kind, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "precious.txt").write_text("mine")
    expect_refused(run(*kind["options"], count=kind["count"]), "is not empty")


@KINDS
def test_nothing_is_drawn_where_another_export_is_at_work(run, kind, tiny_checkpoint, tmp_path):
    with open_output(tmp_path / "set").claim(small_job(tiny_checkpoint).to_dict(), resume=False):
        for more in ([], ["--resume"]):
            expect_refused(run(*kind["options"], *more, count=kind["count"]), "another export is at work")


@KINDS
def test_nothing_is_drawn_where_another_export_is_unfinished(run, kind, tiny_checkpoint, tmp_path):
    with open_output(tmp_path / "set").claim(small_job(tiny_checkpoint, "hdf5").to_dict(), resume=False):
        pass
    for more in ([], ["--resume"]):
        expect_refused(run(*kind["options"], *more, count=kind["count"]), "holds another export")


@pytest.mark.parametrize("kind", [SET, SPLITS], ids=["set", "splits"])
def test_nothing_is_drawn_where_the_set_is_unfinished_or_finished(run, kind, tmp_path, monkeypatch):
    options, count = kind["options"], kind["count"]
    with monkeypatch.context() as patch:
        patch.setattr("synthgen.export.engine.draw_shard", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert "drawing" in run(*options, count=count).output
    expect_refused(run(*options, count=count), "go on with --resume")
    assert run(*options, "--resume", count=count).exit_code == 0
    expect_refused(run(*options, count=count), "holds a finished set")
    finished = run(*options, "--resume", count=count)
    assert finished.exit_code == 0
    assert "drawing" not in finished.output
    next((tmp_path / "set").glob("*.npz")).write_bytes(b"")
    expect_refused(run(*options, "--resume", count=count), "holds this set, but spoilt")


def test_nothing_is_drawn_by_an_engine_that_is_not_there(run, monkeypatch):
    expect_refused(run("--engine", "spark"), "expected local or ray")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    expect_refused(run("--engine", "ray"), "Ray is not installed")


def test_one_process_reads_and_hashes_the_weights_once(tiny_checkpoint, tmp_path, monkeypatch):
    from synthgen.model import checkpoint, sampling

    read, hashed = [], []
    read_arrays, identity = checkpoint._read_arrays, checkpoint._identity
    monkeypatch.setattr(sampling, "_generators", {})
    monkeypatch.setattr(checkpoint, "_read_arrays", lambda path: read.append(path) or read_arrays(path))
    monkeypatch.setattr(checkpoint, "_identity", lambda *values: hashed.append(values) or identity(*values))
    for options in (["--count", 300, "--shards", 2], ["--splits", "train=200,test=100"]):
        arguments = ["export", "--checkpoint", tiny_checkpoint.path, "--out", tmp_path / f"{len(options)}"]
        arguments += [*options, "--workers", 1, "--allow-unprotected"]
        result = CliRunner().invoke(app, list(map(str, arguments)))
        assert result.exit_code == 0, result.output
        assert (len(read), len(hashed)) == (1, 1)
        read.clear()
        hashed.clear()
