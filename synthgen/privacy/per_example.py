"""The sum of clipped per-example gradients, the sensitive part of DP-SGD, without a loop over examples.

DP-SGD (Abadi et al. 2016, arXiv:1607.00133, algorithm 1) clips each example's gradient, so that no example moves a
step further than the clip norm. For a dense layer this gradient is the outer product a ⊗ g of the layer's input and
its output's gradient: its norm is |a|·|g|, and the gradient itself is never computed (Goodfellow 2015,
arXiv:1510.01799). For a convolution it is the product of the unfolded patches with the output's gradients, one small
matrix product per example (Rochette, Manoel and Tramel 2019, arXiv:1912.06015). These products are kept until the clip
factors are known. With few filters this is cheaper than Gram matrices, and safer: no norm is a difference of large
numbers, and the norm is that of the very numbers that are summed.
"""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

# Norms, products and sums are rounded to float32. The clip is this much tighter than declared, so that the rounded sums
# of two neighbouring batches still differ by no more than the clip norm.
_ROUNDING_ROOM = 1e-3

Losses = Callable[[tf.Tensor], tf.Tensor]  # logits (N, 1) → each example's loss (N,) or (N, 1)


class ClippedGradients:
    """The sum of per-example gradients of a model, each clipped to an L2 norm over all its parameters together.

    Args:
        model: a functional model of one output whose parameters all lie in ``Conv2D`` and ``Dense`` layers without
            an activation of their own, each used once. No layer may mix examples, as batch normalisation does.
        l2_clip_norm: the largest norm that one example's gradient keeps.

    Raises:
        ValueError: the model has another layer with parameters.
    """

    def __init__(self, model: keras.Model, l2_clip_norm: float) -> None:
        self._layers = [layer for layer in model.layers if layer.weights]
        for layer in self._layers:
            _expect_plain(layer)
        ends = [tensor for layer in self._layers for tensor in (layer.input, layer.output)]
        self._model = keras.Model(model.inputs, [model.output, *ends])
        self._clip = l2_clip_norm * (1.0 - _ROUNDING_ROOM)
        order = {id(variable): i for i, variable in enumerate(model.trainable_variables)}
        self._order = np.argsort([order[id(v)] for layer in self._layers for v in layer.trainable_variables])

    def sum(self, inputs: list[tf.Tensor], losses: Losses, counted: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Sum the clipped gradients of the examples.

        Args:
            inputs: the model's inputs, N examples each.
            losses: each example's loss from its logit.
            counted: float32, shape (N,): 1 for an example, 0 for a row that only fills the batch.

        Returns:
            The sums, in the order of ``model.trainable_variables``, and the logits (N, 1).
        """
        with tf.GradientTape() as tape:
            logits, *ends = self._model(inputs, training=True)
            # Each term depends on one example alone: the sum's gradient at a layer's output is each example's own.
            total = tf.reduce_sum(losses(logits))
        seen, answered = ends[0::2], ends[1::2]
        gradients = tape.gradient(total, answered)
        parts = [_part_of(*each) for each in zip(self._layers, seen, gradients, strict=True)]
        squares = tf.add_n([square for square, _ in parts])
        factors = counted * self._factors(squares)
        sums = [array for _, weighted in parts for array in weighted(factors)]
        return [sums[i] for i in self._order], logits

    def _factors(self, squares: tf.Tensor) -> tf.Tensor:
        # An example whose norm is infinite or NaN counts as zero: it must not spoil the sum of the others, and an error
        # would reveal that it is there.
        norms = tf.sqrt(tf.maximum(squares, np.finfo(np.float32).tiny))
        return tf.where(tf.math.is_finite(norms), tf.minimum(1.0, self._clip / norms), 0.0)


_Part = tuple[tf.Tensor, Callable[[tf.Tensor], list[tf.Tensor]]]


def _part_of(layer: keras.Layer, seen: tf.Tensor, gradient: tf.Tensor) -> _Part:
    """For one layer: squared norms (N,), and a function from clip factors (N,) to the sums for its weights."""
    return (_of_dense if isinstance(layer, keras.layers.Dense) else _of_convolution)(layer, seen, gradient)


def _of_dense(layer: keras.Layer, seen: tf.Tensor, gradient: tf.Tensor) -> _Part:
    bias = 1.0 if layer.use_bias else 0.0  # a bias is a weight whose input is always 1
    squares = (_squares(seen) + bias) * _squares(gradient)

    def weighted(factors: tf.Tensor) -> list[tf.Tensor]:
        clipped = _scaled(gradient, factors)
        kernel = tf.matmul(_scaled(seen, tf.sign(factors)), clipped, transpose_a=True)
        return [kernel, tf.reduce_sum(clipped, axis=0)] if layer.use_bias else [kernel]

    return squares, weighted


def _of_convolution(layer: keras.Layer, seen: tf.Tensor, gradient: tf.Tensor) -> _Part:
    kernel_shape = layer.kernel.shape
    taps, filters = int(np.prod(kernel_shape[:3])), kernel_shape[3]
    patches = tf.image.extract_patches(
        seen, [1, *layer.kernel_size, 1], [1, *layer.strides, 1], [1, 1, 1, 1], layer.padding.upper()
    )
    pixels = int(np.prod(gradient.shape[1:3]))
    gradient = tf.reshape(gradient, [-1, pixels, filters])
    kernels = tf.matmul(tf.reshape(patches, [-1, pixels, taps]), gradient, transpose_a=True)
    rows = tf.reshape(kernels, [-1, taps * filters])  # each the kernel's gradient of one example
    biases = tf.reduce_sum(gradient, axis=1)
    squares = _squares(rows) + (_squares(biases) if layer.use_bias else 0.0)

    def weighted(factors: tf.Tensor) -> list[tf.Tensor]:
        kernel = tf.reshape(tf.reduce_sum(_scaled(rows, factors), axis=0), kernel_shape)
        return [kernel, tf.reduce_sum(_scaled(biases, factors), axis=0)] if layer.use_bias else [kernel]

    return squares, weighted


def _scaled(rows: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Rows times their factors; 0 times anything is 0, even times infinity."""
    return tf.math.multiply_no_nan(rows, factors[:, tf.newaxis])


def _squares(rows: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.square(rows), axis=1)


def _expect_plain(layer: keras.Layer) -> None:
    kinds = (keras.layers.Dense, keras.layers.Conv2D)
    if (
        type(layer) not in kinds
        or layer.activation is not keras.activations.linear
        or len(layer.input.shape) not in (2, 4)
    ):
        raise ValueError(
            f"layer {layer.name} ({type(layer).__name__}): expected Dense or Conv2D without an activation of its own; "
            "no other layer's per-example gradients are known here"
        )
    if isinstance(layer, keras.layers.Conv2D) and (layer.groups != 1 or layer.dilation_rate != (1, 1)):
        raise ValueError(f"layer {layer.name}: expected a convolution without groups or dilation")
