import numpy as np
import pytest
import tensorflow as tf
from support import DATA

from synthgen.real_images import load_real_images
from synthgen.training.matching.features import (
    COUNTING_WEIGHT,
    EMBEDDING_SIZE,
    SCATTERING_SIZE,
    _morlet,
    embedding_rows,
    extract,
    scattering_rows,
)


@pytest.fixture(scope="module")
def images():
    return load_real_images("train", DATA, official=False).images[:64]


def plain_modulus(images, kernel):
    """|x ∗ ψ| as the textbook has it: one convolution of the single channel."""
    responses = tf.nn.conv2d(images, kernel, 1, "SAME")
    return tf.sqrt(responses[..., :8] ** 2 + responses[..., 8:] ** 2 + 1e-6)


def mean_pool(maps, size):
    return tf.nn.avg_pool2d(maps, size, size, "VALID")


def test_the_fast_features_are_those_of_plain_convolutions(images):
    scaled = tf.cast(images[..., None], tf.float32) / 255
    coarse, fine = _morlet(7, 4.0, 1.6), _morlet(5, 2.2, 0.9)
    first = plain_modulus(scaled, coarse)
    parents = tf.reshape(tf.transpose(mean_pool(first, 2), [0, 3, 1, 2]), [-1, 14, 14, 1])
    second = mean_pool(plain_modulus(parents, coarse), 2)
    second = tf.transpose(tf.reshape(second, [len(images), 8, 7, 7, 8]), [0, 2, 3, 1, 4])
    larger = mean_pool(plain_modulus(mean_pool(scaled, 2), coarse), 2)
    maps = [mean_pool(scaled, 4), mean_pool(first, 4), larger, tf.reshape(second, [len(images), 7, 7, 64])]
    features = extract(scaled)
    np.testing.assert_allclose(features.scattering, tf.reshape(tf.concat(maps, -1), [len(images), 49, 81]), atol=1e-5)
    np.testing.assert_allclose(
        features.fine, tf.reshape(mean_pool(plain_modulus(scaled, fine), 4), [len(images), -1]), atol=1e-5
    )
    by_cell = tf.reshape(mean_pool(scaled, 2), [len(images), 7, 2, 7, 2])
    np.testing.assert_allclose(
        features.pooled, tf.reshape(tf.transpose(by_cell, [0, 1, 3, 2, 4]), [len(images), -1]), atol=1e-6
    )


def test_wavelets_see_no_constant_and_are_bounded():
    kernels = _morlet(7, 4.0, 1.6)
    np.testing.assert_allclose(kernels.sum(axis=(0, 1)), 0, atol=1e-6)
    np.testing.assert_allclose(np.abs(kernels).sum(axis=(0, 1)), 1, atol=1e-5)


def hostile_images():
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (40, 28, 28), np.uint8)
    flat = np.stack([np.full((28, 28), grey, np.uint8) for grey in (0, 1, 127, 255)])
    stripes = np.stack([np.where((np.indices((28, 28)).sum(0) // width) % 2, 255, 0) for width in (1, 2, 3)])
    spots = np.zeros((10, 28, 28), np.uint8)
    spots[np.arange(10), np.arange(10), 5] = 255
    return np.concatenate([noise, flat, stripes.astype(np.uint8), spots])


def test_no_image_is_embedded_beyond_norm_1(images):
    rows = embedding_rows(np.concatenate([images, hostile_images()]))
    assert rows.shape[1] == EMBEDDING_SIZE
    assert np.linalg.norm(rows.astype(np.float64), axis=1).max() <= 1 + 1e-5
    np.testing.assert_allclose(rows[:, 0], COUNTING_WEIGHT, rtol=1e-6)


def test_scattering_rows_have_norm_1_at_most_each_by_itself(images):
    rows = scattering_rows(images)
    assert rows.shape == (len(images), SCATTERING_SIZE)
    assert np.linalg.norm(rows, axis=1).min() > 0.8
    np.testing.assert_allclose(scattering_rows(images[:3]), rows[:3], atol=1e-5)
    everything = np.concatenate([images, hostile_images()])
    assert np.linalg.norm(scattering_rows(everything), axis=1).max() <= 1 + 1e-5
