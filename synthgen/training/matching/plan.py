"""What training on released statistics will do and what it will cost, before it looks at an image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from synthgen.errors import RecipeError, UsageError
from synthgen.model.checkpoint import load_checkpoint
from synthgen.model.recipe import Recipe, StatisticsRecipe, with_overrides
from synthgen.privacy.accounting import Budget, Mechanism, calibrated, epsilon_of
from synthgen.privacy.ledger import LEDGER_NAME, OpenLedger
from synthgen.real_images import RealImages
from synthgen.training.matching.release import RELEASE_NAME, LookPlan, Release
from synthgen.training.plan import budget_of, expect_enough, expect_training_seed, training_images
from synthgen.training.state import read_header

_CLIP_NORM = 1.0  # of the teacher's gradients; the embedding's sensitivity is 1 by construction


@dataclass(frozen=True, kw_only=True)
class MatchingPlan:
    """A run as it will be.

    Attributes:
        recipe: what to train.
        data: the real images, whose content is private; None where none is looked at any more.
        images: how many real images there are, which is public.
        seed: of the initial weights and the latents, never of a private mechanism.
        budget: the most the look may cost.
        look: its mechanisms, with noise that keeps all of them together within the budget.
        source: the folder of the finished run whose release is trained on anew; None for a run that looks itself.
    """

    recipe: StatisticsRecipe
    data: RealImages | None
    images: int
    seed: int
    budget: Budget
    look: LookPlan
    source: Path | None = None

    def describe(self) -> list[str]:
        """The plan in lines for people: mechanisms, parameters, share of the budget, and epsilon at every stage."""
        mechanisms = self.look.mechanisms
        training = f"{self.recipe.training.steps:,} steps of the generator on what was released, which cost nothing"
        if self.source is not None:
            spent = epsilon_of(mechanisms, self.budget.delta)
            return [
                f"no image is looked at: {self.source} released what {len(mechanisms)} mechanisms saw, epsilon "
                f"{spent:.3f} at delta {self.budget.delta:g}",
                training,
            ]
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
            f"each of {self.images:,} images with probability {teacher.sampling_probability:.5f}: "
            f"epsilon {alone[0]:.3f}",
            *looks,
            f"then {training}",
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
    budget = budget_of(recipe)
    data = training_images(recipe, data_folder)
    section = recipe.look
    expect_enough("look.teacher_batch_size", section.teacher_batch_size, data)
    scale = calibrated(lambda scale: _mechanisms(recipe, len(data), scale), budget)
    look = _look(recipe, _mechanisms(recipe, len(data), scale))
    return MatchingPlan(recipe=recipe, data=data, images=len(data), seed=seed, budget=budget, look=look)


def plan_matching_anew(run: str | Path, overrides: Sequence[str] = (), seed: int = 0) -> MatchingPlan:
    """Plan another generator on what a finished run released: post-processing, which looks at no image.

    Args:
        run: the folder that the run left, or the name of a built-in checkpoint that comes with its release.
        overrides: ``section.key=value`` changes of its recipe's generator, latents or training.
        seed: 0 to 2^32 - 1.

    Raises:
        UsageError: the seed is out of range, or the run is of another kind or not finished.
        RecipeError: an override is invalid, or changes what was looked at or at which price.
        CheckpointError, PrivacyError: the run's checkpoint, ledger or release is spoilt.
    """
    expect_training_seed(seed)
    checkpoint = load_checkpoint(run)
    source = checkpoint.path
    before, proof = checkpoint.recipe, checkpoint.privacy.proof
    if not isinstance(before, StatisticsRecipe) or proof is None:
        raise UsageError(f"{source}: a run of recipe '{before.name}' releases no statistics to train on anew")
    recipe = with_overrides(before, overrides)
    if not isinstance(recipe, StatisticsRecipe):
        raise RecipeError(f"method: {recipe.method} trains on no release; expected {before.method}")
    for section in ("privacy", "look", "data"):
        if getattr(recipe, section) != getattr(before, section):
            raise RecipeError(f"{section}: what {source} released is released; another look is another run")
    plan = _plan_on(source, recipe, seed)
    if plan.look.mechanisms != proof.ledger.mechanisms or len(plan.look.students) != recipe.look.students:
        raise UsageError(f"{source}: its ledger holds other looks than its checkpoint; finish the run with --resume")
    return plan


def plan_matching_resumed(out: Path) -> MatchingPlan | None:
    """The plan of the interrupted run in ``out`` where it was begun by ``plan_matching_anew``, else None.

    Raises:
        UsageError, RecipeError, PrivacyError: the run's state, ledger or release is spoilt.
    """
    header = read_header(out)
    recipe = Recipe.from_dict(header["recipe"])
    if not header.get("anew") or not isinstance(recipe, StatisticsRecipe):
        return None
    return _plan_on(out, recipe, int(header["seed"]))


def _plan_on(source: Path, recipe: StatisticsRecipe, seed: int) -> MatchingPlan:
    """A plan on the ledger and the release in ``source``."""
    budget = budget_of(recipe)
    for name in (LEDGER_NAME, RELEASE_NAME):
        if not (source / name).is_file():
            raise UsageError(f"{source}: no {name} here; expected the folder that synthgen train left")
    ledger = OpenLedger.open(source / LEDGER_NAME, budget).ledger
    Release.load(source / RELEASE_NAME).expect_outcome_of(ledger, source / RELEASE_NAME)
    look = _look(recipe, ledger.mechanisms)
    images = round(recipe.look.teacher_batch_size / look.teacher.sampling_probability)
    return MatchingPlan(recipe=recipe, data=None, images=images, seed=seed, budget=budget, look=look, source=source)


def _look(recipe: StatisticsRecipe, mechanisms: Sequence[Mechanism]) -> LookPlan:
    teacher, embedding, *students = mechanisms
    return LookPlan(
        teacher=teacher,
        embedding=embedding,
        students=tuple(students),
        learning_rate=recipe.look.teacher_learning_rate,
    )


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
