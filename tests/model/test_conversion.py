import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import synthgen
from synthgen.errors import CheckpointError, UsageError
from synthgen.model import conversion
from synthgen.model.checkpoint import Checkpoint, load_checkpoint
from synthgen.pixels.latents import latents

FLOAT = Path(__file__).parents[1] / "golden" / "0.2.0" / "checkpoint"
COUNT = 300


@pytest.fixture(params=["tiny", "unlabelled", "private"])
def exact(request, tiny_checkpoint: Checkpoint, unlabelled_checkpoint: Checkpoint) -> Checkpoint:
    ours = {"tiny": tiny_checkpoint, "unlabelled": unlabelled_checkpoint}
    return ours.get(request.param) or load_checkpoint(request.param)


def inputs(checkpoint: Checkpoint) -> tuple[np.ndarray, np.ndarray | None]:
    """300 latents, and as many labels where there are classes."""
    latent = checkpoint.recipe.latent
    noise = np.concatenate([latents(7, block, latent.size, latent.distribution) for block in (0, 1)])[:COUNT]
    return noise, (np.arange(COUNT) % 10).astype(np.uint8) if checkpoint.recipe.conditional else None


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_onnx_file_draws_the_same_bytes_in_batches_of_any_size(exact, tmp_path):
    written = synthgen.convert(exact, "onnx", tmp_path / "generator.onnx")
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    noise, labels = inputs(exact)
    expected = exact.generator("numpy")(noise, labels).tobytes()
    feeds = {"latents": noise} if labels is None else {"latents": noise, "labels": labels}
    for size in (1, 7, COUNT):
        drawn = [
            session.run(["images"], {name: array[first : first + size] for name, array in feeds.items()})[0]
            for first in range(0, COUNT, size)
        ]
        assert np.concatenate(drawn).tobytes() == expected
    assert left_in(tmp_path) == ["generator.onnx"]


def test_an_onnx_file_says_what_it_is(exact, tmp_path):
    model = onnx.load(synthgen.convert(exact, "onnx", tmp_path / "generator.onnx"))
    said = {prop.key: prop.value for prop in model.metadata_props}
    latent = exact.recipe.latent
    assert said["checkpoint"] == exact.name
    assert said["sha256"] == exact.sha256
    assert said["privacy"] == exact.privacy.sentence
    scale = {"gaussian": "32", "uniform": "128"}[latent.distribution]
    assert (said["latent_distribution"], said["latent_scale"]) == (latent.distribution, scale)
    assert said["definition"] == "docs/pixels.md"
    shapes = {value.name: value.type.tensor_type for value in [*model.graph.input, *model.graph.output]}
    types = {name: onnx.helper.tensor_dtype_to_np_dtype(shape.elem_type) for name, shape in shapes.items()}
    labels = {"labels": np.uint8} if exact.recipe.conditional else {}
    assert types == {"latents": np.int8, **labels, "images": np.uint8}
    assert shapes["latents"].shape.dim[1].dim_value == latent.size


def test_an_onnx_file_that_draws_other_images_is_not_published(tiny_checkpoint, tmp_path, monkeypatch):
    black = np.zeros((256, 28, 28), np.uint8)
    monkeypatch.setattr(conversion, "open_backend", lambda *_: lambda noise, labels: black)
    with pytest.raises(CheckpointError, match="draws other images"):
        synthgen.convert(tiny_checkpoint, "onnx", tmp_path / "generator.onnx")
    assert not left_in(tmp_path)


@pytest.mark.parametrize("name", ["private", "conditional"])
def test_a_keras_file_draws_nearly_the_same_and_needs_no_synthgen(tmp_path, name: str):
    import keras

    checkpoint = load_checkpoint(name)
    written = synthgen.convert(checkpoint, "keras", tmp_path / "generator.keras")
    with zipfile.ZipFile(written) as archive:
        assert b"synthgen" not in archive.read("config.json")
    model = keras.saving.load_model(written)
    noise, labels = inputs(checkpoint)
    drawn = model.predict([noise / np.float32(32), np.eye(10, dtype=np.float32)[labels]], verbose=0)[..., 0]
    apart = np.abs(255 * drawn - checkpoint.generator()(noise, labels))
    assert apart.mean() < 2  # grey levels: "by a grey level or two on average"
    assert np.quantile(apart, 0.99) < 12


