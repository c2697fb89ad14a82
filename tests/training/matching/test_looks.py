"""The looks as exact mechanisms: neighbours differ, in integers, by the row of one image."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from support import DATA

from synthgen.privacy.accounting import Mechanism
from synthgen.privacy.exact import Grid
from synthgen.real_images import load_real_images
from synthgen.training.matching import looks as looks_module
from synthgen.training.matching.features import embedding_rows, scattering_rows
from synthgen.training.matching.looks import (
    LookPlan,
    _apart,
    embedding_sums,
    look_as_student,
    look_privately,
    whole_sums,
)
from synthgen.training.matching.release import Release
from synthgen.training.matching.student import Student
from synthgen.training.matching.teacher import Teacher, clipped_gradient_sum, whole_features

GRID = Grid.of(1.7, 1.0)


@pytest.fixture(scope="module")
def real():
    return load_real_images("train", DATA, official=False)


@pytest.fixture(scope="module")
def embeddings():
    return {"embedding": embedding_rows, "student": Student(10).embed_pixels()}


@pytest.fixture(scope="module")
def plan() -> LookPlan:
    teacher = Mechanism(
        name="teacher", releases="g", noise_multiplier=1.5, l2_sensitivity=1.0, sampling_probability=0.3, steps=5
    )
    looked = Mechanism(name="embedding", releases="s", noise_multiplier=1.2, l2_sensitivity=1.0)
    return LookPlan(teacher=teacher, embedding=looked, learning_rate=2.0, classes=10)


@pytest.fixture(scope="module")
def teacher(real) -> Teacher:
    """Of real images, without noise to speak of."""
    centres = np.stack([scattering_rows(real.images[real.labels == label]).mean(axis=0) for label in range(10)])
    return Teacher(np.ascontiguousarray(centres.T), -np.square(centres).sum(axis=1) / 2)


@pytest.mark.parametrize("which", ["embedding", "student"])
def test_an_image_replaced_takes_its_own_row_of_integers_out_of_one_sum(real, embeddings, which: str):
    """For neighbours in the sense of the claim; its row is computed here in quite another company."""
    embed, images, labels = embeddings[which], real.images, real.labels
    whole = whole_sums(embed, images, labels, 10, GRID)
    assert (whole == np.rint(whole)).all()
    random = np.random.default_rng(0)
    for j in (0, 13, 255, 499):
        elsewhere = random.integers(0, 256, images.shape).astype(np.uint8)
        elsewhere[j] = images[j]
        row = GRID.rows(_apart(embed, elsewhere)[j : j + 1])[0]
        emptied = images.copy()
        emptied[j] = 0
        empty = GRID.rows(_apart(embed, emptied)[j : j + 1])[0]
        moved = whole - whole_sums(embed, emptied, labels, 10, GRID)
        expected = np.zeros_like(moved)
        expected[labels[j]] = row - empty  # the record itself, whose row is zeros by definition, has no pixels
        np.testing.assert_array_equal(moved, expected)
        assert 0 < sum(int(number) ** 2 for number in row) <= GRID.squared_clip


def test_an_images_features_are_the_same_bits_whatever_the_others_are(real, embeddings):
    random = np.random.default_rng(1)
    for embed in (scattering_rows, *embeddings.values()):
        rows = _apart(embed, real.images)
        others = random.integers(0, 256, real.images.shape).astype(np.uint8)
        others[::7] = real.images[::7]
        np.testing.assert_array_equal(_apart(embed, others)[::7], rows[::7])


def test_a_real_images_class_does_not_depend_on_the_block_it_is_predicted_in(real, teacher):
    features = _apart(scattering_rows, real.images)
    whole = teacher.predict(features)
    assert (whole == real.labels).mean() > 0.6
    for size in (1, 37, 256, 499):
        parts = [teacher.predict(features[first : first + size]) for first in range(0, 500, size)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    order = np.random.default_rng(2).permutation(500)
    np.testing.assert_array_equal(teacher.predict(features[order]), whole[order])


def test_a_teachers_step_on_a_neighbour_differs_by_one_images_gradient(real, teacher):
    features = whole_features(_apart(scattering_rows, real.images))
    parameters = 30.0 * np.vstack([teacher.weights, teacher.bias]).astype(np.float64)
    chosen = np.flatnonzero(np.random.default_rng(3).random(500) < 0.7)
    whole = clipped_gradient_sum(features, real.labels, chosen, parameters, GRID)
    for j in chosen[[0, 100, 255, 256, len(chosen) - 1]]:
        moved = whole - clipped_gradient_sum(features, real.labels, chosen[chosen != j], parameters, GRID)
        np.testing.assert_array_equal(
            moved, clipped_gradient_sum(features, real.labels, np.array([j]), parameters, GRID)
        )
        assert 0 < sum(int(number) ** 2 for number in moved.ravel()) <= GRID.squared_clip


def test_each_look_adds_the_noise_of_its_own_mechanism_to_integers(real, plan, monkeypatch):
    """The multiplier and the sensitivity in the ledger are those of the grid on which noise is added."""
    seen = []

    def noisy(self: Grid, sums: np.ndarray) -> np.ndarray:
        seen.append((self, sums.shape[0]))
        assert (sums == np.rint(sums)).all()
        return sums * self.step

    monkeypatch.setattr(Grid, "noisy", noisy)
    charged: list[Mechanism] = []
    release = look_privately(real.images, real.labels, plan, charged.append)
    third = replace(plan.embedding, name="student 1", noise_multiplier=2.5)
    student = Student(10)
    look_as_student(student.embed_pixels(), tuple(student.weights), real.images, release, third)
    assert seen == [(Grid.of(1.5, 1.0), 3970)] * 5 + [(Grid.of(1.2, 1.0), 10), (Grid.of(2.5, 1.0), 10)]
    assert charged == [plan.teacher, plan.embedding]


def test_sums_in_the_unit_of_the_rows_are_those_of_the_clipped_rows(real):
    sums = embedding_sums(embedding_rows, real.images, real.labels, 10)
    for label in range(10):
        expected = embedding_rows(real.images[real.labels == label]).astype(np.float64).sum(axis=0)
        np.testing.assert_allclose(sums[label], expected, atol=1e-3)


def test_a_release_says_whether_its_noise_is_exact(real, plan, tmp_path, monkeypatch):
    release = look_privately(real.images, real.labels, plan, lambda mechanism: None)
    assert release.exact_noise
    path = tmp_path / "release.h5"
    release.save(path)
    assert Release.load(path).exact_noise
    replace(release, exact_noise=False).save(path)
    assert not Release.load(path).exact_noise
    with h5py.File(path, "r+") as file:
        file.attrs["exact_noise"] = "no"
    assert not Release.load(path).exact_noise
    monkeypatch.setattr(looks_module, "noisy_sums", lambda *of: embedding_sums(*of[:4]))
    student = Student(10)
    earlier = replace(release, exact_noise=False)  # a look more does not mend those before
    weights = tuple(student.weights)
    assert not look_as_student(student.embed_pixels(), weights, real.images, earlier, plan.embedding).exact_noise
