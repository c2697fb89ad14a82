"""Exact draws of a rounded normal variable: ⌊2³⁰ · N⌋ for a standard normal N, from random bits and integers alone.

No draw is a rounded real number, so that nothing is left for an attack on low bits (Mironov 2012; Haney et al. 2022,
arXiv:2207.13793). The distribution is that of the rounded variable itself, not one close to it:

1. |N| has density proportional to exp(-x²/2) on x ≥ 0. The half line is cut into cells [c/64, (c + 1)/64) with c < 640,
   and cells [10 + j, 11 + j) with j ≥ 0. Of 2¹⁶ equally likely slots, n_c ≥ 800 · exp(-(c/64)²/2) belong to cell c, one
   to the tail, whose cell j is taken with probability 2^-(j+1), and the rest to none.
2. x is uniform in its cell: a fraction whose binary digits are drawn when they are needed, without end.
3. The point is accepted with probability a(x) = exp(-x²/2) · 800/n_c, in the tail exp(-x²/2) · 800 · 64 · 2^(j+1), and
   all is drawn anew otherwise. Both are at most 1: the first by the choice of n_c, the second because it is 2 · 10⁻¹⁷
   at x = 10 and shrinks by the factor 2 · exp(-10.5) or a smaller one from one j to the next. So what is accepted has
   density proportional to (n_c / 2¹⁶) · 64 · a(x), respectively 2^-(j+1) / 2¹⁶ · a(x), which is
   exp(-x²/2) · 800 · 64 / 2¹⁶ in both cases: rejection sampling (von Neumann 1951) is exact.
4. To accept with probability a(x), a uniform u, another endless fraction, is compared with a(x). The first 24 digits
   of x's place in its cell and the first 23 of u bound both from below and above. If the bounds do not decide, further
   digits are drawn, and the bounds are rational numbers (`_exp_bounds`). The digits of x beyond 2⁻³⁰ are never used but
   for this decision.
5. With a random sign, ⌊2³⁰ · N⌋ is ⌊2³⁰ x⌋ or -1 - ⌊2³⁰ x⌋, up to the event that x has finitely many digits, which has
   probability 0. Dropping the lowest k bits leaves ⌊2^(30-k) · N⌋.

Karney 2016 (arXiv:1303.6257) showed that the normal distribution can be sampled exactly, digit by digit. Here nearly
every decision is a comparison of two 32-bit integers (bounds of a(x) over the whole cell), so that numpy draws
millions in a second.
"""

import functools
import os
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

NORMAL_BITS = 30  # digits of N after the point

_SLOT_BITS, _PLACE_BITS, _CHANCE_BITS = 16, 24, 23  # of each 64-bit word, and one for the sign
_CELLS_A_UNIT, _CELLS = 64, 640
_TAIL, _NONE = _CELLS, _CELLS + 1  # what a slot that belongs to no cell below 10 belongs to
_PEAK = 800  # slots of the first cell, nearly
_CHUNK_WORDS = 1 << 17  # drawn at a time, to bound the memory and to stay in the cache
_MORE_BITS = 64  # drawn where those at hand do not decide

Integers = npt.NDArray[np.int64]
_Words = npt.NDArray[np.uint64]


class _Tables(NamedTuple):
    """For each slot: its cell, and a(x) over the whole cell in units of 2⁻²³.

    Attributes:
        cells: int64.
        below: uint32: a(x) ≥ ``below`` · 2⁻²³ everywhere in the cell.
        above: uint32: a(x) ≤ ``above`` · 2⁻²³ everywhere in the cell.
        left: for each cell, float64: a(x) at its left end, to 2⁻⁵⁰.
        slots: for each cell, how many slots it has.
    """

    cells: Integers
    below: npt.NDArray[np.uint32]
    above: npt.NDArray[np.uint32]
    left: npt.NDArray[np.float64]
    slots: tuple[int, ...]


