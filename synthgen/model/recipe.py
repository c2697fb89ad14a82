"""Recipes: everything that decides how a generator is built and trained, in one validated TOML file.

A ``Recipe`` is frozen and checked when it is made: an unknown key, a wrong type or a value out of range raises a
``RecipeError`` that names the file, the key, the value and what was expected. Its hash identifies it.
"""

import dataclasses
import re
import tomllib
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from synthgen.errors import RecipeError
from synthgen.fashion import IMAGE_SIDE, NUM_CLASSES
from synthgen.files import sha256_of_json

_MAX_RECIPE_BYTES = 1 << 20  # 1 MiB


def _between(low: float, high: float, default: Any = dataclasses.MISSING) -> Any:
    return dataclasses.field(default=default, metadata={"low": low, "high": high})


def _one_of(*choices: str, default: Any = dataclasses.MISSING) -> Any:
    return dataclasses.field(default=default, metadata={"choices": choices})


@dataclass(frozen=True, kw_only=True)
class _Section:
    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))


@dataclass(frozen=True, kw_only=True)
class DataSection(_Section):
    """Which real images are trained on, and in which order."""

    images: str = _one_of("train", "train+test", default="train")
    holdout: int = _between(0, 59_000, default=0)  # last training images kept back, for choosing recipes
    limit: int = _between(0, 70_000, default=0)  # only the first images; 0: all
    shuffle_buffer: int = _between(0, 70_000, default=0)  # as tf.data.Dataset.shuffle; 0: a full permutation
    official: bool = True  # insist on the official Fashion-MNIST content


@dataclass(frozen=True, kw_only=True)
class LatentSection(_Section):
    """The generator's random input."""

    size: int = _between(1, 1024)
    distribution: str = _one_of("gaussian", "uniform", default="gaussian")


@dataclass(frozen=True, kw_only=True)
class GeneratorSection(_Section):
    """Latent (and class) → dense 7×7 → one stride-2 transposed convolution per entry of ``filters`` → image."""

    stem_filters: int = _between(1, 1024)
    filters: tuple[int, ...] = _between(1, 1024)  # exactly two: 7 → 14 → 28 pixels
    kernel_size: int = _between(1, 7, default=4)
    batch_norm: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.filters) != 2:
            raise RecipeError(f"filters = {list(self.filters)}: expected two widths, for 7 to 14 and 14 to 28 pixels")


@dataclass(frozen=True, kw_only=True)
class DiscriminatorSection(_Section):
    """One convolution per entry of ``filters`` → an optional dense layer → one logit."""

    filters: tuple[int, ...] = _between(1, 1024)
    strides: tuple[int, ...] = _between(1, 4)
    kernel_sizes: tuple[int, ...] = _between(1, 7)
    activation: str = _one_of("relu", "leaky_relu", default="leaky_relu")
    dense_units: int = _between(0, 4096, default=0)
    dropout: float = _between(0.0, 0.95, default=0.0)
    spectral_norm: bool = False
    projection_size: int = _between(0, 4096, default=0)  # of the class projection; conditional recipes only

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("strides", "kernel_sizes"):
            values = getattr(self, name)
            if not self.filters or len(values) != len(self.filters):
                raise RecipeError(f"{name} = {list(values)}: expected one for each of the {len(self.filters)} filters")


@dataclass(frozen=True, kw_only=True)
class GameSection(_Section):
    """A game's loss and optimisers."""

    loss: str = _one_of("binary_cross_entropy", "hinge", "relativistic")
    discriminator_steps: int = _between(1, 100, default=1)  # per generator step
    generator_learning_rate: float = _between(1e-8, 1.0)
    discriminator_learning_rate: float = _between(1e-8, 1.0)
    beta_1: float = _between(0.0, 0.9999, default=0.5)
    beta_2: float = _between(0.0, 0.99999, default=0.999)
    ema_decay: float = _between(0.0, 0.99999, default=0.0)  # of the generator's weights; 0: no averaging
    learning_rate_decay: bool = False  # both rates fall linearly to zero over the second half of the run


@dataclass(frozen=True, kw_only=True)
class TrainingSection(GameSection):
    """The game over epochs of the real images."""

    epochs: int = _between(1, 100_000)
    batch_size: int = _between(2, 8192, default=64)
    gradient_penalty: float = _between(0.0, 1000.0, default=0.0)  # weight γ; 0: none
    gradient_penalty_interval: int = _between(1, 1000, default=1)  # on every n-th step, n times as strong
    sample_every_epochs: int = _between(1, 100_000, default=1)


