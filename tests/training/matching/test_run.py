import json
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
from support import DATA, SAMPLE, expect_equal_floats, noted_floats
from typer.testing import CliRunner

from synthgen.cli.app import app
from synthgen.errors import CheckpointError, Interrupted, PrivacyError, RecipeError, UsageError
from synthgen.model.checkpoint import load_checkpoint
from synthgen.model.recipe import load_recipe
from synthgen.privacy.accounting import Budget, epsilon_of
from synthgen.privacy.ledger import LEDGER_NAME, Ledger, OpenLedger, read_ledger
from synthgen.real_images import load_real_images
from synthgen.training.folder import STATE_NAME
from synthgen.training.matching import looks as looks_module
from synthgen.training.matching import run as matching_training
from synthgen.training.matching.features import embedding_rows
from synthgen.training.matching.looks import embedding_sums, look_privately
from synthgen.training.matching.plan import plan_matching, plan_matching_anew
from synthgen.training.matching.release import Release
from synthgen.training.matching.run import RELEASE_NAME
from synthgen.training.matching.student import Student
from synthgen.training.plan import plan as plan_anything
from synthgen.training.run import train

STEPS = 6
TINY = [
    *SAMPLE,
    "privacy.epsilon=2",
    "latent.size=4",
    "generator.stem_filters=4",
    "generator.filters=[4, 4]",
    "look.teacher_batch_size=100",
    "look.teacher_steps=5",
    "look.students=1",
    f"training.steps={STEPS}",
    "training.images_per_class=2",
    "training.sample_every_steps=3",
]


class Killed(BaseException):
    """As a power cut: nothing catches it."""


@pytest.fixture(scope="module")
def plan():
    return plan_matching(load_recipe("private", TINY), DATA, seed=3)


@pytest.fixture(scope="module", autouse=True)
def small_lessons():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching_training, "_STUDENTS_IMAGES", 300)
        yield


@pytest.fixture(scope="module")
def unbroken_floats(plan, tmp_path_factory):
    with noted_floats() as noted:
        return train(plan, tmp_path_factory.mktemp("runs") / "private"), noted


@pytest.fixture(scope="module")
def unbroken(unbroken_floats):
    return unbroken_floats[0]


def ledger_of(out):
    return [mechanism["name"] for mechanism in json.loads((out / LEDGER_NAME).read_text())["mechanisms"]]


def test_a_run_leaves_a_checkpoint_that_states_both_mechanisms(plan, unbroken):
    names = {path.relative_to(unbroken.path).as_posix() for path in unbroken.path.rglob("*") if path.is_file()}
    assert names == {
        "checkpoint.json",
        "generator.h5",
        "ledger.json",
        "metrics.csv",
        "release.h5",
        "samples.png",
        "samples/step-000003.png",
        "samples/step-000006.png",
    }
    ledger = unbroken.privacy.proof.ledger
    assert [(mechanism.name, mechanism.steps) for mechanism in ledger] == [
        ("teacher", 5),
        ("embedding", 1),
        ("student 1", 1),
    ]
    assert ledger.mechanisms == plan.look.mechanisms
    assert (
        plan.recipe.privacy.epsilon * 0.99
        < epsilon_of(tuple(ledger), plan.recipe.privacy.delta)
        <= plan.recipe.privacy.epsilon
    )
    assert "equal class counts" not in unbroken.privacy.proof.public
    assert unbroken.privacy.proof.exact_noise


