import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support import save_floats, weights_file

from synthgen.errors import CheckpointError, PrivacyError, VerificationError
from synthgen.model.checkpoint import builtin_checkpoints, identity_of, load_checkpoint, save_checkpoint, weights_sha256
from synthgen.model.claims import origin_words
from synthgen.privacy.accounting import Mechanism
from synthgen.privacy.curve import curve_of
from synthgen.privacy.ledger import Ledger
from synthgen.privacy.statement import (
    NEIGHBOURING,
    PINNED_CURVES,
    PINNED_EPSILONS,
    PrivacyStatement,
    claim_sha256,
    differential_privacy,
    no_guarantee,
)
from synthgen.sets.inspection import describe
from synthgen.sets.manifest import sealed
from synthgen.sets.verification import verify

NOTHING = "nothing: untrained"
LOUDER = "all 60,000 images of the training split of Fashion-MNIST"
MEANS = Mechanism(name="class means", releases="ten noisy sums", noise_multiplier=6.0, l2_sensitivity=1.0)


def in_todays_words(epsilon: float) -> str:
    """The claim of (epsilon, 1e-5): P(S | D') <= exp(epsilon) P(S | D) + delta, the factor rounded up."""
    return (
        f"Differentially private with epsilon {epsilon:g} and delta 1e-05: whether or not one training image is there "
        f"raises the probability of any outcome to at most {shown_factor(epsilon)} times what it is otherwise, "
        "plus 1e-05."
    )


def in_the_words_of_add_or_remove(epsilon: float) -> str:
    """As the shipped checkpoints have it."""
    return (
        f"Differentially private with epsilon {epsilon:g} and delta 1e-05: adding or removing one training image can "
        f"raise the probability of any outcome to at most {shown_factor(epsilon)} times what it was, plus 1e-05."
    )


def in_the_words_of_0_2_0(epsilon: float) -> str:
    return (
        "Differentially private: whatever these images tell, one training image more or less makes it at most "
        f"{shown_factor(epsilon)} times as likely (epsilon {epsilon:g}), apart from a probability of 1e-05 (delta)."
    )


def shown_factor(epsilon: float) -> str:
    return f"{math.ceil(math.exp(epsilon) * 100) / 100:.2f}" if epsilon < 4.6 else f"{math.ceil(math.exp(epsilon)):,}"


@pytest.fixture(scope="module")
def statement(private_checkpoint) -> PrivacyStatement:
    return private_checkpoint.privacy


def test_without_a_guarantee_the_form_is_what_it_always_was():
    stated = no_guarantee(NOTHING)
    assert set(stated.to_dict()) == {"guarantee", "sentence", "trained_on"}
    assert PrivacyStatement.from_dict(stated.to_dict()) == stated
    assert not stated.protects


def test_the_claim_is_the_ledgers_epsilon_rounded_up(statement):
    proof = statement.proof
    assert 0 <= proof.epsilon - proof.ledger.epsilon(1e-5) < 1e-4
    assert 0 <= proof.epsilon_rdp - proof.ledger.epsilon(1e-5, "rdp") < 1e-4
    assert proof.epsilon < proof.epsilon_rdp
    assert statement.sentence == in_todays_words(proof.epsilon)


def test_a_statement_survives_json(statement):
    document = json.loads(json.dumps(statement.to_dict()))
    assert next(iter(document)) == "guarantee"
    assert PrivacyStatement.from_dict(document) == statement
    assert PrivacyStatement.from_dict(document).to_dict() == document


def lower_epsilon(privacy):
    privacy.update(epsilon=0.5, sentence=in_todays_words(0.5))


def lower_rdp(privacy):
    privacy.update(epsilon_rdp=0.5)


def remove_a_mechanism_and_its_cost(privacy):  # the claim stays below what the true ledger proves
    privacy["mechanisms"].pop()
    epsilon = Ledger.from_list(privacy["mechanisms"]).epsilon(1e-5)
    privacy.update(epsilon=epsilon, sentence=in_todays_words(epsilon))


def raise_the_noise_of_the_claim(privacy):
    for mechanism in privacy["mechanisms"]:
        mechanism["noise_multiplier"] *= 5
    lower_epsilon(privacy)


def lower_the_noise(privacy):
    privacy["mechanisms"][0]["noise_multiplier"] = 1.0


def raise_delta(privacy):
    privacy.update(delta=1e-3)


