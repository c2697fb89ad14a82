import numpy as np
import pytest
from scipy.linalg import sqrtm
from sklearn.metrics.pairwise import polynomial_kernel

from synthgen.evaluation import fidelity
from synthgen.evaluation.fidelity import (
    compare,
    density_coverage,
    frechet_distance,
    kernel_distance,
    precision_recall,
    squared_mmd,
)


@pytest.fixture(scope="module")
def sets():
    random = np.random.default_rng(0)
    mix = random.normal(size=(16, 16))
    real = random.normal(size=(2_300, 16)) @ mix + 5
    other = random.normal(size=(1_700, 16)) @ (mix + random.normal(size=(16, 16)) / 3) + 5.5
    return real, other


def test_frechet_distance_agrees_with_scipys_matrix_root(sets):
    a, b = sets
    covariance_a, covariance_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(covariance_a @ covariance_b).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covariance_a + covariance_b - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_of_a_shift_is_its_square(sets):
    a, _ = sets
    assert frechet_distance(a, a + np.eye(16)[3] * 2) == pytest.approx(4, rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_bears_singular_covariances(sets):
    a, b = (array.copy() for array in sets)
    a[:, 4] = 1.0
    b[:, 4:6] = 0.0
    covariance_a, covariance_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    offset = 1e-9 * np.eye(16)  # scipy's root needs full rank
    root = sqrtm((covariance_a + offset) @ (covariance_b + offset)).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covariance_a + covariance_b - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-4)


def test_squared_mmd_agrees_with_scikit_learns_kernel(sets):
    a, b = sets
    n, m = len(a), len(b)
    k_aa, k_bb, k_ab = (polynomial_kernel(x, y, degree=3, coef0=1) for x, y in ((a, a), (b, b), (a, b)))
    within = (k_aa.sum() - np.trace(k_aa)) / (n * (n - 1)) + (k_bb.sum() - np.trace(k_bb)) / (m * (m - 1))
    assert squared_mmd(a, b) == pytest.approx(within - 2 * k_ab.mean(), rel=1e-6)


def test_squared_mmd_is_unbiased(sets):
    """Over many halves of one set it averages to nothing, which a biased estimate never would."""
    a = sets[0][:400]
    random = np.random.default_rng(1)
    estimates = []
    for _ in range(60):
        order = random.permutation(400)
        estimates.append(squared_mmd(a[order[:200]], a[order[200:]]))
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates)) < 4 * error


def test_kernel_distance_is_the_mean_of_subsets_and_repeatable(sets):
    a, b = sets
    mean, spread = kernel_distance(a, b, subsets=20, subset_size=500)
    assert kernel_distance(a, b, subsets=20, subset_size=500) == (mean, spread)
    assert mean == pytest.approx(squared_mmd(a, b), abs=4 * spread / np.sqrt(20))
    assert spread > 0


LINE = np.array([[0.0], [1.0], [2.0], [10.0]])  # to the nearest other point: 1, 1, 1, 8
OTHERS = np.array([[0.5], [2.5], [4.0], [30.0]])  # 2, 1.5, 1.5, 26


def test_precision_recall_of_a_case_worked_by_hand():
    """Real balls: [-1, 1], [0, 2], [1, 3], [2, 18]; synthetic ones: [-1.5, 2.5], [1, 4], [2.5, 5.5], [4, 56]."""
    assert precision_recall(LINE, OTHERS, neighbours=1) == (3 / 4, 4 / 4)
    assert precision_recall(LINE, OTHERS + 100, neighbours=1) == (0, 0)


def test_density_coverage_of_a_case_worked_by_hand():
    """0.5 lies in two real balls, 2.5 in two, 4 in one, 30 in none; every real ball holds one of them."""
    assert density_coverage(LINE, OTHERS, neighbours=1) == (5 / 4, 4 / 4)
    assert density_coverage(LINE, OTHERS[1:], neighbours=1) == (3 / 3, 2 / 4)
    assert density_coverage(LINE, OTHERS[3:], neighbours=1) == (0, 0)


@pytest.mark.parametrize("rows_at_a_time", [7, 1_000])
def test_manifolds_agree_with_whole_matrices(sets, monkeypatch, rows_at_a_time: int):
    monkeypatch.setattr(fidelity, "_BLOCK_ROWS", rows_at_a_time)
    real, other = sets[0][:300], sets[1][:250]

    def distances(a, b):
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))

    between = distances(real, other)
    reach = {k: np.sort(distances(real, real), 1)[:, k] for k in (3, 5)}
    reach_of_other = np.sort(distances(other, other), 1)[:, 3]
    precision, recall = precision_recall(real, other)
    assert precision == pytest.approx((between <= reach[3][:, None]).any(0).mean(), abs=1e-6)
    assert recall == pytest.approx((between <= reach_of_other).any(1).mean(), abs=1e-6)
    density, coverage = density_coverage(real, other)
    assert density == pytest.approx((between <= reach[5][:, None]).sum() / (5 * len(other)), abs=1e-6)
    assert coverage == pytest.approx((between <= reach[5][:, None]).any(1).mean(), abs=1e-6)
    assert 0 < precision < 1
    assert 0 < coverage < 1


def test_compare_gives_no_number_that_would_not_be_honest(sets):
    real, other = sets
    assert compare(real, other).problems == ()
    few = compare(real, other[:16])
    assert few.frechet is None
    assert few.kernel is not None
    assert few.problems == ("no Fréchet distance: 16 images are too few for 16 features",)
    hardly_any = compare(real, other[:5])
    assert (hardly_any.kernel, hardly_any.manifolds, hardly_any.balls) == (None, None, None)
    assert "5 images; 6 are needed" in hardly_any.problems[1]


def test_equal_vectors_give_numbers_and_no_complaint(sets):
    with np.errstate(all="raise"):
        result = compare(sets[0], np.ones((100, 16)))
    assert np.isfinite(result.frechet)
    assert result.manifolds.recall == 0
    assert result.balls.coverage < 0.1


def test_too_few_vectors_are_refused(sets):
    for measure in (frechet_distance, squared_mmd, precision_recall, density_coverage):
        with pytest.raises(ValueError, match="feature vectors; expected at least"):
            measure(sets[0][:1], sets[1][:1])
