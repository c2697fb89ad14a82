"""Settings that follow from the budget and the data, where a recipe leaves them open.

What a look tells is decided by the noise in a class's mean: noise / images of the class. At one delta the noise is
nearly proportional to 1 / epsilon. So the rule knows one number, the epsilon at which 60,000 images of ten classes
would be seen as clearly: epsilon · images / 60,000 · 10 / classes. It was found on public Fashion-MNIST and its subsets
(docs/training.md), and looks at no image.
"""

import itertools
import math
from dataclasses import dataclass, replace

from synthgen.model.recipe import StatisticsRecipe

_IMAGES, _CLASSES = 60_000, 10  # of Fashion-MNIST
_SAMPLED = 8_192 / _IMAGES  # the share of the images that a step of the teacher takes
_BATCH = 320  # images in a step of the generator
_EVERY_CLASS = 4  # at least so many of each
_MOST_OF_A_CLASS = 64


@dataclass(frozen=True, kw_only=True)
class _Setting:
    """What is best from a budget on, as for 60,000 images of ten classes.

    Attributes:
        least: the smallest such budget.
        students, embedding_noise, learning_rate, steps: as the recipe has them.
    """

    least: float
    students: int
    embedding_noise: float
    learning_rate: float
    steps: int


_SETTINGS = (  # from large budgets to small ones: the more noise, the fewer looks and the smaller the rate
    _Setting(least=5.0, students=5, embedding_noise=0.8, learning_rate=16.0, steps=2_400),
    _Setting(least=2.0, students=3, embedding_noise=0.65, learning_rate=12.0, steps=1_600),
    _Setting(least=0.5, students=1, embedding_noise=0.5, learning_rate=8.0, steps=1_000),
    _Setting(least=0.0, students=0, embedding_noise=0.6, learning_rate=3.0, steps=600),
)

# Budget as for 60,000 images of ten classes → accuracy in percent of a small CNN trained on the set: docs/training.md.
_MEASURED = ((0.2, 74.1), (1.0, 82.5), (10.0, 86.0))
_REAL = 91.7  # on the real images
_USELESS = 0.02  # a budget below which not even that table's smallest figure is in sight


def comparable_budget(recipe: StatisticsRecipe, images: int) -> float:
    """The epsilon at which 60,000 images of ten classes would tell as much."""
    return recipe.privacy.epsilon * images / _IMAGES * _CLASSES / recipe.classes


def fitted(recipe: StatisticsRecipe, images: int) -> StatisticsRecipe:
    """The recipe with every open setting filled in, for so many images; they and their classes are public numbers."""
    found = _setting(comparable_budget(recipe, images))
    look, training = recipe.look, recipe.training
    each = min(max(_EVERY_CLASS, _BATCH // recipe.classes), _MOST_OF_A_CLASS)
    return replace(
        recipe,
        look=replace(
            look,
            teacher_batch_size=look.teacher_batch_size or max(1, round(_SAMPLED * images)),
            teacher_learning_rate=look.teacher_learning_rate or found.learning_rate,
            embedding_noise=look.embedding_noise or found.embedding_noise,
            students=found.students if look.students < 0 else look.students,
        ),
        training=replace(
            training,
            steps=training.steps or found.steps,
            images_per_class=training.images_per_class or each,
        ),
    )


def explain(recipe: StatisticsRecipe, images: int) -> list[str]:
    """What ``fitted`` chose and why, and what to expect of it, a line each."""
    budget, look, training = comparable_budget(recipe, images), recipe.look, recipe.training
    lines = [
        f"settings for epsilon {recipe.privacy.epsilon:g} and {images:,} images of {recipe.subject.classes_in_words}, "
        f"which tell as much as 60,000 images of ten classes at epsilon {budget:.2g}: "
        f"{look.students} student{'' if look.students == 1 else 's'}, "
        f"embedding noise {look.embedding_noise:g}, teacher's rate {look.teacher_learning_rate:g}, "
        f"{training.steps:,} steps of {training.images_per_class} images a class; --set changes any of them"
    ]
    if budget < _USELESS:
        lines.append(
            "warning: this budget is too small for so few images to give anything useful; allow a larger --epsilon, or "
            "take more images or fewer classes"
        )
    elif (expected := expected_accuracy(budget)) is not None:
        lines.append(
            f"to expect, as measured on Fashion-MNIST (docs/training.md): about {expected:.0f} % accuracy of a small "
            f"CNN trained on the set, where real images give {_REAL} %"
        )
    return lines


def expected_accuracy(budget: float) -> float | None:
    """What was measured at such a budget, in percent, between two figures; None below the smallest of them."""
    if budget < _MEASURED[0][0]:
        return None
    for (low, worse), (high, better) in itertools.pairwise(_MEASURED):
        if budget <= high:
            return worse + (better - worse) * math.log(budget / low) / math.log(high / low)
    return _MEASURED[-1][1]


def _setting(budget: float) -> _Setting:
    return next(setting for setting in _SETTINGS if budget >= setting.least)
