"""The joint guarantee of checkpoints and sets: what somebody who has all of them can learn about a training image."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthgen.errors import UsageError
from synthgen.model.checkpoint import load_checkpoint
from synthgen.model.claims import BUILT_IN, origin_words
from synthgen.privacy.joint import Held, Joint, joint_guarantees
from synthgen.privacy.statement import PrivacyStatement, claim_sha256
from synthgen.sets.manifest import MANIFEST_NAME, load_manifests

_MAX_SOURCES = 100
_SAME_IMAGES = "All with the same origin count as trained on the same images, and any number of images as all of them."
_APART = (
    "Fashion-MNIST and the user's own images are counted apart. For an image that is among both, add the two epsilons "
    "and deltas; there is no guarantee if one of the two has none."
)


@dataclass(frozen=True, kw_only=True)
class Accounted:
    """One checkpoint or set.

    Attributes:
        name: as it was given.
        checkpoint_sha256: of the generator.
        statement: its claim.
    """

    name: str
    checkpoint_sha256: str
    statement: PrivacyStatement

    @property
    def run(self) -> Hashable:
        """What is equal for two of one run, where no run is named: the ledger with the weights, which it made.

        The built-in checkpoints of several releases with the same ledger are roundings of the same weights.
        """
        proof = self.statement.proof
        claim = None if proof is None else claim_sha256(proof.ledger, proof.delta)
        return claim, "built in" if self.checkpoint_sha256 in BUILT_IN else self.checkpoint_sha256


@dataclass(frozen=True, kw_only=True)
class Account:
    """What was accounted, and what it proves together.

    Attributes:
        sources: each checkpoint or set.
        joint: the guarantee of all of them, for each origin of the training images.
    """

    sources: tuple[Accounted, ...]
    joint: tuple[Joint, ...]

    def summary(self) -> list[str]:
        """The result as lines to read."""
        lines = []
        for each in self.sources:
            origin = origin_words(each.checkpoint_sha256)
            lines.append(f"{each.name} ({origin}; trained on {each.statement.trained_on}): {each.statement.sentence}")
        lines += [f"jointly, for {joint.images}: {line}" for joint in self.joint for line in joint.lines()]
        if not self.joint:
            lines.append("jointly: nothing was trained on any image")
        elif len(self.sources) > 1:
            lines.append(_SAME_IMAGES)
        return [*lines, _APART] if len(self.joint) > 1 else lines

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        sources = [
            {"name": each.name, "checkpoint_sha256": each.checkpoint_sha256, "privacy": each.statement.to_dict()}
            for each in self.sources
        ]
        return {"sources": sources, "joint": [joint.to_dict() for joint in self.joint]}


def account(sources: Sequence[str | Path], delta: float | None = None) -> Account:
    """The joint guarantee of several checkpoints or sets.

    Args:
        sources: checkpoints (built-in names or folders) and folders of exported sets.
        delta: at which to state epsilon, 1e-12 to 0.001; by default the largest of the claims.

    Raises:
        CheckpointError, VerificationError: a source is neither, or is malformed.
        PrivacyError: delta is out of range.
        UsageError: no source, or more than 100.
    """
    if not 1 <= len(sources) <= _MAX_SOURCES:
        raise UsageError(f"{len(sources)} checkpoints and sets: expected 1 to {_MAX_SOURCES}")
    found = tuple(_accounted(str(source)) for source in dict.fromkeys(sources))
    held = [Held(name=each.name, statement=each.statement, run=each.run) for each in found]
    return Account(sources=found, joint=joint_guarantees(held, delta))


def _accounted(source: str) -> Accounted:
    folder = Path(source)
    if (folder / MANIFEST_NAME).is_file():
        manifest = load_manifests(folder)[0]  # its splits are of one export
        return Accounted(name=source, checkpoint_sha256=manifest.checkpoint.sha256, statement=manifest.privacy)
    checkpoint = load_checkpoint(source)
    return Accounted(name=source, checkpoint_sha256=checkpoint.sha256, statement=checkpoint.privacy)
