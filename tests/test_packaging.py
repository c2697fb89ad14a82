"""What is published: the lock covers every dependency, and the wheel alone exports a set."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LOCKS = {"ci.txt": [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]],
         "runtime.txt": PROJECT["dependencies"]}  # fmt: skip


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_holds_every_dependency_within_its_bounds_and_with_hashes(name: str):
    text = (ROOT / "constraints" / name).read_text("utf-8")
    locked = dict(re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", text, re.MULTILINE))
    for requirement in map(Requirement, LOCKS[name]):
        found = locked.get(re.sub(r"[-_.]+", "-", requirement.name).lower())
        assert found, f"{requirement}: not in constraints/{name}; run make lock"
        assert requirement.specifier.contains(found), f"{requirement}: {found} is locked; run make lock"
    entries = re.split(r"^(?=[a-z0-9._-]+==)", text, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text


def test_every_runtime_dependency_has_a_lower_bound():
    for requirement in map(Requirement, PROJECT["dependencies"]):
        bounds = {specifier.operator for specifier in requirement.specifier}
        assert bounds & {">=", "==", "~="}, requirement


@pytest.mark.slow
def test_the_wheel_alone_exports_a_set(tmp_path):
    """In a fresh environment that holds nothing but the wheel; the libraries are lent by the present one."""
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"synthgen/recipes/conditional.toml", "synthgen/py.typed"} <= names
    assert {"synthgen/evaluation/report.css", "synthgen/evaluation/report.html"} <= names
    assert "synthgen/checkpoints/conditional/generator.h5" in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    target = next((tmp_path / "venv/lib").glob("python*/site-packages"))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel]
    subprocess.run(install, check=True)
    lent = Path(__import__("numpy").__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{target}:{lent}"}
    where = [python, "-c", "import synthgen; print(synthgen.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert Path(found.strip()).is_relative_to(target)
    for arguments in (["export", "--count", "100", "--out", "set"], ["verify", "set"], ["recipes"]):
        result = subprocess.run(
            [python, "-m", "synthgen", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr


def test_the_installed_version_is_the_packages():
    import synthgen

    assert version("synthgen") == synthgen.__version__
