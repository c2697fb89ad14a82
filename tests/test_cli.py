import json

import pytest
from conftest import DATA, SAMPLE
from PIL import Image
from typer.testing import CliRunner

from synthgen.cli import app

COMMANDS = ["train", "export", "verify", "evaluate", "preview", "info", "recipes", "data"]


def test_every_command_has_help_and_the_big_ones_examples():
    names = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert names == COMMANDS
    for name in COMMANDS:
        result = CliRunner().invoke(app, [name, "--help"])
        assert result.exit_code == 0
        assert len(result.stdout.splitlines()) > 4
        if name not in ("recipes", "data"):
            assert "Examples:" in result.stdout


def test_help_and_version_answer_without_tensorflow(synthgen):
    code = (
        "import sys; sys.argv = ['synthgen', 'recipes']; import synthgen.cli as c\n"
        "try: c.main()\nexcept SystemExit as e: assert not e.code\n"
        "assert 'tensorflow' not in sys.modules"
    )
    import subprocess
    import sys

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
    assert synthgen("--version").stdout.startswith("synthgen 0.")


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (["export", "--count", "0"], 2, "count 0 is too small"),
        (["export", "--count", "many"], 2, "'many' is not a valid"),
        (["export", "--format", "jpeg"], 2, "format 'jpeg': expected one of"),
        (["export", "--checkpoint", "nowhere"], 1, "no checkpoint 'nowhere'"),
        (["train", "--recipe", "nowhere"], 2, "no recipe 'nowhere': choose one of"),
        (["train", "--data", "nowhere"], 1, "no Fashion-MNIST here"),
        (["train", "--recipe", "smoke", "--data", DATA], 1, "not the official Fashion-MNIST"),
        (["train", "--resume", "--out", "nowhere"], 2, "nothing to resume"),
        (["train", "--seed", "-1", "--recipe", "smoke", "--data", DATA], 2, "seed -1 is out of range"),
        (["verify", "nowhere"], 1, "no manifest.json here"),
        (["evaluate", "nowhere"], 1, "no manifest.json here"),
        (["evaluate", "nowhere", "--report", "no/folder/r.html"], 2, "there is no folder no/folder; make it first"),
        (["preview", "nowhere"], 1, "no checkpoint 'nowhere'"),
        (["info", "nowhere"], 1, "no checkpoint 'nowhere'"),
    ],
)
def test_user_errors_are_one_line_with_the_right_exit_code(synthgen, arguments, exit_code: int, words: str):
    result = synthgen(*arguments)
    assert result.returncode == exit_code
    assert words in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_from_training_to_a_verified_set(synthgen, tmp_path):
    """The whole job, as a user does it, on real clothes."""
    trained = synthgen("train", "--recipe", "smoke", "--data", DATA, "--set", SAMPLE[0], "--out", "mine")
    assert trained.returncode == 0, trained.stderr
    assert [line[:4] for line in trained.stdout.splitlines()] == ["E:1,", "E:2,"]

    refused = synthgen("export", "--checkpoint", "mine", "--count", 300, "--out", "set")
    assert refused.returncode == 1
    assert "--allow-unprotected" in refused.stderr

    wanted = ["--count", 300, "--format", "png", "--out", "set", "--allow-unprotected"]
    exported = synthgen("export", "--checkpoint", "mine", *wanted)
    assert exported.returncode == 0, exported.stderr
    assert "No formal privacy guarantee" in exported.stderr
    assert (
        "No formal privacy guarantee" in json.loads((tmp_path / "set/manifest.json").read_text())["privacy"]["sentence"]
    )

    verified = synthgen("verify", "set", "--regenerate", 20, "--checkpoint", "mine")
    assert verified.returncode == 0, verified.stderr
    assert "sound: 300 images" in verified.stdout
    assert "20 drawn anew and equal" in verified.stdout

    image = next((tmp_path / "set/train").rglob("*.png"))
    image.write_bytes(image.read_bytes()[:-1])
    spoilt = synthgen("verify", "set")
    assert spoilt.returncode == 1
    assert image.name in spoilt.stderr


def test_evaluate_prints_a_table_and_writes_what_is_asked_for(synthgen, export, unlabelled_checkpoint, tmp_path):
    """Without labels no classifier has to be trained; test_readme.py evaluates a labelled set."""
    export(tmp_path / "set", count=60, checkpoint=unlabelled_checkpoint)
    options = ["--data", DATA, "--allow-unofficial", "--quick"]
    result = synthgen("evaluate", "set", *options, "--report", "report.html", "--json", "evaluation.json")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0].split() == ["this", "set", "real", "images"]
    assert "nearer to training than to test images" in result.stdout
    assert all(line.startswith(("note: ", "wrote ")) for line in result.stderr.splitlines())
    assert json.loads((tmp_path / "evaluation.json").read_text())["memorisation"]["synthetic"]["images"] == 60
    assert "60 synthetic images, evaluated" in (tmp_path / "report.html").read_text()
    assert synthgen("verify", "set").returncode == 0


@pytest.mark.parametrize("source", ["checkpoint", "set"])
def test_preview_and_info(synthgen, export, tiny_checkpoint, tmp_path, source: str):
    export(tmp_path / "set")
    argument = tmp_path / "set" if source == "set" else tiny_checkpoint.path
    result = synthgen("preview", argument, "--out", "picture.png", "--columns", 5)
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size == ((5 * 29 + 1) * 2, (10 * 29 + 1) * 2)
    described = synthgen("info", argument).stdout
    assert tiny_checkpoint.sha256 in described
    assert "No formal privacy guarantee" in described


def test_recipes_and_data(synthgen):
    assert synthgen("recipes").stdout.splitlines()[0].startswith("conditional")
    assert "not the official" in synthgen("data", "--data", DATA).stderr


def test_dry_run_writes_nothing(synthgen, tmp_path):
    result = synthgen("train", "--recipe", "smoke", "--data", DATA, "--set", SAMPLE[0], "--dry-run")
    assert result.returncode == 0
    assert "500 real images, 2 epochs of 8 batches" in result.stderr
    assert not list(tmp_path.iterdir())
