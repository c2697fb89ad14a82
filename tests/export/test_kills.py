"""No fault costs an image: kills, full disks, lost folders and short resources leave a set that can be resumed."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from kill_exports import cheap_pixels, content
from support import DATA, SAMPLE

from synthgen.errors import ExportError
from synthgen.export.run import generate, plan_export
from synthgen.export.splits import generate_splits, plan_splits
from synthgen.formats.table import FORMATS
from synthgen.sets.manifest import WORK_FOLDER
from synthgen.sets.verification import verify

HERE = Path(__file__).parents[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("attempts", [2, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("file_format", FORMATS)
def test_a_killed_export_resumes_to_the_same_files(tiny_checkpoint, tmp_path, file_format: str, attempts: int):
    program = [sys.executable, HERE / "kill_exports.py", tmp_path, tiny_checkpoint.path, file_format, attempts, 6]
    result = subprocess.run(list(map(str, program)), capture_output=True, text=True, check=False, timeout=1200)
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("everybody", [True, False], ids=["all processes", "only the first"])
@pytest.mark.parametrize("file_format", ["tfrecord", "png"])
def test_a_killed_export_with_workers_resumes_to_the_same_files(
    synthgen, tiny_checkpoint, tmp_path, file_format: str, everybody: bool
):
    """The first process alone may be killed too: what its workers still do then must do no harm."""
    arguments = ["export", "--checkpoint", tiny_checkpoint.path, "--count", 3000, "--shards", 6, "--workers", 2]
    arguments += ["--format", file_format, "--allow-unprotected", "--out"]
    assert synthgen(*arguments, tmp_path / "whole").returncode == 0
    for moment in range(3):
        out = tmp_path / f"killed-{moment}"
        command = [sys.executable, "-m", "synthgen", *map(str, arguments), str(out)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + 120
        while len(list(out.glob(f"{WORK_FOLDER}/shard-*"))) < 2 * moment and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        if everybody:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
        for name, data in content(out).items():
            assert data == (tmp_path / "whole" / name).read_bytes(), f"{name} bears a final name and is not whole"
        resumed = synthgen(*arguments, out, "--resume")
        assert resumed.returncode == 0, resumed.stderr
        assert content(out) == content(tmp_path / "whole")


TRAIN = """
import os, signal, sys
from pathlib import Path
from synthgen.model.recipe import load_recipe
from synthgen.training.adversarial import plan_training
from synthgen.training.run import train
data, out, limit, record, *overrides = sys.argv[1:]
plan = plan_training(load_recipe("smoke", overrides), Path(data), seed=3)
done = 0
def hook(event, arguments):
    global done
    touched = str(arguments[0]) if arguments and isinstance(arguments[0], (str, os.PathLike)) else ""
    if (event == "open" or event.startswith("os.")) and out in touched:
        done += 1
        if done == int(limit):
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
train(plan, Path(out), resume=record == "resume")
print(done)
"""


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_weights(tmp_path):
    from synthgen.model.checkpoint import load_checkpoint

    def train(out: Path, limit: int, how: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", TRAIN, DATA, out, limit, how, *SAMPLE]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)

    unbroken = train(tmp_path / "whole", 0, "anew")
    assert unbroken.returncode == 0, unbroken.stderr
    operations = int(unbroken.stdout.split()[-1])
    moments = np.random.default_rng(6).choice(np.arange(1, operations + 1), 10, replace=False)
    for moment in moments.tolist():
        out = tmp_path / f"killed-{moment}"
        assert train(out, moment, "anew").returncode == -9
        how = "resume" if (out / "training-state.npz").exists() else "anew"
        if how == "anew" and (out / "checkpoint.json").exists():  # killed after the last step: nothing is missing
            assert moment > operations * 0.8
        else:
            resumed = train(out, 0, how)
            assert resumed.returncode == 0, f"killed at {moment} of {operations}: {resumed.stderr[-1000:]}"
        assert load_checkpoint(out).sha256 == load_checkpoint(tmp_path / "whole").sha256


@pytest.fixture
def cheap(monkeypatch):
    """Pixels by numpy: what is tried is the writing."""
    monkeypatch.setattr("synthgen.model.sampling.loaded_generator", cheap_pixels)


@pytest.fixture
def export_cheaply(cheap, tiny_checkpoint):
    def export(out: Path, file_format: str, *, resume: bool = False, count: int = 600, **changes):
        plan = plan_export(tiny_checkpoint, count=count, file_format=file_format)
        return generate(tiny_checkpoint, plan, out, resume=resume, allow_unprotected=True, **changes)

    return export


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own with 160 KB of room, where the machine lets us have one."""
    place = tmp_path / "disk"
    place.mkdir()
    options = "size=160k,nr_inodes=3000"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("may not mount a small disk here; test_cli.py limits the size of files instead")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)


