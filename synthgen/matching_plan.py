"""What training on released statistics will do and what it will cost, before it looks at an image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from synthgen.datasets import RealImages
from synthgen.privacy.accounting import Budget, calibrated, epsilon_of
from synthgen.privacy.ledger import Mechanism
from synthgen.privacy.release import LookPlan
from synthgen.recipe import StatisticsRecipe
from synthgen.training_plan import expect_enough, expect_training_seed, training_images

_CLIP_NORM = 1.0  # of the teacher's gradients; the embedding's sensitivity is 1 by construction


@dataclass(frozen=True, kw_only=True)
class MatchingPlan:
    """A run as it will be.

    Attributes:
        recipe: what to train.
        data: the real images; their number is public, their content private.
        seed: of the initial weights and the latents, never of a private mechanism.
        budget: the most the look may cost.
        look: its mechanisms, with noise that keeps all of them together within the budget.
    """

    recipe: StatisticsRecipe
    data: RealImages
    seed: int
    budget: Budget
    look: LookPlan

    def describe(self) -> list[str]:
        """The plan in lines for people: mechanisms, parameters, share of the budget, and epsilon at every stage."""
        mechanisms = self.look.mechanisms
        teacher, embedding, *students = mechanisms
        alone = [epsilon_of([mechanism], self.budget.delta) for mechanism in mechanisms]
        after = [epsilon_of(mechanisms[: i + 1], self.budget.delta) for i in range(len(mechanisms))]
        precision = [_precision(mechanism) for mechanism in mechanisms]
        shares = [100 * each / sum(precision) for each in precision]
        looks = [
            f"{i}. {mechanism.name}, {shares[i - 1]:.0f} % of the budget: one Gaussian mechanism over the sums of the "
            f"teacher's ten classes, noise multiplier {mechanism.noise_multiplier:.4f}, sensitivity 1: epsilon "
            f"{alone[i - 1]:.3f} alone, {after[i - 1]:.3f} with all before it"
            for i, mechanism in enumerate((embedding, *students), 2)
        ]
        return [
            f"budget: epsilon {self.budget.epsilon:g} at delta {self.budget.delta:g}, add or remove one image; "
            "shares of it are of squared signal to noise, which adds up",
            f"1. teacher, {shares[0]:.0f} % of the budget: {teacher.steps:,} steps of DP-SGD on fixed features, noise "
            f"multiplier {teacher.noise_multiplier:.4f}, clip norm {teacher.l2_sensitivity:g}, Poisson sampling of "
            f"each of {len(self.data):,} images with probability {teacher.sampling_probability:.5f}: "
            f"epsilon {alone[0]:.3f}",
            *looks,
            f"then {self.recipe.training.steps:,} steps of the generator on what was released, which cost nothing",
        ]


def plan_matching(recipe: StatisticsRecipe, data_folder: Path | None = None, seed: int = 0) -> MatchingPlan:
    """Load and check everything a run needs, and calibrate its noise to its budget.

    Args:
        recipe: what to train, and its budget.
        data_folder: where the real images are; by default see ``datasets.find_data``.
        seed: 0 to 2^32 - 1.

    Raises:
        UsageError: the seed is out of range, or the teacher's batch larger than the data.
        PrivacyError: the budget is out of range.
        DataError: the real images are missing or malformed.
    """
    expect_training_seed(seed)
    assert recipe.privacy is not None  # the recipe sees to it
    budget = Budget(recipe.privacy.epsilon, recipe.privacy.delta)
    data = training_images(recipe, data_folder)
    section = recipe.look
    expect_enough("look.teacher_batch_size", section.teacher_batch_size, data)
    scale = calibrated(lambda scale: _mechanisms(recipe, len(data), scale), budget)
    teacher, embedding, *students = _mechanisms(recipe, len(data), scale)
    look = LookPlan(
        teacher=teacher,
        embedding=embedding,
        students=tuple(students),
        learning_rate=section.teacher_learning_rate,
    )
    return MatchingPlan(recipe=recipe, data=data, seed=seed, budget=budget, look=look)


def _mechanisms(recipe: StatisticsRecipe, images: int, scale: float) -> Sequence[Mechanism]:
    section = recipe.look

    def looked(name: str, at: str) -> Mechanism:
        return Mechanism(
            name=name,
            releases=f"the sums of {at} over the images of each of the teacher's classes, with noise",
            noise_multiplier=scale * section.embedding_noise,
            l2_sensitivity=1.0,
        )

    return (
        Mechanism(
            name="teacher",
            releases="the clipped sum of a linear classifier's gradients over a Poisson sample, with noise",
            noise_multiplier=scale,
            l2_sensitivity=_CLIP_NORM,
            sampling_probability=section.teacher_batch_size / images,
            steps=section.teacher_steps,
        ),
        looked("embedding", "a fixed embedding"),
        *(looked(f"student {i + 1}", "a student's activations") for i in range(section.students)),
    )


def _precision(mechanism: Mechanism) -> float:
    """Squared signal to noise, which adds up over mechanisms: steps · probability² / noise multiplier²."""
    return mechanism.steps * (mechanism.sampling_probability / mechanism.noise_multiplier) ** 2
