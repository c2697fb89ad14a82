"""Ctrl-C at any moment: one line at most, exit code 130, no traceback; whole files only."""

import os
import signal
import subprocess
import sys
import time

import pytest
from support import DATA, SAMPLE

from synthgen.sets.verification import verify

# Begins as the installed ``synthgen`` does, and says when Python is up; before that an interrupt is Python's to handle.
START = "import os, sys, synthgen.__main__ as m; os.write(3, b'.'); sys.exit(m.main())"
TRAIN = ["train", "--recipe", "smoke", "--data", DATA, "--set", SAMPLE[0], "--out", "run"]

EXPORT = ["export", "--checkpoint", "conditional", "--allow-unprotected", "--count", "20000", "--workers", "2"]


@pytest.fixture
def interrupted(tmp_path):
    """Start a command and send SIGINT to all its processes; returns its exit code and error output."""

    def run(arguments: list[object], after: float, times: int = 1) -> tuple[int, str]:
        reading, writing = os.pipe()
        code = START.replace("write(3", f"write({writing}")
        command = [sys.executable, "-c", code, *map(str, arguments)]
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=[writing],
        )
        os.read(reading, 1)
        time.sleep(after)
        for _ in range(times):
            try:
                os.killpg(process.pid, signal.SIGINT)
            except ProcessLookupError:
                break
            time.sleep(0.02)
        _, errors = process.communicate(timeout=60)
        os.close(reading)
        os.close(writing)
        return process.returncode, errors

    return run


@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize(
    ("arguments", "after"),
    [
        (["--help"], 0.005),
        (["--help"], 0.06),
        (EXPORT, 0.1),
        (EXPORT, 0.6),
        (EXPORT, 0.9),
        (TRAIN, 0.3),
        pytest.param(TRAIN, 1.5, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_an_interrupt_is_a_line(interrupted, arguments, after: float, times: int):
    code, errors = interrupted(arguments, after, times)
    assert code in (130, -signal.SIGINT, 0)  # at the very end Python lets the signal end the process: a shell's 130
    assert "Traceback" not in errors
    assert "Error" not in errors
    assert code == 0 or arguments == TRAIN or errors.count("interrupted") <= 1


@pytest.mark.parametrize("module", ["typing", "tqdm", "typer", "numpy", "h5py", "synthgen.sets.verification"])
def test_an_interrupt_during_an_import_is_a_line(synthgen, export, tmp_path, module: str):
    """A module of that name is imported in which the signal arrives."""
    export(tmp_path / "set", count=60)
    code = (
        "import os, signal, sys, importlib.abc\n"
        "class Interrupting(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.modules.pop('typing', None)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from synthgen.__main__ import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, "verify", "set"]
    result = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, timeout=60, check=False)
    assert result.returncode == 130
    assert result.stderr in ("synthgen: interrupted\n", "synthgen: interrupted; what is finished is kept\n")


@pytest.mark.parametrize("command", ["verify", "evaluate"])
def test_an_interrupted_command_says_so(export, tmp_path, command: str):
    export(tmp_path / "set", count=60)
    where = {"verify": "synthgen.sets.verification.verify", "evaluate": "synthgen.sets.manifest.load_manifest"}[command]
    module, _, name = where.rpartition(".")
    code = (
        f"import os, signal, sys, {module} as m\n"
        f"m.{name} = lambda *a, **o: os.kill(os.getpid(), signal.SIGINT)\n"
        "from synthgen.__main__ import main; sys.exit(main())"
    )
    line = [sys.executable, "-c", code, command, "set"]
    result = subprocess.run(line, cwd=tmp_path, text=True, capture_output=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (130, "synthgen: interrupted; what is finished is kept\n")


def test_an_interrupt_in_a_destructor_ends_the_command(tmp_path):
    code = (
        "import os, signal, sys, synthgen.model.recipe as m\n"
        "class Dying:\n"
        "    def __del__(self): os.kill(os.getpid(), signal.SIGINT); [None for _ in range(9)]\n"
        "m.builtin_recipes = lambda: Dying() and []\n"
        "from synthgen.__main__ import main; sys.exit(main())"
    )
    line = [sys.executable, "-c", code, "recipes"]
    result = subprocess.run(line, cwd=tmp_path, text=True, capture_output=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (130, "synthgen: interrupted; what is finished is kept\n")


@pytest.mark.slow
def test_an_interrupted_export_can_be_resumed(interrupted, synthgen, tmp_path):
    arguments = ["export", "--checkpoint", "conditional", "--allow-unprotected", "--count", 3000, "--workers", 2]
    interrupted([*arguments, "--out", "set"], 0.7, 4)
    resumed = synthgen(*arguments, "--out", "set", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert verify(tmp_path / "set").sound
