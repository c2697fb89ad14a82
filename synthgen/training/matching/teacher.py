"""The private teacher: a linear softmax classifier on fixed public features, trained by DP-SGD.

Tramèr and Boneh 2021, "Differentially private learning needs better features (or much more data)"
(arXiv:2011.11660): on scattering features a linear model beats a deep one under the same privacy. DP-SGD is that of
Abadi et al. 2016 (arXiv:1607.00133), on integers (``privacy.exact``). What is returned is the average of the later
iterates, which costs nothing more: every iterate is released anyway.

What is computed of an image, its logits, gradient and class, depends bit for bit on its own features and on parameters
that are released: logits are exact matrix products of integers, and the rest is of operations that IEEE 754 rounds
correctly, one number at a time. So it is the same in whatever company the image is.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synthgen.privacy.accounting import Mechanism
from synthgen.privacy.exact import EXACT_BITS, Grid, WholeNumbers, expect_countable, whole_rows
from synthgen.privacy.mechanisms import poisson_sample
from synthgen.subject import Labels

WholeRows = npt.NDArray[np.int16]
Watch = Callable[[int, npt.NDArray[np.float64], npt.NDArray[np.float64]], None]

_FEATURE_BITS = 13  # features of norm 1 are integers of norm 2^13
_ROOM = 1 - 2.0**-16  # features of norm 1, to rounding, need no clip
_ROWS = 256  # examples whose features are held as float64 at a time, in the cache
_LEAST_LENGTH = 1e-30  # of errors that are divided by
_LEAST_LOGIT = -60.0  # below the largest; what is less likely than exp(-60) is that likely
_SERIES = 12  # terms of an exponential between 1 and 2: to 2e-12


@dataclass(frozen=True)
class Teacher:
    """A linear classifier of K classes, as noisy as its training: weights (D, K) and bias (K,), float32."""

    weights: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]

    def predict(self, features: npt.NDArray[np.float32]) -> Labels:
        """The likeliest class of each row of ``features``, float32 (N, D): uint8 (N,)."""
        return self.predict_whole(whole_features(features))

    def predict_whole(self, features: WholeRows) -> Labels:
        """The likeliest class of each row of ``whole_features``; of equally likely ones the first."""
        parameters, _ = _whole_parameters(np.vstack([self.weights, self.bias]).astype(np.float64))
        labels = np.empty(len(features), np.uint8)
        for first in range(0, len(features), _ROWS):
            rows = _extended(features[first : first + _ROWS])
            labels[first : first + _ROWS] = np.argmax(rows @ parameters, axis=1)
        return labels


def whole_features(features: npt.NDArray[np.float32]) -> WholeRows:
    """Rows of norm at most 1, float32 (N, D), as integers of norm at most 2^13; longer ones are clipped."""
    return whole_rows(features, _ROOM * 2.0**_FEATURE_BITS, 4**_FEATURE_BITS).astype(np.int16)


def train_teacher(
    features: WholeRows,
    labels: Labels,
    mechanism: Mechanism,
    *,
    classes: int,
    learning_rate: float,
    momentum: float = 0.9,
    progress: Callable[[int, int], None] = lambda done, of: None,
    watch: Watch = lambda step, parameters, gradient: None,
) -> Teacher:
    """Train the teacher; its whole price is ``mechanism``, to be charged before the call.

    A row x with its constant 1 has the gradient x̃ ⊗ (p - y), whose norm is ‖x̃‖ · ‖p - y‖: clipping needs no gradient
    of any one example.

    Args:
        features: shape (N, D), by ``whole_features``.
        labels: uint8, shape (N,).
        mechanism: noise, clip norm (``l2_sensitivity``), Poisson sampling and number of steps.
        classes: how many there are.
        learning_rate: of the mean gradient, over the *expected* batch.
        momentum: of the released, noisy gradients.
        progress: called with the steps done and the steps in all.
        watch: called with each step's number, its parameters before it and its noisy gradient sum, all of which the
            accountant takes for released; for the audit.
    """
    expect_countable(len(features))
    size = features.shape[1]
    expected_batch = mechanism.sampling_probability * len(features)
    grid = Grid.of(mechanism.noise_multiplier, mechanism.l2_sensitivity)
    parameters, velocity, average = (np.zeros((size + 1, classes)) for _ in range(3))
    averaged = max(1, mechanism.steps // 2)
    for step in range(mechanism.steps):
        chosen = poisson_sample(len(features), mechanism.sampling_probability)
        gradient = grid.noisy(clipped_gradient_sum(features, labels, chosen, parameters, grid))
        watch(step, parameters, gradient)
        velocity = momentum * velocity + gradient / expected_batch
        parameters -= learning_rate * velocity
        if step >= mechanism.steps - averaged:
            average += parameters / averaged
        progress(step + 1, mechanism.steps)
    final = average.astype(np.float32)
    return Teacher(weights=final[:-1], bias=final[-1])


def clipped_gradient_sum(
    features: WholeRows, labels: Labels, chosen: npt.NDArray[np.int64], parameters: npt.NDArray[np.float64], grid: Grid
) -> WholeNumbers:
    """The exact sum over the chosen examples of the cross-entropy's gradient, in whole steps of ``grid``, clipped.

    An example's gradient is the outer product of two rows of integers: its features with their constant, and its
    errors, which are shortened and rounded until the product fits. The squared norm of the product is the product of
    theirs, exactly.

    Args:
        features: shape (N, D), by ``whole_features``.
        labels: uint8, shape (N,).
        chosen: indices of examples.
        parameters: float64, shape (D + 1, K); the last row is the bias.
        grid: of the mechanism.

    Returns:
        shape (D + 1, K).
    """
    whole, unit = _whole_parameters(parameters)
    total = np.zeros(parameters.shape[::-1])  # transposed: the faster product
    for first in range(0, len(chosen), _ROWS):
        part = chosen[first : first + _ROWS]
        rows = _extended(features[part])
        squares = np.einsum("nd,nd->n", rows, rows)  # exact: at most 2^27
        errors = _errors(rows @ whole * unit, labels[part])
        total += _whole_errors(errors, squares, grid).T @ rows
    return total.T


def _whole_errors(errors: npt.NDArray[np.float64], squares: npt.NDArray[np.float64], grid: Grid) -> WholeNumbers:
    """Errors (B, K) as integers such that their product with features of norm² ``squares`` keeps to the grid's clip.

    The products of squares compare exactly: see ``privacy.exact``.
    """
    room = 0.5 * math.sqrt(errors.shape[1]) + 0.5  # steps by which rounding can lengthen errors, and more
    longest = np.maximum(grid.clip / np.sqrt(squares) - room, 0)
    length = np.sqrt(_in_order(np.square(errors)))
    factor = np.minimum(1 / (grid.step * 2.0**_FEATURE_BITS), longest / np.maximum(length, _LEAST_LENGTH))
    whole: WholeNumbers = np.rint(errors * factor[:, None])
    fits = squares * _in_order(np.square(whole)) <= grid.squared_clip  # False for what is no number
    whole[~fits] = 0
    return whole


def _errors(logits: npt.NDArray[np.float64], labels: Labels) -> npt.NDArray[np.float64]:
    """Softmax of each row, less 1 at its label: only additions, products, quotients, floors and powers of two."""
    below = np.maximum(logits - logits.max(axis=1, keepdims=True), _LEAST_LOGIT)
    halvings = np.floor(below * (1 / math.log(2)))
    rest = below - halvings * math.log(2)
    series = np.ones_like(rest)
    for n in range(_SERIES, 0, -1):
        series = 1 + rest / n * series
    likely: npt.NDArray[np.float64] = np.ldexp(series, halvings.astype(np.int32))
    likely /= _in_order(likely)[:, None]
    likely[np.arange(len(labels)), labels] -= 1
    return likely


def _in_order(columns: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The sum of each row of numbers, added from left to right."""
    total: npt.NDArray[np.float64] = columns[:, 0].copy()
    for column in columns.T[1:]:
        total += column
    return total


def _extended(features: WholeRows) -> WholeNumbers:
    """Features and their constant, 2^13, as float64: of norm at most 2^13.5."""
    rows = np.empty((len(features), features.shape[1] + 1))
    rows[:, :-1] = features
    rows[:, -1] = 1 << _FEATURE_BITS
    return rows


def _whole_parameters(parameters: npt.NDArray[np.float64]) -> tuple[WholeNumbers, float]:
    """Parameters (D + 1, K) as integers, and the unit of what ``_extended`` rows times them are.

    Each class's have a norm below 2^38.5. So every sum of their products with a row of norm 2^13.5 is at most 2^52
    (Cauchy and Schwarz, for the absolute values), and exact in any order.
    """
    norms = np.sqrt(np.square(parameters).sum(axis=0))
    bits = EXACT_BITS - 1 - _FEATURE_BITS - math.frexp(float(norms.max()))[1]
    whole: WholeNumbers = np.rint(np.ldexp(parameters, bits))
    return whole, math.ldexp(1.0, -bits - _FEATURE_BITS)