def test_nothing_unprotected_is_written(plan, unbroken):
    real = load_real_images("train", DATA, official=False)
    files = {path: path.read_bytes() for path in unbroken.path.rglob("*") if path.is_file()}
    scaled = real.images.astype(np.float32) / 255
    rows = [row.tobytes() for image in real.images[::25] for row in image if len(set(row.tolist())) > 9]
    rows += [row.tobytes() for image in scaled[::25] for row in image if len(set(row.tolist())) > 9]
    taught = Release.load(unbroken.path / RELEASE_NAME)
    sums = embedding_sums(embedding_rows, real.images, real.labels, 10)
    rows += [row[i : i + 8].tobytes() for row in (*sums, *sums.astype(np.float32)) for i in range(0, 7000, 500)]
    assert len(rows) > 100
    for path, content in files.items():
        assert not any(row in content for row in rows), path
        assert plan.data.sha256.encode() not in content, path
    assert set(unbroken.training) == {"steps", "seed", "spend_log", "data", "history", "made_with", "class_shares"}
    assert unbroken.training["data"] == {"images": 500}
    assert {key for row in unbroken.training["history"] for key in row} == {"step", "distance", "agreement"}
    assert taught.means.shape[0] == 10


def test_a_released_mean_is_the_noisy_mean_of_the_teachers_class(plan):
    charged = []
    quiet = replace(plan.look, embedding=replace(plan.look.embedding, noise_multiplier=1e-3))
    release = look_privately(plan.data.images, plan.data.labels, quiet, charged.append)
    assert charged == [quiet.teacher, quiet.embedding]
    from synthgen.training.matching.features import scattering_rows

    taught = release.teacher.predict(scattering_rows(plan.data.images))
    counts = np.bincount(taught, minlength=10)
    for label in np.flatnonzero(counts >= 100):
        np.testing.assert_allclose(release.counts[label], counts[label], atol=0.2)
        mean = embedding_rows(plan.data.images[taught == label]).mean(axis=0)
        np.testing.assert_allclose(release.means[label], mean, atol=1e-3)


def test_a_charge_comes_before_the_look(plan, tmp_path, monkeypatch):
    out = tmp_path / "run"
    seen = []

    def train_nothing(*args, **options):
        seen.append(ledger_of(out))
        raise Killed

    monkeypatch.setattr(looks_module, "train_teacher", train_nothing)
    with pytest.raises(Killed):
        train(plan, out)
    assert seen == [["teacher"]]
    with pytest.raises(PrivacyError, match="cut short when its budget had been charged"):
        train(plan, out, resume=True)


@pytest.fixture
def same_noise(unbroken, monkeypatch):
    """Looks that see what the unbroken run's saw, so that runs can be compared."""
    release = Release.load(unbroken.path / RELEASE_NAME)

    def look(images, labels, look, charge, progress):
        charge(look.teacher)
        charge(look.embedding)
        return replace(release, charged=release.charged[:2], students=())

    monkeypatch.setattr(matching_training, "look_privately", look)
    monkeypatch.setattr(matching_training, "look_as_student", lambda *args: release)
    monkeypatch.setattr(Student, "fit", lambda *args: None)


def stop_after(plan, out, steps: int) -> None:
    done = []
    with pytest.raises(Interrupted, match=f"stopped after {steps} of 6 steps, all saved; go on with --resume"):
        train(plan, out, on_step=lambda step, of, figures: done.append(step), should_stop=lambda: len(done) == steps)


@pytest.mark.parametrize("steps", [2, 3, 4])  # before, at and after the student's turn
def test_a_stopped_run_resumes_to_the_weights_of_an_unbroken_one(
    plan, unbroken_floats, same_noise, tmp_path, steps: int
):
    out = tmp_path / "run"
    stop_after(plan, out, steps)
    assert ledger_of(out) == ["teacher", "embedding", "student 1"][: 3 if steps > 3 else 2]
    with noted_floats() as noted:
        train(plan, out, resume=True)
    assert ledger_of(out) == ["teacher", "embedding", "student 1"]
    assert not (out / STATE_NAME).exists()
    expect_equal_floats(noted, unbroken_floats[1])


