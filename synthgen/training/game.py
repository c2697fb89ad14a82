"""A generator that learns, and the adversarial game: two players, their optimisers and one step of each.

All randomness is stateless, a function of (seed, step), and everything else is in ``state``: a game restored from it
goes on exactly as the unbroken one would.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from synthgen.index import BLOCK_IMAGES, float_latents
from synthgen.model.networks import bare, build_discriminator, build_generator, pixel_function
from synthgen.model.parts import own_part, own_share
from synthgen.model.recipe import AdversarialRecipe, GameRecipe, Recipe
from synthgen.subject import Images, Labels
from synthgen.training.losses import LOSSES, gradient_penalty
from synthgen.training.replicas import Replicas

# The last word of a stateless seed keeps the streams of one step apart.
FORGED_FOR_DISCRIMINATOR, _FORGED_FOR_GENERATOR = 0, 1
_STREAMS = 2


class Outcome(NamedTuple):
    """One player's loss and binary accuracy in one step, as scalars."""

    loss: float
    accuracy: float


class Learner:
    """A generator that learns, perhaps with a second one whose weights are the running mean of its own.

    All that changes stands in Keras variables, so that it can be saved and taken up again.

    Args:
        recipe: the generator and its latents.
        seed: decides the initial weights and the latents; 0 to 2^32 - 1.
    """

    generator: keras.Model
    _averaged: keras.Model | None = None

    def __init__(self, recipe: Recipe, seed: int) -> None:
        self._recipe, self._seed = recipe, seed

    @property
    def best_generator(self) -> keras.Model:
        """The generator to keep: the one with averaged weights where the recipe asks for it."""
        return self._averaged or self.generator

    def draw_samples(self) -> Images:
        """The images of the run's pictures, always from the same latents: uint8, shape (N, 28, 28).

        Ten of each class in order, or fewer where there are more than 25 classes; 81 where there are no classes.
        """
        recipe = self._recipe
        noise = float_latents(0, 0, recipe.latent.size, recipe.latent.distribution)
        labels = recipe.balanced_labels(BLOCK_IMAGES)
        images = self._draw_pixels(noise, labels)
        if labels is None:
            return images[:81]
        each = min(10, BLOCK_IMAGES // recipe.classes)
        return np.concatenate([images[labels == label][:each] for label in range(recipe.classes)])

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Everything that changes, as arrays under names that sort in a fixed order."""
        return {f"v{i:05d}": v.value.numpy() for i, v in enumerate(self._variables())}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take up a ``state``; raises KeyError or ValueError when it is none of such a learner."""
        for i, variable in enumerate(self._variables()):
            variable.assign(state[f"v{i:05d}"])

    @functools.cached_property
    def _draw_pixels(self) -> Callable[..., Images]:
        return pixel_function(self.best_generator, self._recipe, BLOCK_IMAGES)

    def _owners(self) -> list[Any]:
        """The models and optimisers whose variables are the state."""
        return [self.generator, *([self._averaged] if self._averaged else [])]

    def _variables(self) -> list[keras.Variable]:
        return [variable for owner in self._owners() for variable in owner.variables]

    def _begin_averaging(self, decay: float) -> None:
        """Make the averaged generator, unless ``decay`` is 0."""
        if decay:
            self._averaged = build_generator(self._recipe)
            self._averaged.set_weights(self.generator.get_weights())

    def _average(self, decay: float) -> None:
        """One step of the exponential moving average of the generator's weights, where there is one."""
        if self._averaged is not None:
            for average, weight in zip(self._averaged.weights, self.generator.weights, strict=True):
                average.assign_add((weight - average) * (1.0 - decay))

    def _latents(self, count: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Latents (count, size), a function of the stateless ``seed`` alone."""
        latent = self._recipe.latent
        normal = latent.distribution == "gaussian"
        draw = tf.random.stateless_normal if normal else tf.random.stateless_uniform
        return draw([count, latent.size], seed)


class Players(Learner):
    """Two networks and their optimisers, and the generator's step; how the discriminator learns is a subclass's.

    Args:
        recipe: the networks, the loss and the optimisers.
        seed: decides the initial weights and the noise of the generator's latents; 0 to 2^32 - 1.
        total_steps: the discriminator's in the whole run, for the fall of the learning rate.
        replicas: what the batches are shared out among; they must not have run anything yet.
    """

    _recipe: GameRecipe

    def __init__(self, recipe: GameRecipe, seed: int, total_steps: int, replicas: Replicas | None = None) -> None:
        super().__init__(recipe, seed)
        self._loss = LOSSES[recipe.training.loss]
        self.replicas = replicas or Replicas()
        with self.replicas.scope():
            self._make_players(total_steps)
        self._generator_graph = self.replicas.compiled(self._generator_step)

    def _make_players(self, total_steps: int) -> None:
        recipe = self._recipe
        keras.utils.set_random_seed(self._seed)
        self.generator = build_generator(recipe)
        self.discriminator = build_discriminator(recipe)
        section = recipe.training
        self._begin_averaging(section.ema_decay)
        generator_steps = total_steps // section.discriminator_steps
        self._generator_optimizer = self._adam(section.generator_learning_rate, generator_steps)
        self._discriminator_optimizer = self._adam(section.discriminator_learning_rate, total_steps)
        self._generator_optimizer.build(self.generator.trainable_variables)
        self._discriminator_optimizer.build(self.discriminator.trainable_variables)

    def _owners(self) -> list[Any]:
        return [*super()._owners(), self.discriminator, self._generator_optimizer, self._discriminator_optimizer]

    def generator_step(self, images: Images, labels: Labels, step: int) -> Outcome:
        """Teach the generator on as many of its own images; a paired loss compares them with the real ones."""
        return self._play(self._generator_graph, images, labels, step)

    @staticmethod
    def _play(graph: Callable[..., Any], images: Images, labels: Labels, step: int, *plain: bool) -> Outcome:
        loss, accuracy = graph(tf.constant(images), tf.constant(labels), tf.constant(step, tf.int64), *plain)
        return Outcome(float(loss), float(accuracy))

    def _adam(self, rate: float, steps: int) -> keras.optimizers.Optimizer:
        section = self._recipe.training
        schedule = rate
        if section.learning_rate_decay:
            schedule = constant_then_linear(rate, steps)
        return keras.optimizers.Adam(schedule, beta_1=section.beta_1, beta_2=section.beta_2)

    def _forge(self, labels: tf.Tensor, step: tf.Tensor, stream: int) -> list[tf.Tensor]:
        """As many forged images as there are labels, with their one-hot classes if the game has classes.

        Of the same classes as the real images for a paired loss, else of classes drawn anew. What is drawn is drawn for
        the whole batch, so that a replica's part of it is what one device would have drawn there.
        """
        part = own_part()
        seed = tf.stack([tf.constant(self._seed, tf.int64), step * _STREAMS + stream])
        count = tf.shape(labels)[0] if part is None else part.count
        noise = self._latents(count, seed)
        if part is not None:
            noise = part.of(noise)
        if not self._recipe.conditional:
            return [self.generator(noise, training=True)]
        if not self._loss.paired:
            label_seed = seed + tf.constant([1 << 32, 0], tf.int64)  # beyond any seed of the noise
            labels = tf.random.stateless_uniform([count], label_seed, 0, self._recipe.classes, tf.int32)
            if part is not None:
                labels = part.of(labels)
        classes = tf.one_hot(labels, self._recipe.classes)
        return [self.generator([noise, classes], training=True), classes]

    def _real(self, pixels: tf.Tensor, labels: tf.Tensor) -> list[tf.Tensor]:
        """Real images scaled to [0, 1], with their one-hot classes if the game has classes."""
        images = tf.cast(pixels[..., tf.newaxis], tf.float32) / 255.0
        return [images, tf.one_hot(labels, self._recipe.classes)] if self._recipe.conditional else [images]

    def _generator_step(self, pixels: tf.Tensor, labels: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        real_logits = tf.zeros([0, 1])
        if self._loss.paired:
            real_logits = self._discriminate(self._real(pixels, labels), training=False)
        with tf.GradientTape() as tape:
            forged = self._forge(labels, step, _FORGED_FOR_GENERATOR)
            logits = self._discriminate(forged, training=False)
            loss = self._loss.generator(real_logits, logits)
            objective = own_share(loss)
        self._update(tape, objective, self.generator, self._generator_optimizer)
        self._average(self._recipe.training.ema_decay)
        return loss, tf.reduce_mean(tf.cast(logits > 0, tf.float32))

    def _discriminate(self, inputs: list[tf.Tensor], *, training: bool) -> tf.Tensor:
        return self.discriminator(bare(inputs), training=training)

    @staticmethod
    def _update(
        tape: tf.GradientTape, loss: tf.Tensor, model: keras.Model, optimizer: keras.optimizers.Optimizer
    ) -> None:
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)  # sums them over the replicas, where there are several


class Game(Players):
    """Generator against a discriminator that sees the real images as they are; arguments as for ``Players``."""

    def __init__(
        self, recipe: AdversarialRecipe, seed: int, total_steps: int, replicas: Replicas | None = None
    ) -> None:
        super().__init__(recipe, seed, total_steps, replicas)
        self._training = recipe.training
        self._discriminator_graph = self.replicas.compiled(self._discriminator_step)

    def discriminator_step(self, images: Images, labels: Labels, step: int) -> Outcome:
        """Teach the discriminator on a batch of real images and as many forged ones.

        Args:
            images: uint8, shape (N, 28, 28).
            labels: uint8, shape (N,).
            step: the batch's number in the run; decides the noise.
        """
        if not self.replicas.shared:
            return self._play(self._discriminator_graph, images, labels, step)
        # A graph with the penalty and one without: replicas may not assign a weight, as spectral normalisation does,
        # inside a condition that is part of a graph.
        penalised = step % self._training.gradient_penalty_interval == 0
        return self._play(self._discriminator_graph, images, labels, step, penalised)

    def _discriminator_step(
        self, pixels: tf.Tensor, labels: tf.Tensor, step: tf.Tensor, penalised: bool | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        count = tf.shape(pixels)[0]
        real = self._real(pixels, labels)
        forged = self._forge(labels, step, FORGED_FOR_DISCRIMINATOR)
        both = [tf.concat(pair, axis=0) for pair in zip(real, forged, strict=True)]
        with tf.GradientTape() as tape:
            logits = self._discriminate(both, training=True)
            adversarial = self._loss.discriminator(logits[:count], logits[count:])
            loss = adversarial + self._penalty(both if self._loss.paired else real, step, penalised)
            objective = own_share(loss)
        self._update(tape, objective, self.discriminator, self._discriminator_optimizer)
        correct = tf.concat([logits[:count] > 0, logits[count:] <= 0], axis=0)
        return adversarial, tf.reduce_mean(tf.cast(correct, tf.float32))

    def _penalty(self, inputs: list[tf.Tensor], step: tf.Tensor, due: bool | None) -> tf.Tensor:
        """The gradient penalty, on every n-th step with n times the weight; the graph decides unless ``due`` does.

        "Lazy regularisation": Karras et al. 2020, StyleGAN2 (arXiv:1912.04958, section 3.1).
        """
        section = self._training
        if not section.gradient_penalty:
            return 0.0
        images, *classes = inputs
        kinds = 2 if self._loss.paired else 1  # real and forged each bring their own mean
        weight = kinds * section.gradient_penalty / 2 * section.gradient_penalty_interval

        def penalty() -> tf.Tensor:
            return weight * gradient_penalty(lambda seen: self._discriminate([seen, *classes], training=True), images)

        if due is not None:
            return penalty() if due else 0.0
        return tf.cond(step % section.gradient_penalty_interval == 0, penalty, lambda: 0.0)


def constant_then_linear(rate: float, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """``rate`` for the first half of the run, then a straight fall to zero."""
    half = max(1, steps // 2)
    falling = keras.optimizers.schedules.PolynomialDecay(2 * rate, 2 * half, end_learning_rate=0.0)
    return _Capped(falling, rate)


class _Capped(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, highest: float) -> None:
        self._schedule, self._highest = schedule, highest

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        return keras.ops.minimum(self._schedule(step), self._highest)
