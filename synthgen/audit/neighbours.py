"""An audit by many looks at two neighbouring data sets: it sees noise at half its size, where one run cannot.

For: whether a mechanism, as it is coded, adds the noise, clips and samples as it claims. In go a mechanism that can be
run again and again on two data sets of which one lacks a record, and what it claims; out comes a lower bound on its
privacy parameter, and whether it refutes the claim. What may go wrong: a pair on which a fault does not show, which
hides it; a score that fits badly, which weakens the bound. Neither makes a sound mechanism look broken.

The game: a fair coin decides, anew for each look, which of the two data sets is looked at, and an attacker who knows
both guesses which one it was. No test of two hypotheses is right with a probability above (1 + TV) / 2, with TV the
total variation distance of the two outcomes (privacy as such a test: Wasserman and Zhou 2010, arXiv:0811.2501). For a
sum with Gaussian noise of z times the sensitivity, over a Poisson sample of probability q, TV is at most q · (2Φ(μ/2) -
1), μ = 1/z: with probability 1 - q the record is not sampled and the outcomes are alike, TV is convex, and TV of N(μ,
1) and N(0, 1) is 2Φ(μ/2) - 1 (Dong, Roth and Su 2022, arXiv:1905.02383). So of n looks, whose noise is drawn
independently, at most a binomial number is guessed right. That is an exact test, and inverted (Clopper and Pearson
1934) a lower bound on μ, as in Nasr et al. 2023, "Tight auditing of differentially private machine learning"
(arXiv:2302.07956).

The best guess is that of the likelihood ratio (Neyman and Pearson 1933): on which side of the middle between the two
exact sums the outcome lies. For a sound mechanism it is right as often as the bound allows, up to chance, if the
record's row is as long as the clip. So with a noise multiplier of 0.7 and no sampling a hundred looks or so refute
noise at half its size, and 1,000 noise at 0.74 of it, at 99 % confidence and nearly always.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from synthgen.privacy.accounting import Mechanism

Floats = npt.NDArray[np.float64]

_LARGEST_EPSILON = 1e4


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A mechanism, and two neighbouring data sets to look at.

    Attributes:
        name: of the mechanism and the data sets, in words.
        claims: of one look (``steps`` 1).
        look: runs the mechanism once: on the data set with the record, or, if called with False, without it.
        without: what the sums are on average without the record and without noise.
        record: what the record adds to the sums where it is sampled, without noise, by the code under audit; not 0.
            Both are the attacker's knowledge: if they are wrong, the bound is weaker, and still valid.
        slowness: of a look, beside that of other pairs; an audit takes so much fewer.
    """

    name: str
    claims: Mechanism
    look: Callable[[bool], Floats]
    without: Floats
    record: Floats
    slowness: int = 1

    @property
    def moved(self) -> float:
        """How far the record moves the exact sums, in units of the sensitivity, which is claimed to be the most."""
        return float(np.linalg.norm(self.record)) / self.claims.l2_sensitivity

    def guess(self, outcome: Floats) -> bool:
        """Whether the record's data set was looked at, to judge by the outcome."""
        middle = float(np.vdot(self.record, self.record)) / 2
        return bool(np.vdot(outcome - self.without, self.record) > middle)


@dataclass(frozen=True, kw_only=True)
class PairAudit:
    """What many looks at a pair showed; all of one look.

    Attributes:
        name: of the pair.
        noise_multiplier, sampling_probability: claimed.
        moved: how far the record moved the exact sums, in units of the claimed sensitivity.
        looks: how many there were.
        correct: how many guesses were right.
        confidence: the probability with which a sound mechanism is not contradicted, at least.
        p_value: the largest probability, for a mechanism that does what it claims, of so many right guesses.
        mu: claimed, of Gaussian differential privacy: 1 / noise multiplier, before the gain by sampling.
        mu_lower_bound: shown, with ``confidence``; None where no noise at all explains the guesses, so that the
            sampling is not what is claimed.
        delta: at which epsilon is given.
        epsilon: proven.
        epsilon_lower_bound: that of the Gaussian mechanism with ``mu_lower_bound``; None where there is none.
    """

    name: str
    noise_multiplier: float
    sampling_probability: float
    moved: float
    looks: int
    correct: int
    confidence: float
    p_value: float
    mu: float
    mu_lower_bound: float | None
    delta: float
    epsilon: float
    epsilon_lower_bound: float | None

    @property
    def contradicted(self) -> bool:
        """Whether the claim is refuted."""
        return self.p_value < 1 - self.confidence


