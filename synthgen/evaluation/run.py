"""Is a set any good? Utility, fidelity and memorisation of an exported set, measured against the real images.

>>> import synthgen
>>> evaluation = synthgen.evaluate(Path("dataset"), quick=True)  # doctest: +SKIP
>>> evaluation.utility[0].synthetic.mean, evaluation.utility[0].real.mean  # doctest: +SKIP
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from synthgen.environment import made_with
from synthgen.errors import UsageError, VerificationError
from synthgen.evaluation.fidelity import Comparison, compare
from synthgen.evaluation.memorisation import ClosestPairs, Memorisation, measure_memorisation
from synthgen.evaluation.subject import FULL, QUICK, SAMPLING_SEED, Subject
from synthgen.evaluation.utility import Examples, Outcome, Usefulness, train_on_synthetic_test_on_real
from synthgen.fashion import CLASS_NAMES, NUM_CLASSES, Images, Labels
from synthgen.files import write_json
from synthgen.real_images import RealImages, find_data, load_real_images
from synthgen.sets.manifest import Manifest, load_manifest
from synthgen.sets.verification import verify
from synthgen.workers import StageProgress

if TYPE_CHECKING:
    import keras

    from synthgen.evaluation.reference import Views

SCHEMA_VERSION = 1
FIDELITY_STATEMENT = (
    "Distances are taken in the 128 features of synthgen's own reference classifier, trained on Fashion-MNIST. "
    "This Fréchet distance is not the Inception FID of papers, and must not be compared with it."
)
INCEPTION_STATEMENT = (
    "Distances are taken in the 2,048 pooled features of the Inception-v3 weights given, images resized to 299 × 299. "
    "Papers mostly use the weights of 2015, which give somewhat different numbers."
)
REFERENCE_IMAGES = 60_000  # the reference classifier was trained on
_SAMPLES_PER_CLASS = 12


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """A set in the eyes of one network, and real test images in the same: the floor."""

    statement: str
    synthetic: Comparison
    real: Comparison


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """A classifier trained on real images, tested on the set's (TRTS) and, beside it, on real test images.

    Attributes:
        taken_for: how many images of the set it takes for each class.
        synthetic: whether that agrees with the labels; None for an unlabelled set.
        real: how it does on the real test images.
    """

    taken_for: tuple[int, ...]
    synthetic: Outcome | None
    real: Outcome


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What a report shows.

    Attributes:
        samples: a row for each class of the set (one row without labels): uint8, each (n, 28, 28).
        pairs: the images most like copies.
    """

    samples: dict[str, Images]
    pairs: ClosestPairs


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What ``evaluate`` found.

    Attributes:
        manifest: of the set that was measured.
        quick: whether it was measured with less effort.
        seeds: how many times each classifier was trained.
        real: where the yardstick came from: counts and hashes of the real images, hash of the reference classifier.
        utility: one entry for each classifier; empty for an unlabelled set.
        recognition: train on real, test on synthetic.
        fidelity: distances in the reference classifier's features.
        inception: in Inception's, where its weights were given.
        memorisation: nearest neighbours by pixels.
        notes: what a reader of the numbers must know, one line each.
        seconds: what each part took.
        pictures: for the report; not part of ``to_dict``.
    """

    manifest: Manifest
    quick: bool
    seeds: int
    real: dict[str, Any]
    utility: tuple[Usefulness, ...]
    recognition: Recognition
    fidelity: Fidelity
    inception: Fidelity | None
    memorisation: Memorisation
    notes: tuple[str, ...]
    seconds: dict[str, float]
    pictures: Pictures = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The numbers as JSON-ready values."""
        m = self.manifest
        return {
            "schema_version": SCHEMA_VERSION,
            "set": {
                **{key: getattr(m, key) for key in ("digest", "count", "start", "seed", "labels", "split", "format")},
                "class_counts": list(m.class_counts),
                "checkpoint": {"name": m.checkpoint.name, "sha256": m.checkpoint.sha256},
                "privacy": m.privacy.to_dict(),
            },
            "class_names": list(CLASS_NAMES),
            "quick": self.quick,
            "seeds": self.seeds,
            "real": self.real,
            "utility": [_with_figures(usefulness) for usefulness in self.utility],
            "recognition": asdict(self.recognition),
            "fidelity": _as_figures(self.fidelity),
            "inception": None if self.inception is None else _as_figures(self.inception),
            "memorisation": asdict(self.memorisation),
            "notes": list(self.notes),
            "seconds": self.seconds,
            "made_with": made_with(),
        }

    def write(self, path: Path) -> None:
        """Publish the numbers as ``path``, usually named evaluation.json."""
        write_json(path, self.to_dict())


