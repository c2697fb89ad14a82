"""An attack on our own mechanisms: an empirical lower bound on epsilon from a single run.

Steinke, Nasr & Jagielski 2023, "Privacy auditing with one (1) training run" (arXiv:2305.08846): each of m canaries is
included in the data with probability 1/2, the mechanism runs once, and an attacker guesses from its output which were
included. Under (epsilon, delta)-differential privacy hardly more than a share 1 / (1 + exp(-epsilon)) of the guesses
is right. More right guesses refute that epsilon, at a stated confidence. An epsilon that is not refuted is not proven.

An audit reads private data without protection, and its result is not private.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import special

from synthgen.errors import UsageError
from synthgen.privacy.mechanisms import poisson_sample

Mask = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float64]

GUESS_SHARES = (1.0, 0.5, 0.2, 0.1, 0.05)  # of the canaries; fixed before any run, and all are in the union bound
MIN_CANARIES, MAX_CANARIES = 20, 1_000_000
_LARGEST_EPSILON = 64.0
_BISECTIONS = 50


class Auditable(Protocol):
    """A mechanism with m known canaries. Scores are computed from its output, never from the secret inclusions."""

    @property
    def canaries(self) -> int:
        """How many canaries there are, m."""

    def run(self, included: Mask) -> Any:
        """Run the mechanism once on its data and the canaries where ``included``, shape (m,), is true."""

    def scores(self, output: Any) -> Scores:
        """How likely the output makes each canary's inclusion: float64, shape (m,), higher is likelier."""


@dataclass(frozen=True, kw_only=True)
class OneRunAudit:
    """What one audited run showed.

    Attributes:
        canaries: how many there were, m.
        included: how many of them were in the data.
        guesses: the number of guesses that gave the best bound.
        correct: how many of them were right.
        delta: at which epsilon is bounded.
        confidence: the probability that the true epsilon is at least ``epsilon_lower_bound``.
        epsilon_lower_bound: 0 where the attack did no better than chance.
        largest_provable: the bound if every guess were right; no audit with so many canaries can show more.
        separation: mean score of the included canaries minus that of the excluded, in standard deviations within the
            two groups; a description, not a bound. None where that deviation is 0.
    """

    canaries: int
    included: int
    guesses: int
    correct: int
    delta: float
    confidence: float
    epsilon_lower_bound: float
    largest_provable: float
    separation: float | None

    def contradicts(self, epsilon: float) -> bool:
        """Whether a claimed ``epsilon``, at the same delta, is refuted."""
        return self.epsilon_lower_bound > epsilon


def one_run_audit(
    mechanism: Auditable, *, delta: float, confidence: float = 0.95, guess_shares: Sequence[float] = GUESS_SHARES
) -> OneRunAudit:
    """Include a random half of the canaries, run the mechanism once, guess, and bound epsilon from below.

    The k highest scores are guessed to be included and the k lowest to be excluded; there is no guess on the others.
    Several k are tried and the best bound is kept. Each has its part of the error probability (a union bound), so
    that the confidence holds for the best.

    Args:
        mechanism: what is audited; its canaries are included by the operating system's entropy.
        delta: 0 to 1, of the (epsilon, delta) under audit.
        confidence: above 0, below 1.
        guess_shares: how many guesses to try, as shares of the canaries; to be fixed before the run.

    Raises:
        UsageError: fewer than 20 canaries, more than a million, or another value out of range.
        ValueError: the scores are not one finite number a canary.
    """
    m = mechanism.canaries
    if not MIN_CANARIES <= m <= MAX_CANARIES:
        raise UsageError(f"{m:,} canaries: expected {MIN_CANARIES} to {MAX_CANARIES:,}")
    _check(delta, confidence)
    included = np.zeros(m, np.bool_)
    included[poisson_sample(m, 0.5)] = True
    scores = np.asarray(mechanism.scores(mechanism.run(included.copy())), np.float64)
    if scores.shape != (m,) or not np.isfinite(scores).all():
        raise ValueError(f"scores of shape {scores.shape}; expected {m} finite numbers")
    tried = _pairs_of_guesses(m, guess_shares)
    each = 1 - (1 - confidence) / len(tried)
    rows = []
    for pairs in tried:
        guesses, correct = 2 * pairs, _correct(scores, included, pairs)
        rows.append((epsilon_lower_bound(m, guesses, correct, delta, each), guesses, correct))
    bound, guesses, correct = max(rows, key=lambda row: (row[0], row[1]))
    return OneRunAudit(
        canaries=m,
        included=int(included.sum()),
        guesses=guesses,
        correct=correct,
        delta=delta,
        confidence=confidence,
        epsilon_lower_bound=bound,
        largest_provable=max(epsilon_lower_bound(m, 2 * pairs, 2 * pairs, delta, each) for pairs in tried),
        separation=_separation(scores, included),
    )


