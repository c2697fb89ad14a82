import csv
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from support import DATA, SAMPLE, expect_equal_floats, noted_floats, undescribed

from synthgen.errors import DataError, Interrupted, TrainingError, UsageError
from synthgen.files import exclusive_lock
from synthgen.model.recipe import load_recipe
from synthgen.training.adversarial import plan_training
from synthgen.training.folder import STATE_NAME
from synthgen.training.images import epoch_order
from synthgen.training.plan import plan as plan_anything
from synthgen.training.run import train


@pytest.fixture(scope="module")
def plan(tiny_recipe):
    return plan_training(tiny_recipe, DATA, seed=3)


@pytest.fixture(scope="module")
def unbroken(plan, tmp_path_factory):
    """A checkpoint, the lines of its epochs, and its float32 weights."""
    lines = []
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    with noted_floats() as noted:
        return train(plan, out, on_summary=lambda summary: lines.append(str(summary))), lines, noted


def test_a_run_leaves_a_checkpoint_with_everything_beside_it(plan, unbroken):
    checkpoint, *_ = unbroken
    names = {path.relative_to(checkpoint.path).as_posix() for path in checkpoint.path.rglob("*") if path.is_file()}
    assert names == {
        "checkpoint.json",
        "generator.h5",
        "samples.png",
        "metrics.csv",
        "samples/epoch-0001.png",
        "samples/epoch-0002.png",
    }
    assert checkpoint.training["steps"] == plan.total_steps == 16
    assert checkpoint.training["data"]["images"] == 500
    assert not checkpoint.privacy.protects
    assert "user's own images" in checkpoint.privacy.trained_on
    with (checkpoint.path / "metrics.csv").open() as stream:
        assert [row["epoch"] for row in csv.DictReader(stream)] == ["1", "2"]


def test_the_epoch_line_is_the_notebooks(unbroken):
    assert [line.split(",")[0] for line in unbroken[1]] == ["E:1", "E:2"]
    assert [part.split(":")[0].strip() for part in unbroken[1][0].split(",")] == [
        "E",
        "Loss G",
        "Loss D",
        "Acc G",
        "Acc D",
    ]


@pytest.mark.parametrize("stop_at", [3, 8, pytest.param(13, marks=pytest.mark.slow)])
def test_resuming_gives_the_weights_of_an_unbroken_run(plan, unbroken, tmp_path, stop_at: int):
    steps = []
    with pytest.raises(Interrupted, match="go on with --resume"):
        train(
            plan,
            tmp_path / "run",
            on_step=lambda done, of, f: steps.append(done),
            should_stop=lambda: len(steps) == stop_at,
        )
    with noted_floats() as noted:
        resumed = train(plan, tmp_path / "run", resume=True)
    assert resumed.sha256 == unbroken[0].sha256
    expect_equal_floats(noted, unbroken[2])
    assert not (tmp_path / "run" / STATE_NAME).exists()


def test_resuming_the_notebooks_game_with_dropout_gives_the_same_weights(tmp_path):
    small = ["generator.stem_filters=4", "generator.filters=[4, 4]", "discriminator.filters=[4, 4]"]
    recipe = load_recipe("notebook", [*SAMPLE, *small, "training.epochs=2", "training.discriminator_steps=2"])
    plan = plan_training(recipe, DATA)
    with noted_floats() as noted:
        whole = train(plan, tmp_path / "whole")
    calls = []
    with pytest.raises(Interrupted):
        train(plan, tmp_path / "run", should_stop=lambda: calls.append(1) or len(calls) == 5)
    with noted_floats() as noted_again:
        assert train(plan, tmp_path / "run", resume=True).sha256 == whole.sha256
    expect_equal_floats(noted_again, noted)


def test_sigterm_saves_and_says_how_to_go_on(synthgen, tmp_path):
    arguments = ["train", "--recipe", "smoke", "--data", DATA, "--set", SAMPLE[0], "--set", "training.epochs=500"]
    arguments += ["--out", tmp_path / "run"]
    command = [sys.executable, "-m", "synthgen", *map(str, arguments)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / STATE_NAME).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "all saved; go on with --resume" in errors.splitlines()[-1]
    begun = plan_anything(resume=tmp_path / "run", data=DATA)
    assert (begun.recipe.training.epochs, begun.seed) == (500, 0)


