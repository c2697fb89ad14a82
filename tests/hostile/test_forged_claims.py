"""Whoever alters a checkpoint or a set and seals it anew makes no privacy claim that synthgen would repeat."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support import forge, forged_checkpoint
from typer.testing import CliRunner

from synthgen.cli.app import app
from synthgen.errors import CheckpointError, PrivacyError, SynthgenError, VerificationError
from synthgen.evaluation.run import evaluate
from synthgen.files import sha256_of_json
from synthgen.model.checkpoint import builtin_checkpoints, load_checkpoint, save_checkpoint
from synthgen.model.claims import BUILT_IN
from synthgen.privacy.statement import PrivacyStatement, claim_sha256, no_guarantee
from synthgen.sets.cards import card
from synthgen.sets.croissant import croissant
from synthgen.sets.inspection import describe, preview_images
from synthgen.sets.manifest import REPRODUCIBILITY, load_manifest
from synthgen.sets.verification import verify

BOAST = "Proven: nothing is revealed (epsilon 0.1)."
MARKUP = '<img src=x onerror=alert(1)> **bold** [link](https://example.org) www.example.org `x` "q" </script>'
FREE_TEXTS = [BOAST, "60,000 images of nobody (epsilon 0.1)", MARKUP, "", "x" * 501, "\x1b[2J", 3, None]


def refusal(*arguments: object) -> SynthgenError:
    """The error that ends a command."""
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert isinstance(result.exception, SynthgenError), result.output
    assert "\n" not in str(result.exception)
    assert result.output == ""
    return result.exception


@pytest.fixture
def small_set(export, tmp_path) -> Path:
    export(tmp_path / "set", count=20)
    return tmp_path / "set"


@pytest.fixture
def private_set(export, private_checkpoint, tmp_path) -> Path:
    export(tmp_path / "set", checkpoint=private_checkpoint, count=20)
    return tmp_path / "set"


@pytest.mark.parametrize("key", ["sentence", "trained_on"])
def test_no_command_repeats_a_forged_sentence_of_a_checkpoint(small_set, tmp_path, key: str):
    forged = forged_checkpoint(
        builtin_checkpoints()["conditional"], tmp_path, lambda c: c["privacy"].update({key: BOAST})
    )
    out = tmp_path / "out"
    for command in (
        ("info", forged),
        ("preview", forged, "--out", out),
        ("export", "--checkpoint", forged, "--count", 1, "--out", out, "--allow-unprotected"),
        ("verify", small_set, "--checkpoint", forged),
    ):
        error = refusal(*command)
        assert key in str(error)
        assert error.exit_code in (1, 2)
    assert not out.exists()


@pytest.mark.parametrize("key", ["sentence", "trained_on"])
def test_no_command_repeats_a_forged_sentence_of_a_set(small_set, tiny_checkpoint, tmp_path, key: str):
    forge(small_set, lambda m: m["privacy"].update({key: BOAST}), cards=False)
    for command in (
        ("info", small_set),
        ("preview", small_set, "--out", tmp_path / "x.png"),
        ("verify", small_set),
        ("verify", small_set, "--checkpoint", tiny_checkpoint.path),
        ("evaluate", small_set),
    ):
        assert key in str(refusal(*command))


@pytest.mark.parametrize("text", FREE_TEXTS)
def test_what_was_trained_on_is_said_in_words_of_this_package(text, tiny_checkpoint, tmp_path):
    with pytest.raises(ValueError, match="trained_on is"):
        PrivacyStatement.from_dict(no_guarantee(text).to_dict())
    with pytest.raises(PrivacyError, match="trained_on is"):
        save_checkpoint(tmp_path / "new", None, tiny_checkpoint.recipe, no_guarantee(text), {})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "text",
    [
        "all 60,000 images of the training split of Fashion-MNIST",
        "the first 1,000 images of the training split of the user's own images",
        "60,000 images of Fashion-MNIST, training split",
        "70,000 images of the public Fashion-MNIST, training and test splits",
        "9 images of the user's own images, training split",
        "nothing: untrained",
    ],
)
def test_the_words_of_every_release_are_read(text: str):
    assert PrivacyStatement.from_dict(no_guarantee(text).to_dict()).trained_on == text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"public": ["nothing at all"]}, "public lists other facts"),
        ({"public": [["the number of images"]]}, "public lists other facts"),
        ({"accountant_version": BOAST}, "accountant_version is"),
        ({"accountant_version": 3}, "accountant_version is"),
    ],
)
def test_no_other_text_of_a_statement_is_free(private_checkpoint, change, words: str):
    with pytest.raises(ValueError, match=words):
        PrivacyStatement.from_dict(private_checkpoint.privacy.to_dict() | change)


def test_what_a_ledger_says_of_itself_stands_in_quotation_marks(private_checkpoint):
    first, *others = private_checkpoint.privacy.proof.ledger
    loud = replace(first, name='a" epsilon 0.1 "b', releases=f'x"; {BOAST}')
    proof = replace(
        private_checkpoint.privacy.proof,
        ledger=replace(private_checkpoint.privacy.proof.ledger, mechanisms=(loud, *others)),
    )
    line = dict(replace(private_checkpoint.privacy, proof=proof).facts())["mechanism 1"]
    assert line.startswith(f""""a' epsilon 0.1 'b": "x'; {BOAST}"; noise multiplier""")


def test_the_shipped_checkpoints_are_the_built_in_ones():
    for name, path in builtin_checkpoints().items():
        checkpoint = load_checkpoint(path)
        known, proof = BUILT_IN[checkpoint.sha256], checkpoint.privacy.proof
        assert checkpoint.is_builtin
        assert (known.title, known.recipe_sha256) == (name, checkpoint.recipe.sha256)
        assert known.trained_on == checkpoint.privacy.trained_on
        assert known.claim_sha256 == (proof and claim_sha256(proof.ledger, proof.delta))
        assert describe(name)["checkpoint"] == f"{name} {checkpoint.sha256} (built in: {name})"


def test_a_checkpoint_by_the_name_of_a_built_in_one_is_not_presented_as_it(export, tiny_checkpoint, tmp_path):
    private = load_checkpoint(shutil.copytree(tiny_checkpoint.path, tmp_path / "private"))
    assert private.name == "private"
    assert not private.is_builtin
    assert describe(str(private.path))["checkpoint"].endswith("(not built in)")
    manifest = export(tmp_path / "set", checkpoint=private, count=20)
    described = describe(str(tmp_path / "set"))
    assert described["checkpoint"] == f"private {private.sha256} (not built in)"
    assert described["claimed by"] == "the manifest; checkpoint not at hand"
    assert "`private` (not built in)" in card([manifest])
    assert "(not built in)" in croissant([manifest])["description"]
    assert verify(tmp_path / "set").unchecked[-1] == "privacy claim not checked: checkpoint unknown"


def test_a_copy_of_a_built_in_checkpoint_is_known_under_any_name(export, tmp_path):
    copy = load_checkpoint(shutil.copytree(builtin_checkpoints()["conditional"], tmp_path / "mine"))
    assert describe(str(copy.path))["checkpoint"].endswith("(built in: conditional)")
    export(tmp_path / "set", checkpoint=copy, count=20)
    assert describe(str(tmp_path / "set"))["claimed by"] == "the built-in checkpoint conditional"
    report = verify(tmp_path / "set", regenerate=5)
    assert report.sound, report.problems
    assert report.unchecked == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda c: c["privacy"].update(trained_on="nothing: untrained"),
            "privacy statement is not that of the built-in",
        ),
        (lambda c: c["recipe"].update(description=BOAST), "recipe is not that of the built-in checkpoint conditional"),
    ],
)
def test_the_weights_of_a_built_in_checkpoint_carry_no_other_claim(tmp_path, change, words: str):
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(forged_checkpoint(builtin_checkpoints()["conditional"], tmp_path, change))


def test_a_set_that_names_a_built_in_checkpoint_has_its_claim(private_set, private_checkpoint):
    for sha256 in BUILT_IN:
        forge(private_set, lambda m, sha256=sha256: m["checkpoint"].update(sha256=sha256), cards=False)
        with pytest.raises(VerificationError, match="is not that of the built-in checkpoint"):
            describe(str(private_set))


def with_the_claim_of(checkpoint):
    def change(document):
        document["privacy"] = checkpoint.privacy.to_dict()
        document.get("checkpoint", document)["recipe"]["privacy"] = {"epsilon": 2.0, "delta": 1e-5}
        if "checkpoint" in document:
            document["checkpoint"]["recipe_sha256"] = sha256_of_json(document["checkpoint"]["recipe"])

    return change


def test_a_recipe_that_protects_nothing_carries_no_claim(private_checkpoint, tiny_checkpoint, small_set, tmp_path):
    change = with_the_claim_of(private_checkpoint)
    for source in (tiny_checkpoint.path, builtin_checkpoints()["conditional"]):
        forged = forged_checkpoint(source, tmp_path, change, name=source.name)
        with pytest.raises(CheckpointError, match="method 'adversarial' protects nothing"):
            load_checkpoint(forged)
    forge(small_set, change, cards=False)
    for read in (
        lambda: describe(str(small_set)),
        lambda: verify(small_set),
        lambda: preview_images(str(small_set), 1),
    ):
        with pytest.raises(VerificationError, match="method 'adversarial' protects nothing"):
            read()


def test_a_private_recipe_without_its_claim_is_refused(private_checkpoint, private_set, tmp_path):
    def strip(document):
        document["privacy"] = no_guarantee("nothing: untrained").to_dict()

    with pytest.raises(CheckpointError, match="is private, but its privacy statement claims nothing"):
        load_checkpoint(forged_checkpoint(private_checkpoint.path, tmp_path, strip))
    forge(private_set, strip, cards=False)
    with pytest.raises(VerificationError, match="is private, but its privacy statement claims nothing"):
        load_manifest(private_set)


def test_a_claim_above_the_recipes_budget_is_refused_in_a_set_too(private_set):
    def lower(document):
        document["checkpoint"]["recipe"]["privacy"]["epsilon"] = 0.5
        document["checkpoint"]["recipe_sha256"] = sha256_of_json(document["checkpoint"]["recipe"])

    forge(private_set, lower, cards=False)
    with pytest.raises(VerificationError, match="not within the budget of its recipe"):
        load_manifest(private_set)


def test_verify_ends_with_what_it_did_not_check(private_set, private_checkpoint):
    last = CliRunner().invoke(app, ["verify", str(private_set)])
    assert last.exit_code == 0
    assert last.stdout.splitlines()[-1] == f"{private_set}: privacy claim not checked: checkpoint unknown"
    known = CliRunner().invoke(app, ["verify", str(private_set), "--checkpoint", str(private_checkpoint.path)])
    unproven = "the checkpoint is neither built in nor signed, and only who trained it knows what was run"
    assert "not checked: whether the images are drawn from their checkpoint" in known.stdout.splitlines()[-2]
    assert known.stdout.splitlines()[-1].startswith(f"{private_set}: privacy claim not proven: ")
    assert known.stdout.splitlines()[-1].endswith(unproven)
    drawn = verify(private_set, checkpoint=private_checkpoint, regenerate=5)
    assert drawn.sound
    assert [line.endswith(unproven) for line in drawn.unchecked] == [True]


def test_an_unprotected_set_relabelled_as_private_is_of_no_known_checkpoint(small_set, private_checkpoint):
    def relabel(document):
        recipe = private_checkpoint.recipe.to_dict()
        document["privacy"] = private_checkpoint.privacy.to_dict()
        document["checkpoint"] |= {"sha256": "5" * 64, "recipe": recipe, "recipe_sha256": sha256_of_json(recipe)}

    forge(small_set, relabel)
    told = CliRunner().invoke(app, ["verify", str(small_set)])
    assert told.stdout.splitlines()[-1] == f"{small_set}: privacy claim not checked: checkpoint unknown"
    refused = CliRunner().invoke(app, ["verify", str(small_set), "--require-known-checkpoint"])
    assert refused.exit_code == 1
    assert "is neither built in nor signed by a key given with --signed-by" in refused.output


def test_a_checkpoint_of_any_release_is_known(export, tmp_path):
    export(tmp_path / "set", checkpoint=load_checkpoint("private-eps1"), count=20)
    assert verify(tmp_path / "set", require_known_checkpoint=True).sound
    sha256 = next(sha256 for sha256, known in BUILT_IN.items() if known.title == "private-eps1 of 0.2.0")

    def of_0_2_0(document):
        document["checkpoint"].update(sha256=sha256, arithmetic="float32")
        document["reproducibility"] = REPRODUCIBILITY["float32"]

    forge(tmp_path / "set", of_0_2_0)
    assert verify(tmp_path / "set", require_known_checkpoint=True).sound


def test_the_card_doubts_a_formal_claim_of_an_unknown_checkpoint(private_set):
    text = (private_set / "README.md").read_text("utf-8")
    assert "This is the claim of whoever trained the checkpoint" in text


def test_a_recipes_description_stands_in_quotation_marks(tiny_recipe, tiny_checkpoint, tmp_path):
    def boast(document):
        document["recipe"]["description"] = f'fine" {BOAST} "' + 300 * "x"

    described = describe(str(forged_checkpoint(tiny_checkpoint.path, tmp_path, boast)))
    assert described["recipe"].startswith(f"""smoke, which says of itself: "fine' {BOAST} 'xxx""")
    assert described["recipe"].endswith('x…"')


