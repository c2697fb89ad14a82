import json
import math

import numpy as np
import pytest
from scipy import optimize, stats

from synthgen.privacy.accounting import Mechanism, epsilon_of, loss_distribution
from synthgen.privacy.curve import (
    DELTAS,
    GDP_DELTA,
    Curve,
    curve_of,
    gdp_delta,
    group_epsilon,
    largest_true_positive_rate,
)


def gaussian(noise_multiplier: float, sampling_probability: float = 1.0, steps: int = 1) -> Mechanism:
    return Mechanism(
        name="m",
        releases="a sum",
        noise_multiplier=noise_multiplier,
        l2_sensitivity=1.0,
        sampling_probability=sampling_probability,
        steps=steps,
    )


SAMPLED = [gaussian(4.0, 0.125, 100), gaussian(3.0)]
FOUND = Curve(epsilons=(4.0, 3.0, 2.0, 1.0), gdp_mu=0.5, groups=(6.0, None), true_positive_rate=0.1)


def exact_epsilon(mu: float, delta: float) -> float:
    """Of one Gaussian mechanism (Balle & Wang 2018, theorem 8), by another route than the code's."""

    def excess(epsilon: float) -> float:
        log_second = epsilon + stats.norm.logcdf(-mu / 2 - epsilon / mu)
        return float(stats.norm.cdf(mu / 2 - epsilon / mu) - math.exp(log_second) - delta)

    return float(optimize.brentq(excess, 0, 200))


def densities(noise_multiplier: float, probability: float, size: int):
    """One sampled step with a group of ``size`` images and with empty records for them, on a grid of outcomes."""
    points = np.linspace(-12 * noise_multiplier, size + 12 * noise_multiplier, 400_001)
    weights = stats.binom.pmf(range(size + 1), size, probability)
    there = sum(weight * stats.norm.pdf(points, i, noise_multiplier) for i, weight in enumerate(weights))
    return stats.norm.pdf(points, 0, noise_multiplier), there, points[1] - points[0]


def test_without_sampling_every_number_is_that_of_one_gaussian():
    mechanisms = [gaussian(2.0), gaussian(3.0, steps=4), gaussian(5.0)]
    mu = math.sqrt(1 / 4 + 4 / 9 + 1 / 25)
    curve = curve_of(mechanisms, 1e-6)
    assert curve.gdp_mu == pytest.approx(mu, rel=1e-12)
    for delta, epsilon in zip(DELTAS, curve.epsilons, strict=True):
        exact = exact_epsilon(mu, delta)
        assert exact - 1e-6 <= epsilon <= exact + 2e-3
    for size, epsilon in zip((2, 3), curve.groups, strict=True):
        exact = exact_epsilon(size * mu, 1e-6)
        assert exact - 1e-6 <= epsilon <= exact + 2e-3
    best = stats.norm.cdf(stats.norm.ppf(0.01) + mu)  # Neyman & Pearson
    assert best <= curve.true_positive_rate <= best + 1e-4


def test_the_curve_meets_epsilon_at_every_delta():
    curve = curve_of(SAMPLED, 1e-5)
    assert curve.epsilons == tuple(epsilon_of(SAMPLED, delta) for delta in DELTAS)
    assert list(curve.epsilons) == sorted(curve.epsilons, reverse=True)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize(("noise_multiplier", "probability"), [(1.0, 0.1), (2.0, 0.5), (4.0, 0.9)])
def test_a_group_in_a_sampled_step_is_priced_in_both_directions(noise_multiplier, probability, size: int):
    empty, there, width = densities(noise_multiplier, probability, size)
    epsilon = group_epsilon([gaussian(noise_multiplier, probability)], size, 1e-5)
    exceeding = [
        np.maximum(one - math.exp(epsilon) * other, 0).sum() * width for one, other in ((empty, there), (there, empty))
    ]
    assert max(exceeding) == pytest.approx(1e-5, rel=0.05)
    assert max(exceeding) <= 1.000001e-5


def test_a_group_of_one_is_priced_like_one_image():
    assert group_epsilon(SAMPLED, 1, 1e-5) == pytest.approx(epsilon_of(SAMPLED, 1e-5), rel=2e-3)


