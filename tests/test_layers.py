"""The architecture: packages import only what stands below them, and only the modules that a package shows."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "synthgen"

# From the ground up. A package or root module imports only from rows before its own.
RANKS = [
    {"errors", "environment", "untrusted"},
    {"subject", "files", "workers"},
    {"index", "privacy"},
    {"formats", "pixels"},
    {"preparation"},
    {"real_images", "model"},
    {"sets"},
    {"training", "export", "evaluation"},
    {"audit", "doctor"},
    {"__init__"},
    {"cli"},
    {"__main__"},
]
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}
IMPORTS_ONLY = {"privacy": {"errors", "files", "untrusted"}}  # so that it could be lifted out as a library
HEAVY = {  # import TensorFlow or Keras when they are imported; nothing else does
    "audit.look_audit",
    "audit.pairs",
    "evaluation.classifiers",
    "evaluation.inception",
    "evaluation.own_reference",
    "evaluation.reference",
    "model.networks",
    "model.parts",
    "pixels.tensorflow_backend",
    "privacy.per_example",
    "training.dpgan_game",
    "training.game",
    "training.losses",
    "training.matching.features",
    "training.matching.generator",
    "training.matching.student",
    "training.replicas",
}


def module_name(path: Path) -> str:
    """A module's name within the package: ``files``, ``sets.manifest``; a package's own is ``sets``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def room(name: str) -> str:
    """The package or root module that a module is part of."""
    return name.partition(".")[0]


def imported_modules(path: Path) -> set[str]:
    """The synthgen modules that a file imports, at the top or inside functions, by their names within the package."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "synthgen":
            module = node.module.removeprefix("synthgen").lstrip(".")
            names = {f"{module}.{alias.name}".lstrip(".") for alias in node.names}
            found |= (names & set(MODULES)) or {module or "__init__"}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "synthgen":
                    found.add(alias.name.removeprefix("synthgen").lstrip(".") or "__init__")
    return found


def is_shown(name: str) -> bool:
    """Whether every package that a module is part of shows it, in its ``__all__``."""
    package, _, module = name.rpartition(".")
    return not package or (module in importlib.import_module(f"synthgen.{package}").__all__ and is_shown(package))


def test_every_room_has_a_rank():
    assert {room(name) for name in MODULES} == set(RANK)
    assert len(RANK) <= 22


def test_the_root_holds_few_modules():
    assert len(list(PACKAGE.glob("*.py"))) <= 11


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_down(name: str):
    own = room(name)
    upward = {
        other
        for other in imported_modules(MODULES[name])
        if room(other) != own and RANK[room(other)] >= RANK[own] and (own, other) != ("cli", "__init__")
    }
    assert not upward
    allowed = IMPORTS_ONLY.get(own)
    assert allowed is None or {room(other) for other in imported_modules(MODULES[name])} <= {own, *allowed}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_only_what_a_package_shows_is_imported_from_outside(name: str):
    for other in imported_modules(MODULES[name]):
        if room(other) != room(name):
            assert other == "__init__" or is_shown(other), f"{name} imports {other}"


def test_packages_say_what_they_are_for():
    for name, path in MODULES.items():
        if path.name == "__init__.py" and name != "__init__":
            tree = ast.parse(path.read_text("utf-8"))
            assert ast.get_docstring(tree), name
            assert not imported_modules(path), name


def test_no_circle_within_a_package():
    arrows = {name: imported_modules(path) - {name} for name, path in MODULES.items()}
    left = dict(arrows)
    while free := [name for name, others in left.items() if not others & set(left)]:
        for name in free:
            del left[name]
    assert not left, f"these import each other: {sorted(left)}"


def test_only_heavy_modules_start_tensorflow():
    light = sorted(set(MODULES) - HEAVY - {"__init__", "__main__"})
    imports = ", ".join(f"synthgen.{name}" for name in light)
    code = f"import sys, {imports}; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_functions_and_modules_are_short():
    for name, path in MODULES.items():
        text = path.read_text("utf-8")
        assert len(text.splitlines()) <= 350, name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                begin = node.body[0].end_lineno if ast.get_docstring(node) else node.lineno
                assert node.end_lineno - begin <= 60, f"{name}.{node.name}"
