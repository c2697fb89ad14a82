import math

import numpy as np
import pytest
from scipy import stats

from synthgen.errors import PrivacyError
from synthgen.privacy.mechanisms import clip_rows, poisson_sample

CHANCE = 1e-7  # with which a right mechanism fails a statistical test here


def exact_norm(row: np.ndarray) -> float:
    """The L2 norm in exact arithmetic, rounded once."""
    return math.hypot(*row.astype(float).tolist())


def test_sampling_ignores_every_seed():
    np.random.seed(0)  # noqa: NPY002
    first = poisson_sample(1000, 0.5)
    np.random.seed(0)  # noqa: NPY002
    assert not np.array_equal(first, poisson_sample(1000, 0.5))


@pytest.mark.parametrize("probability", [256 / 60_000, 0.5, 0.97])
def test_poisson_sampling_has_the_rate_asked_for(probability: float):
    sizes = [len(poisson_sample(60_000, probability)) for _ in range(20)]
    assert stats.binomtest(sum(sizes), 20 * 60_000, probability).pvalue > CHANCE
    assert len(set(sizes)) > 1  # not a batch of fixed size


def test_poisson_sampling_takes_each_index_independently():
    taken = np.zeros((4_000, 40))
    for row in taken:
        row[poisson_sample(40, 0.3)] = 1
    for count in taken.sum(axis=0):  # every index at the same rate
        assert stats.binomtest(int(count), 4_000, 0.3).pvalue > CHANCE / 40
    pairs = [(i, j) for i in range(40) for j in range(i)]
    joint = [int((taken[:, i] * taken[:, j]).sum()) for i, j in pairs]
    assert min(stats.binomtest(count, 4_000, 0.09).pvalue for count in joint) > CHANCE / len(pairs)
    sizes = taken.sum(axis=1)  # their number is binomial
    observed = [(sizes <= 9).sum(), ((sizes > 9) & (sizes <= 14)).sum(), (sizes > 14).sum()]
    cumulative = stats.binom.cdf([9, 14], 40, 0.3)
    expected = 4_000 * np.diff([0, *cumulative, 1])
    assert stats.chisquare(observed, expected).pvalue > CHANCE


def test_poisson_sampling_at_the_ends():
    assert poisson_sample(5, 1.0).tolist() == [0, 1, 2, 3, 4]
    assert poisson_sample(5, 0.0).size == 0
    assert poisson_sample(0, 0.5).size == 0
    assert poisson_sample(5, 1.0).dtype == np.int64
    for probability in (-0.1, 1.1, math.nan):
        with pytest.raises(PrivacyError, match="probability"):
            poisson_sample(5, probability)


def adversarial_rows(dtype: type) -> np.ndarray:
    """Rows chosen to break a clip: at the norm, huge, tiny, lopsided, zero, NaN, infinite; and random ones."""
    largest, tiny = np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    generator = np.random.default_rng(3)
    rows = [np.full(97, value) for value in (0, tiny, largest, -largest, 1 / math.sqrt(97), 0.1, 1e-20)]
    rows += [np.eye(97)[0] * value for value in (tiny, largest, 1.0, 1 + 1e-6, 3.0)]
    rows += list(generator.normal(size=(300, 97)) * 10.0 ** generator.uniform(-8, 8, (300, 1)))
    rows += [row / exact_norm(row) * scale for row in generator.normal(size=(300, 97)) for scale in (1.0, 1.0 + 1e-7)]
    mixed = generator.normal(size=97)
    mixed[3] = largest
    return np.array([*rows, mixed], dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("clip", [1.0, 0.1, 1 / 3, 1e-20, 1e20])
def test_no_row_exceeds_the_clip_and_none_changes_direction(dtype: type, clip: float):
    rows = adversarial_rows(dtype)
    clipped = clip_rows(rows, clip)
    assert clipped.dtype == dtype
    assert clipped.shape == rows.shape
    norms = [exact_norm(row) for row in clipped]
    assert max(norms) <= clip
    for before, after, norm in zip(rows, clipped, norms, strict=True):
        if exact_norm(before) < 0.999 * clip:
            np.testing.assert_array_equal(before, after)
        elif np.abs(before).max() > 0:
            assert norm > 0.999 * clip
            cosine = np.dot(after / norm, before / np.abs(before).max()) / exact_norm(before / np.abs(before).max())
            assert cosine == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zeroing_any_example_moves_the_sum_by_at_most_the_clip(dtype: type):
    rows = adversarial_rows(dtype)
    clipped = clip_rows(rows, 0.7)
    for i in range(0, len(rows), 7):
        without = clip_rows(np.delete(rows, i, axis=0), 0.7)
        np.testing.assert_array_equal(without, np.delete(clipped, i, axis=0))  # a row depends on itself alone
        assert exact_norm(clipped[i]) <= 0.7


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_no_number_becomes_zero_and_spoils_no_other(value: float):
    rows = np.ones((3, 4), np.float32)
    rows[1, 2] = value
    clipped = clip_rows(rows, 1.0)
    assert not clipped[1].any()
    np.testing.assert_allclose(clipped[[0, 2]], 0.5, rtol=1e-5)


def test_empty_rows_and_senseless_clips():
    assert clip_rows(np.zeros((0, 4)), 1.0).shape == (0, 4)
    assert clip_rows(np.zeros((2, 0)), 1.0).shape == (2, 0)
    for clip in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(PrivacyError, match="l2_clip_norm"):
            clip_rows(np.zeros((2, 2)), clip)
    with pytest.raises(PrivacyError, match="rows"):
        clip_rows(np.zeros((2, 2), np.int64), 1.0)
