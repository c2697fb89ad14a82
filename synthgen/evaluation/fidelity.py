"""How similar, and how varied, are two sets of feature vectors? Four measures from the literature, in numpy alone.

A feature array is float, shape (N, D). Distances between all pairs are computed in blocks of rows, so that memory does
not grow with the number of pairs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from synthgen.index import pieces

Features = npt.NDArray[np.floating]

_BLOCK_ROWS = 1_000
_FEWEST = 6  # vectors: ``density_coverage`` needs a fifth nearest other one
KERNEL_SUBSETS, KERNEL_SUBSET_SIZE = 100, 1_000


class KernelDistance(NamedTuple):
    """The mean of the estimates from random subsets, and the standard deviation among them."""

    mean: float
    spread: float


class PrecisionRecall(NamedTuple):
    """Shares between 0 and 1."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """Density is about 1 for similar sets and may exceed 1; coverage is a share between 0 and 1."""

    density: float
    coverage: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A set of feature vectors against real ones; a number is None where there are too few vectors for it.

    Attributes:
        vectors: how many were compared.
        frechet, kernel, manifolds, balls: see ``frechet_distance`` and the functions below it.
        problems: one line for each number that is missing.
    """

    vectors: int
    frechet: float | None
    kernel: KernelDistance | None
    manifolds: PrecisionRecall | None
    balls: DensityCoverage | None
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return {
            "images": self.vectors,
            "frechet_distance": self.frechet,
            "kernel_distance": self.kernel and self.kernel._asdict(),
            **(self.manifolds._asdict() if self.manifolds else {"precision": None, "recall": None}),
            **(self.balls._asdict() if self.balls else {"density": None, "coverage": None}),
            "problems": list(self.problems),
        }


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """A set compared with real training images by one network's features, and real test images likewise: the floor.

    Attributes:
        statement: which features these are, and what the distances may be compared with.
        synthetic, real: the set, and the real test images; None where there are none.
    """

    statement: str
    synthetic: Comparison
    real: Comparison | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        real = self.real and self.real.to_dict()
        return {"statement": self.statement, "synthetic": self.synthetic.to_dict(), "real": real}


def compare(real: Features, other: Features) -> Comparison:
    """Take all four measures of ``other`` (N, D) against ``real`` (M, D), both in random order.

    The Fréchet and the kernel distance use all vectors. The others depend on the number of vectors, so they use the
    first min(N, M) of either side.
    """
    n, size = min(len(real), len(other)), other.shape[1]
    problems = []
    if n <= size:  # the covariance of N vectors has rank N - 1 at most
        problems.append(f"no Fréchet distance: {n:,} images are too few for {size:,} features")
    if n < _FEWEST:
        problems.append(f"no kernel distance, precision, recall, density or coverage: {n} images; {_FEWEST} are needed")
    few = n < _FEWEST
    return Comparison(
        vectors=len(other),
        frechet=None if n <= size else frechet_distance(real, other),
        kernel=None if few else kernel_distance(real, other),
        manifolds=None if few else precision_recall(real[:n], other[:n]),
        balls=None if few else density_coverage(real[:n], other[:n]),
        problems=tuple(problems),
    )


def frechet_distance(a: Features, b: Features) -> float:
    """The Fréchet distance of two Gaussians fitted to ``a`` and ``b`` (Heusel et al. 2017, arXiv:1706.08500, sec. 2).

    ``|μ_a − μ_b|² + Tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½)``, with unbiased covariances. It is biased upwards for small N:
    compare only values of equal N.

    Raises:
        ValueError: fewer than two vectors on either side.
    """
    _require(2, a, b)
    (mean_a, covariance_a), (mean_b, covariance_b) = _moments(a), _moments(b)
    # Σ_a Σ_b has the eigenvalues of the symmetric Σ_a^½ Σ_b Σ_a^½: no root of an asymmetric matrix is needed.
    root = _symmetric_root(covariance_a)
    eigenvalues = np.linalg.eigvalsh(root @ covariance_b @ root)
    trace = np.trace(covariance_a) + np.trace(covariance_b) - 2 * np.sqrt(eigenvalues.clip(0)).sum()
    return max(float(((mean_a - mean_b) ** 2).sum() + trace), 0.0)  # below 0 only by rounding


def squared_mmd(a: Features, b: Features) -> float:
    """The unbiased squared maximum mean discrepancy under the kernel ``(x·y / D + 1)³``.

    Bińkowski et al. 2018, arXiv:1801.01401, sec. 3 and 4. Being unbiased, it may be a little below 0 for equal sets.

    Raises:
        ValueError: fewer than two vectors on either side.
    """
    _require(2, a, b)
    n, m = len(a), len(b)
    x, y = a.astype(np.float64), b.astype(np.float64)
    within_x = _kernel_sum(x, x) - _cubic_kernel((x * x).sum(1), x.shape[1]).sum()
    within_y = _kernel_sum(y, y) - _cubic_kernel((y * y).sum(1), y.shape[1]).sum()
    return float(within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * _kernel_sum(x, y) / (n * m))


