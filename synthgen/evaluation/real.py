"""The real images that a set is measured against: those that it was trained on, or others of the same classes."""

import os
from dataclasses import replace
from pathlib import Path

from synthgen.errors import DataError, UsageError
from synthgen.model.recipe import Recipe
from synthgen.real_images import RealImages, find_data, has_split, load_real_images
from synthgen.sets.manifest import Manifest
from synthgen.subject import FASHION, Subject, undescribed

_SHOWN = 3  # class names in a message


def real_images_of(
    manifest: Manifest, data_folder: Path | None, *, holdout: int, official: bool
) -> tuple[Path, RealImages, RealImages | None]:
    """The folder of the real images, the training images, and the test images or None where there are none.

    Args:
        manifest: of the set.
        data_folder: see ``find_data``; to be named for a set of images of one's own.
        holdout: take so many of the last training images for test images.
        official: refuse another Fashion-MNIST than the official one. A set of images of one's own may always be
            measured against images that are not official.

    Raises:
        UsageError: no folder is named for a set of images of one's own, or ``holdout`` leaves no training images.
        DataError: the images are missing, malformed, or of other classes than the set.
    """
    official = official and is_official(manifest)
    if not is_official(manifest) and data_folder is None and not os.environ.get("SYNTHGEN_DATA"):
        raise UsageError(
            f"the set's generator was trained on images of its maker's own ({in_words(manifest.subject)}); "
            "name the folder of these images: --data FOLDER"
        )
    folder = find_data(data_folder)
    train = load_real_images("train", folder, official=official)
    _expect_same_classes(folder, manifest.subject, train)
    train, test = _held_out(train, holdout) if holdout else (train, _test_images(folder, train, official))
    for split, real in (("train", train), ("test", test)):
        if real is not None and (highest := int(real.labels.max())) >= manifest.subject.num_classes:
            raise DataError(
                f"{folder}: label {highest} in the {split} split; expected at most {manifest.subject.num_classes - 1}"
            )
    return folder, train, test


def recipe_of(manifest: Manifest) -> Recipe:
    """The recipe by which a set's generator was trained."""
    return Recipe.from_dict(manifest.checkpoint.recipe)


def is_official(manifest: Manifest) -> bool:
    """Whether a set's recipe says that its generator was trained on the official Fashion-MNIST."""
    recipe = recipe_of(manifest)
    return recipe.data.official and recipe.subject == FASHION


def is_described(real: RealImages) -> bool:
    """Whether somebody has said what real images show."""
    return real.subject != undescribed(real.subject.num_classes)


def in_words(subject: Subject) -> str:
    """A subject's name and first classes, for a message."""
    names = ", ".join(subject.class_names[:_SHOWN]) + (", …" if subject.num_classes > _SHOWN else "")
    return f"{subject.name}, {subject.classes_in_words}: {names}"


def _expect_same_classes(folder: Path, subject: Subject, real: RealImages) -> None:
    """Raise DataError unless real images are of a set's classes; nobody may have said it, but they are as many."""
    named = is_described(real)
    same = real.subject.class_names == subject.class_names if named else real.subject.num_classes == subject.num_classes
    if not same:
        raise DataError(
            f"{folder}: {in_words(real.subject)}; the set shows {in_words(subject)}; "
            "name the folder of images of these classes: --data FOLDER"
        )


def _test_images(folder: Path, train: RealImages, official: bool) -> RealImages | None:
    if not train.official and not has_split(folder, "test"):
        return None
    return replace(load_real_images("test", folder, official=official), subject=train.subject)


def _held_out(real: RealImages, count: int) -> tuple[RealImages, RealImages]:
    """All but the last ``count`` images, and those."""
    if not 0 < count < len(real):
        raise UsageError(f"holdout {count}: expected 1 to {len(real) - 1:,}, for there are {len(real):,} images")
    cut = len(real) - count
    return (
        RealImages.of(real.images[:cut], real.labels[:cut], subject=real.subject, official=real.official),
        RealImages.of(real.images[cut:], real.labels[cut:], subject=real.subject, official=real.official),
    )
