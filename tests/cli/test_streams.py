"""Closed, full and broken standard streams: what is being made is made all the same."""

import os
import subprocess
import sys

import pytest

from synthgen.sets.verification import verify

COMMAND = f"{sys.executable} -m synthgen"


@pytest.fixture
def shell(tmp_path):
    """Run a line of the shell in an empty folder."""

    def run(line: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", "-c", line.replace("synthgen", COMMAND)]
        return subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, timeout=100, check=False)

    return run


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_a_sound_set_is_sound_whatever_is_closed(shell, export, tmp_path, closed: str):
    export(tmp_path / "set", count=60)
    result = shell(f"synthgen verify set {closed}")
    assert result.returncode == 0, result.stderr
    assert ("sound: 60 images" in result.stdout) == (">&-" not in closed.replace("2>&-", ""))


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_an_export_is_whole_without_streams(shell, tiny_checkpoint, tmp_path, closed: str):
    options = f"--checkpoint {tiny_checkpoint.path} --count 600 --shards 2 --workers 2 --allow-unprotected --json"
    result = shell(f"synthgen export {options} --out set {closed}")
    assert result.returncode == 0, result.stderr
    assert verify(tmp_path / "set").sound


@pytest.mark.parametrize(
    ("end", "exit_code", "words"),
    [("| head -n 1; exit ${PIPESTATUS[0]}", 141, ""), ("> /dev/full", 1, "standard output: No space left on device")],
)
def test_an_export_whose_lines_nobody_takes_is_whole(shell, tiny_checkpoint, tmp_path, end: str, exit_code, words: str):
    options = f"--checkpoint {tiny_checkpoint.path} --count 2000 --shards 7 --workers 1 --allow-unprotected --json"
    result = shell(f"synthgen export {options} --out set {end}")
    assert result.returncode == exit_code
    assert words in result.stderr.splitlines()[-1]
    assert "cannot be written" not in result.stderr
    assert "mend" not in result.stderr
    assert verify(tmp_path / "set").sound


def test_a_broken_pipe_is_quiet(synthgen, shell):
    for arguments in ("--help", "recipes", "info conditional"):
        reading, writing = os.pipe()
        os.close(reading)
        command = [*COMMAND.split(), *arguments.split()]
        result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
        os.close(writing)
        assert (result.returncode, result.stderr) == (141, "")
    assert shell("synthgen recipes > /dev/full").stderr.count("\n") == 1


def test_an_ascii_terminal_shows_everything(synthgen, export, tmp_path):
    export(tmp_path / "set", count=60)
    (tmp_path / "Kühe").symlink_to("set")
    result = synthgen("verify", "Kühe", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert result.returncode == 0
    assert result.stdout.startswith("K\\xfche: sound")
