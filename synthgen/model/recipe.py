"""Recipes: everything that decides how a generator is built and trained, read from one TOML file.

A ``Recipe`` is frozen and checked when it is made: an unknown key, a wrong type or a value out of range raises a
``RecipeError`` that names the file, the key, the value and what was expected. Its SHA-256 identifies it.
"""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from synthgen.errors import PrivacyError, RecipeError
from synthgen.files import sha256_of_json
from synthgen.model.schema import Section, build, overridden, read_toml, toml_text
from synthgen.model.sections import (
    DataSection,
    DiscriminatorSection,
    GameSection,
    GeneratorSection,
    LatentSection,
    LookSection,
    MatchingSection,
    PrivateTrainingSection,
    TrainingSection,
)
from synthgen.pixels.folded import Shape
from synthgen.privacy.accounting import Budget
from synthgen.subject import FASHION, IMAGE_SIDE, Subject


@dataclass(frozen=True, kw_only=True)
class Recipe(Section):
    """What all recipes have in common; ``recipes/*.toml`` are examples."""

    method: ClassVar[str]

    name: str
    description: str
    conditional: bool
    data: DataSection
    latent: LatentSection
    generator: GeneratorSection
    privacy: Budget | None = None
    subject: Subject = FASHION  # what the images show; a run takes it from its data

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", self.name):  # it names folders
            raise RecipeError(f"name = {self.name!r:.80}: expected letters, digits, '.', '_' and '-', at most 64")
        if not self.description.isprintable():
            raise RecipeError(f"description = {self.description!r:.80}: expected one printable line")
        if self.data.holdout and self.data.images != "train":
            raise RecipeError(f"data.holdout = {self.data.holdout}: expected 0 unless data.images = 'train'")
        if self.privacy and self.data.images != "train":
            raise RecipeError(f"data.images = {self.data.images!r}: expected 'train', for only that split is private")

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON-ready values, without the built-in subject; ``Recipe.from_dict`` reads it back."""
        values = {"method": self.method} | dataclasses.asdict(self, dict_factory=_plain)
        if self.subject == FASHION:
            del values["subject"]
        return values

    @staticmethod
    def from_dict(document: dict[str, Any]) -> "Recipe":
        """Build and check a recipe from nested plain values; without a ``method`` it is adversarial.

        Raises:
            RecipeError: naming the key, the value and what was expected.
        """
        if not isinstance(document, dict):
            raise RecipeError(f"recipe = {document!r:.80}: expected a section of keys and values")
        values = dict(document)
        method = values.pop("method", AdversarialRecipe.method)
        if not isinstance(method, str) or method not in METHODS:
            raise RecipeError(f"method = {method!r:.80}: expected one of {', '.join(METHODS)}")
        return build(METHODS[method], values)

    @property
    def sha256(self) -> str:
        """The recipe's identity: SHA-256 of its canonical JSON."""
        return sha256_of_json(self.to_dict())

    @property
    def classes(self) -> int:
        """How many classes the generator draws; 0 where it is unconditional."""
        return self.subject.num_classes if self.conditional else 0

    def balanced_labels(self, count: int) -> npt.NDArray[np.uint8] | None:
        """The classes in turn, uint8, shape (count,); None where the generator is unconditional."""
        return (np.arange(count) % self.classes).astype(np.uint8) if self.conditional else None

    @property
    def shape(self) -> Shape:
        """What decides the shapes of the generator's arrays."""
        section = self.generator
        return Shape(
            latent_size=self.latent.size,
            classes=self.classes,
            widths=(section.stem_filters, section.filters[0], section.filters[1]),
            kernel_size=section.kernel_size,
            batch_norm=section.batch_norm,
        )

    @property
    def generator_flops(self) -> int:
        """Floating-point operations per image drawn; a multiply-add counts as two.

        A transposed convolution costs 2 · (input pixels) · kernel² · (channels in) · (channels out). Biases,
        normalisation and activations are left out: less than 2 %.
        """
        inputs = self.latent.size + self.classes
        widths = (self.generator.stem_filters, *self.generator.filters)
        dense = 2 * inputs * 7**2 * widths[0]
        stages = zip((7, 14), widths, widths[1:], strict=False)
        upsampling = sum(2 * side**2 * self.generator.kernel_size**2 * a * b for side, a, b in stages)
        return dense + upsampling + 2 * IMAGE_SIDE**2 * 3**2 * widths[-1]


@dataclass(frozen=True, kw_only=True)
class GameRecipe(Recipe):
    """A generator trained against a discriminator, with or without privacy."""

    discriminator: DiscriminatorSection
    training: GameSection

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.conditional != (self.discriminator.projection_size > 0):
            raise RecipeError(
                f"discriminator.projection_size = {self.discriminator.projection_size}: expected "
                f"{'at least 1' if self.conditional else '0'}, since conditional = {str(self.conditional).lower()}"
            )


@dataclass(frozen=True, kw_only=True)
class AdversarialRecipe(GameRecipe):
    """A generator trained against a discriminator that sees the real images without protection."""

    method: ClassVar[str] = "adversarial"

    training: TrainingSection


