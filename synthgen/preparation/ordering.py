"""In which order prepared images stand, and which of them become test images: by their content alone.

The order is that of the SHA-256 of label and pixels. So the same images give the same files, whatever kind of source
they came from and in whatever order they stood there, and the classes are mixed.
"""

import hashlib
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from synthgen.preparation.conversion import Converted

ORDER = "by the SHA-256 of label and pixels"
_DIGEST_WORDS = 4  # of 64 bits


def in_order(converted: Converted) -> tuple[Converted, int]:
    """The images in their order, and how many are the same, label included, as the one before."""
    digests = _digests(converted)
    order = _sorted(digests)
    digests = digests[order]
    repeated = int((digests[1:] == digests[:-1]).all(axis=1).sum())
    return _taken(converted, order), repeated


def set_aside(converted: Converted, share: float, seed: int) -> tuple[Converted, Converted]:
    """Part images that are in their order into training and test images; both parts stay in their order.

    Of each class about ``share`` become test images: those for which the SHA-256 of seed, label and pixels is below
    that share of the largest one. So an image's split is decided by itself alone. To take a fixed number of each class
    would let one private image more or less move another one into the training split.
    """
    is_test = _digests(converted, str(seed).encode())[:, 0] < np.uint64(share * 2.0**64)
    return _taken(converted, np.flatnonzero(~is_test)), _taken(converted, np.flatnonzero(is_test))


def _taken(converted: Converted, indices: npt.NDArray[np.intp]) -> Converted:
    return replace(converted, images=converted.images[indices], labels=converted.labels[indices])


def _digests(converted: Converted, salt: bytes = b"") -> npt.NDArray[np.uint64]:
    """(N, 4): the SHA-256 of salt, label and pixels of each image."""
    digests = bytearray()
    for label, image in zip(converted.labels, converted.images, strict=True):
        digests += hashlib.sha256(salt + bytes([label]) + image.tobytes()).digest()
    return np.frombuffer(digests, ">u8").reshape(-1, _DIGEST_WORDS).astype(np.uint64)


def _sorted(digests: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
    return np.lexsort(digests.T[::-1])
