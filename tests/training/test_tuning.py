import json
import math
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from support import DATA, SAMPLE, forged_checkpoint
from typer.testing import CliRunner

from synthgen.cli.app import app
from synthgen.errors import CheckpointError, Diverged, Interrupted, PrivacyError, RecipeError, TrainingError, UsageError
from synthgen.model.checkpoint import load_checkpoint
from synthgen.model.recipe import load_recipe
from synthgen.privacy.accounting import epsilon_of
from synthgen.privacy.exact import Grid
from synthgen.privacy.ledger import LEDGER_NAME, read_ledger
from synthgen.privacy.selection import Selection
from synthgen.sets.account import account
from synthgen.sets.inspection import describe
from synthgen.training import score as score_module
from synthgen.training import tuning as tuning_module
from synthgen.training.folder import STATE_NAME, read_header
from synthgen.training.matching import run as matching_run
from synthgen.training.matching.student import Student
from synthgen.training.plan import plan
from synthgen.training.run import train
from synthgen.training.score import noisy_score
from synthgen.training.tuning_progress import SLOTS

TINY = [
    *SAMPLE,
    "privacy.epsilon=2",
    "latent.size=4",
    "generator.stem_filters=4",
    "generator.filters=[4, 4]",
    "look.teacher_batch_size=100",
    "look.teacher_steps=5",
    "look.students=0",
    "training.steps=4",
    "training.images_per_class=2",
    "training.sample_every_steps=2",
]
GRID = ["look.teacher_learning_rate=4,8,16"]
SETS = [part for override in TINY for part in ("--set", override)]
COMMAND = ["train", "--data", str(DATA), *SETS, "--tune", "3", "--grid", GRID[0]]


class Killed(BaseException):
    """As a power cut: nothing catches it."""


@pytest.fixture(scope="module")
def planned():
    return plan("private", overrides=TINY, data=DATA, tune=3, grid=GRID)


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    """A real tuning of two runs by the command, and what it printed."""
    out = tmp_path_factory.mktemp("runs") / "tuned"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_module, "_GENERATED_IMAGES", 512)
        patch.setattr(matching_run, "_STUDENTS_IMAGES", 300)
        patch.setattr(Selection, "draw_runs", lambda self: 2)
        result = CliRunner().invoke(app, [*COMMAND, "--out", str(out)])
    assert result.exit_code == 0, result.stderr
    return load_checkpoint(out), result


@pytest.fixture
def acted(chosen, monkeypatch):
    """Runs that are a copy of the real one's files, and scores as a test gives them; what was begun is counted.

    An entry is a score, or an exception: raised by the run if it is one that a run raises, and by the score otherwise.
    """
    begun: list[float] = []
    scores: list[float | BaseException] = []
    of_score: list[float] = []

    def act(plan, out, *, resume, should_stop):
        of_run = scores[len(begun)]
        begun.append(plan.recipe.look.teacher_learning_rate)
        if isinstance(of_run, Exception):
            raise of_run
        shutil.copytree(chosen[0].path, out, dirs_exist_ok=True)
        (out / "of").write_text(str(len(begun)))
        return load_checkpoint(out)

    def score(*arguments):
        of_run = scores[len(begun) - 1]
        of_score.append(len(begun))
        if isinstance(of_run, BaseException):
            raise of_run
        return of_run

    monkeypatch.setattr(tuning_module, "train", act)
    monkeypatch.setattr(tuning_module, "noisy_score", score)
    monkeypatch.setattr(Selection, "draw_runs", lambda self: len(scores))
    return begun, scores, of_score


def test_the_whole_budget_pays_for_the_choice(planned):
    assert planned.run.selection == planned.selection == Selection(mean=3, score_noise_multiplier=30.0)
    alone = epsilon_of(planned.mechanisms, 1e-5)
    single = plan("private", overrides=TINY, data=DATA)
    assert alone < 1.2 < 1.99 < epsilon_of(single.mechanisms, 1e-5) <= 2
    assert {each.recipe.look.teacher_learning_rate for each in planned.candidates} == {4.0, 8.0, 16.0}
    assert {each.look.learning_rate for each in planned.candidates} == {4.0, 8.0, 16.0}
    assert all(each.mechanisms == planned.mechanisms for each in planned.candidates)


def test_a_small_budget_has_a_quieter_score():
    planned = plan("private", overrides=TINY, epsilon=0.2, data=DATA, tune=3, grid=GRID)
    assert planned.selection.score_noise_multiplier == 300.0


