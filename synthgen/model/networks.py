"""Generators and discriminators, in Keras 3 on TensorFlow."""

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras import layers

from synthgen.errors import SynthgenError
from synthgen.model.parts import Part, own_part, sum_over_replicas
from synthgen.model.recipe import GameRecipe, Recipe
from synthgen.pixels.folded import BATCH_NORM_EPSILON, LEAKY_SLOPE, STEM_SIDE
from synthgen.pixels.integers import IntegerGenerator
from synthgen.pixels.tables import LOGIT_SCALE
from synthgen.subject import IMAGE_SIDE

if keras.backend.backend() != "tensorflow":
    raise SynthgenError(
        f"Keras runs on {keras.backend.backend()} here; synthgen needs KERAS_BACKEND=tensorflow, or none set"
    )

# A user's keras.json must not change a network.
keras.config.set_floatx("float32")
keras.config.set_dtype_policy("float32")
keras.config.set_image_data_format("channels_last")

_BATCH_NORM_MOMENTUM = 0.9
_IMAGE_SHAPE = (IMAGE_SIDE, IMAGE_SIDE, 1)


def build_generator(recipe: Recipe) -> keras.Model:
    """Latent → image; the deconvolutional generator of DCGAN (Radford et al. 2016, arXiv:1511.06434).

    Inputs are latents (N, latent.size) float32 and, when conditional, one-hot classes (N, C) float32, joined
    before the first layer as in Mirza and Osindero 2014 (arXiv:1411.1784). The output is (N, 28, 28, 1) float32
    in [0, 1]. ``recipe.generator_flops`` is the cost of an image.
    """
    section = recipe.generator
    latent = layers.Input((recipe.latent.size,), name="latent")
    inputs, hidden = [latent], latent
    if recipe.conditional:
        class_one_hot = layers.Input((recipe.classes,), name="class")
        inputs, hidden = [latent, class_one_hot], layers.Concatenate()([latent, class_one_hot])
    use_bias = not section.batch_norm  # the normalisation has its own
    hidden = layers.Dense(STEM_SIDE**2 * section.stem_filters, use_bias=use_bias)(hidden)
    hidden = layers.Reshape((STEM_SIDE, STEM_SIDE, section.stem_filters))(hidden)
    if section.batch_norm:
        hidden = _normalised(hidden)
    for filters in section.filters:
        hidden = layers.Conv2DTranspose(filters, section.kernel_size, strides=2, padding="same", use_bias=use_bias)(
            hidden
        )
        hidden = _normalised(hidden) if section.batch_norm else layers.LeakyReLU(LEAKY_SLOPE)(hidden)
    image = layers.Conv2DTranspose(1, 3, padding="same", activation="sigmoid")(hidden)
    return keras.Model(bare(inputs), image, name="generator")


def build_discriminator(recipe: GameRecipe) -> keras.Model:
    """Image (and class) → one logit, high for real.

    Inputs are images (N, 28, 28, 1) float32 in [0, 1] and, when conditional, one-hot classes (N, C). The class
    enters as a projection, an inner product with the features (Miyato and Koyama 2018, arXiv:1802.05637); with
    ``spectral_norm`` every layer's weights are divided by their largest singular value (Miyato et al. 2018,
    arXiv:1802.05957).
    """
    section = recipe.discriminator
    wrap: Callable[[keras.Layer], keras.Layer] = layers.SpectralNormalization if section.spectral_norm else _as_is
    image = layers.Input(_IMAGE_SHAPE, name="image")
    inputs, hidden = [image], image
    for filters, strides, size in zip(section.filters, section.strides, section.kernel_sizes, strict=True):
        hidden = wrap(layers.Conv2D(filters, size, strides=strides, padding="same"))(hidden)
        hidden = _activation(section.activation)(hidden)
    hidden = layers.Flatten()(hidden)
    if section.dense_units:
        hidden = wrap(layers.Dense(section.dense_units))(hidden)
        hidden = _activation(section.activation)(hidden)
    if section.dropout:
        hidden = Dropout(section.dropout)(hidden)
    logit = wrap(layers.Dense(1))(hidden)
    if recipe.conditional:
        class_one_hot = layers.Input((recipe.classes,), name="class")
        inputs = [image, class_one_hot]
        features = wrap(layers.Dense(section.projection_size))(hidden)
        direction = wrap(layers.Dense(section.projection_size, use_bias=False))(class_one_hot)
        logit = layers.Add()([logit, layers.Dot(axes=1)([features, direction])])
    return keras.Model(bare(inputs), logit, name="discriminator")


