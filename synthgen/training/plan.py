"""What a training run will see and for how long: the recipe, its images, and their order in every epoch."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from synthgen.errors import UsageError
from synthgen.model.recipe import AdversarialRecipe, Recipe
from synthgen.privacy.accounting import Budget
from synthgen.real_images import RealImages, load_real_images

MAX_TRAINING_SEED = (1 << 32) - 1


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """A run as it will be, before it begins."""

    recipe: AdversarialRecipe
    data: RealImages
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch, the last one perhaps short."""
        return math.ceil(len(self.data) / self.recipe.training.batch_size)

    @property
    def total_steps(self) -> int:
        """Batches in the whole run."""
        return self.steps_per_epoch * self.recipe.training.epochs


def plan_training(recipe: AdversarialRecipe, data_folder: Path | None = None, seed: int = 0) -> TrainingPlan:
    """Load and check everything a run needs.

    Args:
        recipe: what to train.
        data_folder: where the real images are; by default see ``datasets.find_data``.
        seed: 0 to 2^32 - 1.

    Raises:
        UsageError: the seed is out of range, or the recipe has a privacy budget, which this method cannot keep.
        DataError: the real images are missing or malformed, or too few for the recipe.
    """
    expect_training_seed(seed)
    if recipe.privacy:
        raise UsageError(
            f"recipe '{recipe.name}': has a [privacy] budget, but method '{recipe.method}' protects nothing"
        )
    plan = TrainingPlan(recipe=recipe, data=training_images(recipe, data_folder), seed=seed)
    section = recipe.training
    expect_enough("training.batch_size", section.batch_size, plan.data)
    if section.discriminator_steps > plan.steps_per_epoch:
        raise UsageError(
            f"training.discriminator_steps = {section.discriminator_steps}: expected at most the "
            f"{plan.steps_per_epoch} batches of an epoch"
        )
    return plan


def expect_training_seed(seed: int) -> None:
    """Raise UsageError unless the seed is within 0 to 2^32 - 1."""
    if not 0 <= seed <= MAX_TRAINING_SEED:
        raise UsageError(f"seed {seed} is out of range: choose 0 to 2^32 - 1")


def budget_of(recipe: Recipe) -> Budget:
    """What a private recipe may spend."""
    assert recipe.privacy is not None  # the recipe sees to it
    return Budget(recipe.privacy.epsilon, recipe.privacy.delta)


def expect_enough(key: str, batch_size: int, data: RealImages) -> None:
    """Raise UsageError where a batch, named by its key in the recipe, is larger than the data."""
    if batch_size > len(data):
        raise UsageError(f"{key} = {batch_size}: expected at most the {len(data)} images there are")


def training_images(recipe: Recipe, folder: Path | None = None) -> RealImages:
    """The real images a recipe trains on, merged, held out and limited as it says."""
    section = recipe.data
    parts = [load_real_images(split, folder, official=section.official) for split in section.images.split("+")]
    kept = len(parts[0]) - section.holdout if section.holdout else None
    images = np.concatenate([part.images[:kept] for part in parts])[: section.limit or None]
    labels = np.concatenate([part.labels[:kept] for part in parts])[: section.limit or None]
    return RealImages.of(images, labels, official=all(part.official for part in parts))


def describe_private_images(recipe: Recipe, count: int) -> str:
    """Which images a private run protects, in plain language."""
    origin = "Fashion-MNIST" if recipe.data.official else "the user's own images"
    which = f"the first {count:,}" if recipe.data.holdout or recipe.data.limit else f"all {count:,}"
    return f"{which} images of the training split of {origin}"


def epoch_order(count: int, shuffle_buffer: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The order of the images in one epoch, a permutation of 0 … count - 1.

    With a buffer, as ``tf.data.Dataset.shuffle(buffer)`` gives it: each element is drawn at random from a window
    that slides over the data. Without, every permutation is equally likely.
    """
    random = np.random.Generator(np.random.Philox(key=np.array([seed, epoch], np.uint64)))
    if shuffle_buffer == 0:
        return random.permutation(count)
    window = min(shuffle_buffer, count)
    slots = random.integers(0, window, count)
    buffer = list(range(window))
    order = np.empty(count, np.int64)
    for i in range(count):
        slot = slots[i] % len(buffer)
        order[i] = buffer[slot]
        if window + i < count:
            buffer[slot] = window + i
        else:
            buffer[slot] = buffer[-1]
            buffer.pop()
    return order
