"""The evaluation of an exported set: utility, fidelity and memorisation, measured against the real images.

>>> import synthgen
>>> evaluation = synthgen.evaluate(Path("dataset"), quick=True)  # doctest: +SKIP
>>> evaluation.utility[0].synthetic.mean, evaluation.utility[0].real.mean  # doctest: +SKIP
"""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from synthgen.environment import made_with
from synthgen.errors import UsageError, VerificationError
from synthgen.evaluation.fidelity import Fidelity
from synthgen.evaluation.material import FULL, QUICK, REFERENCE_SHA256, Material
from synthgen.evaluation.memorisation import ClosestPairs, Memorisation, measure_memorisation
from synthgen.evaluation.neighbours import in_stage
from synthgen.evaluation.notes import notes_of
from synthgen.evaluation.real import real_images_of
from synthgen.evaluation.utility import Recognition, Usefulness, measure_utility
from synthgen.files import write_json
from synthgen.sets.manifest import Manifest, load_manifest
from synthgen.sets.verification import verify
from synthgen.subject import Images
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
# Who guesses the images can confirm the guess by their hash, or by that of a classifier trained on them.
_HASHES = ("training_sha256", "test_sha256", "reference_sha256")
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
        quick: whether it was measured with less effort (``material.QUICK``).
        seeds: how many times each classifier was trained.
        real: what it was measured by: counts and hashes of the real images, hash of the reference classifier.
        utility: one entry for each classifier; empty for an unlabelled set and without test images.
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
            real={key: value for key, value in self.real.items() if key not in self._hashes},
            pictures=replace(self.pictures, pairs=replace(pairs, synthetic=nothing, training=nothing, training_rms=())),
            shareable=True,
        )

    @property
    def _hashes(self) -> tuple[str, ...]:
        """The keys of ``real`` that are left out where it is shared."""
        return _HASHES if self.real["reference_sha256"] != REFERENCE_SHA256 else _HASHES[:2]

    @property
    def has_test_images(self) -> bool:
        """Whether there were real test images."""
        return bool(self.real["test_images"])

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
            "class_names": list(m.subject.class_names),
            "quick": self.quick,
            "seeds": self.seeds,
            "real": self.real,
            "utility": [usefulness.to_dict() for usefulness in self.utility] if self.has_test_images else None,
            "recognition": self.recognition.to_dict(),
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
        official: refuse another Fashion-MNIST than the official one; a set of images of one's own, as its recipe says,
            needs no such word.
        progress: called with (what is being done, steps done, steps in all).

    Raises:
        UsageError: ``seeds`` is below 1, ``holdout`` leaves no training images, or no folder is named for a set of
            images of one's own.
        VerificationError: the set is not what its manifest claims.
        DataError: the real images are missing, of other classes than the set, or (``official``) not the official ones.
        EvaluationError: scikit-learn or the weights of a network are missing or malformed.
    """
    if seeds < 1:
        raise UsageError(f"seeds {seeds}: expected at least 1")
    manifest = _verified(folder, progress)
    data_folder, train, test = real_images_of(manifest, data_folder, holdout=holdout, official=official)
    material = Material.of(folder, manifest, train, test, QUICK if quick else FULL, seeds, progress)
    return _measured(material, data_folder, holdout, inception)


def _measured(material: Material, data_folder: Path, holdout: int, inception_weights: Path | None) -> Evaluation:
    from synthgen.evaluation.classifiers import require_scikit_learn
    from synthgen.evaluation.inception import compare_by_inception, load_inception
    from synthgen.evaluation.own_reference import reference_of
    from synthgen.evaluation.reference import compare_by_reference

    # What is missing or malformed is found out before the long work.
    if material.effort.classical and material.labels is not None:
        require_scikit_learn()
    network = None if inception_weights is None else load_inception(inception_weights)
    reference = reference_of(material, data_folder)
    with material.timed("fidelity"):
        recognition, fidelity, answers = compare_by_reference(material, reference)
    with material.timed("memorisation"):
        memorisation, pairs = measure_memorisation(
            material.images,
            material.train.images,
            None if material.test is None else material.test.images,
            most=material.effort.neighbour_images,
            progress=material.progress,
        )
    with material.timed("utility"):
        utility = measure_utility(material, answers)
    inception = None
    if network is not None:
        with material.timed("inception"):
            inception = compare_by_inception(material, network)
    return Evaluation(
        manifest=material.manifest,
        quick=material.effort == QUICK,
        seeds=material.seeds,
        real=_measure_of(material, reference.sha256),
        utility=utility,
        recognition=recognition,
        fidelity=fidelity,
        inception=inception,
        memorisation=memorisation,
        notes=tuple(notes_of(material, fidelity, inception, holdout, reference.notes)),
        seconds=material.seconds,
        pictures=Pictures(samples=_samples(material), pairs=pairs),
    )


def _measure_of(material: Material, reference_sha256: str | None) -> dict[str, Any]:
    """What the set was measured by, as JSON-ready values."""
    train, test = material.train, material.test
    return {
        "training_images": len(train),
        "test_images": 0 if test is None else len(test),
        "official": train.official and (test is None or test.official),
        "training_sha256": train.sha256,
        "test_sha256": None if test is None else test.sha256,
        "reference_sha256": reference_sha256,
    }


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


def _samples(material: Material) -> dict[str, Images]:
    if material.labels is None:
        return {"unlabelled": material.images[: 3 * _SAMPLES_PER_CLASS]}
    names = material.manifest.subject.class_names
    rows = {name: material.images[material.labels == label][:_SAMPLES_PER_CLASS] for label, name in enumerate(names)}
    return {name: row for name, row in rows.items() if len(row)}
