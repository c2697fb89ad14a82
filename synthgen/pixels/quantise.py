"""From a trained generator's real weights to integers: scales, rounding and bias correction, layer by layer.

Only the generator's own images are looked at, so that no privacy is spent. The scales are chosen by measuring: for each
output channel several are tried on the images of a calibration block, and the one with the smallest error stays. Each
layer is fitted to the real activations on the whole activations before it, so that it makes up for some of their error.
"""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from synthgen.pixels.folded import LEAKY_SLOPE, STEM_SIDE, Folded, Reals
from synthgen.pixels.integers import LEVELS, MAX_SHIFT, SUM_LIMIT, WEIGHT_LIMIT, IntegerGenerator, Layer
from synthgen.pixels.layers import Floats, taps
from synthgen.pixels.tables import LATENT_LIMIT, LOGIT_SCALE
from synthgen.subject import IMAGE_SIDE

_LOW = -112  # of every layer: after the leaky ReLU, the room below zero counts a fifth
_TRIES = np.geomspace(0.7, 4.0, 15)  # scales, in units of the one that clips nothing
_ROWS, _VALUES = 20_000, 8_000_000  # output pixels, of each phase, on which scales are tried, and most inputs of all
_DAMPING = 0.01  # of the inputs' second moments, which keeps weights of rare inputs near their own values
_EVEN = 0.05  # of the mean importance of a pixel, which every pixel has
_SEED = 12  # of the choice of these pixels


def quantise(
    folded: Folded, latents: npt.NDArray[np.int8], labels: npt.NDArray[np.uint8] | None, latent_scale: int
) -> IntegerGenerator:
    """Round a generator to integers.

    Args:
        folded: its weights.
        latents: int8 (N, latent size), of the calibration images.
        labels: uint8 (N,), or None for an unconditional generator.
        latent_scale: the integer that stands for a latent of 1.0.

    Raises:
        ValueError: the weights are so large that they draw no numbers, or differ so much in size that no scale serves
            them.
    """
    with np.errstate(all="ignore"):  # what is no number in the end is refused
        fitting = _Fitting(folded, latents.astype(np.float32) / np.float32(latent_scale), labels)
        dense = fitting.dense(folded, latents.astype(np.float32), latent_scale)
        (kernel, bias), (second_kernel, second_bias) = folded.stages
        first = fitting.stage(kernel, bias, activates=True)
        second = fitting.stage(second_kernel, second_bias, activates=False)
        last = fitting.last(folded.last, folded.last_bias)
    return IntegerGenerator(dense=dense, stages=(first, second), last=last)


