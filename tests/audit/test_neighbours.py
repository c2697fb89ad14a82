import itertools
import json
import math

import numpy as np
import pytest
from scipy import integrate, stats
from support import SAMPLE
from typer.testing import CliRunner

from synthgen.audit import mechanisms
from synthgen.audit.mechanisms import audit_mechanisms
from synthgen.audit.neighbours import Pair, audit_pair, epsilon_of_look, largest_accuracy, mu_lower_bound
from synthgen.audit.run import audit
from synthgen.cli.app import app
from synthgen.errors import UsageError
from synthgen.model.recipe import load_recipe
from synthgen.privacy.accounting import Mechanism, epsilon_of
from synthgen.privacy.mechanisms import poisson_sample

CHANCE = 1e-7  # with which a sound mechanism fails a test here
SMALL = [*SAMPLE, "discriminator.filters=[4, 4]", "discriminator.projection_size=4", "generator.filters=[4, 4]"]


def gaussian_pair(noise: float = 0.7, *, claimed: float = 0.7, q: float = 1.0, claimed_q: float = 1.0) -> Pair:
    """A mechanism on two numbers, whose record moves the second by the sensitivity, 2."""
    claims = Mechanism(
        name="sum", releases="s", noise_multiplier=claimed, l2_sensitivity=2.0, sampling_probability=claimed_q
    )
    random = np.random.default_rng()
    record = np.array([0.0, 2.0])

    def look(present: bool) -> np.ndarray:
        taken = present and len(poisson_sample(1, q)) > 0
        return record * taken + 2 * noise * random.standard_normal(2)

    return Pair(name="sum", claims=claims, look=look, without=np.zeros(2), record=record)


def audited(pair: Pair, looks: int = 4_000):
    return audit_pair(pair, looks=looks, delta=1e-5, confidence=1 - CHANCE)


@pytest.mark.parametrize("q", [1.0, 0.5])
def test_a_sound_mechanism_stands_and_one_with_half_the_noise_falls(q: float):
    sound = audited(gaussian_pair(q=q, claimed_q=q))
    assert not sound.contradicted
    assert sound.moved == 1
    assert 0 < sound.mu_lower_bound < sound.mu == pytest.approx(1 / 0.7)
    assert 0 < sound.epsilon_lower_bound < sound.epsilon
    broken = audited(gaussian_pair(0.35, q=q, claimed_q=q))
    assert broken.contradicted
    assert broken.mu_lower_bound > broken.mu
    assert broken.epsilon_lower_bound > broken.epsilon


def test_a_record_that_is_sampled_too_often_is_noticed():
    found = audited(gaussian_pair(0.1, claimed=0.1, q=0.5, claimed_q=0.25))
    assert found.contradicted
    assert found.mu_lower_bound is found.epsilon_lower_bound is None  # no noise explains it


def test_nonsense_released_is_guessed_by_chance_and_a_record_without_effect_refused():
    pair = gaussian_pair()
    lost = Pair(
        name="sum", claims=pair.claims, look=lambda _: np.full(2, np.nan), without=pair.without, record=pair.record
    )
    assert not audited(lost).contradicted
    still = Pair(name="sum", claims=pair.claims, look=pair.look, without=pair.without, record=np.zeros(2))
    with pytest.raises(ValueError, match=r"moves the sums by 0\.0 can show nothing"):
        audited(still)
    with pytest.raises(ValueError, match="0 looks"):
        audited(pair, looks=0)


@pytest.mark.parametrize("mu", [0.1, 1.4, 6.0])
@pytest.mark.parametrize("q", [1.0, 0.3])
def test_no_attack_is_more_accurate_than_half_of_one_and_the_total_variation(mu: float, q: float):
    """By integrating where one density is above the other."""

    def gap(x: float) -> float:
        return max(0.0, (1 - q) * stats.norm.pdf(x) + q * stats.norm.pdf(x - mu) - stats.norm.pdf(x))

    variation = integrate.quad(gap, -10, 20, points=[mu / 2], limit=200)[0]
    assert largest_accuracy(mu, q) == pytest.approx((1 + variation) / 2, abs=1e-7)


@pytest.mark.parametrize("mu", [0.3, 1.4, 3.0])
@pytest.mark.parametrize("q", [1.0, 0.5, 0.02])
@pytest.mark.parametrize("delta", [1e-3, 1e-5])
def test_epsilon_of_a_look_is_the_accountants(mu: float, q: float, delta: float):
    mechanism = Mechanism(name="m", releases="s", noise_multiplier=1 / mu, l2_sensitivity=1, sampling_probability=q)
    assert epsilon_of_look(mu, q, delta) == pytest.approx(epsilon_of([mechanism], delta), abs=2e-3)


def test_a_look_that_shows_nothing_costs_nothing():
    assert epsilon_of_look(0.0, 1.0, 1e-5) == epsilon_of_look(1.0, 1e-6, 1e-5) == epsilon_of_look(1e-9, 1.0, 1e-5) == 0
    assert epsilon_of_look(1e6, 1.0, 1e-5) == math.inf


