"""The adversarial game: two players, their optimisers and one step of each.

All randomness is stateless, a function of (seed, step), and all state is in ``variables``: a game restored from
them goes on exactly as the unbroken one would.
"""

from typing import NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from synthgen.fashion import NUM_CLASSES
from synthgen.losses import LOSSES, gradient_penalty
from synthgen.networks import build_discriminator, build_generator
from synthgen.recipe import Recipe

# The last word of a stateless seed keeps the streams of one step apart.
_FORGED_FOR_DISCRIMINATOR, _FORGED_FOR_GENERATOR = 0, 1
_STREAMS = 2


class Outcome(NamedTuple):
    """One player's loss and binary accuracy in one step, as scalars."""

    loss: float
    accuracy: float


class Game:
    """Generator against discriminator, as ``recipe`` lays down.

    Args:
        recipe: the networks, the loss and the optimisers.
        seed: decides the initial weights and all noise; 0 to 2^32 - 1.
        total_steps: batches in the whole run, for the fall of the learning rate.
    """

    def __init__(self, recipe: Recipe, seed: int, total_steps: int) -> None:
        keras.utils.set_random_seed(seed)
        self._recipe, self._seed = recipe, seed
        self._loss = LOSSES[recipe.training.loss]
        self.generator = build_generator(recipe)
        self.discriminator = build_discriminator(recipe)
        self._averaged = build_generator(recipe) if recipe.training.ema_decay else None
        if self._averaged is not None:
            self._averaged.set_weights(self.generator.get_weights())
        section = recipe.training
        generator_steps = total_steps // section.discriminator_steps
        self._generator_optimizer = self._adam(section.generator_learning_rate, generator_steps)
        self._discriminator_optimizer = self._adam(section.discriminator_learning_rate, total_steps)
        self._generator_optimizer.build(self.generator.trainable_variables)
        self._discriminator_optimizer.build(self.discriminator.trainable_variables)
        self._discriminator_graph = tf.function(self._discriminator_step, reduce_retracing=True)
        self._generator_graph = tf.function(self._generator_step, reduce_retracing=True)

    @property
    def best_generator(self) -> keras.Model:
        """The generator to keep: the one with averaged weights where the recipe asks for it."""
        return self._averaged or self.generator

    def variables(self) -> list[keras.Variable]:
        """Everything that changes in a game, in a fixed order."""
        models = [self.generator, self.discriminator, *([self._averaged] if self._averaged else [])]
        optimizers = [self._generator_optimizer, self._discriminator_optimizer]
        return [variable for owner in (*models, *optimizers) for variable in owner.variables]

    def discriminator_step(self, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], step: int) -> Outcome:
        """Teach the discriminator on a batch of real images, (N, 28, 28) uint8, and as many forged ones."""
        loss, accuracy = self._discriminator_graph(
            tf.constant(images), tf.constant(labels), tf.constant(step, tf.int64)
        )
        return Outcome(float(loss), float(accuracy))

    def generator_step(self, batch_size: int, step: int) -> Outcome:
        """Teach the generator on a batch of its own images."""
        loss, accuracy = self._generator_graph(tf.constant(batch_size), tf.constant(step, tf.int64))
        return Outcome(float(loss), float(accuracy))

    def _adam(self, rate: float, steps: int) -> keras.optimizers.Optimizer:
        section = self._recipe.training
        schedule = rate
        if section.learning_rate_decay:
            schedule = _constant_then_linear(rate, steps)
        return keras.optimizers.Adam(schedule, beta_1=section.beta_1, beta_2=section.beta_2)

    def _forge(self, count: tf.Tensor, step: tf.Tensor, stream: int) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Forged images with the discriminator's further input: their one-hot classes, if it takes any."""
        seed = tf.stack([tf.constant(self._seed, tf.int64), step * _STREAMS + stream])
        latent = self._recipe.latent
        draw = tf.random.stateless_normal if latent.distribution == "gaussian" else tf.random.stateless_uniform
        noise = draw([count, latent.size], seed)
        if not self._recipe.conditional:
            return self.generator(noise, training=True), []
        labels = tf.random.stateless_uniform(
            [count], seed + tf.constant([1 << 32, 0], tf.int64), 0, NUM_CLASSES, tf.int32
        )
        one_hot = tf.one_hot(labels, NUM_CLASSES)
        return self.generator([noise, one_hot], training=True), [one_hot]

    def _discriminator_step(self, pixels: tf.Tensor, labels: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        count = tf.shape(pixels)[0]
        real = tf.cast(pixels[..., tf.newaxis], tf.float32) / 255.0
        forged, forged_classes = self._forge(count, step, _FORGED_FOR_DISCRIMINATOR)
        classes = [tf.one_hot(labels, NUM_CLASSES)] if self._recipe.conditional else []
        both = [tf.concat(pair, axis=0) for pair in zip([real, *classes], [forged, *forged_classes], strict=True)]
        with tf.GradientTape() as tape:
            logits = self.discriminator(_unlist(both), training=True)
            adversarial = self._loss.discriminator(logits[:count], logits[count:])
            loss = adversarial + self._penalty(real, classes, step)
        self._update(tape, loss, self.discriminator, self._discriminator_optimizer)
        correct = tf.concat([logits[:count] > 0, logits[count:] <= 0], axis=0)
        return adversarial, tf.reduce_mean(tf.cast(correct, tf.float32))

    def _penalty(self, real: tf.Tensor, classes: list[tf.Tensor], step: tf.Tensor) -> tf.Tensor:
        """The gradient penalty, on every n-th step with n times the weight ("lazy": StyleGAN2, appendix B)."""
        section = self._recipe.training
        if not section.gradient_penalty:
            return 0.0
        weight = section.gradient_penalty / 2 * section.gradient_penalty_interval

        def penalised() -> tf.Tensor:
            return weight * gradient_penalty(
                lambda images: self.discriminator(_unlist([images, *classes]), training=True), real
            )

        return tf.cond(step % section.gradient_penalty_interval == 0, penalised, lambda: 0.0)

    def _generator_step(self, count: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            forged, classes = self._forge(count, step, _FORGED_FOR_GENERATOR)
            logits = self.discriminator(_unlist([forged, *classes]), training=False)
            loss = self._loss.generator(logits)
        self._update(tape, loss, self.generator, self._generator_optimizer)
        if self._averaged is not None:
            rate = 1.0 - self._recipe.training.ema_decay
            for average, weight in zip(self._averaged.weights, self.generator.weights, strict=True):
                average.assign_add((weight - average) * rate)
        return loss, tf.reduce_mean(tf.cast(logits > 0, tf.float32))

    @staticmethod
    def _update(
        tape: tf.GradientTape, loss: tf.Tensor, model: keras.Model, optimizer: keras.optimizers.Optimizer
    ) -> None:
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)


def _unlist(inputs: list[tf.Tensor]) -> tf.Tensor | list[tf.Tensor]:
    """Keras wants a lone input bare."""
    return inputs[0] if len(inputs) == 1 else inputs


def _constant_then_linear(rate: float, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """``rate`` for the first half of the run, then a straight fall to zero."""
    half = max(1, steps // 2)
    falling = keras.optimizers.schedules.PolynomialDecay(2 * rate, 2 * half, end_learning_rate=0.0)
    return _Capped(falling, rate)


class _Capped(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, highest: float) -> None:
        self._schedule, self._highest = schedule, highest

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        return keras.ops.minimum(self._schedule(step), self._highest)
