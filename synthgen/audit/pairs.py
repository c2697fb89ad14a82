"""Chosen neighbours for each private mechanism, as ``training`` runs it, for the audit by many looks.

No real image is needed: the record is a chequered image whose row is longer than the clip, and the others are blank.
Each mechanism has two pairs. With the record alone, or one blank image beside it, a look takes milliseconds, and half
of the records are sampled where the mechanism samples. In full company, a whole batch of blank images and no sampling,
a record shows that changes the others' rows, as through the statistics of a batch.

The noise multiplier is one at which guesses tell most, and the sensitivity one to which every record is clipped; not
those of a recipe, for the code is the same at all of them.
"""

import functools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from synthgen.audit.canaries import pattern_canaries
from synthgen.audit.neighbours import Floats, Pair
from synthgen.model.recipe import PrivateAdversarialRecipe
from synthgen.privacy.accounting import Mechanism
from synthgen.privacy.exact import Grid
from synthgen.subject import IMAGE_SIDE, NUM_CLASSES, Images, Labels
from synthgen.training.dpgan import sampled
from synthgen.training.dpgan_game import ROWS, PrivateGame
from synthgen.training.matching.features import SCATTERING_SIZE, embedding_rows
from synthgen.training.matching.looks import BATCH, Embed, noisy_sums, teacher_features, whole_sums
from synthgen.training.matching.student import Student
from synthgen.training.matching.teacher import clipped_gradient_sum, train_teacher

NOISE_MULTIPLIER = 0.7
SENSITIVITY = 0.25
SAMPLING_PROBABILITY = 0.5
_SLOWNESS = 10  # of a look at a full batch

_Data = tuple[Images, Labels]


def look_pairs() -> list[Pair]:
    """Two pairs for the teacher, for the embedding, and for a student's look."""
    student = Student(NUM_CLASSES).embed_pixels()
    return [*teacher_pairs(), *sums_pairs("embedding", embedding_rows), *sums_pairs("student", student)]


def teacher_pairs() -> list[Pair]:
    """Two pairs for one step of the teacher."""
    return [_teacher_pair(_claims("teacher", SAMPLING_PROBABILITY), 1), _teacher_pair(_claims("teacher"), BATCH - 1)]


def sums_pairs(name: str, embed: Embed) -> list[Pair]:
    """Two pairs for the sums of an embedding: uint8 images (N, 28, 28) → rows (N, D)."""
    remembered = _remembering(embed)
    return [_sums_pair(_claims(name), remembered, others) for others in (1, BATCH - 1)]


def discriminator_pairs(recipe: PrivateAdversarialRecipe) -> list[Pair]:
    """Two pairs for a step of the recipe's discriminator, at weights as a training begins with."""
    clipped = replace(recipe, training=replace(recipe.training, l2_clip_norm=SENSITIVITY))
    game = PrivateGame(clipped, 0, NOISE_MULTIPLIER)
    name = "discriminator"
    return [
        _discriminator_pair(_claims(name, SAMPLING_PROBABILITY), game, 0),
        _discriminator_pair(_claims(name), game, ROWS - 1),
    ]


def _teacher_pair(claims: Mechanism, others: int) -> Pair:
    """One step of the teacher."""
    grid = Grid.of(claims.noise_multiplier, claims.l2_sensitivity)
    features = {present: teacher_features(_data(others, present)[0]) for present in (False, True)}
    zeros = np.zeros((SCATTERING_SIZE + 1, NUM_CLASSES))

    def look(present: bool) -> Floats:
        seen: list[Floats] = []
        train_teacher(
            features[present],
            _data(others, present)[1],
            claims,
            classes=NUM_CLASSES,
            learning_rate=1.0,
            watch=lambda step, parameters, gradient: seen.append(gradient),
        )
        return seen[0]

    def exact(present: bool) -> Floats:
        labels = _data(others, present)[1]
        return clipped_gradient_sum(features[present], labels, np.arange(len(labels)), zeros, grid) * grid.step

    return _pair(claims, others, look, exact)


def _sums_pair(claims: Mechanism, embed: Embed, others: int) -> Pair:
    """The sums of an embedding over the images of each class."""
    grid = Grid.of(claims.noise_multiplier, claims.l2_sensitivity)
    return _pair(
        claims,
        others,
        lambda present: noisy_sums(embed, *_data(others, present), NUM_CLASSES, claims, lambda done, of: None),
        lambda present: whole_sums(embed, *_data(others, present), NUM_CLASSES, grid) * grid.step,
    )


def _discriminator_pair(claims: Mechanism, game: PrivateGame, others: int) -> Pair:
    """One step of the discriminator."""
    grid = Grid.of(claims.noise_multiplier, claims.l2_sensitivity)
    return _pair(
        claims,
        others,
        lambda present: game.noisy_sum(*sampled(*_data(others, present), claims.sampling_probability)),
        lambda present: game.whole_sum(*_data(others, present)) * grid.step,
    )


def _pair(claims: Mechanism, others: int, look: Callable[[bool], Floats], exact: Callable[[bool], Floats]) -> Pair:
    """A pair from its looks and its sums without noise and sampling."""
    without = exact(False)
    company = f"{others:,} images besides" if others > 1 else "alone"
    return Pair(
        name=f"{claims.name}, {company}",
        claims=claims,
        look=look,
        without=without * claims.sampling_probability,
        record=exact(True) - without,
        slowness=_SLOWNESS if others > 1 else 1,
    )


def _claims(name: str, sampling_probability: float = 1.0) -> Mechanism:
    return Mechanism(
        name=name,
        releases="noisy sums, for an audit",
        noise_multiplier=NOISE_MULTIPLIER,
        l2_sensitivity=SENSITIVITY,
        sampling_probability=sampling_probability,
    )


@functools.cache
def _data(others: int, present: bool) -> _Data:
    """Blank images of class 1, and after them, each of the others in its place, the record, of class 0."""
    images = np.zeros((others + present, IMAGE_SIDE, IMAGE_SIDE), np.uint8)
    labels = np.ones(others + present, np.uint8)
    if present:
        images[-1], labels[-1] = pattern_canaries(1).images[0], 0
    return images, labels


def _remembering(embed: Embed) -> Embed:
    """The embedding, computed once for each batch: it has no randomness, and takes most of a look's time."""
    known: dict[bytes, npt.NDArray[np.float32]] = {}

    def recall(images: Images) -> npt.NDArray[np.float32]:
        key = images.tobytes()
        if key not in known:
            known[key] = embed(images)
        return known[key]

    return recall
