import numpy as np
import pytest

from synthgen.privacy.accounting import Mechanism
from synthgen.training.matching.teacher import _ROUNDING, clipped_gradient_sum, train_teacher


def mechanism(**changes) -> Mechanism:
    values = {"noise_multiplier": 1e-3, "l2_sensitivity": 1.0, "sampling_probability": 0.5, "steps": 40}
    return Mechanism(name="teacher", releases="gradients", **(values | changes))


@pytest.fixture
def separable():
    """400 rows of unit norm whose first ten coordinates tell the class."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, 400).astype(np.uint8)
    rows = 0.1 * random.standard_normal((400, 30)).astype(np.float32)
    rows[np.arange(400), labels] += 1
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), labels


def loop_of_single_gradients(rows, labels, parameters, clip):
    """The same sum by the textbook: one example at a time."""
    total = np.zeros_like(parameters)
    for row, label in zip(rows.astype(np.float64), labels, strict=True):
        extended = np.append(row, 1.0)
        logits = extended @ parameters
        error = np.exp(logits - logits.max())
        error = error / error.sum() - np.eye(10)[label]
        gradient = np.outer(extended, error)
        total += gradient * min(1, clip / np.linalg.norm(gradient))
    return total


def test_closed_form_clipping_equals_a_loop_over_examples(separable):
    rows, labels = separable
    parameters = np.random.default_rng(1).standard_normal((31, 10))
    for clip in (0.05, 1.0, 100.0):
        found = clipped_gradient_sum(rows[:50], labels[:50], parameters, clip)
        expected = loop_of_single_gradients(rows[:50], labels[:50], parameters, clip * (1 - _ROUNDING))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * clip)


@pytest.mark.parametrize("size", [1e-20, 1.0, 1e10, np.inf, np.nan])
def test_no_example_moves_the_sum_by_more_than_the_clip(separable, size: float):
    rows, labels = separable
    parameters = 5 * np.random.default_rng(2).standard_normal((31, 10))
    without = clipped_gradient_sum(rows[:20], labels[:20], parameters, 0.7)
    intruder = np.full((1, 30), size, np.float32)
    for label in range(10):
        rows_with = np.concatenate([rows[:20], intruder])
        labels_with = np.append(labels[:20], np.uint8(label))
        with np.errstate(over="ignore", invalid="ignore"):
            moved = clipped_gradient_sum(rows_with, labels_with, parameters, 0.7) - without
        assert np.isfinite(moved).all()
        assert np.linalg.norm(moved) <= 0.7 * (1 + 1e-5)


def test_the_teacher_learns_where_noise_lets_it(separable):
    rows, labels = separable
    clear = train_teacher(rows, labels, mechanism(), learning_rate=4.0)
    assert (clear.predict(rows) == labels).mean() > 0.95
    deaf = train_teacher(rows, labels, mechanism(noise_multiplier=1e5), learning_rate=4.0)
    assert (deaf.predict(rows) == labels).mean() < 0.4


def test_noise_has_the_scale_of_the_mechanism():
    rows, labels = np.zeros((50, 200), np.float32), np.zeros(50, np.uint8)
    seen = []
    train_teacher(
        rows,
        labels,
        mechanism(noise_multiplier=3.0, l2_sensitivity=2.0, steps=10),
        learning_rate=1e-6,
        watch=lambda step, parameters, gradient: seen.append(gradient[:-1]),
    )
    noise = np.concatenate(seen).ravel()  # rows of zeros have no gradient but their bias's
    assert abs(noise.std() - 6.0) < 6 * 6.0 / np.sqrt(2 * noise.size)
    assert abs(noise.mean()) < 6 * 6.0 / np.sqrt(noise.size)
