"""A trained generator without batch norm: folded into the weights of the layer before it, in float64.

It is what the arrays of a Keras weights file come to; ``floats`` draws with it as it is, ``quantise`` rounds it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]

STEM_SIDE = 7  # pixels; two stages double it to 14 and 28
LEAKY_SLOPE = 0.2
BATCH_NORM_EPSILON = 1e-3  # Keras's


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What decides the shapes of a generator's arrays; see ``model.recipe``.

    Attributes:
        latent_size: latents of an image.
        classes: labels that images have; 0 for an unconditional generator.
        widths: channels of the 7×7, the 14×14 and the 28×28 pixels.
        kernel_size: rows and columns of the two doubling kernels.
        batch_norm: whether each layer but the last ends in a batch norm; without, the first has no activation either.
    """

    latent_size: int
    classes: int
    widths: tuple[int, int, int]
    kernel_size: int
    batch_norm: bool


@dataclass(frozen=True, kw_only=True)
class Folded:
    """The weights of a generator, without batch norm.

    Attributes:
        dense: of the latents, (latent size, 49, width).
        dense_bias: of each class, (max(classes, 1), 49, width).
        dense_activates: whether a leaky ReLU follows the dense layer.
        stages: kernel (k, k, out, in) and bias (out,) of the two doubling layers.
        last: kernel of the layer that makes the image, (3, 3, in).
        last_bias: its bias.
    """

    dense: Reals
    dense_bias: Reals
    dense_activates: bool
    stages: tuple[tuple[Reals, Reals], ...]
    last: Reals
    last_bias: float


def fold(shape: Shape, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Folded:
    """Fold the arrays of a Keras weights file, named such as ``/layers/dense/vars/0``.

    Raises:
        ValueError: an array is missing, belongs to no layer, has a wrong shape, or holds NaN or infinity.
    """
    weights = _Weights(arrays)
    size, (width, *widths) = shape.latent_size, shape.widths
    dense = weights.take("dense", 0, (size + shape.classes, STEM_SIDE**2 * width))
    dense = dense.reshape(size + shape.classes, STEM_SIDE**2, width)
    if shape.batch_norm:
        scale, bias = weights.batch_norm(width)
        dense = dense * scale
    else:
        bias = weights.take("dense", 1, (STEM_SIDE**2 * width,)).reshape(STEM_SIDE**2, width)
    stages = []
    for filters in widths:
        kernel = weights.take("conv2d_transpose", 0, (shape.kernel_size, shape.kernel_size, filters, width))
        if shape.batch_norm:
            scale, shift = weights.batch_norm(filters)
            stages.append((kernel * scale[:, None], shift))
        else:
            stages.append((kernel, weights.take("conv2d_transpose", 1, (filters,))))
        weights.next("conv2d_transpose")
        width = filters
    last = weights.take("conv2d_transpose", 0, (3, 3, 1, width))[:, :, 0]
    last_bias = float(weights.take("conv2d_transpose", 1, (1,))[0])
    weights.expect_all_taken()
    classes = dense[size:] if shape.classes else np.zeros((1, *dense.shape[1:]))
    folded = Folded(
        dense=dense[:size],
        dense_bias=classes + bias,
        dense_activates=shape.batch_norm,
        stages=tuple(stages),
        last=last,
        last_bias=last_bias,
    )
    for array in (folded.dense, folded.dense_bias, *(a for stage in stages for a in stage), last, np.array(last_bias)):
        if not (np.abs(array) <= np.finfo(np.float32).max).all():
            raise ValueError("weights that are no finite numbers, by themselves or with batch norm folded in")
    return folded


class _Weights:
    """The arrays of a weights file, read layer by layer; Keras names layers of one kind ``name``, ``name_1``, …"""

    def __init__(self, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
        self._arrays = dict(arrays)
        self._layers: dict[str, int] = {}

    def take(self, kind: str, number: int, shape: tuple[int, ...]) -> Reals:
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

    def batch_norm(self, channels: int) -> tuple[Reals, Reals]:
        """The next batch norm as a scale and a shift, which is all that is left of it after training."""
        gamma, beta, mean, variance = (self.take("batch_normalization", i, (channels,)) for i in range(4))
        self.next("batch_normalization")
        if not variance.min() >= 0:
            raise ValueError("a variance is negative or no number")
        scale = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
        return scale, beta - mean * scale

    def expect_all_taken(self) -> None:
        """Raise ValueError if the file holds an array of no layer."""
        if self._arrays:
            raise ValueError(f"{min(self._arrays)!r:.80} belongs to no layer")
