import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest

from synthgen.errors import PrivacyError
from synthgen.privacy import ledger as ledger_module
from synthgen.privacy.accounting import Budget, Mechanism
from synthgen.privacy.ledger import Ledger, OpenLedger

MEANS = Mechanism(name="class means", releases="ten noisy sums", noise_multiplier=5.0, l2_sensitivity=1.0)
STEP = Mechanism(
    name="teacher",
    releases="a noisy gradient",
    noise_multiplier=10.0,
    l2_sensitivity=1.0,
    sampling_probability=0.1,
    steps=10,
)
BUDGET = Budget(1.0, 1e-5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.json"


def test_equal_mechanisms_add_up_and_others_stand_apart():
    ledger = Ledger().charged(STEP).charged(MEANS).charged(STEP).charged(replace(STEP, noise_multiplier=11.0))
    assert [m.steps for m in ledger] == [20, 1, 10]
    assert ledger.epsilon(1e-5) > Ledger().charged(STEP).epsilon(1e-5)


def test_a_ledger_survives_json():
    ledger = Ledger((MEANS, STEP))
    again = Ledger.from_list(json.loads(json.dumps(ledger.to_list())))
    assert again == ledger
    one, same = Ledger((replace(MEANS, noise_multiplier=5),)), Ledger((MEANS,))  # 5 and 5.0 are one, in JSON too
    assert json.dumps(one.to_list()) == json.dumps(same.to_list())


@pytest.mark.parametrize(
    "change",
    [
        {"noise_multiplier": 0},
        {"noise_multiplier": math.nan},
        {"noise_multiplier": math.inf},
        {"noise_multiplier": "5"},
        {"noise_multiplier": True},
        {"noise_multiplier": 10**400},
        {"l2_sensitivity": -1.0},
        {"sampling_probability": 0.0},
        {"sampling_probability": 1.5},
        {"steps": 0},
        {"steps": 2.0},
        {"steps": 10**9},
        {"name": ""},
        {"name": "\x1b[2J"},
        {"name": ["teacher"]},
        {"releases": "a\nb"},
        {"releases": "x" * 10_000},
        {"extra": 1},
    ],
)
def test_impossible_mechanisms_are_refused_in_one_line(change: dict[str, object]):
    with pytest.raises(PrivacyError) as refused:
        Ledger.from_list([MEANS_VALUES | change])
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 700


MEANS_VALUES = Ledger((MEANS,)).to_list()[0]


@pytest.mark.parametrize("document", [None, {}, "x", [None], [[]], [MEANS_VALUES] * 33, [{"name": "x"}]])
def test_what_is_no_ledger_is_refused(document: object):
    with pytest.raises(PrivacyError, match="ledger"):
        Ledger.from_list(document)


def test_more_steps_than_the_accountant_can_price_are_refused():
    with pytest.raises(PrivacyError, match="steps"):
        Ledger((replace(STEP, steps=600_000), replace(STEP, name="other", steps=600_000)))


def test_an_open_ledger_resumes_where_it_was(path: Path):
    ledger = OpenLedger.open(path, BUDGET)
    ledger.charge(STEP)
    ledger.charge(MEANS)
    resumed = OpenLedger.open(path, BUDGET)
    assert resumed.ledger == ledger.ledger == Ledger((STEP, MEANS))
    resumed.charge(STEP)
    assert OpenLedger.open(path, BUDGET).ledger == Ledger((replace(STEP, steps=20), MEANS))


def test_the_charge_is_on_the_disk_before_the_output_is_used(path: Path):
    child = os.fork()
    if not child:
        OpenLedger.open(path, BUDGET).charge(STEP)
        os._exit(9)  # killed between the charge and the use
    os.waitpid(child, 0)
    assert OpenLedger.open(path, BUDGET).ledger == Ledger((STEP,))


def test_a_crash_while_charging_leaves_the_ledger_whole(path: Path, monkeypatch: pytest.MonkeyPatch):
    ledger = OpenLedger.open(path, BUDGET)
    ledger.charge(MEANS)

    def fail(path: Path, document: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(ledger_module, "write_json", fail)
        with pytest.raises(OSError, match="disk full"):
            ledger.charge(STEP)  # raised: the mechanism is not run
    assert OpenLedger.open(path, BUDGET).ledger == ledger.ledger == Ledger((MEANS,))


def test_a_charge_beyond_the_budget_is_refused_and_not_written(path: Path):
    ledger = OpenLedger.open(path, BUDGET)
    ledger.charge(MEANS)
    before = path.read_bytes()
    with pytest.raises(PrivacyError, match="budget exhausted"):
        ledger.charge(replace(MEANS, noise_multiplier=1.0))
    assert path.read_bytes() == before
    assert ledger.ledger == Ledger((MEANS,))


def test_the_budget_is_spent_to_the_last_step_that_fits(path: Path):
    ledger = OpenLedger.open(path, BUDGET)
    while True:
        try:
            ledger.charge(replace(MEANS, noise_multiplier=12.0))
        except PrivacyError:
            break
    spent = ledger.ledger.epsilon(1e-5)
    assert 0.8 < spent <= 1


def test_another_budget_is_refused(path: Path):
    OpenLedger.open(path, BUDGET)
    with pytest.raises(PrivacyError, match="begun with epsilon 1"):
        OpenLedger.open(path, Budget(2.0, 1e-5))


def test_two_runs_cannot_charge_to_one_ledger(path: Path):
    one, other = OpenLedger.open(path, BUDGET), OpenLedger.open(path, BUDGET)
    one.charge(MEANS)
    with pytest.raises(PrivacyError, match="another run"):
        other.charge(MEANS)


def test_a_truncated_or_edited_ledger_is_refused(path: Path):
    ledger = OpenLedger.open(path, BUDGET)
    ledger.charge(MEANS)
    intact = path.read_text("utf-8")
    edited = intact.replace('"noise_multiplier": 5.0', '"noise_multiplier": 50.0')
    assert edited != intact
    emptied = json.dumps({**json.loads(intact), "mechanisms": []})
    for spoilt in (intact[: len(intact) // 2], "", edited, emptied, "[]", "null", "[" * 100_000):
        path.write_text(spoilt, "utf-8")
        with pytest.raises(PrivacyError, match="not an intact ledger"):
            OpenLedger.open(path, BUDGET)
        with pytest.raises(PrivacyError):
            ledger.charge(STEP)
