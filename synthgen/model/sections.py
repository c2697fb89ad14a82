"""The sections of a recipe: their keys, types, ranges and defaults."""

from dataclasses import dataclass

from synthgen.errors import RecipeError
from synthgen.model.schema import Section, between, one_of, switch


@dataclass(frozen=True, kw_only=True)
class DataSection(Section):
    """Which real images are trained on, and in which order."""

    images: str = one_of("the official splits that are trained on", "train", "train+test", default="train")
    holdout: int = between("so many of the last training images are kept back", 0, 10_000_000, default=0)
    limit: int = between("only the first images; 0: all", 0, 10_000_000, default=0)
    shuffle_buffer: int = between("as `tf.data.Dataset.shuffle`; 0: a full permutation", 0, 10_000_000, default=0)
    official: bool = switch(
        "insist on the official Fashion-MNIST; data of `synthgen prepare` are taken in any case", default=True
    )


@dataclass(frozen=True, kw_only=True)
class LatentSection(Section):
    """The generator's random input."""

    size: int = between("of the random input", 1, 1024)
    distribution: str = one_of("of the random input", "gaussian", "uniform", default="gaussian")


@dataclass(frozen=True, kw_only=True)
class GeneratorSection(Section):
    """Latent (and class) → dense 7×7 → one stride-2 transposed convolution per entry of ``filters`` → image."""

    stem_filters: int = between("channels at 7×7 pixels", 1, 1024)
    filters: tuple[int, ...] = between("channels at 14×14 and at 28×28 pixels", 1, 1024)
    kernel_size: int = between("of the transposed convolutions", 1, 7, default=4)
    batch_norm: bool = switch("after every layer but the last", default=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.filters) != 2:
            raise RecipeError(f"filters = {list(self.filters)}: expected two widths, for 7 to 14 and 14 to 28 pixels")


@dataclass(frozen=True, kw_only=True)
class DiscriminatorSection(Section):
    """One convolution per entry of ``filters`` → an optional dense layer → one logit."""

    filters: tuple[int, ...] = between("channels of each convolution", 1, 1024)
    strides: tuple[int, ...] = between("one for each convolution", 1, 4)
    kernel_sizes: tuple[int, ...] = between("one for each convolution", 1, 7)
    activation: str = one_of("after each convolution", "relu", "leaky_relu", default="leaky_relu")
    dense_units: int = between("of a dense layer before the logit; 0: none", 0, 4096, default=0)
    dropout: float = between("share that is dropped before the logit", 0.0, 0.95, default=0.0)
    spectral_norm: bool = switch("divide each layer's weights by their largest singular value", default=False)
    projection_size: int = between("of the class projection; above 0 in conditional recipes only", 0, 4096, default=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("strides", "kernel_sizes"):
            values = getattr(self, name)
            if not self.filters or len(values) != len(self.filters):
                raise RecipeError(f"{name} = {list(values)}: expected one for each of the {len(self.filters)} filters")


@dataclass(frozen=True, kw_only=True)
class GameSection(Section):
    """A game's loss and optimisers."""

    loss: str = one_of("of the game", "binary_cross_entropy", "hinge", "relativistic")
    discriminator_steps: int = between("for each step of the generator", 1, 100, default=1)
    generator_learning_rate: float = between("of Adam", 1e-8, 1.0)
    discriminator_learning_rate: float = between("of Adam", 1e-8, 1.0)
    beta_1: float = between("of Adam", 0.0, 0.9999, default=0.5)
    beta_2: float = between("of Adam", 0.0, 0.99999, default=0.999)
    ema_decay: float = between("of the running mean of the generator's weights; 0: none", 0.0, 0.99999, default=0.0)
    learning_rate_decay: bool = switch(
        "both rates fall linearly to zero over the second half of the run", default=False
    )


@dataclass(frozen=True, kw_only=True)
class TrainingSection(GameSection):
    """A game over epochs of the real images."""

    epochs: int = between("passes over the real images", 1, 100_000)
    batch_size: int = between("images in a step", 2, 8192, default=64)
    gradient_penalty: float = between("weight γ of the penalty on real images; 0: none", 0.0, 1000.0, default=0.0)
    gradient_penalty_interval: int = between("it is taken on every n-th step, n times as strong", 1, 1000, default=1)
    sample_every_epochs: int = between("between two pictures and checkpoints", 1, 100_000, default=1)


@dataclass(frozen=True, kw_only=True)
class PrivateTrainingSection(GameSection):
    """A game whose discriminator is trained by DP-SGD: every step on a Poisson sample of the real images."""

    steps: int = between("of the discriminator", 1, 1_000_000)
    batch_size: int = between("real images expected in a Poisson sample", 1, 10_000_000)
    l2_clip_norm: float = between("of one image's gradient over all parameters together", 1e-6, 1e6)
    forged_batch_size: int = between("forged images in a step of the discriminator", 1, 8192)
    generator_batch_size: int = between("images in a step of the generator", 2, 8192)
    most_discriminator_steps: int = between(
        "for each step of the generator, while `accuracy_floor` is not reached", 1, 1000
    )
    accuracy_floor: float = between("of the discriminator, on forged images alone", 0.0, 1.0)
    sample_every_steps: int = between("between two pictures and checkpoints", 1, 1_000_000, default=500)

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
    """The private looks at the real images: a teacher by DP-SGD, then mean embeddings of its classes.

    What is left open fits the budget, the number of images and of classes: ``training.matching.fitting``.
    """

    teacher_steps: int = between("of DP-SGD", 1, 100_000)
    teacher_batch_size: int = between(
        "real images expected in a Poisson sample; 0: fits the data", 0, 10_000_000, default=0
    )
    teacher_learning_rate: float = between(
        "of the mean gradient over the expected sample; 0: fits", 0.0, 1000.0, default=0.0
    )
    embedding_noise: float = between(
        "every embedding's noise multiplier, in units of the teacher's; 0: fits", 0.0, 1000.0, default=0.0
    )
    students: int = between("of the generator, each with one more look; -1: fits", -1, 8, default=-1)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("teacher_learning_rate", 1e-6), ("embedding_noise", 1e-3)):
            if 0 < getattr(self, name) < least:
                raise RecipeError(f"{name} = {getattr(self, name)}: expected 0 or a number from {least:g}")


@dataclass(frozen=True, kw_only=True)
class MatchingSection(Section):
    """Teaching the generator to match what was released, which costs no privacy."""

    steps: int = between("of the generator; 0: fits the budget", 0, 1_000_000, default=0)
    images_per_class: int = between("in a step; 0: fits the number of classes", 0, 1024, default=0)
    learning_rate: float = between("of Adam", 1e-8, 1.0)
    beta_1: float = between("of Adam", 0.0, 0.9999, default=0.9)
    beta_2: float = between("of Adam", 0.0, 0.99999, default=0.99)
    margin_weight: float = between(
        "of the loss on images that the teacher takes for another class", 0.0, 1000.0, default=0.0
    )
    ema_decay: float = between("of the running mean of the generator's weights; 0: none", 0.0, 0.99999, default=0.0)
    sample_every_steps: int = between("between two pictures and checkpoints", 1, 1_000_000, default=100)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.images_per_class == 1:
            raise RecipeError("images_per_class = 1: expected 0 or an integer from 2, to tell how they vary")
