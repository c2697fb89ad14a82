"""Audits: what an attacker learns from released images or from a private training, beside what is proven.

An audit that reads the real images does so without protection: what it finds is as private as they are. The audit by
looks at neighbours reads none.
"""

from collections.abc import Sequence
from pathlib import Path

from synthgen.audit.images import DEFAULT_IMAGES, ImagesAudit, audit_images
from synthgen.audit.mechanisms import DEFAULT_LOOKS, MechanismsAudit, audit_mechanisms
from synthgen.audit.training import DEFAULT_CANARIES, TrainingAudit, audit_training
from synthgen.errors import UsageError
from synthgen.model.checkpoint import builtin_checkpoints, load_checkpoint
from synthgen.model.recipe import PrivateAdversarialRecipe, builtin_recipes, load_recipe
from synthgen.sets.manifest import MANIFEST_NAME
from synthgen.workers import StageProgress

PRIVATE_NOTE = "an audit reads the real images without protection: what it prints is as private as they are"


def audit(
    target: str,
    data_folder: Path | None = None,
    *,
    canaries: int | None = None,
    looks: int | None = None,
    count: int = DEFAULT_IMAGES,
    overrides: Sequence[str] = (),
    progress: StageProgress = lambda stage, done, of: None,
) -> ImagesAudit | TrainingAudit | MechanismsAudit:
    """Audit what ``target`` names.

    Args:
        target: a checkpoint's name or folder or an exported set's folder (membership inference), or a recipe's name
            or TOML file (the one-run audit; for ``dpgan`` and its like, and with ``looks``, the audit by looks at
            neighbours). A name of both is the checkpoint, unless ``canaries``, ``looks`` or ``overrides`` are given.
        data_folder: the real images; by default see ``synthgen.real_images.find_data``.
        canaries: of the one-run audit; 1,000 by default. Given for a checkpoint, the training by its recipe is audited.
        looks: at each of a recipe's mechanisms, likewise; 1,000 by default for ``dpgan`` and its like.
        count: how many synthetic images membership inference uses.
        overrides: ``key=value`` for a recipe.
        progress: called as the audit goes on.

    Raises:
        SynthgenError: as ``audit_images``, ``audit_training`` and ``audit_mechanisms``; UsageError if the target is
            none of these, or both ``canaries`` and ``looks`` are given.
    """
    folder = Path(target)
    if canaries is not None and looks is not None:
        raise UsageError("--canaries and --looks are two audits; give one of them")
    wants_training = canaries is not None or looks is not None or bool(overrides)
    if (folder / MANIFEST_NAME).is_file():
        if wants_training:
            raise UsageError(
                f"{target}: --canaries, --looks and --set are for the training of a recipe; this is an exported set"
            )
        return audit_images(folder, data_folder, count=count, progress=progress)
    is_checkpoint = target in builtin_checkpoints() or folder.is_dir()
    is_recipe = target in builtin_recipes() or folder.is_file()
    if is_recipe and (wants_training or not is_checkpoint):
        recipe = load_recipe(target, overrides)
    elif not is_checkpoint:
        raise UsageError(f"'{target}': expected a checkpoint, an exported set or a recipe (see: synthgen recipes)")
    elif overrides:
        raise UsageError(f"{target}: --set is for recipes; this is a checkpoint")
    elif not wants_training:
        return audit_images(load_checkpoint(target), data_folder, count=count, progress=progress)
    else:
        recipe = load_checkpoint(target).recipe
    if looks is not None or (canaries is None and isinstance(recipe, PrivateAdversarialRecipe)):
        return audit_mechanisms(recipe, looks=DEFAULT_LOOKS if looks is None else looks, progress=progress)
    wanted = DEFAULT_CANARIES if canaries is None else canaries
    return audit_training(recipe, data_folder, canaries=wanted, progress=progress)
