"""The examples run, and read every format."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import DATA

from synthgen.formats.table import FORMATS
from synthgen.sets.manifest import load_manifest
from synthgen.sets.reading import read_set

PROGRAM = Path(__file__).parents[2] / "examples" / "train_classifier.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("train_classifier", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_classifier_reads_every_format(example, export, tmp_path, file_format: str):
    export(tmp_path / "set", count=40, file_format=file_format, split="test")
    images, labels = example.LOADERS[file_format](tmp_path / "set", "test")
    (batch,) = read_set(tmp_path / "set", load_manifest(tmp_path / "set"))
    order = np.argsort(batch.labels, kind="stable") if file_format == "png" else slice(None)
    np.testing.assert_array_equal(images, batch.images[order])
    np.testing.assert_array_equal(labels, batch.labels[order])


def test_the_classifier_prints_its_accuracy_on_real_images(export, tmp_path):
    export(tmp_path / "set", count=256)
    command = [sys.executable, PROGRAM, tmp_path / "set", "--epochs", "1", "--data", DATA, "--allow-unofficial"]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "trained on 256 synthetic images, tested on 100 real ones: " in result.stdout.splitlines()[-1]
