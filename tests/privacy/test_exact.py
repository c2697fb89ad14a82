import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from synthgen.errors import PrivacyError
from synthgen.privacy import exact
from synthgen.privacy.exact import MAX_ROWS, Grid, expect_countable, whole_rows

CHANCE = 1e-7  # with which a right mechanism fails a statistical test here
MULTIPLIERS = [1e-3, 0.47, 1.0, 2.145, 79.4, 1e5]


def integers(whole: np.ndarray) -> list[list[int]]:
    """Rows as Python's integers; refuses what is none."""
    assert (whole == np.rint(whole)).all()
    return [[int(number) for number in row] for row in whole]


def squared_norms(whole: np.ndarray) -> list[int]:
    """In exact arithmetic."""
    return [sum(number * number for number in row) for row in integers(whole)]


@pytest.mark.parametrize("multiplier", MULTIPLIERS)
@pytest.mark.parametrize("clip", [1.0, 0.5, 1 / 3, 1e-12, 1e12])
def test_the_grids_noise_is_at_least_what_the_accountant_prices(multiplier: float, clip: float):
    """The theorem's 2^b / √S ≥ z, in exact arithmetic; and hardly more."""
    grid = Grid.of(multiplier, clip)
    effective = Fraction(4**grid.noise_bits, grid.squared_clip)
    assert effective >= Fraction(multiplier) ** 2
    assert math.sqrt(effective) == pytest.approx(multiplier, rel=1e-3)
    assert grid.squared_clip <= 1 << exact.EXACT_BITS
    assert grid.clip * grid.step == pytest.approx(clip, rel=1e-4)
    if multiplier < 16:
        assert grid.clip > 1 << 25  # fine enough that rounding hurts nothing


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_senseless_grids_are_refused(value: float):
    with pytest.raises(PrivacyError, match="noise_multiplier"):
        Grid.of(value, 1.0)
    with pytest.raises(PrivacyError, match="l2_sensitivity"):
        Grid.of(1.0, value)


@settings(max_examples=300, deadline=None)
@given(
    rows=arrays.arrays(
        st.sampled_from([np.float32, np.float64]),
        st.tuples(st.integers(0, 6), st.integers(1, 40)),
        elements=st.one_of(
            st.floats(-2, 2, width=32), st.floats(width=32, allow_nan=True), st.sampled_from([0.0, 1.0, math.inf])
        ),
    ),
    scale=st.sampled_from([1e-3, 1.0, 1000.0, 2.0**26, 1e300]),
    squared_clip=st.sampled_from([0, 1, 1000, 2**40 + 1, 2**52]),
)
def test_no_row_exceeds_the_clip_in_integers_and_those_within_are_only_rounded(rows, scale, squared_clip):
    whole = whole_rows(rows, scale, squared_clip)
    assert whole.shape == rows.shape
    assert max(squared_norms(whole), default=0) <= squared_clip
    for before, after in zip(rows.astype(np.float64), whole, strict=True):
        with np.errstate(all="ignore"):
            rounded = np.rint(before * scale)
        if not np.isfinite(rounded).all():
            assert not after.any()
        elif sum(int(number) ** 2 for number in rounded) <= squared_clip:
            np.testing.assert_array_equal(after, rounded)
        else:
            assert (after * rounded >= 0).all()
            assert (np.abs(after) <= np.abs(rounded)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1.0, 1.0 + 1e-6, 3.0, 1e6, 1e30])
def test_a_long_row_keeps_its_direction_and_nearly_the_clips_length(dtype: type, size: float):
    grid = Grid.of(1.7, 1.0)
    rows = np.random.default_rng(0).standard_normal((50, 3002))
    rows[1] = np.eye(3002)[5]
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True) * size).astype(dtype)
    whole = grid.rows(rows)
    assert max(squared_norms(whole)) <= grid.squared_clip
    back = whole * grid.step
    np.testing.assert_allclose(back, rows / size, atol=3e-5)


def test_a_row_depends_on_itself_alone_wherever_it_stands():
    random = np.random.default_rng(1)
    rows = (random.standard_normal((60, 3001)) * 10.0 ** random.uniform(-4, 4, (60, 1))).astype(np.float32)
    rows[7, 3] = np.nan
    whole = whole_rows(rows, 2.0**20, 2**52)
    order = random.permutation(60)
    np.testing.assert_array_equal(whole_rows(rows[order], 2.0**20, 2**52), whole[order])
    for i in range(60):
        np.testing.assert_array_equal(whole_rows(rows[i : i + 1], 2.0**20, 2**52), whole[i : i + 1])


def test_sums_of_whole_rows_are_exact_in_any_order():
    grid = Grid.of(2.0, 1.0)
    rows = np.random.default_rng(2).standard_normal((2000, 30)).astype(np.float32)
    rows[:, 0] += 100  # all the same way: the largest sums there can be
    whole = grid.rows(rows)
    expected = [sum(column) for column in zip(*integers(whole), strict=True)]
    labels = np.eye(3)[np.arange(2000) % 3]
    assert [int(number) for number in (labels.T @ whole).sum(axis=0)] == expected
    assert [int(number) for number in np.ones(2000) @ whole[::-1]] == expected
    assert grid.clip * MAX_ROWS <= 1 << exact.EXACT_BITS  # and so it is for as many rows as are allowed
    with pytest.raises(PrivacyError, match="examples; sums are exact up to"):
        expect_countable(MAX_ROWS + 1)
    expect_countable(MAX_ROWS)


def test_the_noise_is_the_floor_of_a_normal_variable_on_the_grid_and_moves_with_the_sums():
    grid = Grid.of(3.0, 2.0)
    sums = np.full((1000, 1000), 12345.0)
    noise = grid.noisy(sums) - sums * grid.step
    assert stats.kstest(noise.ravel(), "norm", args=(0, 2.0**grid.noise_bits * grid.step)).pvalue > CHANCE
    assert 2.0**grid.noise_bits * grid.step == pytest.approx(6.0, rel=1e-4)
    steps = grid.noisy(np.zeros(1000)) / grid.step - 0.5
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-5)
    assert grid.noisy(np.zeros((0, 3))).shape == (0, 3)


def test_what_is_added_does_not_depend_on_what_it_is_added_to(monkeypatch):
    grid = Grid.of(1.0, 1.0)
    fixed = np.array([5, -7, 1 << 32, -(1 << 33)])
    monkeypatch.setattr(exact, "rounded_normal", lambda count, bits: fixed.copy())
    sums = np.array([0.0, 3.0, -(2.0**51), 2.0**51])
    expected = [(int(a) + int(b) + 0.5) * grid.step for a, b in zip(sums, fixed, strict=True)]
    assert grid.noisy(sums).tolist() == expected
