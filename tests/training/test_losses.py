import keras
import numpy as np
import pytest
import tensorflow as tf

from synthgen.training.losses import LOSSES, gradient_penalty

REAL = tf.constant([[2.0], [-0.5], [0.3]])
FORGED = tf.constant([[-1.0], [0.7], [0.0]])


def test_cross_entropy_is_keras_own_over_the_joined_batch():
    entropy = keras.losses.BinaryCrossentropy(from_logits=True)
    targets, logits = tf.constant([[1.0]] * 3 + [[0.0]] * 3), tf.concat([REAL, FORGED], 0)
    loss = LOSSES["binary_cross_entropy"]
    assert float(loss.discriminator(REAL, FORGED)) == pytest.approx(float(entropy(targets, logits)), rel=1e-6)
    assert float(loss.generator(REAL, FORGED)) == pytest.approx(float(entropy(targets[:3], FORGED)), rel=1e-6)


def test_hinge_by_hand():
    loss = LOSSES["hinge"]
    assert float(loss.discriminator(REAL, FORGED)) == pytest.approx((0 + 1.5 + 0.7) / 3 + (0 + 1.7 + 1) / 3)
    assert float(loss.generator(REAL, FORGED)) == pytest.approx(0.3 / 3)


def test_relativistic_compares_pairs():
    loss, gaps = LOSSES["relativistic"], np.array([3.0, -1.2, 0.3])
    assert float(loss.discriminator(REAL, FORGED)) == pytest.approx(np.log1p(np.exp(-gaps)).mean(), rel=1e-6)
    assert float(loss.generator(REAL, FORGED)) == pytest.approx(np.log1p(np.exp(gaps)).mean(), rel=1e-6)
    assert loss.paired


def test_gradient_penalty_of_a_known_function():
    """The gradient of the sum of x² / 2 is x itself."""
    images = tf.random.stateless_normal([5, 28, 28, 1], [1, 2])
    expected = float(tf.reduce_mean(tf.reduce_sum(images**2, [1, 2, 3])))
    penalty = gradient_penalty(lambda x: tf.reduce_sum(x**2, [1, 2, 3])[:, None] / 2, images)
    assert float(penalty) == pytest.approx(expected, rel=1e-5)
