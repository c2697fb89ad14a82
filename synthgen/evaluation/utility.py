"""How useful is a set? Train on it, test on real images (TSTR), and the other way round (TRTS).

Beside every number stands its ceiling: the same classifier, trained on as many real images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from synthgen.fashion import NUM_CLASSES, Images, Labels
from synthgen.workers import StageProgress


class Examples(NamedTuple):
    """Labelled images: uint8 of shapes (N, 28, 28) and (N,)."""

    images: Images
    labels: Labels


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one classifier, trained once for each seed, did on the real test images.

    Attributes:
        accuracies: the share right, one for each seed.
        per_class: the share right of each class, over all seeds; None for a class without test images.
        confusion: counts over all seeds; a row is a true class, a column a predicted one.
    """

    accuracies: tuple[float, ...]
    per_class: tuple[float | None, ...]
    confusion: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, truth: Labels, predictions: Sequence[Labels]) -> "Outcome":
        """Count what was right and what was taken for what."""
        confusion = np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64)
        for predicted in predictions:
            np.add.at(confusion, (truth, predicted), 1)
        rows = confusion.sum(1)
        return cls(
            accuracies=tuple(float((predicted == truth).mean()) for predicted in predictions),
            per_class=tuple(float(confusion[i, i] / n) if n else None for i, n in enumerate(rows)),
            confusion=tuple(tuple(row) for row in confusion.tolist()),
        )

    @property
    def mean(self) -> float:
        """The mean accuracy over the seeds."""
        return float(np.mean(self.accuracies))

    @property
    def spread(self) -> float:
        """The standard deviation over the seeds."""
        return float(np.std(self.accuracies))


@dataclass(frozen=True, kw_only=True)
class Usefulness:
    """One classifier, trained on the set and, as the ceiling, on as many real images."""

    classifier: str
    synthetic: Outcome
    real: Outcome

    @property
    def ratio(self) -> float:
        """How much of the ceiling is reached; 0 where the ceiling is."""
        return self.synthetic.mean / self.real.mean if self.real.mean else 0.0


def train_on_synthetic_test_on_real(
    name: str,
    synthetic: Examples,
    real: Examples,
    test: Examples,
    *,
    seeds: int,
    epochs: int,
    known_ceiling: Labels | None = None,
    progress: StageProgress = lambda stage, done, of: None,
) -> Usefulness:
    """Train a classifier on the set and on real images, and test both on unseen real images.

    Args:
        name: a key of ``synthgen.evaluation.classifiers.TRAINERS``.
        synthetic: the set.
        real: as many real training images, for the ceiling.
        test: real images that nothing was trained on.
        seeds: how many times, with seeds 0, 1, …
        epochs: passes over the images, where the classifier makes any.
        known_ceiling: what the classifier of seed 0 trained on ``real`` answers on ``test``, where that is known.
        progress: called as training goes on.

    Raises:
        EvaluationError: the classifier needs scikit-learn, which is not installed.
    """
    from synthgen.evaluation.classifiers import train_classifier

    def answers(examples: Examples, seed: int, kind: str) -> Labels:
        stage = f"{name}, {kind}, seed {seed}"
        classify = train_classifier(
            name, *examples, seed, epochs=epochs, progress=lambda done, of: progress(stage, done, of)
        )
        return classify(test.images)

    synthetic_answers = [answers(synthetic, seed, "synthetic") for seed in range(seeds)]
    known = [] if known_ceiling is None else [known_ceiling]
    real_answers = [*known, *(answers(real, seed, "real") for seed in range(len(known), seeds))]
    return Usefulness(
        classifier=name,
        synthetic=Outcome.of(test.labels, synthetic_answers),
        real=Outcome.of(test.labels, real_answers),
    )
