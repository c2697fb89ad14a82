"""Canaries for the one-run audit, and the best linear estimate of which of them are in a noisy release.

The attacker sees all that the accountant grants an adversary: each noisy sum, every example but the secret inclusions,
and what each canary would add. Each sum is then a linear observation of the inclusions in Gaussian noise, and so are
all sums together.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synthgen.index import pieces
from synthgen.subject import IMAGE_SIDE, NUM_CLASSES, Images, Labels

Floats = npt.NDArray[np.floating]
Scores = npt.NDArray[np.float64]

MAX_DECODED_CANARIES = 5_000  # the equations of so many fill 200 MB

_PATCH = 2  # pixels a side of a pattern's squares: fine enough to differ, coarse enough to survive pooling
_ROWS = 4_096  # examples whose gradients are summed at a time
_PRIOR_VARIANCE = 0.25  # of an inclusion with probability 1/2
_NOISES = tuple(10.0 ** (k / 2) for k in range(-8, 3))  # of a mechanism, in units of its claim: 1e-4 to 10
_SIZES = tuple(10.0 ** (k / 2) for k in range(7))  # of what a canary adds, in units of the clip: 1 to 1,000
_LEAST_NOISE = 1e-6  # of a contribution's norm: keeps the equations solvable where a mechanism adds no noise


@dataclass(frozen=True, kw_only=True)
class Canaries:
    """Labelled images made to be recognised: uint8, shapes (m, 28, 28) and (m,)."""

    images: Images
    labels: Labels

    def __len__(self) -> int:
        return len(self.images)


def pattern_canaries(count: int, seed: int = 0, classes: int = NUM_CLASSES) -> Canaries:
    """Random black-and-white squares, the classes in turn: unlike any garment, and unlike each other.

    A canary's pixels are public, so a seed may decide them; only its inclusion is secret.
    """
    rng = np.random.default_rng(seed)
    side = IMAGE_SIDE // _PATCH
    squares = rng.integers(0, 2, (count, side, side), np.uint8) * np.uint8(255)
    images = squares.repeat(_PATCH, axis=1).repeat(_PATCH, axis=2)
    return Canaries(images=images, labels=(np.arange(count) % classes).astype(np.uint8))


class Evidence:
    """What noisy sums say about m inclusions; the evidence of independent releases adds up.

    In units of the noise each release is Σ sᵢ·fᵢ + n, with inclusions s in {0, 1} and standard Gaussian n. Two kinds of
    inner products suffice: of the release, minus its known part, with the fᵢ, and of the fᵢ with each other.

    Args:
        products: of the release with each fᵢ, float64, shape (m,).
        gram: of the fᵢ with each other, float64, shape (m, m).
    """

    def __init__(self, products: Floats, gram: Floats) -> None:
        self.products = np.asarray(products, np.float64)
        self.gram = np.asarray(gram, np.float64)

    def __add__(self, other: "Evidence") -> "Evidence":
        return Evidence(self.products + other.products, self.gram + other.gram)

    def scores(self) -> Scores:
        """The best linear estimate of each inclusion, float64 (m,): 0 excluded, 1 included, 1/2 unknown."""
        centred = self.products - self.gram.sum(1) / 2
        normal = self.gram + np.eye(len(centred)) / _PRIOR_VARIANCE
        scores: Scores = 0.5 + np.linalg.solve(normal, centred)
        return scores

    def fitted(self) -> "Evidence":
        """The same evidence, with the likeliest noise and canary size in the place of those claimed.

        A mechanism that adds a tenth of its noise, or does not clip, reveals more than the claimed figures suggest;
        with those figures similar canaries are hard to separate. Noise σ and size a, in units of the claims, maximise
        the marginal likelihood on a grid. They are estimated from the release alone, never from the inclusions, so the
        audit stays valid. For a sound mechanism both are 1 within a step of the grid.
        """
        strengths, basis = np.linalg.eigh(self.gram)
        kept = strengths > strengths[-1] * 1e-10
        strengths, basis = strengths[kept], basis[:, kept]
        seen, mean = basis.T @ self.products / np.sqrt(strengths), np.sqrt(strengths) * basis.sum(0) / 2

        def log_likelihood(noise: float, size: float) -> float:
            variance = size**2 * strengths * _PRIOR_VARIANCE + noise**2
            return -float((np.log(variance) + np.square(seen - size * mean) / variance).sum())

        grid = [(noise, size) for noise in _NOISES for size in _SIZES]
        noise, size = max(grid, key=lambda point: log_likelihood(*point))
        return Evidence(self.products * size / noise**2, self.gram * (size / noise) ** 2)


def class_sum_evidence(
    residual: Floats, contributions: Floats, labels: npt.NDArray[np.integer], noise: float
) -> Evidence:
    """Evidence of one Gaussian mechanism over sums by class.

    Args:
        residual: shape (classes, D): the noisy sums minus those of all examples but the canaries.
        contributions: shape (m, D): what each canary adds to the sum of its class, by the public map and clip.
        labels: shape (m,), the row of ``residual`` that each adds to.
        noise: the standard deviation the mechanism claims.
    """
    scale = _noise_scale(noise, contributions)
    same_class = labels[:, None] == labels[None, :]
    products = np.einsum("ij,ij->i", contributions, residual[labels], dtype=np.float64)
    return Evidence(products / scale**2, np.where(same_class, contributions @ contributions.T, 0) / scale**2)


def gradient_sum_evidence(
    inner_products: Floats, gradient_gram: Floats, noise: float, sampling_probability: float
) -> Evidence:
    """Evidence of one step of DP-SGD: the noisy sum of clipped gradients over a Poisson sample.

    An included canary is sampled with probability q, so on average it adds q·g.

    Args:
        inner_products: shape (m,): of the noisy sum with each canary's clipped gradient g at the step's weights.
        gradient_gram: shape (m, m): of these gradients with each other.
        noise: the standard deviation of the noise on the sum.
        sampling_probability: q.
    """
    scale = max(noise, _LEAST_NOISE * float(np.sqrt(np.trace(gradient_gram) / len(gradient_gram))))
    q = sampling_probability
    return Evidence(q * inner_products / scale**2, q**2 * gradient_gram / scale**2)


def linear_softmax_step_evidence(
    weights: Floats,
    bias: Floats,
    noisy_weight_sum: Floats,
    noisy_bias_sum: Floats,
    features: Floats,
    labels: npt.NDArray[np.integer],
    *,
    l2_clip_norm: float,
    noise: float,
    sampling_probability: float,
) -> Evidence:
    """Evidence of one step of DP-SGD on a linear softmax classifier, computed without forming any gradient.

    A canary's gradient is the outer product of its features, with a 1 for the bias, and p - y (Goodfellow 2015,
    arXiv:1510.01799). The inner product of two gradients is therefore that of the features times that of the errors.

    Args:
        weights, bias: of the model before the step, shapes (D, classes) and (classes,).
        noisy_weight_sum, noisy_bias_sum: the step's noisy gradient sums, of the same shapes, minus what the data
            without canaries add (``linear_softmax_background``).
        features, labels: of the canaries, shapes (m, D) and (m,).
        l2_clip_norm: the clip of an example's whole gradient.
        noise, sampling_probability: as for ``gradient_sum_evidence``.
    """
    errors = _clipped_errors(weights, bias, features, labels, l2_clip_norm)
    products = np.einsum("ij,ij->i", features @ noisy_weight_sum + noisy_bias_sum, errors)
    gram = (features @ features.T + 1) * (errors @ errors.T)
    return gradient_sum_evidence(products, gram, noise, sampling_probability)


def linear_softmax_background(
    weights: Floats,
    bias: Floats,
    features: Floats,
    labels: npt.NDArray[np.integer],
    *,
    l2_clip_norm: float,
    sampling_probability: float,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """What the data without canaries add to a step's sums on average, to be subtracted from them.

    Args:
        weights, bias: of the model before the step, shapes (D, classes) and (classes,).
        features, labels: of the data, shapes (N, D) and (N,).
        l2_clip_norm: the clip of an example's whole gradient.
        sampling_probability: q.

    Returns:
        Sums over the weights, shape (D, classes), and the bias, shape (classes,).
    """
    sums, bias_sums = np.zeros(weights.shape), np.zeros(bias.shape)
    for part in pieces(len(features), _ROWS):
        rows = np.asarray(features[part], np.float32)
        errors = _clipped_errors(weights, bias, rows, labels[part], l2_clip_norm)
        sums += rows.T @ errors
        bias_sums += errors.sum(0)
    return sampling_probability * sums, sampling_probability * bias_sums


def _noise_scale(noise: float, contributions: Floats) -> float:
    rms = float(np.sqrt(np.square(contributions, dtype=np.float64).sum(1).mean()))
    return max(noise, _LEAST_NOISE * rms, 1e-30)


def _clipped_errors(
    weights: Floats, bias: Floats, features: Floats, labels: npt.NDArray[np.integer], l2_clip_norm: float
) -> Floats:
    """p - y of each example, shape (N, classes), scaled so that its whole gradient stays within the clip."""
    logits = features @ weights + bias
    odds = np.exp(logits - logits.max(1, keepdims=True))
    errors = odds / odds.sum(1, keepdims=True)
    errors[np.arange(len(labels)), labels] -= 1
    norms = np.sqrt((np.square(features).sum(1) + 1) * np.square(errors).sum(1))
    clipped: Floats = errors * np.minimum(1, l2_clip_norm / np.maximum(norms, 1e-30))[:, None]
    return clipped
