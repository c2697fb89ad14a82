"""The private game: a discriminator trained by DP-SGD, and a generator that sees nothing but that discriminator.

All that a step of the discriminator releases is a sum of clipped per-example gradients of the real images with
Gaussian noise (Abadi et al. 2016, arXiv:1607.00133), on integers (``privacy.exact``); all else, the generator above
all, is computed from that and costs no privacy. The recipe is that of Bie, Kamath and Zhang 2023, "Private GANs,
Revisited" (arXiv:2302.02936): large batches, and as many discriminator steps to one of the generator as the noise
requires.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from synthgen.errors import Diverged
from synthgen.model.recipe import PrivateAdversarialRecipe
from synthgen.privacy.exact import Grid, WholeNumbers, expect_countable
from synthgen.privacy.per_example import ClippedGradients
from synthgen.subject import IMAGE_SIDE, Images, Labels
from synthgen.training.game import FORGED_FOR_DISCRIMINATOR, Players

ROWS = 256  # examples whose gradients are held at a time; a Poisson sample of any size is a number of these


class PrivateGame(Players):
    """Generator against a discriminator that sees the real images through clip and noise alone.

    Args:
        recipe: the networks, the loss, the optimisers and the clip.
        seed: decides the initial weights and the forged images; never the noise of the mechanism.
        noise_multiplier: standard deviation of the noise / the clip norm.
    """

    def __init__(self, recipe: PrivateAdversarialRecipe, seed: int, noise_multiplier: float) -> None:
        super().__init__(recipe, seed, recipe.training.steps)
        self._training = recipe.training
        self._grid = Grid.of(noise_multiplier, recipe.training.l2_clip_norm)
        self._gradients = ClippedGradients(self.discriminator, self._grid)
        self._shapes = [tuple(variable.shape) for variable in self.discriminator.trainable_variables]
        self._parameters = sum(int(np.prod(shape)) for shape in self._shapes)
        self._real_graph = tf.function(self._sum_over_real)
        self._forged_graph = tf.function(self._sum_over_forged)
        self._apply_graph = tf.function(self._apply)

    def discriminator_step(self, images: Images, labels: Labels, step: int) -> float:
        """Teach the discriminator on a Poisson sample of the real images, privately, and on forged ones.

        Args:
            images: the sample, uint8, shape (N, 28, 28); N may be 0.
            labels: uint8, shape (N,).
            step: the step's number in the run; decides the forged images.

        Returns:
            The discriminator's accuracy on the forged images; its accuracy on real ones is private.

        Raises:
            Diverged: the noisy gradient is no number any more.
        """
        section = self._training
        # Over the expected size: the drawn one is private.
        real = self.noisy_sum(images, labels) / section.batch_size
        forged, accuracy = self._forged_graph(tf.constant(step, tf.int64))
        gradient = (real + forged.numpy() * self._grid.step / section.forged_batch_size) / 2
        if not np.isfinite(gradient).all():
            raise Diverged(f"the discriminator's gradient is no number at step {step}: lower its learning rate")
        self._apply_graph(tf.constant(gradient, tf.float32))
        return float(accuracy)

    def teach_generator(self, step: int) -> float:
        """One step of the generator against the discriminator as it is; returns its loss."""
        count = self._training.generator_batch_size
        blank = np.zeros((count, IMAGE_SIDE, IMAGE_SIDE), np.uint8)  # only its length counts: no loss here is paired
        return self.generator_step(blank, np.zeros(count, np.uint8), step).loss

    def keeps_examples_apart(self) -> bool:
        """Whether an example's integers are the same at another place of a block and in other company.

        The proof for integers assumes it of TensorFlow, which does not promise it: another device or library may not
        keep to it. The check is of noise, at today's weights: a block as a whole against its halves, every other
        example, and the block turned by one place. All sums are exact, so that they are equal or the assumption fails.
        """
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, (ROWS, IMAGE_SIDE, IMAGE_SIDE), np.uint8)
        labels = (np.arange(ROWS) % max(1, self._recipe.classes)).astype(np.uint8)
        places = np.arange(ROWS)
        parts = ([places[: ROWS // 2], places[ROWS // 2 :]], [places[::2], places[1::2]], [np.roll(places, 1)])
        whole = self.whole_sum(images, labels)
        return all(
            np.array_equal(sum(self.whole_sum(images[part], labels[part]) for part in split), whole) for split in parts
        )

    def noisy_sum(self, images: Images, labels: Labels) -> npt.NDArray[np.float64]:
        """The mechanism: the sum of the images' clipped gradients with noise, flat; all that a step has of them."""
        return self._grid.noisy(self.whole_sum(images, labels))

    def whole_sum(self, images: Images, labels: Labels) -> WholeNumbers:
        """The exact sum of the images' clipped gradients, in whole steps of the mechanism's grid."""
        expect_countable(len(images))
        total = np.zeros(self._parameters)
        for first in range(0, len(images), ROWS):
            part = slice(first, first + ROWS)
            total += self._real_graph(*_padded(images[part], labels[part])).numpy()
        return total

    def _sum_over_real(self, pixels: tf.Tensor, labels: tf.Tensor, counted: tf.Tensor) -> tf.Tensor:
        sums, _ = self._gradients.sum(self._real(pixels, labels), self._each_loss(real=True), counted)
        return _flat(sums)

    def _sum_over_forged(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Clipped like the real ones though they need no protection: unclipped, they would drown them.
        count = self._training.forged_batch_size
        forged = self._forge(tf.zeros([count], tf.uint8), step, FORGED_FOR_DISCRIMINATOR)
        sums, logits = self._gradients.sum(forged, self._each_loss(real=False), tf.fill([count], True))
        return _flat(sums), tf.reduce_mean(tf.cast(logits <= 0, tf.float32))

    def _each_loss(self, *, real: bool) -> Callable[[tf.Tensor], tf.Tensor]:
        sign = -1.0 if real else 1.0
        if self._training.loss == "hinge":
            return lambda logits: tf.nn.relu(1.0 + sign * logits)
        return lambda logits: tf.nn.softplus(sign * logits)

    def _apply(self, gradient: tf.Tensor) -> None:
        parts = tf.split(gradient, [int(np.prod(shape)) for shape in self._shapes])
        gradients = [tf.reshape(part, shape) for part, shape in zip(parts, self._shapes, strict=True)]
        self._discriminator_optimizer.apply(gradients, self.discriminator.trainable_variables)


def _padded(images: Images, labels: Labels) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Rows that count and rows that fill up to one fixed shape, so that the graph is traced once."""
    filling = ROWS - len(images)
    counted = np.arange(ROWS) < len(images)
    return (
        tf.constant(np.concatenate([images, np.zeros((filling, IMAGE_SIDE, IMAGE_SIDE), np.uint8)])),
        tf.constant(np.concatenate([labels, np.zeros(filling, np.uint8)])),
        tf.constant(counted),
    )


def _flat(arrays: list[tf.Tensor]) -> tf.Tensor:
    return tf.concat([tf.reshape(array, [-1]) for array in arrays], axis=0)