def test_a_students_look_cut_short_stays_charged_and_the_run_goes_on_without_it(
    plan, same_noise, tmp_path, monkeypatch
):
    out = tmp_path / "run"

    def killed(*args):
        raise Killed

    monkeypatch.setattr(matching_training, "look_as_student", killed)
    with pytest.raises(Killed):
        train(plan, out)
    assert ledger_of(out) == ["teacher", "embedding", "student 1"]
    checkpoint = train(plan, out, resume=True)
    assert [mechanism.name for mechanism in checkpoint.privacy.proof.ledger] == ledger_of(out)
    assert Release.load(out / RELEASE_NAME).students == ()


def test_a_ledger_or_a_release_of_another_run_is_refused(plan, same_noise, unbroken, tmp_path):
    out = tmp_path / "run"
    stop_after(plan, out, 4)
    older = json.loads((out / LEDGER_NAME).read_text())
    whole = (out / LEDGER_NAME).read_bytes()
    ledger = OpenLedger.open(tmp_path / "older.json", plan.recipe.privacy)
    for mechanism in plan.look.mechanisms[:2]:
        ledger.charge(mechanism)
    (out / LEDGER_NAME).write_bytes((tmp_path / "older.json").read_bytes())
    assert older["mechanisms"][:2] == json.loads((out / LEDGER_NAME).read_text())["mechanisms"]
    with pytest.raises(PrivacyError, match="is not this run's"):
        train(plan, out, resume=True)
    (out / LEDGER_NAME).write_bytes(whole)
    release = Release.load(out / RELEASE_NAME)
    less_noise = replace(release.charged[1], noise_multiplier=0.01)
    replace(release, charged=(release.charged[0], less_noise, release.charged[2])).save(out / RELEASE_NAME)
    with pytest.raises(PrivacyError, match="not the outcome of the ledger"):
        train(plan, out, resume=True)


def test_another_plan_is_not_resumed(plan, same_noise, tmp_path):
    out = tmp_path / "run"
    stop_after(plan, out, 2)
    with pytest.raises(UsageError, match="holds a run with different seed"):
        train(replace(plan, seed=4), out, resume=True)
    (out / LEDGER_NAME).unlink()
    with pytest.raises(PrivacyError, match="what was spent is unknown"):
        train(plan, out, resume=True)


def test_a_spoilt_release_is_refused(unbroken, tmp_path):
    broken = tmp_path / RELEASE_NAME
    broken.write_bytes((unbroken.path / RELEASE_NAME).read_bytes()[:500])
    with pytest.raises(PrivacyError, match="no readable release"):
        Release.load(broken)


def test_dry_run_prints_the_whole_plan(tmp_path):
    sets = [part for override in TINY for part in ("--set", override)]
    command = ["train", "--recipe", "private", "--data", str(DATA), "--epsilon", "1", "--dry-run"]
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "run"), *sets])
    assert result.exit_code == 0, result.stderr
    for part in (
        "epsilon 1 at delta 1e-05",
        "1. teacher",
        "2. embedding",
        "3. student 1",
        "5 steps of DP-SGD",
        "with all before it",
    ):
        assert part in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("conditional=false", "expected true, since the statistics are of classes"),
        ("training.images_per_class=1", "expected 0 or an integer from 2"),
        ("look.embedding_noise=0.0001", "expected 0 or a number from 0.001"),
        ("data.images=train+test", "only that split is private"),
    ],
)
def test_what_cannot_be_is_refused(change: str, expected: str):
    with pytest.raises(RecipeError, match=expected):
        load_recipe("private", [change])


def test_a_sample_larger_than_the_data_is_refused():
    with pytest.raises(UsageError, match="teacher_batch_size = 501: expected at most the 500 images"):
        plan_matching(load_recipe("private", [*TINY, "look.teacher_batch_size=501"]), DATA)


