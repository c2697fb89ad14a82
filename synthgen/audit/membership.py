"""Membership inference: does a synthetic set reveal which real images its generator was trained on?

The attack scores a real image by its distance to the set (Chen et al. 2020, "GAN-Leaks", arXiv:1909.03935, full black
box). A second form takes that distance relative to the one to other real images, because some images have many close
neighbours and others none (Watson et al. 2022, arXiv:2111.08440). A stronger attack may find what these do not.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from synthgen.errors import EvaluationError
from synthgen.evaluation.neighbours import in_stage, nearest
from synthgen.subject import Images
from synthgen.workers import StageProgress

Scores = npt.NDArray[np.float64]
Interval = tuple[float, float]

FALSE_POSITIVE_RATE = 0.01
MIN_IMAGES = 100  # of members and of non-members: of fewer, 1 % is less than one image


@dataclass(frozen=True, kw_only=True)
class Attack:
    """How well a score separates members from non-members.

    Attributes:
        auc: probability that a random member scores above a random non-member; 1/2 is chance.
        auc_interval: by DeLong, DeLong & Clarke-Pearson 1988.
        true_positive_rate: the share of members found at a threshold that at most 1 % of the non-members pass.
        true_positive_interval: of the share found at the threshold that 1 % of *all* non-members pass. The
            non-members at hand give that threshold only roughly. Half of the error probability is spent on it, by
            order statistics, and half on the members, by Clopper & Pearson 1934.
        false_positive_rate: the share of non-members that pass it.
    """

    auc: float
    auc_interval: Interval
    true_positive_rate: float
    true_positive_interval: Interval
    false_positive_rate: float


@dataclass(frozen=True, kw_only=True)
class Membership:
    """Both forms of the attack on one set.

    Attributes:
        images: how many synthetic images were searched.
        members, non_members: how many real images were scored.
        confidence: of every interval.
        distance: by the distance to the nearest synthetic image.
        calibrated: by that distance relative to the one to the nearest other non-member.
    """

    images: int
    members: int
    non_members: int
    confidence: float
    distance: Attack
    calibrated: Attack


def infer_membership(
    images: Images,
    members: Images,
    non_members: Images,
    *,
    confidence: float = 0.95,
    progress: StageProgress = lambda stage, done, of: None,
) -> Membership:
    """Attack a synthetic set.

    Args:
        images: the set, uint8 (N, 28, 28).
        members: real images the generator was trained on, uint8 (M, 28, 28).
        non_members: real images of the same kind that it never saw, uint8 (K, 28, 28).
        confidence: of the intervals.
        progress: called as the search goes on.

    Raises:
        EvaluationError: the set is empty, or there are fewer than 100 members or non-members.
    """
    if not len(images):
        raise EvaluationError("the set is empty; expected at least one image")
    for what, real in (("training", members), ("unseen real", non_members)):
        if len(real) < MIN_IMAGES:
            raise EvaluationError(f"{len(real)} {what} images: membership inference needs at least {MIN_IMAGES}")
    report = in_stage(progress, "nearest images", 2 * (len(members) + len(non_members)))

    def distances(queries: Images, references: Images, *, others_only: bool = False) -> npt.NDArray[np.int64]:
        return nearest(queries, references, others_only=others_only, progress=report).squared_distances

    to_set = distances(members, images), distances(non_members, images)
    to_real = distances(members, non_members), distances(non_members, non_members, others_only=True)
    nearness = [-np.sqrt(squared) for squared in to_set]
    # Logarithms of a ratio; a copy, at distance 0, counts as one grey level away.
    advantage = [np.log(np.maximum(r, 1)) - np.log(np.maximum(s, 1)) for r, s in zip(to_real, to_set, strict=True)]
    return Membership(
        images=len(images),
        members=len(members),
        non_members=len(non_members),
        confidence=confidence,
        distance=judge(nearness[0], nearness[1], confidence),
        calibrated=judge(advantage[0], advantage[1], confidence),
    )


def judge(members: Scores, non_members: Scores, confidence: float = 0.95) -> Attack:
    """How well scores, higher for likelier members, separate the two.

    Args:
        members, non_members: their scores, shapes (M,) and (K,), neither empty.
        confidence: of the intervals.
    """
    ordered = np.sort(non_members)[::-1]

    def found(passing: int) -> int:
        """How many members score above all non-members but ``passing``."""
        return int((members > ordered[min(passing, len(ordered) - 1)]).sum())

    passing = int(FALSE_POSITIVE_RATE * len(ordered))
    tail = (1 - confidence) / 4
    fewest, most = stats.binom.ppf([tail, 1 - tail], len(ordered), FALSE_POSITIVE_RATE).astype(int)
    auc, interval = _auc(members, non_members, confidence)

    def exact_interval(successes: int) -> Interval:
        """Clopper & Pearson's, at half the error probability."""
        low, high = stats.binomtest(successes, len(members)).proportion_ci((1 + confidence) / 2, method="exact")
        return float(low), float(high)

    return Attack(
        auc=auc,
        auc_interval=interval,
        true_positive_rate=found(passing) / len(members),
        true_positive_interval=(
            exact_interval(found(max(fewest - 1, 0)))[0],
            exact_interval(found(most))[1],
        ),
        false_positive_rate=float((non_members > ordered[min(passing, len(ordered) - 1)]).mean()),
    )


def _auc(members: Scores, non_members: Scores, confidence: float) -> tuple[float, Interval]:
    """Area under the ROC curve with DeLong's interval, ties counting half."""
    above = _share_below(members, non_members)
    below = 1 - _share_below(non_members, members)
    auc = float(above.mean())
    variance = above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below)
    half = float(stats.norm.ppf((1 + confidence) / 2)) * math.sqrt(variance)
    return auc, (max(0.0, auc - half), min(1.0, auc + half))


def _share_below(scores: Scores, others: Scores) -> Scores:
    """For each score, the share of the others below it, equal ones counting half."""
    ordered = np.sort(others)
    left, right = np.searchsorted(ordered, scores, "left"), np.searchsorted(ordered, scores, "right")
    shares: Scores = (left + right) / (2 * len(ordered))
    return shares