def pixel_function(generator: keras.Model, recipe: Recipe, batch: int) -> Callable[..., npt.NDArray[np.uint8]]:
    """The generator as (latents (batch, size), labels (batch,) or None) → uint8 images (batch, 28, 28).

    It draws the pictures during training, before the generator is rounded to integers. It is traced once, at one batch
    shape, with ``training=False``, and runs on the CPU, so that a resumed run's pictures are those of an unbroken one.
    """
    latent_spec = tf.TensorSpec((batch, recipe.latent.size), tf.float32)

    def to_pixels(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.round(tf.squeeze(images, -1) * 255.0), tf.uint8)

    if not recipe.conditional:

        @tf.function(input_signature=[latent_spec])  # type: ignore[untyped-decorator]
        def draw(noise: tf.Tensor) -> tf.Tensor:
            with tf.device("/CPU:0"):
                return to_pixels(generator(noise, training=False))

        return lambda noise, labels=None: _as_array(draw(noise))

    @tf.function(input_signature=[latent_spec, tf.TensorSpec((batch,), tf.uint8)])  # type: ignore[untyped-decorator]
    def draw_class(noise: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.device("/CPU:0"):
            return to_pixels(generator([noise, tf.one_hot(labels, recipe.classes)], training=False))

    return lambda noise, labels: _as_array(draw_class(noise, labels))


def set_integers(model: keras.Model, generator: IntegerGenerator, latent_scale: int) -> None:
    """Give a model of ``build_generator`` the weights of a generator of integers.

    Its activations are the integers', unrounded; latents and logits are real.
    """
    dense, last = generator.dense, generator.last
    flat = dense.scaled_weights.reshape(generator.latent_size, -1) * latent_scale
    bias = dense.scaled_bias.reshape(generator.classes, -1)
    if generator.classes > 1:
        flat, bias = np.concatenate([flat, bias]), np.zeros_like(bias[:1])
    normalised = dense.activates
    weights = [flat, *(_unit_norm(bias.reshape(-1, dense.weights.shape[2]).mean(0)) if normalised else [bias[0]])]
    for layer in generator.stages:
        bias = layer.scaled_bias
        weights += [layer.scaled_weights, *(_unit_norm(bias) if normalised else [bias])]
    plain, positive = last.scaled_weights / LOGIT_SCALE
    # The model has a leaky ReLU before its last layer, which takes the weights of positive activations.
    weights += [(plain + positive)[:, :, None], last.scaled_bias / LOGIT_SCALE]
    model.set_weights([array.astype(np.float32) for array in weights])


def in_keras_layers(model: keras.Model) -> keras.Model:
    """The same model in layers of Keras alone: its file loads where synthgen is not installed."""

    def plain(layer: keras.Layer) -> keras.Layer:
        kind = layers.BatchNormalization if isinstance(layer, BatchNormalization) else type(layer)
        return kind.from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=plain)
    copy.set_weights(model.get_weights())
    return copy


def _unit_norm(bias: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
    """The weights of a batch norm that only adds a bias: gamma, beta, mean, variance."""
    one, zero = np.ones_like(bias), np.zeros_like(bias)
    return [one, bias, zero, one - BATCH_NORM_EPSILON]


def bare(inputs: list[Any]) -> Any:
    """A list of inputs as Keras wants it: a single one without its list."""
    return inputs[0] if len(inputs) == 1 else inputs


def _as_array(tensor: tf.Tensor) -> npt.NDArray[np.uint8]:
    array: npt.NDArray[np.uint8] = tensor.numpy()
    return array


class BatchNormalization(layers.BatchNormalization):  # type: ignore[misc]  # so named, as weights files name layers
    """Keras's layer, trained with TensorFlow's fused kernel: a third less training time for the generator."""

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if not training:
            return super().call(inputs, training=False)
        part = own_part()
        if part is None:
            outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
                inputs, self.gamma, self.beta, epsilon=self.epsilon, is_training=True
            )
        else:
            outputs, mean, variance = self._over_all_replicas(inputs, part)
        for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            average.assign(average * self.momentum + value * (1.0 - self.momentum))
        return outputs

    def _over_all_replicas(self, inputs: tf.Tensor, part: Part) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """As the fused kernel: this part's outputs, and the mean and unbiased variance of the whole batch."""
        *axes, _ = range(len(inputs.shape))
        count = tf.cast(part.count * tf.reduce_prod(tf.shape(inputs)[1:-1]), tf.float32)
        mean = sum_over_replicas(tf.reduce_sum(inputs, axes)) / count
        variance = sum_over_replicas(tf.reduce_sum(tf.square(inputs - mean), axes)) / count
        outputs = tf.nn.batch_normalization(inputs, mean, variance, self.beta, self.gamma, self.epsilon)
        return outputs, mean, variance * count / (count - 1.0)


class Dropout(layers.Dropout):  # type: ignore[misc]
    """Keras's layer; where replicas share a batch, each row is dropped from as it would be on one device."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        part = own_part()
        if part is None or not training:
            return super().call(inputs, training=training)

        def kept(shape: tf.Tensor) -> tf.Tensor:
            return keras.random.dropout(tf.ones(shape), self.rate, seed=self.seed_generator)

        return inputs * part.drawn(kept, like=inputs)


def _normalised(hidden: Any) -> Any:
    hidden = BatchNormalization(momentum=_BATCH_NORM_MOMENTUM)(hidden)
    return layers.LeakyReLU(LEAKY_SLOPE)(hidden)


def _activation(name: str) -> keras.Layer:
    return layers.ReLU() if name == "relu" else layers.LeakyReLU(LEAKY_SLOPE)


def _as_is(layer: keras.Layer) -> keras.Layer:
    return layer
