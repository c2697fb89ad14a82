"""Conversion: a checkpoint's generator as a file for other programs, or a float checkpoint rounded to integers."""

import contextlib
import shutil
import tempfile
from pathlib import Path

import numpy as np

from synthgen.errors import CheckpointError, UsageError
from synthgen.files import publish, publish_folder
from synthgen.index import BLOCK_IMAGES
from synthgen.model.checkpoint import SAMPLES_NAME, Checkpoint, rounded, save_integers
from synthgen.pixels.backends import expect_backend, open_backend
from synthgen.pixels.latents import latents
from synthgen.pixels.tables import LATENT_SCALES
from synthgen.untrusted.files import read_file

ONNX, KERAS, INTEGERS = TARGETS = ("onnx", "keras", "integers")
_ENDINGS = {ONNX: ".onnx", KERAS: ".keras", INTEGERS: "-integers"}  # of the default names
_MAX_SAMPLES_BYTES = 16 << 20  # 16 MiB


def convert(checkpoint: Checkpoint, to: str, out: str | Path | None = None) -> Path:
    """Write a checkpoint's generator in another form; nothing is overwritten, and what is not whole is not there.

    Args:
        checkpoint: see ``synthgen.load_checkpoint``.
        to: ``onnx``: one file for onnxruntime, exact: from ``latents`` int8 (N, size) and, for a conditional generator,
            ``labels`` uint8 (N,) to ``images`` uint8 (N, 28, 28), as docs/pixels.md defines them.
            ``keras``: one file of ``Checkpoint.keras_model()``, in Keras's own layers.
            ``integers``: a float checkpoint of synthgen 0.1 or 0.2, rounded, as the folder of an exact one.
        out: the file or folder; by default named like the checkpoint, in the current folder.

    Returns:
        ``out``.

    Raises:
        UsageError: there is no such form, or not of this checkpoint; ``out`` is there already, has no folder, or has
            not the ending that Keras needs.
        CheckpointError: the weights do not fit the recipe, or are no finite numbers; or onnxruntime draws other images
            from the file than numpy.
    """
    if to not in TARGETS:
        raise UsageError(f"to '{to:.80}': expected {', '.join(TARGETS[:-1])} or {TARGETS[-1]}")
    out = Path(f"{checkpoint.name}{_ENDINGS[to]}" if out is None else out)
    _expect_convertible(checkpoint, to)
    _expect_free(out, to)
    if to == INTEGERS:
        _write_integers(checkpoint, out)
        return out
    with publish(out) as partial:
        if to == ONNX:
            _write_onnx(checkpoint, partial)
        else:
            _write_keras(checkpoint, partial)
        _expect_free(out, to)  # still
    return out


def _expect_convertible(checkpoint: Checkpoint, to: str) -> None:
    if to == ONNX:
        if not checkpoint.exact:
            raise UsageError(
                f"{checkpoint.path}: holds float32 weights, and an ONNX file is exact; round them first: "
                "synthgen convert CHECKPOINT --to integers"
            )
        expect_backend("onnxruntime")
    if to == INTEGERS and checkpoint.exact:
        raise UsageError(f"{checkpoint.path}: holds integers already; export from it as it is")


def _expect_free(out: Path, to: str) -> None:
    if to == KERAS and out.suffix != ".keras":
        raise UsageError(f"{out}: Keras reads only files whose names end in .keras; choose such an --out")
    if out.exists() or out.is_symlink():
        raise UsageError(f"{out}: is there already; choose another --out, or remove it first")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"{out}: there is no folder {out.parent}; make it first")


def _write_onnx(checkpoint: Checkpoint, path: Path) -> None:
    import onnx

    from synthgen.pixels.graph import onnx_model

    model, latent = onnx_model(checkpoint.integers()), checkpoint.recipe.latent
    about = {
        "checkpoint": checkpoint.name,
        "sha256": checkpoint.sha256,
        "latent_distribution": latent.distribution,
        "latent_scale": str(LATENT_SCALES[latent.distribution]),
        "privacy": checkpoint.privacy.sentence,
        "trained_on": checkpoint.privacy.trained_on,
        "definition": "docs/pixels.md",
    }
    onnx.helper.set_model_props(model, about)
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, path)
    _expect_same_images(checkpoint, path)


def _expect_same_images(checkpoint: Checkpoint, path: Path) -> None:
    """Raise CheckpointError unless onnxruntime draws a block from an ONNX file as numpy does from the checkpoint."""
    import onnxruntime

    latent = checkpoint.recipe.latent
    noise = latents(0, 0, latent.size, latent.distribution)
    labels = checkpoint.recipe.balanced_labels(BLOCK_IMAGES)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (images,) = session.run(None, {"latents": noise} | ({} if labels is None else {"labels": labels}))
    if not np.array_equal(images, open_backend(checkpoint.integers(), "numpy")(noise, labels)):
        raise CheckpointError(
            f"{checkpoint.path}: onnxruntime {onnxruntime.__version__} draws other images from it than numpy; "
            "use another version of onnxruntime, and report it"
        )


def _write_keras(checkpoint: Checkpoint, path: Path) -> None:
    model = checkpoint.keras_model()
    from synthgen.model.networks import in_keras_layers

    with tempfile.TemporaryDirectory() as folder:
        named = Path(folder) / "generator.keras"  # Keras insists on the ending
        in_keras_layers(model).save(named)
        shutil.copyfile(named, path)


def _write_integers(checkpoint: Checkpoint, out: Path) -> None:
    integers = rounded(checkpoint.recipe, checkpoint.arrays)
    training = {**checkpoint.training, "rounded_from": checkpoint.sha256}
    with publish_folder(out) as partial:
        save_integers(partial, integers, checkpoint.recipe, checkpoint.privacy, training)
        with contextlib.suppress(OSError, ValueError):  # no picture, or a link, which could bring in any file
            (partial / SAMPLES_NAME).write_bytes(read_file(checkpoint.path / SAMPLES_NAME, _MAX_SAMPLES_BYTES))
        _expect_free(out, INTEGERS)  # still
