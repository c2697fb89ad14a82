"""Processes that draw: the same set as one process, and no process left over."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_exports import COUNT, SHARDS, request, share

from synthgen.errors import ExportError, UsageError
from synthgen.export.engine import default_workers
from synthgen.export.plan import plan_export
from synthgen.export.run import generate, merge
from synthgen.sets.verification import verify


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


def test_small_sets_are_drawn_by_one_process():
    assert default_workers(100) == 1
    assert 1 <= default_workers(10**9) <= 8


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds the processes in /proc")
@pytest.mark.parametrize("victim", ["worker", "parent"])
def test_a_killed_process_takes_its_pool_with_it_and_the_export_resumes(tiny_checkpoint, tmp_path, victim: str):
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
    _, messages = process.communicate(timeout=120)
    if victim == "worker":
        assert process.returncode == 1
        assert "was killed by signal 9" in messages
        assert "--resume" in messages
    deadline = time.monotonic() + 30
    while any(command_line(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(command_line(pid) for pid in workers)
    assert not (tmp_path / "set" / "manifest.json").exists()
    plan = plan_export(tiny_checkpoint, count=count, file_format="npz", shards=SHARDS)
    whole = generate(tiny_checkpoint, plan, tmp_path / "whole", allow_unprotected=True)
    assert generate(tiny_checkpoint, plan, tmp_path / "set", resume=True, allow_unprotected=True) == whole


def children(pid: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it may end while it is read
            _, _, fields = status.read_text().rpartition(")")  # behind the name, which may hold anything
            if int(fields.split()[1]) == pid:
                found.append(int(status.parent.name))
    return found


def command_line(pid: int) -> str:
    """A living process's command line; empty once it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return ""
