"""The one private look at the training images: a teacher, and what the average garment of each class looks like to it.

Everything a generator later learns comes from this release, so that training it costs no more privacy, however long
it takes and however often it is begun anew (post-processing; Dwork and Roth 2014, proposition 2.1).

1. The teacher, a linear classifier on normalised scattering features, by DP-SGD.
2. The sums, over the images that *the teacher* takes for a class, of a fixed public embedding φ with ‖φ‖ ≤ 1, and with
   them their number: one Gaussian mechanism of sensitivity 1 (a private mean embedding, as in DP-MERF, Harder et al.
   2021, arXiv:2002.11603). By the teacher's labels rather than the given ones, because what a classifier downstream
   can learn is then the same at the borders between classes as everywhere else.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from synthgen.errors import PrivacyError
from synthgen.fashion import NUM_CLASSES
from synthgen.files import publish
from synthgen.privacy.ledger import Mechanism
from synthgen.privacy.mechanisms import clip_rows, gaussian_noise
from synthgen.privacy.teacher import Teacher, train_teacher

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.uint8]
Progress = Callable[[str, int, int], None]  # (what is being done, done, of)

_BATCH = 1_000
_LEAST_COUNT = 100.0  # images of a class: below it the noise is all there is


@dataclass(frozen=True, kw_only=True)
class LookPlan:
    """The private look as it will be.

    Attributes:
        teacher: its DP-SGD.
        embedding: the Gaussian mechanism over the class sums; its sensitivity is 1.
        learning_rate: of the teacher.
    """

    teacher: Mechanism
    embedding: Mechanism
    learning_rate: float


@dataclass(frozen=True)
class Release:
    """What is known of the training images from then on.

    Attributes:
        teacher: the private classifier.
        means: float32, shape (10, D): the mean embedding of each of its classes, noise included.
        counts: float32, shape (10,): how many images it takes for each class, noise included.
    """

    teacher: Teacher
    means: npt.NDArray[np.float32]
    counts: npt.NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Publish the release as an HDF5 file, whole or not at all."""
        with publish(path) as partial, h5py.File(partial, "w") as file:
            for name, array in self._arrays().items():
                file[name] = array

    @classmethod
    def load(cls, path: Path) -> "Release":
        """Read a release back.

        Raises:
            PrivacyError: it is missing, or not what ``save`` writes.
        """
        try:
            with h5py.File(path, "r") as file:
                arrays = {name: np.asarray(file[name][()], np.float32) for name in _NAMES}
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise PrivacyError(f"{path}: no readable release: {error}; train anew in another folder") from error
        release = cls(Teacher(arrays["weights"], arrays["bias"]), arrays["means"], arrays["counts"])
        if not all(np.isfinite(array).all() for array in arrays.values()) or len(release.means) != NUM_CLASSES:
            raise PrivacyError(f"{path}: not a release of this version; train anew in another folder")
        return release

    def _arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        values = self.teacher.weights, self.teacher.bias, self.means, self.counts
        return dict(zip(_NAMES, values, strict=True))


_NAMES = ("weights", "bias", "means", "counts")


def look_privately(
    images: Images,
    labels: Labels,
    plan: LookPlan,
    charge: Callable[[Mechanism], None],
    progress: Progress = lambda stage, done, of: None,
) -> Release:
    """Look at the training images, once, and release what was seen.

    Args:
        images: uint8, shape (N, 28, 28).
        labels: uint8, shape (N,).
        plan: both mechanisms.
        charge: called with each mechanism before it runs; an exception from it keeps the mechanism from running.
        progress: called with (stage, done, of).
    """
    from synthgen.features import SCATTERING_SIZE, scattering_rows

    features = np.empty((len(images), SCATTERING_SIZE), np.float32)
    for rows in _batches(len(images)):
        features[rows] = scattering_rows(images[rows])
        progress("scattering features", rows.stop, len(images))
    charge(plan.teacher)
    teacher = train_teacher(
        features,
        labels,
        plan.teacher,
        learning_rate=plan.learning_rate,
        progress=lambda done, of: progress("private teacher", done, of),
    )
    taught = teacher.predict(features)
    del features
    charge(plan.embedding)
    sums = embedding_sums(images, taught, lambda done, of: progress("private embedding", done, of))
    sums += gaussian_noise(sums.shape, plan.embedding.noise_multiplier * plan.embedding.l2_sensitivity)
    return _released(teacher, sums)


def embedding_sums(
    images: Images, labels: Labels, progress: Callable[[int, int], None] = lambda done, of: None
) -> npt.NDArray[np.float64]:
    """The sums of φ over the images of each label, with no noise: float64, shape (10, D).

    One image more or less changes one row by at most 1 in norm.
    """
    from synthgen.features import EMBEDDING_SIZE, embedding_rows

    sums = np.zeros((NUM_CLASSES, EMBEDDING_SIZE))
    for rows in _batches(len(images)):
        embedded = clip_rows(embedding_rows(images[rows]), 1.0)
        sums += np.eye(NUM_CLASSES)[labels[rows]].T @ embedded
        progress(rows.stop, len(images))
    return sums


def _released(teacher: Teacher, sums: npt.NDArray[np.float64]) -> Release:
    """Noisy sums as means and counts; φ's first coordinate is constant and counts the images."""
    from synthgen.features import COUNTING_WEIGHT

    counts = np.maximum(sums[:, 0] / COUNTING_WEIGHT, _LEAST_COUNT)
    return Release(teacher, (sums / counts[:, None]).astype(np.float32), counts.astype(np.float32))


def _batches(count: int) -> list[slice]:
    return [slice(first, min(first + _BATCH, count)) for first in range(0, count, _BATCH)]