def test_another_generator_is_trained_on_the_same_release_without_a_look(unbroken, tmp_path, monkeypatch):
    """Post-processing: nothing is charged, no image is needed, and the first run is left as it was."""
    before = {path.name: path.read_bytes() for path in unbroken.path.iterdir() if path.is_file()}
    changes = ["training.steps=3", "generator.filters=[6, 4]"]
    plan = plan_matching_anew(unbroken.path, changes, seed=4)
    assert plan.data is None
    assert "no image is looked at" in plan.describe()[0]
    monkeypatch.setattr(OpenLedger, "charge", forbidden)
    checkpoint = train(plan, tmp_path / "anew")
    assert checkpoint.sha256 != unbroken.sha256
    assert checkpoint.privacy.proof == unbroken.privacy.proof
    assert checkpoint.recipe.generator.filters == (6, 4)
    assert Release.load(tmp_path / "anew" / RELEASE_NAME).students
    assert {path.name: path.read_bytes() for path in unbroken.path.iterdir() if path.is_file()} == before


def test_a_generator_on_an_earlier_versions_release_claims_no_exact_noise(tmp_path):
    small = ["training.steps=1", "training.images_per_class=4", "generator.filters=[6,4]"]
    checkpoint = train(plan_matching_anew(load_checkpoint("private").path, small), tmp_path / "anew")
    assert not checkpoint.privacy.proof.exact_noise
    assert not Release.load(tmp_path / "anew" / RELEASE_NAME).exact_noise


def test_a_release_cannot_be_relabelled_as_exact(unbroken, tmp_path):
    path = shutil.copytree(unbroken.path, tmp_path / "run") / RELEASE_NAME
    replace(Release.load(path), exact_noise=False).save(path)
    with pytest.raises(PrivacyError, match="names no release"):
        plan_matching_anew(path.parent)


def forbidden(*arguments):
    raise AssertionError("a look was charged")


def test_a_run_anew_resumes_without_the_images(unbroken, tmp_path):
    plan = plan_matching_anew(unbroken.path)
    with noted_floats() as noted:
        whole = train(plan, tmp_path / "whole")
    asked = iter([False] * 4 + [True])
    with pytest.raises(Interrupted):
        train(plan, tmp_path / "broken", should_stop=lambda: next(asked))
    anew = plan_anything(resume=tmp_path / "broken")  # the folder itself holds all that is needed
    assert anew.data is None
    with noted_floats() as noted_again:
        resumed = train(anew, tmp_path / "broken", resume=True)
    assert resumed.sha256 == whole.sha256
    expect_equal_floats(noted_again, noted)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--epsilon=3", "begun with epsilon 2 and delta 1e-05, not 3 and 1e-05; go on with the same budget"),
        ("--delta=1e-06", "begun with epsilon 2 and delta 1e-05, not 2 and 1e-06; go on with the same budget"),
        ("--seed=9", "holds a run with different seed"),
    ],
)
def test_a_run_anew_is_not_resumed_with_other_options(unbroken, tmp_path, option: str, words: str):
    out = tmp_path / "anew"
    with pytest.raises(Interrupted):
        train(plan_matching_anew(unbroken.path, seed=4), out, should_stop=lambda: True)
    before = [(out / name).read_bytes() for name in (LEDGER_NAME, RELEASE_NAME, STATE_NAME)]
    result = CliRunner().invoke(app, ["train", "--resume", "--out", str(out), option])
    assert isinstance(result.exception, PrivacyError | UsageError)
    assert words in str(result.exception)
    assert [(out / name).read_bytes() for name in (LEDGER_NAME, RELEASE_NAME, STATE_NAME)] == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("look.students=2", "look: what .* is released; another look is another run"),
        ("privacy.epsilon=3", "privacy: what .* is released"),
        ("data.holdout=10", "data: what .* is released"),
        ("method=adversarial", "expected"),
    ],
)
def test_what_was_released_is_not_changed_afterwards(unbroken, change: str, message: str):
    with pytest.raises(RecipeError, match=message):
        plan_matching_anew(unbroken.path, [change])


