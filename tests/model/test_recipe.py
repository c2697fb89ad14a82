import dataclasses

import pytest

from synthgen.errors import RecipeError
from synthgen.model.recipe import Recipe, builtin_recipes, load_recipe, with_budget
from synthgen.privacy.accounting import Budget


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