@dataclass(frozen=True, kw_only=True)
class PrivateAdversarialRecipe(GameRecipe):
    """A generator trained against a discriminator that is itself trained by DP-SGD."""

    method: ClassVar[str] = "private_adversarial"

    training: PrivateTrainingSection
    privacy: Budget = dataclasses.field()  # required: the default None is not inherited

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.discriminator.spectral_norm or self.discriminator.dropout:
            raise RecipeError(
                "discriminator: expected neither spectral_norm nor dropout, since per-example gradients are needed"
            )


@dataclass(frozen=True, kw_only=True)
class StatisticsRecipe(Recipe):
    """A generator that learns from statistics of the real images, released once with noise."""

    method: ClassVar[str] = "released_statistics"

    look: LookSection
    training: MatchingSection
    privacy: Budget = dataclasses.field()  # required: the default None is not inherited

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.conditional:
            raise RecipeError("conditional = false: expected true, since the statistics are of classes")

    @property
    def is_open(self) -> bool:
        """Whether settings are left to fit budget and data; the recipe of a run has none."""
        look, training = self.look, self.training
        given = look.teacher_batch_size, look.teacher_learning_rate, look.embedding_noise
        return not all((*given, training.steps, training.images_per_class)) or look.students < 0


def _plain(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Values as JSON has them: lists for tuples, and no key for None."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in items if value is not None}


_MAX_EXTENDED = 8  # recipes that extend each other

METHODS: dict[str, type[Recipe]] = {
    recipe.method: recipe for recipe in (AdversarialRecipe, PrivateAdversarialRecipe, StatisticsRecipe)
}


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Load a built-in recipe by name, or a TOML file by path, with ``section.key=value`` overrides.

    Raises:
        RecipeError: the recipe does not exist, is no TOML, or has an invalid key or value.
    """
    path = _find(name_or_path)
    document = overridden(_extended(path), overrides)
    try:
        return Recipe.from_dict(document)
    except RecipeError as error:
        raise RecipeError(f"{path.name}: {error}") from error


def recipe_text(name_or_path: str) -> str:
    """The TOML of a built-in recipe, or of a file; raises RecipeError as ``load_recipe``."""
    load_recipe(name_or_path)  # what cannot be used is not shown
    return toml_text(_find(name_or_path))


def _extended(path: Path, depth: int = 1) -> dict[str, Any]:
    """The document of a recipe, with what ``extends = "private"`` takes from another: each key that it has not."""
    document = read_toml(path)
    base = document.pop("extends", None)
    if base is None:
        return document
    if not isinstance(base, str) or depth == _MAX_EXTENDED:
        raise RecipeError(
            f"{path.name}: extends = {base!r:.80}: expected a recipe's name or file, through at most {_MAX_EXTENDED}"
        )
    beside = path.parent / base
    below = _extended(beside if beside.is_file() and base not in builtin_recipes() else _find(base), depth + 1)
    if not document.get("name"):
        document["name"] = path.stem
    return _merged(below, document)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Two documents, section by section; ``above`` counts where both have a value."""
    both = {
        key: _merged(below[key], value) if isinstance(value, dict) and isinstance(below.get(key), dict) else value
        for key, value in above.items()
    }
    return {**below, **both}


def with_overrides(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """The recipe with ``section.key=value`` overrides.

    Raises:
        RecipeError: a key or value is invalid.
    """
    return Recipe.from_dict(overridden(recipe.to_dict(), overrides))


def with_budget(recipe: Recipe, epsilon: float | None, delta: float | None) -> Recipe:
    """The recipe with another epsilon or delta where one is given.

    Raises:
        RecipeError: the recipe has no budget, or a value is out of range.
    """
    given = {key: value for key, value in (("epsilon", epsilon), ("delta", delta)) if value is not None}
    if not given:
        return recipe
    if recipe.privacy is None:
        raise RecipeError(
            f"--{next(iter(given))} {next(iter(given.values())):g}: recipe '{recipe.name}' trains without privacy; "
            "choose one with a section [privacy], such as private"
        )
    try:
        return dataclasses.replace(recipe, privacy=dataclasses.replace(recipe.privacy, **given))
    except PrivacyError as error:
        raise RecipeError(f"privacy.{error}") from error


def builtin_recipes() -> dict[str, Path]:
    """The recipes that come with synthgen: name → path, in alphabetical order."""
    return {path.stem: path for path in sorted(_recipes_folder().glob("*.toml"))}


def _recipes_folder() -> Path:
    installed = Path(__file__).parents[1] / "recipes"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "recipes"


def _find(name_or_path: str) -> Path:
    builtin = builtin_recipes()
    if name_or_path in builtin:
        return builtin[name_or_path]
    path = Path(name_or_path)
    if path.is_file():
        return path
    raise RecipeError(f"no recipe '{name_or_path}': choose one of {', '.join(builtin)}, or the path of a TOML file")
