import math

import numpy as np
import pytest
from scipy import optimize, stats

from synthgen.errors import PrivacyError
from synthgen.privacy.accounting import MAX_EPSILON, Budget, Mechanism, accountant_version, calibrated, epsilon_of


def gaussian(noise_multiplier: float, sampling_probability: float = 1.0, steps: int = 1) -> Mechanism:
    return Mechanism(
        name="m",
        releases="a sum",
        noise_multiplier=noise_multiplier,
        l2_sensitivity=1.0,
        sampling_probability=sampling_probability,
        steps=steps,
    )


def balle_wang_epsilon(noise_multiplier: float, delta: float) -> float:
    """The exact epsilon of one Gaussian mechanism (Balle & Wang 2018, theorem 8)."""

    def excess(epsilon: float) -> float:
        a, b = 1 / (2 * noise_multiplier), epsilon * noise_multiplier
        log_second = epsilon + stats.norm.logcdf(-a - b)
        return float(stats.norm.cdf(a - b) - math.exp(log_second) - delta)

    return float(optimize.brentq(excess, 0, 200))


@pytest.mark.parametrize(("noise_multiplier", "delta"), [(1.0, 1e-5), (3.7, 1e-6), (12.0, 1e-3)])
def test_one_gaussian_is_priced_as_the_exact_formula(noise_multiplier: float, delta: float):
    exact = balle_wang_epsilon(noise_multiplier, delta)
    assert exact <= epsilon_of([gaussian(noise_multiplier)], delta) <= exact + 2e-3


@pytest.mark.parametrize(("noise_multiplier", "probability"), [(1.0, 0.1), (2.0, 0.5), (4.0, 0.9)])
def test_a_sampled_step_is_priced_for_zero_out_in_both_directions(noise_multiplier: float, probability: float):
    """One record of a sum is empty in one data set and of norm 1 in the other; all others are the same in both."""
    points = np.linspace(-12 * noise_multiplier, 1 + 12 * noise_multiplier, 400_001)
    empty = stats.norm.pdf(points, 0, noise_multiplier)
    there = (1 - probability) * empty + probability * stats.norm.pdf(points, 1, noise_multiplier)
    epsilon = epsilon_of([gaussian(noise_multiplier, probability)], 1e-5)
    exceeding = [
        np.maximum(one - math.exp(epsilon) * other, 0).sum() * (points[1] - points[0])
        for one, other in ((empty, there), (there, empty))
    ]
    assert max(exceeding) == pytest.approx(1e-5, rel=0.02)  # the worse direction is met, and not by much
    assert min(exceeding) < 1e-5


def test_gaussians_compose_as_one_gaussian_of_their_summed_precision():
    parts = [gaussian(8.0, steps=10), gaussian(4.0), gaussian(6.0)]
    whole = (10 / 64 + 1 / 16 + 1 / 36) ** -0.5
    exact = balle_wang_epsilon(whole, 1e-5)
    assert exact <= epsilon_of(parts, 1e-5) <= exact + 2e-3


def test_steps_are_repetitions():
    together = epsilon_of([gaussian(4.0, 0.01, 300)], 1e-5)
    apart = epsilon_of([gaussian(4.0, 0.01, 100), gaussian(4.0, 0.01, 200)], 1e-5)
    assert together == pytest.approx(apart, abs=1e-3)


def test_order_does_not_matter_and_more_costs_more():
    one, other = gaussian(3.0, 0.02, 200), gaussian(10.0)
    assert epsilon_of([one, other], 1e-5) == pytest.approx(epsilon_of([other, one], 1e-5), rel=1e-6)
    assert epsilon_of([one, other], 1e-5) > max(epsilon_of([one], 1e-5), epsilon_of([other], 1e-5))
    assert epsilon_of([], 1e-5) == 0


def classical_rdp_epsilon(noise_multiplier: float, sampling_probability: float, steps: int, delta: float) -> float:
    """RDP at whole orders (Mironov, Talwar & Zhang 2019, section 3.3), converted as in Mironov 2017, proposition 3."""
    q, found = sampling_probability, []
    for order in range(2, 65):
        terms = [
            math.log(math.comb(order, k))
            + (order - k) * math.log1p(-q)
            + k * math.log(q)
            + k * (k - 1) / (2 * noise_multiplier**2)
            for k in range(order + 1)
        ]
        renyi = max(terms) + math.log(sum(math.exp(term - max(terms)) for term in terms))
        found.append((steps * renyi - math.log(delta)) / (order - 1))
    return min(found)