def test_what_a_checkpoint_says_of_its_training_is_shown_as_numbers(tiny_checkpoint, tmp_path):
    def boast(document):
        document["training"] = {"steps": BOAST, "seconds": 10**30, "epochs": 12.0}

    described = describe(str(forged_checkpoint(tiny_checkpoint.path, tmp_path, boast)))
    assert described["training"] == "12 epochs, ? steps, ? s"
    assert described["claimed by"] == "whoever trained the checkpoint"
    assert describe("conditional")["claimed by"] == "synthgen's release"


def test_every_free_text_is_escaped_in_the_card(private_set):
    manifest = load_manifest(private_set)
    hostile = replace(
        manifest,
        checkpoint=replace(manifest.checkpoint, name=MARKUP),
        privacy=replace(manifest.privacy, trained_on=MARKUP),
        made_with={"synthgen": MARKUP},
    )
    _, front, body = card([hostile]).split("---\n", 2)
    outside_code = re.sub(r"`[^`]*`", "", body)
    assert not re.search(r"(?<!\\)<", outside_code)
    assert "**bold**" not in outside_code
    assert "[link]" not in outside_code
    assert "https:" not in outside_code
    assert "www.e" not in outside_code
    assert "alert" not in front


def test_croissant_is_safe_inside_a_script(export, tiny_checkpoint, tmp_path):
    hostile = load_checkpoint(shutil.copytree(tiny_checkpoint.path, tmp_path / "<script>alert(1)&"))
    export(tmp_path / "set", checkpoint=hostile, count=1)
    data = (tmp_path / "set" / "croissant.json").read_bytes()
    assert not set(data) & set(b"<>&")
    assert "<script>alert(1)&" in json.loads(data)["description"]


def test_an_evaluation_refuses_a_forged_claim_too(private_checkpoint, small_set):
    forge(small_set, with_the_claim_of(private_checkpoint), cards=False)
    with pytest.raises(VerificationError, match="protects nothing"):
        evaluate(small_set)