def audit_pair(
    pair: Pair,
    *,
    looks: int,
    delta: float,
    confidence: float = 0.99,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> PairAudit:
    """Look ``looks`` times, guess each time, and bound the privacy parameter from below.

    Args:
        pair: the mechanism and its two data sets.
        looks: at least 1.
        delta: above 0, below 1; at which epsilon is reported.
        confidence: above 0, below 1.
        progress: called with the looks done and the looks in all.

    Raises:
        ValueError: the record adds nothing to the sums, or a number is out of range.
    """
    if looks < 1 or not 0 < delta < 1 or not 0 < confidence < 1:
        raise ValueError(f"{looks} looks, delta {delta}, confidence {confidence}")
    if not np.isfinite(pair.moved) or pair.moved == 0:
        raise ValueError(f"{pair.name}: a record that moves the sums by {pair.moved} can show nothing")
    coins = np.unpackbits(np.frombuffer(os.urandom(-(-looks // 8)), np.uint8))[:looks].astype(np.bool_)
    correct = 0
    for done, present in enumerate(coins.tolist(), 1):
        correct += pair.guess(pair.look(present)) == present
        progress(done, looks)
    claims = pair.claims
    mu, q = 1 / claims.noise_multiplier, claims.sampling_probability
    shown = mu_lower_bound(looks, correct, q, confidence)
    return PairAudit(
        name=pair.name,
        noise_multiplier=claims.noise_multiplier,
        sampling_probability=q,
        moved=pair.moved,
        looks=looks,
        correct=correct,
        confidence=confidence,
        p_value=float(special.bdtrc(correct - 1, looks, largest_accuracy(mu, q))) if correct else 1.0,
        mu=mu,
        mu_lower_bound=None if math.isinf(shown) else shown,
        delta=delta,
        epsilon=epsilon_of_look(mu, q, delta),
        epsilon_lower_bound=None if math.isinf(shown) else epsilon_of_look(shown, q, delta),
    )


def largest_accuracy(mu: float, sampling_probability: float) -> float:
    """The largest probability of a right guess on one look at a sampled Gaussian mechanism."""
    return 0.5 + sampling_probability * (float(special.ndtr(mu / 2)) - 0.5)


def mu_lower_bound(looks: int, correct: int, sampling_probability: float, confidence: float) -> float:
    """The largest mu that so many right guesses refute at ``confidence``: Clopper and Pearson, one-sided.

    Returns:
        0 where the guesses are no better than chance; infinity where no mu explains them.
    """
    if correct == 0:
        return 0.0
    accuracy = float(special.betaincinv(correct, looks - correct + 1, 1 - confidence))
    unsampled = 0.5 + (accuracy - 0.5) / sampling_probability
    if unsampled >= 1:
        return math.inf
    return max(0.0, 2 * float(special.ndtri(unsampled)))


def epsilon_of_look(mu: float, sampling_probability: float, delta: float) -> float:
    """Epsilon, at ``delta``, of one look at a sampled Gaussian mechanism.

    Of the two directions it is the one that matters: the record is there, and is found. Without sampling, delta is
    Φ(μ/2 - ε/μ) - exp(ε) · Φ(-μ/2 - ε/μ) (Balle and Wang 2018, arXiv:1805.06530, theorem 8). With it, delta and
    exp(ε) - 1 are those numbers times q (Balle, Barthe and Gaboardi 2018, arXiv:1807.01647, theorem 2).
    """
    q = sampling_probability

    def beyond(epsilon: float) -> float:
        tail = math.exp(min(0.0, epsilon + float(special.log_ndtr(-mu / 2 - epsilon / mu))))
        return float(special.ndtr(mu / 2 - epsilon / mu)) - tail - delta / q

    if mu <= 0 or delta >= q or beyond(0.0) <= 0:
        return 0.0
    if beyond(_LARGEST_EPSILON) > 0:
        return math.inf
    unsampled = optimize.brentq(beyond, 0.0, _LARGEST_EPSILON, xtol=1e-9)
    return float(np.logaddexp(math.log1p(-q), math.log(q) + unsampled)) if q < 1 else float(unsampled)
