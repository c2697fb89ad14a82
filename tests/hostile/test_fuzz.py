"""Forged files and folders by the thousand; see ``fuzz_forgeries``."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "fuzz_forgeries.py"


@pytest.mark.parametrize(
    ("inputs", "seed"), [(60, 0), *(pytest.param(5_000, seed, marks=pytest.mark.slow) for seed in (1, 2, 3, 4))]
)
def test_forgeries_are_refused_in_a_line_or_harmless(tiny_checkpoint, tmp_path, inputs: int, seed: int):
    command = [sys.executable, PROGRAM, tmp_path, tiny_checkpoint.path, str(inputs), str(seed)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "refused" in result.stdout
