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

from synthgen.errors import PrivacyError, RecipeError
from synthgen.fashion import IMAGE_SIDE, NUM_CLASSES
from synthgen.files import sha256_of_json
from synthgen.model.schema import Section, between, build, one_of, overridden, read_toml
from synthgen.pixels.folded import Shape
from synthgen.privacy.accounting import Budget


@dataclass(frozen=True, kw_only=True)
class DataSection(Section):
    """Which real images are trained on, and in which order."""

    images: str = one_of("train", "train+test", default="train")
    holdout: int = between(0, 59_000, default=0)  # so many of the last training images are kept back
    limit: int = between(0, 70_000, default=0)  # only the first images; 0: all
    shuffle_buffer: int = between(0, 70_000, default=0)  # as tf.data.Dataset.shuffle; 0: a full permutation
    official: bool = True  # insist on the official Fashion-MNIST content


@dataclass(frozen=True, kw_only=True)
class LatentSection(Section):
    """The generator's random input."""

    size: int = between(1, 1024)
    distribution: str = one_of("gaussian", "uniform", default="gaussian")


@dataclass(frozen=True, kw_only=True)
class GeneratorSection(Section):
    """Latent (and class) → dense 7×7 → one stride-2 transposed convolution per entry of ``filters`` → image."""

    stem_filters: int = between(1, 1024)
    filters: tuple[int, ...] = between(1, 1024)  # exactly two: 7 → 14 → 28 pixels
    kernel_size: int = between(1, 7, default=4)
    batch_norm: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.filters) != 2:
            raise RecipeError(f"filters = {list(self.filters)}: expected two widths, for 7 to 14 and 14 to 28 pixels")


@dataclass(frozen=True, kw_only=True)
class DiscriminatorSection(Section):
    """One convolution per entry of ``filters`` → an optional dense layer → one logit."""

    filters: tuple[int, ...] = between(1, 1024)
    strides: tuple[int, ...] = between(1, 4)
    kernel_sizes: tuple[int, ...] = between(1, 7)
    activation: str = one_of("relu", "leaky_relu", default="leaky_relu")
    dense_units: int = between(0, 4096, default=0)
    dropout: float = between(0.0, 0.95, default=0.0)
    spectral_norm: bool = False
    projection_size: int = between(0, 4096, default=0)  # of the class projection; conditional recipes only

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("strides", "kernel_sizes"):
            values = getattr(self, name)
            if not self.filters or len(values) != len(self.filters):
                raise RecipeError(f"{name} = {list(values)}: expected one for each of the {len(self.filters)} filters")


@dataclass(frozen=True, kw_only=True)
class GameSection(Section):
    """A game's loss and optimisers."""

    loss: str = one_of("binary_cross_entropy", "hinge", "relativistic")
    discriminator_steps: int = between(1, 100, default=1)  # per generator step
    generator_learning_rate: float = between(1e-8, 1.0)
    discriminator_learning_rate: float = between(1e-8, 1.0)
    beta_1: float = between(0.0, 0.9999, default=0.5)
    beta_2: float = between(0.0, 0.99999, default=0.999)
    ema_decay: float = between(0.0, 0.99999, default=0.0)  # of the generator's weights; 0: no averaging
    learning_rate_decay: bool = False  # both rates fall linearly to zero over the second half of the run


@dataclass(frozen=True, kw_only=True)
class TrainingSection(GameSection):
    """A game over epochs of the real images."""

    epochs: int = between(1, 100_000)
    batch_size: int = between(2, 8192, default=64)
    gradient_penalty: float = between(0.0, 1000.0, default=0.0)  # weight γ; 0: none
    gradient_penalty_interval: int = between(1, 1000, default=1)  # on every n-th step, n times as strong
    sample_every_epochs: int = between(1, 100_000, default=1)


@dataclass(frozen=True, kw_only=True)
class PrivateTrainingSection(GameSection):
    """A game whose discriminator is trained by DP-SGD: every step on a Poisson sample of the real images."""

    steps: int = between(1, 1_000_000)  # of the discriminator
    batch_size: int = between(1, 60_000)  # real images expected in a sample
    l2_clip_norm: float = between(1e-6, 1e6)  # of one image's gradient over all parameters together
    forged_batch_size: int = between(1, 8192)
    generator_batch_size: int = between(2, 8192)
    most_discriminator_steps: int = between(1, 1000)  # per generator step, while accuracy_floor is not reached
    accuracy_floor: float = between(0.0, 1.0)  # of the discriminator, on forged images alone
    sample_every_steps: int = between(1, 1_000_000, default=500)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss == "relativistic":  # its gradients belong to pairs of a real and a forged image
            raise RecipeError(f"loss = {self.loss!r}: expected binary_cross_entropy or hinge in a private game")
        if self.most_discriminator_steps < self.discriminator_steps:
            raise RecipeError(
                f"most_discriminator_steps = {self.most_discriminator_steps}: expected at least "
                f"discriminator_steps = {self.discriminator_steps}"
            )


@dataclass(frozen=True, kw_only=True)
class LookSection(Section):
    """The private looks at the real images: a teacher by DP-SGD, then mean embeddings of its classes."""

    teacher_steps: int = between(1, 100_000)
    teacher_batch_size: int = between(1, 60_000)  # real images expected in a sample
    teacher_learning_rate: float = between(1e-6, 1000.0)
    embedding_noise: float = between(1e-3, 1000.0)  # every embedding's noise multiplier, in units of the teacher's
    students: int = between(0, 8, default=0)  # of the generator, each with one more look


@dataclass(frozen=True, kw_only=True)
class MatchingSection(Section):
    """Teaching the generator to match what was released, which costs no privacy."""

    steps: int = between(1, 1_000_000)
    images_per_class: int = between(2, 1024)  # in a batch
    learning_rate: float = between(1e-8, 1.0)
    beta_1: float = between(0.0, 0.9999, default=0.9)
    beta_2: float = between(0.0, 0.99999, default=0.99)
    margin_weight: float = between(0.0, 1000.0, default=0.0)  # on images that the teacher assigns to another class
    ema_decay: float = between(0.0, 0.99999, default=0.0)  # of the generator's weights; 0: no averaging
    sample_every_steps: int = between(1, 1_000_000, default=100)


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
        """The recipe as JSON-ready values; ``Recipe.from_dict`` reads it back."""
        return {"method": self.method} | dataclasses.asdict(self, dict_factory=_plain)

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
    def shape(self) -> Shape:
        """What decides the shapes of the generator's arrays."""
        section = self.generator
        return Shape(
            latent_size=self.latent.size,
            classes=NUM_CLASSES if self.conditional else 0,
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
        inputs = self.latent.size + (NUM_CLASSES if self.conditional else 0)
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


def _plain(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Values as JSON has them: lists for tuples, and no key for None."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in items if value is not None}


METHODS: dict[str, type[Recipe]] = {
    recipe.method: recipe for recipe in (AdversarialRecipe, PrivateAdversarialRecipe, StatisticsRecipe)
}


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Load a built-in recipe by name, or a TOML file by path, with ``section.key=value`` overrides.

    Raises:
        RecipeError: the recipe does not exist, is no TOML, or has an invalid key or value.
    """
    path = _find(name_or_path)
    document = overridden(read_toml(path), overrides)
    try:
        return Recipe.from_dict(document)
    except RecipeError as error:
        raise RecipeError(f"{path.name}: {error}") from error


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
