"""What an evaluation works on: a set read back from disk, the real images, and how much of both is measured."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from synthgen.real_images import RealImages
from synthgen.sets.manifest import Manifest
from synthgen.sets.reading import read_set
from synthgen.subject import IMAGE_SIDE, Images, Labels
from synthgen.workers import StageProgress

SAMPLING_SEED = 0  # samples are random, and the same in every evaluation
REFERENCE_IMAGES = 60_000  # that the shipped reference classifier was trained on
REFERENCE_SHA256 = "2a0769463e9e64b4b2263646045f932d37544bb0c7ae570f50306d8a385f3780"  # of its file


class Examples(NamedTuple):
    """Labelled images: uint8 of shapes (N, 28, 28) and (N,)."""

    images: Images
    labels: Labels


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is measured, which decides how long an evaluation takes; above a limit a random sample is measured.

    Attributes:
        images: the most images of the set.
        training_images: the most that a classifier is trained on.
        epochs: passes of the CNN over them.
        least_steps: of training. A small set is passed over more often until there are so many: a CNN that is half
            trained says little of the set.
        classical: whether to train the classifiers of scikit-learn too.
        reference_images: the most of the set, and of the real training images, that the reference classifier sees.
        fidelity_images: the most that are compared with the real training images by their features.
        neighbour_images: the most whose nearest neighbours are searched.
        inception_images: the most of each kind that Inception sees.
    """

    images: int = 60_000
    training_images: int = 60_000
    epochs: int = 6
    least_steps: int = 300
    classical: bool = True
    reference_images: int = 60_000
    fidelity_images: int = 10_000
    neighbour_images: int = 60_000
    inception_images: int = 10_000

    def epochs_for(self, images: int, batch: int) -> int:
        """How often ``images`` images are seen in training."""
        return max(self.epochs, -(-self.least_steps // -(-images // batch)))


FULL = Effort()
QUICK = Effort(
    training_images=12_000,
    epochs=3,
    least_steps=141,
    classical=False,
    reference_images=10_000,
    fidelity_images=5_000,
    neighbour_images=4_000,
    inception_images=2_500,
)


@dataclass(frozen=True, kw_only=True)
class Material:
    """What is compared with what. Images are in random order, so that the first n are a fair sample.

    Attributes:
        manifest: of the set.
        images, labels: of the set, or of as many as ``effort`` allows; no labels for an unlabelled set.
        train, test: the real images; no test images where there is no test split.
        effort: how much is measured.
        seeds: how many times each classifier is trained.
        progress: called as the work goes on.
        seconds: what each part took; filled in by ``timed``.
    """

    manifest: Manifest
    images: Images
    labels: Labels | None
    train: RealImages
    test: RealImages | None
    effort: Effort
    seeds: int
    progress: StageProgress
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        folder: Path,
        manifest: Manifest,
        train: RealImages,
        test: RealImages | None,
        effort: Effort,
        seeds: int,
        progress: StageProgress,
    ) -> "Material":
        """Read the set and shuffle the real test images, always in the same way."""
        images, labels = _read_sample(folder, manifest, effort.images)
        if test is not None:
            shuffled = np.random.default_rng(SAMPLING_SEED).permutation(len(test))
            test = replace(test, images=test.images[shuffled], labels=test.labels[shuffled])
        return cls(
            manifest=manifest,
            images=images,
            labels=labels,
            train=train,
            test=test,
            effort=effort,
            seeds=seeds,
            progress=progress,
        )

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return self.manifest.subject.num_classes

    @property
    def reference_is_ceiling(self) -> bool:
        """Whether the shipped reference classifier is what the CNN trained on the real images with seed 0 would be."""
        enough = len(self.images) >= len(self.train) == REFERENCE_IMAGES
        return self.train.official and enough and self.effort == FULL

    def real_sample(self, most: int) -> Examples:
        """Real training images: all of them as they stand, or at most ``most`` in random order."""
        if most >= len(self.train):
            return Examples(self.train.images, self.train.labels)
        chosen = np.random.default_rng(SAMPLING_SEED).permutation(len(self.train))[:most]
        return Examples(self.train.images[chosen], self.train.labels[chosen])

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Note what a part took."""
        began = time.monotonic()
        yield
        self.seconds[part] = round(time.monotonic() - began, 1)


def _read_sample(folder: Path, manifest: Manifest, most: int) -> tuple[Images, Labels | None]:
    """The images of a set, or ``most`` of them, and their labels, in an order that is random but always the same."""
    chosen = np.random.default_rng(SAMPLING_SEED).permutation(manifest.count)[:most]
    place = np.full(manifest.count, -1, np.int64)
    place[chosen] = np.arange(len(chosen))
    images = np.empty((len(chosen), IMAGE_SIDE, IMAGE_SIDE), np.uint8)
    labels = np.empty(len(chosen), np.uint8) if manifest.labelled else None
    for batch in read_set(folder, manifest):
        first = batch.start - manifest.start
        places = place[first : first + len(batch)]
        wanted = places >= 0
        images[places[wanted]] = batch.images[wanted]
        if labels is not None and batch.labels is not None:
            labels[places[wanted]] = batch.labels[wanted]
    return images, labels
