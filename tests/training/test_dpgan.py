import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from support import DATA, SAMPLE
from typer.testing import CliRunner

from synthgen.cli.app import app
from synthgen.errors import Interrupted, PrivacyError, RecipeError, UsageError
from synthgen.files import sha256_of_bytes
from synthgen.model.checkpoint import load_checkpoint
from synthgen.model.recipe import load_recipe, with_budget
from synthgen.privacy.accounting import epsilon_of
from synthgen.privacy.exact import Grid
from synthgen.real_images import load_real_images
from synthgen.training.adversarial import plan_training
from synthgen.training.dpgan import LEDGER_NAME, plan_private_training
from synthgen.training.dpgan_game import PrivateGame
from synthgen.training.folder import STATE_NAME
from synthgen.training.run import train

STEPS = 12
TINY = [
    *SAMPLE,
    "privacy.epsilon=1",
    "latent.size=8",
    "generator.stem_filters=4",
    "generator.filters=[4, 4]",
    "discriminator.filters=[4, 4]",
    "discriminator.projection_size=4",
    f"training.steps={STEPS}",
    "training.batch_size=100",
    "training.forged_batch_size=8",
    "training.generator_batch_size=8",
    "training.sample_every_steps=6",
    "training.most_discriminator_steps=3",
]


class Killed(BaseException):
    """As a power cut: nothing catches it."""


@pytest.fixture(scope="module")
def plan():
    return plan_private_training(load_recipe("dpgan", TINY), DATA, seed=3)


@pytest.fixture(scope="module")
def roomy(plan):
    """The plan with noise enough that the cheap accountant is content."""
    return replace(plan, noise_multiplier=1.5 * plan.noise_multiplier)


@pytest.fixture(scope="module")
def unbroken(roomy, tmp_path_factory):
    lines = []
    out = tmp_path_factory.mktemp("runs") / "private"
    checkpoint = train(roomy, out, on_summary=lambda summary: lines.append(str(summary)))
    return checkpoint, lines


@pytest.fixture(autouse=True)
def small_charges(monkeypatch):
    monkeypatch.setattr("synthgen.training.dpgan._STEPS_A_CHARGE", 5)


@pytest.fixture
def no_game(monkeypatch):
    """The networks stand still, so that a test of the ledger costs no time; steps run are counted."""
    ran = []
    monkeypatch.setattr(PrivateGame, "discriminator_step", lambda self, images, labels, step: ran.append(step) or 0.5)
    monkeypatch.setattr(PrivateGame, "teach_generator", lambda self, step: 0.7)
    return ran


def charged_steps(out):
    return sum(mechanism["steps"] for mechanism in json.loads((out / LEDGER_NAME).read_text())["mechanisms"])


def test_a_run_leaves_a_checkpoint_and_a_ledger_of_every_step(plan, unbroken):
    checkpoint, _ = unbroken
    names = {path.relative_to(checkpoint.path).as_posix() for path in checkpoint.path.rglob("*") if path.is_file()}
    assert names == {
        "checkpoint.json",
        "generator.h5",
        "ledger.json",
        "metrics.csv",
        "samples.png",
        "samples/step-000006.png",
        "samples/step-000012.png",
    }
    assert checkpoint.training["steps"] == charged_steps(checkpoint.path) == STEPS
    assert checkpoint.privacy.protects
    assert checkpoint.privacy.proof.exact_noise
    assert [mechanism.steps for mechanism in checkpoint.privacy.proof.ledger] == [STEPS]
    assert checkpoint.privacy.proof.epsilon <= plan.recipe.privacy.epsilon
    assert (
        plan.recipe.privacy.epsilon * 0.99
        < epsilon_of([plan.mechanism(STEPS)], plan.recipe.privacy.delta)
        <= plan.recipe.privacy.epsilon
    )