def evaluate(
    folder: Path,
    data_folder: Path | None = None,
    *,
    holdout: int = 0,
    quick: bool = False,
    seeds: int = 1,
    inception: Path | None = None,
    official: bool = True,
    progress: StageProgress = lambda stage, done, of: None,
) -> Evaluation:
    """Verify an exported set and measure it against the real images.

    Args:
        folder: an exported set, of any format.
        data_folder: the real images; by default see ``synthgen.real_images.find_data``.
        holdout: measure on the last so many training images, and on none of the test images: for choosing between
            recipes that were trained with the same ``data.holdout``.
        quick: the CNN alone, with fewer epochs and images, and samples elsewhere.
        seeds: how many times each classifier is trained.
        inception: weights of Keras's InceptionV3, for the Fréchet distance in its features.
        official: refuse real images that are not the official ones.
        progress: called with (what is being done, steps done, steps in all).

    Raises:
        UsageError: ``seeds`` is below 1, or ``holdout`` leaves no training images.
        VerificationError: the set is not what its manifest claims.
        DataError: the real images are missing, or (``official``) not the official ones.
        EvaluationError: scikit-learn or the weights of a network are missing or malformed.
    """
    if seeds < 1:
        raise UsageError(f"seeds {seeds}: expected at least 1")
    manifest = _verified(folder, progress)
    data_folder = find_data(data_folder)
    train = load_real_images("train", data_folder, official=official)
    if holdout:
        train, test = _held_out(train, holdout)
    else:
        test = load_real_images("test", data_folder, official=official)
    effort = QUICK if quick else FULL
    subject = Subject.of(folder, manifest, train, test, effort, seeds, progress)
    return _measured(subject, manifest, inception)


def _held_out(real: RealImages, count: int) -> tuple[RealImages, RealImages]:
    """All but the last ``count`` images, and those."""
    if not 0 < count < len(real):
        raise UsageError(f"holdout {count}: expected 1 to {len(real) - 1:,}, for there are {len(real):,} images")
    cut = len(real) - count
    return (
        RealImages.of(real.images[:cut], real.labels[:cut], official=real.official),
        RealImages.of(real.images[cut:], real.labels[cut:], official=real.official),
    )


def _measured(subject: Subject, manifest: Manifest, inception: Path | None) -> Evaluation:
    if subject.effort.classical and subject.labels is not None:
        from synthgen.evaluation.classifiers import require_scikit_learn

        require_scikit_learn()
    from synthgen.evaluation.reference import REFERENCE_SHA256, load_reference

    stranger = _load_inception(inception)  # a bad file is found out before the long work
    with subject.timed("fidelity"):
        recognition, fidelity, known = _seen_by_reference(subject, load_reference())
    with subject.timed("memorisation"):
        memorisation, pairs = measure_memorisation(
            subject.images,
            subject.train.images,
            subject.test.images,
            most=subject.effort.neighbour_images,
            progress=subject.progress,
        )
    with subject.timed("utility"):
        utility = () if subject.labels is None else _utility(subject, subject.labels, known)
    foreign = None
    if stranger is not None:
        with subject.timed("inception"):
            foreign = _seen_by_inception(subject, stranger)
    return Evaluation(
        manifest=manifest,
        quick=subject.effort == QUICK,
        seeds=subject.seeds,
        real={
            "training_images": len(subject.train),
            "test_images": len(subject.test),
            "official": subject.train.official and subject.test.official,
            "training_sha256": subject.train.sha256,
            "test_sha256": subject.test.sha256,
            "reference_sha256": REFERENCE_SHA256,
        },
        utility=utility,
        recognition=recognition,
        fidelity=fidelity,
        inception=foreign,
        memorisation=memorisation,
        notes=tuple(_notes(subject, manifest, fidelity, foreign)),
        seconds=subject.seconds,
        pictures=Pictures(samples=_samples(subject), pairs=pairs),
    )