UNDERCLAIMS = [lower_epsilon, lower_rdp, lower_the_noise, raise_delta]
CONSISTENT_LIES = [remove_a_mechanism_and_its_cost, raise_the_noise_of_the_claim]


@pytest.mark.parametrize("name", ["private", "private-eps1"])
def test_the_shipped_claims_are_said_in_todays_words(name: str):
    document = json.loads((builtin_checkpoints()[name] / "checkpoint.json").read_text())
    checkpoint = load_checkpoint(name)
    epsilon = checkpoint.privacy.proof.epsilon
    assert document["privacy"]["sentence"] in (in_todays_words(epsilon), in_the_words_of_add_or_remove(epsilon))
    assert checkpoint.privacy.sentence == in_todays_words(epsilon)
    assert "zero-out" in describe(name)["unit"]
    assert checkpoint.sha256 == document["sha256"]
    assert origin_words(checkpoint.sha256) == f"built in: {name}"


@pytest.mark.parametrize("neighbouring", ["add or remove one", NEIGHBOURING])
def test_both_words_for_adjacency_are_read_and_todays_are_said(statement, neighbouring: str):
    found = PrivacyStatement.from_dict(statement.to_dict() | {"neighbouring": neighbouring})
    assert found == statement
    assert found.to_dict()["neighbouring"] == NEIGHBOURING


@pytest.mark.parametrize("in_words", [in_the_words_of_0_2_0, in_the_words_of_add_or_remove])
def test_an_earlier_claim_is_read_and_said_in_todays_words(private_checkpoint, tmp_path, in_words):
    """The identity is over the words in the file."""
    privacy, recipe = private_checkpoint.privacy, private_checkpoint.recipe
    words = in_words(privacy.proof.epsilon)
    floats = save_floats(tmp_path / "floats", private_checkpoint.keras_model(), recipe, privacy)
    for number, checkpoint in enumerate((floats, private_checkpoint)):
        edited = edited_checkpoint(checkpoint, tmp_path / f"{number}", lambda p: p.update(sentence=words), rehash=True)
        assert words in (edited / "checkpoint.json").read_text()
        loaded = load_checkpoint(edited)
        assert loaded.privacy == privacy
        assert loaded.privacy.sentence == in_todays_words(privacy.proof.epsilon)
        assert loaded.sha256 != checkpoint.sha256


def test_a_set_with_the_sentence_of_0_2_0_verifies_against_its_checkpoint(export, private_checkpoint, tmp_path):
    export(tmp_path / "set", checkpoint=private_checkpoint, count=1)
    path = tmp_path / "set/manifest.json"
    document = json.loads(path.read_text())
    epsilon = private_checkpoint.privacy.proof.epsilon
    assert document["privacy"]["sentence"] == in_todays_words(epsilon)
    document["privacy"]["sentence"] = in_the_words_of_0_2_0(epsilon)
    path.write_text(json.dumps(sealed(document)))
    report = verify(tmp_path / "set", regenerate=1, checkpoint=private_checkpoint)
    assert report.sound, report.problems
    assert report.manifest.privacy == private_checkpoint.privacy


@pytest.mark.parametrize(
    "sentence", ["Proven: epsilon = 0.1", "", 3, None, in_todays_words(0.5), in_the_words_of_0_2_0(0.5)]
)
def test_a_forged_sentence_is_refused_whatever_is_guaranteed(statement, sentence):
    unprotected = no_guarantee(NOTHING)
    for stated, other in ((statement, unprotected), (unprotected, statement)):
        for forged in (sentence, other.sentence):
            with pytest.raises(ValueError, match="sentence is not that of its guarantee"):
                PrivacyStatement.from_dict(stated.to_dict() | {"sentence": forged})


@pytest.mark.parametrize("change", UNDERCLAIMS)
def test_a_claim_that_its_own_ledger_does_not_prove_is_refused(statement, change):
    document = json.loads(json.dumps(statement.to_dict()))
    change(document)
    with pytest.raises(ValueError, match=r"claims (RDP )?epsilon|sentence is not that"):
        PrivacyStatement.from_dict(document)


LOWER_CURVES = [
    lambda curve: curve["epsilon_at_delta"].update({"1e-09": 0.9}),
    lambda curve: curve["epsilon_at_delta"].update({"0.001": 0.1}),
    lambda curve: curve.update(gdp_mu=0.1),
    lambda curve: curve["epsilon_of_group"].update({"2": 1.0}),
    lambda curve: curve["epsilon_of_group"].update({"3": 1.0}),
    lambda curve: curve.update(true_positive_rate=0.0),
]