def test_what_is_written_and_printed_tells_nothing_of_the_real_images(plan, unbroken):
    checkpoint, lines = unbroken
    real = load_real_images("train", DATA, official=False)
    files = {path: path.read_bytes() for path in checkpoint.path.rglob("*") if path.is_file()}
    scaled = real.images.astype(np.float32) / 255
    rows = [row.tobytes() for image in real.images[::25] for row in image if row.any() and len(set(row.tolist())) > 9]
    rows += [row.tobytes() for image in scaled[::25] for row in image if len(set(row.tolist())) > 9]
    assert len(rows) > 100
    for path, content in files.items():
        assert not any(row in content for row in rows), path
        for digest in (real.sha256, sha256_of_bytes(real.images.tobytes()), plan.data.sha256):
            assert digest.encode() not in content, path
    figures = {"step", "generator_steps", "forged_accuracy", "generator_loss"}
    with (checkpoint.path / "metrics.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert {key for row in table for key in row} == figures
    assert {key for row in checkpoint.training["history"] for key in row} == figures
    assert set(checkpoint.training) == {
        "steps", "generator_steps", "seed", "spend_log", "data", "history", "made_with"
    }  # fmt: skip
    assert checkpoint.training["data"] == {"images": 500}
    assert [line.split(",")[0] for line in lines] == ["step 6", "step 12"]


def test_the_noise_is_that_of_the_plan_and_the_clip_holds(plan):
    game = PrivateGame(plan.recipe, 0, noise_multiplier=3.0)
    nothing = np.zeros((0, 28, 28), np.uint8), np.zeros(0, np.uint8)
    clip, grid = plan.recipe.training.l2_clip_norm, game._grid
    noise = np.concatenate([grid.noisy(game.whole_sum(*nothing)) for _ in range(20)])
    assert noise.std() == pytest.approx(3.0 * clip, rel=6 / np.sqrt(2 * noise.size))
    assert noise.mean() == pytest.approx(0, abs=6 * 3.0 * clip / np.sqrt(noise.size))
    images, labels = plan.data.images, plan.data.labels  # 500: more than the rows held at a time
    whole = game.whole_sum(images, labels)
    for left_out in (0, 255, 256, 499):
        kept = np.arange(len(images)) != left_out
        moved = whole - game.whole_sum(images[kept], labels[kept])
        assert 0 < sum(int(number) ** 2 for number in moved) <= grid.squared_clip
        np.testing.assert_array_equal(moved, game.whole_sum(images[~kept], labels[~kept]))
    assert game._real_graph.experimental_get_tracing_count() == 1


def test_a_step_adds_the_mechanisms_noise_to_the_exact_sum(plan, monkeypatch):
    game = PrivateGame(plan.recipe, 0, noise_multiplier=3.0)
    seen = []
    monkeypatch.setattr(Grid, "noisy", lambda self, sums: seen.append((self, sums)) or sums * self.step)
    game.discriminator_step(plan.data.images[:30], plan.data.labels[:30], 0)
    ((grid, sums),) = seen
    assert grid == Grid.of(3.0, plan.recipe.training.l2_clip_norm)
    assert (sums == np.rint(sums)).all()


def test_the_seed_does_not_decide_the_noise(plan):
    empty = np.zeros((0, 28, 28), np.uint8), np.zeros(0, np.uint8)
    game = PrivateGame(plan.recipe, 3, noise_multiplier=1.0)
    first, again = (game._grid.noisy(game.whole_sum(*empty)) for _ in range(2))
    assert not np.isclose(first, again).any()


def test_a_stopped_run_resumes_and_runs_every_step_it_paid_for_once(roomy, no_game, tmp_path):
    with pytest.raises(Interrupted, match="stopped after 7 of 12 steps, all saved; go on with --resume"):
        train(roomy, tmp_path / "run", should_stop=lambda: len(no_game) == 7)
    assert charged_steps(tmp_path / "run") == 10
    checkpoint = train(roomy, tmp_path / "run", resume=True)
    assert no_game == list(range(STEPS))
    assert charged_steps(tmp_path / "run") == checkpoint.training["steps"] == STEPS
    assert not (tmp_path / "run" / STATE_NAME).exists()


@pytest.mark.parametrize("stop_first", [False, True])
def test_a_killed_run_never_runs_more_than_it_paid_for(roomy, no_game, tmp_path, monkeypatch, stop_first: bool):
    out = tmp_path / "run"
    if stop_first:  # leaves paid steps behind, which must not be run again after the kill
        with pytest.raises(Interrupted):
            train(roomy, out, should_stop=lambda: len(no_game) == 2)

    def kill(done, of, figures):
        if len(no_game) == 8:
            raise Killed

    with pytest.raises(Killed):
        train(roomy, out, resume=stop_first, on_step=kill)
    assert len(no_game) <= charged_steps(out)
    checkpoint = train(roomy, out, resume=True)
    assert len(no_game) <= charged_steps(out) == STEPS
    assert checkpoint.training["steps"] < STEPS  # what was lost is not run again


def test_a_charge_comes_before_the_look(roomy, tmp_path, monkeypatch):
    out = tmp_path / "run"
    seen = []

    def look(population, probability):
        seen.append(charged_steps(out))
        raise Killed

    monkeypatch.setattr("synthgen.training.dpgan.poisson_sample", look)
    with pytest.raises(Killed):
        train(roomy, out)
    assert seen == [5]


def test_an_exhausted_budget_ends_the_run(plan, no_game, tmp_path, monkeypatch):
    monkeypatch.setattr(type(plan), "mechanism", _twice_as_dear(type(plan).mechanism))
    with pytest.raises(PrivacyError, match="budget exhausted"):
        train(plan, tmp_path / "run")
    assert len(no_game) <= charged_steps(tmp_path / "run") < STEPS


def _twice_as_dear(mechanism):
    return lambda self, steps: replace(mechanism(self, steps), noise_multiplier=self.noise_multiplier / 1.3)


def test_where_examples_are_not_kept_apart_nothing_exact_is_claimed(roomy, no_game, tmp_path, monkeypatch):
    with monkeypatch.context() as other_device:
        other_device.setattr(PrivateGame, "keeps_examples_apart", lambda self: False)
        with pytest.raises(Interrupted):
            train(roomy, tmp_path / "run", should_stop=lambda: len(no_game) == 7)
    assert not load_checkpoint(tmp_path / "run").privacy.proof.exact_noise
    assert not train(roomy, tmp_path / "run", resume=True).privacy.proof.exact_noise  # nor by the rest, on this one


def test_examples_that_meet_are_noticed(plan, monkeypatch):
    game = PrivateGame(plan.recipe, 0, plan.noise_multiplier)
    assert game.keeps_examples_apart()
    real = PrivateGame._real
    monkeypatch.setattr(
        PrivateGame, "_real", lambda self, *of: [each - tf.reduce_mean(each, 0) for each in real(self, *of)]
    )
    assert not PrivateGame(plan.recipe, 0, plan.noise_multiplier).keeps_examples_apart()


def test_a_run_without_its_ledger_is_not_resumed(roomy, no_game, tmp_path):
    with pytest.raises(Interrupted):
        train(roomy, tmp_path / "run", should_stop=lambda: True)
    dearer = replace(roomy, recipe=with_budget(roomy.recipe, 20.0, None))
    with pytest.raises(PrivacyError, match="begun with epsilon 1 "):
        train(dearer, tmp_path / "run", resume=True)
    (tmp_path / "run" / LEDGER_NAME).unlink()
    with pytest.raises(PrivacyError, match="what was spent is unknown"):
        train(roomy, tmp_path / "run", resume=True)


def test_dry_run_prints_the_whole_plan(tmp_path):
    sets = [part for override in TINY for part in ("--set", override)]
    command = ["train", "--recipe", "dpgan", "--data", str(DATA), "--epsilon", "0.5", "--delta", "1e-6", "--dry-run"]
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "run"), *sets])
    assert result.exit_code == 0
    for part in (
        "epsilon 0.5 at delta 1e-06",
        "12 steps",
        "noise multiplier",
        "probability 0.20000",
        "100 % of the budget",
    ):
        assert part in result.stderr
    assert [f"after {steps}" in result.stderr for steps in (3, 6, 9, 12)] == [True] * 4
    assert not (tmp_path / "run").exists()


