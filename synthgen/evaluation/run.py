"""The evaluation of an exported set: utility, fidelity and memorisation, measured against the real images.

>>> import synthgen
>>> evaluation = synthgen.evaluate(Path("dataset"), quick=True)  # doctest: +SKIP
>>> evaluation.utility[0].synthetic.mean, evaluation.utility[0].real.mean  # doctest: +SKIP
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from synthgen.environment import made_with
from synthgen.errors import UsageError, VerificationError
from synthgen.evaluation.fidelity import Fidelity
from synthgen.evaluation.memorisation import ClosestPairs, Memorisation, measure_memorisation
from synthgen.evaluation.neighbours import in_stage
from synthgen.evaluation.subject import FULL, QUICK, REFERENCE_IMAGES, Subject
from synthgen.evaluation.utility import Recognition, Usefulness, measure_utility
from synthgen.fashion import CLASS_NAMES, Images
from synthgen.files import write_json
from synthgen.real_images import RealImages, find_data, load_real_images
from synthgen.sets.manifest import Manifest, load_manifest
from synthgen.sets.verification import verify
from synthgen.workers import StageProgress

SCHEMA_VERSION = 1
PRIVATE_NOTICE = (
    "As private as the real images: {holds}. The figures, too, are computed from the real images without noise. "
    "Give it to nobody who may not see these; --shareable leaves the images and hashes out."
)
SHAREABLE_NOTICE = (
    "Without real images, and without hashes of them. The figures are computed from the real images without noise, "
    "and no privacy statement covers them: to publish them is a release of its own."
)
_HASHES = ("training_sha256", "test_sha256")  # who guesses the images can confirm the guess by their hash
_SAMPLES_PER_CLASS = 12


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
        quick: whether it was measured with less effort (``subject.QUICK``).
        seeds: how many times each classifier was trained.
        real: what it was measured by: counts and hashes of the real images, hash of the reference classifier.
        utility: one entry for each classifier; empty for an unlabelled set.
        recognition: train on real, test on synthetic.
        fidelity: distances in the reference classifier's features.
        inception: distances in Inception's features; None without its weights.
        memorisation: nearest neighbours by pixels.
        notes: what a reader of the numbers must know, one line each.
        seconds: what each part took.
        pictures: for the report; not part of ``to_dict``.
        shareable: whether real images, their hashes and what points at single ones are left out.
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
    shareable: bool = False

    def notice(self, holds: str) -> str:
        """Who may see a document that ``holds`` something of the real images, unless this is ``shareable``."""
        return SHAREABLE_NOTICE if self.shareable else PRIVATE_NOTICE.format(holds=holds)

    def to_share(self) -> "Evaluation":
        """The same without real images, hashes of them, and the images of the set that are most like single ones."""
        pairs = self.pictures.pairs
        nothing = pairs.synthetic[:0]
        return replace(
            self,
            real={key: value for key, value in self.real.items() if key not in _HASHES},
            pictures=replace(self.pictures, pairs=replace(pairs, synthetic=nothing, training=nothing, training_rms=())),
            shareable=True,
        )

    def to_dict(self) -> dict[str, Any]:
        """The numbers as JSON-ready values."""
        m = self.manifest
        return {
            "notice": self.notice("it holds the exact SHA-256 of the training images"),
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
            "utility": [usefulness.to_dict() for usefulness in self.utility],
            "recognition": asdict(self.recognition),
            "fidelity": self.fidelity.to_dict(),
            "inception": None if self.inception is None else self.inception.to_dict(),
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
        holdout: measure on this many of the last training images instead of the test images, to choose between
            recipes that were trained with the same ``data.holdout``; 0 for the test images.
        quick: train the CNN alone, with fewer epochs and images, and measure samples.
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
    subject = Subject.of(folder, manifest, train, test, QUICK if quick else FULL, seeds, progress)
    return _measured(subject, inception)


def _held_out(real: RealImages, count: int) -> tuple[RealImages, RealImages]:
    """All but the last ``count`` images, and those."""
    if not 0 < count < len(real):
        raise UsageError(f"holdout {count}: expected 1 to {len(real) - 1:,}, for there are {len(real):,} images")
    cut = len(real) - count
    return (
        RealImages.of(real.images[:cut], real.labels[:cut], subject=real.subject, official=real.official),
        RealImages.of(real.images[cut:], real.labels[cut:], subject=real.subject, official=real.official),
    )


def _measured(subject: Subject, inception_weights: Path | None) -> Evaluation:
    from synthgen.evaluation.classifiers import require_scikit_learn
    from synthgen.evaluation.inception import compare_by_inception, load_inception
    from synthgen.evaluation.reference import REFERENCE_SHA256, compare_by_reference, load_reference

    # What is missing or malformed is found out before the long work.
    if subject.effort.classical and subject.labels is not None:
        require_scikit_learn()
    network = None if inception_weights is None else load_inception(inception_weights)
    with subject.timed("fidelity"):
        recognition, fidelity, answers = compare_by_reference(subject, load_reference())
    with subject.timed("memorisation"):
        memorisation, pairs = measure_memorisation(
            subject.images,
            subject.train.images,
            subject.test.images,
            most=subject.effort.neighbour_images,
            progress=subject.progress,
        )
    with subject.timed("utility"):
        utility = () if subject.labels is None else measure_utility(subject, subject.labels, answers)
    inception = None
    if network is not None:
        with subject.timed("inception"):
            inception = compare_by_inception(subject, network)
    return Evaluation(
        manifest=subject.manifest,
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
        inception=inception,
        memorisation=memorisation,
        notes=tuple(_notes(subject, fidelity, inception)),
        seconds=subject.seconds,
        pictures=Pictures(samples=_samples(subject), pairs=pairs),
    )


def _verified(folder: Path, progress: StageProgress) -> Manifest:
    """The manifest of a set whose files are what it claims.

    Raises:
        VerificationError: they are not; the message names the first problem.
    """
    count = load_manifest(folder).count
    report = verify(folder, progress=in_stage(progress, "verifying", count))
    if report.problems:
        first, others = report.problems[0], len(report.problems) - 1
        more = f" (and {others} more, see synthgen verify)" if others else ""
        raise VerificationError(f"{folder}: not evaluated, for it is not what its manifest claims: {first}{more}")
    return report.manifest


def _samples(subject: Subject) -> dict[str, Images]:
    if subject.labels is None:
        return {"unlabelled": subject.images[: 3 * _SAMPLES_PER_CLASS]}
    rows = {
        name: subject.images[subject.labels == label][:_SAMPLES_PER_CLASS] for label, name in enumerate(CLASS_NAMES)
    }
    return {name: row for name, row in rows.items() if len(row)}


def _notes(subject: Subject, fidelity: Fidelity, inception: Fidelity | None) -> Iterator[str]:
    """What a reader of the numbers must know, one line each."""
    manifest = subject.manifest
    if subject.effort == QUICK:
        yield "A quick evaluation: fewer images and epochs than in a full one; do not quote these numbers."
    if len(subject.images) < manifest.count:
        measured = f"{len(subject.images):,} of them, drawn at random, were measured"
        yield f"The set holds {manifest.count:,} images; {measured}."
    if not (subject.train.official and subject.test.official):
        yield "The real images are not the official Fashion-MNIST: do not compare these numbers with others."
    if len(subject.train) < REFERENCE_IMAGES and subject.train.official:
        yield "Measured on held-out training images, which the reference classifier has seen: its distances flatter."
    if subject.labels is not None and subject.reference_is_ceiling:
        yield "The small CNN's ceiling for seed 0 is the shipped reference classifier: the same training, not repeated."
    if subject.labels is None:
        yield "The set has no labels: no classifier can be trained on it, so there is no utility."
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
