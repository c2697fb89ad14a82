"""Plans of training on released statistics: what a run will cost, known before it looks at an image."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from synthgen.errors import PrivacyError, RecipeError, UsageError
from synthgen.model.checkpoint import load_checkpoint
from synthgen.model.recipe import StatisticsRecipe, with_overrides
from synthgen.privacy.accounting import Mechanism, calibrated
from synthgen.privacy.ledger import LEDGER_NAME, Ledger, OpenLedger
from synthgen.privacy.selection import Selection
from synthgen.training.images import enough_images, of_data
from synthgen.training.matching.fitting import fitted
from synthgen.training.matching.looks import LookPlan
from synthgen.training.matching.release import RELEASE_NAME, Release
from synthgen.training.matching.run import MatchingPlan
from synthgen.training.private import expect_small_delta
from synthgen.training.run import expect_seed

_CLIP_NORM = 1.0  # of the teacher's gradients; the embedding's sensitivity is 1 by construction


def plan_matching(
    recipe: StatisticsRecipe,
    data_folder: Path | None = None,
    seed: int = 0,
    selection: Selection | None = None,
) -> MatchingPlan:
    """``synthgen.plan`` for a recipe like ``private``: noise by the budget, which pays for a selection, too.

    Raises:
        UsageError: the seed is out of range, or the teacher's batch larger than the data.
        PrivacyError: the budget is out of range, or its delta not below 1 / the number of images.
        DataError: the real images are missing or malformed.
    """
    expect_seed(seed)
    data = enough_images(recipe, data_folder, "look.teacher_batch_size", recipe.look.teacher_batch_size)
    recipe = fitted(of_data(recipe, data), len(data))
    expect_small_delta(recipe.privacy, len(data))
    scale = calibrated(lambda scale: Ledger(_mechanisms(recipe, len(data), scale), selection).charges, recipe.privacy)
    look = _look(recipe, _mechanisms(recipe, len(data), scale))
    return MatchingPlan(recipe=recipe, data=data, images=len(data), seed=seed, look=look, selection=selection)


def with_settings(plan: MatchingPlan, recipe: StatisticsRecipe) -> MatchingPlan:
    """The same plan, at the same noise, for another recipe."""
    mechanisms = _mechanisms(recipe, plan.images, plan.look.teacher.noise_multiplier)
    return replace(plan, recipe=recipe, look=_look(recipe, mechanisms))


def plan_matching_anew(run: str | Path, overrides: Sequence[str] = (), seed: int = 0) -> MatchingPlan:
    """Plan another generator on what a finished run released: post-processing, without a look at any image.

    Args:
        run: the folder that the run left, or the name of a built-in checkpoint that comes with its release.
        overrides: ``section.key=value`` changes of its recipe's generator, latents or training.
        seed: 0 to 2^32 - 1.

    Raises:
        UsageError: the seed is out of range, or the run is of another kind or not finished.
        RecipeError: an override is invalid, or changes the data, the looks or their budget.
        CheckpointError, PrivacyError: the run's checkpoint, ledger or release is spoilt.
    """
    expect_seed(seed)
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
    plan = plan_on_release(source, recipe, seed)
    if proof.run is not None and Release.load(source / RELEASE_NAME).sha256 != proof.release_sha256:
        raise PrivacyError(f"{source / RELEASE_NAME}: not the release that the checkpoint names; fetch both anew")
    if plan.look.mechanisms != proof.ledger.mechanisms or len(plan.look.students) != recipe.look.students:
        raise UsageError(f"{source}: its ledger holds other looks than its checkpoint; finish the run with --resume")
    return plan


def plan_on_release(source: Path, recipe: StatisticsRecipe, seed: int) -> MatchingPlan:
    """A plan on the ledger and the release in ``source``, a run that is finished or is itself such a run.

    Raises:
        UsageError: one of both is missing.
        PrivacyError: one is spoilt, or the ledger of another budget.
    """
    for name in (LEDGER_NAME, RELEASE_NAME):
        if not (source / name).is_file():
            raise UsageError(f"{source}: no {name} here; expected the folder that synthgen train left")
    record = OpenLedger.open(source / LEDGER_NAME, recipe.privacy).record
    Release.load(source / RELEASE_NAME).expect_outcome_of(record, source / RELEASE_NAME)
    look = _look(recipe, record.ledger.mechanisms)
    images = round(recipe.look.teacher_batch_size / look.teacher.sampling_probability)
    return MatchingPlan(
        recipe=recipe, data=None, images=images, seed=seed, look=look, source=source, selection=record.ledger.selection
    )


def _look(recipe: StatisticsRecipe, mechanisms: Sequence[Mechanism]) -> LookPlan:
    teacher, embedding, *students = mechanisms
    return LookPlan(
        teacher=teacher,
        embedding=embedding,
        students=tuple(students),
        learning_rate=recipe.look.teacher_learning_rate,
        classes=recipe.classes,
    )


def _mechanisms(recipe: StatisticsRecipe, images: int, scale: float) -> tuple[Mechanism, ...]:
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
