"""The sections of a recipe: their keys, types, ranges and defaults."""

from dataclasses import dataclass

from synthgen.errors import RecipeError
from synthgen.model.schema import Section, between, one_of


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