@pytest.mark.parametrize(
    ("noise_multiplier", "batch_size", "population", "steps", "published"),
    [  # all at delta 1e-5
        (1.12, 256, 60_000, 14_062, 2.92),  # TensorFlow Privacy, tutorials/README.md: 60 epochs of MNIST
        (1.2, 256, 60_000, 2_343, 1.20),  # ... 10 epochs
        (4.0, 1, 100, 10_000, 1.26),  # Abadi et al. 2016, section 3.2: the moments accountant
    ],
)
def test_published_epsilons_are_met(noise_multiplier, batch_size, population, steps, published):
    probability = batch_size / population
    assert classical_rdp_epsilon(noise_multiplier, probability, steps, 1e-5) == pytest.approx(published, abs=0.02)
    run = [gaussian(noise_multiplier, probability, steps)]
    # Since then the conversion to epsilon has become tighter (Canonne, Kamath & Steinke 2020), and PLD tighter still.
    assert 0.6 * published < epsilon_of(run, 1e-5) < epsilon_of(run, 1e-5, "rdp") < published


def test_the_classical_run_keeps_its_price():
    run = [gaussian(1.1, 256 / 60_000, 14_062)]
    assert classical_rdp_epsilon(1.1, 256 / 60_000, 14_062, 1e-5) == pytest.approx(3.0, abs=0.03)
    assert epsilon_of(run, 1e-5, "rdp") == pytest.approx(2.597, abs=2e-3)
    assert epsilon_of(run, 1e-5) == pytest.approx(2.382, abs=2e-3)


@pytest.mark.parametrize("mechanisms", [[(1.1, 256 / 60_000, 14_062)], [(18.0, 0.1365, 292), (4.76, 1.0, 1)]])
def test_rdp_bounds_pld_from_above(mechanisms: list[tuple[float, float, int]]):
    run = [gaussian(*parameters) for parameters in mechanisms]
    assert 0.5 * epsilon_of(run, 1e-5, "rdp") < epsilon_of(run, 1e-5) < epsilon_of(run, 1e-5, "rdp")


def test_next_to_no_noise_is_priced_at_once_and_honestly():
    assert epsilon_of([gaussian(1e-3, 0.5, 1_000)], 1e-5) > MAX_EPSILON


@pytest.mark.parametrize(("epsilon", "delta"), [(1.0, 1e-5), (3.0, 1e-6)])
def test_calibration_spends_the_budget_and_not_more(epsilon: float, delta: float):
    def plan(scale: float) -> list[Mechanism]:
        return [gaussian(4 * scale, 8_192 / 60_000, 292), gaussian(scale)]

    # Four times the noise for the sampled one: about half of the budget each.
    spent = epsilon_of(plan(calibrated(plan, Budget(epsilon, delta))), delta)
    assert 0.999 * epsilon <= spent <= epsilon


def test_calibration_of_what_noise_cannot_help_is_refused():
    with pytest.raises(PrivacyError, match="no amount of noise"):
        calibrated(lambda scale: [gaussian(0.5)], Budget(1.0, 1e-5))


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(0, 1e-5), (math.nan, 1e-5), (51, 1e-5), (1, 0), (1, 0.5), (1, math.nan)]
)
def test_senseless_budgets_are_refused(epsilon: float, delta: float):
    with pytest.raises(PrivacyError, match="expected a number"):
        Budget(epsilon, delta)


def test_an_unknown_accountant_is_refused():
    with pytest.raises(PrivacyError, match="expected pld or rdp"):
        epsilon_of([gaussian(1.0)], 1e-5, "guess")


def test_the_accountant_has_a_version():
    assert accountant_version()[0].isdigit()


@pytest.mark.parametrize(
    "run",
    [
        [gaussian(0.08, 1e-6)],
        [gaussian(0.4 + i / 1_000, 1e-6, 31_250) for i in range(32)],
        [gaussian(1.0 + i / 1_000) for i in range(32)],
    ],
    ids=["hardly any noise", "many sampled mechanisms", "many mechanisms"],
)
def test_what_would_keep_pld_busy_is_left_to_rdp(run: list[Mechanism], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("synthgen.privacy.accounting._epsilon_pld", lambda mechanisms, delta: pytest.fail("PLD"))
    assert epsilon_of(run, 1e-5) == epsilon_of(run, 1e-5, "rdp") > 0
