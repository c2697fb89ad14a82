"""The losses of the adversarial game, on logits of shape (N, 1): high for real, low for forged."""

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True, kw_only=True)
class AdversarialLoss:
    """A pair of losses, each from (logits of real images, logits of forged images) to a scalar.

    Attributes:
        discriminator: what the discriminator minimises.
        generator: what the generator minimises.
        paired: whether the i-th real and the i-th forged logit are compared with each other. Then both must be of
            one class, the generator's step sees real images too, and a gradient penalty covers both kinds.
    """

    discriminator: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    generator: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    paired: bool = False


def _cross_entropy_discriminator(real: tf.Tensor, forged: tf.Tensor) -> tf.Tensor:
    # Over real and forged images in one batch; softplus(-x) is the cross-entropy of logit x with the target 1.
    return tf.reduce_mean(tf.concat([tf.nn.softplus(-real), tf.nn.softplus(forged)], axis=0))


def _cross_entropy_generator(real: tf.Tensor, forged: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.nn.softplus(-forged))


def _hinge_discriminator(real: tf.Tensor, forged: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.nn.relu(1.0 - real)) + tf.reduce_mean(tf.nn.relu(1.0 + forged))


def _hinge_generator(real: tf.Tensor, forged: tf.Tensor) -> tf.Tensor:
    return -tf.reduce_mean(forged)


def _relativistic_discriminator(real: tf.Tensor, forged: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.nn.softplus(forged - real))


def _relativistic_generator(real: tf.Tensor, forged: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.nn.softplus(real - forged))


LOSSES = {
    # The non-saturating game of Goodfellow et al. 2014 (arXiv:1406.2661, section 3).
    "binary_cross_entropy": AdversarialLoss(
        discriminator=_cross_entropy_discriminator, generator=_cross_entropy_generator
    ),
    # Lim and Ye 2017 (arXiv:1705.02894); Tran et al. 2017 (arXiv:1702.08896).
    "hinge": AdversarialLoss(discriminator=_hinge_discriminator, generator=_hinge_generator),
    # Jolicoeur-Martineau 2018 (arXiv:1807.00734), in the form of R3GAN: Huang et al. 2024, "The GAN is dead; long
    # live the GAN!" (arXiv:2501.05441, section 2), who show that it keeps a generator from dropping modes and that
    # it converges with the gradient penalty on both real (R1) and forged (R2) images.
    "relativistic": AdversarialLoss(
        discriminator=_relativistic_discriminator, generator=_relativistic_generator, paired=True
    ),
}


def gradient_penalty(score: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor) -> tf.Tensor:
    """The mean squared norm of the score's gradient at the images: R1 at real ones, R2 at forged ones.

    Mescheder, Geiger and Nowozin 2018, "Which training methods for GANs do actually converge?"
    (arXiv:1801.04406, section 4.1), without the factor γ/2.

    Args:
        score: images (N, 28, 28, 1) → logits (N, 1).
        images: float32, shape (N, 28, 28, 1).
    """
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = tf.reduce_sum(score(images))
    gradients = tape.gradient(total, images)
    return tf.reduce_mean(tf.reduce_sum(tf.square(gradients), axis=[1, 2, 3]))
