"""How useful is a set? Train on synthetic, test on real (TSTR); and train on real, test on synthetic (TRTS).

Every number is given with its ceiling: the same classifier, trained on as many real images.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from synthgen.evaluation.material import Examples, Material
from synthgen.subject import Labels
from synthgen.workers import StageProgress

_EVEN = 1.5  # the most frequent class has at most so many times the images of the rarest: accuracy says it all


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one classifier, trained once for each seed, did on test images.

    Attributes:
        accuracies: the share it classified rightly, one for each seed.
        per_class: that share for each class, over all seeds; None for a class without test images.
        confusion: counts over all seeds; a row is a true class, a column a predicted one.
    """

    accuracies: tuple[float, ...]
    per_class: tuple[float | None, ...]
    confusion: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, truth: Labels, predictions: Sequence[Labels], classes: int) -> "Outcome":
        """Count the predictions, one array for each seed, against the true labels, all below ``classes``."""
        confusion = np.zeros((classes, classes), np.int64)
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

    @property
    def balanced(self) -> float | None:
        """The mean of ``per_class``, in which a rare class counts as much as others; None for even classes."""
        counts = [sum(row) for row in self.confusion if any(row)]
        if not counts or max(counts) <= _EVEN * min(counts):
            return None
        return float(np.mean([share for share in self.per_class if share is not None]))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return {"mean": self.mean, "spread": self.spread} | self.counts_to_dict()

    def counts_to_dict(self) -> dict[str, Any]:
        """The same without mean and spread; with ``balanced_accuracy`` where the classes are not even."""
        return asdict(self) | ({} if self.balanced is None else {"balanced_accuracy": self.balanced})


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """A classifier trained on real images, tested on the set (TRTS) and, for comparison, on real test images.

    Attributes:
        taken_for: how many images of the set it takes for each class.
        synthetic: how often it agrees with the set's labels; None for an unlabelled set.
        real: how it does on the real test images; None where there are none.
    """

    taken_for: tuple[int, ...]
    synthetic: Outcome | None
    real: Outcome | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        sides = {"synthetic": self.synthetic, "real": self.real}
        return {"taken_for": self.taken_for} | {
            side: outcome and outcome.counts_to_dict() for side, outcome in sides.items()
        }


@dataclass(frozen=True, kw_only=True)
class Usefulness:
    """One classifier, trained on the set and, as the ceiling, on as many real images."""

    classifier: str
    synthetic: Outcome
    real: Outcome

    @property
    def ratio(self) -> float:
        """The share of the ceiling that is reached; 0 where the ceiling is 0."""
        return self.synthetic.mean / self.real.mean if self.real.mean else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        sides = {"synthetic": self.synthetic.to_dict(), "real": self.real.to_dict()}
        return {"classifier": self.classifier, **sides, "ratio": self.ratio}


def measure_utility(material: Material, answers_of_reference: Labels | None) -> tuple[Usefulness, ...]:
    """Train the fixed classifiers on the set and on as many real images.

    Args:
        material: the set and the real images; without labels or without test images there is nothing to measure.
        answers_of_reference: the reference classifier's labels of the real test images.

    Raises:
        EvaluationError: a classifier needs scikit-learn, which is not installed.
    """
    from synthgen.evaluation.classifiers import BATCH, SMALL_CNN, TRAINERS

    effort, labels, test = material.effort, material.labels, material.test
    if labels is None or test is None:
        return ()
    synthetic = Examples(material.images[: effort.training_images], labels[: effort.training_images])
    real = material.real_sample(len(synthetic.images))
    return tuple(
        train_on_synthetic_test_on_real(
            name,
            synthetic,
            real,
            Examples(test.images, test.labels),
            classes=material.classes,
            seeds=material.seeds,
            epochs=effort.epochs_for(len(synthetic.images), BATCH),
            known_ceiling=answers_of_reference if name == SMALL_CNN and material.reference_is_ceiling else None,
            progress=material.progress,
        )
        for name in (TRAINERS if effort.classical else [SMALL_CNN])
    )


def train_on_synthetic_test_on_real(
    name: str,
    synthetic: Examples,
    real: Examples,
    test: Examples,
    *,
    classes: int,
    seeds: int,
    epochs: int,
    known_ceiling: Labels | None = None,
    progress: StageProgress = lambda stage, done, of: None,
) -> Usefulness:
    """Train a classifier on the set, and another on real images, and test both on unseen real images.

    Args:
        name: a key of ``synthgen.evaluation.classifiers.TRAINERS``.
        synthetic: the set.
        real: as many real training images, for the ceiling.
        test: real images that nothing was trained on.
        classes: how many there are.
        seeds: how many times each is trained, with seeds 0, 1, …
        epochs: passes of the CNN over the images.
        known_ceiling: the answers on ``test`` of the classifier trained on ``real`` with seed 0, if they are known.
        progress: called as training goes on.

    Raises:
        EvaluationError: the classifier needs scikit-learn, which is not installed.
    """
    from synthgen.evaluation.classifiers import train_classifier

    def answers(examples: Examples, seed: int, kind: str) -> Labels:
        stage = f"{name}, {kind}, seed {seed}"
        classify = train_classifier(
            name, *examples, seed, classes=classes, epochs=epochs, progress=lambda done, of: progress(stage, done, of)
        )
        return classify(test.images)

    synthetic_answers = [answers(synthetic, seed, "synthetic") for seed in range(seeds)]
    known = [] if known_ceiling is None else [known_ceiling]
    real_answers = [*known, *(answers(real, seed, "real") for seed in range(len(known), seeds))]
    return Usefulness(
        classifier=name,
        synthetic=Outcome.of(test.labels, synthetic_answers, classes),
        real=Outcome.of(test.labels, real_answers, classes),
    )
