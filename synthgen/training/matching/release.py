"""The private looks at the training images: a teacher, and the mean embedding of each of its classes.

Everything a generator learns comes from these releases, so that training it costs no more privacy, however long it
takes (post-processing; Dwork and Roth 2014, proposition 2.1).

1. The teacher, a linear classifier on normalised scattering features, by DP-SGD.
2. The sums, over the images that *the teacher* takes for a class, of a fixed public embedding φ with ‖φ‖ ≤ 1, and with
   them their number: one Gaussian mechanism of sensitivity 1 (a private mean embedding, as in DP-MERF, Harder et al.
   2021, arXiv:2002.11603). By the teacher's labels rather than the given ones, because what a classifier downstream
   can learn is then the same at the borders between classes as everywhere else.
3. The same sums of the activations of each student of the generator (``training.matching.student``).

All of them are sums of integers with exactly sampled noise (``privacy.exact``). Its proof asks that what is computed
of an image depends on that image alone. Features and embeddings come from TensorFlow, in batches of one fixed shape in
which each image has its fixed place, whatever the others are: an image that is replaced by an empty record changes
no other's row. The teacher's classes are exact.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from synthgen.errors import PrivacyError
from synthgen.fashion import NUM_CLASSES, Images, Labels
from synthgen.files import MALFORMED, publish, sha256_of_json
from synthgen.index import pieces
from synthgen.privacy.accounting import Mechanism
from synthgen.privacy.exact import Grid, WholeNumbers, expect_countable
from synthgen.privacy.ledger import Ledger, LedgerRecord
from synthgen.privacy.statement import claim_sha256
from synthgen.training.matching.teacher import Teacher, Watch, train_teacher, whole_features
from synthgen.untrusted.datasets import open_hdf5, own_dataset, own_entry, whole
from synthgen.untrusted.text import parse_json
from synthgen.workers import StageProgress

Embed = Callable[[Images], npt.NDArray[np.float32]]

_BATCH = 1_000
_LEAST_COUNT = 100.0  # images of a class: below it the noise is all there is


@dataclass(frozen=True, kw_only=True)
class LookPlan:
    """The private looks as they will be.

    Attributes:
        teacher: its DP-SGD.
        embedding: the Gaussian mechanism over the class sums; its sensitivity is 1.
        learning_rate: of the teacher.
        students: one Gaussian mechanism of sensitivity 1 for each student of the generator.
    """

    teacher: Mechanism
    embedding: Mechanism
    learning_rate: float
    students: tuple[Mechanism, ...] = ()

    @property
    def mechanisms(self) -> tuple[Mechanism, ...]:
        """All of them, in the order in which they are run."""
        return self.teacher, self.embedding, *self.students


@dataclass(frozen=True)
class StudentRelease:
    """What was released of one student's features of the images.

    Attributes:
        weights: of the student, which never saw a real image.
        means: float32, shape (10, D): the mean of its embedding over each of the teacher's classes, noise included.
    """

    weights: tuple[npt.NDArray[np.float32], ...]
    means: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Release:
    """What is known of the training images.

    Attributes:
        teacher: the private classifier.
        means: float32, shape (10, D): the mean embedding of each of its classes, noise included.
        counts: float32, shape (10,): how many images it takes for each class, noise included.
        charged: the mechanisms that this release is the outcome of.
        students: in the order of their looks.
        run: the identity of the run that looked; None for a run of 0.1.0 or 0.2.0.
        exact_noise: whether every look was on integers (``privacy.exact``); those before 0.3.0 were not.
    """

    teacher: Teacher
    means: npt.NDArray[np.float32]
    counts: npt.NDArray[np.float32]
    charged: tuple[Mechanism, ...]
    students: tuple[StudentRelease, ...] = ()
    run: str | None = None
    exact_noise: bool = False

    def save(self, path: Path, name: Callable[[str], None] = lambda sha256: None) -> None:
        """Publish the release as an HDF5 file, whole or not at all.

        Args:
            path: its final name.
            name: called with its SHA-256 when it has been written, before it gets its final name.
        """
        with publish(path) as partial:
            with h5py.File(partial, "w") as file:
                for array_name, array in self._named_arrays():
                    file[array_name] = array
                file.attrs["charged"] = json.dumps(Ledger(self.charged).to_list())
                if self.run is not None:
                    file.attrs["run"] = self.run
                if self.exact_noise:
                    file.attrs["exact_noise"] = "yes"
            name(self.sha256)

    @functools.cached_property
    def sha256(self) -> str:
        """Over names and content of all that it holds, not over the bytes of its file."""
        known = {"run": self.run, "charged": Ledger(self.charged).to_list()}
        if self.exact_noise:
            known["exact_noise"] = True
        digest = hashlib.sha256(sha256_of_json(known).encode())
        for name, array in self._named_arrays():
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def expect_outcome_of(self, record: LedgerRecord, path: Path) -> None:
        """Raise PrivacyError unless the ledger names this release, read from ``path``, and holds its mechanisms.

        The ledger may hold more: a student's look that was cut short is charged and has released nothing.
        """
        charges = iter(record.ledger.mechanisms)
        found = all(mechanism in charges for mechanism in self.charged)
        found = found and self.charged[:2] == record.ledger.mechanisms[:2]
        if not found or len(self.charged) != 2 + len(self.students) or self.run != record.run:
            raise PrivacyError(f"{path}: not the outcome of the ledger beside it; start anew in another --out")
        if self.sha256 not in named_releases(record):
            raise PrivacyError(
                f"{path}: the ledger beside it names no release {self.sha256[:12]}…: it is of another run, or was "
                "altered; start anew in another --out"
            )

    @classmethod
    def load(cls, path: Path) -> "Release":
        """Read a release back.

        Raises:
            PrivacyError: it is missing, or not what ``save`` writes.
        """
        try:
            with open_hdf5(path) as file:
                weights, bias, means, counts = (_array(file, name) for name in _NAMES)
                charged = Ledger.from_list(parse_json(_text(file, "charged"))).mechanisms
                students = tuple(_students(file))
                run = _text(file, "run").decode() if "run" in file.attrs else None
                exact = "exact_noise" in file.attrs and _text(file, "exact_noise") == b"yes"
            release = cls(Teacher(weights, bias), means, counts, charged, students, run, exact)
            release._expect_shapes()
        except MALFORMED as error:
            raise PrivacyError(f"{path}: no readable release: {error}; train anew in another folder") from error
        return release

    def _expect_shapes(self) -> None:
        from synthgen.training.matching.features import EMBEDDING_SIZE, SCATTERING_SIZE
        from synthgen.training.matching.student import STUDENT_EMBEDDING_SIZE, Student

        expected = {
            "weights": (self.teacher.weights, (SCATTERING_SIZE, NUM_CLASSES)),
            "bias": (self.teacher.bias, (NUM_CLASSES,)),
            "means": (self.means, (NUM_CLASSES, EMBEDDING_SIZE)),
            "counts": (self.counts, (NUM_CLASSES,)),
        }
        for i, student in enumerate(self.students):
            expected[f"means of student {i + 1}"] = student.means, (NUM_CLASSES, STUDENT_EMBEDDING_SIZE)
            Student(student.weights)  # raises ValueError for weights of other shapes
        for name, (array, shape) in expected.items():
            if array.shape != shape or not np.isfinite(array).all():
                raise ValueError(f"{name} of shape {array.shape}: expected finite numbers of shape {shape}")

    def _named_arrays(self) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
        yield from zip(_NAMES, (self.teacher.weights, self.teacher.bias, self.means, self.counts), strict=True)
        for i, student in enumerate(self.students):
            yield f"students/{i}/means", student.means
            for j, array in enumerate(student.weights):
                yield f"students/{i}/weights/{j:03d}", array


RELEASE_NAME = "release.h5"
_NAMES = ("weights", "bias", "means", "counts")
_MAX_ARRAY_BYTES = 16 << 20  # 16 MiB; the largest has a fiftieth of it
_MAX_STUDENTS, _MAX_STUDENT_ARRAYS = 8, 100


# SHA-256 of a release → claim_sha256 of its ledger, for the shipped runs that are older than the names in a ledger.
_RELEASES_BEFORE_NAMES = {
    # private
    "24e32b376cf7cf69074315a5e27addf76d54b517dc82be0564275e208c489e01": (
        "b9b6cb97a1afd132c6fbe08d5cc457a0270f6587d7281a15e5e50c627f9a0aff"
    ),
}


def named_releases(record: LedgerRecord) -> tuple[str, ...]:
    """SHA-256 of every release that a run has published, in order."""
    if record.run is not None:
        return record.releases
    claim = claim_sha256(record.ledger, record.budget.delta)
    return tuple(release for release, known in _RELEASES_BEFORE_NAMES.items() if known == claim)


def _array(group: h5py.Group, name: str) -> npt.NDArray[np.float32]:
    dataset = own_dataset(group, name)
    if dataset.nbytes > _MAX_ARRAY_BYTES or dataset.dtype.kind != "f":
        raise ValueError(f"{name!r:.80} is {dataset.dtype} of shape {dataset.shape}")
    return np.asarray(whole(dataset), np.float32)


def _students(file: h5py.File) -> Iterator[StudentRelease]:
    """What ``save`` wrote of each student."""
    if "students" not in list(file):
        return
    groups = own_entry(file, "students")
    if len(groups) > _MAX_STUDENTS:
        raise ValueError(f"{len(groups)} students; expected at most {_MAX_STUDENTS}")
    for i in range(len(groups)):
        group = own_entry(groups, str(i))
        weights = own_entry(group, "weights")
        if len(weights) > _MAX_STUDENT_ARRAYS:
            raise ValueError(f"student {i} has {len(weights)} arrays; expected at most {_MAX_STUDENT_ARRAYS}")
        yield StudentRelease(tuple(_array(weights, name) for name in sorted(weights)), _array(group, "means"))


def _text(file: h5py.File, name: str) -> bytes:
    """A text attribute."""
    if file.attrs.get_id(name).shape != ():
        raise ValueError(f"attribute {name!r} is no text")
    return str(file.attrs[name]).encode()


def look_privately(
    images: Images,
    labels: Labels,
    plan: LookPlan,
    charge: Callable[[Mechanism], None],
    progress: StageProgress = lambda stage, done, of: None,
    watch: Watch = lambda step, parameters, gradient: None,
) -> Release:
    """The first look: train the teacher and release the mean embeddings of its classes.

    Args:
        images: uint8, shape (N, 28, 28).
        labels: uint8, shape (N,).
        plan: both mechanisms.
        charge: called with each mechanism before it runs; an exception from it keeps the mechanism from running.
        progress: called with (stage, done, of).
        watch: called with the teacher's noisy steps; see ``train_teacher``.
    """
    from synthgen.training.matching.features import SCATTERING_SIZE, embedding_rows, scattering_rows

    features = np.empty((len(images), SCATTERING_SIZE), np.int16)
    for rows in pieces(len(images), _BATCH):
        features[rows] = whole_features(_apart(scattering_rows, images[rows]))
        progress("scattering features", rows.stop, len(images))
    charge(plan.teacher)
    teacher = train_teacher(
        features,
        labels,
        plan.teacher,
        learning_rate=plan.learning_rate,
        progress=lambda done, of: progress("private teacher", done, of),
        watch=watch,
    )
    taught = teacher.predict_whole(features)
    del features
    charge(plan.embedding)
    sums = _noisy_sums(
        embedding_rows, images, taught, plan.embedding, lambda done, of: progress("private embedding", done, of)
    )
    return _released(teacher, sums, (plan.teacher, plan.embedding))


def look_as_student(
    embed: Embed,
    weights: tuple[npt.NDArray[np.float32], ...],
    images: Images,
    release: Release,
    mechanism: Mechanism,
    progress: StageProgress = lambda stage, done, of: None,
) -> Release:
    """A further look, through a student's features; its whole price is ``mechanism``, to be charged before the call.

    Args:
        embed: uint8 images (N, 28, 28) → rows (N, D) of norm at most 1; longer ones are clipped.
        weights: the student's, to be released beside the means.
        images: uint8, shape (N, 28, 28).
        release: of the looks before.
        mechanism: the noise; its sensitivity is 1.
        progress: called with (stage, done, of).

    Returns:
        ``release`` with one more student.
    """
    from synthgen.training.matching.features import scattering_rows

    batches = [images[rows] for rows in pieces(len(images), _BATCH)]
    taught = np.concatenate([release.teacher.predict(_apart(scattering_rows, batch)) for batch in batches])
    sums = _noisy_sums(
        embed, images, taught, mechanism, lambda done, of: progress("private look of a student", done, of)
    )
    means = (sums / release.counts[:, None]).astype(np.float32)
    students = (*release.students, StudentRelease(weights, means))
    return replace(release, charged=(*release.charged, mechanism), students=students)


def embedding_sums(
    embed: Embed, images: Images, labels: Labels, progress: Callable[[int, int], None] = lambda done, of: None
) -> npt.NDArray[np.float64]:
    """The sums of an embedding over the images of each label, with no noise: float64, shape (10, D).

    One image changes one row by at most 1 in norm.
    """
    grid = Grid.of(1.0, 1.0)
    return whole_sums(embed, images, labels, grid, progress) * grid.step


def whole_sums(
    embed: Embed,
    images: Images,
    labels: Labels,
    grid: Grid,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> WholeNumbers:
    """The exact sums of an embedding over the images of each label, in whole steps of ``grid``: shape (10, D).

    An image that is replaced by an empty record takes its own clipped row of integers out of one sum, and that is all.
    """
    expect_countable(len(images))
    sums = np.zeros((NUM_CLASSES, embed(images[:1]).shape[1]))
    for rows in pieces(len(images), _BATCH):
        sums += np.eye(NUM_CLASSES)[labels[rows]].T @ grid.rows(_apart(embed, images[rows]))
        progress(rows.stop, len(images))
    return sums


def _noisy_sums(
    embed: Embed, images: Images, labels: Labels, mechanism: Mechanism, progress: Callable[[int, int], None]
) -> npt.NDArray[np.float64]:
    """The exact Gaussian mechanism over ``whole_sums``."""
    grid = Grid.of(mechanism.noise_multiplier, mechanism.l2_sensitivity)
    return grid.noisy(whole_sums(embed, images, labels, grid, progress))


def _apart(embed: Embed, images: Images) -> npt.NDArray[np.float32]:
    """Rows of a batch of fixed size, so that no image's row depends on how many others there are."""
    filled = np.zeros((_BATCH, *images.shape[1:]), np.uint8)
    filled[: len(images)] = images
    return embed(filled)[: len(images)]


def _released(teacher: Teacher, sums: npt.NDArray[np.float64], charged: tuple[Mechanism, ...]) -> Release:
    """Noisy sums as means and counts; φ's first coordinate is constant and counts the images."""
    from synthgen.training.matching.features import COUNTING_WEIGHT

    counts = np.maximum(sums[:, 0] / COUNTING_WEIGHT, _LEAST_COUNT)
    means = (sums / counts[:, None]).astype(np.float32)
    return Release(teacher, means, counts.astype(np.float32), charged, exact_noise=True)