def test_a_group_costs_more_than_its_number_times_one_image_at_a_smaller_delta():
    """Group privacy by (epsilon, delta) alone allows no smaller epsilon than what is computed."""
    for size, epsilon in zip((2, 3), curve_of(SAMPLED, 1e-5).groups, strict=True):
        one = epsilon_of(SAMPLED, 1e-9)
        assert epsilon_of(SAMPLED, 1e-5) < epsilon < size * one


@pytest.mark.parametrize("mechanisms", [SAMPLED, [gaussian(1.0, 0.01, 1_000)], [gaussian(13.7, 0.1365, 292)]])
def test_the_gaussian_bound_holds_for_the_whole_profile_and_is_tight(mechanisms):
    mu = curve_of(mechanisms, 1e-5).gdp_mu
    losses = loss_distribution(tuple(mechanisms))
    epsilons = np.sort(np.random.default_rng(0).uniform(0, losses.get_epsilon(1e-10), 501))
    deltas = losses.get_delta(epsilons)
    assert np.all(gdp_delta(epsilons, mu) >= deltas)
    assert not np.all(gdp_delta(epsilons, 0.99 * mu) >= deltas)
    assert losses.get_delta(float(losses.get_epsilon(GDP_DELTA)) + 1) < GDP_DELTA


@pytest.mark.parametrize(("noise_multiplier", "probability"), [(1.0, 0.1), (2.0, 0.5)])
def test_no_test_of_a_sampled_step_beats_the_largest_rate_and_the_best_meets_it(noise_multiplier, probability):
    empty, there, width = densities(noise_multiplier, probability, 1)
    # The likelihood ratio grows with the outcome: the best tests take the upper outcomes, or the lower ones.
    found = []
    for null, other in ((empty, there), (there, empty)):
        for step in (1, -1):
            false, true = (np.cumsum(each[::step]) * width for each in (null, other))
            found.append(float(np.interp(0.01, false, true)))
    assert (
        max(found) <= largest_true_positive_rate([gaussian(noise_multiplier, probability)], 1e-5) <= max(found) + 1e-3
    )


def test_it_survives_json_and_is_rounded_up():
    curve = curve_of(SAMPLED, 1e-5)
    claimed = curve.rounded_up()
    assert Curve.from_dict(json.loads(json.dumps(claimed.to_dict()))) == claimed
    assert claimed.beyond(curve) is None
    assert 0 <= claimed.gdp_mu - curve.gdp_mu <= 1.001e-4
    assert 0 <= claimed.true_positive_rate - curve.true_positive_rate <= 1.001e-4


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("gdp_mu", None),
        ("gdp_mu", math.nan),
        ("gdp_mu", True),
        ("gdp_mu", -1),
        ("gdp_mu", 10**400),
        ("true_positive_rate", 1.1),
        ("true_positive_rate", "0.1"),
        ("epsilon_at_delta", []),
        ("epsilon_at_delta", {"1e-05": 1.0}),
        ("epsilon_at_delta", {"1e-09": None, "1e-07": 1, "1e-05": 1, "0.001": 1}),
        ("epsilon_of_group", {"2": "x" * 10_000, "3": 1}),
        ("extra", 1),
    ],
)
def test_a_hostile_curve_is_refused_in_one_line(key: str, value):
    with pytest.raises(ValueError, match="the privacy statement's curve") as refused:
        Curve.from_dict(FOUND.to_dict() | {key: value})
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


def test_what_would_keep_the_accountant_busy_has_no_curve():
    vast = [gaussian(0.4 + i / 1_000, 1e-6, 31_250) for i in range(32)]
    assert curve_of(vast, 1e-5) is None
    epsilon = epsilon_of(vast, 1e-5, "rdp")
    by_one_point = min(0.01 * math.exp(epsilon) + 1e-5, 1 - math.exp(-epsilon) * (0.99 - 1e-5))
    assert largest_true_positive_rate(vast, 1e-5) == pytest.approx(by_one_point)
    assert group_epsilon([gaussian(0.08, 1e-6)], 3, 1e-5) is None
