"""Transposed convolutions as small matrix products, in float32 numpy, on chunks of images.

Every transposed convolution is computed as its output phases, each one small matrix product a pixel (``Doubling``). The
images of a chunk lie along the innermost axis: all other operations work on long rows, and a chunk stays in the
processor's cache.
"""

import itertools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

Floats = npt.NDArray[np.float32]

CHUNK = 32  # images; 16 or 64 are no faster


class Doubling:
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
        self._input_shape = (side, side, channels, CHUNK)
        inputs_of = [taps(size, phase) for phase in (0, 1)]
        first = [min(phase.values(), default=0) for phase in inputs_of]
        reach = max(max(phase.values(), default=0) - low + 1 for phase, low in zip(inputs_of, first, strict=True))
        # _windows[r, c, t] = input[r + t + lowest, c + lowest], zero beyond the border
        lowest = min(first)
        rows = side + max(first) - lowest
        self._windows = np.zeros((rows, rows + reach - 1, reach, channels, CHUNK), np.float32)
        self._copies = []  # (rows of the input, their place in _windows)
        for t in range(reach):
            top, bottom = max(0, lowest + t), min(side, rows + lowest + t)
            target = self._windows[top - lowest - t : bottom - lowest - t, -lowest : side - lowest, t]
            self._copies.append((slice(top, bottom), target))
        self._output = np.empty((side, 2, side, 2, filters, CHUNK), np.float32)
        self.shape = (2 * side, 2 * side, filters, CHUNK)  # of the result
        self._products = []  # (kernel, pieces, output) of each phase
        row, column, _, channel, item = self._windows.strides
        for a, b in np.ndindex(2, 2):
            phase = np.zeros((filters, reach, reach, channels))  # out, column, row, in: the order within a piece
            for (u, d), (v, e) in itertools.product(inputs_of[a].items(), inputs_of[b].items()):
                phase[:, e - first[b], d - first[a]] = kernel[u, v]
            inputs = as_strided(
                self._windows[first[a] - lowest :, first[b] - lowest :],
                (side, side, reach * reach * channels, CHUNK),
                (row, column, channel, item),
                writeable=False,
            )
            self._products.append((float32(phase.reshape(filters, -1)), inputs, self._output[:, a, :, b]))
        self._bias = float32(np.repeat(bias[:, None], CHUNK, axis=1))

    def __call__(self, hidden: Floats) -> Floats:
        """(side, side, in, chunk) → (2 · side, 2 · side, out, chunk); the next call overwrites the result."""
        hidden = hidden.reshape(self._input_shape)
        for rows, target in self._copies:
            target[...] = hidden[rows]
        for kernel, inputs, output in self._products:
            np.matmul(kernel, inputs, out=output)
        self._output += self._bias
        return self._output.reshape(self.shape)


class ConvolutionToOne:
    """Keras's ``Conv2DTranspose`` of stride 1 and padding "same" to one channel: each pixel adds to its neighbours.

    Args:
        kernel: (3, 3, in).
        bias: added to every pixel.
        side: rows and columns of the images.
    """

    def __init__(self, kernel: npt.NDArray[np.floating], bias: float, side: int) -> None:
        self._side, self._bias = side, np.float32(bias)
        self._kernel = float32(kernel.reshape(9, -1))
        self._spread = np.empty((side, side, 9, CHUNK), np.float32)
        self._framed = np.empty((side + 2, side + 2, CHUNK), np.float32)

    def __call__(self, hidden: Floats) -> Floats:
        """(side, side, in, chunk) → (side, side, chunk); the next call overwrites the result."""
        np.matmul(self._kernel, hidden, out=self._spread)
        self._framed[:] = self._bias
        for u, v in np.ndindex(3, 3):
            self._framed[u : u + self._side, v : v + self._side] += self._spread[:, :, 3 * u + v]
        return self._framed[1:-1, 1:-1]


def taps(size: int, phase: int) -> dict[int, int]:
    """For output pixel 2i + phase: each kernel row that adds to it → the d of the input i + d that it multiplies."""
    before = max(size - 2, 0) // 2  # pixels that "same" cuts off the front
    return {u: (phase + before - u) // 2 for u in range(size) if (phase + before - u) % 2 == 0}


class RowKernel(NamedTuple):
    """The pixels of every second row of a doubling layer's output, as an ordinary convolution; see ``row_kernels``."""

    kernel: npt.NDArray[np.int8]  # (2 · out, in, rows, columns)
    pads: list[int]  # top, left, bottom, right


def row_kernels(weights: npt.NDArray[np.int8]) -> tuple[tuple[RowKernel, RowKernel], int]:
    """A doubling kernel as two ordinary convolutions: of the even rows and of the odd rows of its output.

    Each makes two neighbouring pixels at once, as channels (pixel, out), so that its result is rows of pixels in order.

    Args:
        weights: int8 (k, k, out, in), as Keras has it.

    Returns:
        Both convolutions, and 0 or 1: by how many columns their results are wider than their input. If 1, the first and
        the last pixel of each row lie outside the image.
    """
    size, _, filters, channels = weights.shape
    inputs = [taps(size, phase) for phase in (0, 1)]
    first = [min(phase.values(), default=0) for phase in inputs]
    stop = [max(phase.values(), default=0) + 1 for phase in inputs]
    extra = first[1] - first[0]
    width = max(stop[0] - first[0], stop[1] - first[1])
    kernels = []
    for a in (0, 1):
        kernel = np.zeros((2, filters, channels, stop[a] - first[a], width), np.int8)
        for (u, d), b in itertools.product(inputs[a].items(), (0, 1)):
            for v, e in inputs[b].items():
                kernel[1 - b if extra else b, :, :, d - first[a], e - first[b]] = weights[u, v]
        pads = [-first[a], -first[0], stop[a] - 1, extra + width - 1 + first[0]]
        kernels.append(RowKernel(kernel.reshape(2 * filters, *kernel.shape[2:]), pads))
    return (kernels[0], kernels[1]), extra


def float32(array: npt.NDArray[np.floating]) -> Floats:
    """A contiguous float32 copy."""
    return np.ascontiguousarray(array, np.float32)
