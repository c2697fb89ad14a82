import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

import synthgen
from synthgen.cli.app import app
from synthgen.errors import SynthgenError, UsageError
from synthgen.model.checkpoint import load_checkpoint
from synthgen.privacy.accounting import Mechanism
from synthgen.privacy.joint import Held, joint_guarantees
from synthgen.privacy.ledger import Ledger
from synthgen.sets.account import Accounted, account

PRIVATE_OF_0_2_0 = "1c1aba5361e10052cbe8660c3ee58d250ed99ce406ff1fd5092c6d2e88b54901"


def test_the_private_checkpoints_together_cost_less_than_their_sum():
    (joint,) = account(["private", "private-eps1"]).joint
    assert joint.protects
    assert joint.epsilon == pytest.approx(10.1033, abs=1e-4)
    assert joint.true_positive_rate == pytest.approx(0.3691, abs=1e-4)


def test_with_the_private_one_of_0_1_0_epsilon_is_15_47():
    """Its ledger is no longer in the package: a teacher and three sums at half the teacher's noise."""
    now = [load_checkpoint(name).privacy for name in ("private", "private-eps1")]
    teacher, embedding, *_ = now[0].proof.ledger
    sums = [Mechanism(**{**vars(embedding), "name": f"{i}", "noise_multiplier": 1.0683912375954407}) for i in range(3)]
    ledger = Ledger((replace(teacher, noise_multiplier=2.1367824751908815), *sums))
    before = replace(now[0], proof=replace(now[0].proof, ledger=ledger, epsilon=9.995))
    held = [Held(name=f"{i}", statement=statement, run=i) for i, statement in enumerate((*now, before))]
    (joint,) = joint_guarantees(held)
    assert ledger.epsilon(1e-5) == pytest.approx(9.995, abs=1e-4)
    assert joint.epsilon == pytest.approx(15.4711, abs=1e-4)


def test_a_set_counts_as_the_checkpoint_that_drew_it(export, private_checkpoint, tmp_path):
    export(tmp_path / "set", checkpoint=private_checkpoint, count=1)
    (joint,) = account([tmp_path / "set", private_checkpoint.path, private_checkpoint.path]).joint
    assert joint.counted == (str(tmp_path / "set"),)
    assert joint.included == (str(private_checkpoint.path),)
    assert joint.epsilon == private_checkpoint.privacy.proof.epsilon


def test_built_in_checkpoints_with_one_ledger_are_of_one_run():
    checkpoint = load_checkpoint("private")
    now = Accounted(name="now", checkpoint_sha256=checkpoint.sha256, statement=checkpoint.privacy)
    assert replace(now, checkpoint_sha256=PRIVATE_OF_0_2_0).run == now.run
    assert replace(now, checkpoint_sha256="0" * 64).run != now.run


def test_different_images_are_listed_apart(private_checkpoint):
    found = account(["conditional", private_checkpoint.path])
    assert [joint.protects for joint in found.joint] == [False, True]
    lines = found.summary()
    assert lines[2] == "jointly, for Fashion-MNIST: none: trained on these images without protection: conditional"
    assert lines[3].startswith("jointly, for the user's own images: Differentially private with epsilon")
    assert "counted apart" in lines[-1]


def test_the_command_prints_lines_or_json(private_checkpoint):
    source = str(private_checkpoint.path)
    lines = CliRunner().invoke(app, ["account", source, "--delta", "1e-6"]).stdout.splitlines()
    assert "trained on 60,000 images of the user's own images, training split" in lines[0]
    assert "and delta 1e-06" in lines[1]
    document = json.loads(CliRunner().invoke(app, ["account", source, "conditional", "--json"]).stdout)
    assert [joint["guarantee"] for joint in document["joint"]] == ["differential_privacy", "none"]
    assert document["sources"][0]["privacy"] == private_checkpoint.privacy.to_dict()
    assert synthgen.account([source]).joint[0].protects


def test_what_cannot_be_accounted_is_refused_in_one_line(tmp_path):
    for sources, error in (([], UsageError), (["conditional"] * 101, UsageError), ([tmp_path], SynthgenError)):
        with pytest.raises(error) as refused:
            account(sources)
        assert "\n" not in str(refused.value)
