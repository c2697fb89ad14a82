import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from synthgen.errors import PrivacyError
from synthgen.privacy.accounting import Budget, Mechanism, Selected, calibrated, epsilon_of, is_priced_by_rdp
from synthgen.privacy.joint import Held, joint_guarantees
from synthgen.privacy.ledger import Ledger, LedgerRecord, OpenLedger, read_ledger
from synthgen.privacy.selection import Selection
from synthgen.privacy.spend_log import SpendLog
from synthgen.privacy.statement import PrivacyStatement, claim_sha256, differential_privacy

NOTHING = "nothing: untrained"
RUN = "0" * 32
OF_TEN = Selection(mean=10, score_noise_multiplier=20.0)
MEANS = Mechanism(name="means", releases="ten noisy sums", noise_multiplier=4.0, l2_sensitivity=1.0)
TEACHER = Mechanism(
    name="teacher",
    releases="noisy gradients",
    noise_multiplier=20.0,
    l2_sensitivity=1.0,
    sampling_probability=0.1,
    steps=50,
)


@pytest.fixture(scope="module")
def tuned() -> PrivacyStatement:
    return differential_privacy(Ledger((TEACHER, MEANS), OF_TEN), 1e-5, NOTHING, run=RUN)


def of_theorem_2(noise_multipliers: list[float], mean: int, delta: float) -> float:
    """Epsilon by arXiv:2110.03620, theorem 2 with η = 1, over fine orders, of Gaussian mechanisms without sampling."""
    orders = np.concatenate([np.linspace(1.01, 12, 2_000), np.geomspace(12, 2_000, 2_000)])
    run = orders * sum(1 / (2 * noise**2) for noise in noise_multipliers)
    gamma = 1 / mean
    constant = np.min(2 * (1 - 1 / orders) * run + 2 * math.log(1 / gamma) / orders)
    whole = run + constant + math.log(mean) / (orders - 1)
    # Canonne, Kamath and Steinke 2020, proposition 12
    return float(np.min(whole + np.log1p(-1 / orders) - np.log(delta * orders) / (orders - 1)))


@pytest.mark.parametrize("mean", [2, 3, 10, 30])
@pytest.mark.parametrize("noise", [0.8, 4.0, 20.0])
def test_the_price_is_that_of_the_papers_theorem(noise: float, mean: int):
    selection = Selection(mean=mean, score_noise_multiplier=20.0)
    found = epsilon_of([Selected((replace(MEANS, noise_multiplier=noise),), selection)], 1e-5)
    exact = of_theorem_2([noise, 20.0], mean, 1e-5)
    assert exact - 1e-3 <= found <= 1.02 * exact  # the accountant has fewer orders, and no finer bound


def test_a_selection_costs_more_than_a_run_and_more_runs_cost_more():
    run = epsilon_of([TEACHER, MEANS], 1e-5)
    prices = [
        epsilon_of([Selected((TEACHER, MEANS), Selection(mean=mean, score_noise_multiplier=20.0))], 1e-5)
        for mean in (2, 3, 10, 30)
    ]
    assert run < prices[0]
    assert prices == sorted(prices)
    assert epsilon_of([Selected((TEACHER, MEANS), replace(OF_TEN, score_noise_multiplier=1.0))], 1e-5) > prices[2]
    assert is_priced_by_rdp(Ledger((MEANS,), OF_TEN).charges)
    assert not is_priced_by_rdp([MEANS])


def test_noise_is_calibrated_so_that_the_whole_meets_the_budget():
    def charges(scale: float):
        return Ledger((replace(TEACHER, noise_multiplier=scale), MEANS), OF_TEN).charges

    scale = calibrated(charges, Budget(epsilon=3.0))
    assert 2.997 <= epsilon_of(charges(scale), 1e-5) <= 3.0


@pytest.mark.parametrize("mean", [2, 5])
def test_the_number_of_runs_is_geometric(mean: int):
    selection = Selection(mean=mean, score_noise_multiplier=20.0)
    drawn = np.array([selection.draw_runs() for _ in range(20_000)])
    last = 4 * mean  # all beyond in one bin
    found = [*(int((drawn == k).sum()) for k in range(1, last)), int((drawn >= last).sum())]
    law = stats.geom(1 / mean)
    expected = 20_000 * np.array([*(law.pmf(k) for k in range(1, last)), law.sf(last - 1)])
    assert stats.chisquare(found, expected).pvalue > 1e-6


HOSTILE = [
    {},
    None,
    [],
    {"distribution": "poisson", "mean": 10, "score_noise_multiplier": 20.0},
    {"distribution": "geometric", "mean": 1, "score_noise_multiplier": 20.0},
    {"distribution": "geometric", "mean": 10.0, "score_noise_multiplier": 20.0},
    {"distribution": "geometric", "mean": True, "score_noise_multiplier": 20.0},
    {"distribution": "geometric", "mean": 10**30, "score_noise_multiplier": 20.0},
    {"distribution": "geometric", "mean": 10, "score_noise_multiplier": float("nan")},
    {"distribution": "geometric", "mean": 10, "score_noise_multiplier": "20"},
    {"distribution": "geometric", "mean": 10, "score_noise_multiplier": 0},
    {"distribution": "geometric", "mean": 10, "score_noise_multiplier": 20.0, "runs": 4},
]


