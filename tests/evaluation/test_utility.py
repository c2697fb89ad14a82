import numpy as np
import pytest
from support import DATA

from synthgen.evaluation.material import Examples
from synthgen.evaluation.utility import Outcome, train_on_synthetic_test_on_real
from synthgen.real_images import load_real_images


def test_an_outcome_counts_by_hand():
    truth = np.array([0, 0, 1, 2], np.uint8)
    outcome = Outcome.of(truth, [np.array([0, 1, 1, 2], np.uint8), np.array([0, 0, 0, 0], np.uint8)], 4)
    assert outcome.accuracies == (0.75, 0.5)
    assert outcome.mean == 0.625
    assert outcome.spread == 0.125
    assert outcome.per_class[:4] == (0.75, 0.5, 0.5, None)
    assert outcome.confusion[0][:3] == (3, 1, 0)
    assert outcome.confusion[1][:3] == (1, 1, 0)
    assert np.sum(outcome.confusion) == 8


@pytest.fixture(scope="module")
def real():
    train, test = (load_real_images(split, DATA, official=False) for split in ("train", "test"))
    return Examples(train.images, train.labels), Examples(test.images, test.labels)


def test_wrong_labels_cost_usefulness_and_the_ceiling_stays(real):
    train, test = real
    wrong = Examples(train.images, np.roll(train.labels, 1))
    found = train_on_synthetic_test_on_real("logistic regression", wrong, train, test, classes=10, seeds=1, epochs=1)
    assert found.real.mean > 0.7
    assert found.synthetic.mean < 0.4
    assert found.ratio == found.synthetic.mean / found.real.mean


def test_real_images_reach_their_own_ceiling(real):
    train, test = real
    found = train_on_synthetic_test_on_real("logistic regression", train, train, test, classes=10, seeds=2, epochs=1)
    assert found.ratio == 1
    assert len(found.synthetic.accuracies) == len(found.real.accuracies) == 2


def test_a_known_ceiling_is_not_trained_again(real):
    train, test = real
    stages = []
    found = train_on_synthetic_test_on_real(
        "logistic regression",
        train,
        train,
        test,
        classes=10,
        seeds=2,
        epochs=1,
        known_ceiling=test.labels,
        progress=lambda stage, done, of: stages.append(stage),
    )
    assert found.real.accuracies[0] == 1
    assert found.real.accuracies[1] < 1
    assert set(stages) == {
        f"logistic regression, {kind}" for kind in ("synthetic, seed 0", "synthetic, seed 1", "real, seed 1")
    }
