"""The audit of a recipe's private mechanisms, one by one, by many looks at chosen neighbours; needs no real images."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from synthgen.audit.neighbours import PairAudit, audit_pair
from synthgen.errors import UsageError
from synthgen.model.recipe import PrivateAdversarialRecipe, Recipe, StatisticsRecipe
from synthgen.workers import StageProgress

if TYPE_CHECKING:
    from synthgen.audit.neighbours import Pair

DEFAULT_LOOKS = 1_000
MIN_LOOKS, MAX_LOOKS = 100, 1_000_000


@dataclass(frozen=True, kw_only=True)
class MechanismsAudit:
    """What many looks at each mechanism of a recipe showed.

    Attributes:
        recipe: its name.
        recipe_sha256: its identity.
        confidence: the probability with which sound mechanisms are not contradicted, all of them together.
        results: one of each pair of neighbours, each at the confidence that this takes (a union bound).
    """

    reads_images: ClassVar[bool] = False

    recipe: str
    recipe_sha256: str
    confidence: float
    results: tuple[PairAudit, ...]

    @property
    def contradicted(self) -> bool:
        """Whether a claim is refuted: then the code does not do what is claimed."""
        return any(result.contradicted for result in self.results)

    def summary(self) -> list[str]:
        """The result as lines to read."""
        verdict = "does not contradict the claims, nor confirm them"
        if self.contradicted:
            broken = "; ".join(result.name for result in self.results if result.contradicted)
            verdict = f"CONTRADICTS the claim of {broken}: the code does not do what is claimed; release nothing of it"
        delta = self.results[0].delta
        return [
            f"{'audited':<14}the mechanisms of recipe {self.recipe} {self.recipe_sha256[:12]}, a look at a time, at "
            f"noise multiplier {self.results[0].noise_multiplier:g}",
            f"{'attack':<14}guess which of two neighbours was looked at; epsilon of one look at delta {delta:.3g}, "
            f"all bounds together with {self.confidence:.0%} confidence",
            *(f"{'shown':<14}{_line(result)}" for result in self.results),
            f"{'verdict':<14}the audit {verdict}",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        results = [asdict(result) | {"contradicted": result.contradicted} for result in self.results]
        return {"audit": "neighbours"} | asdict(self) | {"contradicted": self.contradicted, "results": results}


def audit_mechanisms(
    recipe: Recipe,
    *,
    looks: int = DEFAULT_LOOKS,
    confidence: float = 0.99,
    progress: StageProgress = lambda stage, done, of: None,
) -> MechanismsAudit:
    """Look many times at neighbours chosen for each private mechanism of a recipe.

    Args:
        recipe: a private one.
        looks: 100 to 1,000,000 at each mechanism; and a tenth as many at a full batch.
        confidence: of all bounds together; above 0, below 1.
        progress: called as the looks go on.

    Raises:
        UsageError: the recipe is not private, or a number is out of range.
    """
    if not MIN_LOOKS <= looks <= MAX_LOOKS:
        raise UsageError(f"looks {looks:,}: expected {MIN_LOOKS} to {MAX_LOOKS:,}")
    if not 0 < confidence < 1:
        raise UsageError(f"confidence {confidence}: expected a number between 0 and 1")
    pairs = _pairs(recipe)
    assert recipe.privacy is not None  # a private recipe has a budget
    each = 1 - (1 - confidence) / len(pairs)
    results = tuple(
        audit_pair(
            pair,
            looks=looks // pair.slowness,
            delta=recipe.privacy.delta,
            confidence=each,
            progress=_named(progress, pair.name),
        )
        for pair in pairs
    )
    return MechanismsAudit(recipe=recipe.name, recipe_sha256=recipe.sha256, confidence=confidence, results=results)


def _pairs(recipe: Recipe) -> "list[Pair]":
    if not isinstance(recipe, StatisticsRecipe | PrivateAdversarialRecipe):
        raise UsageError(
            f"recipe '{recipe.name}' trains without a guarantee that could be audited; audit a private recipe, or a "
            "checkpoint for what its images betray"
        )
    from synthgen.environment import import_tensorflow

    import_tensorflow()

    from synthgen.audit.pairs import discriminator_pairs, look_pairs

    return look_pairs() if isinstance(recipe, StatisticsRecipe) else discriminator_pairs(recipe)


def _named(progress: StageProgress, name: str) -> Callable[[int, int], None]:
    return lambda done, of: progress(name, done, of)


def _line(result: PairAudit) -> str:
    guessed = f"{result.correct:,} of {result.looks:,} guesses right"
    if result.mu_lower_bound is None or result.epsilon_lower_bound is None:
        return f"{result.name}: {guessed}, which no noise explains; proven epsilon {result.epsilon:.3f}"
    return f"{result.name}: {guessed}, epsilon at least {result.epsilon_lower_bound:.3f}, proven {result.epsilon:.3f}"
