"""The sum of clipped per-example gradients, the sensitive part of DP-SGD, without a loop over examples.

DP-SGD (Abadi et al. 2016, arXiv:1607.00133, algorithm 1) clips each example's gradient, so that no example moves a
step further than the clip norm. For a dense layer this gradient is the outer product a ⊗ g of the layer's input and
its output's gradient: its norm is |a|·|g|, and the gradient itself is never computed (Goodfellow 2015,
arXiv:1510.01799). For a convolution it is the product of the unfolded patches with the output's gradients, one small
matrix product per example (Rochette, Manoel and Tramel 2019, arXiv:1912.06015). These products are kept until the clip
factors are known. With few filters this is cheaper than Gram matrices.

The gradients that are summed are integers (``privacy.exact``): a, g and the products are scaled and rounded to whole
numbers, held in float64, so that norms and sums of them are exact. An example whose norm still exceeds the clip, which
the factors leave room for, counts as zero. That its integers depend on that example alone rests on one assumption,
which the tests check bit for bit: in a batch of one fixed shape TensorFlow computes an example's gradients the same
wherever it stands and whatever the others are.
"""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from synthgen.privacy.exact import Grid

# How much shorter than the clip the factors make a gradient, so that rounding does not bring it above.
_ROUNDING_ROOM = 1e-3

_INPUT_STEPS = 2.0**13  # a dense layer's inputs have about this norm, in steps
_MOST_STEPS = 2.0**40  # a unit

Losses = Callable[[tf.Tensor], tf.Tensor]  # logits (N, 1) → each example's loss (N,) or (N, 1)


