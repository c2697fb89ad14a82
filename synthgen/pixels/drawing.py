"""Backends in numpy: they draw images without TensorFlow.

``FloatBackend`` computes with the float32 weights of synthgen 0.1 and 0.2, whose pixels depend on the processor.
``NumpyBackend`` computes the definition in docs/pixels.md: integers in float32, exact because no sum reaches 2^24. It
is the reference for all other backends.
"""

import threading
from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from synthgen.errors import CheckpointError, UsageError
from synthgen.index import pieces
from synthgen.pixels.folded import LEAKY_SLOPE, STEM_SIDE, Folded, Reals
from synthgen.pixels.integers import LEVELS, IntegerGenerator, Layer
from synthgen.pixels.layers import CHUNK, ConvolutionToOne, Doubling, Floats, float32
from synthgen.pixels.tables import LATENT_LIMIT, LOGIT_LIMIT, grey_table
from synthgen.subject import IMAGE_SIDE, Images

Latents = npt.NDArray[np.int8] | Floats


class Backend(Protocol):
    """A generator as a function of latents and labels.

    Attributes:
        name: as a manifest has it.
    """

    name: str

    def __call__(self, latents: Latents, labels: npt.NDArray[np.uint8] | None) -> Images:
        """Draw images, each from its own latent and label alone.

        Args:
            latents: shape (N, size); int8, or float32 for a checkpoint of synthgen 0.1 or 0.2.
            labels: uint8, shape (N,), 0 to 9; None for an unconditional generator.

        Returns:
            uint8, shape (N, 28, 28).

        Raises:
            UsageError: latents or labels of another shape or type, or out of range.
            CheckpointError: float weights are so large that the result is no finite number.
        """


class _Chunked:
    """What both backends share: chunks of one shape, one at a time, on one thread."""

    name: str
    _latent_kind = "int8"

    def __init__(self, dense: Reals, classes: Reals, stages: list[Doubling], last: ConvolutionToOne) -> None:
        # The bias of a class is the weight of one more input, which is 1 for that class. Each pixel is one product.
        self._latent_size, self._classes = dense.shape[0], classes.shape[0]
        self._dense = float32(np.concatenate([dense, classes]).transpose(1, 2, 0))
        self._inputs = np.zeros((self._latent_size + self._classes, CHUNK), np.float32)
        self._inputs[self._latent_size :] = 1
        self._hidden = np.empty((*self._dense.shape[:2], CHUNK), np.float32)
        self._stages, self._last = stages, last
        self._lock = threading.Lock()  # every call uses the same arrays between the layers
        self._pools = ThreadpoolController()  # products are too small to share; shared ones may round otherwise

    def __call__(self, latents: Latents, labels: npt.NDArray[np.uint8] | None) -> Images:
        expect_inputs(latents, labels, self._latent_size, self._classes, self._latent_kind)
        images = np.empty((len(latents), IMAGE_SIDE, IMAGE_SIDE), np.uint8)
        classes = np.arange(self._classes)[:, None]
        quiet = np.errstate(over="ignore", invalid="ignore")  # where exp is infinite, the pixel is 0
        with self._lock, self._pools.limit(limits=1), quiet:
            for piece in pieces(len(latents), CHUNK):
                count = piece.stop - piece.start
                self._inputs[: self._latent_size, :count] = latents[piece].T
                if labels is not None:
                    self._inputs[self._latent_size :, :count] = labels[piece] == classes
                images[piece] = self._draw()[..., :count].transpose(2, 0, 1)
        return images

    def _draw(self) -> Images:
        """The images of one chunk, uint8 (28, 28, chunk)."""
        raise NotImplementedError


class FloatBackend(_Chunked):
    """See ``Backend``; ``model.networks.build_generator`` makes the same in Keras."""

    name = "numpy, float32"
    _latent_kind = "float32"

    def __init__(self, folded: Folded) -> None:
        stages, side = [], STEM_SIDE
        for kernel, bias in folded.stages:
            stages.append(Doubling(kernel, bias, side))
            side *= 2
        last = ConvolutionToOne(folded.last, folded.last_bias, side)
        super().__init__(folded.dense, folded.dense_bias, stages, last)
        self._activates = folded.dense_activates

    def _draw(self) -> Images:
        hidden = np.matmul(self._dense, self._inputs, out=self._hidden)
        if self._activates:
            _leaky_relu(hidden)
        for stage in self._stages:
            hidden = _leaky_relu(stage(hidden))
        logits = self._last(hidden)
        if not np.isfinite(logits).all():
            raise CheckpointError("the generator's weights are so large that it draws no numbers; train it anew")
        pixels = np.exp(np.negative(logits, out=logits), out=logits)  # 255 · sigmoid, in place
        pixels += np.float32(1)
        return np.rint(np.divide(np.float32(255), pixels, out=pixels), out=pixels).astype(np.uint8)


