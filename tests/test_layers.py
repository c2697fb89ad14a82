"""The architecture: a module imports only from lower layers, and the light ones never TensorFlow."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "synthgen"

LAYERS = [
    {"errors", "fashion"},
    {"files", "shards", "statement", "environment", "hdf5"},
    {"batch", "recipe", "pictures", "charts", "fidelity", "neighbours"},
    {"manifest", "datasets", "networks", "losses", "memorisation", "training_state"},
    {"writers", "readers", "game", "checkpoint", "claim", "classifiers", "training_plan"},
    {"croissant"},
    {"cards"},
    {"training", "sampling", "integrity", "utility", "reference", "inception"},
    {"generation"},
    {"verification"},
    {"inspection", "subject", "doctor"},
    {"evaluation"},
    {"report"},
    {"__init__"},
    {"cli"},
    {"__main__"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
LIGHT = sorted(set(RANK) - {"networks", "losses", "game", "classifiers", "reference", "inception", "__main__"})


def imported_modules(path: Path) -> set[str]:
    """The synthgen modules that a file imports, at the top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("synthgen."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[-1] for alias in node.names if alias.name.startswith("synthgen.")}
    return found


def test_every_module_has_a_layer():
    assert {path.stem for path in PACKAGE.glob("*.py")} == set(RANK)


@pytest.mark.parametrize("name", sorted(RANK))
def test_imports_point_down(name: str):
    upward = {other for other in imported_modules(PACKAGE / f"{name}.py") if RANK[other] >= RANK[name]}
    assert not upward


def test_light_modules_start_without_tensorflow():
    imports = ", ".join(f"synthgen.{name}" for name in LIGHT if name != "__init__")
    code = f"import sys, {imports}; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