def test_dry_run_says_what_a_run_and_what_the_choice_costs(tmp_path):
    result = CliRunner().invoke(app, [*COMMAND, "--dry-run", "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.stderr
    for part in (
        "tuning: the best of a random number of runs, 3 on average",
        "one of 3 candidates at random: look.teacher_learning_rate 4, 8, 16",
        "budget: epsilon 2 at delta 1e-05 for all of it",
        "a single run with this noise would cost epsilon 1.",
        "never shown",
        "each run: 1. teacher",
    ):
        assert part in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_tuning_leaves_one_run_whose_claim_is_that_of_the_whole(chosen, planned, spend_folder):
    checkpoint, _ = chosen
    out, proof = checkpoint.path, checkpoint.privacy.proof
    assert 1.99 <= proof.epsilon <= 2.0001
    assert proof.ledger.selection == planned.selection
    assert read_ledger(out / LEDGER_NAME).ledger == proof.ledger
    assert proof.exact_noise
    assert checkpoint.recipe.look.teacher_learning_rate in (4.0, 8.0, 16.0)
    assert {path.name for path in out.iterdir()} == {
        *("checkpoint.json", "generator.h5", "ledger.json", "metrics.csv", "release.h5", "samples", "samples.png"),
    }
    tuning = checkpoint.training["tuning"]
    assert tuning["chosen"] == f"look.teacher_learning_rate={checkpoint.recipe.look.teacher_learning_rate:g}"
    assert tuning["grid"] == {"look.teacher_learning_rate": ["4", "8", "16"]}
    assert checkpoint.training["spend_log"] is True
    assert len({path.stat().st_mtime_ns // 10**9 for path in out.rglob("*")}) <= 2  # no file tells when it was written


def test_nothing_is_shown_of_the_other_runs(chosen):
    _, printed = chosen
    assert [line.split()[0] for line in printed.stdout.splitlines()] == ["chosen:"]
    after = printed.stderr.partition("without a word until the best run is chosen")[2]
    lines = [line for line in after.splitlines() if line.strip()]
    assert [line.split()[0] for line in lines[1:]] == ["checkpoint", "next:"]  # the first is the rest of this line


def test_a_tuned_checkpoint_is_shown_with_its_selection(chosen):
    checkpoint, _ = chosen
    shown = dict(describe(str(checkpoint.path)))
    assert "the best of a random number of runs, 3 on average" in shown["selection"]
    (joint,) = account([str(checkpoint.path)]).joint
    assert joint.epsilon == pytest.approx(checkpoint.privacy.proof.epsilon, abs=1e-3)


def test_another_generator_on_a_tuned_release_has_the_claim_of_the_tuning(chosen):
    anew = plan(overrides=["training.steps=2"], release=chosen[0].path)
    assert anew.selection == chosen[0].privacy.proof.ledger.selection
    assert f"epsilon {chosen[0].privacy.proof.ledger.epsilon(1e-5):.3f} at delta" in anew.describe()[0]


def without_selection(document):
    del document["privacy"]["selection"]


def test_a_checkpoint_without_its_selection_is_refused(chosen, tmp_path):
    path = chosen[0].path
    with pytest.raises(CheckpointError, match="the privacy statement's accountant"):
        load_checkpoint(forged_checkpoint(path, tmp_path, without_selection))

    def all_of_it(document):  # as a smaller claim in the words of a single run: its hash is another, and its ledger
        single = epsilon_of(chosen[0].privacy.proof.ledger.mechanisms, 1e-5)
        proof = replace(chosen[0].privacy.proof, ledger=replace(chosen[0].privacy.proof.ledger, selection=None))
        document["privacy"] = replace(
            chosen[0].privacy, proof=replace(proof, epsilon=round(single + 1e-4, 4))
        ).to_dict()

    forged = forged_checkpoint(path, tmp_path, all_of_it, name="of-a-single-run")
    assert load_checkpoint(forged).sha256 != chosen[0].sha256
    shutil.copyfile(path / LEDGER_NAME, forged / LEDGER_NAME)
    with pytest.raises(CheckpointError, match="holds other mechanisms than the checkpoint beside it"):
        load_checkpoint(forged)


def test_only_the_best_is_kept(planned, acted, tmp_path):
    begun, scores, _ = acted
    scores += [100.0, 300.0, 200.0, 300.0]
    summaries = []
    checkpoint = train(planned, tmp_path / "run", on_summary=summaries.append)
    assert len(begun) == 4
    assert (tmp_path / "run" / "of").read_text() == "2"  # of equal ones, the first
    assert [summary.accuracy for summary in summaries] == [0.6]
    assert not (tmp_path / "run" / "tuning").exists()
    assert not (tmp_path / "run" / STATE_NAME).exists()
    assert checkpoint.training["tuning"]["accuracy"] == 0.6


def test_everything_is_charged_before_the_first_run(planned, acted, tmp_path, spend_folder):
    _, scores, _ = acted
    scores += [UsageError("stop here")]
    with pytest.raises(UsageError, match="stop here"):
        train(planned, tmp_path / "run")
    record = read_ledger(tmp_path / "run" / LEDGER_NAME)
    assert record.ledger.mechanisms == planned.mechanisms
    assert record.ledger.selection == planned.selection
    (log,) = spend_folder.glob("*.jsonl")
    assert [json.loads(line)["run"] for line in log.read_text().splitlines()] == [record.run] * len(planned.mechanisms)


def test_the_folder_of_the_first_run_is_drawn(planned, acted, tmp_path, monkeypatch):
    """An error may name the folder, which must not tell whether a run was over before."""
    _, scores, _ = acted
    for i, name in enumerate(SLOTS):
        scores.append(Killed())
        monkeypatch.setattr(tuning_module.secrets, "randbelow", lambda most, i=i: i % most)
        with pytest.raises(Killed):
            train(replace(planned, spend_log=False), tmp_path / name)
        assert [path.name for path in (tmp_path / name / "tuning").iterdir()] == [name]


def test_a_run_without_numbers_has_the_worst_score_and_ends_nothing(planned, acted, tmp_path):
    begun, scores, of_score = acted
    scores += [Diverged("no numbers"), 5.0, CheckpointError("no integers")]
    train(planned, tmp_path / "run")
    assert len(begun) == 3
    assert of_score == [2]
    assert (tmp_path / "run" / "of").read_text() == "2"


def test_where_no_run_comes_to_its_end_there_is_none(planned, acted, tmp_path):
    _, scores, _ = acted
    scores += [Diverged("no numbers")]
    for resume in (False, True):
        with pytest.raises(TrainingError, match="no run came to its end"):
            train(planned, tmp_path / "run", resume=resume)


def test_a_run_killed_while_it_is_scored_counts_and_is_not_repeated(planned, acted, tmp_path):
    begun, scores, of_score = acted
    scores += [1.0, Killed(), 0.5, 0.7]
    with pytest.raises(Killed):
        train(planned, tmp_path / "run")
    drawn = read_header(tmp_path / "run")["progress"]["drawn"]
    train(planned, tmp_path / "run", resume=True)
    assert begun == [planned.candidates[i].recipe.look.teacher_learning_rate for i in drawn]  # nothing is drawn anew
    assert of_score == [1, 2, 3, 4]
    assert (tmp_path / "run" / "of").read_text() == "1"


@pytest.mark.parametrize("at", range(1, 10))
def test_a_tuning_killed_at_any_step_begins_no_run_twice(planned, acted, tmp_path, monkeypatch, at: int):
    """Killed between the ledger's count and the state, wherever that is, and taken up again."""
    begun, scores, _ = acted
    scores += [1.0, 3.0, 2.0]
    published, kept = [], tuning_module.write_state

    def write(*arguments):
        published.append(arguments)
        if len(published) == 1 + len(planned.mechanisms) + at:
            raise Killed
        kept(*arguments)

    monkeypatch.setattr(tuning_module, "write_state", write)
    with pytest.raises(Killed):
        train(planned, tmp_path / "run")
    train(planned, tmp_path / "run", resume=True)
    assert len(begun) == (2 if at % 3 == 1 else 3)  # of a run's steps the first begins it
    assert (tmp_path / "run" / "of").read_text() == ("3" if at in (5, 6) else "2")  # the second was lost then


def test_a_kill_while_the_best_is_handed_over_is_taken_up(planned, acted, tmp_path, monkeypatch):
    begun, scores, _ = acted
    scores += [1.0, 3.0]
    with monkeypatch.context() as patch:
        patch.setattr(tuning_module, "flush_to_disk", lambda path: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            train(planned, tmp_path / "run")
    checkpoint = train(planned, tmp_path / "run", resume=True)
    assert len(begun) == 2
    assert checkpoint.training["tuning"]["accuracy"] == 0.006
    assert checkpoint.training["spend_log"] is True


def test_an_older_state_put_back_is_refused(planned, acted, tmp_path):
    _, scores, _ = acted
    out = tmp_path / "run"
    scores += [1.0, 2.0, Killed()]
    with pytest.raises(Killed):
        train(planned, out)
    header = read_header(out)
    header["ledger"]["resumed"] -= 2
    header["progress"] |= {"done": 1, "stage": ""}
    header.pop("version")
    tuning_module.write_state(out, header, {})
    with pytest.raises(PrivacyError, match="is not this tuning's, or an older one"):
        train(planned, out, resume=True)


def test_a_stopped_tuning_says_nothing_of_its_runs(planned, acted, tmp_path):
    _, scores, _ = acted
    scores += [1.0, Interrupted("stopped after 3 of 4 steps")]
    with pytest.raises(Interrupted, match=r"^stopped, with everything saved; go on with --resume$"):
        train(planned, tmp_path / "run")


def test_a_first_look_cut_short_is_lost_and_the_tuning_goes_on(planned, chosen, tmp_path, monkeypatch):
    """The real run, killed in its first look: it is charged, and not taken again."""
    monkeypatch.setattr(Selection, "draw_runs", lambda self: 1)

    def killed(images, labels, plan, charge, *arguments):
        charge(plan.teacher)
        raise Killed

    monkeypatch.setattr(matching_run, "look_privately", killed)
    with pytest.raises(Killed):
        train(planned, tmp_path / "run")
    with pytest.raises(TrainingError, match="no run came to its end"):
        train(planned, tmp_path / "run", resume=True)


def test_a_tuning_is_resumed_by_its_folder_alone_and_by_no_other_plan(planned, acted, tmp_path):
    _, scores, _ = acted
    out = tmp_path / "run"
    scores += [Interrupted("stopped")]
    with pytest.raises(Interrupted):
        train(planned, out)
    again = plan(resume=out, data=DATA)
    assert again.identity() == planned.identity()
    assert [each.recipe for each in again.candidates] == [each.recipe for each in planned.candidates]
    for other in (
        plan("private", overrides=TINY, data=DATA),
        plan("private", overrides=TINY, data=DATA, tune=4, grid=GRID),
        plan("private", overrides=TINY, data=DATA, tune=3, grid=["look.teacher_learning_rate=4,8"]),
    ):
        with pytest.raises(UsageError, match="holds a run with different"):
            train(other, out, resume=True)
    for change in ({"drawn": []}, {"drawn": [7]}, {"done": -1}, {"slot": "../x"}, {"stage": "over"}, {"score": "high"}):
        header = read_header(out)
        header.pop("version")
        sound = header["progress"]
        header["progress"] = {**sound, "best": 0, "score": 1.0, **change}
        tuning_module.write_state(out, header, {})
        with pytest.raises(TrainingError, match="cannot be resumed from"):
            train(planned, out, resume=True)
        header["progress"] = sound
        tuning_module.write_state(out, header, {})


def test_candidates_are_drawn_uniformly(planned, tmp_path, monkeypatch):
    monkeypatch.setattr(Selection, "draw_runs", lambda self: 3_000)
    planned.start(tmp_path, False, None, lambda *arguments: None)
    drawn = Counter(read_header(tmp_path)["progress"]["drawn"])
    assert set(drawn) == {0, 1, 2}
    assert all(abs(count - 1_000) < 6 * math.sqrt(3_000 * 2 / 9) for count in drawn.values())


def test_a_score_counts_the_images_named_rightly_with_noise(chosen, planned, monkeypatch):
    data = planned.data
    monkeypatch.setattr(score_module, "_GENERATED_IMAGES", 256)
    monkeypatch.setattr(Student, "fit", lambda *arguments: None)
    truth = {image.tobytes(): label for image, label in zip(data.images, data.labels, strict=True)}
    named = [truth.get(image.tobytes(), 0) for image in data.images]
    right = int((np.array(named) == data.labels).sum())

    def classify(self):
        return lambda images: np.array([truth.get(image.tobytes(), 0) for image in images], np.uint8)

    monkeypatch.setattr(Student, "classify_pixels", classify)
    drawn = np.array([noisy_score(chosen[0], data, 5.0, 0) for _ in range(60)])
    assert abs(drawn.mean() - right) < 5 * 5.0 / math.sqrt(60)
    assert 3.0 < drawn.std() < 7.5
    monkeypatch.setattr(Grid, "noisy", lambda self, sums: sums * self.step)
    without = replace(data, images=data.images[1:], labels=data.labels[1:])
    whole, less = (noisy_score(chosen[0], each, 5.0, 0) for each in (data, without))
    assert 0 < whole - less <= 1  # an image less, and the others' classes are what they were


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"tune": 1}, UsageError, "--tune 1: expected 2 to 1,000 runs on average"),
        ({"tune": 0}, UsageError, "--tune 0: expected 2 to 1,000"),
        ({"tune": -3}, UsageError, "--tune -3: expected 2 to 1,000"),
        ({"tune": 1_001}, UsageError, "expected 2 to 1,000"),
        ({"tune": None}, UsageError, "--grid 'look.teacher_learning_rate=4,8,16': goes with --tune N"),
        ({"grid": []}, UsageError, "--tune: expected at least one --grid"),
        ({"grid": ["look.teacher_learning_rate="]}, UsageError, "expected each key once, as KEY=VALUE,VALUE"),
        ({"grid": ["look.teacher_learning_rate=4,,8"]}, UsageError, "expected each key once, as KEY=VALUE,VALUE"),
        ({"grid": ["=4,8"]}, UsageError, "expected each key once"),
        ({"grid": [*GRID, *GRID]}, UsageError, "expected each key once"),
        ({"grid": ["look.teacher_learning_rate=4"]}, UsageError, "makes 1 candidates; expected 2 to 1,000"),
        ({"grid": ["look.teacher_learning_rate=4,4.0"]}, UsageError, "two candidates are the same"),
        ({"grid": ["look.speed=1,2"]}, RecipeError, "look.speed = 1: unknown key"),
        ({"grid": ["looks.teacher_learning_rate=1,2"]}, RecipeError, "looks = .*: unknown key"),
        ({"grid": ["look.teacher_learning_rate=4,fast"]}, RecipeError, "'fast': expected a number from"),
        ({"grid": ["look.teacher_learning_rate=4,-1"]}, RecipeError, "-1.0: expected a number from"),
        ({"grid": ["look.embedding_noise=0.5,0.8"]}, RecipeError, "changes what is charged"),
        ({"grid": ["look.teacher_steps=5,6"]}, RecipeError, "changes what is charged"),
        ({"grid": ["look.students=0,1"]}, RecipeError, "changes what is charged"),
        ({"grid": ["training.steps=4,8"]}, RecipeError, "synthgen train --release RUN --set training.steps="),
        ({"grid": ["privacy.epsilon=1,2"]}, RecipeError, "how much may be spent, is not tuned"),
        ({"grid": ["data.limit=10,20"]}, RecipeError, "what is protected"),
        ({"recipe": "notebook", "overrides": SAMPLE}, UsageError, "'notebook' trains without privacy"),
        ({"recipe": "smoke", "overrides": SAMPLE}, UsageError, "'smoke' trains without privacy"),
    ],
)
def test_what_cannot_be_tuned_is_refused_in_a_line(options, error, words):
    given = {"recipe": "private", "overrides": TINY, "data": DATA, "tune": 3, "grid": GRID, **options}
    with pytest.raises(error, match=words) as raised:
        plan(**given)
    assert "\n" not in str(raised.value)


def test_a_release_is_not_tuned(chosen):
    with pytest.raises(UsageError, match="choosing costs nothing without --tune"):
        plan(release=chosen[0].path, tune=3, grid=GRID)


def test_a_private_game_is_tuned_too():
    tiny = ["latent.size=8", "generator.filters=[4, 4]", "discriminator.filters=[4, 4]", "training.batch_size=100"]
    recipe = load_recipe("dpgan", [*SAMPLE, *tiny, "training.steps=12"])
    grid = ["training.discriminator_learning_rate=1e-3,2e-3", "discriminator.kernel_sizes=[7, 3],[5, 3]"]
    planned = plan(recipe, data=DATA, tune=3, grid=grid)
    assert len(planned.candidates) == 4
    assert {each.recipe.discriminator.kernel_sizes for each in planned.candidates} == {(7, 3), (5, 3)}
    assert len({each.mechanisms for each in planned.candidates}) == 1
    clipped = plan(recipe, data=DATA, tune=3, grid=["training.l2_clip_norm=0.5,1"])
    assert {each.mechanisms[0].l2_sensitivity for each in clipped.candidates} == {0.5, 1.0}  # of one price
    for key in ("steps=12,13", "batch_size=100,200"):
        with pytest.raises(RecipeError, match="changes what is charged"):
            plan(recipe, data=DATA, tune=3, grid=[f"training.{key}"])
    unlabelled = replace(recipe, conditional=False, discriminator=replace(recipe.discriminator, projection_size=0))
    with pytest.raises(UsageError, match="draws no labels"):
        plan(unlabelled, data=DATA, tune=3, grid=grid)
