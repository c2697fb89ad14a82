from dataclasses import replace

import pytest

from synthgen.model.recipe import load_recipe, with_budget
from synthgen.subject import Subject
from synthgen.training.matching.fitting import comparable_budget, expected_accuracy, explain, fitted

TWENTY = Subject(name="Letters", class_names=tuple(f"letter {i}" for i in range(20)))


def recipe(epsilon: float, *overrides: str):
    return with_budget(load_recipe("private", overrides), epsilon, None)


@pytest.mark.parametrize(
    ("epsilon", "images", "students", "noise", "rate", "steps"),
    [
        (10, 60_000, 5, 0.8, 16, 2_400),  # as shipped with 0.2.0
        (1, 60_000, 1, 0.5, 8, 1_000),  # as its private-eps1
        (0.2, 60_000, 0, 0.6, 3, 600),
        (10, 15_000, 3, 0.65, 12, 1_600),
        (10, 5_000, 1, 0.5, 8, 1_000),
    ],
)
def test_the_settings_follow_from_budget_and_data(epsilon, images, students, noise, rate, steps):
    chosen = fitted(recipe(epsilon), images)
    assert (chosen.look.students, chosen.look.embedding_noise) == (students, noise)
    assert (chosen.look.teacher_learning_rate, chosen.training.steps) == (rate, steps)
    assert chosen.look.teacher_batch_size == pytest.approx(images * 8_192 / 60_000, abs=1)
    assert not chosen.is_open


def test_what_is_given_stays():
    given = fitted(recipe(1, "look.students=0", "training.steps=7", "training.images_per_class=3"), 60_000)
    assert (given.look.students, given.training.steps, given.training.images_per_class) == (0, 7, 3)
    assert given.look.teacher_learning_rate == 8
    assert fitted(given, 100) == given


def test_more_classes_share_the_batch_and_the_budget():
    many = replace(recipe(1), subject=TWENTY)
    assert comparable_budget(many, 60_000) == 0.5
    assert fitted(many, 60_000).training.images_per_class == 16
    most = replace(many, subject=Subject(name="x", class_names=tuple(map(str, range(256)))))
    assert fitted(most, 60_000).training.images_per_class == 4


def test_a_useless_budget_is_said_so_beforehand():
    few = fitted(recipe(0.2), 5_000)
    assert any(line.startswith("warning: this budget is too small") for line in explain(few, 5_000))
    enough = fitted(recipe(1), 60_000)
    assert any("about 82 % accuracy" in line or "about 83 % accuracy" in line for line in explain(enough, 60_000))


def test_expectations_grow_with_the_budget():
    expected = [expected_accuracy(budget) for budget in (0.1, 0.2, 0.5, 1, 3, 10, 50)]
    assert expected[0] is None
    assert expected[1:] == sorted(expected[1:])
