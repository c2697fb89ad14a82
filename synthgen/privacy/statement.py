"""What may honestly be said about the privacy of a checkpoint's training images.

A formal guarantee rests on the ledger of the mechanisms that were run. Wherever a statement is read, epsilon is
computed from the ledger again, and a statement that claims a smaller one is refused.
"""

import functools
import math
import re
from dataclasses import dataclass
from typing import Any

from synthgen.errors import PrivacyError
from synthgen.files import sha256_of_json
from synthgen.privacy.accounting import MAX_DELTA, MAX_EPSILON, MIN_DELTA, accountant_version
from synthgen.privacy.ledger import Ledger

UNPROTECTED, PRIVATE = "none", "differential_privacy"

# What every private run of this package does, in words. A statement that says anything else is refused.
ACCOUNTANT = "privacy loss distributions (PLD), dp-accounting"
UNIT = "one image with its label"
NEIGHBOURING = "zero-out: the image and its label replaced by an empty record"
SAMPLING = "Poisson: at each step every image takes part independently, with the mechanism's sampling_probability"
PUBLIC = (
    "the number of images",
    "equal class counts",
    "the size of an image",
    "the list of classes",
)
NOT_CHARGED = "the choice of hyper-parameters"
EXACT_NOISE = "sums of integers, and Gaussian noise rounded to integers: the proof holds for what the program computes"
FLOATING_POINT = (
    "the proof is for real numbers; noise is drawn in double precision as a sum of four draws, "
    "which is not proven to withstand an attack on its low bits"
)

# claim_sha256 → epsilon by PLD and by RDP, of the ledgers that ship with the package, so that reading them does not
# import the accountant (1.7 s). A test computes each of them again.
PINNED_EPSILONS: dict[str, tuple[float, float]] = {
    # private
    "b9b6cb97a1afd132c6fbe08d5cc457a0270f6587d7281a15e5e50c627f9a0aff": (9.994871102108918, 10.752374996695508),
    # private-eps1
    "6988409df0e59e93745386d506f543b2dbed4be914b2ed7cbf39db0db8128cf2": (0.9993545473380427, 1.0922841346566874),
}

_ROUNDING = 10_000  # a claim is rounded up to four decimals
_TOLERANCE = 1e-6  # of epsilon: rounding errors of another machine's transforms
_BASIC_KEYS = ("guarantee", "sentence", "trained_on")
# Which images a generator was trained on, as this version and 0.1.0 and 0.2.0 word it. Free text here could pretend to
# be a claim of its own.
_ORIGIN = r"((the public )?Fashion-MNIST|the user's own images)"
_NUMBER = r"\d{1,3}(,\d{3}){0,2}"
_TRAINED_ON = re.compile(
    rf"(all|the first) {_NUMBER} images of the training split of {_ORIGIN}"
    rf"|{_NUMBER} images of {_ORIGIN}, (training split|training and test splits)"
    r"|nothing: untrained",
    re.ASCII,
)
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,39}")
_NO_GUARANTEE = (
    "No formal privacy guarantee: the generator saw its training images unprotected, "
    "and what its images reveal about any one of them is not bounded."
)
_FIXED = {
    "unit": UNIT,
    "neighbouring": NEIGHBOURING,
    "accountant": ACCOUNTANT,
    "sampling_assumed": SAMPLING,
    "sampling_run": SAMPLING,
    "not_charged": NOT_CHARGED,
}
_NOISE = {"exact_noise": EXACT_NOISE, "floating_point": FLOATING_POINT}  # one of the two
# As 0.1.0 and 0.2.0 word it. The numbers are the same: adding a record to those who took part is the worst of both.
_EARLIER_WORDS = {"neighbouring": ("add or remove one",)}
_PROOF_KEYS = {*_FIXED, "epsilon", "delta", "epsilon_rdp", "accountant_version", "mechanisms", "public"}
_RUN_KEYS = {"run", "release_sha256"}  # absent in statements of 0.1.0 and 0.2.0


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


