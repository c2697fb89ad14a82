import pytest
from support import DATA, SAMPLE

import synthgen
from synthgen.errors import RecipeError, UsageError
from synthgen.model.recipe import load_recipe
from synthgen.training.adversarial import AdversarialPlan
from synthgen.training.dpgan import DpganPlan
from synthgen.training.folder import STATE_NAME, write_state
from synthgen.training.matching.run import MatchingPlan
from synthgen.training.strategy import choose_strategy

SMALL = {
    "smoke": [],
    "dpgan": ["training.batch_size=100", "training.steps=4"],
    "private": ["look.teacher_batch_size=100", "look.teacher_steps=5", "look.students=1", "training.steps=7"],
}


@pytest.mark.parametrize(
    ("name", "kind", "steps"), [("smoke", AdversarialPlan, 16), ("dpgan", DpganPlan, 4), ("private", MatchingPlan, 7)]
)
def test_the_recipe_decides_the_kind_of_plan(name: str, kind: type, steps: int):
    overrides = [*SAMPLE, *SMALL[name]]
    plan = synthgen.plan(name, overrides=overrides, data=DATA, seed=5)
    assert type(plan) is kind
    assert (plan.total_steps, plan.seed, plan.recipe.name) == (steps, 5, name)
    assert all("\n" not in line for line in plan.describe())


def test_a_recipe_and_its_name_give_the_same_plan():
    named = synthgen.plan("smoke", overrides=SAMPLE, data=DATA, seed=5)
    assert synthgen.plan(named.recipe, data=DATA, seed=5).identity() == named.identity()


def test_a_budget_takes_the_place_of_the_recipes(tmp_path):
    overrides = [*SAMPLE, *SMALL["dpgan"]]
    plan = synthgen.plan("dpgan", overrides=overrides, data=DATA, epsilon=3.0, delta=1e-6)
    assert (plan.recipe.privacy.epsilon, plan.recipe.privacy.delta) == (3.0, 1e-6)
    with pytest.raises(RecipeError, match="trains without privacy"):
        synthgen.plan("smoke", epsilon=3.0)


def test_what_does_not_go_together_is_refused_before_the_images_are_read(tmp_path):
    nowhere = tmp_path / "nowhere"
    with pytest.raises(UsageError, match="goes without --recipe, --data, --epsilon and --delta"):
        synthgen.plan("private", release="private")
    with pytest.raises(UsageError, match="recipe 'dpgan' is private"):
        synthgen.plan("dpgan", data=nowhere, strategy=choose_strategy("mirrored"))
    with pytest.raises(UsageError, match="seed -1 is out of range"):
        synthgen.plan("smoke", data=nowhere, seed=-1)


def test_the_state_of_another_version_is_refused_in_a_line(tmp_path):
    write_state(tmp_path, {"version": 1, "recipe": {}, "seed": 0}, {})
    assert (tmp_path / STATE_NAME).is_file()
    with pytest.raises(UsageError, match="begun by another version of synthgen"):
        synthgen.plan(resume=tmp_path)


def test_the_older_names_train_too(tmp_path):
    overrides = [*SAMPLE, *SMALL["dpgan"], "generator.filters=[4, 4]", "discriminator.filters=[4, 4]"]
    plan = synthgen.plan_private_training(load_recipe("dpgan", overrides), DATA, 3)
    seen = []
    checkpoint = synthgen.train_privately(plan, tmp_path / "run", on_look=seen.append)
    assert checkpoint.training["steps"] == seen[-1].step == 4
    assert synthgen.train_by_matching is synthgen.train_privately


def test_every_public_name_is_there():
    assert {"plan", "train", "plan_export", "generate", "verify", "evaluate"} <= set(synthgen.__all__)
    assert all(callable(getattr(synthgen, name)) for name in synthgen.__all__)
