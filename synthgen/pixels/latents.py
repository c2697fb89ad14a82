"""Latents of the exact arithmetic: integers from the raw words of Philox, see docs/pixels.md."""

import numpy as np
import numpy.typing as npt

from synthgen.index import BLOCK_IMAGES, latent_words
from synthgen.pixels.tables import gaussian_table

_WORD_BITS = 16  # of a latent


def latents(seed: int, block: int, size: int, distribution: str) -> npt.NDArray[np.int8]:
    """The latents of one whole block.

    Args:
        seed: 0 to 2^64 - 1.
        block: its number, 0 or more.
        size: latents of an image.
        distribution: ``gaussian``: 32 times N(0, 1), within ±127; or ``uniform``: 0 to 127.

    Returns:
        int8, shape (256, size).
    """
    words = latent_words(seed, block, -(-BLOCK_IMAGES * size * _WORD_BITS // 64))
    parts = words.astype("<u8", copy=False).view("<u2")[: BLOCK_IMAGES * size].reshape(BLOCK_IMAGES, size)
    if distribution == "uniform":
        return (parts >> 9).astype(np.int8)
    return gaussian_table().take(parts)