def kernel_distance(
    a: Features,
    b: Features,
    *,
    subsets: int = KERNEL_SUBSETS,
    subset_size: int = KERNEL_SUBSET_SIZE,
    seed: int = 0,
) -> KernelDistance:
    """The kernel distance (KID): ``squared_mmd`` of random subsets, as Bińkowski et al. 2018 report it.

    Args:
        a, b: features, shapes (N, D) and (M, D).
        subsets: how many pairs of subsets are drawn.
        subset_size: vectors in each; at most N and M.
        seed: decides the subsets.

    Raises:
        ValueError: fewer than two vectors on either side.
    """
    random = np.random.default_rng(seed)
    size = min(subset_size, len(a), len(b))
    estimates = [
        squared_mmd(a[random.choice(len(a), size, replace=False)], b[random.choice(len(b), size, replace=False)])
        for _ in range(subsets)
    ]
    return KernelDistance(float(np.mean(estimates)), float(np.std(estimates)))


def precision_recall(real: Features, synthetic: Features, *, neighbours: int = 3) -> PrecisionRecall:
    """Improved precision and recall (Kynkäänniemi et al. 2019, arXiv:1904.06991, eq. 1 and 2).

    A set's manifold is the union of balls around its points, each as large as the distance to the point's
    ``neighbours``-th nearest other point. Precision is the share of synthetic points on the real manifold, recall that
    of real points on the synthetic one. Both depend on N: compare only values of equal N.

    Raises:
        ValueError: no more than ``neighbours`` vectors on either side.
    """
    _require(neighbours + 1, real, synthetic)
    real_reach, synthetic_reach = _reach(real, neighbours), _reach(synthetic, neighbours)
    precise = np.zeros(len(synthetic), bool)
    recalled = np.zeros(len(real), bool)
    for rows, distances in _squared_distances(real, synthetic):
        precise |= (distances <= real_reach[rows, None]).any(0)
        recalled[rows] = (distances <= synthetic_reach).any(1)
    return PrecisionRecall(float(precise.mean()), float(recalled.mean()))


def density_coverage(real: Features, synthetic: Features, *, neighbours: int = 5) -> DensityCoverage:
    """Density and coverage (Naeem et al. 2020, arXiv:2002.09797, eq. 3 and 4).

    Density is the mean number of real points' balls that a synthetic point lies in, divided by ``neighbours``. Coverage
    is the share of real points whose ball holds a synthetic point. Neither uses balls around synthetic points, so,
    unlike recall, neither is raised by synthetic outliers.

    Raises:
        ValueError: no more than ``neighbours`` real vectors, or no synthetic ones.
    """
    _require(neighbours + 1, real)
    _require(1, synthetic)
    reach = _reach(real, neighbours)
    inside = 0
    covered = np.zeros(len(real), bool)
    for rows, distances in _squared_distances(real, synthetic):
        within = distances <= reach[rows, None]
        inside += int(within.sum())
        covered[rows] = within.any(1)
    return DensityCoverage(inside / (neighbours * len(synthetic)), float(covered.mean()))


def _moments(features: Features) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean (D,) and unbiased covariance (D, D), in float64."""
    mean = features.mean(0, dtype=np.float64)
    scatter = np.zeros((features.shape[1],) * 2)
    for rows in pieces(len(features), _BLOCK_ROWS):
        centred = features[rows] - mean
        scatter += centred.T @ centred
    return mean, scatter / (len(features) - 1)


def _symmetric_root(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The root of a symmetric positive semi-definite matrix."""
    eigenvalues, vectors = np.linalg.eigh(matrix)
    root: npt.NDArray[np.float64] = (vectors * np.sqrt(eigenvalues.clip(0))) @ vectors.T
    return root


def _kernel_sum(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    return float(sum(_cubic_kernel(a[rows] @ b.T, a.shape[1]).sum() for rows in pieces(len(a), _BLOCK_ROWS)))


def _cubic_kernel(products: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    base = products / size + 1
    kernel: npt.NDArray[np.float64] = base * base * base
    return kernel


def _reach(features: Features, neighbours: int) -> npt.NDArray[np.float64]:
    """The squared distance of every vector to its ``neighbours``-th nearest other one, shape (N,)."""
    reach = np.empty(len(features))
    for rows, distances in _squared_distances(features, features):
        distances[np.arange(len(distances)), np.arange(rows.start, rows.start + len(distances))] = np.inf
        reach[rows] = np.partition(distances, neighbours - 1, axis=1)[:, neighbours - 1]
    return reach


def _squared_distances(a: Features, b: Features) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
    """Squared distances of a block of ``a``'s rows to all of ``b``, in float64: (rows, (block, len(b)))."""
    centre = b.mean(0, dtype=np.float64)  # products of smaller numbers round less
    a, b = a - centre, b - centre
    norms = (b * b).sum(1)
    for rows in pieces(len(a), _BLOCK_ROWS):
        block = a[rows]
        distances = block @ b.T
        distances *= -2
        distances += norms
        distances += (block * block).sum(1)[:, None]
        yield rows, np.maximum(distances, 0, out=distances)


def _require(least: int, *sets: Features) -> None:
    for features in sets:
        if len(features) < least:
            raise ValueError(f"{len(features)} feature vectors; expected at least {least}")
