import math

import numpy as np
import pytest
from scipy import stats

from synthgen.audit.membership import infer_membership, judge
from synthgen.errors import EvaluationError


def images(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28), np.uint8)


def test_copies_of_training_images_are_found():
    members, non_members = images(300, 0), images(200, 1)
    found = infer_membership(members[:150], members, non_members)
    for attack in (found.distance, found.calibrated):
        assert attack.auc > 0.7
        assert attack.true_positive_rate >= 0.5
        assert attack.false_positive_rate <= 0.01
        assert attack.auc_interval[0] > 0.65
    assert (found.images, found.members, found.non_members) == (150, 300, 200)


def test_images_from_elsewhere_betray_nothing():
    found = infer_membership(images(400, 2), images(300, 0), images(200, 1))
    for attack in (found.distance, found.calibrated):
        # four standard errors instead of the two of the interval: this is no test of luck
        middle, half = attack.auc, attack.auc - attack.auc_interval[0]
        assert abs(middle - 0.5) < 2 * half
        assert attack.true_positive_rate < 0.08


def test_progress_reaches_its_end():
    steps: list[tuple[int, int]] = []
    infer_membership(
        images(5, 2), images(120, 0), images(110, 1), progress=lambda _, done, of: steps.append((done, of))
    )
    assert steps[-1] == (460, 460)


def test_too_few_images_are_refused():
    with pytest.raises(EvaluationError, match="99 training images: membership inference needs at least 100"):
        infer_membership(images(5, 2), images(99, 0), images(100, 1))
    with pytest.raises(EvaluationError, match="99 unseen real images"):
        infer_membership(images(5, 2), images(100, 0), images(99, 1))
    with pytest.raises(EvaluationError, match="the set is empty"):
        infer_membership(images(0, 2), images(100, 0), images(100, 1))


def test_the_auc_is_mann_whitneys_with_ties_half():
    random = np.random.default_rng(0)
    members, others = random.integers(0, 9, 80) + 1.0, random.integers(0, 9, 60) * 1.0
    attack = judge(members, others)
    statistic = stats.mannwhitneyu(members, others).statistic
    assert attack.auc == pytest.approx(statistic / (80 * 60))


def test_the_auc_interval_covers_as_often_as_it_says():
    random, true = np.random.default_rng(0), stats.norm.cdf(0.5 / math.sqrt(2))
    hits = 0
    for _ in range(400):
        low, high = judge(random.normal(0.5, 1, 150), random.normal(0, 1, 120)).auc_interval
        hits += low <= true <= high
    assert 0.92 < hits / 400 < 0.98


def test_the_threshold_lets_at_most_one_percent_pass():
    members, others = np.arange(1000.0), np.arange(250.0)
    attack = judge(members, others)
    assert attack.false_positive_rate == 2 / 250
    assert attack.true_positive_rate == (1000 - 248) / 1000
    equal = judge(np.zeros(100), np.zeros(100))
    assert (equal.auc, equal.true_positive_rate, equal.false_positive_rate) == (0.5, 0.0, 0.0)


def test_the_true_positive_interval_covers_as_often_as_it_says():
    random, true = np.random.default_rng(0), stats.norm.sf(stats.norm.isf(0.01) - 1)
    covered = 0
    for _ in range(300):
        low, high = judge(random.normal(1, 1, 2000), random.normal(0, 1, 1000)).true_positive_interval
        covered += low <= true <= high
    assert covered >= 280  # 93 %; it is exact or wider


def test_the_true_positive_interval_is_clopper_and_pearsons_at_half_the_error():
    """By their own formula, quantiles of beta distributions, at the thresholds that the non-members leave open."""
    random = np.random.default_rng(0)
    members, others = random.normal(1, 1, 500), np.sort(random.normal(0, 1, 400))[::-1]
    fewest, most = stats.binom.ppf([0.0125, 0.9875], 400, 0.01).astype(int)
    least, found = (int((members > others[passing]).sum()) for passing in (max(fewest - 1, 0), most))
    low, high = judge(members, others).true_positive_interval
    assert low == pytest.approx(stats.beta.ppf(0.0125, least, 500 - least + 1), abs=1e-9)
    assert high == pytest.approx(stats.beta.ppf(0.9875, found + 1, 500 - found), abs=1e-9)
    assert judge(np.zeros(100), np.ones(100)).true_positive_interval[0] == 0.0
    assert judge(np.ones(100), np.zeros(100)).true_positive_interval[1] == 1.0
