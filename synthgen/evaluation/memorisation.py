"""Has the generator copied its training images, or does it repeat itself? Distances indicate it; they prove nothing.

A generator that memorised nothing draws images as far from the training images as from equally many test images, which
it never saw (the two-sample idea of Meehan, Chaudhuri and Dasgupta 2020, arXiv:2004.05675). So the training images are
cut into parts as large as the test set, and every part is compared with the test set. Which distances count as near is
taken from the distances among real images. None of this is a privacy guarantee.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from synthgen.evaluation.neighbours import Neighbours, in_stage, nearest
from synthgen.subject import Images
from synthgen.workers import StageProgress

QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
NEAR_QUANTILE = 0.01  # of the distances of real test images to the training images: nearer is suspicious
_HISTOGRAM_BINS = 40


@dataclass(frozen=True, kw_only=True)
class Closeness:
    """Distances of images to the nearest training images, and to the nearest test images.

    Distances are root-mean-square differences a pixel, in grey levels. Without test images only the distances to all
    training images and the exact copies are known; the others are None.

    Attributes:
        images: how many were measured.
        training_quantiles: of the distances to the nearest of all training images, at ``QUANTILES``.
        part_quantiles: of the distances to the nearest image of each part of the training images, all parts together.
        test_quantiles: of the distances to the nearest test image.
        ratio: the median distance to the parts over that to the test set; 1 where nothing was memorised.
        nearer_to_training: how often the nearest image of a part is nearer than the nearest test image; ties count
            half; 0.5 where nothing was memorised.
        near_copies: the share nearer to a training image than all but 1 % of real test images are.
        exact_copies: how many equal a training image pixel by pixel.
        part_histogram, test_histogram: shares of images in the bins of ``Memorisation.histogram_edges``.
    """

    images: int
    training_quantiles: tuple[float, ...]
    part_quantiles: tuple[float, ...] | None = None
    test_quantiles: tuple[float, ...] | None = None
    ratio: float | None = None
    nearer_to_training: float | None = None
    near_copies: float | None = None
    exact_copies: int
    part_histogram: tuple[float, ...] | None = None
    test_histogram: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """Distances between the images of a set.

    Attributes:
        images: how many were measured, each against all.
        quantiles: of the distances to the nearest other image, at ``QUANTILES``.
        near_duplicates: the share nearer to another than all but 1 % of real test images are to a training image; None
            without test images.
        exact_duplicates: how many equal another image, pixel by pixel.
    """

    images: int
    quantiles: tuple[float, ...]
    near_duplicates: float | None
    exact_duplicates: int


@dataclass(frozen=True, kw_only=True)
class Memorisation:
    """What distances say about a set.

    Attributes:
        synthetic: closeness of the set's images.
        real: closeness of the real test images, each compared with the other test images: the floor; None without
            test images, as are ``near`` and ``histogram_edges``.
        repetition: within the set; None for a set of one image.
        near: the distance that counts as near.
        histogram_edges: of the histograms' bins, one more than there are bins.
    """

    synthetic: Closeness
    real: Closeness | None
    repetition: Repetition | None
    near: float | None
    histogram_edges: tuple[float, ...] | None


@dataclass(frozen=True, kw_only=True)
class ClosestPairs:
    """The images most like copies: uint8, each array (pairs, 28, 28), nearest pair first.

    Attributes:
        synthetic, training: images of the set, and their nearest training images.
        one, other: images of the set, and their nearest other images of the set.
        training_rms, set_rms: how far apart they are.
    """

    synthetic: Images
    training: Images
    training_rms: tuple[float, ...]
    one: Images
    other: Images
    set_rms: tuple[float, ...]


def measure_memorisation(
    images: Images,
    train: Images,
    test: Images | None,
    *,
    most: int = 60_000,
    pairs: int = 18,
    progress: StageProgress = lambda stage, done, of: None,
) -> tuple[Memorisation, ClosestPairs]:
    """Compare a set with the training images, the test images and itself, exactly.

    Args:
        images: the set, uint8 (N, 28, 28), in random order if N is more than ``most``.
        train: real training images, uint8 (M, 28, 28).
        test: real test images, uint8 (K, 28, 28), in random order if K is more than ``most``; None if there are none.
        most: neighbours are searched for the first ``most`` of ``images`` and of ``test``, always among all.
        pairs: how many of the closest pairs to return as pictures.
        progress: called as the search goes on.
    """
    judged = images[:most]
    near: float | None = None
    edges: npt.NDArray[np.float64] | None = None
    fresh: _Distances | None = None
    found = _distances(judged, train, test, progress=progress)
    if test is not None:
        fresh = _distances(test[:most], train, test, queries_are_test=True, progress=progress)
        near = float(np.quantile(fresh.training.rms, NEAR_QUANTILE))
        farthest = max(float(np.quantile(d, 0.999)) for each in (found, fresh) for d in each.sides or ())
        edges = np.linspace(0, max(farthest, 1.0), _HISTOGRAM_BINS + 1)
    inside = None
    if len(images) > 1:
        report = in_stage(progress, "nearest among the set's own images", len(judged))
        inside = nearest(judged, images, others_only=True, progress=report)
    result = Memorisation(
        synthetic=_closeness(found, near, edges),
        real=None if fresh is None else _closeness(fresh, near, edges),
        repetition=None if inside is None else _repetition(inside, near),
        near=near,
        histogram_edges=None if edges is None else tuple(edges.tolist()),
    )
    return result, _closest_pairs(images, train, found.training, inside, pairs)


@dataclass(frozen=True, kw_only=True)
class _Distances:
    """Of N queries: the nearest training images, and distances to each part of these (parts, N) and to test (N,).

    Both distances are None without test images.
    """

    training: Neighbours
    sides: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None


def _distances(
    queries: Images, train: Images, test: Images | None, *, queries_are_test: bool = False, progress: StageProgress
) -> _Distances:
    """Compare queries with the training images, a part as large as the test set at a time, and with the test images."""
    size = len(train) if test is None else min(len(test), len(train))
    starts = range(0, len(train), size)
    report = in_stage(progress, "nearest among real images", len(queries) * (len(starts) + (test is not None)))
    found = [nearest(queries, train[start : start + size], progress=report) for start in starts]
    training = _nearest_of(found, starts)
    if test is None:
        return _Distances(training=training, sides=None)
    leave_out = queries_are_test and len(test) > 1  # a single test image has no other to be compared with
    unseen = nearest(queries, test, others_only=leave_out, progress=report)
    whole_parts = len(train) // size  # the last may be smaller, and nearest neighbours in it farther
    return _Distances(training=training, sides=(np.stack([n.rms for n in found[:whole_parts]]), unseen.rms))


def _nearest_of(found: Sequence[Neighbours], starts: Sequence[int]) -> Neighbours:
    """The nearest of the nearest neighbours in several parts; indices count over all parts."""
    distances = np.stack([neighbours.squared_distances for neighbours in found])
    indices = np.stack([neighbours.indices + start for neighbours, start in zip(found, starts, strict=True)])
    part, queries = distances.argmin(0), np.arange(distances.shape[1])
    return Neighbours(indices=indices[part, queries], squared_distances=distances[part, queries])


def _closeness(distances: _Distances, near: float | None, edges: npt.NDArray[np.float64] | None) -> Closeness:
    rms = distances.training.rms
    known = Closeness(
        images=len(rms),
        training_quantiles=_quantiles(rms),
        exact_copies=int((distances.training.squared_distances == 0).sum()),
    )
    if distances.sides is None or near is None or edges is None:
        return known
    parts, test = distances.sides
    median = float(np.median(test))
    return replace(
        known,
        part_quantiles=_quantiles(parts),
        test_quantiles=_quantiles(test),
        ratio=float(np.median(parts)) / median if median else 1.0,
        nearer_to_training=float(((parts < test) + (parts == test) / 2).mean()),
        near_copies=float((rms < near).mean()),
        part_histogram=_histogram(parts, edges),
        test_histogram=_histogram(test, edges),
    )


def _repetition(inside: Neighbours, near: float | None) -> Repetition:
    return Repetition(
        images=len(inside.indices),
        quantiles=_quantiles(inside.rms),
        near_duplicates=None if near is None else float((inside.rms < near).mean()),
        exact_duplicates=int((inside.squared_distances == 0).sum()),
    )


def _closest_pairs(
    images: Images, train: Images, to_train: Neighbours, inside: Neighbours | None, pairs: int
) -> ClosestPairs:
    copies = to_train.closest(pairs)
    alike = np.array([], np.int64) if inside is None else _each_pair_once(inside, pairs)
    return ClosestPairs(
        synthetic=images[copies],
        training=train[to_train.indices[copies]],
        training_rms=tuple(to_train.rms[copies].tolist()),
        one=images[alike],
        other=images[alike] if inside is None else images[inside.indices[alike]],
        set_rms=() if inside is None else tuple(inside.rms[alike].tolist()),
    )


def _each_pair_once(inside: Neighbours, pairs: int) -> npt.NDArray[np.int64]:
    """The first images of the closest pairs; of two images that are each other's nearest only one."""
    chosen: list[int] = []
    seen: set[frozenset[int]] = set()
    for query in inside.closest(2 * pairs).tolist():
        pair = frozenset((query, int(inside.indices[query])))
        if pair not in seen:
            seen.add(pair)
            chosen.append(query)
    return np.array(chosen[:pairs], np.int64)


def _quantiles(values: npt.NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(np.quantile(values, QUANTILES).tolist())


def _histogram(values: npt.NDArray[np.float64], edges: npt.NDArray[np.float64]) -> tuple[float, ...]:
    counts, _ = np.histogram(values, edges)
    return tuple((counts / values.size).tolist())