class _Fitting:
    """The layers one after the other, with the activations of the calibration images before the next one."""

    def __init__(self, folded: Folded, latents: Floats, labels: npt.NDArray[np.uint8] | None) -> None:
        self._random = np.random.Generator(np.random.Philox(_SEED))
        self._places = np.zeros(len(latents), np.int64) if labels is None else labels.astype(np.int64)
        logits = _logits(folded, latents, self._places)
        if not np.isfinite(logits).all():
            raise ValueError("the weights are so large that they draw no numbers; train it anew")
        self._importance = _importance(logits)
        self._real: Floats  # activations of the real generator, (N, side, side, channels)
        self._whole: Floats  # those of the integers
        self._scale: Reals  # (channels,): the integer that stands for an activation of 1.0
        self._limit = LATENT_LIMIT  # of an integer activation's absolute value

    def dense(self, folded: Folded, latents: Floats, latent_scale: int) -> Layer:
        """Its scales are of channels, not of pixels, since the next kernel passes over them; its shifts are of both."""
        size, pixels, width = folded.dense.shape
        weights, biases = (folded.dense / latent_scale).reshape(size, -1), folded.dense_bias
        biases = biases.reshape(len(biases), -1)
        real = (latents @ weights.astype(np.float32) + biases[self._places].astype(np.float32)).reshape(-1, width)

        def fitted(scale: Reals) -> tuple[Reals, Reals, Reals]:
            shift = _shifts(weights, np.tile(scale, pixels), np.abs(biases).max(0), self._limit)
            unit = np.tile(scale, pixels) * 2.0**shift
            return np.rint(weights * unit), np.rint(biases * unit), shift

        def quotients(scale: Reals) -> Floats:
            whole, bias, shift = fitted(scale)
            sums = latents @ whole.astype(np.float32) + bias[self._places].astype(np.float32)
            return (sums * (0.5**shift).astype(np.float32)).reshape(-1, width)

        roof = _roof(np.abs(weights).max(0).reshape(pixels, width).max(0))
        self._scale = _best_scales(real, quotients, roof, self._importance[STEM_SIDE].ravel(), folded.dense_activates)
        whole, bias, shift = fitted(self._scale)
        layer = _layer(
            whole.reshape(folded.dense.shape),
            bias.reshape(folded.dense_bias.shape),
            shift.reshape(pixels, width),
            activates=folded.dense_activates,
        )
        self._advance(layer, real, quotients(self._scale), STEM_SIDE)
        return layer

    def stage(self, kernel: Reals, bias: Reals, *, activates: bool) -> Layer:
        """Scales and shifts are of output channels; the biases take up the mean error."""
        weights = kernel / self._scale  # what one integer step of an input adds
        phases, positions = list(_phases(kernel.shape[0])), self._whole[..., 0].size
        rows = min(_ROWS, _VALUES // max(len(phase) * kernel.shape[3] for phase in phases), positions)
        chosen = self._random.choice(positions, rows, replace=False)
        inputs = [_windows(self._whole, phase).reshape(positions, -1)[chosen] for phase in phases]
        shown = bias.astype(np.float32)
        reals = [
            _windows(self._real, phase).reshape(positions, -1)[chosen] @ _matrix(kernel, phase) + shown
            for phase in phases
        ]
        real, side = np.concatenate(reals), 2 * self._real.shape[1]
        importance = _by_phase(self._importance[side])[:, chosen]

        def shifts(scale: Reals) -> Reals:
            shift = [_shifts(_matrix(weights, p).astype(np.float64), scale, np.abs(bias), self._limit) for p in phases]
            least: Reals = np.min(shift, axis=0)
            return least

        def quotients(scale: Reals) -> Floats:
            shift = shifts(scale)
            unit = scale * 2.0**shift
            whole = np.rint(weights * unit[:, None])
            sums = np.concatenate([x @ _matrix(whole, p) for x, p in zip(inputs, phases, strict=True)])
            offset = np.average(real * unit - sums, axis=0, weights=importance.ravel())
            quotient: Floats = (sums + offset.astype(np.float32)) * (0.5**shift).astype(np.float32)
            return quotient

        self._scale = _best_scales(
            real, quotients, _roof(np.abs(weights).max((0, 1, 3))), importance.ravel(), activates
        )
        shift = shifts(self._scale)
        unit, whole, offsets = self._scale * 2.0**shift, np.zeros(kernel.shape), []
        for x, y, phase, weight in zip(inputs, reals, phases, importance, strict=True):
            matrix = _rounded(_matrix(weights, phase) * unit, x, y * unit, weight)
            for (u, v, _, _), part in zip(phase, np.split(matrix, len(phase)) if phase else [], strict=True):
                whole[u, v] = part.T
            offsets.append(np.average(y * unit - x @ matrix, axis=0, weights=weight))
        offset = np.rint(np.mean(offsets, axis=0))
        layer = _layer(whole, offset, shift, activates=activates)
        sums = (_doubled(self._whole, whole) + offset.astype(np.float32)) * (0.5**shift).astype(np.float32)
        self._advance(layer, _doubled(self._real, kernel) + bias.astype(np.float32), sums, side)
        return layer

    def _advance(self, layer: Layer, real: Floats, quotients: Floats, side: int) -> None:
        """Take the step to the next layer: what both kinds of generator give to it."""
        shape = (len(self._places), side, side, -1)
        self._real = _activated(real, layer.activates).reshape(shape)
        self._whole = _levels(quotients, layer.activates).reshape(shape)
        self._limit = layer.largest

    def last(self, kernel: Reals, bias: float) -> Layer:
        """An output integer is a logit of 1 / 128. The leaky ReLU before it is in its weights.

        Where weights are too large for that, logits become smaller: nearly all pixels are black or white all the same.
        """
        both = np.stack([kernel * LEAKY_SLOPE, kernel * (1 - LEAKY_SLOPE)]) / self._scale
        weights = both.reshape(-1, 1)
        scale = np.minimum(float(LOGIT_SCALE), _roof(np.abs(weights).max(0)))
        shift = _shifts(weights, scale, np.array([abs(bias)]), self._limit)
        unit, channels = scale * 2.0**shift, kernel.shape[2]
        chosen = self._random.choice(self._whole[..., 0].size, _ROWS, replace=False)
        parts = [_windows(h, _LAST).reshape(-1, 9 * channels)[chosen] for h in _parts(self._whole)]
        real = _windows(_activated(self._real), _LAST).reshape(-1, 9 * channels)[chosen]
        inputs, target = np.concatenate(parts, axis=1), (real @ kernel.reshape(-1, 1) + bias) * unit
        importance = self._importance[0].ravel()[chosen]
        whole = _rounded(weights * unit, inputs, target, importance)
        offset = np.average(target - inputs @ whole, axis=0, weights=importance)
        return _layer(whole.reshape(both.shape), np.rint(offset), shift, activates=False)


def _parts(whole: Floats) -> tuple[Floats, Floats]:
    """Activations, and their positive parts."""
    return whole, np.maximum(whole, np.float32(0))


def _rounded(weights: Reals, inputs: Floats, target: Reals, importance: Floats) -> Reals:
    """Whole weights whose products with the inputs come near the target.

    First the real weights are fitted to the target, then they are rounded one input after the other, and the later
    ones make up for each error: GPTQ (Frantar et al. 2023, arXiv:2210.17323, section 3).

    Args:
        weights: (inputs, outputs), in integer units.
        inputs: (rows, inputs), whole.
        target: (rows, outputs), in integer units; a constant is left to the bias.
        importance: (rows,).
    """
    if not len(weights):
        return weights
    share = (importance / importance.sum()).astype(np.float64)[:, None]
    centred = inputs - (inputs * share).sum(0)
    products = (centred * share).T @ centred
    order = np.argsort(-np.diag(products), kind="stable")
    products = products[np.ix_(order, order)] + np.eye(len(order)) * (_DAMPING * np.diag(products).mean() + 1e-9)
    left = weights[order].astype(np.float64)
    miss = (centred * share)[:, order].T @ (target - (target * share).sum(0) - centred[:, order] @ left)
    left += np.linalg.solve(products, miss)
    triangle = np.linalg.cholesky(np.linalg.inv(products)).T
    whole = np.empty_like(left)
    for i in range(len(left)):
        whole[i] = np.clip(np.rint(left[i]), -WEIGHT_LIMIT, WEIGHT_LIMIT)
        left[i + 1 :] -= triangle[i, i + 1 :, None] * ((left[i] - whole[i]) / triangle[i, i])
    back = np.empty_like(whole)
    back[order] = whole
    return back


def _best_scales(
    real: Floats, quotients: Callable[[Reals], Floats], roof: Reals, importance: Floats, activates: bool
) -> Reals:
    """For each channel the scale, of those tried, with the smallest squared error after the activation.

    Args:
        real: the real generator's values before the activation, (rows, channels).
        quotients: what the integers give for them, before rounding, for a scale of each channel.
        roof: what no scale may pass.
        importance: (rows,).
        activates: whether a leaky ReLU follows.
    """
    target = _activated(real, activates)
    widest = np.minimum((_LOW + LEVELS - 1) / np.maximum(np.abs(real).max(0), 1e-6), roof)
    best: Reals = widest.astype(np.float64)
    least = np.full(roof.shape, np.inf)
    for factor in _TRIES:
        scale = np.minimum(widest * factor, roof)
        errors = _levels(quotients(scale), activates) / scale.astype(np.float32) - target
        error = importance @ np.square(errors, out=errors)
        best, least = np.where(error < least, scale, best), np.minimum(error, least)
    return best


def _logits(folded: Folded, latents: Floats, places: npt.NDArray[np.int64]) -> Floats:
    """The real generator's logits, (N, 28, 28)."""
    shape = (len(latents), STEM_SIDE, STEM_SIDE, -1)
    hidden = np.einsum("nl,lpw->npw", latents, folded.dense.astype(np.float32), optimize=True)
    hidden = _activated(hidden + folded.dense_bias[places].astype(np.float32), folded.dense_activates).reshape(shape)
    for kernel, bias in folded.stages:
        hidden = _activated(_doubled(hidden, kernel) + bias.astype(np.float32), True)
    logits: Floats = _windows(hidden, _LAST) @ folded.last.reshape(-1, 1).astype(np.float32) + np.float32(
        folded.last_bias
    )
    return logits[..., 0]


def _importance(logits: Floats) -> dict[int, Floats]:
    """How much an error of each pixel of a layer's output matters for the image: side → (N, side, side); 0: the last's.

    A logit matters by the square of the grey level's slope there, which saturated pixels lack. A pixel of an earlier
    layer matters as those do that depend on it. A small part is the same for all.
    """
    sigmoid = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
    maps = {0: np.square(sigmoid * (1 - sigmoid))}
    wide = np.pad(maps[0], ((0, 0), (1, 1), (1, 1)))
    side = IMAGE_SIDE
    maps[side] = np.sum([wide[:, u : u + side, v : v + side] for u, v in np.ndindex(3, 3)], axis=0)
    while side > STEM_SIDE:
        wide = np.pad(maps[side], ((0, 0), (1, 1), (1, 1)))
        side //= 2
        maps[side] = np.sum([wide[:, u : u + 2 * side : 2, v : v + 2 * side : 2] for u, v in np.ndindex(4, 4)], axis=0)
    # Where all pixels are white, none matters.
    return {side: (found / max(found.mean(), 1e-30) + _EVEN).astype(np.float32) for side, found in maps.items()}


def _by_phase(pixels: Floats) -> Floats:
    """(N, 2 · side, 2 · side) → (4, N · side²): the pixels of each phase."""
    apart = [pixels[:, a::2, b::2].ravel() for a, b in np.ndindex(2, 2)]
    return np.stack(apart)


def _levels(quotients: Floats, activates: bool) -> Floats:
    """What an engine makes of quotients."""
    levels = np.clip(np.rint(quotients), _LOW, _LOW + LEVELS - 1)
    return np.maximum(levels, np.rint(levels * np.float32(LEAKY_SLOPE))) if activates else levels


def _activated(real: Floats, activates: bool = True) -> Floats:
    return np.maximum(real, real * np.float32(LEAKY_SLOPE)) if activates else real


def _shifts(weights: Reals, scale: Reals, bias: Reals, limit: int) -> Reals:
    """For each output, the largest power of two with which weights and sums stay within their bounds; 0 at least.

    Args:
        weights: (inputs, outputs), what an integer step of an input adds to the real output.
        scale: (outputs,): the integer output that stands for 1.0.
        bias: (outputs,), its absolute value.
        limit: of an input's absolute value.
    """
    # A phase of a kernel of one row has no weights at all.
    sizes, sums = np.abs(weights).max(0, initial=0) * scale, np.abs(weights).sum(0) * scale
    tiny = 2.0**-MAX_SHIFT
    by_weight = (WEIGHT_LIMIT + 0.49) / np.maximum(sizes, tiny)
    rounding = limit * len(weights) / 2  # by so much, rounded weights may add up to more
    by_sum = (SUM_LIMIT / 2 - rounding) / np.maximum(sums * limit + bias * scale, tiny)
    largest: Reals = np.clip(np.floor(np.log2(np.maximum(np.minimum(by_weight, by_sum), 1.0))), 0, MAX_SHIFT)
    return largest


def _roof(largest: Reals) -> Reals:
    """The largest scale of each channel at which its largest weight, an integer, stays within its limit."""
    return np.minimum(WEIGHT_LIMIT / np.maximum(largest, 1e-12), 1e9)


def _layer(whole: Reals, bias: Reals, shift: Reals, low: int = _LOW, activates: bool = True) -> Layer:
    if not ((np.abs(whole) <= WEIGHT_LIMIT).all() and (np.abs(bias) < SUM_LIMIT).all()):  # or they are no numbers
        raise ValueError("the weights differ so much in size that no scale serves them; train it anew")
    return Layer(
        weights=whole.astype(np.int8),
        bias=bias.astype(np.int32),
        shift=shift.astype(np.uint8),
        low=low,
        activates=activates,
    )


_Phase = tuple[tuple[int, int, int, int], ...]  # kernel row and column, and the input's row and column they multiply
_LAST: _Phase = tuple((u, v, 1 - u, 1 - v) for u, v in np.ndindex(3, 3))  # of the layer that makes the image


def _phases(size: int) -> Iterator[_Phase]:
    """The taps of the four kinds of output pixel."""
    for rows in (taps(size, 0), taps(size, 1)):
        for columns in (taps(size, 0), taps(size, 1)):
            yield tuple((u, v, d, e) for u, d in rows.items() for v, e in columns.items())


def _matrix(kernel: Reals, phase: _Phase) -> Floats:
    """A phase of a kernel (k, k, out, in), as (inputs of an output pixel, out)."""
    taken = [kernel[u, v].T for u, v, _, _ in phase] or [np.zeros((0, kernel.shape[2]))]
    return np.concatenate(taken).astype(np.float32)


def _windows(hidden: Floats, phase: _Phase) -> Floats:
    """The inputs of each output pixel of a phase, (N, side, side, taps · channels)."""
    side, reach = hidden.shape[1], 3
    framed = np.pad(hidden, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    found = [framed[:, reach + d : reach + d + side, reach + e : reach + e + side] for _, _, d, e in phase]
    return np.concatenate(found or [hidden[..., :0]], axis=3)


def _doubled(hidden: Floats, kernel: Reals) -> Floats:
    """The transposed convolution of stride 2: (N, side, side, in) → (N, 2 · side, 2 · side, out)."""
    count, side = hidden.shape[:2]
    output = np.empty((count, side, 2, side, 2, kernel.shape[2]), np.float32)
    for (a, b), phase in zip(np.ndindex(2, 2), _phases(kernel.shape[0]), strict=True):
        output[:, :, a, :, b] = _windows(hidden, phase) @ _matrix(kernel, phase)
    return output.reshape(count, 2 * side, 2 * side, -1)