@dataclass(frozen=True, kw_only=True)
class PrivacyStatement:
    """The claim of a checkpoint, repeated in every manifest made from it.

    Attributes:
        trained_on: which images: their number and origin, in words of this package.
        proof: what stands behind a formal guarantee; None where there is none.
    """

    trained_on: str
    proof: PrivacyProof | None = None

    @property
    def guarantee(self) -> str:
        """``differential_privacy``: ``proof`` bounds what the images reveal; ``none``: nothing does."""
        return UNPROTECTED if self.proof is None else PRIVATE

    @property
    def sentence(self) -> str:
        """The claim in plain language."""
        return _sentences(self.proof)[0]

    @property
    def protects(self) -> bool:
        """Whether a formal guarantee stands behind the images."""
        return self.proof is not None

    def to_dict(self) -> dict[str, Any]:
        """The statement as JSON-ready values, the ledger (``mechanisms``) last."""
        basic = {key: getattr(self, key) for key in _BASIC_KEYS}
        if self.proof is None:
            return basic
        proof = self.proof
        return {
            **basic,
            "epsilon": proof.epsilon,
            "delta": proof.delta,
            "epsilon_rdp": proof.epsilon_rdp,
            "accountant_version": proof.accountant_version,
            **_FIXED,
            **_noise_words(proof.exact_noise),
            **({} if proof.run is None else {"run": proof.run, "release_sha256": proof.release_sha256}),
            "public": list(proof.public),
            "mechanisms": proof.ledger.to_list(),
        }

    @classmethod
    def from_dict(cls, document: Any) -> "PrivacyStatement":
        """Read a statement back and compute its epsilon again.

        Raises:
            ValueError: its form is unknown to this version, it claims a smaller epsilon than its ledger proves, or its
                sentence is not that of its guarantee, epsilon and delta.
        """
        if not isinstance(document, dict) or not set(_BASIC_KEYS) <= set(document):
            raise ValueError("the privacy statement is missing or of an unknown form")
        if document["guarantee"] not in (UNPROTECTED, PRIVATE):
            raise ValueError(f"privacy guarantee {document['guarantee']!r:.80} is unknown to this version")
        trained_on = document["trained_on"]
        rest = {key: value for key, value in document.items() if key not in _BASIC_KEYS}
        if not _are_keys(set(rest), document["guarantee"]):
            raise ValueError("the privacy statement is missing or of an unknown form")
        statement = cls(trained_on=trained_on, proof=_read_proof(rest) if rest else None)
        try:
            statement.expect_proven()
        except PrivacyError as error:
            raise ValueError(str(error)) from error
        if document["sentence"] not in _sentences(statement.proof):
            raise ValueError("the privacy statement's sentence is not that of its guarantee, epsilon and delta")
        return statement

    def expect_proven(self) -> None:
        """Compute epsilon again from the ledger, where a formal guarantee is claimed.

        Raises:
            PrivacyError: the claim is smaller than what the ledger proves, or ``trained_on`` is in words of its own.
        """
        if not isinstance(self.trained_on, str) or not _TRAINED_ON.fullmatch(self.trained_on):
            raise PrivacyError(
                f"the privacy statement's trained_on is {self.trained_on!r:.80}; expected a number of images and their "
                "origin, as in '60,000 images of Fashion-MNIST, training split', or 'nothing: untrained'"
            )
        if self.proof is None:
            return
        proven, proven_rdp = _proven_epsilons(self.proof.ledger, self.proof.delta)
        for name, claim, proof in (("", self.proof.epsilon, proven), ("RDP ", self.proof.epsilon_rdp, proven_rdp)):
            if not claim >= proof - _TOLERANCE:
                raise PrivacyError(
                    f"the privacy statement claims {name}epsilon {claim:g}, but its ledger proves only {proof:.4f}; "
                    "it was altered: fetch it anew"
                )

    def facts(self) -> list[tuple[str, str]]:
        """What to print after the sentence: name and value of each line."""
        lines = [("trained on", self.trained_on)]
        if self.proof is None:
            return lines
        proof = self.proof
        lines += [
            ("epsilon", f"{proof.epsilon:g} at delta {proof.delta:g}; by RDP, as a check, {proof.epsilon_rdp:g}"),
            ("unit", f"{UNIT}; neighbours: {NEIGHBOURING}"),
            ("accountant", f"{ACCOUNTANT} {proof.accountant_version}"),
        ]
        for number, mechanism in enumerate(proof.ledger, 1):
            sampled = mechanism.sampling_probability < 1
            who = f"Poisson sampling {mechanism.sampling_probability:.6g}" if sampled else "every image"
            lines.append(
                (
                    f"mechanism {number}",
                    f"{_said(mechanism.name)}: {_said(mechanism.releases)}; "
                    f"noise multiplier {mechanism.noise_multiplier:.6g}, "
                    f"L2 sensitivity {mechanism.l2_sensitivity:.6g}, {who}, steps: {mechanism.steps:,}",
                )
            )
        return [
            *lines,
            ("public", ", ".join(proof.public)),
            ("not charged", NOT_CHARGED),
            ("arithmetic", EXACT_NOISE if proof.exact_noise else FLOATING_POINT),
            *([] if proof.run is None else [("run", proof.run)]),
        ]


def no_guarantee(trained_on: str) -> PrivacyStatement:
    """The statement of a generator that was trained without any formal protection."""
    return PrivacyStatement(trained_on=trained_on)


