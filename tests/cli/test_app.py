import json

import pytest
from PIL import Image
from support import DATA, SAMPLE, undescribed
from typer.testing import CliRunner

from synthgen.cli.app import app
from synthgen.model.recipe import load_recipe
from synthgen.sets.verification import verify

COMMANDS = ["prepare", "train", "export", "merge", "verify", "sign", "evaluate", "audit", "convert", "preview", "info"]
COMMANDS += ["account", "data", "doctor", "recipes"]


def test_every_command_has_help_and_the_big_ones_examples():
    names = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert [*names, *(group.name for group in app.registered_groups)] == COMMANDS
    for name in COMMANDS:
        result = CliRunner().invoke(app, [name, "--help"])
        assert result.exit_code == 0
        assert len(result.stdout.splitlines()) > 4
        assert "Examples:" in result.stdout


def test_help_and_version_answer_without_tensorflow(synthgen):
    code = (
        "import sys; sys.argv = ['synthgen', 'recipes']; import synthgen.cli.app as c\n"
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
        (["export", "--count", "many"], 2, "Invalid value for '--count'"),
        (["export", "--format", "jpeg"], 2, "format 'jpeg': expected one of"),
        (["export", "--checkpoint", "nowhere"], 1, "no checkpoint 'nowhere'"),
        (["train", "--recipe", "nowhere"], 2, "no recipe 'nowhere': choose one of"),
        (["train", "--data", "nowhere"], 1, "no Fashion-MNIST here"),
        (["train", "--resume", "--out", "nowhere"], 2, "nothing to resume"),
        (["train", "--seed", "-1", "--recipe", "smoke", "--data", DATA], 2, "seed -1 is out of range"),
        (["export", "--shard", "0"], 2, "--shard I and --of N go together"),
        (["merge", "nowhere"], 1, "no export here"),
        (["verify", "nowhere"], 1, "no manifest.json here"),
        (["evaluate", "nowhere"], 1, "no manifest.json here"),
        (["evaluate", "nowhere", "--report", "no/folder/r.html"], 2, "there is no folder no/folder; make it first"),
        (["audit", "nowhere"], 2, "'nowhere': expected a checkpoint, an exported set or a recipe"),
        (["audit", "smoke"], 2, "recipe 'smoke' trains without a guarantee that could be audited"),
        (["audit", "smoke", "--json", "no/folder/a.json"], 2, "there is no folder no/folder; make it first"),
        (["audit", "conditional", "--count", "0"], 2, "count 0: expected at least 1"),
        (["preview", "nowhere"], 1, "no checkpoint 'nowhere'"),
        (["info", "nowhere"], 1, "no checkpoint 'nowhere'"),
        (["preview", "conditional", "--out", "nowhere/grid.png"], 1, "No such file or directory"),
    ],
)
def test_user_errors_are_one_line_with_the_right_exit_code(synthgen, arguments, exit_code: int, words: str):
    result = synthgen(*arguments)
    assert result.returncode == exit_code
    assert words in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_evaluate_prints_a_table_and_writes_what_is_asked_for(synthgen, export, unlabelled_checkpoint, tmp_path):
    """Without labels no classifier has to be trained; test_readme.py evaluates a labelled set."""
    export(tmp_path / "set", count=60, checkpoint=unlabelled_checkpoint)
    options = ["--data", DATA, "--allow-unofficial", "--quick"]
    result = synthgen("evaluate", "set", *options, "--report", "report.html", "--json", "evaluation.json")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0].split() == ["this", "set", "real", "images"]
    assert "nearer to training than to test images" in result.stdout
    warning, *lines = result.stderr.splitlines()
    assert warning.startswith("warning: the report shows real training images, and the JSON has their exact SHA-256")
    assert all(line.startswith(("note: ", "wrote ")) for line in lines)
    shared = synthgen("evaluate", "set", *options, "--json", "shared.json", "--shareable")
    assert "warning" not in shared.stderr
    assert "training_sha256" not in (tmp_path / "shared.json").read_text()
    assert "training_sha256" in (tmp_path / "evaluation.json").read_text()
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


def test_recipes_and_data(synthgen, tmp_path):
    assert synthgen("recipes").stdout.splitlines()[0].startswith("conditional")
    assert "train        500 images  Fashion-MNIST, ten classes" in synthgen("data", "--data", DATA).stdout
    assert "own images, ten classes" in synthgen("data", "--data", undescribed(tmp_path)).stdout


def test_dry_run_writes_nothing(synthgen, tmp_path):
    result = synthgen("train", "--recipe", "smoke", "--data", DATA, "--set", SAMPLE[0], "--dry-run")
    assert result.returncode == 0
    assert "500 real images, 2 epochs of 8 batches" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "file_format",
    ["tfrecord", *(pytest.param(name, marks=pytest.mark.slow) for name in ("hdf5", "png", "idx", "npz"))],
)
def test_a_full_disk_is_one_line_and_can_be_resumed(synthgen, export, tiny_checkpoint, tmp_path, file_format: str):
    """A limit on the size of files stands in for a full disk: the system refuses the write alike."""
    import resource

    def no_file_above_20_kb() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    arguments = ["export", "--checkpoint", tiny_checkpoint.path, "--count", 600, "--format", file_format]
    arguments += ["--out", "set", "--allow-unprotected"]
    result = synthgen(*arguments, preexec_fn=no_file_above_20_kb)
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert "cannot be written" in result.stderr.splitlines()[-1]
    assert "--resume" in result.stderr.splitlines()[-1]
    assert [path.name for path in (tmp_path / "set").iterdir()] == [".synthgen"]
    export(tmp_path / "set", file_format=file_format, resume=True)
    assert verify(tmp_path / "set").sound


def test_recipes_are_shown_and_their_keys_explained(synthgen, tmp_path):
    shown = synthgen("recipes", "show", "private")
    assert 'method = "released_statistics"' in shown.stdout
    (tmp_path / "own.toml").write_text(shown.stdout)
    assert load_recipe(str(tmp_path / "own.toml")) == load_recipe("private")
    assert "`look.students`" in synthgen("recipes", "keys").stdout
    assert "no recipe 'nope'" in synthgen("recipes", "show", "nope").stderr
