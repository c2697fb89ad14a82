"""Poisson sampling, and the clip of real numbers. Noise, and the clip of every mechanism: ``privacy.exact``.

Randomness comes from the operating system (``os.urandom``) and nowhere else. No seed is accepted or recorded, because
anyone who knows who was sampled, or the noise, can subtract it.
"""

import os

import numpy as np
import numpy.typing as npt

from synthgen.errors import PrivacyError

_CHUNK_ROW_BYTES = 32 << 20  # 32 MiB of rows clipped at a time
_MIN_CLIP_NORM, _MAX_CLIP_NORM = 1e-30, 1e30  # far from the numbers that float32 cannot hold


def poisson_sample(population: int, probability: float) -> npt.NDArray[np.int64]:
    """The indices below ``population``, each taken independently with ``probability``.

    The probability is rounded down to a multiple of 2⁻⁶⁴, so that it never exceeds the one that the accountant prices.

    Returns:
        int64, ascending.

    Raises:
        PrivacyError: the probability is not within 0 to 1, or the population is negative.
    """
    if not 0 <= probability <= 1:  # also refuses NaN
        raise PrivacyError(f"sampling probability {probability}; expected a number from 0 to 1")
    if population < 0:
        raise PrivacyError(f"population {population}; expected at least 0")
    if probability == 1:
        return np.arange(population, dtype=np.int64)
    threshold = np.uint64(int(probability * 2**64))  # exact: a scaling by a power of two
    return np.flatnonzero(_random_integers(population) < threshold).astype(np.int64)


def clip_rows(rows: npt.NDArray[np.floating], l2_clip_norm: float) -> npt.NDArray[np.floating]:
    """Scale down each row whose L2 norm exceeds ``l2_clip_norm``; no norm exceeds it afterwards, rounding included.

    A row with a NaN or an infinity becomes zeros. It must not spoil the sum of the other rows, and an error would
    reveal that the example is there.

    Args:
        rows: shape (N, D), one row per example; float32 or float64.
        l2_clip_norm: the largest norm allowed, between 1e-30 and 1e30.

    Returns:
        A new array of the same shape and dtype.

    Raises:
        PrivacyError: the clip norm is out of range, or ``rows`` has another shape or dtype.
    """
    if not _MIN_CLIP_NORM <= l2_clip_norm <= _MAX_CLIP_NORM:
        raise PrivacyError(f"l2_clip_norm {l2_clip_norm}; expected a number between 1e-30 and 1e30")
    if rows.ndim != 2 or rows.dtype not in (np.float32, np.float64):
        raise PrivacyError(f"rows of shape {rows.shape} and type {rows.dtype}; expected (N, D), float32 or float64")
    clipped = np.empty_like(rows)
    step = max(1, _CHUNK_ROW_BYTES // (8 * max(1, rows.shape[1])))
    for start in range(0, len(rows), step):
        clipped[start : start + step] = _clip_chunk(rows[start : start + step], l2_clip_norm)
    return clipped


def _clip_chunk(rows: npt.NDArray[np.floating], l2_clip_norm: float) -> npt.NDArray[np.float64]:
    # The margin covers two roundings: of each number to the rows' dtype, and of the norm's sum.
    target = l2_clip_norm * (1 - (8 * float(np.finfo(rows.dtype).eps) + 1e-12))
    wide = rows.astype(np.float64)
    wide[~np.isfinite(wide).all(axis=1)] = 0
    largest = np.abs(wide).max(axis=1, keepdims=True, initial=0)
    unit = wide / np.where(largest > 0, largest, 1)  # squares of these cannot overflow, nor all underflow
    norm = np.sqrt(np.square(unit).sum(axis=1, keepdims=True))  # of unit: 0, or from 1 to sqrt(D)
    with np.errstate(over="ignore"):
        too_long = largest * norm > target
    return np.where(too_long, unit * (target / np.where(norm > 0, norm, 1)), wide)


def _random_integers(count: int) -> npt.NDArray[np.uint64]:
    """Uniform 64-bit integers from the operating system's entropy."""
    return np.frombuffer(os.urandom(8 * count), np.uint64)
