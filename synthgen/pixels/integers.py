"""A generator as integers: what a checkpoint holds, and the bounds that make every engine agree (docs/pixels.md)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from synthgen.pixels.folded import STEM_SIDE, Shape
from synthgen.pixels.layers import taps
from synthgen.pixels.tables import LATENT_LIMIT

Integers = npt.NDArray[np.int64]
Arrays = dict[str, npt.NDArray[np.generic]]

SUM_LIMIT = 1 << 24  # float32 holds every integer below it, so that no order of summation rounds
WEIGHT_LIMIT = 64  # two products of an 8-bit activation with such weights stay within 16 bits
MAX_SHIFT = 30  # halvings between a sum and its activation
LEVELS = 256  # values of an activation


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer: sums of products, then a division by a power of two, rounded half to even, and clipped to 8 bits.

    Attributes:
        weights: int8; dense (latent size, 49, width), doubling (k, k, out, in), last (2, 3, 3, in): of the activations
            before it, and of their positive parts.
        bias: int32; dense (max(classes, 1), 49, width), doubling (out,), last (1,).
        shift: uint8; dense (49, width), doubling (out,), last (1,): the sum is divided by 2 to this power.
        low: the smallest value of the rounded quotient, -255 to 0; the largest is ``low + 255``. Unused in the last.
        activates: whether a leaky ReLU follows. None follows the second doubling layer: the last one weighs positive
            parts apart instead, which saves the finest pixels a rounding.
    """

    weights: npt.NDArray[np.int8]
    bias: npt.NDArray[np.int32]
    shift: npt.NDArray[np.uint8]
    low: int
    activates: bool = True

    @property
    def scaled_weights(self) -> npt.NDArray[np.float64]:
        """The weights, each divided by the power of two of its output: float32 holds them exactly."""
        scale = 0.5 ** self.shift.astype(np.float64)
        return self.weights * (
            scale if scale.ndim == 2 else scale[:, None]
        )  # a doubling layer's outputs come before in

    @property
    def scaled_bias(self) -> npt.NDArray[np.float64]:
        """The bias, divided as the weights are."""
        scaled: npt.NDArray[np.float64] = self.bias * 0.5 ** self.shift.astype(np.float64)
        return scaled

    @property
    def lowest(self) -> int:
        """The smallest value after the activation."""
        return leaky(self.low) if self.activates else self.low

    @property
    def highest(self) -> int:
        """The largest value after the activation."""
        return self.low + LEVELS - 1

    @property
    def largest(self) -> int:
        """The largest absolute value after the activation."""
        return max(-self.lowest, self.highest)


@dataclass(frozen=True, kw_only=True)
class IntegerGenerator:
    """A generator of integers.

    Attributes:
        dense: latents → 7×7 pixels.
        stages: 7×7 → 14×14 → 28×28.
        last: → logits.
    """

    dense: Layer
    stages: tuple[Layer, Layer]
    last: Layer

    def __post_init__(self) -> None:
        for name, layer in zip(_LAYERS, self.layers, strict=True):
            _expect_bounded(name, layer)
        _expect_small_sums("dense", np.abs(self.dense.weights.astype(np.int64)).sum(0) * LATENT_LIMIT, self.dense.bias)
        for name, layer, before in zip(_LAYERS[1:3], self.stages, self.layers[:2], strict=True):
            _expect_small_sums(name, stage_sums(layer.weights) * before.largest, layer.bias)
        plain, positive = np.abs(self.last.weights.astype(np.int64)).sum((1, 2, 3))
        second = self.stages[1]
        _expect_small_sums("image", plain * second.largest + positive * second.highest, self.last.bias)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers in order."""
        return (self.dense, *self.stages, self.last)

    @property
    def latent_size(self) -> int:
        """Latents of an image."""
        return int(self.dense.weights.shape[0])

    @property
    def classes(self) -> int:
        """Rows of the dense layer's bias: one for each class, or one for all images."""
        return int(self.dense.bias.shape[0])

    def arrays(self) -> Arrays:
        """The content of a checkpoint's ``generator.h5``; ``from_arrays`` reads it back."""
        found: Arrays = {}
        for name, layer in zip(_LAYERS, self.layers, strict=True):
            found[f"/{name}/weights"], found[f"/{name}/bias"] = layer.weights, layer.bias
            found[f"/{name}/shift"] = layer.shift
            if name != "image":
                found[f"/{name}/low"] = np.array([layer.low], np.int16)
        return found

    @classmethod
    def from_arrays(cls, shape: Shape, arrays: Mapping[str, npt.NDArray[np.generic]]) -> "IntegerGenerator":
        """Read ``arrays`` back.

        Raises:
            ValueError: an array is missing, belongs to no layer, or has a wrong type or shape; a value is out of range,
                or a sum could reach 2^24.
        """
        left, (width, *widths) = dict(arrays), shape.widths
        layers = [
            _layer(
                left,
                "dense",
                (shape.latent_size, STEM_SIDE**2, width),
                (max(shape.classes, 1), STEM_SIDE**2, width),
                (STEM_SIDE**2, width),
                shape.batch_norm,
            )
        ]
        for name, filters in zip(_LAYERS[1:3], widths, strict=True):
            kernel = (shape.kernel_size, shape.kernel_size, filters, width)
            layers.append(_layer(left, name, kernel, (filters,), (filters,), name == "stage_1"))
            width = filters
        layers.append(_layer(left, "image", (2, 3, 3, width), (1,), (1,), False))
        if left:
            raise ValueError(f"{min(left)!r:.80} belongs to no layer")
        dense, first, second, last = layers
        return cls(dense=dense, stages=(first, second), last=last)


