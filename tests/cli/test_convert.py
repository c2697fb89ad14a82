"""``synthgen convert``."""

from pathlib import Path

from synthgen.model.checkpoint import load_checkpoint

FLOAT = Path(__file__).parents[1] / "golden" / "0.2.0" / "checkpoint"


def test_onnx_is_named_like_the_checkpoint_and_never_overwritten(synthgen, tmp_path):
    result = synthgen("convert", "private", "--to", "onnx")
    assert result.returncode == 0, result.stderr
    first, second, _ = result.stderr.splitlines()
    assert first == "wrote private.onnx"
    assert second == "from latents int8 (N, 48) and labels uint8 (N,) to images uint8 (N, 28, 28): docs/pixels.md"
    again = synthgen("convert", "private", "--to", "onnx")
    assert again.returncode == 2
    assert again.stderr == "synthgen: private.onnx: is there already; choose another --out, or remove it first\n"
    assert [path.name for path in tmp_path.iterdir()] == ["private.onnx"]


def test_a_float_checkpoint_is_rounded_and_exports(synthgen, tmp_path):
    refused = synthgen("convert", FLOAT, "--to", "onnx")
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert "--to integers" in refused.stderr
    result = synthgen("convert", FLOAT, "--to", "integers", "--out", "rounded")
    assert result.returncode == 0, result.stderr
    assert load_checkpoint(tmp_path / "rounded").exact
    assert "next: synthgen export --checkpoint rounded --count 60000 --allow-unprotected" in result.stderr
    options = ["--count", 20, "--format", "npz", "--allow-unprotected", "--backend", "numpy"]
    assert synthgen("export", "--checkpoint", "rounded", *options).returncode == 0
    assert "exact integers" in synthgen("info", "rounded").stdout


def test_keras_says_how_far_its_pixels_are_and_tensorflow_says_nothing(synthgen, tmp_path):
    result = synthgen("convert", "private", "--to", "keras", "--out", "generator.keras")
    assert result.returncode == 0, result.stderr
    assert [line.split()[0] for line in result.stderr.splitlines()] == ["wrote", "from", "latents", "its"]
    assert "by a grey level or two on average" in result.stderr
    assert (tmp_path / "generator.keras").is_file()
