"""The generators that draw, in numpy, beside the one that was trained, in Keras."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from support import save_floats

from synthgen.environment import float_drawn_with
from synthgen.errors import CheckpointError, UsageError
from synthgen.index import float_latents
from synthgen.model.checkpoint import Checkpoint, load_checkpoint, rounded, save_checkpoint
from synthgen.model.networks import build_generator, pixel_function
from synthgen.model.recipe import Recipe, load_recipe
from synthgen.pixels.drawing import FloatBackend
from synthgen.pixels.folded import fold
from synthgen.pixels.latents import latents
from synthgen.pixels.tables import LATENT_SCALES
from synthgen.privacy.statement import no_guarantee

SMALL = ["latent.size=8", "generator.stem_filters=5", "generator.filters=[6, 3]"]
GOLDEN = Path(__file__).parents[1] / "golden"


def with_random_weights(recipe: Recipe):
    """A model none of whose weights, batch norm's statistics included, is what it is at the start."""
    model = build_generator(recipe)
    random = np.random.default_rng(0)
    for variable in model.weights:
        low, high = (0.5, 2.0) if "variance" in variable.path else (-1.0, 1.0)
        variable.assign(random.uniform(low, high, variable.shape))
    return model


def inputs(checkpoint: Checkpoint, count: int = 256):
    recipe, draw = checkpoint.recipe, latents if checkpoint.exact else float_latents
    labels = np.arange(count, dtype=np.uint8) % 10 if recipe.conditional else None
    return draw(3, 0, recipe.latent.size, recipe.latent.distribution)[:count], labels


def assert_draws_like_keras(checkpoint: Checkpoint, contrast: float = 5) -> None:
    noise, labels = inputs(checkpoint)
    theirs = pixel_function(checkpoint.keras_model(), checkpoint.recipe, len(noise))(noise, labels).astype(int)
    gap = np.abs(checkpoint.generator()(noise, labels) - theirs)
    assert theirs.std() > contrast  # a comparison of grey with grey would prove nothing
    assert gap.max() <= 1
    assert (gap > 0).mean() < 1e-4


@pytest.mark.parametrize("release", ["0.1.0", "0.2.0"])
def test_float_checkpoints_of_earlier_releases(release: str):
    """Untrained, they draw little but grey."""
    assert_draws_like_keras(load_checkpoint(GOLDEN / release / "checkpoint"), contrast=1)


@pytest.mark.parametrize("size", range(1, 8))
@pytest.mark.parametrize("name", ["notebook", "conditional"])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_every_kind_of_generator(tmp_path, name: str, size: int, batch_norm: bool):
    more = [f"generator.kernel_size={size}", f"generator.batch_norm={str(batch_norm).lower()}"]
    recipe = load_recipe(name, [*SMALL, *more])
    model = with_random_weights(recipe)
    assert_draws_like_keras(save_floats(tmp_path / "floats", model, recipe))
    assert_draws_nearly_like(model, rounded_to(tmp_path / "rounded", model, recipe), 0.1)


def rounded_to(path: Path, model, recipe: Recipe) -> Checkpoint:
    return save_checkpoint(path, model, recipe, no_guarantee("nothing: untrained"), {})


def assert_draws_nearly_like(model, checkpoint: Checkpoint, share: float) -> None:
    """A pixel's mean error is a small share of the contrast; layers put together wrongly err by all of it."""
    noise, labels = inputs(checkpoint)
    real = noise / np.float32(LATENT_SCALES[checkpoint.recipe.latent.distribution])
    theirs = pixel_function(model, checkpoint.recipe, len(noise))(real, labels).astype(int)
    gap = np.abs(checkpoint.generator()(noise, labels) - theirs)
    assert theirs.std() > 5
    assert gap.mean() < share * theirs.std()


@pytest.mark.parametrize("name", ["conditional", "private", "private-eps1"])
def test_the_keras_model_of_a_shipped_checkpoint_draws_nearly_what_its_integers_draw(name: str):
    checkpoint = load_checkpoint(name)
    assert_draws_nearly_like(checkpoint.keras_model(), checkpoint, 0.03)


