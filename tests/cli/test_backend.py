"""``--backend`` and ``--device`` of export and verify."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from synthgen.cli.app import app
from synthgen.cli.backend import chosen_backend
from synthgen.errors import UsageError
from synthgen.export.engine import default_workers as export_workers
from synthgen.model.checkpoint import load_checkpoint
from synthgen.sets.manifest import load_manifest
from synthgen.sets.verification import default_workers as verify_workers
from synthgen.workers import available_cpus

FLOAT = Path(__file__).parents[1] / "golden" / "0.2.0" / "checkpoint"
EXPORT = ["export", "--count", 300, "--format", "npz", "--out", "set"]


def test_a_device_means_tensorflow():
    assert chosen_backend("auto", None) == "auto"
    assert chosen_backend("numpy", None) == "numpy"
    assert chosen_backend("auto", "gpu") == "tensorflow:gpu"
    assert chosen_backend("tensorflow", "gpu:1") == "tensorflow:gpu:1"
    with pytest.raises(UsageError, match="--device cpu: goes with --backend tensorflow, not numpy"):
        chosen_backend("numpy", "cpu")


def test_a_set_is_drawn_with_one_backend_and_verified_with_the_others(synthgen, tmp_path):
    drawn = synthgen(*EXPORT, "--device", "cpu")
    assert drawn.returncode == 0, drawn.stderr
    assert [line.split()[0] for line in drawn.stderr.splitlines()] == ["drawing", "300", "Differentially"]
    assert load_manifest(tmp_path / "set").made_with["backend"].startswith("tensorflow 2.")
    assert load_manifest(tmp_path / "set").made_with["backend"].endswith(" on cpu")
    assert 'drawn with    "tensorflow 2.' in synthgen("info", "set").stdout
    for backend in ("numpy", "onnxruntime", "tensorflow"):
        verified = synthgen("verify", "set", "--regenerate", 100, "--backend", backend)
        assert verified.returncode == 0, verified.stderr
        assert "100 drawn anew and equal" in verified.stdout
        assert not verified.stderr


def refusal(*arguments: object) -> str:
    """The line that ends a command."""
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert isinstance(result.exception, UsageError), result.output
    assert "\n" not in str(result.exception)
    assert not result.output
    return str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--backend", "jax"], "backend 'jax': expected auto, numpy, onnxruntime or tensorflow"),
        (["--backend", "numpy", "--device", "gpu"], "--device gpu: goes with --backend tensorflow, not numpy"),
        (["--device", ""], "backend 'tensorflow:': expected auto"),
        (["--device", "gpu", "--workers", 2], "backend 'tensorflow:gpu': one process draws on a GPU"),
        (["--backend", "tensorflow", "--engine", "ray"], "backend 'tensorflow': one process draws on a GPU"),
        (["--checkpoint", FLOAT, "--allow-unprotected", "--backend", "onnxruntime"], "holds float32 weights"),
    ],
)
def test_export_refuses_and_leaves_nothing(tmp_path, monkeypatch, arguments, words: str):
    monkeypatch.chdir(tmp_path)
    assert words in refusal(*EXPORT, *arguments)
    assert not list(tmp_path.iterdir())


def test_a_device_that_is_not_there_is_one_line_and_tensorflow_says_nothing(synthgen, tmp_path):
    result = synthgen(*EXPORT, "--device", "gpu:7")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "device 'gpu:7': TensorFlow finds only " in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--backend", "numpy"], "give --regenerate N too"),
        (["--regenerate", 5, "--files-only"], "goes without files_only"),
        (["--regenerate", 5, "--device", "gpu", "--workers", 2], "one process draws on a GPU"),
        (["--regenerate", 5, "--device", "gpu:7"], "device 'gpu:7': TensorFlow finds only "),
        (["--regenerate", 5, "--backend", "jax"], "backend 'jax'"),
    ],
)
def test_verify_refuses(export, tmp_path, tiny_checkpoint, arguments, words: str):
    export(tmp_path / "set", count=20)
    assert words in refusal("verify", tmp_path / "set", "--checkpoint", tiny_checkpoint.path, *arguments)


def test_float_checkpoints_are_drawn_by_numpy_alone(export, tmp_path):
    export(tmp_path / "set", count=20, checkpoint=load_checkpoint(FLOAT))
    arguments = ["verify", tmp_path / "set", "--checkpoint", FLOAT, "--regenerate", 5]
    assert "float32 weights, which only numpy draws" in refusal(*arguments, "--backend", "tensorflow")
    assert CliRunner().invoke(app, list(map(str, [*arguments, "--backend", "numpy"]))).exit_code == 0


def test_tensorflow_draws_in_one_process_unless_told_otherwise():
    many = 10**7
    for backend in ("tensorflow", "tensorflow:cpu", "tensorflow:gpu:1"):
        assert export_workers(many, backend) == verify_workers(many, "npz", False, many, backend) == 1
    assert verify_workers(many, "npz", False, 0, "tensorflow") == verify_workers(many, "npz")
    assert export_workers(many) == min(8, available_cpus())
