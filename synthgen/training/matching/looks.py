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

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from synthgen.index import pieces
from synthgen.privacy.accounting import Mechanism
from synthgen.privacy.exact import Grid, WholeNumbers, expect_countable
from synthgen.subject import Images, Labels
from synthgen.training.matching.release import Release, StudentRelease
from synthgen.training.matching.teacher import Teacher, Watch, train_teacher, whole_features
from synthgen.workers import StageProgress

Embed = Callable[[Images], npt.NDArray[np.float32]]

BATCH = 1_000  # images whose rows are computed at a time
# Below as many images of a class the noise is all there is: standard deviations of a count, and images.
_LEAST_DEVIATIONS, _LEAST_IMAGES = 3.0, 10.0


@dataclass(frozen=True, kw_only=True)
class LookPlan:
    """The private looks as they will be.

    Attributes:
        teacher: its DP-SGD.
        embedding: the Gaussian mechanism over the class sums; its sensitivity is 1.
        learning_rate: of the teacher.
        classes: how many there are.
        students: one Gaussian mechanism of sensitivity 1 for each student of the generator.
    """

    teacher: Mechanism
    embedding: Mechanism
    learning_rate: float
    classes: int
    students: tuple[Mechanism, ...] = ()

    @property
    def mechanisms(self) -> tuple[Mechanism, ...]:
        """All of them, in the order in which they are run."""
        return self.teacher, self.embedding, *self.students


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
    from synthgen.training.matching.features import embedding_rows

    features = teacher_features(images, lambda done, of: progress("scattering features", done, of))
    charge(plan.teacher)
    teacher = train_teacher(
        features,
        labels,
        plan.teacher,
        classes=plan.classes,
        learning_rate=plan.learning_rate,
        progress=lambda done, of: progress("private teacher", done, of),
        watch=watch,
    )
    taught = teacher.predict_whole(features)
    del features
    charge(plan.embedding)
    sums = noisy_sums(
        embedding_rows,
        images,
        taught,
        plan.classes,
        plan.embedding,
        lambda done, of: progress("private embedding", done, of),
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

    batches = [images[rows] for rows in pieces(len(images), BATCH)]
    taught = np.concatenate([release.teacher.predict(_apart(scattering_rows, batch)) for batch in batches])
    sums = noisy_sums(
        embed,
        images,
        taught,
        len(release.counts),
        mechanism,
        lambda done, of: progress("private look of a student", done, of),
    )
    students = (*release.students, StudentRelease(weights, (sums / release.counts[:, None]).astype(np.float32)))
    return replace(release, charged=(*release.charged, mechanism), students=students)


def teacher_features(
    images: Images, progress: Callable[[int, int], None] = lambda done, of: None
) -> npt.NDArray[np.int16]:
    """What the teacher sees of images, uint8 (N, 28, 28): shape (N, 3969), by ``whole_features``."""
    from synthgen.training.matching.features import SCATTERING_SIZE, scattering_rows

    features = np.empty((len(images), SCATTERING_SIZE), np.int16)
    for rows in pieces(len(images), BATCH):
        features[rows] = whole_features(_apart(scattering_rows, images[rows]))
        progress(rows.stop, len(images))
    return features


def embedding_sums(
    embed: Embed,
    images: Images,
    labels: Labels,
    classes: int,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> npt.NDArray[np.float64]:
    """The sums of an embedding over the images of each label, with no noise: float64, shape (K, D).

    One image changes one row by at most 1 in norm.
    """
    grid = Grid.of(1.0, 1.0)
    return whole_sums(embed, images, labels, classes, grid, progress) * grid.step


def whole_sums(
    embed: Embed,
    images: Images,
    labels: Labels,
    classes: int,
    grid: Grid,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> WholeNumbers:
    """The exact sums of an embedding over the images of each label, in whole steps of ``grid``: shape (K, D).

    An image that is replaced by an empty record takes its own clipped row of integers out of one sum, and that is all.
    """
    expect_countable(len(images))
    sums = np.zeros((classes, embed(images[:1]).shape[1]))
    for rows in pieces(len(images), BATCH):
        sums += np.eye(classes)[labels[rows]].T @ grid.rows(_apart(embed, images[rows]))
        progress(rows.stop, len(images))
    return sums


def noisy_sums(
    embed: Embed,
    images: Images,
    labels: Labels,
    classes: int,
    mechanism: Mechanism,
    progress: Callable[[int, int], None],
) -> npt.NDArray[np.float64]:
    """The exact Gaussian mechanism over ``whole_sums``, in the unit of the rows: float64, shape (K, D)."""
    grid = Grid.of(mechanism.noise_multiplier, mechanism.l2_sensitivity)
    return grid.noisy(whole_sums(embed, images, labels, classes, grid, progress))


def _apart(embed: Embed, images: Images) -> npt.NDArray[np.float32]:
    """Rows of a batch of fixed size, so that no image's row depends on how many others there are."""
    filled = np.zeros((BATCH, *images.shape[1:]), np.uint8)
    filled[: len(images)] = images
    return embed(filled)[: len(images)]


def _released(teacher: Teacher, sums: npt.NDArray[np.float64], charged: tuple[Mechanism, ...]) -> Release:
    """Noisy sums as means and counts; φ's first coordinate is constant and counts the images."""
    from synthgen.training.matching.features import COUNTING_WEIGHT

    deviation = charged[-1].noise_multiplier / COUNTING_WEIGHT
    counts = np.maximum(sums[:, 0] / COUNTING_WEIGHT, max(_LEAST_IMAGES, _LEAST_DEVIATIONS * deviation))
    means = (sums / counts[:, None]).astype(np.float32)
    return Release(teacher, means, counts.astype(np.float32), charged, exact_noise=True)
