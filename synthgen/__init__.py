"""synthgen: labelled synthetic Fashion-MNIST sets in which every pixel can be reproduced.

    >>> import synthgen
    >>> checkpoint = synthgen.load_checkpoint()
    >>> export = synthgen.plan_export(checkpoint, count=60_000, file_format="tfrecord")
    >>> manifest = synthgen.generate(checkpoint, export, Path("dataset"))  # doctest: +SKIP

The names below are the public ones; they are imported when first used, and TensorFlow only by what needs it.
"""

__version__ = "0.3.0"
TYPE_CHECKING = False  # type checkers take it for true; ``python -m`` would import ``typing`` from the working folder

if TYPE_CHECKING:  # the one list of public names: type checkers take it as it stands, and ``_homes`` reads it below
    from synthgen.doctor import diagnose as diagnose
    from synthgen.errors import SynthgenError as SynthgenError
    from synthgen.evaluation.report import write_report as write_report
    from synthgen.evaluation.run import Evaluation as Evaluation
    from synthgen.evaluation.run import evaluate as evaluate
    from synthgen.export.plan import Job as Job
    from synthgen.export.plan import plan_export as plan_export
    from synthgen.export.run import generate as generate
    from synthgen.export.run import generate_share as generate_share
    from synthgen.export.run import merge as merge
    from synthgen.export.shard import generate_shard as generate_shard
    from synthgen.export.splits import generate_splits as generate_splits
    from synthgen.export.splits import plan_splits as plan_splits
    from synthgen.model.checkpoint import Checkpoint as Checkpoint
    from synthgen.model.checkpoint import load_checkpoint as load_checkpoint
    from synthgen.model.conversion import convert as convert
    from synthgen.model.recipe import Recipe as Recipe
    from synthgen.model.recipe import builtin_recipes as builtin_recipes
    from synthgen.model.recipe import load_recipe as load_recipe
    from synthgen.preparation.run import prepare as prepare
    from synthgen.real_images import load_real_images as load_real_images
    from synthgen.sets.account import account as account
    from synthgen.sets.manifest import Manifest as Manifest
    from synthgen.sets.manifest import load_manifest as load_manifest
    from synthgen.sets.reading import read_set as read_set
    from synthgen.sets.verification import verify as verify
    from synthgen.training.adversarial import plan_training as plan_training
    from synthgen.training.dpgan import plan_private_training as plan_private_training
    from synthgen.training.matching.plan import plan_matching as plan_matching
    from synthgen.training.matching.plan import plan_matching_anew as plan_matching_anew
    from synthgen.training.plan import plan as plan
    from synthgen.training.run import train as train
    from synthgen.training.run import train_by_matching as train_by_matching
    from synthgen.training.run import train_privately as train_privately
    from synthgen.training.strategy import choose_strategy as choose_strategy
else:
    _found = {}

    def _homes():
        """Public name → module, from the imports above, as they stand in this file."""
        if _found:
            return _found
        import ast
        import importlib.resources

        tree = ast.parse(importlib.resources.files(__name__).joinpath("__init__.py").read_text("utf-8"))
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        _found.update({alias.asname: node.module for node in imports for alias in node.names if alias.asname})
        return _found

    def __getattr__(name):
        if name == "__all__":
            return sorted(_homes())
        if name.startswith("_") or name not in _homes():
            raise AttributeError(f"module 'synthgen' has no attribute '{name}'")
        import importlib

        value = getattr(importlib.import_module(_homes()[name]), name)
        globals()[name] = value
        return value