def refused(act, *words: str) -> None:
    with pytest.raises(ExportError) as refusal:
        act()
    assert "\n" not in str(refusal.value)
    assert "--resume" in str(refusal.value)
    assert any(word in str(refusal.value) for word in words), str(refusal.value)


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_full_disk(export_cheaply, small_disk, file_format: str):
    out = small_disk / "set"
    refused(lambda: export_cheaply(out, file_format), "No space left", "RESOURCE_EXHAUSTED", "no space")
    assert [path.name for path in out.iterdir()] == [WORK_FOLDER]
    remount(small_disk, "size=20m")
    export_cheaply(out, file_format, resume=True)
    assert verify(out).sound


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_full_disk_under_splits_names_the_folder_asked_for(cheap, tiny_checkpoint, small_disk, file_format: str):
    out = small_disk / "set"
    exports = plan_splits(tiny_checkpoint, "train=150,test=150", file_format=file_format)
    with pytest.raises(ExportError, match=f"^{out}: cannot be written: ") as refusal:
        generate_splits(tiny_checkpoint, exports, out, allow_unprotected=True)
    assert WORK_FOLDER not in str(refusal.value)
    assert "--resume" in str(refusal.value)
    remount(small_disk, "size=20m")
    generate_splits(tiny_checkpoint, exports, out, resume=True, allow_unprotected=True)
    assert verify(out).sound


def test_a_disk_that_turns_read_only_on_the_way(export_cheaply, small_disk):
    out = small_disk / "set"
    remount(small_disk, "size=20m")
    with contextlib.suppress(ExportError):
        export_cheaply(out, "png", progress=lambda images: subprocess.run(["mount", "-o", "remount,ro", small_disk]))
    remount(small_disk, "rw")
    export_cheaply(out, "png", resume=True)
    assert verify(out).sound


def test_a_read_only_folder(export_cheaply, small_disk):
    remount(small_disk, "ro")
    refused(lambda: export_cheaply(small_disk / "set", "npz"), "Read-only file system")


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_folder_that_vanishes(export_cheaply, tmp_path, file_format: str):
    out = tmp_path / "set"
    refused(lambda: export_cheaply(out, file_format, progress=lambda images: shutil.rmtree(out, True)), "No such file")
    export_cheaply(out, file_format, resume=True)
    assert verify(out).sound


@pytest.mark.parametrize("file_format", FORMATS)
def test_too_many_open_files(export_cheaply, tmp_path, file_format: str):
    import resource

    export_cheaply(tmp_path / "first", file_format, count=20)  # whatever is imported on the way is imported now
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    endings = []
    for spare in range(4):
        out = tmp_path / f"set-{spare}"
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + spare, limits[1]))
        try:
            export_cheaply(out, file_format, count=20)
        except ExportError as error:
            endings.append(str(error))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        export_cheaply(out, file_format, count=20, resume=True)
        assert verify(out).sound
    assert "Too many open files" in endings[0]
    assert not any("\n" in ending for ending in endings)
