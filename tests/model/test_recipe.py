import dataclasses
from dataclasses import replace
from pathlib import Path

import pytest

from synthgen.errors import RecipeError
from synthgen.model.recipe import Recipe, builtin_recipes, load_recipe, with_budget
from synthgen.model.reference import recipe_reference
from synthgen.privacy.accounting import Budget
from synthgen.subject import Subject


@pytest.mark.parametrize("name", builtin_recipes())
def test_builtin_recipes_load_and_survive_a_round_trip(name: str):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert Recipe.from_dict(recipe.to_dict()).sha256 == recipe.sha256


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.epochs=0", "training.epochs = 0: expected an integer from 1 to 100000"),
        ("training.epochs=2.5", "training.epochs = 2.5: expected an integer"),
        ("training.epochs=true", "training.epochs = True: expected an integer"),
        ("training.beta_1=nan", "training.beta_1 = nan: expected a number"),
        ("training.lose=1", "training.lose = 1: unknown key; expected loss, "),
        ("training.loss=wasserstein", "training.loss = 'wasserstein': expected one of binary_cross_entropy"),
        ("latent.distribution=cauchy", "expected one of gaussian, uniform"),
        ("generator.filters=[1, 2, 3]", "generator.filters = [1, 2, 3]: expected two widths"),
        ("generator.filters=[1, 'x']", "generator.filters = [1, 'x']: expected a list of integers"),
        ("discriminator.strides=[1]", "discriminator.strides = [1]: expected one for each of the 2 filters"),
        ("conditional=false", "projection_size = 16: expected 0, since conditional = false"),
        ("data=3", "data = 3: expected a section"),
        ("nonsense", "expected KEY=VALUE"),
        ("name=../escaped", "name = '../escaped': expected letters, digits"),
        ("name=/etc", "name = '/etc': expected letters"),
        ("name.x=1", "'name' is a value, not a section"),
    ],
)
def test_a_bad_value_is_refused_in_one_line_that_names_it(override: str, words: str):
    with pytest.raises(RecipeError) as refusal:
        load_recipe("smoke", [override])
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_key_is_named(tmp_path):
    (tmp_path / "r.toml").write_text(builtin_recipes()["smoke"].read_text().replace("size = 16\n", "", 1))
    with pytest.raises(RecipeError, match=r"^r\.toml: latent\.size is missing: expected an integer from 1 to 1024$"):
        load_recipe(str(tmp_path / "r.toml"))


@pytest.mark.parametrize("text", ["name = ", "\x00", "[[[["])
def test_what_is_no_toml_is_refused(tmp_path, text: str):
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(RecipeError, match="not valid TOML"):
        load_recipe(str(tmp_path / "bad.toml"))


def test_an_unknown_recipe_lists_the_known():
    with pytest.raises(RecipeError, match=r"choose one of .*notebook"):
        load_recipe("nowhere")


def test_overrides_take_bare_words_and_change_the_hash():
    uniform = load_recipe("notebook", ["latent.distribution=uniform"])
    assert uniform.latent.distribution == "uniform"
    assert uniform.sha256 != load_recipe("notebook").sha256


def test_the_notebook_recipe_is_the_notebook():
    recipe = load_recipe("notebook")
    assert (recipe.data.images, recipe.data.shuffle_buffer, recipe.training.batch_size) == ("train+test", 1024, 64)
    rates = recipe.training.generator_learning_rate, recipe.training.discriminator_learning_rate
    assert rates == (1e-5, 3e-5)
    assert (recipe.training.beta_1, recipe.training.epochs, recipe.latent.size) == (0.5, 30, 150)
    assert recipe.generator_flops == pytest.approx(179e6, rel=0.01)
    training, discriminator = recipe.training, recipe.discriminator
    assert (training.loss, training.discriminator_steps) == ("binary_cross_entropy", 1)
    assert (training.sample_every_epochs, recipe.latent.distribution) == (2, "gaussian")
    assert (discriminator.dropout, discriminator.dense_units, discriminator.activation) == (0.2, 64, "relu")
    assert not recipe.conditional


def test_the_conditional_recipe_is_cheap_at_export():
    assert load_recipe("conditional").generator_flops <= 15e6


def test_a_recipe_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_recipe("smoke").name = "other"  # type: ignore[misc]


def test_a_recipe_without_a_method_is_adversarial_and_says_so_when_written(tiny_recipe):
    document = tiny_recipe.to_dict()
    assert document.pop("method") == "adversarial"
    assert Recipe.from_dict(document) == tiny_recipe
    with pytest.raises(RecipeError, match="method = 'magic': expected one of adversarial"):
        Recipe.from_dict(document | {"method": "magic"})