def test_a_release_is_wanted_where_one_is_named(unbroken, tiny_checkpoint, private_checkpoint, tmp_path):
    with pytest.raises(UsageError, match="releases no statistics"):
        plan_matching_anew(tiny_checkpoint.path)
    shutil.copytree(unbroken.path, tmp_path / "shipped")
    (tmp_path / "shipped" / LEDGER_NAME).unlink()
    with pytest.raises(UsageError, match=r"no ledger\.json here; expected the folder that synthgen train left"):
        plan_matching_anew(tmp_path / "shipped")
    result = CliRunner().invoke(app, ["train", "--release", str(unbroken.path), "--epsilon", "1"])
    assert "goes without --recipe, --data, --epsilon and --delta" in str(result.exception)
    result = CliRunner().invoke(app, ["train", "--release", str(unbroken.path), "--dry-run"])
    assert result.exit_code == 0, result.output


def test_a_run_that_looks_for_itself_is_no_run_anew(unbroken, plan, tmp_path):
    asked = iter([False, True])
    with pytest.raises(Interrupted):
        train(plan, tmp_path / "own", should_stop=lambda: next(asked))
    assert plan_anything(resume=tmp_path / "own", data=DATA).data is not None
    anew = plan_matching_anew(unbroken.path, seed=3)
    with pytest.raises(UsageError, match="holds a run that looks for itself; go on without --release"):
        train(anew, tmp_path / "own", resume=True)


def test_a_ledger_that_is_not_the_checkpoints_is_refused(unbroken, tmp_path):
    """Its hash needs no key, so that it alone could claim anything."""
    run = shutil.copytree(unbroken.path, tmp_path / "run")
    (run / LEDGER_NAME).unlink()
    forged = OpenLedger.open(run / LEDGER_NAME, Budget(2.0, 1e-5))
    mechanisms = [
        replace(m, noise_multiplier=20 * m.noise_multiplier) for m in unbroken.privacy.proof.ledger.mechanisms
    ]
    for mechanism in mechanisms:
        forged.charge(mechanism)
    replace(Release.load(run / RELEASE_NAME), charged=tuple(mechanisms)).save(run / RELEASE_NAME)
    with pytest.raises(CheckpointError, match="of another run than the checkpoint beside it"):
        plan_matching_anew(run)


@pytest.mark.parametrize("name", [LEDGER_NAME, RELEASE_NAME])
def test_what_a_run_anew_needs_is_looked_for_before_anything_is_written(unbroken, tmp_path, name: str):
    run = shutil.copytree(unbroken.path, tmp_path / "run")
    (run / name).unlink()
    with pytest.raises(UsageError, match=f"no {name} here"):
        plan_matching_anew(run)


def test_a_release_of_huge_arrays_is_refused(unbroken, tmp_path):
    path = tmp_path / RELEASE_NAME
    shutil.copy(unbroken.path / RELEASE_NAME, path)
    with h5py.File(path, "r+") as file:
        del file["weights"]
        file.create_dataset("weights", (1 << 40,), "f4", chunks=(1024,))
    with pytest.raises(PrivacyError, match="no readable release"):
        Release.load(path)


def test_a_release_without_a_students_look_that_was_cut_short_is_its_ledgers_outcome(unbroken):
    release = Release.load(unbroken.path / RELEASE_NAME)
    teacher, embedding, student = release.charged
    lost = replace(student, name="student that was killed")
    record = read_ledger(unbroken.path / LEDGER_NAME)
    more = replace(record, ledger=Ledger((teacher, embedding, lost, student)))
    release.expect_outcome_of(more, unbroken.path)
    for ledger in (Ledger((teacher, embedding)), Ledger((embedding, teacher, student))):
        with pytest.raises(PrivacyError, match="not the outcome of the ledger"):
            release.expect_outcome_of(replace(record, ledger=ledger), unbroken.path)


def test_the_built_in_release_is_there_to_train_on():
    """Any user may train another generator under the shipped guarantee, without the images."""
    shipped = load_checkpoint("private")
    plan = plan_matching_anew("private", ["generator.stem_filters=128"])
    assert plan.data is None
    assert plan.look.mechanisms == shipped.privacy.proof.ledger.mechanisms
    assert plan.images == 60_000
