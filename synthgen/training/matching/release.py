"""What the private looks have released, as a file that is checked when it is read (``training.matching.looks``)."""

import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from synthgen.errors import PrivacyError
from synthgen.fashion import NUM_CLASSES
from synthgen.files import MALFORMED, publish, sha256_of_json
from synthgen.privacy.accounting import Mechanism
from synthgen.privacy.ledger import Ledger, LedgerRecord
from synthgen.privacy.statement import claim_sha256
from synthgen.training.matching.teacher import Teacher
from synthgen.untrusted.datasets import open_hdf5, own_dataset, own_entry, whole
from synthgen.untrusted.text import parse_json


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
        known: dict[str, Any] = {"run": self.run, "charged": Ledger(self.charged).to_list()}
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
