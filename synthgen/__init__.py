"""synthgen: labelled synthetic Fashion-MNIST sets in which every pixel can be reproduced.

    >>> import synthgen
    >>> checkpoint = synthgen.load_checkpoint()
    >>> export = synthgen.plan_export(checkpoint, count=60_000, file_format="tfrecord")
    >>> manifest = synthgen.generate(checkpoint, export, Path("dataset"))  # doctest: +SKIP

The names below are the public ones; they are imported when first used, and TensorFlow only by what needs it.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_HOME = {
    "SynthgenError": "errors",
    "Recipe": "model.recipe",
    "load_recipe": "model.recipe",
    "builtin_recipes": "model.recipe",
    "load_real_images": "real_images",
    "Checkpoint": "model.checkpoint",
    "load_checkpoint": "model.checkpoint",
    "plan_training": "training.plan",
    "choose_strategy": "training.strategy",
    "train": "training.adversarial",
    "plan_matching": "training.matching.plan",
    "plan_matching_anew": "training.matching.plan",
    "train_by_matching": "training.matching.run",
    "plan_private_training": "training.dpgan_plan",
    "train_privately": "training.dpgan",
    "plan_export": "export.plan",
    "Job": "export.plan",
    "generate_shard": "export.shard",
    "generate": "export.run",
    "generate_share": "export.run",
    "merge": "export.run",
    "Manifest": "sets.manifest",
    "load_manifest": "sets.manifest",
    "verify": "sets.verification",
    "read_set": "sets.reading",
    "Evaluation": "evaluation.run",
    "evaluate": "evaluation.run",
    "write_report": "evaluation.report",
    "diagnose": "doctor",
    "plan_splits": "export.splits",
    "generate_splits": "export.splits",
}

__all__ = [
    "Checkpoint",
    "Evaluation",
    "Job",
    "Manifest",
    "Recipe",
    "SynthgenError",
    "builtin_recipes",
    "choose_strategy",
    "diagnose",
    "evaluate",
    "generate",
    "generate_shard",
    "generate_share",
    "generate_splits",
    "load_checkpoint",
    "load_manifest",
    "load_real_images",
    "load_recipe",
    "merge",
    "plan_export",
    "plan_matching",
    "plan_matching_anew",
    "plan_private_training",
    "plan_splits",
    "plan_training",
    "read_set",
    "train",
    "train_by_matching",
    "train_privately",
    "verify",
    "write_report",
]

if TYPE_CHECKING:
    from synthgen.doctor import diagnose
    from synthgen.errors import SynthgenError
    from synthgen.evaluation.report import write_report
    from synthgen.evaluation.run import Evaluation, evaluate
    from synthgen.export.plan import Job, plan_export
    from synthgen.export.run import generate, generate_share, merge
    from synthgen.export.shard import generate_shard
    from synthgen.export.splits import generate_splits, plan_splits
    from synthgen.model.checkpoint import Checkpoint, load_checkpoint
    from synthgen.model.recipe import Recipe, builtin_recipes, load_recipe
    from synthgen.real_images import load_real_images
    from synthgen.sets.manifest import Manifest, load_manifest
    from synthgen.sets.reading import read_set
    from synthgen.sets.verification import verify
    from synthgen.training.adversarial import train
    from synthgen.training.dpgan import train_privately
    from synthgen.training.dpgan_plan import plan_private_training
    from synthgen.training.matching.plan import plan_matching, plan_matching_anew
    from synthgen.training.matching.run import train_by_matching
    from synthgen.training.plan import plan_training
    from synthgen.training.strategy import choose_strategy


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'synthgen' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"synthgen.{_HOME[name]}"), name)
    globals()[name] = value
    return value
