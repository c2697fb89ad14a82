import math

import pytest
from scipy import optimize, stats

from synthgen.errors import PrivacyError
from synthgen.privacy.accounting import MAX_EPSILON, Budget, accountant_version, calibrated, epsilon_of
from synthgen.privacy.ledger import Mechanism


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


@pytest.mark.parametrize(("noise_multiplier", "delta"), [(0.5, 1e-5), (1.0, 1e-5), (3.7, 1e-6), (12.0, 1e-3)])
def test_one_gaussian_is_priced_as_the_exact_formula(noise_multiplier: float, delta: float):
    exact = balle_wang_epsilon(noise_multiplier, delta)
    assert exact <= epsilon_of([gaussian(noise_multiplier)], delta) <= exact + 2e-3


def test_gaussians_compose_as_one_gaussian_of_their_summed_precision():
    parts = [gaussian(4.0, steps=10), gaussian(2.0), gaussian(3.0)]
    whole = (10 / 16 + 1 / 4 + 1 / 9) ** -0.5
    exact = balle_wang_epsilon(whole, 1e-5)
    assert exact <= epsilon_of(parts, 1e-5) <= exact + 2e-3


def test_steps_are_repetitions():
    together = epsilon_of([gaussian(2.0, 0.01, 300)], 1e-5)
    apart = epsilon_of([gaussian(2.0, 0.01, 100), gaussian(2.0, 0.01, 200)], 1e-5)
    assert together == pytest.approx(apart, abs=1e-3)


def test_order_does_not_matter_and_more_costs_more():
    one, other = gaussian(1.5, 0.02, 200), gaussian(3.0)
    assert epsilon_of([one, other], 1e-5) == pytest.approx(epsilon_of([other, one], 1e-5), rel=1e-6)
    assert epsilon_of([one, other], 1e-5) > max(epsilon_of([one], 1e-5), epsilon_of([other], 1e-5))
    assert epsilon_of([], 1e-5) == 0


@pytest.mark.parametrize("mechanisms", [[(1.1, 256 / 60_000, 14_062)], [(18.0, 0.1365, 292), (4.76, 1.0, 1)]])
def test_rdp_bounds_pld_from_above(mechanisms: list[tuple[float, float, int]]):
    run = [gaussian(*parameters) for parameters in mechanisms]
    assert 0.5 * epsilon_of(run, 1e-5, "rdp") < epsilon_of(run, 1e-5) < epsilon_of(run, 1e-5, "rdp")


def test_next_to_no_noise_is_priced_at_once_and_honestly():
    assert epsilon_of([gaussian(1e-3, 0.5, 1_000)], 1e-5) > MAX_EPSILON


@pytest.mark.parametrize(("epsilon", "delta"), [(1.0, 1e-5), (5.0, 1e-6)])
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