def differential_privacy(
    ledger: Ledger,
    delta: float,
    trained_on: str,
    public: tuple[str, ...] = PUBLIC,
    *,
    exact_noise: bool = False,
    run: str | None = None,
    release_sha256: str | None = None,
) -> PrivacyStatement:
    """The statement of a generator whose ``ledger`` holds every look at its training images.

    Args:
        ledger: every mechanism that was run; not empty.
        delta: of the budget.
        trained_on: which images, in the words of this package's runs.
        public: facts about the images that were used without noise and without charge.
        exact_noise, run, release_sha256: see ``PrivacyProof``.

    Raises:
        PrivacyError: the ledger is empty, or proves only an epsilon above 50.
    """
    if not ledger.mechanisms:
        raise PrivacyError("no mechanism was charged, so there is nothing to claim")
    proven, proven_rdp = _proven_epsilons(ledger, delta)
    return PrivacyStatement(
        trained_on=trained_on,
        proof=PrivacyProof(
            epsilon=_rounded_up(proven),
            delta=delta,
            epsilon_rdp=_rounded_up(proven_rdp),
            accountant_version=accountant_version(),
            ledger=ledger,
            public=public,
            exact_noise=exact_noise,
            run=run,
            release_sha256=release_sha256,
        ),
    )


def claim_sha256(ledger: Ledger, delta: float) -> str:
    """The key of a pinned epsilon: SHA-256 over the ledger and delta."""
    return sha256_of_json({"delta": float(delta), "mechanisms": ledger.to_list()})


@functools.lru_cache(maxsize=64)
def _proven_epsilons(ledger: Ledger, delta: float) -> tuple[float, float]:
    """Epsilon by PLD and by RDP."""
    pinned = PINNED_EPSILONS.get(claim_sha256(ledger, delta))
    if pinned is not None:
        return pinned
    by_rdp = ledger.epsilon(delta, "rdp")
    if by_rdp > MAX_EPSILON:
        raise PrivacyError(f"the ledger proves no epsilon of at most {MAX_EPSILON:g}; that is no guarantee")
    return ledger.epsilon(delta), by_rdp


def _read_proof(document: dict[str, Any]) -> PrivacyProof:
    for key, expected in {**_FIXED, **_noise_words("exact_noise" in document)}.items():
        if document[key] != expected and document[key] not in _EARLIER_WORDS.get(key, ()):
            raise ValueError(f"the privacy statement's {key} is {document[key]!r:.80}; expected {expected!r}")
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
    try:
        ledger = Ledger.from_list(document["mechanisms"])
    except PrivacyError as error:
        raise ValueError(str(error)) from error
    if not ledger.mechanisms:
        raise ValueError("the privacy statement has an empty ledger")
    return PrivacyProof(
        epsilon=float(document["epsilon"]),
        delta=float(document["delta"]),
        epsilon_rdp=float(document["epsilon_rdp"]),
        accountant_version=version,
        ledger=ledger,
        public=tuple(public),
        exact_noise="exact_noise" in document,
        run=_hexadecimal(document, "run", 32),
        release_sha256=_hexadecimal(document, "release_sha256", 64),
    )


def _noise_words(exact: bool) -> dict[str, str]:
    key = "exact_noise" if exact else "floating_point"
    return {key: _NOISE[key]}


def _are_keys(found: set[str], guarantee: str) -> bool:
    """Whether these are the keys of a statement's proof, or of no proof."""
    if guarantee != PRIVATE:
        return not found
    return found in [{*_PROOF_KEYS, noise, *run} for noise in _NOISE for run in (set(), _RUN_KEYS)]


def _hexadecimal(document: dict[str, Any], key: str, digits: int) -> str | None:
    value = document.get(key)
    if value is None and key != "run":
        return None
    if key in document and not (isinstance(value, str) and re.fullmatch(rf"[0-9a-f]{{{digits}}}", value)):
        raise ValueError(f"the privacy statement's {key} is {value!r:.80}; expected {digits} hexadecimal digits")
    return value


def _sentences(proof: PrivacyProof | None) -> tuple[str, ...]:
    """Every wording of the claim that a statement may carry: today's first, then those of earlier versions."""
    if proof is None:
        return (_NO_GUARANTEE,)
    epsilon, delta, factor = proof.epsilon, proof.delta, math.exp(proof.epsilon)
    shown = f"{math.ceil(factor * 100) / 100:.2f}" if factor < 100 else f"{math.ceil(factor):,}"
    return (
        f"Differentially private with epsilon {epsilon:g} and delta {delta:g}: whether or not one training image is "
        f"there raises the probability of any outcome to at most {shown} times what it is otherwise, plus {delta:g}.",
        f"Differentially private with epsilon {epsilon:g} and delta {delta:g}: adding or removing one training image "
        f"can raise the probability of any outcome to at most {shown} times what it was, plus {delta:g}.",
        "Differentially private: whatever these images tell, one training image more or less makes it at most "
        f"{shown} times as likely (epsilon {epsilon:g}), apart from a probability of {delta:g} (delta).",
    )


def _said(text: str) -> str:
    """A free text of the ledger in quotation marks, which it cannot end."""
    return '"' + text.replace('"', "'") + '"'


def _rounded_up(epsilon: float) -> float:
    return math.ceil(epsilon * _ROUNDING) / _ROUNDING
