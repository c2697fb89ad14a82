"""A trained generator in numpy: it draws images without TensorFlow.

It starts in a tenth of TensorFlow's time and draws an image in half of it. Batch norm is folded into the weights. Every
transposed convolution is computed as its output phases, each one small matrix product a pixel (``_Doubling``). The
images of a chunk lie along the innermost axis: all other operations work on long rows, and a chunk stays in the
processor's cache.
"""

import itertools
import threading
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided
from threadpoolctl import ThreadpoolController

from synthgen.errors import CheckpointError, UsageError
from synthgen.fashion import IMAGE_SIDE, NUM_CLASSES, Images
from synthgen.index import pieces
from synthgen.model.recipe import Recipe

Floats = npt.NDArray[np.float32]

STEM_SIDE = 7  # pixels; two stages double it to 14 and 28
LEAKY_SLOPE = 0.2
_CHUNK = 32  # images; 16 or 64 are no faster
_BATCH_NORM_EPSILON = 1e-3  # Keras's


class Generator:
    """A generator as a function of latents and labels; ``networks.build_generator`` makes the same in Keras.

    Args:
        recipe: how it is built.
        arrays: its weights by their names in a Keras weights file, such as ``/layers/dense/vars/0``.

    Raises:
        ValueError: an array is missing, belongs to no layer, has a wrong shape, or holds NaN or infinity.
    """

    def __init__(self, recipe: Recipe, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
        section = recipe.generator
        weights = _Weights(arrays)
        self._latent_size, self._conditional = recipe.latent.size, recipe.conditional
        inputs = self._latent_size + (NUM_CLASSES if self._conditional else 0)
        width = section.stem_filters
        dense = weights.take("dense", 0, (inputs, STEM_SIDE**2 * width)).reshape(inputs, STEM_SIDE**2, width)
        if section.batch_norm:
            scale, shift = weights.batch_norm(width)
            dense, bias = dense * scale, np.broadcast_to(shift, (STEM_SIDE**2, width))
        else:
            bias = weights.take("dense", 1, (STEM_SIDE**2 * width,)).reshape(STEM_SIDE**2, width)
        # The bias is the weight of one more input, which is always 1. Each pixel is one matrix product.
        self._stem = _float32(np.concatenate([dense, bias[None]]).transpose(1, 2, 0))
        self._stem_activates = section.batch_norm  # without batch norm the Keras generator has no activation here
        self._inputs = np.zeros((inputs + 1, _CHUNK), np.float32)
        self._inputs[-1] = 1
        self._hidden = np.empty((STEM_SIDE**2, width, _CHUNK), np.float32)
        self._stages: list[_Doubling] = []
        side = STEM_SIDE
        for filters in section.filters:
            kernel = weights.take("conv2d_transpose", 0, (section.kernel_size, section.kernel_size, filters, width))
            if section.batch_norm:
                scale, bias = weights.batch_norm(filters)
                kernel = kernel * scale[:, None]
            else:
                bias = weights.take("conv2d_transpose", 1, (filters,))
            weights.next("conv2d_transpose")
            self._stages.append(_Doubling(kernel, bias, side))
            width, side = filters, 2 * side
        kernel = weights.take("conv2d_transpose", 0, (3, 3, 1, width))
        bias = weights.take("conv2d_transpose", 1, (1,))
        self._last = _ConvolutionToOne(kernel[:, :, 0], float(bias[0]), side)
        weights.expect_all_taken()
        self._lock = threading.Lock()  # every call uses the same arrays between the layers
        self._pools = ThreadpoolController()  # a product that threads share may be summed in another order

    def __call__(self, latents: Floats, labels: npt.NDArray[np.uint8] | None) -> Images:
        """Draw images.

        Every chunk is computed at one shape, so that an image depends on its own latent and label alone.

        Args:
            latents: float32, shape (N, size).
            labels: uint8, shape (N,), 0 to 9; None for an unconditional generator.

        Returns:
            uint8, shape (N, 28, 28).

        Raises:
            UsageError: latents or labels of another shape, or labels above 9.
            CheckpointError: the weights are so large that the result is no finite number.
        """
        self._expect(latents, labels)
        images = np.empty((len(latents), IMAGE_SIDE, IMAGE_SIDE), np.uint8)
        classes = np.arange(NUM_CLASSES)[:, None]
        quiet = np.errstate(over="ignore", invalid="ignore")  # where exp is infinite, the pixel is 0
        with self._lock, self._pools.limit(limits=1), quiet:
            for piece in pieces(len(latents), _CHUNK):
                count = piece.stop - piece.start
                self._inputs[: self._latent_size, :count] = latents[piece].T
                if labels is not None:
                    self._inputs[self._latent_size : -1, :count] = labels[piece] == classes
                images[piece] = self._draw()[..., :count].transpose(2, 0, 1)
        return images

    def _expect(self, latents: Floats, labels: npt.NDArray[np.uint8] | None) -> None:
        if latents.ndim != 2 or latents.shape[1] != self._latent_size:
            raise UsageError(f"latents of shape {latents.shape}: expected (N, {self._latent_size})")
        if (labels is not None) != self._conditional:
            wanted = "a label for each image" if self._conditional else "no labels: the generator is unconditional"
            raise UsageError(f"labels {'given' if labels is not None else 'missing'}: expected {wanted}")
        if labels is not None and labels.shape != (len(latents),):
            raise UsageError(f"labels of shape {labels.shape}: expected ({len(latents)},), one for each latent")
        if labels is not None and not ((labels >= 0) & (labels < NUM_CLASSES)).all():
            raise UsageError(f"labels from {labels.min()} to {labels.max()}: expected 0 to {NUM_CLASSES - 1}")

    def _draw(self) -> Images:
        """The images of one chunk, uint8 (28, 28, chunk)."""
        hidden = np.matmul(self._stem, self._inputs, out=self._hidden)
        if self._stem_activates:
            _leaky_relu(hidden)
        for stage in self._stages:
            hidden = _leaky_relu(stage(hidden))
        logits = self._last(hidden)
        if not np.isfinite(logits).all():
            raise CheckpointError("the generator's weights are so large that it draws no numbers; train it anew")
        pixels = np.exp(np.negative(logits, out=logits), out=logits)  # 255 · sigmoid, in place
        pixels += np.float32(1)
        return np.rint(np.divide(np.float32(255), pixels, out=pixels), out=pixels).astype(np.uint8)


class _Doubling:
    """Keras's ``Conv2DTranspose`` of stride 2 and padding "same", on square images whose batch is the innermost axis.

    Output pixel (2i + a, 2j + b) depends on a few inputs (i + d, j + e) only. So each of the four phases (a, b) is a
    small ordinary convolution over the inputs (Shi et al. 2016, arXiv:1609.07009). ``_windows`` stores every input
    row beside the rows that a phase combines it with. The inputs of one output pixel are then one contiguous piece,
    and a phase is the product of its kernel with each of these overlapping pieces.

    Args:
        kernel: (k, k, out, in), as Keras has it.
        bias: (out,).
        side: rows and columns of the input.
    """

    def __init__(self, kernel: npt.NDArray[np.floating], bias: npt.NDArray[np.floating], side: int) -> None:
        size, _, filters, channels = kernel.shape
        self._input_shape = (side, side, channels, _CHUNK)
        taps = [_taps(size, phase) for phase in (0, 1)]
        first = [min(phase.values(), default=0) for phase in taps]
        reach = max(max(phase.values(), default=0) - low + 1 for phase, low in zip(taps, first, strict=True))
        # _windows[r, c, t] = input[r + t + lowest, c + lowest], zero beyond the border
        lowest = min(first)
        rows = side + max(first) - lowest
        self._windows = np.zeros((rows, rows + reach - 1, reach, channels, _CHUNK), np.float32)
        self._copies = []  # (rows of the input, their place in _windows)
        for t in range(reach):
            top, bottom = max(0, lowest + t), min(side, rows + lowest + t)
            target = self._windows[top - lowest - t : bottom - lowest - t, -lowest : side - lowest, t]
            self._copies.append((slice(top, bottom), target))
        self._output = np.empty((side, 2, side, 2, filters, _CHUNK), np.float32)
        self._products = []  # (kernel, pieces, output) of each phase
        row, column, _, channel, item = self._windows.strides
        for a, b in np.ndindex(2, 2):
            phase = np.zeros((filters, reach, reach, channels))  # out, column, row, in: the order within a piece
            for (u, d), (v, e) in itertools.product(taps[a].items(), taps[b].items()):
                phase[:, e - first[b], d - first[a]] = kernel[u, v]
            inputs = as_strided(
                self._windows[first[a] - lowest :, first[b] - lowest :],
                (side, side, reach * reach * channels, _CHUNK),
                (row, column, channel, item),
                writeable=False,
            )
            self._products.append((_float32(phase.reshape(filters, -1)), inputs, self._output[:, a, :, b]))
        self._bias = _float32(np.repeat(bias[:, None], _CHUNK, axis=1))

    def __call__(self, hidden: Floats) -> Floats:
        """(side, side, in, chunk) → (2 · side, 2 · side, out, chunk); the next call overwrites the result."""
        hidden = hidden.reshape(self._input_shape)
        for rows, target in self._copies:
            target[...] = hidden[rows]
        for kernel, inputs, output in self._products:
            np.matmul(kernel, inputs, out=output)
        self._output += self._bias
        side, _, _, _, filters, chunk = self._output.shape
        return self._output.reshape(2 * side, 2 * side, filters, chunk)


class _ConvolutionToOne:
    """Keras's ``Conv2DTranspose`` of stride 1 and padding "same" to one channel: each pixel adds to its neighbours.

    Args:
        kernel: (3, 3, in).
        bias: added to every pixel.
        side: rows and columns of the images.
    """

    def __init__(self, kernel: npt.NDArray[np.floating], bias: float, side: int) -> None:
        self._side, self._bias = side, np.float32(bias)
        self._kernel = _float32(kernel.reshape(9, -1))
        self._spread = np.empty((side, side, 9, _CHUNK), np.float32)
        self._framed = np.empty((side + 2, side + 2, _CHUNK), np.float32)

    def __call__(self, hidden: Floats) -> Floats:
        """(side, side, in, chunk) → (side, side, chunk); the next call overwrites the result."""
        np.matmul(self._kernel, hidden, out=self._spread)
        self._framed[:] = self._bias
        for u, v in np.ndindex(3, 3):
            self._framed[u : u + self._side, v : v + self._side] += self._spread[:, :, 3 * u + v]
        return self._framed[1:-1, 1:-1]


class _Weights:
    """The arrays of a weights file, read layer by layer; Keras names layers of one kind ``name``, ``name_1``, …"""

    def __init__(self, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
        self._arrays = dict(arrays)
        self._layers: dict[str, int] = {}

    def take(self, kind: str, number: int, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Variable ``number`` of the current layer of a kind, removed from the arrays."""
        index = self._layers.get(kind, 0)
        name = f"/layers/{kind}{f'_{index}' if index else ''}/vars/{number}"
        found = self._arrays.pop(name, None)
        if found is None:
            raise ValueError(f"'{name}' is missing")
        if found.shape != shape:
            raise ValueError(f"'{name}' has shape {found.shape}; expected {shape}")
        return found.astype(np.float64)

    def next(self, kind: str) -> None:
        """Go on to the next layer of a kind."""
        self._layers[kind] = self._layers.get(kind, 0) + 1

    def batch_norm(self, channels: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The next batch norm as a scale and a shift, which is all that is left of it after training."""
        gamma, beta, mean, variance = (self.take("batch_normalization", i, (channels,)) for i in range(4))
        self.next("batch_normalization")
        if not variance.min() >= 0:
            raise ValueError("a variance is negative or no number")
        scale = gamma / np.sqrt(variance + _BATCH_NORM_EPSILON)
        return scale, beta - mean * scale

    def expect_all_taken(self) -> None:
        """Raise ValueError if the file holds an array of no layer."""
        if self._arrays:
            raise ValueError(f"{min(self._arrays)!r:.80} belongs to no layer")


def _taps(size: int, phase: int) -> dict[int, int]:
    """For output pixel 2i + phase: each kernel row that adds to it → the d of the input i + d that it multiplies."""
    before = max(size - 2, 0) // 2  # pixels that "same" cuts off the front
    return {u: (phase + before - u) // 2 for u in range(size) if (phase + before - u) % 2 == 0}


def _leaky_relu(hidden: Floats) -> Floats:
    """Apply it in place, and return the argument."""
    np.maximum(hidden, hidden * np.float32(LEAKY_SLOPE), out=hidden)
    return hidden


def _float32(array: npt.NDArray[np.floating]) -> Floats:
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(converted).all():
        raise ValueError("weights that are no finite numbers, by themselves or with batch norm folded in")
    return converted
