import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from synthgen.model.networks import build_discriminator
from synthgen.model.recipe import load_recipe
from synthgen.privacy.exact import Grid
from synthgen.privacy.per_example import ClippedGradients

SMALL = ["discriminator.filters=[4, 6]", "discriminator.projection_size=5", "discriminator.dense_units=7"]


@pytest.fixture(scope="module")
def discriminator():
    keras.utils.set_random_seed(0)
    model = build_discriminator(load_recipe("dpgan", SMALL))
    for variable in model.trainable_variables:  # biases begin at 0, which would hide a mistake
        variable.assign(variable + 0.1 * tf.random.stateless_normal(variable.shape, [1, 2]))
    return model


@pytest.fixture(scope="module")
def batch():
    random = np.random.default_rng(0)
    images = random.random((9, 28, 28, 1), np.float32) * np.linspace(0, 3, 9, dtype=np.float32).reshape(-1, 1, 1, 1)
    return [images, np.eye(10, dtype=np.float32)[np.arange(9)]]


def losses(logits):
    return tf.nn.softplus(-logits)


def flat(arrays):
    return np.concatenate([np.asarray(array, np.float64).ravel() for array in arrays])


def whole_sum(model, grid, batch, counted=None):
    """Exact integers, as Python's float64 hold them."""
    counted = np.ones(len(batch[0]), bool) if counted is None else counted
    sums, _ = ClippedGradients(model, grid).sum([tf.constant(part) for part in batch], losses, tf.constant(counted))
    assert [tuple(part.shape) for part in sums] == [tuple(v.shape) for v in model.trainable_variables]
    assert all(part.dtype == tf.float64 for part in sums)
    total = flat(sums)
    assert (total == np.rint(total)).all()
    return total


def summed(model, clip, batch, counted=None):
    grid = Grid.of(1.3, clip)
    return whole_sum(model, grid, batch, counted) * grid.step


def one_by_one(model, clip, batch):
    """The definition: a loop over examples."""
    rows = []
    for i in range(len(batch[0])):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(losses(model([part[i : i + 1] for part in batch])))
        rows.append(flat(tape.gradient(loss, model.trainable_variables)))
    norms = np.linalg.norm(rows, axis=1)
    return np.array(rows) * np.minimum(1, clip / norms)[:, None], norms


def test_the_sum_is_that_of_a_loop_over_examples(discriminator, batch):
    norms = one_by_one(discriminator, 1.0, batch)[1]
    clip = float(np.median(norms))  # some are clipped and some are not
    assert norms.min() < 0.9 * clip < 1.1 * clip < norms.max()
    expected = one_by_one(discriminator, clip * (1 - 1e-3), batch)[0].sum(axis=0)
    np.testing.assert_allclose(summed(discriminator, clip, batch), expected, atol=5e-4 * clip)


def filled(batch, rows):
    """The batch, and rows of zeros up to a fixed number; and who counts."""
    parts = [np.concatenate([part, np.zeros((rows - len(part), *part.shape[1:]), part.dtype)]) for part in batch]
    return parts, np.arange(rows) < len(batch[0])


def extremes(batch):
    """Images that no garment resembles besides, and some that are no images."""
    images, classes = batch
    odd = np.stack([np.zeros((28, 28, 1)), np.ones((28, 28, 1)), np.indices((28, 28)).sum(0)[..., None] % 2])
    images = np.concatenate([images, odd.astype(np.float32), 1e3 * odd[1:2].astype(np.float32)])
    return [images, np.concatenate([classes, classes[:4]])]


def test_rows_that_only_fill_the_batch_count_for_nothing(discriminator, batch):
    grid = Grid.of(1.0, 0.1)
    counted = np.arange(32) < 3
    poisoned = filled(batch, 32)[0]
    poisoned[0][20:] = np.nan
    whole = whole_sum(discriminator, grid, *filled([part[:3] for part in batch], 32))
    np.testing.assert_array_equal(whole_sum(discriminator, grid, poisoned, counted), whole)


@pytest.mark.parametrize("multiplier", [0.01, 1.0, 50.0])
@pytest.mark.parametrize("clip", [1e-4, 0.3, 50.0])
def test_no_neighbour_moves_the_exact_sum_by_more_than_the_clip(discriminator, batch, clip: float, multiplier: float):
    """In integers: one that leaves its place empty takes out its own row, and changes no other's."""
    grid = Grid.of(multiplier, clip)
    images, counted = filled(extremes(batch), 32)
    whole = whole_sum(discriminator, grid, images, counted)
    for left_out in range(13):
        kept = np.arange(32) != left_out
        empty = [np.where(kept.reshape(-1, *[1] * (part.ndim - 1)), part, 0).astype(part.dtype) for part in images]
        moved = whole - whole_sum(discriminator, grid, empty, counted & kept)
        assert sum(int(number) ** 2 for number in moved) <= grid.squared_clip
        np.testing.assert_array_equal(moved, whole_sum(discriminator, grid, images, ~kept))


def test_an_examples_integers_are_the_same_at_any_place_and_in_any_company(discriminator, batch):
    """The one assumption about TensorFlow that the exact mechanism makes."""
    grid = Grid.of(1.0, 0.3)
    random = np.random.default_rng(0)
    first, _ = filled(extremes(batch), 256)
    for example in (0, 4, 9, 11):
        alone = whole_sum(discriminator, grid, first, np.arange(256) == example)
        assert alone.any()
        for place in (0, 1, 7, 100, 254, 255):
            moved = [random.random(part.shape).astype(np.float32) for part in first]
            for part, origin in zip(moved, first, strict=True):
                part[place] = origin[example]
            np.testing.assert_array_equal(whole_sum(discriminator, grid, moved, np.arange(256) == place), alone)


def test_an_example_without_a_finite_gradient_counts_for_nothing(discriminator, batch):
    images, classes = batch
    for value in (np.nan, np.inf, 1e38):
        poisoned = np.concatenate([images, np.full((1, 28, 28, 1), value, np.float32)])
        found = summed(discriminator, 0.1, [poisoned, np.concatenate([classes, classes[:1]])])
        np.testing.assert_allclose(found, summed(discriminator, 0.1, batch), atol=1e-6)


def test_a_layer_in_which_examples_meet_is_refused():
    image = layers.Input((4,))
    model = keras.Model(image, layers.Dense(1)(layers.BatchNormalization()(image)))
    with pytest.raises(ValueError, match=r"BatchNormalization.*expected Dense or Conv2D"):
        ClippedGradients(model, 1.0)
