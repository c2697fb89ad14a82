"""What the README shows is run, at a smaller size, in the order it stands."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support import DATA
from typer.testing import CliRunner

from synthgen.cli.app import app
from synthgen.errors import DataError
from synthgen.real_images import load_real_images

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
SMALLER = [("train=60000,test=10000", "train=600,test=100"), ("--count 60000", "--count 600"),
           ("--count 10000", "--count 300"), ("--count 3000", "--count 300"),
           ("--regenerate 1000", "--regenerate 10"), ("--recipe private --epsilon 1", "--recipe smoke"),
           ("--recipe notebook --set training.epochs=2", "--recipe smoke --set training.epochs=1"),
           ("evaluate hdf5-set", f"evaluate hdf5-set --data {DATA} --allow-unofficial")]  # fmt: skip


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("console") for line in block.splitlines()]
    return [line for line in lines if line.startswith("synthgen ")]


@pytest.fixture(scope="module")
def real_data():
    try:
        load_real_images("test")
    except DataError as error:
        pytest.skip(f"needs the whole of Fashion-MNIST: {error}")


def test_the_commands_run(real_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(commands()) >= 9
    for command in commands():
        for large, small in SMALLER:
            command = command.replace(large, small)
        result = CliRunner().invoke(app, shlex.split(command)[1:])
        assert result.exit_code == 0, f"{command}\n{result.output}{result.exception!r}"


def test_the_programs_run(real_data, synthgen, tmp_path):
    assert synthgen("export", "--count", 2560).returncode == 0
    for program in blocks("python"):
        code = program.replace("epochs=3", "epochs=1")
        result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr


def test_no_number_is_missing():
    assert "@@" not in README


def test_every_make_target_is_known():
    makefile = (Path(__file__).parents[1] / "Makefile").read_text("utf-8")
    named = {line.split()[1] for block in blocks("console") for line in block.splitlines() if line.startswith("make ")}
    assert named
    assert named <= set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