def p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """The largest probability, under (epsilon, delta)-differential privacy, of so many right guesses.

    Steinke et al. 2023, theorem 5.2 and appendix D: β + 2mδ·max_i P[v − i <= X < v] / i, where X is binomial of
    ``guesses`` trials and probability 1 / (1 + exp(-epsilon)), v is ``correct``, and β = P[X >= v].

    Args:
        canaries: m, each included independently with probability 1/2.
        guesses: how many were guessed, at most m.
        correct: how many guesses were right.
        epsilon, delta: the hypothesis.
    """
    if not 0 <= correct <= guesses <= canaries:
        raise ValueError(f"{correct} right of {guesses} guesses on {canaries} canaries")
    if correct == 0:
        return 1.0
    accuracy = 1 / (1 + math.exp(-epsilon))
    tail = float(special.bdtrc(correct - 1, guesses, accuracy))
    if delta == 0:
        return tail
    at_most = np.append(special.bdtr(np.arange(correct), guesses, accuracy)[::-1], 0.0)  # P[X <= v-1], …, P[X <= -1]
    largest = float(((at_most[0] - at_most[1:]) / np.arange(1, correct + 1)).max())
    return min(tail + 2 * canaries * delta * largest, 1.0)


def epsilon_lower_bound(canaries: int, guesses: int, correct: int, delta: float, confidence: float) -> float:
    """The largest epsilon that the guesses refute: the true one, at ``delta``, is at least this with ``confidence``.

    Args:
        canaries, guesses, correct: as for ``p_value``; ``guesses`` must not depend on the outcome.
        delta: 0 to 1.
        confidence: above 0, below 1.

    Returns:
        0 where not even epsilon 0 is refuted.
    """
    _check(delta, confidence)

    def refuted(epsilon: float) -> bool:
        return p_value(canaries, guesses, correct, epsilon, delta) < 1 - confidence

    low, high = 0.0, _LARGEST_EPSILON
    if not refuted(low):
        return 0.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def _pairs_of_guesses(canaries: int, shares: Sequence[float]) -> list[int]:
    """How many to guess at each end, ascending, without repetition."""
    if not shares or not all(0 < share <= 1 for share in shares):
        raise UsageError(f"guess_shares {list(shares)}: expected numbers above 0, at most 1")
    return sorted({max(1, int(share * canaries / 2)) for share in shares})


def _correct(scores: Scores, included: Mask, pairs: int) -> int:
    order = np.argsort(scores, kind="stable")
    return int(included[order[-pairs:]].sum() + (~included[order[:pairs]]).sum())


def _separation(scores: Scores, included: Mask) -> float | None:
    inside, outside = scores[included], scores[~included]
    if min(len(inside), len(outside)) < 2:
        return None
    spread = math.sqrt((inside.var(ddof=1) + outside.var(ddof=1)) / 2)
    return float(inside.mean() - outside.mean()) / spread if spread else None


def _check(delta: float, confidence: float) -> None:
    if not 0 <= delta <= 1:
        raise UsageError(f"delta {delta}: expected a number from 0 to 1")
    if not 0 < confidence < 1:
        raise UsageError(f"confidence {confidence}: expected a number between 0 and 1")