def _verified(folder: Path, progress: StageProgress) -> Manifest:
    """The manifest of a set that was found to be what it claims.

    Raises:
        VerificationError: naming the first thing that is off.
    """
    of, done = load_manifest(folder).count, 0

    def advance(images: int) -> None:
        nonlocal done
        done += images
        progress("verifying", done, of)

    report = verify(folder, progress=advance)
    if report.problems:
        first, others = report.problems[0], len(report.problems) - 1
        more = f" (and {others} more, see synthgen verify)" if others else ""
        raise VerificationError(f"{folder}: not evaluated, for it is not what its manifest claims: {first}{more}")
    return report.manifest


def _seen_by_reference(subject: Subject, reference: "keras.Model") -> tuple[Recognition, Fidelity, Labels]:
    """Labels and features as the reference classifier sees them; and what it answers on the real test images."""
    from synthgen.evaluation.reference import view

    def show(what: str, images: Images) -> "Views":
        return view(reference, images, lambda done, of: subject.progress(f"features of {what}", done, of))

    most = subject.effort.viewed_images
    synthetic = show("the set", subject.images[:most])
    real = show("real training images", subject.real_sample(most).images)
    test = show("real test images", subject.test.images)
    compared = min(len(subject.images), subject.effort.fidelity_images)
    shuffled = real.features[np.random.default_rng(SAMPLING_SEED).permutation(len(real.features))]
    subject.progress("fidelity", 0, 2)
    fidelity = Fidelity(
        statement=FIDELITY_STATEMENT,
        synthetic=compare(shuffled, synthetic.features[:compared]),
        real=compare(shuffled, test.features[:compared]),
    )
    subject.progress("fidelity", 2, 2)
    recognition = Recognition(
        taken_for=tuple(np.bincount(synthetic.labels, minlength=NUM_CLASSES).tolist()),
        synthetic=None if subject.labels is None else Outcome.of(subject.labels[:most], [synthetic.labels]),
        real=Outcome.of(subject.test.labels, [test.labels]),
    )
    return recognition, fidelity, test.labels


def _utility(subject: Subject, labels: Labels, answers_of_reference: Labels) -> tuple[Usefulness, ...]:
    from synthgen.evaluation.classifiers import BATCH, SMALL_CNN, TRAINERS

    effort, most = subject.effort, subject.effort.training_images
    synthetic = Examples(subject.images[:most], labels[:most])
    real = subject.real_sample(len(synthetic.images))
    return tuple(
        train_on_synthetic_test_on_real(
            name,
            synthetic,
            real,
            Examples(subject.test.images, subject.test.labels),
            seeds=subject.seeds,
            epochs=effort.epochs_for(len(synthetic.images), BATCH),
            known_ceiling=answers_of_reference if name == SMALL_CNN and _reference_is_ceiling(subject) else None,
            progress=subject.progress,
        )
        for name in (TRAINERS if effort.classical else [SMALL_CNN])
    )


def _reference_is_ceiling(subject: Subject) -> bool:
    """Trained on all official images by the full schedule with seed 0, the CNN *is* the reference classifier."""
    enough = len(subject.images) >= len(subject.train) == REFERENCE_IMAGES
    return subject.train.official and enough and subject.effort == FULL


