"""Exact nearest neighbours among images, by pixels.

Squared distances come from blocked matrix products, ``|a − b|² = |a|² + |b|² − 2 a·b``. With 128 subtracted from every
pixel each partial sum of ``a·b`` is a whole number of at most 784 · 128² < 2²⁴, which float32 holds exactly. The fast
product therefore makes no rounding error, and the nearest image is the same on every machine.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synthgen.index import pieces
from synthgen.subject import PIXELS, Images
from synthgen.workers import Progress, StageProgress

_QUERY_BLOCK, _REFERENCE_BLOCK = 2_048, 4_096  # 32 MiB of distances at a time
_MIDDLE_GREY = 128


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """The nearest reference of each of N queries.

    Attributes:
        indices: int64, shape (N,), into the references.
        squared_distances: int64, shape (N,), summed over the 784 pixels.
    """

    indices: npt.NDArray[np.int64]
    squared_distances: npt.NDArray[np.int64]

    @property
    def rms(self) -> npt.NDArray[np.float64]:
        """Distances as root-mean-square differences a pixel, in grey levels from 0 to 255, shape (N,)."""
        levels: npt.NDArray[np.float64] = np.sqrt(self.squared_distances / PIXELS)
        return levels

    def closest(self, count: int) -> npt.NDArray[np.int64]:
        """Indices of the ``count`` queries with the nearest neighbours, nearest first: int64."""
        return np.argsort(self.squared_distances, kind="stable")[:count]


def nearest(
    queries: Images,
    references: Images,
    *,
    others_only: bool = False,
    progress: Progress = lambda queries: None,
) -> Neighbours:
    """Find the nearest reference of every query, exactly.

    Args:
        queries: uint8, shape (N, 28, 28).
        references: uint8, shape (M, 28, 28).
        others_only: ``queries`` are the first N of ``references``, and none may be its own neighbour.
        progress: called with the number of queries just finished.

    Returns:
        Exact integer distances; among equally near references the first. (If even the nearest is farther than 146 grey
        levels a pixel, another may be nearer by one part in eight million.)

    Raises:
        ValueError: there is no reference to compare with.
    """
    if len(references) < 1 + others_only:
        raise ValueError(f"{len(references)} images to compare with; expected at least {1 + others_only}")
    rows = _centred(references)
    norms = np.einsum("ij,ij->i", rows, rows)  # at most 784 · 128²: exact
    if others_only and len(queries) == len(references):
        indices = _nearest_among_each_other(rows, norms, progress)
    else:
        indices = np.empty(len(queries), np.int64)
        for block in pieces(len(queries), _QUERY_BLOCK):
            indices[block] = _nearest_of_block(_centred(queries[block]), block, rows, norms, others_only)
            progress(block.stop - block.start)
    return Neighbours(indices=indices, squared_distances=_exact(queries, references, indices))


def in_stage(progress: StageProgress, stage: str, of: int) -> Progress:
    """A callback that adds up amounts and reports them as steps of a stage, ``of`` in all."""
    done = 0

    def advance(amount: int) -> None:
        nonlocal done
        done += amount
        progress(stage, done, of)

    return advance


def _nearest_of_block(
    queries: npt.NDArray[np.float32],
    block: slice,
    references: npt.NDArray[np.float32],
    norms: npt.NDArray[np.float32],
    others_only: bool,
) -> npt.NDArray[np.int64]:
    """Indices of the nearest references, searched one block of references at a time."""
    best = np.full(len(queries), np.inf, np.float32)
    indices = np.full(len(queries), -1, np.int64)
    every = np.arange(len(queries))
    queries = queries * np.float32(-2)  # doubling is exact
    for piece in pieces(len(references), _REFERENCE_BLOCK):
        # |a − b|² minus |a|², which is the same for all references: exact below 2²⁴, and monotone above.
        scores = queries @ references[piece].T
        scores += norms[piece]
        if others_only:
            own = every[(every + block.start >= piece.start) & (every + block.start < piece.stop)]
            scores[own, own + block.start - piece.start] = np.inf
        found = scores.argmin(1)
        score = scores[every, found]
        nearer = score < best
        best[nearer], indices[nearer] = score[nearer], found[nearer] + piece.start
    return indices


def _nearest_among_each_other(
    rows: npt.NDArray[np.float32], norms: npt.NDArray[np.float32], progress: Progress
) -> npt.NDArray[np.int64]:
    """Indices of each image's nearest other; a block of distances serves its rows and its columns, half the work."""
    best = np.full(len(rows), np.inf, np.float32)
    indices = np.full(len(rows), -1, np.int64)
    blocks = list(pieces(len(rows), _QUERY_BLOCK))
    for i, above in enumerate(blocks):
        doubled: npt.NDArray[np.float32] = np.multiply(rows[above], -2, dtype=np.float32)
        for below in blocks[i:]:
            distances = doubled @ rows[below].T
            distances += norms[below]
            distances += norms[above, None]
            if below == above:
                np.fill_diagonal(distances, np.inf)
            else:
                _take_nearer(distances.T, below, above.start, best, indices)
            _take_nearer(distances, above, below.start, best, indices)
        progress(above.stop - above.start)
    return indices


def _take_nearer(
    distances: npt.NDArray[np.float32],
    block: slice,
    offset: int,
    best: npt.NDArray[np.float32],
    indices: npt.NDArray[np.int64],
) -> None:
    """Update ``best`` and ``indices`` for the images of ``block`` from ``distances`` (block, columns)."""
    improved = np.flatnonzero(distances.min(1) < best[block])  # few after the first blocks
    candidates = distances[improved]
    found = candidates.argmin(1)
    best[improved + block.start] = candidates[np.arange(len(improved)), found]
    indices[improved + block.start] = found + offset


def _centred(images: Images) -> npt.NDArray[np.float32]:
    rows = images.reshape(len(images), PIXELS).astype(np.float32)
    rows -= _MIDDLE_GREY
    return rows


def _exact(queries: Images, references: Images, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The squared distance of each query to the reference found for it, in integers."""
    distances = np.empty(len(queries), np.int64)
    for block in pieces(len(queries), _QUERY_BLOCK):
        gaps = queries[block].astype(np.int32) - references[indices[block]]
        distances[block] = (gaps * gaps).sum((1, 2), dtype=np.int64)
    return distances
