import numpy as np
import pytest

from synthgen.model.networks import build_discriminator, build_generator
from synthgen.model.recipe import Recipe, load_recipe


def test_the_notebooks_networks_have_its_parameter_counts():
    recipe = load_recipe("notebook")
    assert build_generator(recipe).count_params() == 2_780_417
    assert build_discriminator(recipe).count_params() == 699_137


@pytest.mark.parametrize("name", ["notebook", "conditional", "smoke"])
def test_shapes_and_ranges(name: str):
    recipe = load_recipe(name)
    generator, discriminator = build_generator(recipe), build_discriminator(recipe)
    noise, classes = np.zeros((3, recipe.latent.size), np.float32), np.eye(10, dtype=np.float32)[:3]
    images = generator([noise, classes] if recipe.conditional else noise).numpy()
    assert images.shape == (3, 28, 28, 1)
    assert 0 <= images.min() <= images.max() <= 1
    assert discriminator([images, classes] if recipe.conditional else images).shape == (3, 1)


def test_the_stated_cost_is_the_measured_one(tiny_recipe: Recipe):
    """``generator_flops`` against TensorFlow's own count of the traced graph's multiply-adds."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    for recipe in (load_recipe("notebook"), load_recipe("conditional"), tiny_recipe):
        generator = build_generator(recipe)
        specs = [tf.TensorSpec((1, *shape[1:])) for shape in _input_shapes(generator)]
        function = tf.function(lambda *inputs, g=generator: g(list(inputs) if len(inputs) > 1 else inputs[0]))
        graph = convert_variables_to_constants_v2(function.get_concrete_function(*specs)).graph
        options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
        options["output"] = "none"
        counted = tf.compat.v1.profiler.profile(graph, options=options).total_float_ops
        assert recipe.generator_flops == pytest.approx(counted, rel=0.05)


def _input_shapes(generator) -> list[tuple[int | None, ...]]:
    shape = generator.input_shape
    return shape if isinstance(shape, list) else [shape]