def test_a_run_killed_at_its_very_start_can_be_resumed_or_begun_anew(plan, unbroken, tmp_path, monkeypatch):
    def die(self, *arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("synthgen.training.run.Run.save_state", die)
    with pytest.raises(KeyboardInterrupt):
        train(plan, tmp_path / "run")
    monkeypatch.undo()
    monkeypatch.setattr("synthgen.training.adversarial._AdversarialRun.advance", die)
    with pytest.raises(KeyboardInterrupt):
        train(plan, tmp_path / "run")
    monkeypatch.undo()
    with pytest.raises(UsageError, match="holds an interrupted run"):
        train(plan, tmp_path / "run")
    assert train(plan, tmp_path / "run", resume=True).sha256 == unbroken[0].sha256


def test_two_trainings_do_not_share_a_folder(plan, tmp_path):
    (tmp_path / "run").mkdir()
    with exclusive_lock(tmp_path / "run" / ".lock"), pytest.raises(UsageError, match="another training is at work"):
        train(plan, tmp_path / "run")


def test_a_run_made_elsewhere_is_not_resumed(plan, tmp_path, monkeypatch):
    with pytest.raises(Interrupted):
        train(plan, tmp_path / "run", should_stop=lambda: True)
    monkeypatch.setattr("synthgen.training.adversarial.made_with", lambda: {"tensorflow": "1.0"})
    with pytest.raises(UsageError, match="a run with different made_with"):
        train(plan, tmp_path / "run", resume=True)


def test_more_discriminator_steps_than_batches_are_refused():
    with pytest.raises(UsageError, match="at most the 8 batches of an epoch"):
        plan_training(load_recipe("smoke", [*SAMPLE, "training.discriminator_steps=9"]), DATA)


def test_losses_that_are_no_numbers_stop_with_the_last_state_kept(plan, tmp_path, monkeypatch):
    from synthgen.training.game import Game, Outcome

    original = Game.generator_step

    def broken_step(self, images, labels, step):
        return Outcome(float("nan"), 0.5) if step == 10 else original(self, images, labels, step)

    monkeypatch.setattr(Game, "generator_step", broken_step)
    with pytest.raises(TrainingError, match=r"generator_loss became nan at step 11.*checkpoint of epoch 1 is kept"):
        train(plan, tmp_path / "run")
    assert (tmp_path / "run" / STATE_NAME).is_file()


@pytest.mark.parametrize("garbage", [b"", b"PK", b"\x93NUMPY"])
def test_a_spoilt_state_is_one_line(plan, tmp_path, garbage: bytes):
    (tmp_path / STATE_NAME).write_bytes(garbage)
    with pytest.raises(TrainingError, match="cannot be resumed from"):
        train(plan, tmp_path, resume=True)


def test_a_folder_that_cannot_be_written_is_one_line(plan, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot be written"):
        train(plan, tmp_path / "file" / "run")


def test_a_collapsed_generator_stops(plan, tmp_path, monkeypatch):
    monkeypatch.setattr("synthgen.training.game.Game.draw_samples", lambda self: np.zeros((100, 28, 28), np.uint8))
    with pytest.raises(TrainingError, match="the generator collapsed in epoch 1"):
        train(plan, tmp_path / "run")


def test_a_folder_in_use_is_refused(plan, unbroken, tmp_path):
    with pytest.raises(UsageError, match="is not empty"):
        train(plan, unbroken[0].path)
    with pytest.raises(UsageError, match="nothing to resume"):
        train(plan, tmp_path / "nowhere", resume=True)


def test_another_recipe_cannot_resume(plan, tmp_path):
    with pytest.raises(Interrupted):
        train(plan, tmp_path / "run", should_stop=lambda: True)
    other = plan_training(load_recipe("smoke", [*SAMPLE, "training.epochs=9"]), DATA, seed=3)
    with pytest.raises(UsageError, match="holds a run with different recipe"):
        train(other, tmp_path / "run", resume=True)


@pytest.mark.parametrize("buffer", [0, 1, 64, 1024])
def test_every_epoch_sees_every_image_once_in_its_own_order(buffer: int):
    first, second = (epoch_order(1000, buffer, 5, epoch) for epoch in (0, 1))
    assert sorted(first.tolist()) == list(range(1000))
    assert (first.tolist() != second.tolist()) == (buffer != 1)
    if buffer > 1:
        displacement = first - np.arange(1000)
        assert displacement.max() < buffer  # nothing is seen earlier than the buffer reaches


def test_holdout_and_limit(tiny_recipe):
    recipe = load_recipe("smoke", [*SAMPLE, "data.limit=100", "training.batch_size=10"])
    assert len(plan_training(recipe, DATA).data) == 100
    held = load_recipe("smoke", [*SAMPLE, "data.holdout=450", "training.batch_size=10"])
    assert len(plan_training(held, DATA).data) == 50
    with pytest.raises(UsageError, match="expected at most the 50 images"):
        plan_training(load_recipe("smoke", [*SAMPLE, "data.holdout=450"]), DATA)


def test_the_notebook_merges_both_splits():
    recipe = load_recipe("notebook", SAMPLE)
    assert len(plan_training(recipe, DATA).data) == 600


def test_the_sample_is_not_taken_for_the_official_data(tmp_path):
    assert not plan_training(load_recipe("smoke"), DATA).recipe.data.official
    with pytest.raises(DataError, match="not the official"):
        plan_training(load_recipe("smoke"), undescribed(tmp_path))