@dataclass(frozen=True, kw_only=True)
class PrivateTrainingSection(GameSection):
    """The game whose discriminator is trained by DP-SGD: so many steps, each on a Poisson sample of the real images."""

    steps: int = _between(1, 1_000_000)  # of the discriminator
    batch_size: int = _between(1, 60_000)  # real images expected in a sample
    l2_clip_norm: float = _between(1e-6, 1e6)  # of one image's gradient over all parameters together
    forged_batch_size: int = _between(1, 8192)
    generator_batch_size: int = _between(2, 8192)
    most_discriminator_steps: int = _between(1, 1000)  # per generator step, while accuracy_floor is not reached
    accuracy_floor: float = _between(0.0, 1.0)  # of the discriminator, on forged images alone
    sample_every_steps: int = _between(1, 1_000_000, default=500)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss == "relativistic":  # its gradients are of pairs, a real image with a forged one
            raise RecipeError(f"loss = {self.loss!r}: expected binary_cross_entropy or hinge in a private game")
        if self.most_discriminator_steps < self.discriminator_steps:
            raise RecipeError(
                f"most_discriminator_steps = {self.most_discriminator_steps}: expected at least "
                f"discriminator_steps = {self.discriminator_steps}"
            )


@dataclass(frozen=True, kw_only=True)
class LookSection(_Section):
    """The private looks at the real images: a teacher by DP-SGD, then mean embeddings of its classes."""

    teacher_steps: int = _between(1, 100_000)
    teacher_batch_size: int = _between(1, 60_000)  # real images expected in a sample
    teacher_learning_rate: float = _between(1e-6, 1000.0)
    embedding_noise: float = _between(1e-3, 1000.0)  # every embedding's noise multiplier, in units of the teacher's
    students: int = _between(0, 8, default=0)  # of the generator, each with a look of its own


@dataclass(frozen=True, kw_only=True)
class MatchingSection(_Section):
    """Teaching the generator to match what was released, which costs no privacy."""

    steps: int = _between(1, 1_000_000)
    images_per_class: int = _between(2, 1024)  # in a batch
    learning_rate: float = _between(1e-8, 1.0)
    beta_1: float = _between(0.0, 0.9999, default=0.9)
    beta_2: float = _between(0.0, 0.99999, default=0.99)
    margin_weight: float = _between(0.0, 1000.0, default=0.0)  # of images that the teacher takes for another class
    ema_decay: float = _between(0.0, 0.99999, default=0.0)  # of the generator's weights; 0: no averaging
    sample_every_steps: int = _between(1, 1_000_000, default=100)


@dataclass(frozen=True, kw_only=True)
class PrivacySection(_Section):
    """The budget of a private run: every look at the real images together costs at most this."""

    epsilon: float = _between(0.01, 50.0)
    delta: float = _between(1e-12, 1e-3, default=1e-5)


@dataclass(frozen=True, kw_only=True)
class Recipe(_Section):
    """What every recipe says, however its generator is trained; see ``recipes/*.toml`` for examples."""

    method: ClassVar[str]

    name: str
    description: str
    conditional: bool
    data: DataSection
    latent: LatentSection
    generator: GeneratorSection
    privacy: PrivacySection | None = None

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
        """The recipe as plain JSON-ready values; ``Recipe.from_dict`` reads it back."""
        values = {key: value for key, value in dataclasses.asdict(self).items() if value is not None}
        return {"method": self.method} | {
            key: {k: list(v) if isinstance(v, tuple) else v for k, v in value.items()}
            if isinstance(value, dict)
            else value
            for key, value in values.items()
        }

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
        recipe = _build(METHODS[method], values, prefix="")
        assert isinstance(recipe, Recipe)
        return recipe

    @property
    def sha256(self) -> str:
        """The recipe's identity: SHA-256 of its canonical JSON."""
        return sha256_of_json(self.to_dict())

    @property
    def generator_flops(self) -> int:
        """Floating-point operations to draw one image, a multiply-add counted as two.

        A transposed convolution costs 2 · (input pixels) · kernel² · (channels in) · (channels out); biases,
        normalisation and activations, under 2 % of the whole, are left out.
        """
        inputs = self.latent.size + (NUM_CLASSES if self.conditional else 0)
        widths = (self.generator.stem_filters, *self.generator.filters, 1)
        taps = self.generator.kernel_size**2
        sides = (7, 14, IMAGE_SIDE)
        dense = 2 * inputs * sides[0] ** 2 * widths[0]
        upsampling = sum(2 * side**2 * taps * widths[i] * widths[i + 1] for i, side in enumerate(sides[:2]))
        return dense + upsampling + 2 * sides[2] ** 2 * 9 * widths[2] * widths[3]


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
    """A generator trained against a discriminator that sees the real images unprotected."""

    method: ClassVar[str] = "adversarial"

    training: TrainingSection


@dataclass(frozen=True, kw_only=True)
class PrivateAdversarialRecipe(GameRecipe):
    """A generator trained against a discriminator that is itself trained by DP-SGD."""

    method: ClassVar[str] = "private_adversarial"

    training: PrivateTrainingSection

    def __post_init__(self) -> None:
        super().__post_init__()
        _expect_budget(self)
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

    def __post_init__(self) -> None:
        super().__post_init__()
        _expect_budget(self)
        if not self.conditional:
            raise RecipeError("conditional = false: expected true, since the statistics are of classes")


