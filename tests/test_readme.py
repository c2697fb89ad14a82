"""The commands and programs that README and docs/ show are run, at a smaller size, in the order in which they stand."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support import DATA
from typer.testing import CliRunner

from synthgen.cli.app import app
from synthgen.errors import DataError
from synthgen.formats.png import encode_pngs
from synthgen.real_images import load_real_images

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path.read_text("utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
SMALLER = [
    ("train=60000,test=10000", "train=600,test=100"),
    ("--count 60000", "--count 600"),
    ("--count 10000", "--count 300"),
    ("--count 3000", "--count 300"),
    ("--regenerate 1000", "--regenerate 10"),
    ("--checkpoint conditional", "--checkpoint conditional --allow-unprotected"),
    ("--recipe notebook --set training.epochs=2", "--recipe smoke --set training.epochs=1"),
    ("evaluate hdf5-set", f"evaluate hdf5-set --quick --data {DATA} --allow-unofficial"),
    ("evaluate dataset", f"evaluate dataset --quick --data {DATA} --allow-unofficial"),
    ("evaluate set --data data/", f"evaluate dataset --quick --data {DATA} --allow-unofficial"),
]
# Too long to run, or not runnable here: these are only checked for their options.
NOT_RUN = (
    "synthgen train --recipe conditional",
    "synthgen train --recipe private --epsilon 1",
    "synthgen train --epsilon 1",
    "synthgen audit",
    "synthgen evaluate",  # by a test of its own
)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], re.DOTALL)


def commands(page: str) -> list[str]:
    indented = [line for line in PAGES[page].splitlines() if line.startswith("    synthgen ")]
    fenced = [line for block in blocks(page, "console") for line in block.splitlines()]
    lines = [line.split("#")[0].strip() for line in [*fenced, *indented]]
    return [line for line in lines if line.startswith("synthgen ")]


@pytest.fixture(scope="module")
def real_data():
    try:
        load_real_images("test")
    except DataError as error:
        pytest.skip(f"needs the whole of Fashion-MNIST: {error}")


def run(command: str):
    return CliRunner().invoke(app, shlex.split(command)[1:])


def expect_known_options(command: str) -> None:
    help_text = run(" ".join(command.split()[:2]) + " --help").output
    assert all(option in help_text for option in re.findall(r"--[a-z-]+", command)), command


def test_the_pages_show_commands():
    shown = {page: len(commands(page)) for page in PAGES}
    assert shown["README.md"] >= 9
    assert all(
        shown[page] >= 2
        for page in ("your-images.md", "quality.md", "training.md", "evaluation.md", "privacy.md", "scale.md")
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the commands of all pages run, one page after the other; images of the user's own lie in it."""
    folder = tmp_path_factory.mktemp("pages")
    real = load_real_images("train", DATA, official=False)
    for i, (data, label) in enumerate(zip(encode_pngs(real.images), real.labels, strict=True)):
        path = folder / "my-images" / f"class {label}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def done() -> set[str]:
    """What was run on an earlier page already."""
    return set()


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_the_commands_run(real_data, folder, done, monkeypatch, page: str):
    monkeypatch.chdir(folder)
    for command in commands(page):
        for large, small in SMALLER:
            command = command.replace(large, small)
        expect_known_options(command)
        if command in done or (command.startswith(NOT_RUN) and "--dry-run" not in command):
            continue
        done.add(command)
        result = run(command)
        assert result.exit_code == 0, f"{command}\n{result.output}{result.exception!r}"


@pytest.mark.slow  # it trains classifiers: as long as all other commands
def test_the_evaluations_run(real_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("dataset", "hdf5-set"):
        assert run(f"synthgen export --count 600 --out {name}").exit_code == 0
    shown = sorted({command for page in PAGES for command in commands(page) if " evaluate " in command})
    assert len(shown) >= 3
    for command in shown:
        for large, small in SMALLER:
            command = command.replace(large, small)
        result = run(command)
        assert result.exit_code == 0, f"{command}\n{result.output}{result.exception!r}"


def test_the_programs_run(real_data, synthgen, tmp_path):
    assert synthgen("export", "--count", 600).returncode == 0
    programs = [(program, page) for page in PAGES for program in blocks(page, "python")]
    assert len(programs) >= 2
    for program, page in programs:
        command = [sys.executable, "-c", program, "dataset/manifest.json"]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"{page}: {result.stderr}"


def test_no_number_is_missing():
    assert not [page for page, text in PAGES.items() if "@@" in text]


def test_every_make_target_is_known():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    lines = [line for page in PAGES for block in blocks(page, "console") for line in block.splitlines()]
    named = {line.split()[1] for line in lines if line.startswith("make ")}
    assert named
    assert named <= set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))


def test_links_between_the_pages_lead_somewhere():
    for page, text in PAGES.items():
        folder = ROOT if page == "README.md" else ROOT / "docs"
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", text):
            assert (folder / target).exists(), f"{page} links to {target}"


def test_the_first_screen_fits():
    lines = PAGES["README.md"].splitlines()
    assert len(lines) <= 150
    assert lines.index("## Install") < 30
    assert len(PAGES["architecture.md"].splitlines()) <= 60
