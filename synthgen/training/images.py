"""The real images of a run: which a recipe takes, and their order in every epoch."""

import dataclasses
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from synthgen.errors import UsageError
from synthgen.model.recipe import Recipe
from synthgen.real_images import RealImages, load_real_images


def training_images(recipe: Recipe, folder: Path | None = None) -> RealImages:
    """The real images a recipe trains on: its splits joined, without those held out, limited as it says.

    Raises:
        DataError: they are missing or malformed.
    """
    section = recipe.data
    parts = [load_real_images(split, folder, official=section.official) for split in section.images.split("+")]
    kept = len(parts[0]) - section.holdout if section.holdout else None
    images = np.concatenate([part.images[:kept] for part in parts])[: section.limit or None]
    labels = np.concatenate([part.labels[:kept] for part in parts])[: section.limit or None]
    return RealImages.of(images, labels, subject=parts[0].subject, official=all(part.official for part in parts))


def enough_images(recipe: Recipe, folder: Path | None, key: str, batch_size: int) -> RealImages:
    """``training_images``, at least one batch of them; ``key`` names the batch's size in the recipe.

    Raises:
        UsageError: the batch is larger than the data.
        DataError: the images are missing or malformed.
    """
    data = training_images(recipe, folder)
    if batch_size > len(data):
        raise UsageError(f"{key} = {batch_size}: expected at most the {len(data)} images there are")
    return data


R = TypeVar("R", bound=Recipe)


def of_data(recipe: R, data: RealImages) -> R:
    """The recipe for these images: with what they show, and official only if they are."""
    section = dataclasses.replace(recipe.data, official=recipe.data.official and data.official)
    return dataclasses.replace(recipe, subject=data.subject, data=section)


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
