"""Canaries for the one-run audit, and the best linear guess at which of them a noisy release holds.

Whoever audits sees all that the accountant lets an adversary see: each noisy sum, every example but the secret
inclusions, and what each canary would add. Each sum is then a linear observation of the inclusions in Gaussian noise,
and so are all of them together.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from synthgen.errors import UsageError
from synthgen.fashion import IMAGE_SIDE, NUM_CLASSES
from synthgen.index import pieces

Floats = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float64]

MAX_DECODED_CANARIES = 5_000  # the equations of so many fill 200 MB

_PATCH = 2  # pixels a side of a pattern's squares: fine enough to differ, coarse enough to survive pooling
_ROWS = 4_096  # examples whose gradients are summed at a time
_PRIOR_VARIANCE = 0.25  # of an inclusion with probability 1/2
_NOISES = tuple(10.0 ** (k / 2) for k in range(-8, 3))  # of a mechanism, in units of what it claims: 1e-4 to 10
_SIZES = tuple(10.0 ** (k / 2) for k in range(7))  # of what a canary adds, in units of the clip: 1 to 1,000
_LEAST_NOISE = 1e-6  # of a contribution's norm: keeps the equations solvable where a mechanism adds no noise at all


@dataclass(frozen=True, kw_only=True)
class Canaries:
    """Labelled images made to be recognised: uint8, shapes (m, 28, 28) and (m,)."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.images)


def pattern_canaries(count: int, seed: int = 0) -> Canaries:
    """Random black-and-white chequers, the classes in turn: like no garment, and hardly like each other.

    What a canary looks like is no secret, so that a seed may decide it; whether it is included is one.
    """
    rng = np.random.default_rng(seed)
    side = IMAGE_SIDE // _PATCH
    squares = rng.integers(0, 2, (count, side, side), np.uint8) * np.uint8(255)
    images = squares.repeat(_PATCH, axis=1).repeat(_PATCH, axis=2)
    return Canaries(images=images, labels=(np.arange(count) % NUM_CLASSES).astype(np.uint8))


def mislabelled_canaries(
    images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], count: int, seed: int = 0
) -> Canaries:
    """Real images that are not in the training data, each with a wrong label.

    Args:
        images, labels: uint8, shapes (N, 28, 28) and (N,): say, the test images.
        count: at most N.
        seed: decides which images, and which wrong labels.

    Raises:
        UsageError: there are fewer images than that.
    """
    if count > len(images):
        raise UsageError(f"{count:,} canaries: expected at most {len(images):,}, one from each real image at hand")
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(images))[:count]
    wrong = (labels[chosen] + rng.integers(1, NUM_CLASSES, count)) % NUM_CLASSES
    return Canaries(images=images[chosen], labels=wrong.astype(np.uint8))


