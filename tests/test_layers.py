"""The architecture: a module imports only from lower layers, and the light ones never TensorFlow."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "synthgen"

LAYERS = [
    {"errors", "fashion"},
    {
        "files",
        "shards",
        "environment",
        "hdf5",
        "crew",
        "png",
        "examples",
        "privacy.mechanisms",
        "privacy.accounting",
        "privacy.per_example",
        "strategy",
    },
    {"batch", "recipe", "pictures", "charts", "fidelity", "neighbours", "privacy.ledger", "replicas"},
    {"generator"},
    {
        "statement",
        "datasets",
        "networks",
        "losses",
        "memorisation",
        "training_state",
        "privacy.teacher",
        "privacy.audit",
        "privacy.canaries",
        "privacy.membership",
    },
    {"features", "student"},
    {"manifest", "privacy.release"},
    {"writers", "readers", "game", "checkpoint", "claim", "classifiers", "training_plan", "privacy.look_audit"},
    {"croissant"},
    {"cards"},
    {
        "training",
        "sampling",
        "integrity",
        "utility",
        "reference",
        "inception",
        "private_game",
        "private_plan",
        "matching",
        "matching_plan",
    },
    {"export_plan", "outputs", "private_folder"},
    {"private_training", "matching_training"},
    {"shard_files"},
    {"ray_engine"},
    {"generation"},
    {"verification", "splits"},
    {"inspection", "subject", "auditing", "doctor"},
    {"evaluation"},
    {"report"},
    {"__init__"},
    {"cli"},
    {"__main__"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
HEAVY = {
    "student",
    "matching_training",
    "privacy.look_audit",
    "classifiers",
    "features",
    "game",
    "inception",
    "losses",
    "matching",
    "networks",
    "privacy.per_example",
    "private_game",
    "reference",
    "replicas",
}
LIGHT = sorted(set(RANK) - HEAVY - {"__main__"})


def imported_modules(path: Path) -> set[str]:
    """The synthgen modules that a file imports, at the top or inside functions, by their names within the package."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("synthgen."):
            module = node.module.removeprefix("synthgen.")
            # `from synthgen.privacy import ledger` imports the module, not a name in it
            submodules = {f"{module}.{alias.name}" for alias in node.names} & set(RANK)
            found |= submodules or {module}
        elif isinstance(node, ast.Import):
            names = (alias.name for alias in node.names)
            found |= {name.removeprefix("synthgen.") for name in names if name.startswith("synthgen.")}
    return found


def module_name(path: Path) -> str:
    """A module's name within the package: ``manifest``, ``privacy.ledger``."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def test_every_module_has_a_layer():
    modules = {module_name(path) for path in PACKAGE.rglob("*.py")}
    assert modules - {"privacy.__init__"} == set(RANK)


def test_subpackages_import_nothing():
    assert not imported_modules(PACKAGE / "privacy/__init__.py")


@pytest.mark.parametrize("name", sorted(RANK))
def test_imports_point_down(name: str):
    upward = {
        other for other in imported_modules(PACKAGE / f"{name.replace('.', '/')}.py") if RANK[other] >= RANK[name]
    }
    assert not upward


def test_light_modules_start_without_tensorflow():
    imports = ", ".join(f"synthgen.{name}" for name in LIGHT if name != "__init__")
    code = f"import sys, {imports}; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
