from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from synthgen.privacy import normal
from synthgen.privacy.normal import NORMAL_BITS, rounded_normal

CHANCE = 1e-7  # with which a right sampler fails a statistical test here
DRAWS = 1_000_000


@pytest.fixture(scope="module")
def draws():
    return rounded_normal(DRAWS)


def precise_exp(exponent: Fraction) -> Fraction:
    """exp(-exponent) to 80 digits, by the standard library."""
    with localcontext() as context:
        context.prec = 90
        return Fraction((-Decimal(exponent.numerator) / Decimal(exponent.denominator)).exp())


def test_draws_have_the_distribution_of_a_rounded_normal(draws):
    assert draws.dtype == np.int64
    values = (draws + 0.5) / 2**NORMAL_BITS
    assert stats.kstest(values, "norm").pvalue > CHANCE
    edges = np.concatenate([[-np.inf], np.arange(-256, 257) / 64, [np.inf]])  # the sampler's own cells
    counts = np.bincount(np.searchsorted(edges, values) - 1, minlength=len(edges) - 1)
    assert stats.chisquare(counts, DRAWS * np.diff(stats.norm.cdf(edges))).pvalue > CHANCE
    low, high = stats.chi2.ppf([CHANCE / 2, 1 - CHANCE / 2], DRAWS)
    assert low < np.square(values).sum() < high


def test_low_bits_are_uniform_and_independent_of_the_high_ones(draws):
    """Over 2^12 of 2^30 steps the density is flat to 4e-6 · |x|: far below what a million draws can tell."""
    low = draws & 255
    table = np.zeros((256, 16))
    np.add.at(table, (low, np.digitize(draws / 2**NORMAL_BITS, stats.norm.ppf(np.arange(1, 16) / 16))), 1)
    assert stats.chisquare(table.sum(axis=1)).pvalue > CHANCE
    assert stats.chi2_contingency(table).pvalue > CHANCE
    assert stats.chisquare(np.bincount((draws >> 4) & 255)).pvalue > CHANCE


