from dataclasses import replace

import pytest

from synthgen.errors import PrivacyError
from synthgen.privacy.accounting import MAX_STEPS, Mechanism, epsilon_of, merged
from synthgen.privacy.joint import Held, joint_guarantees
from synthgen.privacy.ledger import Ledger
from synthgen.privacy.proof import PrivacyProof
from synthgen.privacy.statement import PrivacyStatement, differential_privacy, no_guarantee

FASHION = "60,000 images of Fashion-MNIST, training split"
SOME = "the first 1,000 images of the training split of Fashion-MNIST"
OWN = "900 images of the user's own images, training split"


def look(name: str, noise_multiplier: float, sampling_probability: float = 1.0, steps: int = 1) -> Mechanism:
    return Mechanism(
        name=name,
        releases="sums",
        noise_multiplier=noise_multiplier,
        l2_sensitivity=1.0,
        sampling_probability=sampling_probability,
        steps=steps,
    )


TEACHER, EMBEDDING = look("teacher", 20.0, 0.125, 50), look("embedding", 6.0)


def stated(*mechanisms: Mechanism, trained_on: str = FASHION, **run: str | None) -> PrivacyStatement:
    """A statement as a run makes it, without the cost of its curve."""
    proof = PrivacyProof(
        epsilon=50.0,
        delta=1e-5,
        epsilon_rdp=50.0,
        accountant_version="0.6.0",
        ledger=Ledger(mechanisms),
        public=(),
        **run,
    )
    return PrivacyStatement(trained_on=trained_on, proof=proof)


def held(**statements: PrivacyStatement) -> list[Held]:
    """Each of a run of its own, if it names none."""
    return [Held(name=name, statement=statement, run=name) for name, statement in statements.items()]


def test_two_runs_cost_more_than_one_and_less_than_the_sum():
    one = stated(TEACHER, EMBEDDING, run="a" * 32)
    (alone,) = joint_guarantees(held(x=one))
    (both,) = joint_guarantees(held(x=one, y=replace(one, proof=replace(one.proof, run="b" * 32))))
    assert both.counted == ("x", "y")
    assert both.epsilon == pytest.approx(epsilon_of([TEACHER, EMBEDDING] * 2, 1e-5), abs=1.1e-4)
    assert alone.epsilon < both.epsilon < 2 * alone.epsilon
    assert alone.true_positive_rate < both.true_positive_rate < 1
    assert both.protects


def test_runs_without_a_name_are_different_unless_they_are_known_to_be_one():
    same = stated(TEACHER)
    (apart,) = joint_guarantees(held(x=same, y=same))
    (one,) = joint_guarantees([Held(name=name, statement=same, run="known") for name in "xy"])
    assert (apart.counted, one.counted, one.included) == (("x", "y"), ("x",), ("y",))
    assert apart.epsilon > one.epsilon


def test_the_longer_ledger_of_one_run_replaces_the_shorter():
    run = {"run": "a" * 32}
    short = stated(replace(TEACHER, steps=20), release_sha256="1" * 64, **run)
    long = stated(TEACHER, EMBEDDING, release_sha256="2" * 64, **run)
    for order in ({"x": short, "y": long}, {"y": long, "x": short}):
        (joint,) = joint_guarantees(held(**order))
        assert (joint.counted, joint.included) == (("y",), ("x",))
        assert joint.epsilon == pytest.approx(epsilon_of([TEACHER, EMBEDDING], 1e-5), abs=1.1e-4)
        assert "counted once" in joint.lines()[-1]


def test_copies_of_a_runs_folder_that_went_on_by_themselves_count_each():
    run = {"run": "a" * 32}
    forks = held(
        x=stated(TEACHER, EMBEDDING, release_sha256="1" * 64, **run),
        y=stated(TEACHER, EMBEDDING, release_sha256="2" * 64, **run),  # the same looks, with other noise
        z=stated(TEACHER, look("other", 6.0), **run),
    )
    (joint,) = joint_guarantees(forks)
    assert set(joint.counted) == {"x", "y", "z"}


def test_one_unprotected_release_leaves_no_joint_guarantee_for_its_images():
    releases = held(x=stated(TEACHER), y=no_guarantee(SOME), z=stated(EMBEDDING, trained_on=OWN))
    fashion, own = joint_guarantees(releases)
    assert not fashion.protects
    assert fashion.unprotected == ("y",)
    assert fashion.lines()[0] == "none: trained on these images without protection: y"
    assert fashion.lines()[1].startswith("the protected ones alone (x): Differentially private with epsilon")
    assert fashion.to_dict()["guarantee"] == "none"
    assert own.protects
    assert own.images == "the user's own images"


def test_an_untrained_generator_costs_nothing():
    assert joint_guarantees(held(x=no_guarantee("nothing: untrained"))) == ()


def test_delta_is_the_largest_of_the_claims_or_the_one_asked_for():
    one, other = stated(TEACHER), stated(EMBEDDING)
    other = replace(other, proof=replace(other.proof, delta=1e-4))
    assert joint_guarantees(held(x=one, y=other))[0].delta == 1e-4
    (smaller,) = joint_guarantees(held(x=one, y=other), 1e-7)
    assert smaller.delta == 1e-7
    assert smaller.epsilon == pytest.approx(epsilon_of([TEACHER, EMBEDDING], 1e-7), abs=1.1e-4)
    for delta in (0.0, 1.0, float("nan")):
        with pytest.raises(PrivacyError, match="delta"):
            joint_guarantees(held(x=one), delta)


def test_too_much_together_is_no_guarantee():
    loud = look("loud", 0.2)
    (joint,) = joint_guarantees(held(x=stated(loud), y=stated(loud), z=stated(loud)))
    assert not joint.protects
    assert joint.lines() == ["none: an epsilon above 50 is no guarantee"]


def test_a_real_statement_is_met_exactly():
    statement = differential_privacy(Ledger((TEACHER, EMBEDDING)), 1e-5, FASHION)
    (joint,) = joint_guarantees(held(x=statement))
    assert joint.epsilon == statement.proof.epsilon
    assert joint.true_positive_rate == statement.proof.curve.true_positive_rate
    assert joint.lines() == [statement.summary]


def test_many_equal_runs_are_priced_by_loss_distributions():
    """Each mechanism by itself, they would be too many for these, and RDP's bound is larger."""
    mechanisms = [look("teacher", 60.0, 0.125, 50), look("embedding", 3.5)]
    runs = held(**{f"run{i}": stated(*mechanisms, run=f"{i:032x}") for i in range(40)})
    (joint,) = joint_guarantees(runs)
    together = [replace(each, steps=40 * each.steps) for each in mechanisms]
    assert len(joint.counted) == 40
    assert joint.epsilon == pytest.approx(epsilon_of(together, 1e-5), abs=1.1e-4)
    assert joint.epsilon < 0.99 * epsilon_of(together, 1e-5, "rdp")


def test_merged_mechanisms_are_all_there():
    million = look("teacher", 1e4, 0.125, MAX_STEPS)
    charges = merged([EMBEDDING, TEACHER, EMBEDDING, look("embedding", 7.0), million, million])
    assert sorted(each.steps for each in charges) == [1, 2, 50, MAX_STEPS, MAX_STEPS]
