"""Generators of integers that tests draw with: small ones of odd shapes, of random weights, the same everywhere."""

import numpy as np
import numpy.typing as npt

from synthgen.pixels.folded import Shape
from synthgen.pixels.integers import IntegerGenerator, Layer, stage_sums


def shape(kernel: int, widths: tuple[int, int, int], latents: int, *, classes: int = 10, norm: bool = True) -> Shape:
    return Shape(latent_size=latents, classes=classes, widths=widths, kernel_size=kernel, batch_norm=norm)


# Each with the distribution of its latents.
SMALL = {
    "kernel 1": (shape(1, (5, 6, 3), 3), "gaussian"),
    "kernel 2": (shape(2, (1, 1, 1), 7, classes=0, norm=False), "uniform"),
    "kernel 3": (shape(3, (3, 5, 1), 5), "gaussian"),
    "kernel 4": (shape(4, (6, 1, 7), 33, norm=False), "uniform"),
    "kernel 5": (shape(5, (1, 3, 2), 1, classes=0), "gaussian"),
    "kernel 6": (shape(6, (2, 9, 5), 8, norm=False), "gaussian"),
    "kernel 7": (shape(7, (5, 6, 3), 16, classes=0), "uniform"),
}


def small_generator(name: str) -> IntegerGenerator:
    return random_generator(SMALL[name][0], sorted(SMALL).index(name))


def random_generator(wanted: Shape, seed: int) -> IntegerGenerator:
    """Weights of the whole range, and scales at which activations take many values."""
    words = _Words(seed)
    classes, (stem, *_), pixels = max(wanted.classes, 1), wanted.widths, 49
    weights = words.within(64, (wanted.latent_size, pixels, stem), np.int8)
    sums = np.abs(weights.astype(np.int64)).sum(0) * 127
    layers = [
        Layer(
            weights=weights,
            bias=words.within(int(sums.max()) // 4, (classes, pixels, stem), np.int32),
            shift=_shift(sums, 9, words),
            low=-words.below(256),
            activates=wanted.batch_norm,
        )
    ]
    for number in (0, 1):
        before, filters = wanted.widths[number : number + 2]
        kernel = words.within(64, (wanted.kernel_size, wanted.kernel_size, filters, before), np.int8)
        sums = stage_sums(kernel) * layers[-1].largest
        bias = words.within(int(sums.max()) // 8 + 200, (filters,), np.int32)
        low = -words.below(256)
        shift = _shift(sums, 9, words)
        layers.append(Layer(weights=kernel, bias=bias, shift=shift, low=low, activates=number == 0))
    last = words.within(64, (2, 3, 3, wanted.widths[2]), np.int8)
    sums = np.abs(last.astype(np.int64)).sum(keepdims=True).reshape(1) * layers[-1].largest
    image = Layer(
        weights=last, bias=words.within(5000, (1,), np.int32), shift=_shift(sums, 12, words), low=0, activates=False
    )
    return IntegerGenerator(dense=layers[0], stages=(layers[1], layers[2]), last=image)


class _Words:
    """Random integers from Philox's raw words, which no version of numpy changes."""

    def __init__(self, seed: int) -> None:
        self._philox = np.random.Philox(key=np.array([seed, 1], np.uint64))

    def below(self, limit: int) -> int:
        return int(self._philox.random_raw()) % limit

    def within(self, limit: int, size: tuple[int, ...], kind: npt.DTypeLike) -> npt.NDArray[np.generic]:
        words = self._philox.random_raw(int(np.prod(size))) % np.uint64(2 * limit + 1)
        return (words.astype(np.int64) - limit).astype(kind).reshape(size)


def _shift(sums: npt.NDArray[np.int64], bits: int, words: _Words) -> npt.NDArray[np.uint8]:
    """Divide the largest sum to about ``bits`` bits, or up to two fewer."""
    lengths = [int(value).bit_length() - bits - words.below(3) for value in sums.ravel()]
    return np.clip(lengths, 0, 30).astype(np.uint8).reshape(sums.shape)
