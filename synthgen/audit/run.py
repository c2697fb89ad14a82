"""Audits: what an attacker gets out of a released set, and out of a private training, beside what is proven.

An audit looks at the real images without protection. What it finds is as private as they are.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synthgen.audit.canaries import MAX_DECODED_CANARIES, pattern_canaries
from synthgen.audit.membership import FALSE_POSITIVE_RATE, Attack, Membership, infer_membership
from synthgen.audit.membership import largest_true_positive_rate as largest_rate
from synthgen.audit.one_run import MAX_CANARIES, MIN_CANARIES, Auditable, OneRunAudit, one_run_audit
from synthgen.errors import UsageError
from synthgen.fashion import Images
from synthgen.index import Shard
from synthgen.model.checkpoint import Checkpoint, builtin_checkpoints, load_checkpoint
from synthgen.model.recipe import Recipe, builtin_recipes, load_recipe
from synthgen.model.sampling import Sampler
from synthgen.privacy.statement import PrivacyStatement
from synthgen.real_images import find_data, load_real_images
from synthgen.sets.manifest import MANIFEST_NAME, load_manifest
from synthgen.sets.reading import read_set
from synthgen.training.plan import training_images
from synthgen.workers import StageProgress

DEFAULT_CANARIES, DEFAULT_IMAGES = 1_000, 10_000
PRIVATE_NOTE = "an audit looks at the real images unprotected: what it prints is as private as they are"


@dataclass(frozen=True, kw_only=True)
class SetAudit:
    """Membership inference on a set.

    Attributes:
        subject: what was attacked, in words.
        checkpoint_sha256: what drew the images.
        sentence: the claim of its privacy statement.
        epsilon, delta: what is proven of it; None where nothing is.
        largest_true_positive_rate: what the proof lets any attack find at 1 % false positives; None without a proof.
        membership: what these attacks found.
    """

    subject: str
    checkpoint_sha256: str
    sentence: str
    epsilon: float | None
    delta: float | None
    largest_true_positive_rate: float | None
    membership: Membership

    def summary(self) -> list[str]:
        """The result as lines to read."""
        found = self.membership
        sizes = f"{found.images:,} synthetic, {found.members:,} training and {found.non_members:,} unseen real images"
        bound = self.largest_true_positive_rate
        proven = "nothing" if self.epsilon is None else f"epsilon {self.epsilon:.4g} at delta {self.delta:.3g}"
        return [
            f"{'audited':<14}{self.subject}",
            f"{'proven':<14}{proven}. {self.sentence}",
            f"{'attack':<14}membership inference: {sizes}; intervals of {found.confidence:.0%}",
            f"{'distance':<14}{_attack_line(found.distance)}",
            f"{'calibrated':<14}{_attack_line(found.calibrated)}",
            f"{'chance':<14}AUC 0.5, {FALSE_POSITIVE_RATE:.1%} found"
            + ("" if bound is None else f"; the proof lets no attack find more than {bound:.1%}"),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return {"audit": "membership inference"} | asdict(self)


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


@dataclass(frozen=True, kw_only=True)
class PreparedAudit:
    """A training to be audited: the mechanism with its canaries, and the (epsilon, delta) proven of the very run."""

    mechanism: Auditable
    epsilon: float
    delta: float


Prepare = Callable[[Recipe, Path | None, int, StageProgress], PreparedAudit]

# How each method of private training is audited: (recipe, data folder, number of canaries, progress). What it
# prepares writes at most into a temporary folder: a training with canaries in its data is never to be released.
PREPARATIONS: dict[str, Prepare] = {}


def _prepare_look(recipe: Recipe, folder: Path | None, canaries: int, progress: StageProgress) -> PreparedAudit:
    """A recipe trained on released statistics: its first look, the teacher and the embedding.

    The students' looks are not run: each is the embedding's mechanism again, on other features.
    """
    from synthgen.audit.look_audit import LookAudit
    from synthgen.environment import import_tensorflow
    from synthgen.model.recipe import StatisticsRecipe
    from synthgen.privacy.accounting import epsilon_of
    from synthgen.training.matching.plan import plan_matching

    assert isinstance(recipe, StatisticsRecipe)
    import_tensorflow()
    plan = plan_matching(recipe, folder)
    assert plan.data is not None  # only a plan on an earlier release has none
    mechanism = LookAudit(
        images=plan.data.images,
        labels=plan.data.labels,
        planted=pattern_canaries(canaries),
        plan=plan.look,
        progress=progress,
    )
    epsilon = epsilon_of([plan.look.teacher, plan.look.embedding], plan.budget.delta)
    return PreparedAudit(mechanism=mechanism, epsilon=epsilon, delta=plan.budget.delta)


PREPARATIONS["released_statistics"] = _prepare_look


def audit_checkpoint(
    checkpoint: Checkpoint,
    data_folder: Path | None = None,
    *,
    count: int = DEFAULT_IMAGES,
    seed: int = 0,
    confidence: float = 0.95,
    progress: StageProgress = lambda stage, done, of: None,
) -> SetAudit:
    """Draw images from a checkpoint and attack them.

    Args:
        checkpoint: trained on the official training images or some of them.
        data_folder: the real images; by default see ``synthgen.real_images.find_data``.
        count: how many images to draw.
        seed: of the drawing.
        confidence: of the intervals.
        progress: called as the audit goes on.

    Raises:
        UsageError: the generator saw the test images too, so that there are no non-members; or ``count`` is below 1.
        DataError: the real images are missing or not the official ones.
        EvaluationError: there are too few real images to judge by.
    """
    if count < 1:
        raise UsageError(f"count {count}: expected at least 1")
    members, non_members = _members(checkpoint.recipe, data_folder)
    images = np.concatenate(list(_drawn(checkpoint, seed, count, progress)))
    return _set_audit(
        f"{count:,} images of seed {seed} from checkpoint {checkpoint.name} {checkpoint.sha256[:12]}",
        checkpoint.sha256,
        checkpoint.privacy,
        infer_membership(images, members, non_members, confidence=confidence, progress=progress),
    )


def audit_set(
    folder: Path,
    data_folder: Path | None = None,
    *,
    count: int = DEFAULT_IMAGES,
    confidence: float = 0.95,
    progress: StageProgress = lambda stage, done, of: None,
) -> SetAudit:
    """Attack the first ``count`` images of an exported set; otherwise as ``audit_checkpoint``.

    Raises:
        VerificationError: the folder is no set, or is not what its manifest claims.
    """
    if count < 1:
        raise UsageError(f"count {count}: expected at least 1")
    manifest = load_manifest(folder)
    members, non_members = _members(Recipe.from_dict(manifest.checkpoint.recipe), data_folder)
    parts: list[Images] = []
    for batch in read_set(folder, manifest):
        parts.append(batch.images)
        if sum(map(len, parts)) >= count:
            break
    images = np.concatenate(parts)[:count]
    return _set_audit(
        f"{len(images):,} images of the set {folder}",
        manifest.checkpoint.sha256,
        manifest.privacy,
        infer_membership(images, members, non_members, confidence=confidence, progress=progress),
    )


def audit_training(
    recipe: Recipe,
    data_folder: Path | None = None,
    *,
    canaries: int = DEFAULT_CANARIES,
    confidence: float = 0.95,
    progress: StageProgress = lambda stage, done, of: None,
) -> TrainingAudit:
    """Run a private recipe's training once with canaries among its data, and leave nothing behind.

    Args:
        recipe: with a privacy section.
        data_folder: the real images; by default see ``synthgen.real_images.find_data``.
        canaries: 20 to 5,000; each is included with probability 1/2.
        confidence: of the lower bound.
        progress: called as the training goes on.

    Raises:
        UsageError: the recipe is not private, or a number is out of range.
        DataError: the real images are missing or not the official ones.
    """
    if recipe.privacy is None or recipe.method not in PREPARATIONS:
        raise UsageError(
            f"recipe '{recipe.name}' trains without a guarantee that could be audited; audit a private recipe, or a "
            "checkpoint for what its images betray"
        )
    most = min(MAX_CANARIES, MAX_DECODED_CANARIES)
    if not MIN_CANARIES <= canaries <= most:
        raise UsageError(f"canaries {canaries:,}: expected {MIN_CANARIES} to {most:,}")
    prepared = PREPARATIONS[recipe.method](recipe, data_folder, canaries, progress)
    result = one_run_audit(prepared.mechanism, delta=prepared.delta, confidence=confidence)
    return TrainingAudit(
        recipe=recipe.name,
        recipe_sha256=recipe.sha256,
        epsilon=prepared.epsilon,
        contradicted=result.contradicts(prepared.epsilon),
        result=result,
    )


def audit(
    target: str,
    data_folder: Path | None = None,
    *,
    canaries: int | None = None,
    count: int = DEFAULT_IMAGES,
    overrides: Sequence[str] = (),
    progress: StageProgress = lambda stage, done, of: None,
) -> SetAudit | TrainingAudit:
    """Audit whatever ``target`` names.

    Args:
        target: a checkpoint's name or folder or an exported set's folder (membership inference), or a recipe's name
            or TOML file (the one-run audit). A name of both is the checkpoint, unless ``canaries`` is given.
        data_folder: the real images.
        canaries: of the one-run audit; 1,000 by default. Given for a checkpoint, the training by its recipe is audited.
        count: how many synthetic images membership inference looks at.
        overrides: ``key=value`` for a recipe.
        progress: called as the audit goes on.

    Raises:
        SynthgenError: as ``audit_checkpoint``, ``audit_set`` and ``audit_training``; UsageError if it is none of them.
    """
    folder = Path(target)
    wants_training = canaries is not None or bool(overrides)
    if (folder / MANIFEST_NAME).is_file():
        if wants_training:
            raise UsageError(
                f"{target}: --canaries and --set are for the training of a recipe; this is an exported set"
            )
        return audit_set(folder, data_folder, count=count, progress=progress)
    is_checkpoint = target in builtin_checkpoints() or folder.is_dir()
    is_recipe = target in builtin_recipes() or folder.is_file()
    if is_recipe and (wants_training or not is_checkpoint):
        recipe = load_recipe(target, overrides)
    elif not is_checkpoint:
        raise UsageError(f"'{target}': expected a checkpoint, an exported set or a recipe (see: synthgen recipes)")
    elif overrides:
        raise UsageError(f"{target}: --set is for recipes; this is a checkpoint")
    elif canaries is None:
        return audit_checkpoint(load_checkpoint(target), data_folder, count=count, progress=progress)
    else:
        recipe = load_checkpoint(target).recipe
    wanted = DEFAULT_CANARIES if canaries is None else canaries
    return audit_training(recipe, data_folder, canaries=wanted, progress=progress)


def _members(recipe: Recipe, folder: Path | None) -> tuple[Images, Images]:
    """The images a recipe trains on, and the test images."""
    if "test" in recipe.data.images:
        raise UsageError(
            f"recipe '{recipe.name}' trains on the test images too: no real images are left to compare with"
        )
    folder = find_data(folder)
    members = training_images(recipe, folder).images
    return members, load_real_images("test", folder, official=recipe.data.official).images


def _drawn(checkpoint: Checkpoint, seed: int, count: int, progress: StageProgress) -> Iterator[Images]:
    for batch in Sampler.of(checkpoint, seed).shard(Shard(index=0, of=1, start=0, count=count)):
        yield batch.images
        progress("drawing images", batch.start + len(batch.images), count)


def _set_audit(subject: str, sha256: str, privacy: PrivacyStatement, membership: Membership) -> SetAudit:
    privacy.expect_proven()
    proof = privacy.proof
    epsilon = None if proof is None else proof.ledger.epsilon(proof.delta)  # anew, even where its value is well known
    return SetAudit(
        subject=subject,
        checkpoint_sha256=sha256,
        sentence=privacy.sentence,
        epsilon=epsilon,
        delta=None if proof is None else proof.delta,
        largest_true_positive_rate=None if proof is None or epsilon is None else largest_rate(epsilon, proof.delta),
        membership=membership,
    )


def _attack_line(attack: Attack) -> str:
    low, high = attack.auc_interval
    least, most = attack.true_positive_interval
    return (
        f"AUC {attack.auc:.4f} ({low:.4f} to {high:.4f}); at {attack.false_positive_rate:.1%} false positives "
        f"{attack.true_positive_rate:.2%} of the members found ({least:.2%} to {most:.2%})"
    )
