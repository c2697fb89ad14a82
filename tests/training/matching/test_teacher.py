import numpy as np
import pytest

from synthgen.privacy.accounting import Mechanism
from synthgen.privacy.exact import Grid
from synthgen.training.matching import teacher as teacher_module
from synthgen.training.matching.teacher import (
    _FEATURE_BITS,
    Teacher,
    clipped_gradient_sum,
    train_teacher,
    whole_features,
)


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


def gradient_sum(rows, labels, parameters, grid, chosen=None):
    chosen = np.arange(len(rows)) if chosen is None else np.asarray(chosen)
    with np.errstate(over="ignore", invalid="ignore"):
        return clipped_gradient_sum(whole_features(rows), labels, chosen, parameters, grid)


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


@pytest.mark.parametrize("clip", [0.05, 1.0, 100.0])
@pytest.mark.parametrize("multiplier", [0.5, 2.5, 80.0])
def test_closed_form_clipping_equals_a_loop_over_examples(separable, clip: float, multiplier: float):
    rows, labels = separable
    parameters = np.random.default_rng(1).standard_normal((31, 10))
    grid = Grid.of(multiplier, clip)
    found = gradient_sum(rows[:50], labels[:50], parameters, grid) * grid.step
    expected = loop_of_single_gradients(rows[:50], labels[:50], parameters, clip)
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-2 * clip)


@pytest.mark.parametrize("size", [1e-20, 1.0, 1e10, np.inf, np.nan])
@pytest.mark.parametrize("multiplier", [1e-3, 0.5, 80.0, 1e5])
def test_no_example_moves_the_exact_sum_by_more_than_the_clip(separable, size: float, multiplier: float):
    """In integers, and whatever the example: the others' part of the sum does not change at all."""
    rows, labels = separable
    grid = Grid.of(multiplier, 0.7)
    parameters = 5 * np.random.default_rng(2).standard_normal((31, 10))
    without = gradient_sum(rows[:300], labels[:300], parameters, grid)
    intruder = np.full((1, 30), size, np.float32)
    for label in range(10):
        rows_with = np.concatenate([rows[:100], intruder, rows[100:300]])
        labels_with = np.insert(labels[:300], 100, label)
        moved = gradient_sum(rows_with, labels_with, parameters, grid) - without
        assert sum(int(number) ** 2 for number in moved.ravel()) <= grid.squared_clip
        alone = gradient_sum(intruder, labels_with[100:101], parameters, grid)
        np.testing.assert_array_equal(moved, alone)


def test_a_neighbours_sum_differs_by_its_own_row_of_integers_for_every_example(separable):
    rows, labels = separable
    grid = Grid.of(2.0, 1.0)
    parameters = 3 * np.random.default_rng(3).standard_normal((31, 10))
    whole = gradient_sum(rows, labels, parameters, grid)
    for i in range(0, 400, 7):  # before, in and after blocks of 256
        kept = np.delete(np.arange(400), i)
        moved = whole - gradient_sum(rows, labels, parameters, grid, kept)
        np.testing.assert_array_equal(moved, gradient_sum(rows, labels, parameters, grid, [i]))


def test_sums_and_logits_are_integers_far_from_where_a_float64_rounds(separable):
    rows, labels = separable
    grid = Grid.of(2.0, 1.0)
    parameters = np.random.default_rng(1).standard_normal((31, 10)) * np.geomspace(1e-9, 1e9, 10)
    total = gradient_sum(rows, labels, parameters, grid)
    assert (total == np.rint(total)).all()
    whole, unit = teacher_module._whole_parameters(parameters)
    features = teacher_module._extended(whole_features(rows))
    assert (whole == np.rint(whole)).all()
    assert (np.abs(features) @ np.abs(whole)).max() <= 2**52
    assert max(sum(int(x) ** 2 for x in row) for row in features) <= 2 ** (2 * _FEATURE_BITS + 1)
    exact = np.array([[sum(int(x) * int(w) for x, w in zip(row, column, strict=True)) for column in whole.T]
                      for row in features[:20]])  # fmt: skip
    np.testing.assert_array_equal(features[:20] @ whole, exact)
    expected = np.c_[rows, np.ones(400)] @ parameters[:, -1]
    np.testing.assert_allclose((features @ whole * unit)[:, -1], expected, atol=1e-3 * np.abs(expected).max())


def test_errors_are_those_of_softmax():
    random = np.random.default_rng(4)
    logits = random.standard_normal((500, 10)) * 10 ** random.uniform(-3, 3, (500, 1))
    labels = random.integers(0, 10, 500).astype(np.uint8)
    expected = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = expected / expected.sum(axis=1, keepdims=True) - np.eye(10)[labels]
    np.testing.assert_allclose(teacher_module._errors(logits, labels), expected, atol=1e-10)


def test_an_examples_class_is_the_same_in_any_company(separable):
    """Bit for bit: even where two classes are as likely as each other."""
    rows, _ = separable
    random = np.random.default_rng(5)
    weights, bias = random.standard_normal((30, 10)).astype(np.float32), np.zeros(10, np.float32)
    weights[:, 3] = weights[::-1, 7]
    rows[::2] = (rows[::2] + rows[::2, ::-1]) / 2  # for these the classes 3 and 7 differ by rounding alone
    teacher = Teacher(weights, bias)
    whole = teacher.predict(rows)
    for size in (1, 3, 17, 255, 257):
        parts = [teacher.predict(rows[first : first + size]) for first in range(0, 400, size)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    order = random.permutation(400)
    np.testing.assert_array_equal(teacher.predict(rows[order]), whole[order])


def test_the_teacher_learns_where_noise_lets_it(separable):
    rows, labels = separable
    clear = train_teacher(whole_features(rows), labels, mechanism(), classes=10, learning_rate=4.0)
    assert (clear.predict(rows) == labels).mean() > 0.95
    deaf = train_teacher(whole_features(rows), labels, mechanism(noise_multiplier=1e5), classes=10, learning_rate=4.0)
    assert (deaf.predict(rows) == labels).mean() < 0.4


def test_noise_has_the_scale_of_the_mechanism():
    rows, labels = np.zeros((50, 200), np.int16), np.zeros(50, np.uint8)
    seen = []
    train_teacher(
        rows,
        labels,
        mechanism(noise_multiplier=3.0, l2_sensitivity=2.0, steps=10),
        classes=10,
        learning_rate=1e-6,
        watch=lambda step, parameters, gradient: seen.append(gradient[:-1]),
    )
    noise = np.concatenate(seen).ravel()  # rows of zeros have no gradient but their bias's
    assert abs(noise.std() - 6.0) < 6 * 6.0 / np.sqrt(2 * noise.size)
    assert abs(noise.mean()) < 6 * 6.0 / np.sqrt(noise.size)
