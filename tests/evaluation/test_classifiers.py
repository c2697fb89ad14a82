import sys

import numpy as np
import pytest
from support import DATA

from synthgen.errors import EvaluationError
from synthgen.evaluation.classifiers import EPOCHS, TRAINERS, small_cnn, train_classifier, train_small_cnn
from synthgen.real_images import load_real_images


@pytest.fixture(scope="module")
def real():
    return load_real_images("train", DATA, official=False)


def test_the_small_cnn_is_the_one_described():
    assert sum(np.prod(weights.shape) for weights in small_cnn(10).trainable_weights) == 241_770
    assert EPOCHS == 6


@pytest.mark.parametrize(("name", "least"), [("small CNN", 0.3), ("logistic regression", 0.7), ("small MLP", 0.6)])
def test_every_classifier_learns(real, name: str, least: float):
    test = load_real_images("test", DATA, official=False)
    steps = []
    classify = train_classifier(
        name,
        real.images,
        real.labels,
        seed=1,
        classes=10,
        epochs=20,
        progress=lambda done, of: steps.append((done, of)),
    )
    predicted = classify(test.images)
    assert predicted.shape == (100,)
    assert predicted.dtype == np.uint8
    assert (predicted == test.labels).mean() > least
    assert steps[-1][0] == steps[-1][1]


@pytest.mark.parametrize("name", ["logistic regression", "small MLP"])
def test_the_same_seed_gives_the_same_classifier(real, name: str):
    first, second = (train_classifier(name, real.images[:100], real.labels[:100], seed=5, classes=10) for _ in range(2))
    assert (first(real.images) == second(real.images)).all()


def test_seeds_differ(real):
    first, second = (train_small_cnn(real.images[:50], real.labels[:50], seed, epochs=1, classes=10) for seed in (0, 1))
    assert not np.array_equal(first.get_weights()[0], second.get_weights()[0])


@pytest.mark.parametrize("name", list(TRAINERS))
def test_one_class_only_gives_a_constant_answer(real, name: str):
    classify = train_classifier(name, real.images[:9], np.full(9, 4, np.uint8), seed=0, classes=10)
    assert classify(real.images[:3]).tolist() == [4, 4, 4]


def test_without_scikit_learn_the_cure_is_named(real, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(EvaluationError, match=r"pip install 'synthgen\[evaluate\]', or evaluate with --quick"):
        train_classifier("logistic regression", real.images[:50], real.labels[:50], seed=0, classes=10)
