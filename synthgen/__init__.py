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
    "Recipe": "recipe",
    "load_recipe": "recipe",
    "builtin_recipes": "recipe",
    "load_real_images": "datasets",
    "Checkpoint": "checkpoint",
    "load_checkpoint": "checkpoint",
    "plan_training": "training_plan",
    "choose_strategy": "strategy",
    "train": "training",
    "plan_matching": "matching_plan",
    "plan_matching_anew": "matching_plan",
    "train_by_matching": "matching_training",
    "plan_private_training": "private_plan",
    "train_privately": "private_training",
    "plan_export": "export_plan",
    "Job": "export_plan",
    "generate_shard": "shard_files",
    "generate": "generation",
    "generate_share": "generation",
    "merge": "generation",
    "Manifest": "manifest",
    "load_manifest": "manifest",
    "verify": "verification",
    "read_set": "verification",
    "Evaluation": "evaluation",
    "evaluate": "evaluation",
    "write_report": "report",
    "diagnose": "doctor",
    "plan_splits": "splits",
    "generate_splits": "splits",
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
    from synthgen.checkpoint import Checkpoint, load_checkpoint
    from synthgen.datasets import load_real_images
    from synthgen.doctor import diagnose
    from synthgen.errors import SynthgenError
    from synthgen.evaluation import Evaluation, evaluate
    from synthgen.export_plan import Job, plan_export
    from synthgen.generation import generate, generate_share, merge
    from synthgen.manifest import Manifest, load_manifest
    from synthgen.matching_plan import plan_matching, plan_matching_anew
    from synthgen.matching_training import train_by_matching
    from synthgen.private_plan import plan_private_training
    from synthgen.private_training import train_privately
    from synthgen.recipe import Recipe, builtin_recipes, load_recipe
    from synthgen.report import write_report
    from synthgen.shard_files import generate_shard
    from synthgen.splits import generate_splits, plan_splits
    from synthgen.strategy import choose_strategy
    from synthgen.training import train
    from synthgen.training_plan import plan_training
    from synthgen.verification import read_set, verify


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'synthgen' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"synthgen.{_HOME[name]}"), name)
    globals()[name] = value
    return value