def test_a_budget_needs_a_private_recipe(tiny_recipe):
    with pytest.raises(RecipeError, match=r"--epsilon 1: recipe 'smoke' trains without privacy"):
        with_budget(tiny_recipe, 1.0, None)
    with pytest.raises(UsageError, match="method 'adversarial' protects nothing"):
        plan_training(load_recipe("smoke", [*SAMPLE, "privacy.epsilon=1"]), DATA)
    with pytest.raises(RecipeError, match=r"privacy.epsilon = -1.0: expected a number"):
        with_budget(load_recipe("dpgan"), -1.0, None)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("training.loss=relativistic", "expected binary_cross_entropy or hinge"),
        ("discriminator.dropout=0.3", "expected neither spectral_norm nor dropout"),
        ("discriminator.projection_size=0", "expected at least 1"),
        ("training.most_discriminator_steps=0", "expected an integer from 1"),
    ],
)
def test_what_cannot_be_private_is_refused(change: str, expected: str):
    with pytest.raises(RecipeError, match=expected):
        load_recipe("dpgan", [change])


def test_a_sample_larger_than_the_data_is_refused():
    with pytest.raises(UsageError, match="batch_size = 501: expected at most the 500 images"):
        plan_private_training(load_recipe("dpgan", [*TINY, "training.batch_size=501"]), DATA)
