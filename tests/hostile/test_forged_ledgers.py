"""A ledger that is not the mechanisms of its recipe carries no claim, in a checkpoint or in a set."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support import forge, forged_checkpoint
from typer.testing import CliRunner

from synthgen.cli.app import app
from synthgen.errors import CheckpointError, SynthgenError, VerificationError
from synthgen.files import sha256_of_json
from synthgen.model.checkpoint import builtin_checkpoints, load_checkpoint
from synthgen.model.claims import expect_possible_claim
from synthgen.model.ledgers import left_to_charge, students_turns
from synthgen.model.recipe import Recipe, load_recipe
from synthgen.privacy.accounting import Mechanism
from synthgen.privacy.ledger import Ledger
from synthgen.privacy.statement import PrivacyProof, PrivacyStatement, differential_privacy
from synthgen.sets.inspection import describe
from synthgen.sets.verification import verify
from synthgen.training.matching.fitting import fitted

HASH, TRAINED_ON = "0" * 64, "all 60,000 images of the training split of Fashion-MNIST"


@pytest.fixture(scope="module")
def private():
    """The shipped checkpoint with five students' looks, epsilon 9.995."""
    return load_checkpoint("private")


@pytest.fixture(scope="module")
def dpgan() -> Recipe:
    return load_recipe("dpgan", ["training.steps=2000"])


def stated(*mechanisms: Mechanism, trained_on: str = TRAINED_ON) -> PrivacyStatement:
    return differential_privacy(Ledger(mechanisms), 1e-5, trained_on)


def claimed(*mechanisms: Mechanism) -> PrivacyStatement:
    """A statement whose epsilon nobody has computed."""
    return PrivacyStatement(
        trained_on=TRAINED_ON,
        proof=PrivacyProof(
            epsilon=1.0,
            delta=1e-5,
            epsilon_rdp=1.0,
            accountant_version="0.6.0",
            ledger=Ledger(mechanisms),
            public=(),
        ),
    )


def steps_of_discriminator(recipe: Recipe, steps: int, **changes: object) -> Mechanism:
    mechanism = Mechanism(
        name="discriminator",
        releases="noisy gradients",
        noise_multiplier=2.0,
        l2_sensitivity=1.0,
        sampling_probability=recipe.training.batch_size / 60_000,
        steps=steps,
    )
    return replace(mechanism, **changes)


INVENTED = Mechanism(name="class means", releases="ten noisy sums", noise_multiplier=60.0, l2_sensitivity=1.0)


def as_private(document: dict) -> None:
    """Give any checkpoint's generator a private recipe, and a claim by a ledger of one line."""
    recipe = load_checkpoint("private").recipe.to_dict()
    document["recipe"] = recipe | {key: document["recipe"][key] for key in ("latent", "generator")}
    document["recipe"]["data"]["official"] = False
    document["privacy"] = stated(INVENTED).to_dict()


def test_unprotected_weights_carry_no_invented_ledger(export, tiny_checkpoint, tmp_path):
    forged = forged_checkpoint(builtin_checkpoints()["conditional"], tmp_path, as_private)
    made = export(tmp_path / "set", checkpoint=load_checkpoint("conditional"), count=20)
    assert made.count == 20
    for command in (
        ("export", "--checkpoint", forged, "--max-epsilon", "0.1", "--count", 10, "--out", tmp_path / "out"),
        ("verify", tmp_path / "set", "--checkpoint", forged, "--regenerate", 5),
        ("info", forged),
        ("preview", forged, "--out", tmp_path / "x.png"),
    ):
        result = CliRunner().invoke(app, list(map(str, command)))
        assert isinstance(result.exception, SynthgenError)
        assert "its ledger lists 'class means'; its recipe's mechanisms are teacher, embedding, " in str(
            result.exception
        )
        assert result.output == ""
    assert not (tmp_path / "out").exists()


def test_a_set_carries_no_invented_ledger(export, private_checkpoint, tmp_path):
    export(tmp_path / "set", checkpoint=private_checkpoint, count=20)
    claim = stated(INVENTED, trained_on=private_checkpoint.privacy.trained_on).to_dict()
    forge(tmp_path / "set", lambda m: m.update(privacy=claim), cards=False)
    for command in (("verify", tmp_path / "set"), ("info", tmp_path / "set")):
        result = CliRunner().invoke(app, list(map(str, command)))
        assert isinstance(result.exception, VerificationError)
        assert "its ledger lists 'class means'" in str(result.exception)


def without_students(document: dict, kept: int) -> None:
    ledger = Ledger.from_list(document["privacy"]["mechanisms"][: 2 + kept])
    document["privacy"] = differential_privacy(ledger, 1e-5, document["privacy"]["trained_on"]).to_dict()


@pytest.mark.parametrize("kept", [0, 4])
def test_a_finished_run_has_all_its_students_looks(private, tmp_path, kept: int):
    forged = forged_checkpoint(private.path, tmp_path, lambda document: without_students(document, kept))
    with pytest.raises(CheckpointError, match=f"lists {kept} students' looks; after 2,400 steps .* there are 5"):
        load_checkpoint(forged)


