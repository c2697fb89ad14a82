"""The generator that draws, in numpy, is the one that was trained, in Keras."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from synthgen.model.generator import Generator

from synthgen.environment import drawn_with
from synthgen.errors import CheckpointError, UsageError
from synthgen.index import latents
from synthgen.model.checkpoint import WEIGHTS_NAME, Checkpoint, load_checkpoint, save_checkpoint
from synthgen.model.networks import build_generator, pixel_function
from synthgen.model.recipe import load_recipe
from synthgen.privacy.statement import no_guarantee

SMALL = ["latent.size=8", "generator.stem_filters=5", "generator.filters=[6, 3]"]


def with_random_weights(recipe, path) -> Checkpoint:
    """A checkpoint none of whose weights, batch norm's statistics included, is what it is at the start."""
    model = build_generator(recipe)
    random = np.random.default_rng(0)
    for variable in model.weights:
        low, high = (0.5, 2.0) if "variance" in variable.path else (-1.0, 1.0)
        variable.assign(random.uniform(low, high, variable.shape))
    return save_checkpoint(path, model, recipe, no_guarantee("nothing: untrained"), {})


def inputs(checkpoint: Checkpoint, count: int = 256):
    recipe = checkpoint.recipe
    labels = np.arange(count, dtype=np.uint8) % 10 if recipe.conditional else None
    return latents(3, 0, recipe.latent.size, recipe.latent.distribution)[:count], labels


def assert_draws_like_keras(checkpoint: Checkpoint) -> None:
    noise, labels = inputs(checkpoint)
    theirs = pixel_function(checkpoint.keras_model(), checkpoint.recipe, len(noise))(noise, labels).astype(int)
    gap = np.abs(checkpoint.generator()(noise, labels) - theirs)
    assert theirs.std() > 5  # a comparison of grey with grey would prove nothing
    assert gap.max() <= 1
    assert (gap > 0).mean() < 1e-4


@pytest.mark.parametrize("name", ["conditional", "private"])
def test_shipped_checkpoints(name: str):
    assert_draws_like_keras(load_checkpoint(name))


@pytest.mark.parametrize("size", range(1, 8))
@pytest.mark.parametrize("name", ["notebook", "conditional"])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_every_kind_of_generator(tmp_path, name: str, size: int, batch_norm: bool):
    more = [f"generator.kernel_size={size}", f"generator.batch_norm={str(batch_norm).lower()}"]
    assert_draws_like_keras(with_random_weights(load_recipe(name, [*SMALL, *more]), tmp_path / "random"))


def test_a_pixel_depends_on_its_own_latent_alone(tiny_checkpoint):
    draw = tiny_checkpoint.generator()
    noise, labels = inputs(tiny_checkpoint)
    before = draw(noise, labels)
    np.testing.assert_array_equal(draw(noise[:1], labels[:1]), before[:1])
    noise[1:] = 0
    np.testing.assert_array_equal(draw(noise, labels)[0], before[0])
    assert (before.dtype, before.shape) == (np.uint8, (256, 28, 28))


def test_threads_that_draw_at_once_do_not_disturb_each_other(tiny_checkpoint):
    draw = tiny_checkpoint.generator()
    noise, labels = inputs(tiny_checkpoint)
    turns = [np.roll(noise, shift, axis=0) for shift in range(8)]
    alone = [draw(turn, labels) for turn in turns]
    with ThreadPoolExecutor(4) as threads:
        for images, expected in zip(threads.map(lambda turn: draw(turn, labels), turns), alone, strict=True):
            np.testing.assert_array_equal(images, expected)


@pytest.mark.parametrize("recipe", ["smoke", "notebook"])
def test_the_number_of_threads_changes_no_pixel(tmp_path, recipe: str):
    """The notebook's products are large enough for the library to share them out."""
    checkpoint = with_random_weights(load_recipe(recipe), tmp_path / "random")
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
def test_weights_that_cannot_be_drawn_from_are_refused(tiny_checkpoint, change, reason: str):
    arrays: dict[str, np.ndarray] = {}
    with h5py.File(tiny_checkpoint.path / WEIGHTS_NAME) as file:
        file.visititems(lambda name, item: arrays.update({f"/{name}": item[()]}) if hasattr(item, "dtype") else None)
    Generator(tiny_checkpoint.recipe, arrays)
    change(arrays)
    with pytest.raises(ValueError, match=reason):
        Generator(tiny_checkpoint.recipe, arrays)


def test_weights_that_change_after_loading_draw_nothing(tmp_path, tiny_recipe):
    checkpoint = with_random_weights(tiny_recipe, tmp_path / "random")
    expected = checkpoint.generator()(*inputs(checkpoint))
    with h5py.File(checkpoint.path / WEIGHTS_NAME, "r+") as file:
        file["layers/dense/vars/0"][0, 0] += 1
    np.testing.assert_array_equal(checkpoint.generator()(*inputs(checkpoint)), expected)  # what was hashed
    with pytest.raises(CheckpointError, match="changed while it was read"):
        checkpoint.keras_model()


def test_weights_too_large_to_compute_with_give_no_black_images(tmp_path, tiny_recipe):
    model = build_generator(tiny_recipe)
    for variable in model.weights:
        variable.assign(np.full(variable.shape, 1e30 if "kernel" in variable.path else 1.0, np.float32))
    checkpoint = save_checkpoint(tmp_path / "huge", model, tiny_recipe, no_guarantee("nothing: untrained"), {})
    with pytest.raises(CheckpointError, match="no numbers"):
        checkpoint.generator()(*inputs(checkpoint))


@pytest.mark.parametrize(
    ("latents_shape", "labels", "reason"),
    [
        ((3, 1), [0, 1, 2], r"latents of shape \(3, 1\): expected \(N, \d+\)"),
        ((3, None), [0], r"labels of shape \(1,\): expected \(3,\)"),
        ((3, None), [0, 1, 10], "labels from 0 to 10: expected 0 to 9"),
        ((3, None), None, "labels missing: expected a label for each image"),
    ],
)
def test_inputs_that_cannot_be_are_refused(tiny_checkpoint, latents_shape, labels, reason: str):
    noise = np.zeros([size or tiny_checkpoint.recipe.latent.size for size in latents_shape], np.float32)
    with pytest.raises(UsageError, match=reason):
        tiny_checkpoint.generator()(noise, None if labels is None else np.array(labels))


def test_an_unconditional_generator_takes_no_labels(unlabelled_checkpoint):
    noise = np.zeros((2, unlabelled_checkpoint.recipe.latent.size), np.float32)
    with pytest.raises(UsageError, match="labels given: expected no labels"):
        unlabelled_checkpoint.generator()(noise, np.zeros(2, np.uint8))


def arithmetic(**environment: str) -> str:
    code = "from synthgen.environment import drawn_with; print(drawn_with()['arithmetic'])"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_other_kernels_of_the_library_are_other_arithmetic():
    """They round otherwise, so a set must not be gone on with, nor be called false, as if nothing had changed."""
    here = drawn_with()
    assert arithmetic(OPENBLAS_NUM_THREADS="1") == here["arithmetic"]
    if "openblas" in here["blas"] and "avx2" in here["vector_instructions"]:
        assert arithmetic(OPENBLAS_CORETYPE="Prescott") != here["arithmetic"]