_LAYERS = ("dense", "stage_1", "stage_2", "image")


def leaky(value: int) -> int:
    """Leaky ReLU of an integer: itself, or below zero the integer nearest to a fifth of it. There are no ties."""
    return value if value >= 0 else -((2 * -value + 5) // 10)


def stage_sums(weights: npt.NDArray[np.int8]) -> Integers:
    """The largest sum of absolute weights that a pixel of a doubling layer adds up, for each channel, (out,)."""
    sizes = np.abs(weights.astype(np.int64))
    phases = [taps(weights.shape[0], phase) for phase in (0, 1)]
    largest: Integers = np.max([sizes[np.ix_(list(a), list(b))].sum((0, 1, 3)) for a in phases for b in phases], axis=0)
    return largest


def _layer(
    left: Arrays,
    name: str,
    weights: tuple[int, ...],
    bias: tuple[int, ...],
    shift: tuple[int, ...],
    activates: bool,
) -> Layer:
    last = name == "image"
    return Layer(
        weights=_taken(left, f"/{name}/weights", np.int8, weights),
        bias=_taken(left, f"/{name}/bias", np.int32, bias),
        shift=_taken(left, f"/{name}/shift", np.uint8, shift),
        low=0 if last else int(_taken(left, f"/{name}/low", np.int16, (1,))[0]),
        activates=activates,
    )


def _taken(
    left: dict[str, npt.NDArray[np.generic]], name: str, kind: npt.DTypeLike, shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    found = left.pop(name, None)
    if found is None:
        raise ValueError(f"'{name}' is missing")
    if found.dtype != kind or found.shape != shape:
        wanted = np.dtype(kind)
        raise ValueError(f"'{name}' is {found.dtype} of shape {found.shape}; expected {wanted} of shape {shape}")
    return found


def _expect_bounded(name: str, layer: Layer) -> None:
    if (np.abs(layer.weights.astype(np.int16)) > WEIGHT_LIMIT).any():
        raise ValueError(f"'/{name}/weights' passes ±{WEIGHT_LIMIT}: two of its products could pass 16 bits")
    if (layer.shift > MAX_SHIFT).any():
        raise ValueError(f"'/{name}/shift' holds {layer.shift.max()}; expected 0 to {MAX_SHIFT}")
    if not 1 - LEVELS <= layer.low <= 0:
        raise ValueError(f"'/{name}/low' is {layer.low}; expected {1 - LEVELS} to 0")


def _expect_small_sums(name: str, products: Integers, bias: npt.NDArray[np.int32]) -> None:
    largest = int((products + np.abs(bias.astype(np.int64))).max())
    if largest >= SUM_LIMIT:
        raise ValueError(f"'/{name}' could add up to {largest:,}, which is not below 2^24")