def test_a_run_that_was_stopped_has_the_looks_of_its_steps_and_says_what_is_left(private, tmp_path):
    def stopped(document, steps):
        without_students(document, 2)
        document["training"]["steps"] = steps

    before = forged_checkpoint(private.path, tmp_path, lambda d: stopped(d, 1_200), name="before")
    assert list(students_turns(private.recipe)) == [400, 800, 1200, 1600, 2000]
    assert describe(str(before))["ledger"] == (
        "lacks 3 of 5 students' looks: of a run that was stopped before them, or left out by whoever made this"
    )
    assert "ledger" not in describe("private")
    after = forged_checkpoint(private.path, tmp_path, lambda d: stopped(d, 1_201), name="after")
    with pytest.raises(CheckpointError, match=r"lists 2 students' looks; after 1,201 steps .* there are 3"):
        load_checkpoint(after)


def test_more_looks_than_steps_are_no_offence(private):
    expect_possible_claim(HASH, private.recipe, private.privacy, 100)  # looks that were cut short stay charged
    expect_possible_claim(HASH, private.recipe, private.privacy, "2400")
    expect_possible_claim(HASH, private.recipe, private.privacy)


def test_students_have_their_turns_one_a_step():
    recipe = fitted(load_recipe("private", ["training.steps=3", "look.students=5"]), 60_000)
    assert list(students_turns(recipe)) == [0, 1, 2, 3, 4]


def changed(mechanisms, index, **changes):
    return [replace(each, **changes) if i == index else each for i, each in enumerate(mechanisms)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: [*m, replace(m[-1], name="student 6")], "its ledger lists 'teacher', 'embedding'"),
        (lambda m: [m[1], m[0], *m[2:]], "its ledger lists 'embedding', 'teacher'"),
        (lambda m: [m[0], *m[2:]], "its ledger lists 'teacher', 'student 1'"),
        (lambda m: m[:1], "its ledger lists 'teacher'; its recipe's mechanisms are teacher, embedding, student 1"),
        (lambda m: changed(m, 0, name="x" * 300), "its ledger lists 'x{40}', 'embedding'"),
        (lambda m: changed(m, 0, steps=291), "steps are 291, 1, 1, 1, 1, 1, 1; expected 292 of the teacher"),
        (lambda m: changed(m, 3, steps=2), "steps are 292, 1, 1, 2, 1, 1, 1; expected 292 of the teacher"),
        (lambda m: changed(m, 0, sampling_probability=0.1), "samples with probability 0.1; its recipe takes 8,192 of"),
        (lambda m: changed(m, 4, sampling_probability=0.5), "student 3 has 0.8 times the teacher's noise, and samp"),
        (lambda m: changed(m, 6, noise_multiplier=100.0), "student 5 has 50.34 times the teacher's noise"),
    ],
)
def test_a_ledger_of_other_mechanisms_than_its_recipes_is_refused(private, change, words: str):
    privacy = claimed(*change(list(private.privacy.proof.ledger)))
    with pytest.raises(ValueError, match=words):
        expect_possible_claim(HASH, private.recipe, privacy, 2_400)


@pytest.mark.parametrize(
    ("mechanisms", "words"),
    [
        (lambda r: [steps_of_discriminator(r, 2_001)], "lists 2,001 discriminator steps; expected 1,000 to 2,000"),
        (lambda r: [steps_of_discriminator(r, 999)], "lists 999 discriminator steps; expected 1,000 to 2,000"),
        (lambda r: [steps_of_discriminator(r, 1_000, name="teacher")], "lists 'teacher'; its recipe's mechanisms are"),
        (lambda r: [steps_of_discriminator(r, 1_000, sampling_probability=1e-4)], "samples with probability 0.0001"),
        (lambda r: [steps_of_discriminator(r, 1_000), INVENTED], "lists 'discriminator', 'class means'"),
    ],
)
def test_a_games_ledger_is_its_discriminators_steps(dpgan, mechanisms, words: str):
    with pytest.raises(ValueError, match=words):
        expect_possible_claim(HASH, dpgan, claimed(*mechanisms(dpgan)), 1_000)


def test_a_game_that_was_stopped_says_which_steps_are_left(dpgan):
    privacy = claimed(steps_of_discriminator(dpgan, 1_050))
    expect_possible_claim(HASH, dpgan, privacy, 1_000)
    assert left_to_charge(dpgan, privacy) == "950 of 2,000 discriminator steps"
    assert left_to_charge(dpgan, claimed(steps_of_discriminator(dpgan, 2_000))) == ""


def test_a_claim_for_no_images_is_refused(private):
    privacy = replace(private.privacy, trained_on="nothing: untrained")
    with pytest.raises(ValueError, match="its recipe takes 8,192 of 0 images"):
        expect_possible_claim(HASH, private.recipe, privacy)


def test_a_set_of_a_stopped_run_says_so(export, private, tmp_path):
    def stopped(document):
        without_students(document, 1)
        document["training"]["steps"] = 500

    checkpoint = load_checkpoint(forged_checkpoint(private.path, tmp_path, stopped))
    export(tmp_path / "set", checkpoint=checkpoint, count=20)
    said = "lacks 4 of 5 students' looks: of a run that was stopped before them, or left out by whoever made this"
    assert describe(str(tmp_path / "set"))["ledger"] == said
    assert verify(tmp_path / "set").unchecked[-2:] == (
        f"its ledger {said}",
        "privacy claim not checked: checkpoint unknown",
    )
    assert said in (Path(tmp_path) / "set" / "README.md").read_text("utf-8")
    document = json.loads((tmp_path / "set" / "manifest.json").read_text("utf-8"))
    assert document["checkpoint"]["recipe_sha256"] == sha256_of_json(document["checkpoint"]["recipe"])