def _expect_budget(recipe: Recipe) -> None:
    if recipe.privacy is None:
        raise RecipeError("privacy is missing: expected a section [privacy] with epsilon and delta")


METHODS: dict[str, type[Recipe]] = {
    recipe.method: recipe for recipe in (AdversarialRecipe, PrivateAdversarialRecipe, StatisticsRecipe)
}


def load_recipe(name_or_path: str, overrides: typing.Sequence[str] = ()) -> Recipe:
    """Load a built-in recipe by name, or a TOML file by path, with ``section.key=value`` overrides.

    Raises:
        RecipeError: the recipe does not exist, is no TOML, or has an invalid key or value.
    """
    path = _find(name_or_path)
    try:
        if path.stat().st_size > _MAX_RECIPE_BYTES:
            raise RecipeError(f"{path}: {path.stat().st_size} bytes is no recipe; expected at most 1 MiB")
        document = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecipeError(f"{path}: not valid TOML: {error}") from error
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    for override in overrides:
        _override(document, override)
    try:
        return Recipe.from_dict(document)
    except RecipeError as error:
        raise RecipeError(f"{path.name}: {error}") from error


def with_overrides(recipe: Recipe, overrides: typing.Sequence[str]) -> Recipe:
    """The recipe with ``section.key=value`` overrides.

    Raises:
        RecipeError: a key or value is invalid.
    """
    document = recipe.to_dict()
    for override in overrides:
        _override(document, override)
    return Recipe.from_dict(document)


def with_budget(recipe: Recipe, epsilon: float | None, delta: float | None) -> Recipe:
    """The recipe with another budget where one is given.

    Raises:
        RecipeError: the recipe has no privacy to spend it on, or the budget is out of range.
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
    except RecipeError as error:
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


def _override(document: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    *sections, last = key.strip().split(".")
    if not equals or not last:
        raise RecipeError(f"--set '{override}': expected KEY=VALUE, such as training.epochs=5")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word is a string: --set latent.distribution=uniform
    target = document
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise RecipeError(f"--set '{override}': '{section}' is a value, not a section")
    target[last] = value


def _build(section: type[_Section], document: Any, prefix: str) -> _Section:
    if not isinstance(document, dict):
        raise RecipeError(f"{prefix.rstrip('.')} = {document!r}: expected a section [{prefix.rstrip('.')}]")
    fields = {field.name: field for field in dataclasses.fields(section)}
    for key in document:
        if key not in fields:
            raise RecipeError(f"{prefix}{key} = {document[key]!r}: unknown key; expected {', '.join(fields)}")
    hints = typing.get_type_hints(section)
    values: dict[str, Any] = {}
    for name, field in fields.items():
        hint = hints[name]
        section_type = _section_type(hint)
        if section_type and (name in document or field.default is dataclasses.MISSING):
            values[name] = _build(section_type, document.get(name, {}), f"{prefix}{name}.")
        elif name in document:
            values[name] = _convert(hint, document[name])
        elif field.default is dataclasses.MISSING:
            raise RecipeError(f"{prefix}{name} is missing: expected {_expected(field, hint)}")
    try:
        return section(**values)
    except RecipeError as error:
        raise RecipeError(f"{prefix}{error}") from error


def _section_type(hint: Any) -> type[_Section] | None:
    """The section a field holds, perhaps beside None; None for a plain value."""
    for kind in typing.get_args(hint) or (hint,):
        if isinstance(kind, type) and issubclass(kind, _Section):
            return kind
    return None


def _convert(hint: Any, value: Any) -> Any:
    """TOML's lists become tuples, and an integer may stand for a float; all else is left for the check."""
    if isinstance(hint, types.GenericAlias) and isinstance(value, list):
        return tuple(value)
    if hint is float and type(value) is int:
        return float(value)
    return value


def _check(field: "dataclasses.Field[Any]", value: Any) -> None:
    hint = field.type
    if _section_type(hint):
        return  # checked when it was made
    low, high = field.metadata.get("low"), field.metadata.get("high")
    choices = field.metadata.get("choices")
    if isinstance(hint, types.GenericAlias) and low is not None and high is not None:
        valid = isinstance(value, tuple) and all(type(v) is int and low <= v <= high for v in value)
    else:
        valid = type(value) is hint
        if valid and low is not None and high is not None:
            valid = low <= value <= high  # also refuses NaN
        if valid and choices is not None:
            valid = value in choices
    if not valid:
        shown = list(value) if isinstance(value, tuple) else value
        raise RecipeError(f"{field.name} = {shown!r}: expected {_expected(field, hint)}")


def _expected(field: "dataclasses.Field[Any]", hint: Any) -> str:
    if "choices" in field.metadata:
        return "one of " + ", ".join(field.metadata["choices"])
    if isinstance(hint, types.GenericAlias):
        return f"a list of integers from {field.metadata['low']} to {field.metadata['high']}"
    kind = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}.get(hint, "a section")
    if "low" in field.metadata:
        return f"{kind} from {field.metadata['low']} to {field.metadata['high']}"
    return kind