@pytest.mark.parametrize("name", ["notebook", "conditional"])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_the_keras_model_of_integers_draws_nearly_what_they_draw(tmp_path, name: str, batch_norm: bool):
    recipe = load_recipe(name, [*SMALL, f"generator.batch_norm={str(batch_norm).lower()}"])
    checkpoint = rounded_to(tmp_path / "rounded", with_random_weights(recipe), recipe)
    assert_draws_nearly_like(checkpoint.keras_model(), checkpoint, 0.06)


@pytest.fixture(params=["exact", "float"])
def either(request, tiny_checkpoint, float_checkpoint) -> Checkpoint:
    return tiny_checkpoint if request.param == "exact" else float_checkpoint


def test_a_pixel_depends_on_its_own_latent_alone(either):
    draw = either.generator()
    noise, labels = inputs(either)
    before = draw(noise, labels)
    np.testing.assert_array_equal(draw(noise[:1], labels[:1]), before[:1])
    noise[1:] = 0
    np.testing.assert_array_equal(draw(noise, labels)[0], before[0])
    assert (before.dtype, before.shape) == (np.uint8, (256, 28, 28))


def test_threads_that_draw_at_once_do_not_disturb_each_other(either):
    draw = either.generator()
    noise, labels = inputs(either)
    turns = [np.roll(noise, shift, axis=0) for shift in range(8)]
    alone = [draw(turn, labels) for turn in turns]
    with ThreadPoolExecutor(4) as threads:
        for images, expected in zip(threads.map(lambda turn: draw(turn, labels), turns), alone, strict=True):
            np.testing.assert_array_equal(images, expected)


@pytest.mark.parametrize("name", ["smoke", "notebook"])
def test_the_number_of_threads_changes_no_pixel_of_floats(tmp_path, name: str):
    """The notebook's products are large enough for the library to share them out."""
    recipe = load_recipe(name)
    checkpoint = save_floats(tmp_path / "random", with_random_weights(recipe), recipe)
    code = (
        "import hashlib, sys, synthgen; from synthgen.model.sampling import Sampler;"
        "sampler = Sampler.of(synthgen.load_checkpoint(sys.argv[1]));"
        "print(hashlib.sha256(sampler(3)[0].tobytes()).hexdigest())"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code, checkpoint.path],
            env={"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2", "4")
    }
    assert len(told) == 1


def fold_to_infinity(arrays) -> None:
    arrays["/layers/dense/vars/0"][:] = 1
    arrays["/layers/batch_normalization/vars/0"][:] = 3e38
    arrays["/layers/batch_normalization/vars/3"][:] = 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda arrays: arrays.pop("/layers/dense/vars/0"), "'/layers/dense/vars/0' is missing"),
        (lambda arrays: arrays.update({"/layers/lambda/vars/0": np.zeros(1)}), "belongs to no layer"),
        (lambda arrays: arrays["/layers/dense/vars/0"].__setitem__((0, 0), np.nan), "no finite numbers"),
        (lambda arrays: arrays["/layers/batch_normalization/vars/3"].__setitem__(0, -1), "variance is negative"),
        (lambda arrays: fold_to_infinity(arrays), "no finite numbers"),
        (lambda arrays: arrays.update({"/layers/dense/vars/0": np.zeros((3, 3))}), r"has shape \(3, 3\); expected"),
    ],
)
def test_weights_that_cannot_be_drawn_from_are_refused(float_checkpoint, change, reason: str):
    arrays = {name: array.copy() for name, array in float_checkpoint.arrays.items()}
    FloatBackend(fold(float_checkpoint.recipe.shape, arrays))
    change(arrays)
    with pytest.raises(ValueError, match=reason):
        fold(float_checkpoint.recipe.shape, arrays)
    with pytest.raises(CheckpointError, match=reason):  # whether to draw with them or to round them
        replace(float_checkpoint, arrays=arrays).generator()
    with pytest.raises(CheckpointError, match=reason):
        rounded(float_checkpoint.recipe, arrays)