def test_the_bound_on_mu_is_that_of_clopper_and_pearson():
    for correct in (300, 761, 990):
        interval = stats.binomtest(correct, 1000, alternative="greater").proportion_ci(0.99)
        accuracy = largest_accuracy(mu_lower_bound(1000, correct, 1.0, 0.99), 1.0)
        assert accuracy == pytest.approx(max(interval.low, 0.5), abs=1e-9)
    assert mu_lower_bound(1000, 0, 1.0, 0.99) == mu_lower_bound(1000, 500, 1.0, 0.99) == 0
    assert mu_lower_bound(1000, 800, 0.5, 0.99) == math.inf


def test_the_bound_holds_as_often_as_it_says():
    """1,000 audits at 95 % confidence: at most 50 are expected to be wrong."""
    pair = gaussian_pair()
    wrong = sum(audit_pair(pair, looks=50, delta=1e-5, confidence=0.95).contradicted for _ in range(1000))
    assert stats.binom.sf(wrong - 1, 1000, 0.05) > CHANCE


def stub(monkeypatch, *pairs: Pair) -> None:
    monkeypatch.setattr(mechanisms, "_pairs", lambda recipe: list(pairs))


def test_the_audit_of_a_recipe_names_the_mechanism_that_is_broken(monkeypatch):
    stub(monkeypatch, gaussian_pair(5.0), gaussian_pair(7.0))
    found = audit("private", overrides=SAMPLE, looks=1_000)
    assert not found.contradicted
    assert "does not contradict" in found.summary()[-1]
    assert [result.looks for result in found.results] == [1_000, 1_000]
    assert [result.confidence for result in found.results] == [pytest.approx(0.995)] * 2
    stub(monkeypatch, gaussian_pair(7.0), gaussian_pair(0.2))
    broken = audit("private", overrides=SAMPLE, looks=1_000)
    assert [result.contradicted for result in broken.results] == [False, True]
    assert "CONTRADICTS the claim of sum: the code does not do what is claimed" in broken.summary()[-1]
    stub(monkeypatch, gaussian_pair(0.1, claimed=0.1, q=0.5, claimed_q=0.2))
    unexplained = audit("private", overrides=SAMPLE, looks=1_000)
    assert "which no noise explains" in unexplained.summary()[2]
    json.dumps(unexplained.to_dict(), allow_nan=False)


def test_the_command_reads_no_image_and_fails_where_a_claim_is_refuted(monkeypatch, tmp_path):
    for noise, exit_code in ((7.0, 0), (0.2, 1)):
        stub(monkeypatch, gaussian_pair(noise))
        request = ["audit", "private", "--looks", "500", "--data", "nowhere", "--json", str(tmp_path / "a.json")]
        result = CliRunner().invoke(app, request)
        assert result.exit_code == exit_code
        assert "500 guesses right, epsilon at least" in result.stdout
        assert "as private as they are" not in result.stderr
        document = json.loads((tmp_path / "a.json").read_text("utf-8"))
        assert document["audit"] == "neighbours"
        assert document["contradicted"] is document["results"][0]["contradicted"] is bool(exit_code)


def test_dpgan_is_audited_without_a_run():
    found = audit("dpgan", overrides=SMALL, looks=100)
    assert found.recipe == "dpgan"
    assert [result.looks for result in found.results] == [100, 10]
    assert [result.sampling_probability for result in found.results] == [0.5, 1.0]
    for result, other in itertools.permutations(found.results):
        assert result.moved == pytest.approx(1, abs=2e-3)
        assert result.noise_multiplier == other.noise_multiplier == 0.7
    assert [result.mu for result in found.results] == [pytest.approx(1 / 0.7)] * 2


def test_what_cannot_be_audited_by_looks_is_refused(tiny_recipe, tiny_checkpoint):
    with pytest.raises(UsageError, match="recipe 'smoke' trains without a guarantee"):
        audit_mechanisms(tiny_recipe)
    with pytest.raises(UsageError, match="recipe 'dpgan': its training is audited by looks, not by canaries"):
        audit("dpgan", overrides=SMALL, canaries=100)
    with pytest.raises(UsageError, match="--canaries and --looks are two audits"):
        audit("private", overrides=SAMPLE, canaries=100, looks=100)
    with pytest.raises(UsageError, match="trains without a guarantee"):
        audit(str(tiny_checkpoint.path), looks=100)  # the mechanisms of the checkpoint's own recipe
    for looks in (99, 1_000_001):
        with pytest.raises(UsageError, match="expected 100 to 1,000,000"):
            audit("private", overrides=SAMPLE, looks=looks)
    with pytest.raises(UsageError, match="confidence 1: expected"):
        audit_mechanisms(load_recipe("private"), confidence=1)
