"""Only ``untrusted`` opens, unpacks and parses files that others may have made; exceptions stand here with a reason."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "synthgen"

READERS = {  # by their last name, and the modules or objects that they belong to; None: whatever they belong to
    "read_bytes": None,
    "read_text": None,
    "load": {"json", "tomllib", "np", "numpy", "pickle"},
    "loads": {"json", "tomllib", "pickle"},
    "fromfile": {"np", "numpy"},
    "loadtxt": {"np", "numpy"},
    "genfromtxt": {"np", "numpy"},
    "memmap": {"np", "numpy"},
    "decompress": {"gzip", "zlib", "bz2", "lzma"},
    "open": {"os", "gzip", "bz2", "lzma", "io", "Image"},
    "File": {"h5py"},
    "ZipFile": {"zipfile"},
}
EXCEPTIONS = {
    "cli/streams.py": "the null device in place of a closed stream",
    "__init__.py": "its own source, for the names it shows",
    "environment.py": "the processor's name as the system gives it",
    "evaluation/report.py": "its own style sheet",
    "export/claim.py": "the claim of an export",
    "export/outputs.py": "small files of an export's own folder",
    "export/splits.py": "sidecars that this process has just written",
    "files.py": "locks, and hashes and flushes what this process wrote",
    "formats/png.py": "Pillow, on a header already checked and pixels alone",
    "sets/croissant.py": "its own vocabulary",
    "training/strategy.py": "an environment variable of the user's own",
}


def reads(tree: ast.AST) -> list[str]:
    """The calls of a module that open, unpack or parse something to read."""
    return [ast.unparse(node)[:80] for node in ast.walk(tree) if isinstance(node, ast.Call) and is_read(node)]


def is_read(call: ast.Call) -> bool:
    modes = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    if any(mode[:1] in ("w", "x", "a") and len(mode) <= 3 for mode in modes):
        return False  # it writes
    if isinstance(call.func, ast.Name):
        return call.func.id == "open"
    if not isinstance(call.func, ast.Attribute):
        return False
    owner = ast.unparse(call.func.value).rpartition(".")[2]
    if call.func.attr == "open" and (not call.args or modes):  # Path.open
        return True
    owners = READERS.get(call.func.attr, set())
    return owners is None or owner in owners


@pytest.mark.parametrize("code", ["open(p)", "p.open()", "p.open('rb')", "json.loads(d)", "h5py.File(p, 'r')"])
def test_the_rule_sees_a_read(code: str):
    assert reads(ast.parse(code))


@pytest.mark.parametrize("code", ["p.open('wb')", "open(p, 'w')", "h5py.File(p, 'w')", "OpenLedger.open(p, b)"])
def test_the_rule_lets_writing_pass(code: str):
    assert not reads(ast.parse(code))


def test_only_one_package_reads_what_a_stranger_wrote():
    found = {
        path.relative_to(PACKAGE).as_posix(): calls
        for path in PACKAGE.rglob("*.py")
        if path.parent.name != "untrusted" and (calls := reads(ast.parse(path.read_text("utf-8"))))
    }
    assert {name: calls for name, calls in found.items() if name not in EXCEPTIONS} == {}
    assert all((PACKAGE / name).is_file() for name in EXCEPTIONS)