@pytest.mark.parametrize("lower", LOWER_CURVES)
def test_a_curve_that_its_own_ledger_does_not_prove_is_refused(statement, lower):
    document = json.loads(json.dumps(statement.to_dict()))
    lower(document["curve"])
    with pytest.raises(
        ValueError, match=r"claims (epsilon (at|for)|gdp_mu|true_positive_rate).* but its ledger proves"
    ):
        PrivacyStatement.from_dict(document)


def test_a_curve_may_claim_less_and_may_be_absent(statement):
    document = json.loads(json.dumps(statement.to_dict()))
    document["curve"]["epsilon_of_group"] = {"2": None, "3": 99}
    found = PrivacyStatement.from_dict(document)
    assert found.proof.curve.groups == (None, 99.0)
    assert "not computed for 2, 99 for 3" in dict(found.facts())["by group"]
    del document["curve"]
    assert PrivacyStatement.from_dict(document).proof == replace(statement.proof, curve=None)


@pytest.mark.parametrize(("name", "share"), [("private", "36.24 %"), ("private-eps1", "1.98 %")])
def test_the_shipped_claims_say_what_an_attacker_gains(name: str, share: str):
    privacy = load_checkpoint(name).privacy
    assert f"find more than {share} of those that were" in privacy.summary
    assert privacy.summary.startswith(privacy.sentence)
    assert share in describe(name)["an attacker"]


def test_a_curve_of_a_vast_ledger_is_refused(statement):
    vast = Ledger(tuple(replace(MEANS, name=f"{i}", noise_multiplier=1.0 + i / 1_000) for i in range(32)))
    stated = differential_privacy(vast, 1e-5, NOTHING)
    assert stated.proof.curve is None
    assert stated.summary == stated.sentence
    assert PrivacyStatement.from_dict(stated.to_dict()) == stated
    with pytest.raises(ValueError, match="claims a curve, but its ledger is too large"):
        PrivacyStatement.from_dict(stated.to_dict() | {"curve": statement.proof.curve.to_dict()})


def edited_checkpoint(checkpoint, folder, change, *, rehash: bool):
    shutil.copytree(checkpoint.path, folder)
    path = folder / "checkpoint.json"
    document = json.loads(path.read_text())
    change(document["privacy"])
    if rehash:
        identified = identity_of(document["recipe"], document["privacy"])
        document["sha256"] = weights_sha256(weights_file(folder), identified)
    path.write_text(json.dumps(document))
    return folder


@pytest.mark.parametrize("change", [*UNDERCLAIMS, *CONSISTENT_LIES])
def test_an_edited_claim_makes_a_checkpoint_unloadable(private_checkpoint, tmp_path, change):
    with pytest.raises(CheckpointError):
        load_checkpoint(edited_checkpoint(private_checkpoint, tmp_path / "edited", change, rehash=False))


@pytest.mark.parametrize("change", UNDERCLAIMS)
def test_not_even_with_its_hash_made_right(private_checkpoint, tmp_path, change):
    with pytest.raises(CheckpointError, match=r"claims|sentence"):
        load_checkpoint(edited_checkpoint(private_checkpoint, tmp_path / "edited", change, rehash=True))


def test_a_private_checkpoint_cannot_pass_as_an_unprotected_one_or_the_other_way_round(
    private_checkpoint, tiny_checkpoint, tmp_path
):
    def swap(privacy, other):
        privacy.clear()
        privacy.update(other.privacy.to_dict())

    stripped = edited_checkpoint(
        private_checkpoint, tmp_path / "stripped", lambda p: swap(p, tiny_checkpoint), rehash=False
    )
    with pytest.raises(CheckpointError, match="is private, but its privacy statement claims nothing"):
        load_checkpoint(stripped)
    adorned = edited_checkpoint(
        tiny_checkpoint, tmp_path / "adorned", lambda p: swap(p, private_checkpoint), rehash=True
    )
    with pytest.raises(CheckpointError, match="claims privacy, but its recipe's method 'adversarial' protects nothing"):
        load_checkpoint(adorned)


def test_the_whole_claim_is_part_of_the_identity(private_checkpoint, tiny_checkpoint, tmp_path):
    assert private_checkpoint.sha256 != tiny_checkpoint.sha256  # the very same weights
    louder = edited_checkpoint(
        private_checkpoint, tmp_path / "louder", lambda p: p.update(trained_on=LOUDER), rehash=True
    )
    assert load_checkpoint(louder).sha256 != private_checkpoint.sha256
    private_checkpoint.keras_model()


