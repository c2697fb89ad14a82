"""Each look at private data as a whole: its noise has the variance that is priced, and neighbours move one row.

What the parts do is tested beside them (``Grid``, ``rounded_normal``, per-example gradients); here it is what a look
releases, from images to noisy sums.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import stats
from support import DATA, SAMPLE

from synthgen.model.recipe import load_recipe
from synthgen.privacy.accounting import Mechanism
from synthgen.privacy.exact import Grid
from synthgen.real_images import load_real_images
from synthgen.training.dpgan_game import PrivateGame
from synthgen.training.matching import looks
from synthgen.training.matching.features import embedding_rows, scattering_rows
from synthgen.training.matching.looks import LookPlan, look_as_student, look_privately, whole_sums
from synthgen.training.matching.release import Release
from synthgen.training.matching.student import Student
from synthgen.training.matching.teacher import Teacher, clipped_gradient_sum, whole_features

CHANCE = 1e-7  # with which a right mechanism fails a statistical test here
Sums = list[np.ndarray]


@dataclass(frozen=True)
class Looks:
    """A data set, and everything that looks at it; each look takes images and labels."""

    images: np.ndarray
    labels: np.ndarray
    plan: LookPlan
    third: Mechanism
    release: Release
    student: Student
    game: PrivateGame

    def first(self, images: np.ndarray, labels: np.ndarray) -> tuple[Release, np.ndarray]:
        """The release, and the teacher's only step."""
        steps: Sums = []
        release = look_privately(
            images, labels, self.plan, lambda mechanism: None, watch=lambda step, at, gradient: steps.append(gradient)
        )
        (step,) = steps
        return release, step

    def as_student(self, images: np.ndarray, labels: np.ndarray) -> Release:
        weights = tuple(self.student.weights)
        return look_as_student(self.student.embed_pixels(), weights, images, self.release, self.third)

    def discriminator(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The gradient by which the discriminator's weights are moved; they stay as they are."""
        seen: Sums = []
        apply, self.game._apply_graph = self.game._apply_graph, lambda gradient: seen.append(gradient.numpy())
        self.game.discriminator_step(images, labels, 0)
        self.game._apply_graph = apply
        return seen[0].astype(np.float64)


@pytest.fixture(scope="module")
def looked() -> Looks:
    real = load_real_images("train", DATA, official=False)
    one_step = Mechanism(name="teacher", releases="g", noise_multiplier=1.5, l2_sensitivity=0.8)
    embedding = Mechanism(name="embedding", releases="s", noise_multiplier=1.2, l2_sensitivity=1.0)
    centres = np.stack([scattering_rows(real.images[real.labels == label]).mean(axis=0) for label in range(10)])
    teacher = Teacher(np.ascontiguousarray(centres.T), -np.square(centres).sum(axis=1) / 2)
    counts = np.full(10, 100, np.float32)
    recipe = load_recipe("dpgan", [*SAMPLE, "discriminator.filters=[6, 8]", "training.batch_size=100"])
    return Looks(
        images=real.images,
        labels=real.labels,
        plan=LookPlan(teacher=one_step, embedding=embedding, learning_rate=1.0, classes=10),
        third=replace(embedding, name="student 1", noise_multiplier=2.5),
        release=Release(teacher, np.zeros((10, 7558), np.float32), counts, (), exact_noise=True),
        student=Student(10),
        game=PrivateGame(recipe, 0, 3.0),
    )


def chances(noise: np.ndarray, deviation: float) -> tuple[float, float]:
    """How likely so extreme a variance is (χ², both sides), and so extreme a distribution (Kolmogorov and Smirnov)."""
    unit = noise.ravel() / deviation
    below = stats.chi2.cdf(np.square(unit).sum(), unit.size)
    return 2 * min(below, 1 - below), stats.kstest(unit, "norm").pvalue


def expect_noise(noise: np.ndarray, mechanism: Mechanism) -> None:
    """Normal, with the deviation that is priced; and a factor of two in the variance would not have passed."""
    deviation = mechanism.noise_multiplier * mechanism.l2_sensitivity
    assert noise.size >= 10_000
    assert min(chances(noise, deviation * (1 + 2.0**-16))) > CHANCE  # the grid's is larger by that much
    for factor in (np.sqrt(2), 1 / np.sqrt(2)):
        assert chances(noise, factor * deviation)[0] < CHANCE


def test_the_first_look_has_the_noise_that_is_priced(looked: Looks):
    release, step = looked.first(looked.images, looked.labels)
    features = whole_features(scattering_rows(looked.images))
    grid = Grid.of(1.5, 0.8)
    everyone = np.arange(len(looked.images))
    exact = clipped_gradient_sum(features, looked.labels, everyone, np.zeros((3970, 10)), grid) * grid.step
    expect_noise(step - exact, looked.plan.teacher)
    grid = Grid.of(1.2, 1.0)
    exact = whole_sums(embedding_rows, looked.images, release.teacher.predict(scattering_rows(looked.images)), 10, grid)
    expect_noise(release.means.astype(np.float64) * release.counts[:, None] - exact * grid.step, looked.plan.embedding)


def test_a_students_look_has_the_noise_that_is_priced(looked: Looks):
    (seen,) = looked.as_student(looked.images, looked.labels).students
    grid = Grid.of(2.5, 1.0)
    taught = looked.release.teacher.predict(scattering_rows(looked.images))
    exact = whole_sums(looked.student.embed_pixels(), looked.images, taught, 10, grid) * grid.step
    expect_noise(seen.means.astype(np.float64) * looked.release.counts[:, None] - exact, looked.third)


def test_a_step_of_the_discriminator_has_the_noise_that_is_priced(looked: Looks):
    game, section = looked.game, looked.game._training
    clip = section.l2_clip_norm
    priced = Mechanism(name="discriminator", releases="g", noise_multiplier=3.0, l2_sensitivity=clip)
    grid = Grid.of(3.0, clip)
    forged = game._forged_graph(np.int64(0))[0].numpy() / section.forged_batch_size
    exact = game.whole_sum(looked.images, looked.labels)
    noise = []
    while sum(map(len, noise)) < 20_000:
        real = 2 * looked.discriminator(looked.images, looked.labels) - forged * grid.step
        noise.append(real * section.batch_size - exact * grid.step)
    expect_noise(np.concatenate(noise), priced)


@pytest.fixture
def sums(monkeypatch) -> Sums:
    """Noise patched out: the exact sums that would have got it, in order, and every look learns from these alone."""
    seen: Sums = []
    monkeypatch.setattr(Grid, "noisy", lambda self, exact: seen.append(exact) or exact * self.step)
    return seen


@pytest.fixture
def same_teacher(looked: Looks, monkeypatch) -> None:
    """What was released before is the same for both neighbours: the proof is of each mechanism, given the earlier."""
    train = looks.train_teacher

    def trained(*data, **options) -> Teacher:
        train(*data, **options)
        return looked.release.teacher

    monkeypatch.setattr(looks, "train_teacher", trained)


def neighbours_differ(
    look: Callable[[np.ndarray, np.ndarray], object], looked: Looks, sums: Sums, clips: list[int], classes: Sums
) -> None:
    """Looks at a data set, at the same with its last image emptied, and at that image alone, for several images.

    Each other image keeps its place, for the one in question is the last: in the first block of 256, and in the next.
    """
    for place in (60, 256):
        images, labels = looked.images[: place + 1], looked.labels[: place + 1]
        del sums[:]
        look(images, labels)
        look(images[:-1], labels[:-1])
        look(images[-1:], labels[-1:])
        each = len(clips)
        assert len(sums) == 3 * each
        for i, squared_clip in enumerate(clips):
            moved = sums[i] - sums[each + i]
            np.testing.assert_array_equal(moved, sums[2 * each + i])  # the image's own integers, and no others'
            assert 0 < sum(int(number) ** 2 for number in moved.ravel()) <= squared_clip
            if classes[i] is not None:
                assert np.flatnonzero(moved.any(axis=1)).tolist() == [classes[i][place]]


def test_a_neighbour_moves_one_row_of_the_first_look(looked: Looks, sums: Sums, same_teacher):
    taught = looked.release.teacher.predict(scattering_rows(looked.images))
    clips = [Grid.of(1.5, 0.8).squared_clip, Grid.of(1.2, 1.0).squared_clip]
    neighbours_differ(looked.first, looked, sums, clips, [None, taught])


def test_a_neighbour_moves_one_row_of_a_students_look(looked: Looks, sums: Sums):
    taught = looked.release.teacher.predict(scattering_rows(looked.images))
    neighbours_differ(looked.as_student, looked, sums, [Grid.of(2.5, 1.0).squared_clip], [taught])


def test_a_neighbour_moves_a_step_of_the_discriminator_by_its_own_gradient(looked: Looks, sums: Sums):
    clip = looked.game._training.l2_clip_norm
    neighbours_differ(looked.discriminator, looked, sums, [Grid.of(3.0, clip).squared_clip], [None])