def test_weights_that_change_after_loading_draw_nothing(tmp_path, either):
    checkpoint = load_checkpoint(shutil.copytree(either.path, tmp_path / "copy"))
    expected = checkpoint.generator()(*inputs(checkpoint))
    model = checkpoint.keras_model()
    with h5py.File(checkpoint.weights_path, "r+") as file:
        file["dense/weights" if checkpoint.exact else "layers/dense/vars/0"][0, 0] += 1
    np.testing.assert_array_equal(checkpoint.generator()(*inputs(checkpoint)), expected)  # what was hashed
    if checkpoint.exact:  # the model is made of what was hashed, too
        for before, after in zip(model.get_weights(), checkpoint.keras_model().get_weights(), strict=True):
            np.testing.assert_array_equal(before, after)
    else:
        with pytest.raises(CheckpointError, match="changed while it was read"):
            checkpoint.keras_model()


def test_weights_too_large_to_compute_with_give_no_black_images(tmp_path, tiny_recipe):
    model = build_generator(tiny_recipe)
    for variable in model.weights:
        variable.assign(np.full(variable.shape, 1e30 if "kernel" in variable.path else 1.0, np.float32))
    checkpoint = save_floats(tmp_path / "huge", model, tiny_recipe)
    with pytest.raises(CheckpointError, match="no numbers"):
        checkpoint.generator()(*inputs(checkpoint))
    with pytest.raises(CheckpointError, match="cannot be rounded to integers: the weights are so large"):
        rounded_to(tmp_path / "rounded", model, tiny_recipe)
    assert not (tmp_path / "rounded").exists()


@pytest.mark.parametrize(
    ("latents_shape", "labels", "reason"),
    [
        ((3, 1), [0, 1, 2], r"latents of shape \(3, 1\): expected \(N, \d+\)"),
        ((3, None), [0], r"labels of shape \(1,\): expected \(3,\)"),
        ((3, None), [0, 1, 10], "labels from 0 to 10: expected 0 to 9"),
        ((3, None), None, "labels missing: expected a label for each image"),
    ],
)
def test_inputs_that_cannot_be_are_refused(either, latents_shape, labels, reason: str):
    kind = np.int8 if either.exact else np.float32
    noise = np.zeros([size or either.recipe.latent.size for size in latents_shape], kind)
    with pytest.raises(UsageError, match=reason):
        either.generator()(noise, None if labels is None else np.array(labels))


def test_a_latent_that_no_word_gives_is_refused(tiny_checkpoint):
    """With it a sum could pass the bounds that were checked."""
    noise, labels = inputs(tiny_checkpoint)
    noise[7, 3] = -128
    with pytest.raises(UsageError, match="latents down to -128: expected -127 to 127"):
        tiny_checkpoint.generator()(noise, labels)


def test_an_unconditional_generator_takes_no_labels(unlabelled_checkpoint):
    noise = np.zeros((2, unlabelled_checkpoint.recipe.latent.size), np.int8)
    with pytest.raises(UsageError, match="labels given: expected no labels"):
        unlabelled_checkpoint.generator()(noise, np.zeros(2, np.uint8))


def arithmetic(**environment: str) -> str:
    code = "from synthgen.environment import float_drawn_with; print(float_drawn_with()['arithmetic'])"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_other_kernels_of_the_library_are_other_arithmetic():
    """They round otherwise, so a set must not be gone on with, nor be called false, as if nothing had changed."""
    here = float_drawn_with()
    assert arithmetic(OPENBLAS_NUM_THREADS="1") == here["arithmetic"]
    if "openblas" in here["blas"] and "avx2" in here["vector_instructions"]:
        assert arithmetic(OPENBLAS_CORETYPE="Prescott") != here["arithmetic"]
