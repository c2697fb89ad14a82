"""What may honestly be said about the privacy of a checkpoint's training images.

A formal guarantee rests on the ledger of the mechanisms that were run. Wherever a statement is read, epsilon is
computed from the ledger again, and a statement that claims a smaller one is refused.
"""

from dataclasses import dataclass
from typing import Any

from synthgen.errors import PrivacyError
from synthgen.privacy.accounting import accountant_version
from synthgen.privacy.curve import rounded_up
from synthgen.privacy.ledger import Ledger
from synthgen.privacy.pinned import PINNED_CURVES as PINNED_CURVES
from synthgen.privacy.pinned import PINNED_EPSILONS as PINNED_EPSILONS
from synthgen.privacy.pinned import claim_sha256 as claim_sha256
from synthgen.privacy.pinned import proven_curve, proven_epsilons
from synthgen.privacy.proof import PrivacyProof as PrivacyProof
from synthgen.privacy.proof import read_proof
from synthgen.privacy.words import NEIGHBOURING as NEIGHBOURING
from synthgen.privacy.words import NO_GUARANTEE, are_proof_keys, is_origin, sentences
from synthgen.privacy.words import PUBLIC as PUBLIC

UNPROTECTED, PRIVATE = "none", "differential_privacy"

_BASIC_KEYS = ("guarantee", "sentence", "trained_on")


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
        return self._sentences[0]

    @property
    def summary(self) -> str:
        """The claim, and where it is known what an attacker gains at 1 % false positives."""
        curve = None if self.proof is None else self.proof.shown_curve
        return self.sentence if curve is None else f"{self.sentence} {curve.sentence}"

    @property
    def protects(self) -> bool:
        """Whether a formal guarantee stands behind the images."""
        return self.proof is not None

    @property
    def _sentences(self) -> tuple[str, ...]:
        return (NO_GUARANTEE,) if self.proof is None else sentences(self.proof.epsilon, self.proof.delta)

    def to_dict(self) -> dict[str, Any]:
        """The statement as JSON-ready values, the ledger (``mechanisms``) last."""
        basic = {key: getattr(self, key) for key in _BASIC_KEYS}
        return basic if self.proof is None else {**basic, **self.proof.to_dict()}

    @classmethod
    def from_dict(cls, document: Any) -> "PrivacyStatement":
        """Read a statement back and compute its numbers again.

        Raises:
            ValueError: its form is unknown to this version, it claims more than its ledger proves, or its sentence is
                not that of its guarantee, epsilon and delta.
        """
        if not isinstance(document, dict) or not set(_BASIC_KEYS) <= set(document):
            raise ValueError("the privacy statement is missing or of an unknown form")
        if document["guarantee"] not in (UNPROTECTED, PRIVATE):
            raise ValueError(f"privacy guarantee {document['guarantee']!r:.80} is unknown to this version")
        rest = {key: value for key, value in document.items() if key not in _BASIC_KEYS}
        if not (are_proof_keys(set(rest)) if document["guarantee"] == PRIVATE else not rest):
            raise ValueError("the privacy statement is missing or of an unknown form")
        statement = cls(trained_on=document["trained_on"], proof=read_proof(rest) if rest else None)
        try:
            statement.expect_proven()
        except PrivacyError as error:
            raise ValueError(str(error)) from error
        if document["sentence"] not in statement._sentences:
            raise ValueError("the privacy statement's sentence is not that of its guarantee, epsilon and delta")
        return statement

    def expect_proven(self) -> None:
        """Compute epsilon and the curve again from the ledger, where a formal guarantee is claimed.

        Raises:
            PrivacyError: the claim is smaller than what the ledger proves, or ``trained_on`` is in words of its own.
        """
        if not is_origin(self.trained_on):
            raise PrivacyError(
                f"the privacy statement's trained_on is {self.trained_on!r:.80}; expected a number of images and their "
                "origin, as in '60,000 images of Fashion-MNIST, training split', or 'nothing: untrained'"
            )
        if self.proof is not None:
            self.proof.expect_proven()

    def facts(self) -> list[tuple[str, str]]:
        """What to print after the sentence: name and value of each line."""
        return [("trained on", self.trained_on), *([] if self.proof is None else self.proof.facts())]


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
    proven, proven_rdp = proven_epsilons(ledger, delta)
    curve = proven_curve(ledger, delta)
    return PrivacyStatement(
        trained_on=trained_on,
        proof=PrivacyProof(
            epsilon=rounded_up(proven),
            delta=delta,
            epsilon_rdp=rounded_up(proven_rdp),
            accountant_version=accountant_version(),
            ledger=ledger,
            public=public,
            exact_noise=exact_noise,
            run=run,
            release_sha256=release_sha256,
            curve=None if curve is None else curve.rounded_up(),
        ),
    )
