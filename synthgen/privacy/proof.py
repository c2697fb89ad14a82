"""What stands behind a claim of differential privacy, and how it is read from JSON that may come from anyone."""

import re
from dataclasses import dataclass
from typing import Any

from synthgen.errors import PrivacyError
from synthgen.privacy.accounting import MAX_DELTA, MAX_EPSILON, MIN_DELTA, Mechanism, is_priced_by_rdp
from synthgen.privacy.curve import Curve
from synthgen.privacy.ledger import Ledger
from synthgen.privacy.pinned import known_curve, proven_curve, proven_epsilons
from synthgen.privacy.words import (
    EXACT_NOISE,
    FLOATING_POINT,
    NEIGHBOURING,
    PUBLIC,
    UNIT,
    are_earlier_words,
    fixed_words,
    said,
)

_TOLERANCE = 1e-6  # of epsilon: rounding errors of another machine's transforms
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,39}")


@dataclass(frozen=True, kw_only=True)
class PrivacyProof:
    """What stands behind a claim of differential privacy.

    Attributes:
        epsilon: computed from the ledger, rounded up to four decimals.
        delta: the probability that the guarantee adds to the factor exp(epsilon).
        epsilon_rdp: the same by Rényi accounting, as a check on ``epsilon``.
        accountant_version: of ``dp-accounting`` when the claim was made.
        ledger: every mechanism that was run on the training images.
        public: facts about the images that were used without noise and without charge.
        exact_noise: whether the mechanisms are of integers, so that no rounding escapes the proof.
        run: the random identity of the run whose ledger this is, 32 hexadecimal digits; None before 0.3.0.
        release_sha256: of what the run released, where that is kept; see ``training.matching.release``.
        curve: more numbers that the ledger proves, rounded up to four decimals; None before 0.3.0, or where they would
            take more than seconds.
    """

    epsilon: float
    delta: float
    epsilon_rdp: float
    accountant_version: str
    ledger: Ledger
    public: tuple[str, ...]
    exact_noise: bool = False
    run: str | None = None
    release_sha256: str | None = None
    curve: Curve | None = None

    @property
    def is_by_rdp(self) -> bool:
        """Whether ``epsilon`` is RDP's bound, because loss distributions would be vast or are not known."""
        return is_priced_by_rdp(self.ledger.charges)

    @property
    def accountant(self) -> str:
        """Which accountant ``epsilon`` is of, in words."""
        return self._words["accountant"]

    @property
    def _words(self) -> dict[str, str]:
        tuned = self.ledger.selection is not None
        return fixed_words(exact_noise=self.exact_noise, by_rdp=self.is_by_rdp, tuned=tuned)

    @property
    def shown_curve(self) -> Curve | None:
        """The claimed curve, or that of a shipped ledger, whose earlier statement has none."""
        if self.curve is not None:
            return self.curve
        known = known_curve(self.ledger, self.delta)
        return None if known is None else known.rounded_up()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values, the ledger (``mechanisms``) last."""
        return {
            "epsilon": self.epsilon,
            "delta": self.delta,
            "epsilon_rdp": self.epsilon_rdp,
            "accountant_version": self.accountant_version,
            **self._words,
            **({} if self.run is None else {"run": self.run, "release_sha256": self.release_sha256}),
            "public": list(self.public),
            **({} if self.curve is None else {"curve": self.curve.to_dict()}),
            **({} if self.ledger.selection is None else {"selection": self.ledger.selection.to_dict()}),
            "mechanisms": self.ledger.to_list(),
        }

    def expect_proven(self) -> None:
        """Compute every number again from the ledger.

        Raises:
            PrivacyError: one is smaller than what the ledger proves.
        """
        proven, proven_rdp = proven_epsilons(self.ledger, self.delta)
        excess = None
        for name, claim, proof in (("", self.epsilon, proven), ("RDP ", self.epsilon_rdp, proven_rdp)):
            if excess is None and not claim >= proof - _TOLERANCE:
                excess = f"{name}epsilon {claim:g}, but its ledger proves only {proof:.4f}"
        if excess is None and self.curve is not None:
            curve = proven_curve(self.ledger, self.delta)
            excess = "a curve, but its ledger is too large for one" if curve is None else self.curve.beyond(curve)
        if excess is not None:
            raise PrivacyError(f"the privacy statement claims {excess}; it was altered: fetch it anew")

    def facts(self) -> list[tuple[str, str]]:
        """What to print after the sentence: name and value of each line."""
        curve = self.shown_curve
        check = "" if self.is_by_rdp else f"; by RDP, as a check, {self.epsilon_rdp:g}"
        left_out = [("curve", "left out: RDP accounting gives none")] if self.is_by_rdp else []
        return [
            ("epsilon", f"{self.epsilon:g} at delta {self.delta:g}{check}"),
            *(left_out if curve is None else curve.facts(self.delta)),
            ("unit", f"{UNIT}; neighbours: {NEIGHBOURING}"),
            ("accountant", f"{self.accountant} {self.accountant_version}"),
            *([] if self.ledger.selection is None else [("selection", str(self.ledger.selection))]),
            *((f"mechanism {number}", _in_words(each)) for number, each in enumerate(self.ledger, 1)),
            ("public", ", ".join(self.public)),
            ("not charged", self._words["not_charged"]),
            ("arithmetic", EXACT_NOISE if self.exact_noise else FLOATING_POINT),
            *([] if self.run is None else [("run", self.run)]),
        ]


def read_proof(document: dict[str, Any]) -> PrivacyProof:
    """The proof of a statement that has the keys of one.

    Raises:
        ValueError: a value is of another form, out of range, or in words of its own.
    """
    try:
        ledger = _read_ledger(document)
    except PrivacyError as error:
        raise ValueError(str(error)) from error
    if not ledger.mechanisms:
        raise ValueError("the privacy statement has an empty ledger")
    by_rdp, tuned = is_priced_by_rdp(ledger.charges), ledger.selection is not None
    words = fixed_words(exact_noise="exact_noise" in document, by_rdp=by_rdp, tuned=tuned)
    exact_noise, before_runs = "exact_noise" in document, "run" not in document
    for key, expected in words.items():
        found = document[key]
        if found != expected and not are_earlier_words(key, found, before_runs=before_runs):
            raise ValueError(f"the privacy statement's {key} is {found!r:.80}; expected {expected!r}")
    for key, low, high in (
        ("epsilon", 0.0, MAX_EPSILON),
        ("epsilon_rdp", 0.0, MAX_EPSILON + 1),
        ("delta", MIN_DELTA, MAX_DELTA),
    ):
        if type(document[key]) not in (int, float) or not low <= document[key] <= high:
            raise ValueError(f"the privacy statement's {key} is no number from {low:g} to {high:g}")
    public = document["public"]
    if not isinstance(public, list) or not all(fact in PUBLIC for fact in public) or len(public) > len(PUBLIC):
        raise ValueError("the privacy statement's public lists other facts than runs of this package make public")
    version = document["accountant_version"]
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise ValueError(f"the privacy statement's accountant_version is {version!r:.80}; expected a version's number")
    return PrivacyProof(
        epsilon=float(document["epsilon"]),
        delta=float(document["delta"]),
        epsilon_rdp=float(document["epsilon_rdp"]),
        accountant_version=version,
        ledger=ledger,
        public=tuple(public),
        exact_noise=exact_noise,
        run=_hexadecimal(document, "run", 32),
        release_sha256=_hexadecimal(document, "release_sha256", 64),
        curve=Curve.from_dict(document["curve"]) if "curve" in document else None,
    )


def _read_ledger(document: dict[str, Any]) -> Ledger:
    if document.get("selection", ...) is None:
        raise PrivacyError("the privacy statement's selection is None; expected an object, or no such key")
    return Ledger.from_list(document["mechanisms"], document.get("selection"))


def _hexadecimal(document: dict[str, Any], key: str, digits: int) -> str | None:
    value = document.get(key)
    if value is None and key != "run":
        return None
    if key in document and not (isinstance(value, str) and re.fullmatch(rf"[0-9a-f]{{{digits}}}", value)):
        raise ValueError(f"the privacy statement's {key} is {value!r:.80}; expected {digits} hexadecimal digits")
    return value


def _in_words(mechanism: Mechanism) -> str:
    sampled = mechanism.sampling_probability < 1
    who = f"Poisson sampling {mechanism.sampling_probability:.6g}" if sampled else "every image"
    return (
        f"{said(mechanism.name)}: {said(mechanism.releases)}; "
        f"noise multiplier {mechanism.noise_multiplier:.6g}, "
        f"L2 sensitivity {mechanism.l2_sensitivity:.6g}, {who}, steps: {mechanism.steps:,}"
    )