def test_a_keras_file_of_float_weights_is_the_generator(tmp_path):
    import keras

    checkpoint = load_checkpoint(FLOAT)
    model = keras.saving.load_model(synthgen.convert(checkpoint, "keras", tmp_path / "generator.keras"))
    noise, labels = inputs(checkpoint)
    real = noise.astype(np.float32) / 32
    drawn = model.predict([real, np.eye(10, dtype=np.float32)[labels]], verbose=0)[..., 0]
    assert np.abs(255 * drawn - checkpoint.generator()(real, labels)).max() < 0.51


def test_a_float_checkpoint_becomes_an_exact_one(tmp_path):
    source = load_checkpoint(FLOAT)
    made = load_checkpoint(synthgen.convert(source, "integers", tmp_path / "rounded"))
    assert made.exact
    assert (made.recipe, made.privacy) == (source.recipe, source.privacy)
    assert made.training == {**source.training, "rounded_from": source.sha256}
    noise, labels = inputs(source)
    float_images = source.generator()(noise.astype(np.float32) / 32, labels)
    assert np.abs(made.generator()(noise, labels).astype(int) - float_images).mean() < 2
    assert left_in(tmp_path) == ["rounded"]
    assert left_in(tmp_path / "rounded") == ["checkpoint.json", "generator.h5"]
    assert (tmp_path / "rounded").stat().st_mode & 0o777 == 0o777 & ~umask()


def umask() -> int:
    import os

    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_picture_of_samples_goes_along_but_no_link_does(tmp_path):
    source = shutil.copytree(FLOAT, tmp_path / "float")
    (source / "samples.png").write_bytes(b"a picture")
    synthgen.convert(load_checkpoint(source), "integers", tmp_path / "first")
    assert (tmp_path / "first" / "samples.png").read_bytes() == b"a picture"
    (tmp_path / "secret").write_bytes(b"secret")
    (source / "samples.png").unlink()
    (source / "samples.png").symlink_to(tmp_path / "secret")
    synthgen.convert(load_checkpoint(source), "integers", tmp_path / "second")
    assert not (tmp_path / "second" / "samples.png").exists()


@pytest.mark.parametrize(
    ("source", "to", "out", "words"),
    [
        ("private", "tflite", "x", "to 'tflite': expected onnx, keras or integers"),
        ("private", "integers", "x", "holds integers already"),
        (FLOAT, "onnx", "x.onnx", "holds float32 weights.*synthgen convert CHECKPOINT --to integers"),
        ("private", "keras", "x.h5", "names end in .keras; choose such an --out"),
        ("private", "onnx", "no/x.onnx", "there is no folder .*no; make it first"),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(tmp_path, source, to: str, out: str, words: str):
    with pytest.raises(UsageError, match=words) as refused:
        synthgen.convert(load_checkpoint(source), to, tmp_path / out)
    assert "\n" not in str(refused.value)
    assert not left_in(tmp_path)


@pytest.mark.parametrize(("to", "name"), [("onnx", "x.onnx"), ("keras", "x.keras"), ("integers", "x")])
@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_nothing_is_overwritten(tmp_path, tiny_checkpoint, to: str, name: str, kind: str):
    out = tmp_path / name
    if kind == "file":
        out.write_text("mine")
    elif kind == "folder":
        out.mkdir()
    else:
        out.symlink_to(tmp_path / "elsewhere")
    source = load_checkpoint(FLOAT) if to == "integers" else tiny_checkpoint
    with pytest.raises(UsageError, match="is there already; choose another --out, or remove it first"):
        synthgen.convert(source, to, out)
    assert left_in(tmp_path) == [name]
    assert kind != "file" or out.read_text() == "mine"


def test_weights_that_cannot_be_rounded_leave_no_folder(tmp_path, monkeypatch):
    def refuse(*_) -> None:
        raise CheckpointError("no finite numbers")

    monkeypatch.setattr(conversion, "save_integers", refuse)
    with pytest.raises(CheckpointError):
        synthgen.convert(load_checkpoint(FLOAT), "integers", tmp_path / "rounded")
    assert not left_in(tmp_path)


def test_a_rounded_checkpoint_exports_and_says_where_it_comes_from(tmp_path):
    source = load_checkpoint(FLOAT)
    made = load_checkpoint(synthgen.convert(source, "integers", tmp_path / "rounded"))
    plan = synthgen.plan_export(made, count=20, file_format="npz")
    manifest = synthgen.generate(made, plan, tmp_path / "set", allow_unprotected=True)
    assert manifest.checkpoint.arithmetic == "integers"
    assert synthgen.verify(tmp_path / "set", regenerate=20, checkpoint=made).sound
    assert (
        json.loads((tmp_path / "rounded" / "checkpoint.json").read_text())["training"]["rounded_from"] == source.sha256
    )