class NumpyBackend(_Chunked):
    """See ``Backend``.

    Weights and bias of an output are divided by its power of two beforehand, which float32 does exactly. So each sum
    is the quotient itself, and only needs rounding.
    """

    name = "numpy"

    def __init__(self, generator: IntegerGenerator) -> None:
        dense, stages, side = generator.dense, [], STEM_SIDE
        for layer in generator.stages:
            stages.append(Doubling(layer.scaled_weights, layer.scaled_bias, side))
            side *= 2
        plain, positive = generator.last.scaled_weights
        last = ConvolutionToOne(plain, float(generator.last.scaled_bias[0]), side)
        super().__init__(dense.scaled_weights, dense.scaled_bias, stages, last)
        self._last_positive = ConvolutionToOne(positive, 0.0, side)
        shapes = [self._hidden.shape, *(stage.shape for stage in stages)]
        self._settle = [_settling(layer, shape) for layer, shape in zip(generator.layers, shapes, strict=False)]

    def _draw(self) -> Images:
        hidden = self._settle[0](np.matmul(self._dense, self._inputs, out=self._hidden))
        for stage, settle in zip(self._stages, self._settle[1:], strict=True):
            hidden = settle(stage(hidden))
        logits = self._last(hidden)
        logits += self._last_positive(np.maximum(hidden, np.float32(0), out=hidden))
        np.rint(logits, out=logits)
        places = np.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT - 1, out=logits).astype(np.int16)
        places += LOGIT_LIMIT
        return grey_table().take(places)


def expect_inputs(
    latents: Latents, labels: npt.NDArray[np.uint8] | None, size: int, classes: int, kind: str = "int8"
) -> None:
    """Raise UsageError unless latents and labels fit a generator; see ``Backend``."""
    if latents.ndim != 2 or latents.shape[1] != size:
        raise UsageError(f"latents of shape {latents.shape}: expected (N, {size})")
    if latents.dtype.kind == "i" and len(latents) and latents.min() < -LATENT_LIMIT:
        raise UsageError(f"latents down to {latents.min()}: expected -{LATENT_LIMIT} to {LATENT_LIMIT}")
    if (labels is not None) != (classes > 1):
        wanted = "a label for each image" if classes > 1 else "no labels: the generator is unconditional"
        raise UsageError(f"labels {'given' if labels is not None else 'missing'}: expected {wanted}")
    if labels is not None and labels.shape != (len(latents),):
        raise UsageError(f"labels of shape {labels.shape}: expected ({len(latents)},), one for each latent")
    if labels is not None and not ((labels >= 0) & (labels < classes)).all():
        raise UsageError(f"labels from {labels.min()} to {labels.max()}: expected 0 to {classes - 1}")
    if latents.dtype != kind or (labels is not None and labels.dtype != np.uint8):
        found = latents.dtype if labels is None else f"{latents.dtype}, labels {labels.dtype}"
        raise UsageError(f"latents {found}: expected latents {kind}, and labels, if any, uint8")


def _settling(layer: Layer, shape: tuple[int, ...]) -> Callable[[Floats], Floats]:
    """From quotients to activations, in place: round half to even, clip, and leaky ReLU."""
    low, high = np.float32(layer.low), np.float32(layer.low + LEVELS - 1)
    negative = np.empty(shape, np.float32)

    def settle(hidden: Floats) -> Floats:
        np.rint(hidden, out=hidden)
        np.clip(hidden, low, high, out=hidden)
        if layer.activates:  # a fifth of an integer is never half-way, so that its rounding cannot go wrong
            np.rint(np.multiply(hidden, np.float32(LEAKY_SLOPE), out=negative), out=negative)
            np.maximum(hidden, negative, out=hidden)
        return hidden

    return settle


def _leaky_relu(hidden: Floats) -> Floats:
    """Apply it in place, and return the argument."""
    np.maximum(hidden, hidden * np.float32(LEAKY_SLOPE), out=hidden)
    return hidden