def test_draws_are_independent_of_each_other(draws):
    x, y = draws[1:].astype(float), draws[:-1].astype(float)
    for a, b in ((x, y), (x**2, y**2), (x[DRAWS // 2 :], x[: len(x) - DRAWS // 2])):
        assert stats.pearsonr(a, b).pvalue > CHANCE
    signs = np.zeros((2, 2))
    np.add.at(signs, ((draws[1:] < 0).astype(int), (draws[:-1] < 0).astype(int)), 1)
    assert stats.chisquare(signs.ravel()).pvalue > CHANCE


def test_fewer_bits_are_the_floor_of_the_same_variable():
    for bits in (0, 1, 7):
        values = rounded_normal(200_000, bits)
        ends = np.arange(-(3 << bits), (3 << bits) + 1)
        expected = np.diff([0, *stats.norm.cdf(ends / 2**bits), 1])
        counts = np.bincount(np.searchsorted(ends, values, side="right"), minlength=len(expected))
        assert stats.chisquare(counts, 200_000 * expected).pvalue > CHANCE


def test_every_quick_decision_is_that_of_exact_arithmetic(monkeypatch):
    """a(x) ≤ 1, the slots suffice, and what is decided from the first digits holds for all that may follow."""
    left_open = []
    monkeypatch.setattr(normal, "_decide_one", lambda *point: left_open.append(point))
    random = np.random.default_rng(0)
    tables = normal._tables()
    some = [0, 800, *random.integers(0, 1 << 16, 60), *np.flatnonzero(tables.cells > 200)[::40]]
    for slot in map(int, some):
        cell = int(tables.cells[slot])
        if cell >= normal._TAIL:
            continue
        place = int(random.integers(1 << 24))
        x = Fraction((cell << 24) | place, 1 << 30)
        scale = Fraction(800, tables.slots[cell])
        most, least = (scale * precise_exp((x + step) ** 2 / 2) for step in (0, Fraction(1, 1 << 30)))
        assert scale * precise_exp(Fraction(cell * cell, 2 * 64**2)) <= 1
        edge = int(most * 2**23)
        tried = np.unique(np.clip([0, edge - 2, edge - 1, edge, edge + 1, edge + 2, 2**23 - 1], 0, 2**23 - 1))
        for chance in tried.tolist():
            word = np.array([slot | place << 17 | chance << 41], np.uint64)
            left_open.clear()
            accepted = len(normal._draws(word)) == 1
            if accepted:
                assert Fraction(chance + 1, 1 << 23) <= least
                assert normal._draws(word)[0] == (cell << 24) | place
                assert normal._draws(word | np.uint64(1 << 16))[0] == -1 - ((cell << 24) | place)
            elif not left_open:
                assert Fraction(chance, 1 << 23) >= most
            else:
                assert abs(chance - edge) <= 2


def test_what_few_digits_leave_open_is_decided_by_more(monkeypatch):
    """The further digits are given here: just below and just above a(x)."""
    cell, place = 70, 1_234_567
    x = Fraction((cell << 24) | place, 1 << 30)
    chance = Fraction(800, normal._tables().slots[cell]) * precise_exp(x * x / 2)
    first = int(chance * 2**23)
    rest = int((chance - Fraction(first, 2**23)) * 2**87)
    for further, accepted in ((rest - 1, True), (rest + 1, False)):
        bits = iter([0, further])  # x goes on with zeros: a(x) is its largest, to 2^-94
        monkeypatch.setattr(normal, "_more_bits", lambda count, bits=bits: next(bits))
        found = normal._decide_one(cell, place, first)
        assert found == ((cell << 24) | place if accepted else None)


def test_the_tail_is_the_normal_ones(monkeypatch):
    """Beyond 10, cell j is proposed with 2^-(j+1) and accepted with a(x), which is tiny."""
    for j in range(5):
        bits = iter([0] * j + [1, 3] + [0] * 20)
        monkeypatch.setattr(normal, "_more_bits", lambda count, bits=bits: next(bits))
        found = normal._decide_one(normal._TAIL, 1 << 23, 0)  # u = 0.000…: accepted with zeros enough
        assert found == ((10 + j) << 30) + (1 << 29) + 3
        assert precise_exp(Fraction((10 + j) ** 2, 2)) * 800 * 64 * 2 ** (j + 1) < 1e-16
    bits = iter([1, 0])
    monkeypatch.setattr(normal, "_more_bits", lambda count: next(bits))
    assert normal._decide_one(normal._TAIL, 0, 1) is None
    slots = normal._tables()
    (tail,) = np.flatnonzero(slots.cells == normal._TAIL)
    assert slots.below[tail] == 0
    assert slots.above[tail] == 1
    monkeypatch.setattr(normal, "_decide_one", lambda cell, place, chance: 11 << 30)
    assert normal._draws(np.array([tail], np.uint64)).tolist() == [11 << 30]


@pytest.mark.parametrize("exponent", [0, Fraction(1, 3), 1, Fraction(99, 7), 50, 400])
def test_the_exponentials_bounds_hold_and_are_tight(exponent):
    for bits in (10, 64, 200):
        least, most = normal._exp_bounds(Fraction(exponent), bits)
        assert least <= precise_exp(Fraction(exponent)) * (1 + Fraction(1, 10**80))
        assert most >= precise_exp(Fraction(exponent)) * (1 - Fraction(1, 10**80))
        assert most - least < Fraction(1, 2**bits)


def test_randomness_comes_from_the_operating_system_and_no_seed(monkeypatch):
    np.random.seed(0)  # noqa: NPY002
    first = rounded_normal(8)
    np.random.seed(0)  # noqa: NPY002
    assert not np.array_equal(first, rounded_normal(8))
    monkeypatch.setattr(normal.os, "urandom", bytes)  # zeros: slot 0, place 0, accepted
    assert not rounded_normal(8).any()


def test_any_number_of_draws():
    assert rounded_normal(0).shape == (0,)
    assert rounded_normal(1).shape == (1,)
    assert len(np.unique(rounded_normal(300_001) >> 4)) > 299_000
    for count, bits in ((-1, 30), (1, 31), (1, -1)):
        with pytest.raises(ValueError, match="expected at least 0 draws"):
            rounded_normal(count, bits)