def test_a_recipe_is_private_only_where_it_says_so(tiny_recipe):
    document = tiny_recipe.to_dict()
    assert tiny_recipe.privacy is None
    assert "privacy" not in document
    private = Recipe.from_dict(document | {"privacy": {"epsilon": 1}})
    assert (private.privacy.epsilon, private.privacy.delta) == (1.0, 1e-5)
    assert Recipe.from_dict(private.to_dict()) == private


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("privacy.epsilon=-1", "privacy.epsilon = -1.0: expected a number from 0.01 to 50"),
        ("privacy.epsilon=nan", "privacy.epsilon = nan: expected a number from 0.01 to 50"),
        ("privacy.epsilon=true", "privacy.epsilon = True: expected a number"),
        ("privacy.delta=0.01", "privacy.delta = 0.01: expected a number from 1e-12 to 0.001"),
        ("privacy.delta=small", "privacy.delta = 'small': expected a number"),
        ("privacy.dealt=1", "privacy.dealt = 1: unknown key; expected epsilon, delta"),
    ],
)
def test_a_budget_out_of_range_is_refused_like_any_other_value(override: str, words: str):
    with pytest.raises(RecipeError) as refusal:
        load_recipe("private", [override])
    assert words in str(refusal.value)


@pytest.mark.parametrize("name", ["private", "dpgan"])
def test_a_private_recipe_needs_a_budget(name: str):
    recipe = load_recipe(name)
    document = recipe.to_dict()
    del document["privacy"]
    with pytest.raises(RecipeError, match=r"^privacy\.epsilon is missing: expected a number from 0\.01 to 50"):
        Recipe.from_dict(document)
    with pytest.raises(RecipeError, match=r"^privacy = None: expected a section"):
        dataclasses.replace(recipe, privacy=None)


def test_another_budget_takes_the_place_of_the_recipes():
    private = load_recipe("private")
    assert with_budget(private, None, None) is private
    assert with_budget(private, 3, None).privacy == Budget(3.0, private.privacy.delta)
    assert with_budget(private, None, 1e-6).privacy == Budget(private.privacy.epsilon, 1e-6)
    with pytest.raises(RecipeError, match=r"^privacy\.epsilon = 51: expected a number from 0\.01 to 50"):
        with_budget(private, 51, None)
    with pytest.raises(RecipeError, match="recipe 'smoke' trains without privacy"):
        with_budget(load_recipe("smoke"), 1, None)


def test_a_recipe_that_extends_another_says_only_what_differs(tmp_path):
    (tmp_path / "base.toml").write_text('extends = "private"\n[training]\nsteps = 60\n')
    (tmp_path / "own.toml").write_text('extends = "base.toml"\ndescription = "mine"\n[generator]\nfilters = [8, 4]\n')
    own, private = load_recipe(str(tmp_path / "own.toml")), load_recipe("private")
    assert (own.name, own.description) == ("own", "mine")
    assert own.training.steps == 60
    assert own.generator == replace(private.generator, filters=(8, 4))
    assert own.privacy == private.privacy


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('extends = "nobody"', "no recipe 'nobody'"),
        ("extends = 3", "extends = 3: expected a recipe's name or file"),
        ('extends = "own.toml"', "through at most 8"),
        ('extends = "private"\ntraining = 5', "training = 5: expected a section"),
    ],
)
def test_what_cannot_be_extended_is_refused(tmp_path, text: str, words: str):
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(RecipeError, match=words):
        load_recipe(str(tmp_path / "own.toml"))


def test_one_message_names_all_that_is_wrong(tmp_path):
    (tmp_path / "own.toml").write_text(
        'extends = "private"\ncondition = true\n[training]\nsteps = -1\nstep = 3\n[look]\nstudents = "all"\n'
    )
    with pytest.raises(RecipeError) as refused:
        load_recipe(str(tmp_path / "own.toml"))
    for words in ("condition = True: unknown key", "training.steps = -1", "training.step = 3", "look.students = 'all'"):
        assert words in str(refused.value)


def test_the_reference_is_that_of_the_code():
    """``make docs`` writes it."""
    written = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text("utf-8")
    assert written == recipe_reference(), "docs/recipes.md is not of this code: make docs"
    for name in builtin_recipes():
        assert f"`{name}`" in written


def test_another_subject_stands_in_a_recipe_and_decides_its_shapes():
    subject = Subject(name="Parts", class_names=("bolt", "nut", "washer"))
    recipe = replace(load_recipe("private"), subject=subject)
    assert "subject" not in load_recipe("private").to_dict()
    assert recipe.to_dict()["subject"] == {"name": "Parts", "class_names": ["bolt", "nut", "washer"]}
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert recipe.sha256 != load_recipe("private").sha256
    assert (recipe.classes, recipe.shape.classes) == (3, 3)
    assert recipe.balanced_labels(4).tolist() == [0, 1, 2, 0]
    for wrong in ({"name": "Parts"}, {"name": "", "class_names": ["a", "b"]}, {"name": "x", "class_names": ["a"]}):
        with pytest.raises(RecipeError, match="subject"):
            Recipe.from_dict({**recipe.to_dict(), "subject": wrong})
