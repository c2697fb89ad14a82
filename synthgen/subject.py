"""What a set shows: grey images of 28×28 pixels, of classes that have names. Fashion-MNIST is built in."""

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]  # shape (N, 28, 28), 0 to 255
Labels = npt.NDArray[np.uint8]  # shape (N,), from 0 on

IMAGE_SIDE = 28  # pixels
PIXELS = IMAGE_SIDE * IMAGE_SIDE
UNLABELLED = 255  # stands for "no label" wherever a label byte is digested
CLASS_NAMES = (  # of Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747)
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
NUM_CLASSES = len(CLASS_NAMES)

MIN_CLASSES, MAX_CLASSES = 2, 256  # a label is a byte
MAX_NAME_CHARACTERS = 100  # of a subject, a class or a licence
_FOLDER_CHARACTERS = 60  # at most 240 bytes in UTF-8: file systems take 255 for a name


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What the images of a set show.

    Attributes:
        name: of the data, such as ``Fashion-MNIST``: 1 to 100 printable characters.
        class_names: of labels 0, 1, …: 2 to 256, each of 1 to 100 printable characters, all different as folder names.
        licence: of the images, 1 to 100 printable characters, or None where nobody has said.

    Raises:
        ValueError: a value is none of these; the message names it.
    """

    name: str
    class_names: tuple[str, ...]
    licence: str | None = None

    def __post_init__(self) -> None:
        _expect_name(self.name, "name")
        if self.licence is not None:
            _expect_name(self.licence, "licence")
        if not MIN_CLASSES <= len(self.class_names) <= MAX_CLASSES:
            raise ValueError(f"{len(self.class_names):,} classes; expected {MIN_CLASSES} to {MAX_CLASSES}")
        seen: dict[str, str] = {}
        for name in self.class_names:
            _expect_name(name, "class name")
            folder = folder_name(name)
            if folder in seen:
                raise ValueError(f"class names {seen[folder]!r} and {name!r} give the same folder; rename one")
            seen[folder] = name

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def class_folder(self, label: int) -> str:
        """The folder of a class in an image tree, such as ``0_t-shirt-top``: sorted order is label order."""
        digits = len(str(self.num_classes - 1))
        return f"{label:0{digits}d}_{folder_name(self.class_names[label])}"

    @property
    def classes_in_words(self) -> str:
        """How many classes there are, as a sentence has it."""
        return "ten classes" if self.num_classes == 10 else f"{self.num_classes} classes"

    @property
    def identifier(self) -> str:
        """The name as data-set tools take it: lower-case letters, digits and underscores, such as ``fashion_mnist``."""
        words = re.findall(r"[a-z0-9]+", unicodedata.normalize("NFKD", self.name).lower())
        return "_".join(["set", *words] if not words or words[0][0].isdigit() else words)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {"name": self.name, "class_names": list(self.class_names), "licence": self.licence}

    @classmethod
    def from_dict(cls, document: Any) -> "Subject":
        """The inverse of ``to_dict``.

        Raises:
            ValueError: it has other keys, other types or values out of range.
        """
        keys = {"name", "class_names", "licence"}
        if not isinstance(document, dict) or document.keys() != keys:
            raise ValueError(f"a subject has the keys {', '.join(sorted(keys))}")
        name, class_names, licence = document["name"], document["class_names"], document["licence"]
        if not isinstance(class_names, list):
            raise ValueError("class_names is no list")
        return cls(name=name, class_names=tuple(class_names), licence=licence)


def undescribed(num_classes: int) -> Subject:
    """What images show of which nobody has said it: ``class 0``, ``class 1``, …"""
    return Subject(name="own images", class_names=tuple(f"class {i}" for i in range(max(MIN_CLASSES, num_classes))))


def folder_name(class_name: str) -> str:
    """A class name in lower case, with a hyphen for everything that is not allowed in all file systems."""
    lower = unicodedata.normalize("NFC", class_name).lower()
    return re.sub(r"[^\w.-]", "-", lower)[:_FOLDER_CHARACTERS].rstrip(".") or "-"


def _expect_name(value: Any, what: str) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{what} is no text")
    if not 1 <= len(value) <= MAX_NAME_CHARACTERS or not value.isprintable() or value != value.strip():
        raise ValueError(
            f"{what} {value!r:.120}: expected 1 to {MAX_NAME_CHARACTERS} printable characters, no space at the ends"
        )


FASHION = Subject(name="Fashion-MNIST", class_names=CLASS_NAMES, licence="MIT")
