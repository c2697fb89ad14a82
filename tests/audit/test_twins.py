"""Broken twins of each private mechanism fall to the audit by looks, and the mechanisms themselves stand.

Each audit here is at a confidence of 1 - 1e-6: a sound mechanism is refuted once in a million times, and all eight
together at most once in a hundred thousand. What is refuted at that confidence is refuted at 99 %.
"""

import numpy as np
import pytest
import tensorflow as tf

from synthgen.audit import pairs
from synthgen.audit.neighbours import PairAudit, audit_pair
from synthgen.model.recipe import load_recipe
from synthgen.privacy.exact import Grid
from synthgen.training import dpgan
from synthgen.training.dpgan_game import PrivateGame
from synthgen.training.matching import features, looks, teacher
from synthgen.training.matching.looks import Embed
from synthgen.training.matching.student import Student

pytestmark = pytest.mark.slow
CONFIDENCE = 1 - 1e-6
ALONE = {"teacher": 3_000, "embedding": 1_000, "student": 1_000, "discriminator": 3_000}  # more where it samples
IN_COMPANY = 200
MECHANISMS = sorted(ALONE)
SAMPLED = ["discriminator", "teacher"]
RECIPE = load_recipe("dpgan", ["discriminator.filters=[4, 6]", "discriminator.projection_size=5"])


def audited(name: str, *, alone: bool) -> PairAudit:
    if name == "discriminator":
        pair = pairs.discriminator_pairs(RECIPE)[0 if alone else 1]
    elif name == "teacher":
        pair = pairs.teacher_pairs()[0 if alone else 1]
    else:
        embed = features.embedding_rows if name == "embedding" else Student(10).embed_pixels()
        pair = pairs.sums_pairs(name, embed)[0 if alone else 1]
    return audit_pair(pair, looks=ALONE[name] if alone else IN_COMPANY, delta=1e-5, confidence=CONFIDENCE)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("name", MECHANISMS)
def test_a_sound_mechanism_stands(name: str, alone: bool):
    found = audited(name, alone=alone)
    assert not found.contradicted, found
    assert (
        0.99 < found.moved < 1 + 2.0**-15
    )  # rounded up by the grid, and its noise too: as long as the clip: an error of the noise is seen at its full size


@pytest.mark.parametrize("name", MECHANISMS)
def test_half_the_noise_is_refuted(name: str, monkeypatch):
    noisy = Grid.noisy
    monkeypatch.setattr(Grid, "noisy", lambda self, sums: (noisy(self, sums) + sums * self.step) / 2)
    found = audited(name, alone=True)
    assert found.contradicted, found


@pytest.mark.parametrize("name", MECHANISMS)
def test_twice_the_clip_is_refuted(name: str, monkeypatch):
    of = Grid.of
    monkeypatch.setattr(Grid, "of", lambda multiplier, clip: of(multiplier / 2, 2 * clip))  # the same noise
    found = audited(name, alone=True)
    assert found.contradicted, found


@pytest.mark.parametrize("name", SAMPLED)
def test_twice_the_sampling_is_refuted(name: str, monkeypatch):
    """The sums of an embedding are over all images: nothing is sampled."""
    module = teacher if name == "teacher" else dpgan
    sample = module.poisson_sample
    monkeypatch.setattr(module, "poisson_sample", lambda size, probability: sample(size, min(1, 2 * probability)))
    found = audited(name, alone=True)
    assert found.contradicted, found


def twice(labels: np.ndarray) -> np.ndarray:
    """Indices of all records, and once more those of the record's class."""
    return np.concatenate([np.arange(len(labels)), np.flatnonzero(labels == 0)])


@pytest.mark.parametrize("name", MECHANISMS)
def test_a_row_that_is_counted_twice_is_refuted(name: str, monkeypatch):
    gradients, sums, whole = teacher.clipped_gradient_sum, looks.whole_sums, PrivateGame.whole_sum

    def doubled_gradients(rows, labels, chosen, parameters, grid):
        return gradients(rows, labels, chosen[twice(labels[chosen])], parameters, grid)

    def doubled_sums(embed, images, labels, grid, *rest):
        again = twice(labels)
        return sums(embed, images[again], labels[again], grid, *rest)

    def doubled_game(self, images, labels):
        return whole(self, images[twice(labels)], labels[twice(labels)])

    for module in (teacher, pairs):
        monkeypatch.setattr(module, "clipped_gradient_sum", doubled_gradients)
    for module in (looks, pairs):
        monkeypatch.setattr(module, "whole_sums", doubled_sums)
    monkeypatch.setattr(PrivateGame, "whole_sum", doubled_game)
    found = audited(name, alone=True)
    assert found.contradicted, found


def leaking(embed: Embed, *, scaled: bool) -> Embed:
    """Rows less the mean of their batch; ``scaled`` also by its deviation, as batch normalisation does."""

    def leak(images: np.ndarray) -> np.ndarray:
        rows = embed(images)
        rows = rows - rows.mean(axis=0)
        return rows / np.sqrt(np.square(rows).mean(axis=0) + np.float32(1e-6)) if scaled else rows

    return leak


@pytest.mark.parametrize(
    ("name", "scaled"), [*((name, True) for name in MECHANISMS), *((name, False) for name in MECHANISMS[:-1])]
)
def test_statistics_of_the_batch_that_leak_are_refuted(name: str, scaled: bool, monkeypatch):
    """The mean alone moves the teacher's step, whose clip is of longer rows, by 1.05 of the clip: too little to see."""
    for map_name in ("scattering_rows", "embedding_rows"):
        monkeypatch.setattr(features, map_name, leaking(getattr(features, map_name), scaled=scaled))
    embed_pixels, real = Student.embed_pixels, PrivateGame._real
    monkeypatch.setattr(Student, "embed_pixels", lambda self: leaking(embed_pixels(self), scaled=scaled))

    def leaking_game(self, pixels, labels):
        image, *classes = real(self, pixels, labels)
        mean, variance = tf.nn.moments(image, [0], keepdims=True)
        return [(image - mean) / (tf.sqrt(variance + 1e-6) if scaled else 1.0), *classes]

    monkeypatch.setattr(PrivateGame, "_real", leaking_game)
    found = audited(name, alone=False)
    assert found.contradicted, found
    assert found.moved > 1
