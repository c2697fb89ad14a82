import json

import numpy as np
import pytest
from support import DATA, SAMPLE

from synthgen.audit import training as training_audit
from synthgen.audit.images import audit_images
from synthgen.audit.run import audit
from synthgen.audit.training import audit_training
from synthgen.cli.app import app
from synthgen.errors import UsageError
from synthgen.model.recipe import Recipe, load_recipe


class Telltale:
    """A mechanism that keeps no secret at all."""

    def __init__(self, canaries: int, noise: float) -> None:
        self.canaries, self.noise = canaries, noise

    def run(self, included):
        return included + self.noise * np.random.default_rng(0).normal(size=self.canaries)

    def scores(self, output):
        return output


def private_recipe(epsilon: float = 1.0) -> Recipe:
    return load_recipe("private", [*SAMPLE, f"privacy.epsilon={epsilon}"])


@pytest.fixture
def leak(monkeypatch):
    """Audit, in the place of a private training, a mechanism with this noise: ``leak(noise)``."""

    def set_noise(noise: float) -> None:
        def first_look(recipe, data, canaries, progress):
            progress("training", 1, 1)
            return Telltale(canaries, noise), recipe.privacy.epsilon, 1e-5

        monkeypatch.setattr(training_audit, "_first_look", first_look)

    return set_noise


def test_a_checkpoint_is_attacked_with_its_own_training_images(tiny_checkpoint):
    found = audit_images(tiny_checkpoint, DATA, count=300)
    assert (found.membership.images, found.membership.members, found.membership.non_members) == (300, 500, 100)
    assert found.epsilon is found.delta is found.largest_true_positive_rate is None
    assert found.checkpoint_sha256 == tiny_checkpoint.sha256
    lines = found.summary()
    assert "300 images of seed 0 from checkpoint tiny" in lines[0]
    assert "nothing. No formal privacy guarantee" in lines[1]
    assert 0.3 < found.membership.distance.auc < 0.7  # untrained: it has seen nothing
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_set_is_attacked_as_the_checkpoint_is(tiny_checkpoint, export, tmp_path):
    export(tmp_path / "set", count=300)
    of_set = audit(str(tmp_path / "set"), DATA, count=300)
    of_checkpoint = audit(str(tiny_checkpoint.path), DATA, count=300)
    assert of_set.membership == of_checkpoint.membership
    assert audit(str(tmp_path / "set"), DATA, count=256).membership.images == 256
    with pytest.raises(UsageError, match="this is an exported set"):
        audit(str(tmp_path / "set"), DATA, canaries=100)


def test_a_proven_set_is_compared_with_its_proof(private_checkpoint):
    found = audit_images(private_checkpoint, DATA, count=10)
    claimed = private_checkpoint.privacy.proof
    assert found.epsilon == pytest.approx(claimed.epsilon, abs=1e-4)
    assert found.delta == claimed.delta
    assert 0 <= claimed.curve.true_positive_rate - found.largest_true_positive_rate < 1.001e-4
    assert f"epsilon {found.epsilon:.4g} at delta" in found.summary()[1]
    assert "the proof lets no attack find more than" in found.summary()[-1]


def test_a_generator_that_saw_the_test_images_leaves_no_non_members(unlabelled_checkpoint):
    with pytest.raises(UsageError, match="trains on the test images too"):
        audit_images(unlabelled_checkpoint, DATA, count=10)


def test_a_sound_training_stands_and_a_broken_one_falls(leak):
    leak(50.0)
    sound = audit_training(private_recipe(), DATA)
    assert not sound.contradicted
    assert "does not contradict" in sound.summary()[-1]
    leak(0.0)
    broken = audit_training(private_recipe(), DATA, canaries=200)
    assert broken.contradicted
    assert broken.result.canaries == 200
    assert "CONTRADICTS the proof" in broken.summary()[-1]
    json.dumps(broken.to_dict(), allow_nan=False)


def test_an_audit_says_when_it_could_not_have_found_anything(leak):
    leak(0.0)
    found = audit_training(private_recipe(epsilon=10.0), DATA, canaries=100)
    assert not found.contradicted
    assert "cannot contradict the proof: 100 canaries never show more than" in found.summary()[-1]


def test_what_cannot_be_audited_is_refused(tiny_recipe, leak):
    leak(1.0)
    with pytest.raises(UsageError, match="recipe 'smoke' trains without a guarantee"):
        audit_training(tiny_recipe, DATA)
    with pytest.raises(UsageError, match="recipe 'dpgan' has a guarantee, by DP-SGD of its discriminator, whose"):
        audit_training(load_recipe("dpgan", SAMPLE), DATA)  # private, but no way to audit its method is known
    for canaries in (19, 5_001):
        with pytest.raises(UsageError, match="expected 20 to 5,000"):
            audit_training(private_recipe(), DATA, canaries=canaries)


def test_a_target_is_taken_for_what_it_is(tiny_checkpoint, leak, tmp_path):
    leak(0.0)
    overrides = [*SAMPLE, "privacy.epsilon=1"]
    assert audit("private", DATA, canaries=50, overrides=overrides).result.canaries == 50  # also a checkpoint's name
    assert audit("private", DATA, overrides=overrides).recipe == "private"
    with pytest.raises(UsageError, match="trains without a guarantee"):
        audit("smoke", DATA, overrides=SAMPLE)
    with pytest.raises(UsageError, match="trains without a guarantee"):
        audit(str(tiny_checkpoint.path), DATA, canaries=50)  # the training by the checkpoint's own recipe
    with pytest.raises(UsageError, match="--set is for recipes"):
        audit(str(tiny_checkpoint.path), DATA, overrides=overrides)
    with pytest.raises(UsageError, match="expected a checkpoint, an exported set or a recipe"):
        audit(str(tmp_path / "none"), DATA)


@pytest.mark.parametrize(("noise", "exit_code"), [(50.0, 0), (0.0, 1)])
def test_the_command_fails_where_the_proof_is_refuted(leak, tmp_path, noise: float, exit_code: int):
    from typer.testing import CliRunner

    leak(noise)
    out = tmp_path / "audit.json"
    request = ["audit", "private", "--data", str(DATA), "--set", SAMPLE[0], "--set", "privacy.epsilon=1"]
    result = CliRunner().invoke(app, [*request, "--canaries", "400", "--json", str(out)])
    assert result.exit_code == exit_code
    assert "epsilon at least" in result.stdout
    assert "as private as they are" in result.stderr
    document = json.loads(out.read_text("utf-8"))
    assert document["audit"] == "one run"
    assert document["contradicted"] == bool(exit_code)
