"""Mass production: processes, shares, engines and places give one and the same set."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kill_exports import cheap_pixels
from typer.testing import CliRunner

from synthgen.cli.app import app
from synthgen.errors import ExportError, UsageError, VerificationError
from synthgen.export.engine import default_workers
from synthgen.export.outputs import RemoteOutput, open_output
from synthgen.export.plan import Job, plan_export
from synthgen.export.run import generate, generate_share, merge
from synthgen.export.shard import FinishedShard, generate_shard
from synthgen.sets.manifest import WORK_FOLDER, load_manifest
from synthgen.sets.verification import verify

COUNT, SHARDS = 2000, 4


@pytest.fixture(scope="module")
def whole(tiny_checkpoint, tmp_path_factory):
    """The set as one process writes it."""
    out = tmp_path_factory.mktemp("whole") / "set"
    return generate(tiny_checkpoint, request(tiny_checkpoint), out, allow_unprotected=True)


def request(checkpoint, file_format: str = "npz", shards: int = SHARDS):
    return plan_export(checkpoint, count=COUNT, file_format=file_format, shards=shards)


def share(checkpoint, out, number: int, of: int = 2, **options) -> int:
    return generate_share(checkpoint, request(checkpoint, **options), out, share=number, of=of, allow_unprotected=True)


def test_processes_over_shards_write_the_same_bytes(tiny_checkpoint, whole, tmp_path):
    done = []
    manifest = generate(
        tiny_checkpoint, request(tiny_checkpoint), tmp_path / "set", workers=2, allow_unprotected=True,
        on_shard=lambda *shards: done.append(shards),
    )  # fmt: skip
    assert manifest == whole
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert verify(tmp_path / "set", workers=2).sound


def test_processes_that_draw_for_one_file_give_the_same_set(tiny_checkpoint, whole, tmp_path):
    plan = request(tiny_checkpoint, "idx", shards=1)
    drawn: list[int] = []
    manifest = generate(
        tiny_checkpoint, plan, tmp_path / "set", workers=2, allow_unprotected=True, progress=drawn.append
    )
    assert manifest.digest == whole.digest
    assert sum(drawn) == COUNT


def test_shares_written_in_any_order_and_twice_merge_to_the_same_set(tiny_checkpoint, whole, tmp_path):
    out = tmp_path / "set"
    assert [share(tiny_checkpoint, out, number, of=3) for number in (2, 0, 2)] == [1, 2, 1]
    with pytest.raises(ExportError, match=r"1 of 4 shards are missing or of another export: 1; run"):
        merge(out)
    assert not (out / "manifest.json").exists()
    share(tiny_checkpoint, out, 1, of=3)
    assert merge(out) == whole
    assert merge(out) == whole  # nothing left to do
    assert share(tiny_checkpoint, out, 1, of=3) == 1  # a task that a scheduler repeats finds its work done
    assert not (out / WORK_FOLDER).exists()
    assert verify(out).sound


def test_shares_of_one_file_get_a_shard_each(tiny_checkpoint):
    assert plan_export(tiny_checkpoint, count=COUNT, file_format="npz", shares=3).plan.shards == 3
    with pytest.raises(UsageError, match="one file by nature"):
        plan_export(tiny_checkpoint, count=COUNT, file_format="idx", shares=3)


def test_two_shares_at_once_and_a_whole_export_do_not_meet(tiny_checkpoint, tmp_path):
    out = tmp_path / "set"
    job = Job.of(tiny_checkpoint, request(tiny_checkpoint))
    with open_output(out).claim(job.to_dict(), resume=True, shared=True):
        share(tiny_checkpoint, out, 0)
        with pytest.raises(ExportError, match="another export is at work"):
            generate(tiny_checkpoint, request(tiny_checkpoint), out, resume=True, allow_unprotected=True)
        with pytest.raises(ExportError, match="another export is at work"):
            merge(out)
        with pytest.raises(ExportError, match="holds another export"):
            share(tiny_checkpoint, out, 1, file_format="hdf5")


def test_one_shard_written_twice_at_once_is_whole(tiny_checkpoint, whole, tmp_path):
    job, output = Job.of(tiny_checkpoint, request(tiny_checkpoint)), open_output(tmp_path / "set")
    again: list[FinishedShard] = []

    def intrude(images: int) -> None:
        if not again:
            again.append(generate_shard(job, 1, tmp_path / "set"))

    with output.claim(job.to_dict(), resume=True, shared=True):
        first = generate_shard(job, 1, output, intrude)
    assert [first.record] == [again[0].record] == [whole.shards[1]]


def test_a_job_and_a_record_survive_json(tiny_checkpoint, tmp_path):
    job = Job.of(tiny_checkpoint, request(tiny_checkpoint))
    assert Job.from_dict(json.loads(json.dumps(job.to_dict()))) == job
    with pytest.raises(ExportError, match="not an export job"):
        Job.from_dict({"seed": 1})


def test_shards_of_another_job_are_not_merged(tiny_checkpoint, tmp_path):
    share(tiny_checkpoint, tmp_path / "a", 0, of=1)
    other = plan_export(tiny_checkpoint, count=COUNT, file_format="npz", shards=SHARDS, seed=5)
    generate_share(tiny_checkpoint, other, tmp_path / "b", share=0, of=1, allow_unprotected=True)
    name = f"{WORK_FOLDER}/shard-00002.json"
    (tmp_path / "a" / name).write_bytes((tmp_path / "b" / name).read_bytes())
    with pytest.raises(ExportError, match="missing or of another export: 2;"):
        merge(tmp_path / "a")


def test_a_machine_that_would_round_otherwise_is_refused(tiny_checkpoint, tmp_path, monkeypatch):
    job = Job.of(tiny_checkpoint, request(tiny_checkpoint))
    elsewhere = Job.from_dict({**job.to_dict(), "made_with": {**job.made_with, "processor": "another"}})
    with pytest.raises(ExportError, match="processor another"):
        elsewhere.source()


@pytest.mark.parametrize("file_format", ["tfrecord", "png"])
def test_a_url_takes_a_set_and_resumes_one(tiny_checkpoint, whole, tmp_path, file_format: str):
    fsspec = pytest.importorskip("fsspec")
    url = f"memory://{tmp_path.name}/{file_format}"
    share(tiny_checkpoint, url, 0, file_format=file_format)
    files = fsspec.filesystem("memory")
    assert not files.exists(f"{url}/manifest.json")
    with pytest.raises(ExportError, match="go on with --resume"):
        generate(tiny_checkpoint, request(tiny_checkpoint, file_format), url, allow_unprotected=True)
    manifest = generate(
        tiny_checkpoint, request(tiny_checkpoint, file_format), url, resume=True, allow_unprotected=True
    )
    assert manifest.digest == whole.digest
    assert not files.exists(f"{url}/{WORK_FOLDER}")
    files.get(url, str(tmp_path / "copy"), recursive=True)
    assert verify(tmp_path / "copy").sound
    with pytest.raises(ExportError, match="holds a finished set"):
        generate(tiny_checkpoint, request(tiny_checkpoint, file_format), url, allow_unprotected=True)


def test_bad_places_and_numbers_are_refused(tiny_checkpoint, tmp_path):
    pytest.importorskip("fsspec")
    plan = request(tiny_checkpoint)
    for out, options, words in (
        ("nosuch://bucket/set", {}, "nosuch"),
        ("memory://x", {"workers": 2}, "use --workers 1"),
        (tmp_path / "set", {"workers": 0}, "workers 0"),
        (tmp_path / "set", {"engine": "spark"}, "expected local or ray"),
    ):
        with pytest.raises(UsageError, match=words):
            generate(tiny_checkpoint, plan, out, allow_unprotected=True, **options)
    with pytest.raises(UsageError, match="expected --shard 0 to --shard 1"):
        share(tiny_checkpoint, tmp_path / "set", 2, of=2)
    with pytest.raises(ExportError, match="no export here"):
        merge(tmp_path)


def test_many_shards_stand_in_lists_that_the_manifest_vouches_for(tiny_checkpoint, whole, tmp_path, monkeypatch):
    monkeypatch.setattr("synthgen.sets.manifest.SHARDS_PER_LIST", 3)
    out = tmp_path / "set"
    manifest = generate(tiny_checkpoint, request(tiny_checkpoint), out, allow_unprotected=True)
    assert [file.name for file in manifest.shard_lists] == ["shard-lists/00000.json", "shard-lists/00001.json"]
    document = json.loads((out / "manifest.json").read_text())
    assert document["schema_version"] == 2
    assert "shards" not in document
    assert load_manifest(out) == manifest
    assert (manifest.digest, manifest.shards) == (whole.digest, whole.shards)
    assert verify(out).sound
    path = out / "shard-lists" / "00001.json"
    path.write_text(path.read_text().replace('"count": ', '"count":  '))
    with pytest.raises(VerificationError, match=r"shard-lists/00001.json: altered"):
        load_manifest(out)
    path.unlink()
    with pytest.raises(VerificationError, match=r"shard-lists/00001.json: missing"):
        verify(out)


@pytest.fixture
def small(tiny_checkpoint, monkeypatch):
    """A cheap export of 300 images in two shards: ``small(out, **options)``."""
    monkeypatch.setattr("synthgen.model.sampling.loaded_generator", cheap_pixels)

    def export(out, file_format: str = "npz", **options):
        plan = plan_export(tiny_checkpoint, count=300, file_format=file_format, shards=2)
        return generate(tiny_checkpoint, plan, out, allow_unprotected=True, **options)

    return export


def small_job(checkpoint, file_format: str = "npz") -> Job:
    return Job.of(checkpoint, plan_export(checkpoint, count=300, file_format=file_format, shards=2))


def test_a_merge_that_was_killed_behind_its_manifest_ends_well(small, tiny_checkpoint, tmp_path):
    manifest = small(tmp_path)
    (tmp_path / WORK_FOLDER).mkdir()
    (tmp_path / WORK_FOLDER / "job.json").write_text(json.dumps(small_job(tiny_checkpoint).to_dict()))
    assert merge(tmp_path) == manifest
    assert not (tmp_path / WORK_FOLDER).exists()


def test_a_merge_misses_an_image_that_is_gone(small, tiny_checkpoint, tmp_path):
    plan = small_job(tiny_checkpoint, "png").export
    generate_share(tiny_checkpoint, plan, tmp_path, share=0, of=1, allow_unprotected=True)
    next((tmp_path / "train").rglob("000000003.png")).unlink()
    with pytest.raises(ExportError, match="1 of 2 shards are missing or of another export: 0;"):
        merge(tmp_path)


@pytest.mark.parametrize("place", ["folder", "url"])
@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_a_damaged_claim_is_named(small, tmp_path, place: str, content: bytes):
    out = str(tmp_path / "set")
    if place == "url":
        fsspec = pytest.importorskip("fsspec")
        out = f"memory://{tmp_path.name}/set"
        fsspec.filesystem("memory").pipe_file(f"{out}/{WORK_FOLDER}/job.json", content)
    else:
        (tmp_path / "set" / WORK_FOLDER).mkdir(parents=True)
        (tmp_path / "set" / WORK_FOLDER / "job.json").write_bytes(content)
    for act in (lambda: small(out, resume=True), lambda: merge(out)):
        with pytest.raises(ExportError, match=r"job.json: not an export job"):
            act()


def test_what_a_killed_writing_of_shard_lists_left_goes_away(small, tmp_path, monkeypatch):
    monkeypatch.setattr("synthgen.sets.manifest.SHARDS_PER_LIST", 1)

    def interrupt(done: int, of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small(tmp_path, on_shard=interrupt)
    (tmp_path / "shard-lists").mkdir()
    (tmp_path / "shard-lists" / ".00000.json.abc.partial").write_bytes(b"half")
    small(tmp_path, resume=True)
    assert verify(tmp_path).sound


def test_what_is_refused_leaves_no_claim(small, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    out = tmp_path / "set"
    for options, words in (
        ({"engine": "spark"}, "expected local or ray"),
        ({"engine": "ray", "address": "127.0.0.1:1"}, "no Ray cluster answers"),
    ):
        with pytest.raises(UsageError, match=words):
            small(out, **options)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="not installed"):
        small(out, engine="ray")
    with pytest.raises(UsageError, match="its own memory"):
        small("memory://x", engine="ray")
    assert not out.exists()


def test_another_machine_is_told_what_differs(small, tiny_checkpoint, tmp_path):
    job = small_job(tiny_checkpoint)
    elsewhere = {**job.to_dict(), "made_with": {**job.made_with, "processor": "another", "numpy": "0.1"}}
    with open_output(tmp_path).claim(elsewhere, resume=True):
        pass
    with pytest.raises(ExportError, match=r"begun with numpy 0\.1 \(here .*\), processor another \(here "):
        small(tmp_path, resume=True)


def test_a_store_that_fails_in_its_own_words_is_one_line(small, tmp_path, monkeypatch):
    pytest.importorskip("fsspec")
    from fsspec.implementations.memory import MemoryFileSystem

    class StoreError(Exception):
        pass

    def refuse(*_: object, **__: object) -> None:
        raise StoreError("access\ndenied")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuse)
    with pytest.raises(ExportError, match="cannot be written: StoreError: access denied; mend that"):
        small(f"memory://{tmp_path.name}/set")


def test_two_that_claim_a_url_at_once_notice(small, tiny_checkpoint, tmp_path, monkeypatch):
    pytest.importorskip("fsspec")
    job, write = small_job(tiny_checkpoint, "hdf5").to_dict(), RemoteOutput.write

    def written_over(self: RemoteOutput, name: str, data: bytes) -> None:
        write(self, name, json.dumps(job).encode() if name.endswith("job.json") else data)

    monkeypatch.setattr(RemoteOutput, "write", written_over)
    with pytest.raises(ExportError, match=r"another export \(different format\)"):
        small(f"memory://{tmp_path.name}/set")


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


def test_small_sets_are_drawn_by_one_process():
    assert default_workers(100) == 1
    assert 1 <= default_workers(10**9) <= 8


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds the processes in /proc")
@pytest.mark.parametrize("victim", ["worker", "parent"])
def test_a_killed_process_takes_the_crew_with_it_and_the_export_resumes(tiny_checkpoint, tmp_path, victim: str):
    count = 20_000  # long enough not to be over before it is killed
    arguments = ["--checkpoint", tiny_checkpoint.path, "--count", count, "--shards", SHARDS, "--format", "npz"]
    arguments += ["--allow-unprotected", "--workers", 2, "--out", tmp_path / "set"]
    command = [sys.executable, "-m", "synthgen", "export", *map(str, arguments)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    workers = []
    while len(workers) < 2 and process.poll() is None:
        time.sleep(0.005)
        workers = [pid for pid in children(process.pid) if "spawn_main" in command_line(pid)]
    os.kill(workers[0] if victim == "worker" else process.pid, signal.SIGKILL)
    _, told = process.communicate(timeout=120)
    if victim == "worker":
        assert process.returncode == 1
        assert "was killed by signal 9" in told
        assert "--resume" in told
    deadline = time.monotonic() + 30
    while any(command_line(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(command_line(pid) for pid in workers)
    assert not (tmp_path / "set" / "manifest.json").exists()
    plan = plan_export(tiny_checkpoint, count=count, file_format="npz", shards=SHARDS)
    whole = generate(tiny_checkpoint, plan, tmp_path / "whole", allow_unprotected=True)
    assert generate(tiny_checkpoint, plan, tmp_path / "set", resume=True, allow_unprotected=True) == whole


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


def children(pid: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it may end while it is looked at
            _, _, fields = status.read_text().rpartition(")")  # behind the name, which may hold anything
            if int(fields.split()[1]) == pid:
                found.append(int(status.parent.name))
    return found


def command_line(pid: int) -> str:
    """A living process's command line; empty once it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return ""
