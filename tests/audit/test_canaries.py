import numpy as np
import pytest

from synthgen.audit.canaries import (
    Evidence,
    class_sum_evidence,
    gradient_sum_evidence,
    linear_softmax_background,
    linear_softmax_step_evidence,
    pattern_canaries,
)


def test_patterns_are_public_and_unlike_each_other():
    canaries = pattern_canaries(200, seed=3)
    assert len(canaries) == 200
    assert canaries.images.shape == (200, 28, 28)
    assert canaries.images.dtype == canaries.labels.dtype == np.uint8
    assert np.bincount(canaries.labels).tolist() == [20] * 10
    assert len(np.unique(canaries.images, axis=0)) == 200
    assert (canaries.images == pattern_canaries(200, seed=3).images).all()
    assert set(np.unique(canaries.images)) == {0, 255}
    assert (canaries.images[:, ::2] == canaries.images[:, 1::2]).all()


def test_scores_are_the_best_linear_estimate_of_the_inclusions():
    random = np.random.default_rng(0)
    rows, noise, labels = random.normal(size=(12, 30)), 2.0, np.arange(12) % 3
    observed = random.normal(size=(3, 30))
    # the posterior mean by textbook matrices over the stacked sums: covariance 1/4 of the inclusions
    stacked = np.zeros((12, 3, 30))
    stacked[np.arange(12), labels] = rows
    flat = stacked.reshape(12, -1)
    gain = flat / 4 @ np.linalg.inv(flat.T @ flat / 4 + noise**2 * np.eye(90))
    expected = 0.5 + gain @ (observed.reshape(-1) - flat.sum(0) / 2)
    assert class_sum_evidence(observed, rows, labels, noise).scores() == pytest.approx(expected)


def test_without_noise_the_inclusions_are_read_off_even_from_similar_canaries():
    random = np.random.default_rng(0)
    rows = random.normal(size=(20, 50)) + 5  # all much alike
    labels, included = np.arange(20) % 2, random.random(20) < 0.5
    sums = np.zeros((2, 50))
    np.add.at(sums, labels[included], rows[included])
    assert class_sum_evidence(sums, rows, labels, 0.0).scores() == pytest.approx(included.astype(float), abs=1e-3)


def test_evidence_of_independent_releases_adds_up():
    random = np.random.default_rng(0)
    rows, labels = random.normal(size=(8, 20)), np.zeros(8, np.int64)
    one, other = random.normal(size=(2, 1, 20))
    together = class_sum_evidence(one, rows, labels, 1.0) + class_sum_evidence(other, rows, labels, 2.0)
    mixed = (one + other / 4) / (1 + 1 / 4)  # the precision-weighted mean tells the same
    assert together.scores() == pytest.approx(class_sum_evidence(mixed, rows, labels, 0.8**0.5).scores())


def test_no_evidence_is_one_half():
    assert Evidence(np.zeros(6), np.zeros((6, 6))).scores().tolist() == [0.5] * 6


@pytest.mark.parametrize(("noise", "size"), [(1.0, 1.0), (0.01, 1.0), (1.0, 100.0)])
def test_what_a_mechanism_really_does_is_fitted_from_its_release(noise: float, size: float):
    random = np.random.default_rng(0)
    rows, labels = random.normal(size=(100, 80)) / 9 + 0.3, np.zeros(100, np.int64)  # norm about 3, much alike
    included = random.random(100) < 0.5
    sums = size * rows[included].sum(0, keepdims=True) + noise * random.normal(size=(1, 80))
    claimed = class_sum_evidence(sums, rows, labels, 1.0)
    fitted = claimed.fitted()
    ratio = np.diag(fitted.gram) / np.diag(claimed.gram) / (size / noise) ** 2
    assert 0.09 < ratio.min() <= ratio.max() < 11  # a step of the grid, squared
    errors = [np.abs(evidence.scores() - included).mean() for evidence in (fitted, claimed)]
    assert errors[0] <= errors[1] + 1e-9


def test_linear_softmax_gradients_are_those_of_the_textbook():
    random = np.random.default_rng(0)
    m, width, classes = 5, 7, 4
    features, labels = random.normal(size=(m, width)), random.integers(0, classes, m)
    weights, bias = random.normal(size=(width, classes)), random.normal(size=classes)
    noisy, noisy_bias = random.normal(size=(width, classes)), random.normal(size=classes)
    gradients = []
    for x, y in zip(features, labels, strict=True):
        odds = np.exp(x @ weights + bias)
        error = odds / odds.sum() - np.eye(classes)[y]
        gradient = np.append(np.outer(x, error).reshape(-1), error)
        gradients.append(gradient / max(1, np.linalg.norm(gradient) / 1.5))
    flat = np.stack(gradients)
    released = np.append(noisy.reshape(-1), noisy_bias)
    expected = gradient_sum_evidence(flat @ released, flat @ flat.T, 3.0, 0.2)
    step = (weights, bias, noisy, noisy_bias, features, labels)
    found = linear_softmax_step_evidence(*step, l2_clip_norm=1.5, noise=3.0, sampling_probability=0.2)
    assert found.products == pytest.approx(expected.products)
    assert found.gram == pytest.approx(expected.gram)
    background = linear_softmax_background(weights, bias, features, labels, l2_clip_norm=1.5, sampling_probability=0.2)
    assert np.append(background[0], background[1]) == pytest.approx(0.2 * flat.sum(0), rel=1e-5)