@pytest.mark.parametrize("document", HOSTILE)
def test_a_selection_of_another_form_is_refused_wherever_it_is_read(document, tuned):
    with pytest.raises(PrivacyError):
        Selection.from_dict(document)
    with pytest.raises(ValueError, match=r"selection|mean number of runs|noise multiplier"):
        PrivacyStatement.from_dict(tuned.to_dict() | {"selection": document})
    record = LedgerRecord(budget=Budget(3.0), run=RUN, ledger=tuned.proof.ledger).to_dict()
    with pytest.raises(PrivacyError):
        LedgerRecord.from_dict(record | {"selection": document})


def test_a_tuned_statement_says_so_by_rdp_and_survives_json(tuned):
    document = json.loads(json.dumps(tuned.to_dict()))
    assert document["selection"] == {"distribution": "geometric", "mean": 10, "score_noise_multiplier": 20.0}
    assert document["accountant"].startswith("Rényi")
    assert "but for the selection" in document["not_charged"]
    assert "curve" not in document
    assert PrivacyStatement.from_dict(document) == tuned
    facts = dict(tuned.facts())
    assert facts["selection"].startswith("the best of a random number of runs, 10 on average")
    assert facts["curve"] == "left out: RDP accounting gives none"
    assert tuned.proof.epsilon == pytest.approx(tuned.proof.ledger.epsilon(1e-5), abs=1e-4)


def test_the_check_in_the_documentation_finds_the_same_epsilon(tuned, tmp_path):
    text = (Path(__file__).parents[2] / "docs/privacy.md").read_text("utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    (tmp_path / "manifest.json").write_text(json.dumps({"privacy": tuned.to_dict()}))
    command = [sys.executable, "-c", code, str(tmp_path / "manifest.json")]
    words = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert words[::2] == ["claimed", "computed"]
    assert 0 <= float(words[1]) - float(words[3]) < 2e-4


def without_selection(document):
    del document["selection"]


def fewer_runs(document):
    document["selection"]["mean"] = 30  # costs more than is claimed


def a_louder_score(document):
    document["selection"]["score_noise_multiplier"] = 0.5


def without_the_run(document):
    del document["run"], document["release_sha256"]


@pytest.mark.parametrize(
    "forge",
    [without_selection, fewer_runs, a_louder_score, without_the_run],
)
def test_a_statement_whose_selection_was_altered_is_refused(tuned, forge):
    document = json.loads(json.dumps(tuned.to_dict()))
    forge(document)
    with pytest.raises(ValueError, match="privacy statement"):
        PrivacyStatement.from_dict(document)


def test_a_ledger_whose_selection_was_removed_is_refused(tmp_path):
    path = tmp_path / "ledger.json"
    opened = OpenLedger.open(path, Budget(3.0), selection=OF_TEN)
    opened.charge(MEANS)
    assert read_ledger(path).ledger == Ledger((MEANS,), OF_TEN)
    document = json.loads(path.read_text())
    del document["selection"]
    path.write_text(json.dumps(document))
    with pytest.raises(PrivacyError, match="its hash is not that of what it holds"):
        read_ledger(path)
    single = LedgerRecord(budget=Budget(3.0), run=opened.record.run, ledger=Ledger((MEANS,)))
    assert not single.covers(opened.record)  # and a state knows the selection, whatever its hash
    assert not opened.record.covers(single)


def test_a_charge_pays_for_the_selection_too(tmp_path):
    alone = epsilon_of([MEANS], 1e-5)
    OpenLedger.open(tmp_path / "single.json", Budget(1.2 * alone)).charge(MEANS)
    tuned = OpenLedger.open(tmp_path / "tuned.json", Budget(1.2 * alone), selection=OF_TEN)
    with pytest.raises(PrivacyError, match="budget exhausted"):
        tuned.charge(MEANS)


def test_a_pinned_number_is_of_a_ledger_with_its_selection():
    assert claim_sha256(Ledger((MEANS,)), 1e-5) != claim_sha256(Ledger((MEANS,), OF_TEN), 1e-5)


def test_a_tuned_release_and_another_compose(tuned):
    other = differential_privacy(Ledger((MEANS,)), 1e-5, "10 images of Fashion-MNIST, training split", run="1" * 32)
    tuned = replace(tuned, trained_on="10 images of Fashion-MNIST, training split")
    single = replace(tuned, proof=replace(tuned.proof, ledger=replace(tuned.proof.ledger, selection=None)))
    held = [Held(name="a", statement=tuned, run=1), Held(name="b", statement=other, run=2)]
    (both,) = joint_guarantees(held)
    assert both.counted == ("a", "b")
    assert both.epsilon > tuned.proof.epsilon
    (twice,) = joint_guarantees([held[0], Held(name="c", statement=single, run=1)])
    assert twice.counted == ("a", "c")  # of one name, but not of one ledger: none includes the other


def test_the_spend_log_knows_the_selection(tmp_path):
    log = SpendLog("0" * 64, tmp_path)
    log.add(RUN, TEACHER, tmp_path, OF_TEN)
    log.add(RUN, MEANS, tmp_path, OF_TEN)
    spent = log.spent_by_others("1" * 32, 1e-5)
    assert spent.runs == 1
    assert spent.epsilon == Ledger((TEACHER, MEANS), OF_TEN).epsilon(1e-5)
