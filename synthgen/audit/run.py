"""Audits: what an attacker learns from released images or from a private training, beside what is proven.

An audit reads the real images without protection, so what it finds is as private as they are.
"""

from collections.abc import Sequence
from pathlib import Path

from synthgen.audit.images import DEFAULT_IMAGES, ImagesAudit, audit_images
from synthgen.audit.training import DEFAULT_CANARIES, TrainingAudit, audit_training
from synthgen.errors import UsageError
from synthgen.model.checkpoint import builtin_checkpoints, load_checkpoint
from synthgen.model.recipe import builtin_recipes, load_recipe
from synthgen.sets.manifest import MANIFEST_NAME
from synthgen.workers import StageProgress

PRIVATE_NOTE = "an audit reads the real images without protection: what it prints is as private as they are"


def audit(
    target: str,
    data_folder: Path | None = None,
    *,
    canaries: int | None = None,
    count: int = DEFAULT_IMAGES,
    overrides: Sequence[str] = (),
    progress: StageProgress = lambda stage, done, of: None,
) -> ImagesAudit | TrainingAudit:
    """Audit what ``target`` names.

    Args:
        target: a checkpoint's name or folder or an exported set's folder (membership inference), or a recipe's name
            or TOML file (the one-run audit). A name of both is the checkpoint, unless ``canaries`` or ``overrides``
            are given.
        data_folder: the real images; by default see ``synthgen.real_images.find_data``.
        canaries: of the one-run audit; 1,000 by default. Given for a checkpoint, the training by its recipe is audited.
        count: how many synthetic images membership inference uses.
        overrides: ``key=value`` for a recipe.
        progress: called as the audit goes on.

    Raises:
        SynthgenError: as ``audit_images`` and ``audit_training``; UsageError if the target is none of these.
    """
    folder = Path(target)
    wants_training = canaries is not None or bool(overrides)
    if (folder / MANIFEST_NAME).is_file():
        if wants_training:
            raise UsageError(
                f"{target}: --canaries and --set are for the training of a recipe; this is an exported set"
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
    elif canaries is None:
        return audit_images(load_checkpoint(target), data_folder, count=count, progress=progress)
    else:
        recipe = load_checkpoint(target).recipe
    wanted = DEFAULT_CANARIES if canaries is None else canaries
    return audit_training(recipe, data_folder, canaries=wanted, progress=progress)