def rounded_normal(count: int, bits: int = NORMAL_BITS) -> Integers:
    """``count`` independent draws of ⌊2^bits · N⌋, N standard normal, from the operating system's entropy; exact.

    Args:
        count: at least 0.
        bits: 0 to 30.
    """
    if count < 0 or not 0 <= bits <= NORMAL_BITS:
        raise ValueError(f"{count} draws of {bits} bits; expected at least 0 draws of 0 to {NORMAL_BITS} bits")
    drawn = np.empty(count, np.int64)
    done = 0
    while done < count:
        words = min(_CHUNK_WORDS, (count - done) * 17 // 16 + 16)
        part = _draws(np.frombuffer(os.urandom(8 * words), np.uint64))[: count - done]
        drawn[done : done + len(part)] = part
        done += len(part)
    drawn >>= NORMAL_BITS - bits  # the floor, for negative numbers also
    return drawn


def _draws(words: _Words) -> Integers:
    """⌊2³⁰ · N⌋ for each random word that is accepted; independent of which others are."""
    tables = _tables()
    slots = (words & np.uint64((1 << _SLOT_BITS) - 1)).astype(np.intp)
    chances = (words >> np.uint64(64 - _CHANCE_BITS)).astype(np.uint32)
    accepted = chances < tables.below[slots]  # u < (chance + 1) · 2⁻²³ ≤ below · 2⁻²³ ≤ a(x)
    unclear = np.flatnonzero(accepted ^ (chances < tables.above[slots]))  # else u ≥ chance · 2⁻²³ ≥ a(x)
    cells, places = tables.cells[slots], _places(words)
    tail = _decide(unclear, cells[unclear], places[unclear], chances[unclear], accepted)
    magnitudes = (cells << _PLACE_BITS) | places
    for i, magnitude in tail:
        magnitudes[i] = magnitude
    signs = -((words >> np.uint64(_SLOT_BITS)) & np.uint64(1)).astype(np.int64)  # 0 or -1
    return (magnitudes ^ signs)[accepted]  # m ^ -1 is -1 - m


def _places(words: _Words) -> Integers:
    """The first digits of each point's place in its cell."""
    return ((words >> np.uint64(_SLOT_BITS + 1)) & np.uint64((1 << _PLACE_BITS) - 1)).astype(np.int64)


def _decide(
    unclear: npt.NDArray[np.intp],
    cells: Integers,
    places: Integers,
    chances: npt.NDArray[np.uint32],
    accepted: npt.NDArray[np.bool_],
) -> list[tuple[int, int]]:
    """Mark in ``accepted`` what the bounds over whole cells left open; returns the tail's accepted draws, by index.

    With t = place · 2⁻³⁰ and h = t · c/64 + t²/2 < 0.157, a(x) at the place is a(left end) · exp(-h). The series up to
    h⁵ is below exp(-h) by at most h⁶/720 < 2.1e-8. Towards the next place a(x) falls by less than 10 · 2⁻³⁰ < 1e-8. The
    roundings of some twenty float64 operations on numbers below 1, each at most 2⁻⁵³ (IEEE 754), and of ``left`` are
    below 1e-14. So a(x) is within 2⁻²⁴ > 5.9e-8 of what is computed here.
    """
    tables = _tables()
    inside = cells < _TAIL
    left = tables.left[np.where(inside, cells, 0)]
    t = places * 2.0**-NORMAL_BITS
    h = t * (cells / _CELLS_A_UNIT) + t * t / 2
    chance = left * (1 - h * (1 - h / 2 * (1 - h / 3 * (1 - h / 4 * (1 - h / 5))))) * 2.0**_CHANCE_BITS
    surely = inside & (chances + 1.0 <= chance - 0.5)
    open_still = ~inside | ~(surely | (chances >= chance + 0.5))
    accepted[unclear[surely]] = True
    tail = []
    for k in np.flatnonzero(open_still):
        magnitude = _decide_one(int(cells[k]), int(places[k]), int(chances[k]))
        if magnitude is not None:
            accepted[unclear[k]] = True
            if cells[k] == _TAIL:
                tail.append((int(unclear[k]), magnitude))
    return tail


def _decide_one(cell: int, place: int, chance: int) -> int | None:
    """⌊2³⁰ x⌋ if the point is accepted, else None: by rational bounds, with as many more digits as it takes."""
    if cell == _TAIL:
        j = 0
        while not _more_bits(1):  # j with probability 2^-(j+1)
            j += 1
        unit = (10 + j) << NORMAL_BITS
        x = unit | (place << (NORMAL_BITS - _PLACE_BITS)) | _more_bits(NORMAL_BITS - _PLACE_BITS)
        factor = Fraction(_PEAK * _CELLS_A_UNIT * 2 ** (j + 1))
    else:
        x = (cell << _PLACE_BITS) | place
        factor = Fraction(_PEAK, _tables().slots[cell])
    digits, chance_digits, magnitude = NORMAL_BITS, _CHANCE_BITS, x
    while True:
        least = factor * _exp_bounds(Fraction((x + 1) ** 2, 2 << 2 * digits), chance_digits + 32)[0]
        most = factor * _exp_bounds(Fraction(x**2, 2 << 2 * digits), chance_digits + 32)[1]
        if Fraction(chance + 1, 1 << chance_digits) <= least:
            return magnitude
        if Fraction(chance, 1 << chance_digits) >= most:
            return None
        x, digits = (x << _MORE_BITS) | _more_bits(_MORE_BITS), digits + _MORE_BITS
        chance, chance_digits = (chance << _MORE_BITS) | _more_bits(_MORE_BITS), chance_digits + _MORE_BITS


def _more_bits(count: int) -> int:
    """A uniform integer of ``count`` bits from the operating system's entropy."""
    return int.from_bytes(os.urandom((count + 7) // 8), "little") & ((1 << count) - 1)


def _exp_bounds(exponent: Fraction, bits: int) -> tuple[Fraction, Fraction]:
    """Rational bounds of exp(-exponent), about 2^-bits apart.

    exp(-y) for 0 ≤ y ≤ 1/2 lies between any two partial sums of its series that follow each other (Leibniz), and
    exp(-z) is its power of 2^k for y = z / 2^k. Squares are rounded outwards.
    """
    halvings = (int(exponent) + 1).bit_length() + 1
    one = 1 << (bits + halvings + 8)
    y = exponent / (1 << halvings)
    total, term, n = Fraction(1), Fraction(1), 0
    while n % 2 or term * one > 1:  # ends after a term that was added, so that the sum is too large
        n += 1
        term *= y / n
        total += -term if n % 2 else term
    least, most = int((total - term) * one), int(total * one) + 1
    for _ in range(halvings):
        least, most = least * least // one, most * most // one + 1
    return Fraction(least, one), Fraction(most, one)


@functools.cache
def _tables() -> _Tables:
    """The slots of every cell, and the bounds of a(x) over each."""
    peaks = [_exp_bounds(Fraction(c * c, 2 * _CELLS_A_UNIT**2), 64) for c in range(_CELLS + 1)]
    slots = [-int(-_PEAK * most // 1) for _, most in peaks[:-1]]  # rounded up
    none = (1 << _SLOT_BITS) - sum(slots) - 1
    assert none >= 0
    below, above, left = [], [], []
    for c, n in enumerate(slots):
        below.append(int(peaks[c + 1][0] * _PEAK / n * 2**_CHANCE_BITS))
        above.append(-int(-peaks[c][1] * _PEAK / n * 2**_CHANCE_BITS // 1))
        left.append(float(peaks[c][0] * _PEAK / n))
    repeats = [*slots, 1, none]
    return _Tables(
        cells=np.repeat(np.arange(_NONE + 1), repeats),
        below=np.repeat(np.array([*below, 0, 0], np.uint32), repeats),
        above=np.repeat(np.array([*above, 1, 0], np.uint32), repeats),
        left=np.array(left),
        slots=tuple(slots),
    )
