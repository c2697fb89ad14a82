"""What may honestly be said about the privacy of a checkpoint's training images."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class PrivacyStatement:
    """The claim a checkpoint carries, and every manifest made from it repeats word for word.

    Attributes:
        guarantee: ``none``: no mechanism bounds what the images reveal about any training image.
        sentence: the claim in plain language.
        trained_on: which images, in plain language.
    """

    guarantee: str
    sentence: str
    trained_on: str

    @property
    def protects(self) -> bool:
        """Whether a formal guarantee stands behind the images."""
        return self.guarantee != "none"

    def to_dict(self) -> dict[str, Any]:
        """The statement as plain JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Any) -> "PrivacyStatement":
        """Read a statement back; raises ValueError unless it is one this version understands."""
        if not isinstance(document, dict) or set(document) != {"guarantee", "sentence", "trained_on"}:
            raise ValueError("the privacy statement is missing or of an unknown form")
        if document["guarantee"] != "none" or not all(isinstance(v, str) for v in document.values()):
            raise ValueError(f"privacy guarantee {document['guarantee']!r} is unknown to this version")
        if not all(value.isprintable() for value in document.values()):
            raise ValueError("the privacy statement holds characters that cannot be printed")
        return cls(**document)


def no_guarantee(trained_on: str) -> PrivacyStatement:
    """The statement of a generator that was trained without any formal protection."""
    return PrivacyStatement(
        guarantee="none",
        sentence=(
            "No formal privacy guarantee: the generator saw its training images unprotected, "
            "and what its images reveal about any one of them is not bounded."
        ),
        trained_on=trained_on,
    )
