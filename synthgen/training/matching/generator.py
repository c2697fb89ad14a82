"""A generator that learns to match released statistics: the private recipe's second half.

For each class the mean embedding of what it draws is brought to the released one: the maximum mean discrepancy of
Gretton et al. 2012 ("A kernel two-sample test", section 3) for the kernel ⟨φ(x), φ(y)⟩, in its unbiased form. The
teacher adds a margin: an image of a class is one that the teacher takes for that class. Each student of the generator
adds an embedding, in which it is matched from then on.

Nothing here sees a real image: all of it may be seeded, and repeated at will.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from synthgen.index import pieces
from synthgen.model.networks import build_generator
from synthgen.model.recipe import StatisticsRecipe
from synthgen.subject import IMAGE_SIDE, Images, Labels
from synthgen.training.game import Learner, constant_then_linear
from synthgen.training.matching.features import embedding, extract, normalised_scattering
from synthgen.training.matching.release import Release, StudentRelease
from synthgen.training.matching.student import Student

_DRAWN_AT_ONCE = 1_000


class Match(NamedTuple):
    """How one batch compares with the release.

    Attributes:
        distance: squared maximum mean discrepancies, the mean over the classes, summed over the embeddings; an
            unbiased estimate, so that it may be below 0.
        agreement: the share of images that the teacher takes for the class they were drawn for.
    """

    distance: float
    agreement: float


class Matching(Learner):
    """A generator on its way to the release.

    Args:
        recipe: the generator and its training.
        release: what it is to match.
        seed: decides initial weights and latents; 0 to 2^32 - 1.
    """

    _recipe: StatisticsRecipe

    def __init__(self, recipe: StatisticsRecipe, release: Release, seed: int) -> None:
        super().__init__(recipe, seed)
        keras.utils.set_random_seed(seed)
        self._targets = [(_target(each.means), Student(recipe.classes, each.weights)) for each in release.students]
        self._means = _target(release.means)
        self._teacher = tf.constant(release.teacher.weights), tf.constant(release.teacher.bias)
        self.generator = build_generator(recipe)
        section = recipe.training
        self._begin_averaging(section.ema_decay)
        rate = constant_then_linear(section.learning_rate, section.steps)
        self._optimizer = keras.optimizers.Adam(rate, beta_1=section.beta_1, beta_2=section.beta_2)
        self._optimizer.build(self.generator.trainable_variables)
        self._graph = tf.function(self._step)

    def step(self, number: int) -> Match:
        """One step of the optimiser; ``number`` decides its latents."""
        distance, agreement = self._graph(tf.constant(number, tf.int64))
        return Match(float(distance), float(agreement))

    def admit(self, student: StudentRelease) -> None:
        """From now on match what was released of this student's features, too."""
        self._targets.append((_target(student.means), Student(self._recipe.classes, student.weights)))
        self._graph = tf.function(self._step)

    def draw(self, count: int, stream: int) -> tuple[Images, Labels]:
        """``count`` images of the best generator, uint8 (count, 28, 28), and their labels; another set a stream."""
        images = np.empty((count, IMAGE_SIDE, IMAGE_SIDE), np.uint8)
        labels = np.arange(count) % self._recipe.classes
        for part in pieces(count, _DRAWN_AT_ONCE):
            number = tf.constant(-1 - part.start - count * stream, tf.int64)  # apart from every training step's
            drawn = self._draw(tf.constant(labels[part], tf.int32), number, self.best_generator, training=False)
            images[part] = np.round(drawn.numpy()[..., 0] * 255)
        return images, labels.astype(np.uint8)

    def _owners(self) -> list[Any]:
        return [*super()._owners(), self._optimizer]

    def _step(self, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        section, classes = self._recipe.training, self._recipe.classes
        labels = tf.range(section.images_per_class * classes) % classes
        with tf.GradientTape() as tape:
            images = self._draw(labels, number)
            features = extract(images)
            distance = self._distance(embedding(features), self._means)
            for means, student in self._targets:
                distance += self._distance(student.embed(images), means)
            margins = self._margins(normalised_scattering(features.scattering), labels)
            loss = distance + section.margin_weight * tf.reduce_mean(tf.nn.relu(-margins))
        gradients = tape.gradient(loss, self.generator.trainable_variables)
        self._optimizer.apply(gradients, self.generator.trainable_variables)
        self._average(section.ema_decay)
        return distance, tf.reduce_mean(tf.cast(margins > 0, tf.float32))

    def _draw(
        self, labels: tf.Tensor, number: tf.Tensor, generator: keras.Model | None = None, training: bool = True
    ) -> tf.Tensor:
        noise = self._latents(tf.shape(labels)[0], tf.stack([tf.constant(self._seed, tf.int64), number]))
        return (generator or self.generator)([noise, tf.one_hot(labels, self._recipe.classes)], training=training)

    def _distance(self, embedded: tf.Tensor, released: tf.Tensor) -> tf.Tensor:
        """The unbiased squared distance of the batch's class means from the released ones; images in label order."""
        count, classes = self._recipe.training.images_per_class, self._recipe.classes
        by_class = tf.reshape(embedded, [count, classes, -1])
        means = tf.reduce_mean(by_class, axis=0)
        biased = tf.reduce_sum(tf.square(means - released)) / classes
        spread = tf.reduce_sum(tf.square(by_class - means)) / classes
        return biased - spread / (count * (count - 1))

    def _margins(self, rows: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """By how much the teacher prefers each image's own class to the next likely one, in logits."""
        weights, bias = self._teacher
        logits = rows @ weights + bias
        own = tf.one_hot(labels, self._recipe.classes)
        other = tf.reduce_max(tf.where(own > 0, np.float32(-np.inf), logits), axis=1)
        return tf.reduce_sum(logits * own, axis=1) - other


def _target(means: npt.NDArray[np.float32]) -> tf.Tensor:
    """What each class's mean is to be. Rows have norms of at most 1, and so has their mean; the noise of a rare class
    makes a longer one, which is shortened: else it would weigh more than all other classes together.
    """
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    return tf.constant(means / np.maximum(norms, 1), tf.float32)