class Evidence:
    """What noisy sums tell of m inclusions; the evidence of independent releases adds up.

    In units of the noise each release is Σ sᵢ·fᵢ + n with inclusions s in {0, 1} and standard Gaussian n. All that
    matters of it is the products of the release, less its known part, with the fᵢ, and the products of the fᵢ with
    each other.

    Args:
        products: float64, shape (m,).
        gram: float64, shape (m, m).
    """

    def __init__(self, products: Floats, gram: Floats) -> None:
        self.products = np.asarray(products, np.float64)
        self.gram = np.asarray(gram, np.float64)

    def __add__(self, other: "Evidence") -> "Evidence":
        return Evidence(self.products + other.products, self.gram + other.gram)

    def scores(self) -> Scores:
        """The best linear estimate of each inclusion, float64 (m,): 0 for out, 1 for in, 1/2 for unknown."""
        centred = self.products - self.gram.sum(1) / 2
        normal = self.gram + np.eye(len(centred)) / _PRIOR_VARIANCE
        scores: Scores = 0.5 + np.linalg.solve(normal, centred)
        return scores

    def fitted(self) -> "Evidence":
        """The same evidence if the mechanism is not what it claims: the likeliest noise and size of the canaries.

        A mechanism that adds a tenth of its noise, or does not clip, betrays more than the claimed figures would have
        one believe; read by these, similar canaries blur each other. Noise σ and size a, in units of the claims, are
        those of greatest marginal likelihood on a grid. They are estimated from the release alone, so that the scores
        remain fair; of a sound mechanism both are 1 within a step of the grid.
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
        residual: shape (classes, D): the noisy sums less those of all that is not a canary.
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

    An included canary takes part with the sampling probability q and on average adds q·g.

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
    """Evidence of one step of DP-SGD on a linear softmax classifier, where no gradient need be formed.

    A canary's gradient is the outer product of its features, with a 1 for the bias, and p - y (Goodfellow 2015,
    arXiv:1510.01799), so that products of gradients are products of products.

    Args:
        weights, bias: of the model before the step, shapes (D, classes) and (classes,).
        noisy_weight_sum, noisy_bias_sum: the step's noisy gradient sums, of the same shapes, less what the data
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
    """What the data without canaries are expected to add to a step's sums; to be taken off them.

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


@dataclass(frozen=True, kw_only=True)
class ImageAudit:
    """Any mechanism over labelled images, as something to audit.

    Attributes:
        images, labels: its data, uint8, shapes (N, 28, 28) and (N,).
        planted: the canaries.
        release: runs the mechanism on images and labels; hands back all that an adversary is granted to see.
        evidence: what that tells of the canaries.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    planted: Canaries
    release: Callable[[npt.NDArray[np.uint8], npt.NDArray[np.uint8]], Any]
    evidence: Callable[[Any], Evidence]

    @property
    def canaries(self) -> int:
        """How many canaries there are."""
        return len(self.planted)

    def run(self, included: Mask) -> Any:
        """Run the mechanism once on the data and the canaries that are included."""
        images = np.concatenate([self.images, self.planted.images[included]])
        return self.release(images, np.concatenate([self.labels, self.planted.labels[included]]))

    def scores(self, output: Any) -> Scores:
        """How strongly the release speaks for each canary, shape (m,)."""
        return self.evidence(output).scores()


@dataclass(frozen=True, kw_only=True)
class ClassSumAudit:
    """The Gaussian mechanism over sums by class, as something to audit.

    Attributes:
        release: runs the mechanism on its data and the canaries where the mask is true; noisy sums (classes, D).
        background: shape (classes, D): the true sums of the data without canaries.
        contributions: shape (m, D): what each canary adds to its class, by the public map.
        labels: shape (m,).
        noise: the standard deviation the mechanism claims.
    """

    release: Callable[[Mask], Floats]
    background: Floats
    contributions: Floats
    labels: npt.NDArray[np.integer]
    noise: float

    @property
    def canaries(self) -> int:
        """How many canaries there are."""
        return len(self.contributions)

    def run(self, included: Mask) -> Floats:
        """Run the mechanism once."""
        return self.release(included)

    def scores(self, output: Floats) -> Scores:
        """How strongly the noisy sums speak for each canary, shape (m,)."""
        return (
            class_sum_evidence(output - self.background, self.contributions, self.labels, self.noise).fitted().scores()
        )


def _noise_scale(noise: float, contributions: Floats) -> float:
    rms = float(np.sqrt(np.square(contributions, dtype=np.float64).sum(1).mean()))
    return max(noise, _LEAST_NOISE * rms, 1e-30)


def _clipped_errors(
    weights: Floats, bias: Floats, features: Floats, labels: npt.NDArray[np.integer], l2_clip_norm: float
) -> Floats:
    """p - y of each example, shape (N, classes), scaled so that its whole gradient keeps the clip."""
    logits = features @ weights + bias
    odds = np.exp(logits - logits.max(1, keepdims=True))
    errors = odds / odds.sum(1, keepdims=True)
    errors[np.arange(len(labels)), labels] -= 1
    norms = np.sqrt((np.square(features).sum(1) + 1) * np.square(errors).sum(1))
    clipped: Floats = errors * np.minimum(1, l2_clip_norm / np.maximum(norms, 1e-30))[:, None]
    return clipped
