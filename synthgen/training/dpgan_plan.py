"""What a private run will do and what it will cost, before it looks at an image."""

from dataclasses import dataclass
from pathlib import Path

from synthgen.model.recipe import PrivateAdversarialRecipe
from synthgen.privacy.accounting import Budget, Mechanism, calibrated, epsilon_of
from synthgen.real_images import RealImages
from synthgen.training.plan import budget_of, expect_enough, expect_training_seed, training_images

_STAGES = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, kw_only=True)
class PrivateTrainingPlan:
    """A private run as it will be.

    Attributes:
        recipe: what to train.
        data: the real images; their number is public, their content private.
        seed: of the initial weights and the forged images, never of the mechanism.
        budget: the most the run may cost.
        noise_multiplier: what keeps all its steps within the budget.
    """

    recipe: PrivateAdversarialRecipe
    data: RealImages
    seed: int
    budget: Budget
    noise_multiplier: float

    @property
    def sampling_probability(self) -> float:
        """Of each real image, independently, at every step."""
        return self.recipe.training.batch_size / len(self.data)

    def mechanism(self, steps: int) -> Mechanism:
        """So many discriminator steps, for the ledger."""
        return _mechanism(self.recipe, self.sampling_probability, self.noise_multiplier, steps)

    def describe(self) -> list[str]:
        """The plan in lines for people: the mechanism, its parameters, and epsilon at every stage."""
        section = self.recipe.training
        stages = [max(1, round(share * section.steps)) for share in _STAGES]
        costs = [epsilon_of([self.mechanism(steps)], self.budget.delta) for steps in stages]
        table = ", ".join(f"{cost:.2f} after {steps:,}" for cost, steps in zip(costs, stages, strict=True))
        return [
            f"budget: epsilon {self.budget.epsilon:g} at delta {self.budget.delta:g}, add or remove one image",
            f"one mechanism, 100 % of the budget: discriminator, {section.steps:,} steps of Gaussian noise, "
            f"noise multiplier {self.noise_multiplier:.4f}, clip norm {section.l2_clip_norm:g}",
            f"Poisson sampling of each of {len(self.data):,} images with probability "
            f"{self.sampling_probability:.5f}: {section.batch_size:,} a step on average",
            f"epsilon by step: {table}",
        ]


def plan_private_training(
    recipe: PrivateAdversarialRecipe, data_folder: Path | None = None, seed: int = 0
) -> PrivateTrainingPlan:
    """Load and check everything a private run needs, and calibrate its noise to its budget.

    Args:
        recipe: what to train, and its budget.
        data_folder: where the real images are; by default see ``datasets.find_data``.
        seed: 0 to 2^32 - 1.

    Raises:
        UsageError: the seed is out of range, or the batch larger than the data.
        PrivacyError: the budget is out of range.
        DataError: the real images are missing or malformed.
    """
    expect_training_seed(seed)
    budget = budget_of(recipe)
    data = training_images(recipe, data_folder)
    section = recipe.training
    expect_enough("training.batch_size", section.batch_size, data)
    probability = section.batch_size / len(data)
    noise_multiplier = calibrated(lambda scale: [_mechanism(recipe, probability, scale, section.steps)], budget)
    return PrivateTrainingPlan(recipe=recipe, data=data, seed=seed, budget=budget, noise_multiplier=noise_multiplier)


def _mechanism(recipe: PrivateAdversarialRecipe, probability: float, noise_multiplier: float, steps: int) -> Mechanism:
    return Mechanism(
        name="discriminator",
        releases="the clipped sum of the discriminator's gradients over a Poisson sample, with noise",
        noise_multiplier=noise_multiplier,
        l2_sensitivity=recipe.training.l2_clip_norm,
        sampling_probability=probability,
        steps=steps,
    )