def _load_inception(weights: Path | None) -> "keras.Model | None":
    if weights is None:
        return None
    from synthgen.evaluation.inception import load_inception

    return load_inception(weights)


def _seen_by_inception(subject: Subject, inception: "keras.Model") -> Fidelity:
    from synthgen.evaluation.inception import inception_features

    def show(what: str, images: Images) -> npt.NDArray[np.float32]:
        return inception_features(
            inception, images, lambda done, of: subject.progress(f"Inception features of {what}", done, of)
        )

    most = min(len(subject.images), subject.effort.inception_images)
    real = show("real training images", subject.real_sample(subject.effort.inception_images).images)
    return Fidelity(
        statement=INCEPTION_STATEMENT,
        synthetic=compare(real, show("the set", subject.images[:most])),
        real=compare(real, show("real test images", subject.test.images[:most])),
    )


def _samples(subject: Subject) -> dict[str, Images]:
    if subject.labels is None:
        return {"unlabelled": subject.images[: 3 * _SAMPLES_PER_CLASS]}
    rows = {
        name: subject.images[subject.labels == label][:_SAMPLES_PER_CLASS] for label, name in enumerate(CLASS_NAMES)
    }
    return {name: row for name, row in rows.items() if len(row)}


def _notes(subject: Subject, manifest: Manifest, fidelity: Fidelity, inception: Fidelity | None) -> Iterator[str]:
    """What a reader of the numbers must know."""
    if subject.effort == QUICK:
        yield "A quick look: fewer images and epochs than in a full evaluation; do not quote these numbers."
    if len(subject.images) < manifest.count:
        measured = f"{len(subject.images):,} of them, drawn at random, were measured"
        yield f"The set holds {manifest.count:,} images; {measured}."
    if not (subject.train.official and subject.test.official):
        yield "The real images are not the official Fashion-MNIST: these numbers compare with no others."
    if len(subject.train) < REFERENCE_IMAGES and subject.train.official:
        yield "Measured on held-out training images, which the reference classifier has seen: its distances flatter."
    if subject.labels is not None and _reference_is_ceiling(subject):
        yield "The small CNN's ceiling for seed 0 is the shipped reference classifier: the same training, not repeated."
    if subject.labels is None:
        yield "The set bears no labels: nothing can be trained on it, so there is no utility."
    elif missing := [CLASS_NAMES[i] for i, count in enumerate(manifest.class_counts) if not count]:
        yield f"The set holds no {', '.join(missing)}: a classifier trained on it gets all of these wrong."
    if len(subject.images) > len(subject.train):
        yield f"There are only {len(subject.train):,} real images to train the ceilings on."
    if (subject.images == subject.images[0]).all():
        yield "All images are equal: nothing can be learnt from them."
    for name, seen in (("reference", fidelity), ("Inception", inception)):
        if seen is not None:
            for problem in seen.synthetic.problems:
                yield f"In {name} features {problem}."


def _with_figures(usefulness: Usefulness) -> dict[str, Any]:
    """A classifier's outcomes with the figures made of them."""
    document = asdict(usefulness)
    for side in ("synthetic", "real"):
        outcome: Outcome = getattr(usefulness, side)
        document[side] = {"mean": outcome.mean, "spread": outcome.spread, **document[side]}
    return {**document, "ratio": usefulness.ratio}


def _as_figures(fidelity: Fidelity) -> dict[str, Any]:
    return {
        "statement": fidelity.statement,
        **{
            side: {
                "images": comparison.vectors,
                "frechet_distance": comparison.frechet,
                "kernel_distance": comparison.kernel and comparison.kernel._asdict(),
                **(comparison.manifolds._asdict() if comparison.manifolds else {"precision": None, "recall": None}),
                **(comparison.balls._asdict() if comparison.balls else {"density": None, "coverage": None}),
                "problems": list(comparison.problems),
            }
            for side, comparison in (("synthetic", fidelity.synthetic), ("real", fidelity.real))
        },
    }
