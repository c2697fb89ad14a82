"""The one-run audit of a private recipe's training: the code as it is run, beside the epsilon proven of it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from synthgen.audit.canaries import MAX_DECODED_CANARIES, pattern_canaries
from synthgen.audit.one_run import MIN_CANARIES, Auditable, OneRunAudit, one_run_audit
from synthgen.errors import UsageError
from synthgen.model.recipe import PrivateAdversarialRecipe, Recipe, StatisticsRecipe
from synthgen.workers import StageProgress

DEFAULT_CANARIES = 1_000


@dataclass(frozen=True, kw_only=True)
class TrainingAudit:
    """The one-run audit of a private recipe's training.

    Attributes:
        recipe: its name.
        recipe_sha256: its identity.
        epsilon: proven, at ``result.delta``, for the mechanisms as they were run in the audit.
        contradicted: whether the audit refutes the proof: then the code does not do what is claimed.
        result: what the audit found.
    """

    reads_images: ClassVar[bool] = True

    recipe: str
    recipe_sha256: str
    epsilon: float
    contradicted: bool
    result: OneRunAudit

    def summary(self) -> list[str]:
        """The result as lines to read."""
        found = self.result
        verdict = "does not contradict the proof, nor confirm it"
        if self.contradicted:
            verdict = "CONTRADICTS the proof: the training does not do what is claimed; do not release its checkpoints"
        elif found.largest_provable <= self.epsilon:
            verdict = (
                f"cannot contradict the proof: {found.canaries:,} canaries never show more than epsilon "
                f"{found.largest_provable:.2f}; audit the recipe at a smaller epsilon"
            )
        separation = "" if found.separation is None else f", {found.separation:.2f} standard deviations apart"
        return [
            f"{'audited':<14}training of recipe {self.recipe} {self.recipe_sha256[:12]}",
            f"{'proven':<14}epsilon at most {self.epsilon:.4g} at delta {found.delta:.3g}",
            f"{'attack':<14}one run, {found.canaries:,} canaries, {found.included:,} of them included: "
            f"{found.correct:,} of {found.guesses:,} guesses right{separation}",
            f"{'shown':<14}epsilon at least {found.epsilon_lower_bound:.3f} at delta {found.delta:.3g}, "
            f"with {found.confidence:.0%} confidence",
            f"{'verdict':<14}the audit {verdict}",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return {"audit": "one run"} | asdict(self)


def audit_training(
    recipe: Recipe,
    data_folder: Path | None = None,
    *,
    canaries: int = DEFAULT_CANARIES,
    confidence: float = 0.95,
    progress: StageProgress = lambda stage, done, of: None,
) -> TrainingAudit:
    """Run a private recipe's training once with canaries among its data; nothing of it is kept.

    Args:
        recipe: one that is trained on released statistics.
        data_folder: the real images; by default see ``synthgen.real_images.find_data``.
        canaries: 20 to 5,000; each is included with probability 1/2.
        confidence: of the lower bound.
        progress: called as the training goes on.

    Raises:
        UsageError: the recipe is not private, its method has no audit, or a number is out of range.
        DataError: the real images are missing or not the official ones.
    """
    if isinstance(recipe, PrivateAdversarialRecipe):
        raise UsageError(f"recipe '{recipe.name}': its training is audited by looks, not by canaries (--looks)")
    if not isinstance(recipe, StatisticsRecipe):
        raise UsageError(
            f"recipe '{recipe.name}' trains without a guarantee that could be audited; audit a private recipe, or a "
            "checkpoint for what its images betray"
        )
    if not MIN_CANARIES <= canaries <= MAX_DECODED_CANARIES:
        raise UsageError(f"canaries {canaries:,}: expected {MIN_CANARIES} to {MAX_DECODED_CANARIES:,}")
    mechanism, epsilon, delta = _first_look(recipe, data_folder, canaries, progress)
    result = one_run_audit(mechanism, delta=delta, confidence=confidence)
    return TrainingAudit(
        recipe=recipe.name,
        recipe_sha256=recipe.sha256,
        epsilon=epsilon,
        contradicted=result.contradicts(epsilon),
        result=result,
    )


def _first_look(
    recipe: StatisticsRecipe, folder: Path | None, canaries: int, progress: StageProgress
) -> tuple[Auditable, float, float]:
    """The first look, teacher and embedding, with canaries among its images; and the epsilon and delta proven of it.

    The students' looks are not run: each is the embedding's mechanism again, on other features.
    """
    from synthgen.environment import import_tensorflow

    import_tensorflow()

    from synthgen.audit.look_audit import LookAudit
    from synthgen.privacy.accounting import epsilon_of
    from synthgen.training.matching.plan import plan_matching

    plan = plan_matching(recipe, folder)
    assert plan.data is not None  # only a plan on an earlier release has none
    mechanism = LookAudit(
        images=plan.data.images,
        labels=plan.data.labels,
        planted=pattern_canaries(canaries, classes=plan.recipe.classes),
        plan=plan.look,
        progress=progress,
    )
    delta = plan.recipe.privacy.delta
    return mechanism, epsilon_of([plan.look.teacher, plan.look.embedding], delta), delta