class ClippedGradients:
    """The sum of per-example gradients of a model, each clipped to an L2 norm over all its parameters together.

    Args:
        model: a functional model of one output whose parameters all lie in ``Conv2D`` and ``Dense`` layers without
            an activation of their own, each used once. No layer may mix examples, as batch normalisation does.
        grid: of the mechanism; its clip is the largest norm that one example's gradient keeps.

    Raises:
        ValueError: the model has another layer with parameters.
    """

    def __init__(self, model: keras.Model, grid: Grid) -> None:
        self._layers = [layer for layer in model.layers if layer.weights]
        for layer in self._layers:
            _expect_plain(layer)
        ends = [tensor for layer in self._layers for tensor in (layer.input, layer.output)]
        self._model = keras.Model(model.inputs, [model.output, *ends])
        self._grid = grid
        order = {id(variable): i for i, variable in enumerate(model.trainable_variables)}
        self._order = np.argsort([order[id(v)] for layer in self._layers for v in layer.trainable_variables])

    def sum(self, inputs: list[tf.Tensor], losses: Losses, counted: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Sum the clipped gradients of the examples.

        Args:
            inputs: the model's inputs, N examples each.
            losses: each example's loss from its logit.
            counted: shape (N,): true for an example, false for a row that only fills the batch.

        Returns:
            The sums in whole steps of the grid, float64, in the order of ``model.trainable_variables``, and the logits
            (N, 1).
        """
        with tf.GradientTape() as tape:
            logits, *ends = self._model(inputs, training=True)
            # Each term depends on one example alone: the sum's gradient at a layer's output is each example's own.
            total = tf.reduce_sum(losses(logits))
        seen, answered = ends[0::2], ends[1::2]
        gradients = tape.gradient(total, answered)
        parts = [_part_of(*each) for each in zip(self._layers, seen, gradients, strict=True)]
        scales = self._scales(tf.add_n([square for square, _ in parts]))
        whole = [rounded(scales) for _, rounded in parts]
        # Exact, and so is the comparison, by the argument of ``privacy.exact._fits``; false for what is no number.
        fits = tf.add_n([square for square, _ in whole]) <= tf.constant(self._grid.squared_clip, tf.float64)
        counts = tf.cast(tf.logical_and(counted, fits), tf.float64)
        sums = [array for _, summed in whole for array in summed(counts)]
        return [sums[i] for i in self._order], logits

    def _scales(self, squares: tf.Tensor) -> tf.Tensor:
        """From squared norms, what to multiply each example's gradient with: steps a unit, or fewer for a long one."""
        norms = tf.sqrt(tf.maximum(squares, np.finfo(np.float32).tiny))
        target = self._grid.clip * (1.0 - _ROUNDING_ROOM)
        return tf.where(tf.math.is_finite(norms), tf.minimum(1 / self._grid.step, target / norms), 0.0)


_Sums = Callable[[tf.Tensor], list[tf.Tensor]]  # 1 or 0 for each example (N,) → the exact sums for a layer's weights
_Rounded = Callable[[tf.Tensor], tuple[tf.Tensor, _Sums]]  # scales (N,) → exact squared norms (N,), and the sums
_Part = tuple[tf.Tensor, _Rounded]  # squared norms (N,), and what rounds


def _part_of(layer: keras.Layer, seen: tf.Tensor, gradient: tf.Tensor) -> _Part:
    """What one layer has of each example's gradient."""
    return (_of_dense if isinstance(layer, keras.layers.Dense) else _of_convolution)(layer, seen, gradient)


def _of_dense(layer: keras.Layer, seen: tf.Tensor, gradient: tf.Tensor) -> _Part:
    bias = 1.0 if layer.use_bias else 0.0  # a bias is a weight whose input is always 1
    inputs = _squares(seen) + bias
    squares = inputs * _squares(gradient)

    def rounded(scales: tf.Tensor) -> tuple[tf.Tensor, _Sums]:
        # The scale is shared out: a whole number for the inputs, so that they have some 2^13 steps, the rest for g.
        lengths = tf.sqrt(tf.maximum(inputs, np.finfo(np.float32).tiny))
        share = tf.where(scales > 0, tf.round(tf.clip_by_value(_INPUT_STEPS / lengths, 1.0, _MOST_STEPS)), 0.0)
        rows, ones = _whole(seen, share), bias * tf.cast(share, tf.float64)
        answers = _whole(gradient, tf.math.divide_no_nan(scales, share))

        def summed(counts: tf.Tensor) -> list[tf.Tensor]:
            kernel = tf.matmul(rows, answers * counts[:, tf.newaxis], transpose_a=True)
            return [kernel, tf.linalg.matvec(answers, ones * counts, transpose_a=True)] if layer.use_bias else [kernel]

        return (_squares(rows) + tf.square(ones)) * _squares(answers), summed

    return squares, rounded


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
    if layer.use_bias:
        rows = tf.concat([rows, tf.reduce_sum(gradient, axis=1)], axis=1)

    def rounded(scales: tf.Tensor) -> tuple[tf.Tensor, _Sums]:
        whole = _whole(rows, scales)

        def summed(counts: tf.Tensor) -> list[tf.Tensor]:
            total = tf.linalg.matvec(whole, counts, transpose_a=True)
            kernel = tf.reshape(total[: taps * filters], kernel_shape)
            return [kernel, total[taps * filters :]] if layer.use_bias else [kernel]

        return _squares(whole), summed

    return _squares(rows), rounded


def _whole(rows: tf.Tensor, scales: tf.Tensor) -> tf.Tensor:
    """Rows times their scales, rounded to integers, as float64; zeros where the scale is 0, whatever the row.

    Every float32 of 2^23 or more is an integer, so that it can be rounded before it is widened.
    """
    return tf.cast(tf.round(tf.math.multiply_no_nan(rows, scales[:, tf.newaxis])), tf.float64)


def _squares(rows: tf.Tensor) -> tf.Tensor:
    if rows.dtype == tf.float64:
        return tf.einsum("nd,nd->n", rows, rows)  # needs no room for the squares
    return tf.reduce_sum(tf.square(rows), axis=1)  # for float32 the faster of the two


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