def test_the_shipped_unprotected_checkpoint_keeps_its_identity():
    sha256 = json.loads((builtin_checkpoints()["conditional"] / "checkpoint.json").read_text())["sha256"]
    assert sha256 == load_checkpoint("conditional").sha256
    assert origin_words(sha256) == "built in: conditional"


def test_a_claim_without_proof_is_not_saved(private_checkpoint, tmp_path):
    privacy = private_checkpoint.privacy
    for claim in (
        replace(privacy, proof=replace(privacy.proof, epsilon=0.5)),
        replace(privacy, proof=replace(privacy.proof, epsilon=math.nan)),
        replace(privacy, proof=replace(privacy.proof, delta=1e-7)),
    ):
        with pytest.raises(PrivacyError):
            save_checkpoint(tmp_path / "new", private_checkpoint.keras_model(), private_checkpoint.recipe, claim, {})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("change", [*UNDERCLAIMS, *CONSISTENT_LIES])
def test_an_edited_claim_of_a_set_is_refused_by_verify(export, private_checkpoint, tmp_path, change):
    export(tmp_path / "set", checkpoint=private_checkpoint, count=1)
    path = tmp_path / "set/manifest.json"
    document = json.loads(path.read_text())
    change(document["privacy"])
    path.write_text(json.dumps(document))
    if change in UNDERCLAIMS:
        with pytest.raises(VerificationError, match=r"claims|sentence") as refused:
            verify(tmp_path / "set")
        assert "\n" not in str(refused.value)
    elif change is remove_a_mechanism_and_its_cost:
        with pytest.raises(VerificationError, match="its recipe's mechanisms are teacher, embedding"):
            verify(tmp_path / "set")
    else:  # consistent in itself: the checkpoint tells
        assert verify(tmp_path / "set", checkpoint=private_checkpoint).problems


@pytest.mark.parametrize(
    "change",
    [
        {"guarantee": "none"},
        {"guarantee": "total"},
        {"guarantee": None},
        {"sentence": 3},
        {"sentence": "Proven: epsilon = 0.1"},
        {"trained_on": "\x1b[2J"},
        {"epsilon": "1"},
        {"epsilon": True},
        {"epsilon": math.nan},
        {"epsilon": -1},
        {"epsilon": 10**400},
        {"delta": 0.5},
        {"delta": 0},
        {"delta": math.nan},
        {"unit": "a crowd"},
        {"neighbouring": "replace"},
        {"sampling_run": "shuffled"},
        {"accountant": "faith"},
        {"accountant_version": "x" * 10_000},
        {"public": "all"},
        {"public": [3]},
        {"public": ["x"] * 1_000},
        {"mechanisms": []},
        {"mechanisms": None},
        {"mechanisms": [{}]},
        {"extra": 1},
        {"curve": None},
        {"curve": []},
        {"curve": {}},
        {"curve": "\x1b[2J" * 1_000},
    ],
)
def test_a_hostile_statement_is_refused_in_one_line(statement, change):
    with pytest.raises(ValueError, match=r"privacy|ledger|mechanism") as refused:
        PrivacyStatement.from_dict(statement.to_dict() | change)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 700


@pytest.mark.parametrize(
    "mechanism",
    [
        replace(MEANS, noise_multiplier=1e-3),
        replace(MEANS, noise_multiplier=1e-3, sampling_probability=1e-6),
        replace(MEANS, noise_multiplier=0.07, sampling_probability=1e-6, steps=1_000_000),
        replace(MEANS, noise_multiplier=0.5, sampling_probability=0.999, steps=1_000_000),
    ],
)
def test_a_ledger_that_proves_nothing_is_refused_at_once(mechanism):
    with pytest.raises(PrivacyError, match="no guarantee"):
        differential_privacy(Ledger((mechanism,)), 1e-5, "x")


def test_no_mechanism_no_claim():
    with pytest.raises(PrivacyError, match="nothing to claim"):
        differential_privacy(Ledger(), 1e-5, "x")


