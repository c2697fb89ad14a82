"""The bound is compared with the published value, with randomised response, and with mechanisms sound and broken."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pytest

from synthgen.audit.canaries import Evidence, class_sum_evidence, linear_softmax_step_evidence
from synthgen.audit.one_run import epsilon_lower_bound, one_run_audit, p_value
from synthgen.errors import UsageError
from synthgen.privacy.accounting import Mechanism, epsilon_of
from synthgen.privacy.mechanisms import clip_rows, poisson_sample

DELTA = 1e-5


@dataclass(frozen=True)
class RandomisedResponse:
    """Tells of each canary whether it is in, and lies with probability 1 / (1 + exp(epsilon)): the tight case."""

    canaries: int
    epsilon: float
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def run(self, included: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        return included ^ (self.random.random(self.canaries) < 1 / (1 + math.exp(self.epsilon)))

    def scores(self, output: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        return output + self.random.random(self.canaries) / 2  # among equals any order


def test_the_bound_is_the_published_one():
    # Steinke et al. 2023, appendix D: 1,000 canaries, 75 of 100 guesses right, delta 1e-4: epsilon >= 0.673
    assert epsilon_lower_bound(1000, 100, 75, 1e-4, 0.95) == pytest.approx(0.673, abs=5e-4)


@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-2])
@pytest.mark.parametrize(("canaries", "guesses", "correct"), [(50, 20, 0), (50, 50, 31), (1000, 100, 75), (20, 20, 20)])
def test_the_p_value_is_the_formula_summed_term_by_term(canaries: int, guesses: int, correct: int, delta: float):
    for epsilon in (0.0, 0.7, 3.0):
        q = 1 / (1 + math.exp(-epsilon))
        mass = [math.comb(guesses, k) * q**k * (1 - q) ** (guesses - k) for k in range(guesses + 1)]
        worst = max((sum(mass[correct - i : correct]) / i for i in range(1, correct + 1)), default=0)
        expected = min(sum(mass[correct:]) + 2 * canaries * delta * worst, 1)
        assert p_value(canaries, guesses, correct, epsilon, delta) == pytest.approx(expected, rel=1e-9)


def test_the_p_value_grows_with_epsilon():
    values = [p_value(1000, 200, 150, epsilon, DELTA) for epsilon in np.linspace(0, 8, 200)]
    assert np.all(np.diff(values) >= -1e-12)


def test_the_bound_exceeds_the_true_epsilon_in_at_most_5_percent_of_runs():
    runs = 400
    bounds = [one_run_audit(RandomisedResponse(400, 1.0), delta=0).epsilon_lower_bound for _ in range(runs)]
    # 5 % of 400 runs are 20; more than 33 has probability 0.2 % were it exactly 5 %
    assert sum(bound > 1.0 for bound in bounds) <= 33


def test_the_bound_comes_close_with_many_canaries():
    for epsilon in (0.5, 3.0):
        found = one_run_audit(RandomisedResponse(50_000, epsilon), delta=0)
        assert 0.85 * epsilon < found.epsilon_lower_bound < epsilon + 0.02


def test_chance_shows_nothing():
    found = one_run_audit(RandomisedResponse(1_000, 0.0), delta=DELTA)
    assert found.epsilon_lower_bound < 0.6
    assert not found.contradicts(0.6)
    assert 400 < found.included < 600


def test_no_audit_shows_more_than_its_canaries_can():
    found = one_run_audit(RandomisedResponse(100, 60.0), delta=DELTA)
    assert 1.5 < found.epsilon_lower_bound <= found.largest_provable < 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"canaries": 19}, "19 canaries: expected 20"),
        ({"delta": -0.1}, "delta -0.1: expected"),
        ({"confidence": 1.0}, "confidence 1.0: expected"),
        ({"guess_shares": (0.5, 1.5)}, "guess_shares"),
    ],
)
def test_values_out_of_range_are_named(change: dict, words: str):
    request = {"delta": DELTA} | change
    with pytest.raises(UsageError, match=words):
        one_run_audit(RandomisedResponse(request.pop("canaries", 100), 1.0), **request)


def test_scores_that_are_no_numbers_are_a_bug():
    class Broken(RandomisedResponse):
        def scores(self, output):
            return np.full(self.canaries, np.nan)

    with pytest.raises(ValueError, match="expected 100 finite numbers"):
        one_run_audit(Broken(100, 1.0), delta=DELTA)


# ---- the Gaussian mechanism over class sums

Floats = npt.NDArray[np.float64]


def gaussian_noise(shape: int | tuple[int, ...], deviation: float) -> Floats:
    return np.random.default_rng().normal(0, deviation, shape)


@dataclass(frozen=True, kw_only=True)
class ClassSums:
    """The Gaussian mechanism over sums by class, as something to audit."""

    release: Callable[[npt.NDArray[np.bool_]], Floats]  # included canaries → noisy sums (classes, D)
    background: Floats  # (classes, D), of the data without canaries
    contributions: Floats  # (m, D), of each canary
    labels: npt.NDArray[np.int64]
    noise: float

    @property
    def canaries(self) -> int:
        return len(self.contributions)

    def run(self, included: npt.NDArray[np.bool_]) -> Floats:
        return self.release(included)

    def scores(self, output: Floats) -> Floats:
        evidence = class_sum_evidence(output - self.background, self.contributions, self.labels, self.noise)
        return evidence.fitted().scores()


def class_sums(noise: float, *, clip: Callable = clip_rows, size: float = 1.0, canaries: int = 400) -> ClassSums:
    """Canaries of norm ``size`` in directions of their own, and other data in the same directions."""
    labels, classes, width = np.arange(canaries) % 10, 10, canaries // 10
    rows = np.zeros((canaries, width))
    rows[np.arange(canaries), np.arange(canaries) // 10] = size
    others = clip_rows(np.random.default_rng(1).normal(size=(500, width)), 1.0)
    background = np.zeros((classes, width))
    np.add.at(background, np.arange(500) % classes, others)

    def release(included: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        sums = background.copy()
        np.add.at(sums, labels[included], clip(rows[included], 1.0))
        return sums + gaussian_noise(sums.shape, noise)

    public = clip_rows(rows, 1.0)
    return ClassSums(release=release, background=background, contributions=public, labels=labels, noise=noise)


def proven(noise_multiplier: float, probability: float = 1.0, steps: int = 1) -> float:
    mechanism = Mechanism(
        name="m",
        releases="a sum",
        noise_multiplier=noise_multiplier,
        l2_sensitivity=1.0,
        sampling_probability=probability,
        steps=steps,
    )
    return epsilon_of([mechanism], DELTA)


def test_a_sound_gaussian_mechanism_is_not_contradicted():
    found = [one_run_audit(class_sums(1.0), delta=DELTA) for _ in range(10)]
    assert not any(audit.contradicts(proven(1.0)) for audit in found)
    assert max(audit.epsilon_lower_bound for audit in found) > 0.3  # and the attack does find something
    assert np.mean([audit.separation for audit in found]) == pytest.approx(1.0, abs=0.15)


def test_a_gaussian_mechanism_without_noise_is_caught():
    claimed = proven(4.0)
    sound = class_sums(4.0)
    broken = replace(sound, release=class_sums(0.0).release)
    found = one_run_audit(broken, delta=DELTA)
    assert found.contradicts(claimed)
    assert not one_run_audit(sound, delta=DELTA).contradicts(claimed)


def test_a_gaussian_mechanism_without_clip_is_caught():
    claimed = proven(4.0)
    assert not one_run_audit(class_sums(4.0, size=100.0), delta=DELTA).contradicts(claimed)
    broken = class_sums(4.0, size=100.0, clip=lambda rows, norm: rows)
    assert one_run_audit(broken, delta=DELTA).contradicts(claimed)


# ---- DP-SGD of a linear softmax classifier


@dataclass(frozen=True)
class Teacher:
    """DP-SGD of a linear softmax classifier whose every noisy step is seen; each canary has a feature of its own."""

    noise: float
    canaries: int = 200
    probability: float = 0.5
    steps: int = 20
    clipped: bool = True
    size: float = 1.0  # of what a canary's gradient is multiplied with before the clip

    def run(self, included: npt.NDArray[np.bool_]) -> list[tuple[npt.NDArray[np.float64], ...]]:
        features, labels = self._features()[included], self._labels()[included]
        weights, bias, seen = np.zeros((self.canaries, 10)), np.zeros(10), []
        for _ in range(self.steps):
            batch = poisson_sample(len(features), self.probability)
            x, y = features[batch], labels[batch]
            odds = np.exp(x @ weights + bias)
            errors = odds / odds.sum(1, keepdims=True)
            errors[np.arange(len(y)), y] -= 1
            norms = np.linalg.norm(errors, axis=1) * math.sqrt(2) * self.size
            factor = self.size * (np.minimum(1, 1 / norms) if self.clipped else 1)
            errors *= np.broadcast_to(factor, len(y))[:, None]
            sums = x.T @ errors + gaussian_noise(weights.shape, self.noise)
            bias_sums = errors.sum(0) + gaussian_noise(10, self.noise)
            seen.append((weights, bias, sums, bias_sums))
            weights, bias = weights - 1e-4 * sums, bias - 1e-4 * bias_sums
        return seen

    def scores(self, output: list[tuple[npt.NDArray[np.float64], ...]]) -> npt.NDArray[np.float64]:
        evidence = Evidence(np.zeros(self.canaries), np.zeros((self.canaries, self.canaries)))
        for step in output:
            evidence += linear_softmax_step_evidence(
                *step,
                self._features(),
                self._labels(),
                l2_clip_norm=1.0,
                noise=self.noise,
                sampling_probability=self.probability,
            )
        return evidence.fitted().scores()

    def _features(self) -> npt.NDArray[np.float64]:
        return np.eye(self.canaries)

    def _labels(self) -> npt.NDArray[np.int64]:
        return np.arange(self.canaries) % 10


def test_sound_dp_sgd_is_not_contradicted_and_the_attack_works():
    claimed = proven(3.0, 0.5, 20)
    found = [one_run_audit(Teacher(3.0), delta=DELTA) for _ in range(5)]
    assert not any(audit.contradicts(claimed) for audit in found)
    assert np.mean([audit.separation for audit in found]) > 0.3


@pytest.mark.parametrize("broken", [{"noise": 0.0}, {"noise": 12.0, "clipped": False, "size": 100.0}])
def test_dp_sgd_without_noise_or_without_clip_is_caught(broken: dict):
    claimed = proven(12.0, 0.5, 20)
    assert claimed < 2
    assert one_run_audit(Teacher(**broken), delta=DELTA).contradicts(claimed)
