"""The joint guarantee of several releases of the same images: the ledgers of different runs, composed.

Whoever has two private releases has seen the mechanisms of both runs. Their privacy loss distributions compose as those
of one run do, which is far less than the sum of two epsilons (Koskela, Jälkö & Honkela 2020). Where one of them was
chosen among several, their Rényi divergences compose instead. Where it is not known whether two claims are of one run,
they count as two; where it is not known whether they are of the same images, they count as of the same.
"""

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from synthgen.errors import PrivacyError
from synthgen.privacy.accounting import MAX_DELTA, MAX_EPSILON, MIN_DELTA, Mechanism, epsilon_of, merged
from synthgen.privacy.curve import gain_in_words, largest_true_positive_rate, rounded_up
from synthgen.privacy.proof import PrivacyProof
from synthgen.privacy.statement import PrivacyStatement
from synthgen.privacy.words import origin_of, sentences

_DELTA = 1e-5  # where no claim has one


@dataclass(frozen=True, kw_only=True)
class Held:
    """One release that somebody has.

    Attributes:
        name: how to call it.
        statement: its claim.
        run: what is equal for two releases of one run if their statements name no run.
    """

    name: str
    statement: PrivacyStatement
    run: Hashable


@dataclass(frozen=True, kw_only=True)
class Joint:
    """What several releases of the same images prove together.

    Attributes:
        images: which: ``Fashion-MNIST`` or ``the user's own images``.
        unprotected: names of the releases without a guarantee; one is enough for there to be none jointly.
        counted: names of the releases whose ledgers were composed.
        included: names of the releases whose mechanisms are all among those of a counted one: of the same run.
        delta: at which ``epsilon`` holds.
        epsilon: of the protected releases together, rounded up to four decimals; None if there are none.
        true_positive_rate: of the protected ones together: see ``Curve``.
    """

    images: str
    unprotected: tuple[str, ...]
    counted: tuple[str, ...]
    included: tuple[str, ...]
    delta: float
    epsilon: float | None
    true_positive_rate: float | None

    @property
    def protects(self) -> bool:
        """Whether a formal guarantee holds for all releases together."""
        return not self.unprotected and self.epsilon is not None and self.epsilon <= MAX_EPSILON

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return {"guarantee": "differential_privacy" if self.protects else "none", **asdict(self)}

    def lines(self) -> list[str]:
        """The guarantee in words."""
        found = []
        if self.unprotected:
            found.append(f"none: trained on these images without protection: {', '.join(self.unprotected)}")
        if self.epsilon is not None and self.true_positive_rate is not None:
            who = f"the protected ones alone ({', '.join(self.counted)}): " if self.unprotected else ""
            if self.epsilon > MAX_EPSILON:
                found.append(f"{who}none: an epsilon above {MAX_EPSILON:g} is no guarantee")
            else:
                claim, gain = sentences(self.epsilon, self.delta)[0], gain_in_words(self.true_positive_rate)
                found.append(f"{who}{claim} {gain}")
        if self.included:
            found.append(f"counted once, being of one run with a longer or equal ledger: {', '.join(self.included)}")
        return found


def joint_guarantees(held: Sequence[Held], delta: float | None = None) -> tuple[Joint, ...]:
    """What the releases prove together, for each origin of their training images.

    All releases with the same origin count as made from the same images, whatever their numbers of images.

    Args:
        held: the releases.
        delta: at which to state epsilon; by default the largest of the claims.

    Raises:
        PrivacyError: delta is out of range.
    """
    if delta is not None and not MIN_DELTA <= delta <= MAX_DELTA:  # also refuses NaN
        raise PrivacyError(f"delta {delta:g}: expected a number from {MIN_DELTA:g} to {MAX_DELTA:g}")
    at = max((each.statement.proof.delta for each in held if each.statement.proof), default=_DELTA)
    by_images: dict[str, list[Held]] = {}
    for each in held:
        if (images := origin_of(each.statement.trained_on)) is not None:  # an untrained generator has seen none
            by_images.setdefault(images, []).append(each)
    return tuple(_joint(images, of_these, delta or at) for images, of_these in by_images.items())


def _joint(images: str, held: Sequence[Held], delta: float) -> Joint:
    runs: dict[Hashable, list[tuple[str, PrivacyProof]]] = {}
    for each in held:
        if (proof := each.statement.proof) is not None:
            runs.setdefault(each.run if proof.run is None else proof.run, []).append((each.name, proof))
    counted = [longest for of_one in runs.values() for longest in _longest(of_one)]
    names = [name for name, _ in counted]
    protected = [each.name for each in held if each.statement.protects]
    charges = merged(charge for _, proof in counted for charge in proof.ledger.charges)
    epsilon = epsilon_of(charges, delta) if charges else None
    return Joint(
        images=images,
        unprotected=tuple(each.name for each in held if not each.statement.protects),
        counted=tuple(names),
        included=tuple(name for name in protected if name not in names),
        delta=delta,
        epsilon=None if epsilon is None else rounded_up(epsilon),
        true_positive_rate=None if epsilon is None else rounded_up(largest_true_positive_rate(charges, delta)),
    )


def _longest(of_one_run: Sequence[tuple[str, PrivacyProof]]) -> list[tuple[str, PrivacyProof]]:
    """Those whose ledgers are not among another's: one, unless copies of the run's folder went on by themselves."""
    kept: list[tuple[str, PrivacyProof]] = []
    for name, proof in sorted(of_one_run, key=lambda each: -sum(m.steps for m in each[1].ledger)):
        if not any(_includes(longer, proof) for _, longer in kept):
            kept.append((name, proof))
    return kept


def _includes(longer: PrivacyProof, shorter: PrivacyProof) -> bool:
    """Whether all that ``shorter`` released is among what ``longer`` did, if both are of one run."""
    steps, needed = _steps(longer), _steps(shorter)
    if longer.ledger.selection != shorter.ledger.selection:
        return False
    if steps == needed and None not in (longer.release_sha256, shorter.release_sha256):
        return longer.release_sha256 == shorter.release_sha256  # else the same mechanisms ran twice
    return all(steps.get(mechanism, 0) >= count for mechanism, count in needed.items())


def _steps(proof: PrivacyProof) -> dict[Mechanism, int]:
    found: dict[Mechanism, int] = {}
    for mechanism in proof.ledger:
        key = replace(mechanism, steps=1)
        found[key] = found.get(key, 0) + mechanism.steps
    return found