def test_every_pinned_epsilon_is_that_of_a_shipped_ledger():
    shipped = [load_checkpoint(path).privacy.proof for path in builtin_checkpoints().values()]
    proofs = {claim_sha256(proof.ledger, proof.delta): proof for proof in shipped if proof}
    assert set(PINNED_EPSILONS) == set(PINNED_CURVES) == set(proofs)
    for key, proof in proofs.items():
        computed = (proof.ledger.epsilon(proof.delta), proof.ledger.epsilon(proof.delta, "rdp"))
        assert PINNED_EPSILONS[key] == pytest.approx(computed, abs=1e-6)
        curve = curve_of(proof.ledger.mechanisms, proof.delta)
        assert curve.beyond(PINNED_CURVES[key]) is PINNED_CURVES[key].beyond(curve) is None


def test_a_pinned_ledger_is_read_without_the_accountant(private_checkpoint):
    proof = private_checkpoint.privacy.proof
    key, found = claim_sha256(proof.ledger, proof.delta), (proof.epsilon, proof.epsilon_rdp)
    code = (
        "import sys; from synthgen.privacy import statement; from synthgen.privacy.curve import Curve; "
        "from synthgen.sets.inspection import describe; "
        f"statement.PINNED_EPSILONS[{key!r}] = {found!r}; statement.PINNED_CURVES[{key!r}] = {proof.curve!r}; "
        f"describe({str(private_checkpoint.path)!r}); "
        "sys.exit('dp_accounting' in sys.modules or 'tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


PLD = "privacy loss distributions (PLD), dp-accounting"
RDP = "Rényi differential privacy (RDP), dp-accounting"


@pytest.fixture(scope="module")
def stated_by_rdp() -> PrivacyStatement:
    """Dozens of mechanisms: loss distributions are out of reach."""
    vast = Ledger(tuple(replace(MEANS, name=f"{i}", noise_multiplier=2.0 + i / 1_000) for i in range(32)))
    return differential_privacy(vast, 1e-5, NOTHING, run="0" * 32)


def test_a_number_by_rdp_is_not_called_one_by_pld(stated_by_rdp, statement):
    proof = stated_by_rdp.proof
    assert proof.epsilon == proof.epsilon_rdp
    assert proof.accountant == stated_by_rdp.to_dict()["accountant"] == RDP
    facts = dict(stated_by_rdp.facts())
    assert facts["epsilon"] == f"{proof.epsilon:g} at delta 1e-05"
    assert facts["accountant"] == f"{RDP} {proof.accountant_version}"
    assert facts["curve"] == "left out: RDP accounting gives none"
    assert PrivacyStatement.from_dict(stated_by_rdp.to_dict()) == stated_by_rdp
    assert statement.proof.accountant == statement.to_dict()["accountant"] == PLD
    assert "by RDP, as a check, " in dict(statement.facts())["epsilon"]


def test_the_accountants_name_is_checked_when_a_statement_is_read(stated_by_rdp, statement):
    for stated, wrong in ((stated_by_rdp, PLD), (statement, RDP), (stated_by_rdp, "a careful one")):
        with pytest.raises(ValueError, match="the privacy statement's accountant is"):
            PrivacyStatement.from_dict(stated.to_dict() | {"accountant": wrong})
    earlier = {key: value for key, value in stated_by_rdp.to_dict().items() if key not in ("run", "release_sha256")}
    read = PrivacyStatement.from_dict(earlier | {"accountant": PLD})  # 0.2.0 called every number so
    assert read.to_dict()["accountant"] == RDP
    with pytest.raises(ValueError, match="the privacy statement's accountant is"):
        PrivacyStatement.from_dict(earlier | {"accountant": "a careful one"})


def test_a_private_checkpoint_is_described_readably(private_checkpoint):
    described = describe(str(private_checkpoint.path))
    proof = private_checkpoint.privacy.proof
    assert described["privacy"] == private_checkpoint.privacy.sentence
    assert described["epsilon"].startswith(f"{proof.epsilon:g} at delta 1e-05")
    assert "noise multiplier 20, L2 sensitivity 1, Poisson sampling 0.125, steps: 100" in described["mechanism 1"]
    assert "hyper-parameters" in described["not charged"]


def test_the_check_in_the_documentation_finds_the_same_epsilon(private_checkpoint):
    text = (Path(__file__).parents[2] / "docs/privacy.md").read_text("utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    command = [sys.executable, "-c", code, str(private_checkpoint.path / "checkpoint.json")]
    words = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert words[::2] == ["claimed", "computed"]
    assert 0 <= float(words[1]) - float(words[3]) < 2e-4
