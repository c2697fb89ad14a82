"""Whether a ledger is that of its recipe: the mechanisms that the recipe runs, in order, with the numbers it decides.

Noise follows from the budget by calibration, and only its proportions are compared. A run that was stopped early has a
shorter ledger: a look is charged before it is taken, so that the steps which are done tell what must be there.
"""

import math
import re
from collections.abc import Iterator, Sequence

from synthgen.model.recipe import PrivateAdversarialRecipe, Recipe, StatisticsRecipe
from synthgen.privacy.accounting import Mechanism
from synthgen.privacy.statement import PrivacyStatement

PrivateRecipe = PrivateAdversarialRecipe | StatisticsRecipe
_TOLERANCE = 1e-3  # of a proportion between two mechanisms' noise
_SAMPLING_TOLERANCE = 1e-9  # of a quotient of two whole numbers


def expect_recipes_ledger(recipe: PrivateRecipe, privacy: PrivacyStatement, steps: object) -> None:
    """Refuse a statement whose ledger is not that of a run of ``recipe``.

    Args:
        recipe: how a checkpoint says it was trained.
        privacy: its statement, with a proof.
        steps: how many steps its record of training says are done; anything else where that is not at hand.

    Raises:
        ValueError: in one line, what does not fit.
    """
    assert privacy.proof is not None
    mechanisms = privacy.proof.ledger.mechanisms
    done = steps if type(steps) is int and steps > 0 else None
    if isinstance(recipe, StatisticsRecipe):
        if recipe.is_open:
            raise ValueError("its recipe leaves settings open, which no run does")
        _expect_looks(recipe, mechanisms, done)
        batch = recipe.look.teacher_batch_size
    else:
        _expect_game(recipe, mechanisms, done)
        batch = recipe.training.batch_size
    images, first = _images(privacy.trained_on), mechanisms[0]
    if not images or not math.isclose(first.sampling_probability, batch / images, rel_tol=_SAMPLING_TOLERANCE):
        raise ValueError(
            f"its ledger samples with probability {first.sampling_probability:.6g}; its recipe takes {batch:,} of "
            f"{images:,} images"
        )


def shortness(recipe: Recipe, privacy: PrivacyStatement) -> str:
    """In what a ledger falls short of its recipe, as a part of a sentence; empty where it does not."""
    left = left_to_charge(recipe, privacy)
    return left and f"lacks {left}: of a run that was stopped before them, or left out by whoever made this"


def left_to_charge(recipe: Recipe, privacy: PrivacyStatement) -> str:
    """What the recipe has and the ledger lacks, in a few words; empty for the ledger of a whole run, or of none.

    A run that was stopped early lacks it, and so does a ledger from which its maker has left something out.
    """
    if privacy.proof is None:
        return ""
    mechanisms = privacy.proof.ledger.mechanisms
    if isinstance(recipe, StatisticsRecipe) and (missing := recipe.look.students - (len(mechanisms) - 2)) > 0:
        return f"{missing} of {recipe.look.students} students' looks"
    if isinstance(recipe, PrivateAdversarialRecipe):
        missing = recipe.training.steps - sum(mechanism.steps for mechanism in mechanisms)
        return f"{missing:,} of {recipe.training.steps:,} discriminator steps" if missing > 0 else ""
    return ""


def students_turns(recipe: StatisticsRecipe) -> Iterator[int]:
    """How many steps are done when each student has its turn: equal parts of the run, and one student a step."""
    latest = -1
    for number in range(1, recipe.look.students + 1):
        latest = max(latest + 1, number * recipe.training.steps // (recipe.look.students + 1))
        yield latest


def _expect_looks(recipe: StatisticsRecipe, mechanisms: Sequence[Mechanism], done: int | None) -> None:
    """The teacher, the embedding, and those students whose turn has come."""
    names = ["teacher", "embedding", *(f"student {i + 1}" for i in range(recipe.look.students))]
    _expect_names(mechanisms, names, least=2)
    teacher, *looks = mechanisms
    if teacher.steps != recipe.look.teacher_steps or any(look.steps != 1 for look in looks):
        raise ValueError(
            f"its ledger's steps are {', '.join(str(each.steps) for each in mechanisms)}; expected "
            f"{recipe.look.teacher_steps} of the teacher and one of each other mechanism"
        )
    for look in looks:
        ratio = look.noise_multiplier / teacher.noise_multiplier
        if look.sampling_probability != 1 or not math.isclose(ratio, recipe.look.embedding_noise, rel_tol=_TOLERANCE):
            raise ValueError(
                f"its ledger's {look.name} has {ratio:.4g} times the teacher's noise, and sampling probability "
                f"{look.sampling_probability:.6g}; expected {recipe.look.embedding_noise:.4g} times, and 1"
            )
    if len(mechanisms) == len(names):
        return
    over = sum(turn < done for turn in students_turns(recipe)) if done is not None else 0
    if len(looks) - 1 < over:
        raise ValueError(
            f"its ledger lists {len(looks) - 1} students' looks; after {done:,} steps of its recipe there are {over}"
        )


def _expect_game(recipe: PrivateAdversarialRecipe, mechanisms: Sequence[Mechanism], done: int | None) -> None:
    """The discriminator, for as many steps as are done, and at most those of the recipe."""
    _expect_names(mechanisms, ["discriminator"], least=1)
    charged, most = mechanisms[0].steps, recipe.training.steps
    if not (done or 1) <= charged <= most:
        raise ValueError(f"its ledger lists {charged:,} discriminator steps; expected {done or 1:,} to {most:,}")


def _expect_names(mechanisms: Sequence[Mechanism], names: Sequence[str], *, least: int) -> None:
    found = [mechanism.name for mechanism in mechanisms]
    if len(found) < least or found != names[: len(found)]:
        quoted = ", ".join(f"'{name:.40}'" for name in found[:8])
        raise ValueError(f"its ledger lists {quoted}; its recipe's mechanisms are {', '.join(names)}")


def _images(trained_on: str) -> int:
    """How many images a statement's ``trained_on`` names; 0 for none."""
    number = re.search(r"\d[\d,]*", trained_on, re.ASCII)
    return int(number[0].replace(",", "")) if number else 0
