"""The two look-up tables of the definition (docs/pixels.md): random word → latent, and logit → grey level.

Both are given by a formula. No entry is near a tie, so that every mathematical library gives the same table; its
SHA-256 is checked all the same.
"""

import functools
import hashlib
import math

import numpy as np
import numpy.typing as npt

from synthgen.errors import SynthgenError

LATENT_LIMIT = 127  # of a latent's absolute value
LATENT_SCALES = {"gaussian": 32, "uniform": 128}  # the integer that stands for a latent of 1.0
LOGIT_SCALE, LOGIT_LIMIT = 128, 1024  # the integer that stands for a logit of 1.0; -1024 to 1023 have an entry

GAUSSIAN_SHA256 = "81503143e301da3555e9fb644b0bec8beddfbbdbec8dd0bd77430be89ee5ff67"
GREY_SHA256 = "3a66e6b10ba15ef7ccab660dbdce48dae8e44bbc8cf19369d1afecf493889398"


@functools.cache
def gaussian_table() -> npt.NDArray[np.int8]:
    """Quantiles of the normal distribution: entry w is the integer nearest to 32 · Φ⁻¹((w + ½) / 65536), within ±127.

    Returns:
        int8, shape (65536,).
    """
    edges = [math.erfc((0.5 - k) / (LATENT_SCALES["gaussian"] * math.sqrt(2))) / 2 for k in range(-126, 128)]
    firsts = [math.ceil(65536 * edge - 0.5) for edge in edges]  # the first word of each latent from -126 on
    table = np.searchsorted(firsts, np.arange(65536), side="right") - LATENT_LIMIT
    latents = table.astype(np.int8)
    _expect_same(latents, GAUSSIAN_SHA256)
    return latents


@functools.cache
def grey_table() -> npt.NDArray[np.uint8]:
    """The sigmoid in grey levels: entry i is the integer nearest to 255 / (1 + exp(-(i - 1024) / 128)).

    Returns:
        uint8, shape (2048,).
    """
    logits = [n / LOGIT_SCALE for n in range(-LOGIT_LIMIT, LOGIT_LIMIT)]
    table = np.array([math.floor(255 / (1 + math.exp(-logit)) + 0.5) for logit in logits], np.uint8)
    _expect_same(table, GREY_SHA256)
    return table


def _expect_same(table: npt.NDArray[np.generic], sha256: str) -> None:
    if hashlib.sha256(table.tobytes()).hexdigest() != sha256:
        raise SynthgenError("this machine's mathematical library gives other tables than docs/pixels.md: report it")
    table.flags.writeable = False
