"""A score of a run for choosing among several: how useful its images are, measured on the real ones, with noise.

A small classifier learns from images that the run's generator draws; counted is how many of the real training images
it names rightly. That is what such a set is for, and what the run's own figures do not tell: how well its generator
matches a release says nothing of how good the release is. An image that is replaced by an empty record changes the
count by at most 1, so that noise of some twenty images, which hardly blurs the score of thousands, costs next to
nothing beside the run itself.
"""

import numpy as np

from synthgen.environment import import_tensorflow
from synthgen.index import BLOCK_IMAGES, LabelRule, pieces
from synthgen.model.checkpoint import Checkpoint
from synthgen.model.sampling import Sampler
from synthgen.privacy.exact import Grid, expect_countable
from synthgen.real_images import RealImages

_GENERATED_IMAGES = 20_000
_BATCH = 1_000  # real images at a time, always so many, each in its place: its class depends on no other
_LEAST_NOISE, _NOISE_AT_EPSILON_1 = 20.0, 60.0  # images


def score_noise(epsilon: float) -> float:
    """The noise multiplier of the score, which is its standard deviation in images, for a budget's epsilon.

    It is so large that the score costs a fiftieth of the budget at most.
    """
    return max(_LEAST_NOISE, _NOISE_AT_EPSILON_1 / epsilon)


def noisy_score(checkpoint: Checkpoint, data: RealImages, noise_multiplier: float, seed: int) -> float:
    """How many real images a classifier trained on the checkpoint's own names rightly, with Gaussian noise.

    It is the Gaussian mechanism on integers (``privacy.exact``) of sensitivity 1; charge it before.

    Args:
        checkpoint: a conditional one.
        data: the real images, with labels.
        noise_multiplier: the standard deviation of the noise, in images.
        seed: decides the drawn images and how the classifier learns, never the noise.
    """
    import_tensorflow()
    from synthgen.training.matching.student import Student

    expect_countable(len(data))
    sampler = Sampler(checkpoint, seed, LabelRule.parse("balanced", checkpoint.recipe.classes))
    drawn = [sampler(block) for block in range(-(-_GENERATED_IMAGES // BLOCK_IMAGES))]
    student = Student(checkpoint.recipe.classes)
    student.fit(np.concatenate([images for images, _ in drawn]), np.concatenate([labels for _, labels in drawn]), seed)
    classify, grid = student.classify_pixels(), Grid.of(noise_multiplier, 1.0)
    right = np.zeros(1)
    for rows in pieces(len(data), _BATCH):
        filled = np.zeros((_BATCH, *data.images.shape[1:]), np.uint8)
        count = rows.stop - rows.start
        filled[:count] = data.images[rows]
        named = classify(filled)[:count] == data.labels[rows]
        right += grid.rows(named[:, None].astype(np.float64)).sum(axis=0)
    return float(grid.noisy(right)[0])
