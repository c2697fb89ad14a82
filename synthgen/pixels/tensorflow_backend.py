"""The backend on TensorFlow: the integers in float32, as matrix products, on a processor or a GPU.

Products of matrices are all it multiplies with. A library of convolutions may choose an algorithm that rounds on its
way (Winograd's, FFT); sums of products are exact in any order. TensorFloat-32 keeps 11 bits of a factor, enough for all
factors here, but is turned off, since not every library promises to add up in float32.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from synthgen.errors import UsageError
from synthgen.index import pieces
from synthgen.pixels.drawing import Latents, expect_inputs
from synthgen.pixels.folded import LEAKY_SLOPE, STEM_SIDE, Reals
from synthgen.pixels.integers import LEVELS, IntegerGenerator, Layer
from synthgen.pixels.layers import float32, row_kernels
from synthgen.pixels.tables import LOGIT_LIMIT, grey_table
from synthgen.subject import IMAGE_SIDE, Images

_CHUNK = {"CPU": 32, "GPU": 1024}  # images drawn at once, by kind of device


class TensorFlowBackend:
    """See ``Backend``.

    Args:
        generator: what draws.
        device: such as ``cpu``, ``gpu`` or ``gpu:1``; ``auto``: the first GPU, or the processor where there is none.

    Raises:
        UsageError: there is no such device.
    """

    name = "tensorflow"

    def __init__(self, generator: IntegerGenerator, device: str) -> None:
        self._latent_size, self._classes = generator.latent_size, generator.classes
        self._device = _found(device)
        self._chunk = _CHUNK[self._device.device_type]
        draw = _drawing(generator, self._chunk)
        specs = [tf.TensorSpec((self._chunk, self._latent_size), tf.float32), tf.TensorSpec((self._chunk,), tf.int32)]
        with tf.device(self._device.name):
            self._draw: Callable[..., Any] = tf.function(draw, input_signature=specs).get_concrete_function()

    def __call__(self, latents: Latents, labels: npt.NDArray[np.uint8] | None) -> Images:
        expect_inputs(latents, labels, self._latent_size, self._classes)
        images = np.empty((len(latents), IMAGE_SIDE, IMAGE_SIDE), np.uint8)
        noise, classes = np.zeros((self._chunk, self._latent_size), np.float32), np.zeros(self._chunk, np.int32)
        precise = tf.config.experimental.tensor_float_32_execution_enabled()
        tf.config.experimental.enable_tensor_float_32_execution(False)
        try:
            for piece in pieces(len(latents), self._chunk):
                count = piece.stop - piece.start
                noise[:count] = latents[piece]
                if labels is not None:
                    classes[:count] = labels[piece]
                with tf.device(self._device.name):
                    images[piece] = self._draw(tf.constant(noise), tf.constant(classes)).numpy()[:count]
        finally:
            tf.config.experimental.enable_tensor_float_32_execution(precise)
        return images


def _found(device: str) -> Any:
    """The device of a name, as TensorFlow has it."""
    kind, _, number = device.partition(":")
    kinds = ("CPU",) if kind == "cpu" else ("GPU", "CPU")  # to list GPUs is to start them
    there = [found for kind_of in kinds for found in tf.config.list_logical_devices(kind_of)]
    if device == "auto":
        return there[0]
    for found in there:
        if found.name.lower().endswith(f"device:{kind.lower()}:{number or 0}"):
            return found
    names = ", ".join(found.name.partition("device:")[2].lower() for found in there)
    raise UsageError(f"device {device!r:.80}: TensorFlow finds only {names}")


def _drawing(generator: IntegerGenerator, chunk: int) -> Callable[..., Any]:
    """The generator as (latents, labels) → images, for one number of images."""
    dense = generator.dense
    weights = float32(dense.scaled_weights.reshape(generator.latent_size, -1))
    bias = float32(dense.scaled_bias.reshape(generator.classes, -1))
    stages, side = [], STEM_SIDE
    for layer in generator.stages:
        stages.append(_doubling(layer, side))
        side *= 2
    plain, positive = (_to_one(part) for part in generator.last.scaled_weights)
    last_bias = float32(generator.last.scaled_bias)

    def draw(latents: Any, labels: Any) -> Any:
        sums = tf.matmul(latents, weights) + tf.gather(bias, labels)
        hidden = _settled(tf.reshape(sums, (chunk, STEM_SIDE, STEM_SIDE, -1)), dense)
        for stage, layer in zip(stages, generator.stages, strict=True):
            hidden = _settled(stage(hidden), layer)
        logits = plain(hidden) + positive(tf.nn.relu(hidden)) + last_bias
        places = tf.clip_by_value(tf.round(logits), -LOGIT_LIMIT, LOGIT_LIMIT - 1) + LOGIT_LIMIT
        return tf.gather(tf.constant(grey_table()), tf.cast(places, tf.int32))

    return draw


def _doubling(layer: Layer, side: int) -> Callable[[Any], Any]:
    """The even and the odd rows of a doubling layer, each as one product, and then one after the other."""
    kernels, extra = row_kernels(layer.weights)
    filters, columns = layer.weights.shape[2], side + extra
    scale, bias = np.tile(0.5 ** layer.shift.astype(np.float64), 2), float32(np.tile(layer.scaled_bias, 2))
    matrices = []
    for kernel, _ in kernels:
        matrix = kernel.transpose(2, 3, 1, 0).reshape(-1, 2 * filters)  # row, column, in; pixel, out
        matrices.append(float32(matrix.astype(np.float64) * scale))

    def double(hidden: Any) -> Any:
        rows = []
        for (kernel, (top, left, bottom, right)), matrix in zip(kernels, matrices, strict=True):
            framed = tf.pad(hidden, [[0, 0], [top, bottom], [left, right], [0, 0]])
            places = np.ndindex(kernel.shape[2:])
            windows = tf.concat([framed[:, u : u + side, v : v + columns] for u, v in places], -1)
            sums = tf.tensordot(windows, matrix, 1) + bias
            rows.append(tf.reshape(sums, (-1, side, 1, 2 * columns, filters)))
        whole = tf.reshape(tf.concat(rows, 2), (-1, 2 * side, 2 * columns, filters))
        return whole[:, :, 1:-1] if extra else whole

    return double


def _to_one(kernel: Reals) -> Callable[[Any], Any]:
    """The last layer without its bias: each pixel adds to its neighbours."""
    spread = float32(kernel.reshape(9, -1).T)

    def convolve(hidden: Any) -> Any:
        parts = tf.pad(tf.tensordot(hidden, spread, 1), [[0, 0], [2, 2], [2, 2], [0, 0]])
        side = IMAGE_SIDE
        moved = [
            parts[:, 3 - u : 3 - u + side, 3 - v : 3 - v + side, 3 * u + v] for u, v in np.ndindex(3, 3)
        ]  # pixel (y, x) takes what the one at (y + 1 - u, x + 1 - v) adds to its neighbour (u, v)
        return tf.add_n(moved)

    return convolve


def _settled(quotients: Any, layer: Layer) -> Any:
    """Round half to even, clip, and leaky ReLU; see ``drawing``."""
    hidden = tf.clip_by_value(tf.round(quotients), layer.low, layer.low + LEVELS - 1)
    return tf.maximum(hidden, tf.round(hidden * LEAKY_SLOPE)) if layer.activates else hidden
