"""A student of the generator: a small classifier trained on generated images alone, whose activations are features.

What a convolutional network attends to is what a set must get right for networks trained on it. Perceptual features
serve private generators well (Harder et al. 2023, "Pre-trained perceptual features improve differentially private
image generation", arXiv:2205.12900); here no public images are needed to train them, for a student learns from the
generator's own. It has seen no real image, so that its features are as public as the release they come from.
"""

from collections.abc import Callable, Sequence

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras import layers

import synthgen.model.networks  # noqa: F401  (refuses a Keras that does not run on TensorFlow)
from synthgen.subject import IMAGE_SIDE, Images, Labels
from synthgen.workers import StepProgress

_FILTERS = (16, 32, 64)
_UNITS = 64
_EPOCHS, _BATCH = 4, 128
_LEARNING_RATE, _WEIGHT_DECAY = 2e-3, 1e-4
# The embedding's squared norm, shared out over the three convolutions, the dense layer and the class probabilities.
_SHARES = (0.15, 0.25, 0.25, 0.25, 0.1)
_LEAST_NORM = 1e-3


def student_embedding_size(classes: int) -> int:
    """The length of an embedding's rows: 3,002 for ten classes."""
    return 7 * 7 * (_FILTERS[0] + _FILTERS[1]) + 3 * 3 * _FILTERS[2] + _UNITS + classes


class Student:
    """A classifier of images in [0, 1] into ``classes``; untrained unless given ``weights``."""

    def __init__(self, classes: int, weights: Sequence[npt.NDArray[np.float32]] | None = None) -> None:
        image = hidden = layers.Input((IMAGE_SIDE, IMAGE_SIDE, 1))
        pooled = []
        for filters in _FILTERS:
            hidden = layers.Conv2D(filters, 3, padding="same", use_bias=False)(hidden)
            hidden = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(hidden))
            hidden = layers.MaxPool2D()(hidden)
            pooled.append(hidden)
        dense = layers.Dense(_UNITS, "relu")(layers.Dropout(0.3)(layers.Flatten()(hidden)))
        logits = layers.Dense(classes)(dense)
        self._classifier = keras.Model(image, logits)
        self._activations = keras.Model(image, [*pooled, dense, logits])
        if weights is not None:
            self._classifier.set_weights(list(weights))

    @property
    def weights(self) -> list[npt.NDArray[np.float32]]:
        """All weights; ``Student(classes, weights)`` is the same student again."""
        return [np.asarray(array, np.float32) for array in self._classifier.get_weights()]

    def fit(self, images: Images, labels: Labels, seed: int, progress: StepProgress = lambda done, of: None) -> None:
        """Learn from generated images, uint8 (N, 28, 28), and their labels, uint8 (N,)."""
        keras.utils.set_random_seed(seed)
        steps = _EPOCHS * -(-len(images) // _BATCH)
        rate = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, steps)
        self._classifier.compile(
            keras.optimizers.AdamW(rate, weight_decay=_WEIGHT_DECAY),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=False,  # XLA makes convolutions three times slower on a processor
        )
        for epoch in range(_EPOCHS):
            progress(epoch, _EPOCHS)
            self._classifier.fit(images[..., None] / np.float32(255), labels, _BATCH, verbose=0)
        progress(_EPOCHS, _EPOCHS)

    def classify_pixels(self) -> Callable[[Images], Labels]:
        """The classes of uint8 images (N, 28, 28) as a function, traced once."""
        graph = tf.function(
            lambda pixels: tf.argmax(self._logits(pixels), axis=1),
            input_signature=[tf.TensorSpec((None, IMAGE_SIDE, IMAGE_SIDE), tf.uint8)],
        )
        return lambda images: np.asarray(graph(tf.constant(images)), np.uint8)

    def _logits(self, pixels: tf.Tensor) -> tf.Tensor:
        return self._classifier(tf.cast(pixels[..., tf.newaxis], tf.float32) / 255.0, training=False)

    def embed(self, images: tf.Tensor) -> tf.Tensor:
        """Activations of images (N, 28, 28, 1) in [0, 1] as rows (N, D) of norm at most 1; differentiable."""
        *pooled, dense, logits = self._activations(images, training=False)
        pooled[0] = tf.nn.avg_pool2d(pooled[0], 2, 2, "VALID")  # 14×14 cells to 7×7
        parts = [*pooled, dense, tf.nn.softmax(logits)]
        count = tf.shape(images)[0]
        rows = [tf.reshape(part, [count, -1]) for part in parts]
        norms = [tf.maximum(tf.norm(row, axis=1, keepdims=True), _LEAST_NORM) for row in rows]
        return tf.concat([row / norm * share**0.5 for row, norm, share in zip(rows, norms, _SHARES, strict=True)], 1)

    def embed_pixels(self) -> Callable[[Images], npt.NDArray[np.float32]]:
        """The embedding as a function of uint8 images (N, 28, 28), traced once."""
        graph = tf.function(
            lambda pixels: self.embed(tf.cast(pixels[..., tf.newaxis], tf.float32) / 255.0),
            input_signature=[tf.TensorSpec((None, IMAGE_SIDE, IMAGE_SIDE), tf.uint8)],
        )
        return lambda images: np.asarray(graph(tf.constant(images)))
