"""The private teacher: a linear softmax classifier on fixed public features, trained by DP-SGD.

Tramèr and Boneh 2021, "Differentially private learning needs better features (or much more data)"
(arXiv:2011.11660): on scattering features a linear model beats a deep one under the same privacy. DP-SGD is that of
Abadi et al. 2016 (arXiv:1607.00133). What is returned is the average of the later iterates, which costs nothing more:
every iterate is released anyway.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synthgen.fashion import NUM_CLASSES, Labels
from synthgen.privacy.accounting import Mechanism
from synthgen.privacy.mechanisms import gaussian_noise, poisson_sample

Rows = npt.NDArray[np.float32]
Watch = Callable[[int, npt.NDArray[np.float64], npt.NDArray[np.float64]], None]

_ROUNDING = 1e-3  # of a norm and of a sum of thousands of rows in single precision, taken off the clip
_PREDICTION_ROWS = 4096
_LEAST_LENGTH = 1e-30  # of a gradient that is divided by


@dataclass(frozen=True)
class Teacher:
    """A linear classifier, as noisy as its training: weights (D, 10) and bias (10,), float32."""

    weights: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]

    def predict(self, features: Rows) -> Labels:
        """The likeliest class of each row of ``features``, float32 (N, D): uint8 (N,)."""
        labels = np.empty(len(features), np.uint8)
        for first in range(0, len(features), _PREDICTION_ROWS):
            rows = slice(first, first + _PREDICTION_ROWS)
            labels[rows] = np.argmax(features[rows] @ self.weights + self.bias, axis=1)
        return labels


def train_teacher(
    features: Rows,
    labels: Labels,
    mechanism: Mechanism,
    *,
    learning_rate: float,
    momentum: float = 0.9,
    progress: Callable[[int, int], None] = lambda done, of: None,
    watch: Watch = lambda step, parameters, gradient: None,
) -> Teacher:
    """Train the teacher; its whole price is ``mechanism``, to be charged before the call.

    A row x with its constant 1 has the gradient x̃ ⊗ (p - y), whose norm is ‖x̃‖ · ‖p - y‖: clipping needs no gradient
    of any one example.

    Args:
        features: float32, shape (N, D), each row of norm at most 1; longer ones are clipped by their own norm.
        labels: uint8, shape (N,).
        mechanism: noise, clip norm (``l2_sensitivity``), Poisson sampling and number of steps.
        learning_rate: of the mean gradient, over the *expected* batch.
        momentum: of the released, noisy gradients.
        progress: called with the steps done and the steps in all.
        watch: called with each step's number, its parameters before it and its noisy gradient sum, all of which the
            accountant takes for released; for the audit.
    """
    size = features.shape[1]
    expected_batch = mechanism.sampling_probability * len(features)
    deviation = mechanism.noise_multiplier * mechanism.l2_sensitivity
    parameters, velocity, average = (np.zeros((size + 1, NUM_CLASSES)) for _ in range(3))
    averaged = max(1, mechanism.steps // 2)
    for step in range(mechanism.steps):
        chosen = poisson_sample(len(features), mechanism.sampling_probability)
        gradient = clipped_gradient_sum(features[chosen], labels[chosen], parameters, mechanism.l2_sensitivity)
        gradient += gaussian_noise(gradient.shape, deviation)
        watch(step, parameters, gradient)
        velocity = momentum * velocity + gradient / expected_batch
        parameters -= learning_rate * velocity
        if step >= mechanism.steps - averaged:
            average += parameters / averaged
        progress(step + 1, mechanism.steps)
    final = average.astype(np.float32)
    return Teacher(weights=final[:-1], bias=final[-1])


def clipped_gradient_sum(
    rows: Rows, labels: Labels, parameters: npt.NDArray[np.float64], l2_clip_norm: float
) -> npt.NDArray[np.float64]:
    """The sum over examples of the cross-entropy's gradient, each clipped to ``l2_clip_norm``.

    Args:
        rows: float32, shape (B, D).
        labels: uint8, shape (B,).
        parameters: float64, shape (D + 1, 10); the last row is the bias.
        l2_clip_norm: the largest norm of one example's gradient.

    Returns:
        float64, shape (D + 1, 10). A row that holds a NaN or an infinity contributes nothing.
    """
    norms = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64) + 1)
    sound = np.isfinite(norms)
    if not sound.all():
        rows, labels, norms = rows[sound], labels[sound], norms[sound]
    logits = rows @ parameters[:-1].astype(np.float32) + parameters[-1]
    error = np.exp(logits - logits.max(axis=1, keepdims=True))
    error /= error.sum(axis=1, keepdims=True)
    error[np.arange(len(labels)), labels] -= 1
    lengths = norms * np.linalg.norm(error, axis=1)
    error *= np.minimum(1, l2_clip_norm * (1 - _ROUNDING) / np.maximum(lengths, _LEAST_LENGTH))[:, None]
    return np.concatenate([rows.T @ error.astype(np.float32), error.sum(axis=0, keepdims=True)]).astype(np.float64)
