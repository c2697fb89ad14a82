"""The losses of the adversarial game, on logits: high for real, low for forged."""

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True, kw_only=True)
class AdversarialLoss:
    """A pair of losses, each from logits of shape (N, 1) to a scalar.

    Attributes:
        discriminator: (logits of real images, logits of forged images) → what the discriminator minimises.
        generator: (logits of forged images) → what the generator minimises.
    """

    discriminator: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    generator: Callable[[tf.Tensor], tf.Tensor]


def _cross_entropy_discriminator(real: tf.Tensor, forged: tf.Tensor) -> tf.Tensor:
    # Over real and forged images in one batch; softplus(-x) is the cross-entropy of logit x with the target 1.
    return tf.reduce_mean(tf.concat([tf.nn.softplus(-real), tf.nn.softplus(forged)], axis=0))


def _cross_entropy_generator(forged: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.nn.softplus(-forged))


def _hinge_discriminator(real: tf.Tensor, forged: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.nn.relu(1.0 - real)) + tf.reduce_mean(tf.nn.relu(1.0 + forged))


def _hinge_generator(forged: tf.Tensor) -> tf.Tensor:
    return -tf.reduce_mean(forged)


LOSSES = {
    # The non-saturating game of Goodfellow et al. 2014 (arXiv:1406.2661, section 3).
    "binary_cross_entropy": AdversarialLoss(
        discriminator=_cross_entropy_discriminator, generator=_cross_entropy_generator
    ),
    # Lim and Ye 2017 (arXiv:1705.02894); Tran et al. 2017 (arXiv:1702.08896).
    "hinge": AdversarialLoss(discriminator=_hinge_discriminator, generator=_hinge_generator),
}


def gradient_penalty(score: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor) -> tf.Tensor:
    """R1: the mean squared norm of the score's gradient at the images.

    Mescheder, Geiger and Nowozin 2018, "Which training methods for GANs do actually converge?"
    (arXiv:1801.04406, section 4.1), without its factor γ/2.

    Args:
        score: images (N, 28, 28, 1) → logits (N, 1).
        images: float32, shape (N, 28, 28, 1).
    """
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = tf.reduce_sum(score(images))
    gradients = tape.gradient(total, images)
    return tf.reduce_mean(tf.reduce_sum(tf.square(gradients), axis=[1, 2, 3]))
