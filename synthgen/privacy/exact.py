"""The Gaussian mechanism on integers: its proof holds for the numbers that the program computes, not for real ones.

A mechanism releases the sum of one row for each example, each of L2 norm at most C, with noise of standard deviation
z · C. Here all of that happens on a grid whose step is chosen so that the noise has a standard deviation of exactly 2^b
steps:

1. Each row is rounded to whole steps, and clipped so that the sum of its squared *integers* is at most
   S = ⌊4^b / z²⌋. How that is done does not matter to the proof, for the sum of squares is computed exactly afterwards
   and a row that exceeds S becomes zeros; so does one with a NaN or an infinity. Whatever is done to a row depends on
   that row alone, bit for bit: only operations that IEEE 754 rounds correctly, and sums that are exact in any order.
2. The rows' sum is exact. Every integer here is held in a float64, and is exact up to 2^53. As S ≤ 2^52, each row's
   numbers are at most 2^26, so that the sum of up to 2^26 rows, and every part of it, is at most 2^52. So any matrix
   product of such numbers with zeros and ones, in any order and by any BLAS that adds products, is exact.
3. ⌊2^b · N⌋ is added to each sum, N standard normal, sampled exactly (``privacy.normal``).
4. Only then the sums become real numbers again.

Theorem. The output is a post-processing of the Gaussian mechanism with noise multiplier 2^b / √S ≥ z, for which the
accountant computes epsilon. Proof: by 1 and 2 an example moves the vector s of exact sums by at most √S in L2 norm.
s is of integers, so that s + ⌊2^b · N⌋ = ⌊s + 2^b · N⌋: the floor of what the Gaussian mechanism releases. A function
of a release is as private as the release (Dwork and Roth 2014, proposition 2.1). The same holds step by step for
DP-SGD: by 1 and 2 the sum over a Poisson sample with an example differs from that without it by this example's row
alone. ∎

The discrete Gaussian of Canonne, Kamath and Steinke (2020, arXiv:2004.00010) would do as well for concentrated
privacy (their theorem 14). But for privacy loss distributions there is no theorem that prices it, subsampled and in
thousands of dimensions, as the continuous one; the rounded normal needs none.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from synthgen.errors import PrivacyError
from synthgen.privacy.normal import NORMAL_BITS, rounded_normal

EXACT_BITS = 52  # integers, and sums of integers, up to 2^52 are exact in a float64, with a bit to spare
MAX_ROWS = 1 << 26
_CLIP_BITS = 26  # √S is at most 2^26
_SLACK = 2.0**-16  # rows of norm C, to rounding, stay within S
_CHUNK_BYTES = 8 << 20  # 8 MiB of rows at a time, to stay in the cache

Rows = npt.NDArray[np.float32] | npt.NDArray[np.float64]
WholeNumbers = npt.NDArray[np.float64]  # integers up to 2^53


@dataclass(frozen=True)
class Grid:
    """The integers on which one mechanism runs.

    Attributes:
        noise_bits: the noise has a standard deviation of 2^noise_bits steps.
        squared_clip: the largest squared norm of a row, in steps; at most 2^52.
        step: one step in the unit of the rows.
    """

    noise_bits: int
    squared_clip: int
    step: float

    @classmethod
    def of(cls, noise_multiplier: float, l2_sensitivity: float) -> "Grid":
        """The finest grid for a noise multiplier and a clip norm, both finite and above 0.

        Raises:
            PrivacyError: one of both is not.
        """
        for name, value in (("noise_multiplier", noise_multiplier), ("l2_sensitivity", l2_sensitivity)):
            if not 0 < value < math.inf:
                raise PrivacyError(f"{name} {value}; expected a finite number above 0")
        squared = Fraction(noise_multiplier) ** 2
        bits = NORMAL_BITS
        while bits > 0 and 4**bits > squared * 4**_CLIP_BITS:
            bits -= 1
        squared_clip = int(4**bits / squared)
        if not 0 < squared_clip <= 4**_CLIP_BITS:
            raise PrivacyError(f"noise_multiplier {noise_multiplier}; expected a number from 1e-6 to 1e8")
        return cls(bits, squared_clip, l2_sensitivity / (math.sqrt(squared_clip) * (1 - _SLACK)))

    @property
    def clip(self) -> float:
        """The largest norm of a row, in steps."""
        return math.sqrt(self.squared_clip)

    def rows(self, rows: Rows) -> WholeNumbers:
        """Rows (N, D), one for each example, in whole steps and clipped: ``whole_rows``."""
        return whole_rows(rows, 1 / self.step, self.squared_clip)

    def noisy(self, sums: WholeNumbers) -> npt.NDArray[np.float64]:
        """Exact sums of at most 2^26 clipped rows, with noise, in the rows' unit: the mechanism's output."""
        drawn = rounded_normal(sums.size, self.noise_bits).reshape(sums.shape)
        drawn += sums.astype(np.int64)
        return (drawn.astype(np.float64) + 0.5) * self.step  # the floor takes half a step, on average


def expect_countable(examples: int) -> None:
    """Raise PrivacyError where the sum of so many rows might not be exact."""
    if examples > MAX_ROWS:
        raise PrivacyError(f"{examples:,} examples; sums are exact up to {MAX_ROWS:,}")


def whole_rows(rows: Rows, scale: float, squared_clip: int) -> WholeNumbers:
    """``rows`` · ``scale``, rounded to integers whose squares sum to at most ``squared_clip`` in each row, exactly.

    A longer row is scaled down and rounded towards zero; one with a NaN or an infinity becomes zeros. Each row of the
    result depends on the same row of ``rows`` alone, bit for bit.

    Args:
        rows: shape (N, D), one row for each example.
        scale: finite, above 0.
        squared_clip: at most 2^52.
    """
    assert squared_clip <= 1 << EXACT_BITS
    whole = np.empty(rows.shape, np.float64)
    size = max(1, _CHUNK_BYTES // (8 * max(1, rows.shape[1])))
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for first in range(0, len(rows), size):
            part = whole[first : first + size]
            np.multiply(rows[first : first + size], scale, out=part, dtype=np.float64)
            np.rint(part, out=part)
            long = np.flatnonzero(~_fits(part, squared_clip))
            if len(long):
                part[long] = _shortened(part[long], squared_clip)
    return whole


def _fits(whole: WholeNumbers, squared_clip: int) -> npt.NDArray[np.bool_]:
    """Whether each row's squares sum to at most ``squared_clip``; exact, and False for rows that are no numbers.

    Rounding is monotone and nothing here is negative: if the computed sum is at most 2^52, then no number on the way to
    it, in whatever order, was more, and all were integers, so that none was rounded. If the true sum is at most 2^52,
    then the computed one is the true one.
    """
    fits: npt.NDArray[np.bool_] = np.einsum("nd,nd->n", whole, whole) <= squared_clip
    return fits


def _shortened(whole: WholeNumbers, squared_clip: int) -> WholeNumbers:
    """Rows that are too long, scaled down and rounded towards zero; zeros where they are no numbers.

    The norm is that of numbers so coarse that their squares' sum is exact: the result does not depend on its order.
    """
    numbers = np.where(np.isfinite(whole).all(axis=1, keepdims=True), whole, 0)
    bits = (EXACT_BITS - (whole.shape[1] - 1).bit_length()) // 2
    _, exponents = np.frexp(np.abs(numbers).max(axis=1, keepdims=True))
    small = np.ldexp(numbers, bits - exponents)  # at most 2^bits
    coarse = np.ceil(np.abs(small))
    norms = np.sqrt(np.einsum("nd,nd->n", coarse, coarse))[:, None]  # not below the true ones
    target = math.sqrt(squared_clip) * (1 - 2.0**-40)
    short: WholeNumbers = np.trunc(small * (target / np.maximum(norms, 1)))
    short[~_fits(short, squared_clip)] = 0
    return short
