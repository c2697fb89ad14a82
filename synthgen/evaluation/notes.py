"""What a reader of an evaluation's numbers must know, one line each."""

from collections.abc import Iterator, Sequence

import numpy as np

from synthgen.evaluation.fidelity import Comparison, Fidelity
from synthgen.evaluation.material import QUICK, REFERENCE_IMAGES, Material
from synthgen.evaluation.real import is_described, recipe_of
from synthgen.subject import FASHION

NO_TEST_SPLIT = (
    "There are no real test images. So this cannot be told: how useful the set is, what real images reach in each "
    "figure, and whether it is nearer to training images than to others."
)
_HOLD_OUT = "--holdout N measures on the last N training images instead."
_FEW_TEST_IMAGES = 1_000
_NAMES_SHOWN = 10


def notes_of(
    material: Material, fidelity: Fidelity, inception: Fidelity | None, holdout: int, of_reference: Sequence[str]
) -> Iterator[str]:
    """The notes of an evaluation; ``holdout`` as it was asked for, ``of_reference`` as ``Reference.notes``."""
    if material.effort == QUICK:
        yield "A quick evaluation: fewer images and epochs than in a full one; do not quote these numbers."
    yield from _of_set(material)
    yield from of_reference
    yield from _of_real_images(material)
    yield from _of_test_images(material, holdout)
    yield from _of_fidelity("reference", fidelity)
    if inception is not None:
        yield from _of_fidelity("Inception", inception)


def _of_set(material: Material) -> Iterator[str]:
    manifest = material.manifest
    if len(material.images) < manifest.count:
        measured = f"{len(material.images):,} of them, drawn at random, were measured"
        yield f"The set holds {manifest.count:,} images; {measured}."
    if material.labels is None:
        yield "The set has no labels: no classifier can be trained on it, so there is no utility."
    elif missing := [i for i, count in enumerate(manifest.class_counts) if not count]:
        yield f"The set holds no {_names(material, missing)}: a classifier trained on it gets all of these wrong."
    if (material.images == material.images[0]).all():
        yield "All images are equal: nothing can be learnt from them."


def _of_real_images(material: Material) -> Iterator[str]:
    train, subject = material.train, material.manifest.subject
    if not train.official and subject.name == FASHION.name:
        yield "The real images are not the official Fashion-MNIST: do not compare these numbers with others."
    elif not train.official:
        yield f"Measured against {subject.name}: compare these numbers with others of the same images only."
    if not is_described(train) and subject.class_names != train.subject.class_names:
        yield (
            "Nobody has said what the real images show: their label 0 is taken for "
            f"{subject.class_names[0]}, and so on in the order of the set's classes."
        )
    if len(train) < REFERENCE_IMAGES and train.official:
        yield "Measured on held-out training images, which the reference classifier has seen: its distances flatter."
    if material.labels is not None and material.reference_is_ceiling:
        yield "The small CNN's ceiling for seed 0 is the shipped reference classifier: the same training, not repeated."
    if material.test is not None and len(material.images) > len(train):
        yield f"There are only {len(train):,} real images to train the ceilings on."


def _of_test_images(material: Material, holdout: int) -> Iterator[str]:
    test = material.test
    if test is None:
        yield f"{NO_TEST_SPLIT} {_HOLD_OUT}"
        return
    section = recipe_of(material.manifest).data
    last = section.limit or len(material.train) + holdout  # the recipe's training images end here, or before
    if holdout > section.holdout and last > len(material.train):
        yield (
            f"The last {holdout:,} training images stand for test images, and the set's generator was trained on "
            f"{'some' if section.holdout else 'all'} of them: figures that compare with them tell less, and copies of "
            "them are not found."
        )
    if missing := np.flatnonzero(np.bincount(test.labels, minlength=material.classes) == 0).tolist():
        yield f"The real test images hold no {_names(material, missing)}: nothing is told of these classes."
    if len(test) < _FEW_TEST_IMAGES:
        yield (
            f"There are only {len(test):,} real test images: accuracies on them are certain to about "
            f"± {98 / len(test) ** 0.5:.0f} percentage points."
        )


def _of_fidelity(name: str, seen: Fidelity) -> Iterator[str]:
    sides: list[tuple[str, Comparison | None]] = [("", seen.synthetic), (", for real test images", seen.real)]
    for side, comparison in sides:
        for problem in comparison.problems if comparison else ():
            yield f"In {name} features{side} {problem}."
    real = seen.real
    if real is not None and real.frechet is not None and real.vectors < seen.synthetic.vectors:
        yield (
            f"In {name} features the Fréchet distance of {real.vectors:,} real test images stands beside that of "
            f"{seen.synthetic.vectors:,} images of the set: fewer images raise it."
        )


def _names(material: Material, labels: Sequence[int]) -> str:
    names = [material.manifest.subject.class_names[label] for label in labels]
    more = f" and {len(names) - _NAMES_SHOWN} other classes" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more
