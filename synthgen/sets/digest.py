"""The digest of a set of images, the same for every format and every number of shards."""

import hashlib

import numpy as np

from synthgen.formats.base import Batch
from synthgen.index import BLOCK_IMAGES
from synthgen.subject import PIXELS, UNLABELLED


class SetDigest:
    """The digest of images in index order: SHA-256 over the SHA-256 of every block.

    A block is the images that share ``index // 256``; each image counts as its label byte (255: no label) followed by
    its 784 pixels. It has two levels so that shards, which are cut between blocks, can be digested apart and joined
    without reading them again.

    Args:
        start: the index of the first image.
    """

    def __init__(self, start: int) -> None:
        self._next = start
        self._open_block = hashlib.sha256()
        self._block_digests: list[bytes] = []

    def update(self, batch: Batch) -> None:
        """Add the next images; raises ValueError when ``batch`` does not follow those already added."""
        if batch.start != self._next:
            raise ValueError(f"batch starts at {batch.start}; expected {self._next}")
        rows = np.empty((len(batch), 1 + PIXELS), np.uint8)
        rows[:, 0] = UNLABELLED if batch.labels is None else batch.labels
        rows[:, 1:] = batch.images.reshape(len(batch), PIXELS)
        done = 0
        while done < len(rows):
            room = BLOCK_IMAGES - self._next % BLOCK_IMAGES
            piece = rows[done : done + room]
            self._open_block.update(piece.tobytes())
            done += len(piece)
            self._next += len(piece)
            if self._next % BLOCK_IMAGES == 0:
                self._close_block()

    def block_digests(self) -> list[bytes]:
        """The SHA-256 of every block, 32 bytes each; the last block may be partial."""
        if self._next % BLOCK_IMAGES and self._open_block.digest() != hashlib.sha256().digest():
            return [*self._block_digests, self._open_block.digest()]
        return list(self._block_digests)

    def hexdigest(self) -> str:
        """The digest of all images added so far, as 64 hexadecimal digits."""
        return join_block_digests(self.block_digests())

    def _close_block(self) -> None:
        self._block_digests.append(self._open_block.digest())
        self._open_block = hashlib.sha256()


def join_block_digests(digests: list[bytes]) -> str:
    """The digest of a set from the digests of its blocks, in order."""
    return hashlib.sha256(b"".join(digests)).hexdigest()
