"""Rounding to integers: near the real generator where it can be, one line where not, and never a silent NaN."""

import contextlib
import inspect
import warnings
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import pytest

from synthgen.errors import CheckpointError
from synthgen.model.checkpoint import keras_arrays, rounded, save_checkpoint
from synthgen.model.recipe import Recipe, load_recipe
from synthgen.pixels.drawing import FloatBackend, NumpyBackend
from synthgen.pixels.folded import fold
from synthgen.pixels.integers import SUM_LIMIT, WEIGHT_LIMIT, IntegerGenerator
from synthgen.pixels.latents import latents
from synthgen.pixels.quantise import quantise
from synthgen.pixels.tables import LATENT_SCALES
from synthgen.privacy.statement import no_guarantee

Arrays = dict[str, np.ndarray]
SIZES = ["latent.size=8", "generator.stem_filters=5", "generator.filters=[6, 3]"]
DENSE, FIRST, SECOND, LAST = "/layers/dense", *(f"/layers/conv2d_transpose{n}" for n in ("", "_1", "_2"))
NORM = "/layers/batch_normalization"


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("conditional", SIZES)


@pytest.fixture(autouse=True)
def fewer_pixels(monkeypatch):
    """The rounding looks at a tenth of the pixels that it looks at after a training, and takes as much less time."""
    monkeypatch.setattr("synthgen.pixels.quantise._ROWS", 500)
    monkeypatch.setattr("synthgen.model.checkpoint._CALIBRATION_BLOCKS", 1)


def random_arrays(recipe: Recipe, seed: int = 1) -> Arrays:
    """Weights as training might leave them, batch norm's statistics included."""
    shape, random, arrays = recipe.shape, np.random.default_rng(seed), {}

    def norm(number: int, channels: int) -> None:
        name = f"{NORM}{f'_{number}' if number else ''}/vars/"
        for variable in range(3):
            arrays[f"{name}{variable}"] = random.normal(variable == 0, 0.3, channels)
        arrays[f"{name}3"] = random.uniform(0.3, 2, channels)

    width = shape.widths[0]
    inputs = shape.latent_size + shape.classes
    arrays[f"{DENSE}/vars/0"] = random.normal(0, inputs**-0.5, (inputs, 49 * width))
    if shape.batch_norm:
        norm(0, width)
    else:
        arrays[f"{DENSE}/vars/1"] = random.normal(0, 0.3, 49 * width)
    for number, (layer, filters) in enumerate(zip((FIRST, SECOND, LAST), (*shape.widths[1:], 1), strict=True)):
        size = 3 if layer == LAST else shape.kernel_size
        arrays[f"{layer}/vars/0"] = random.normal(0, 2 / size * width**-0.5, (size, size, filters, width))
        if layer == LAST or not shape.batch_norm:
            arrays[f"{layer}/vars/1"] = random.normal(0, 0.3, filters)
        else:
            norm(number + 1, filters)
        width = filters
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def strictly_rounded(recipe: Recipe, arrays: Arrays) -> IntegerGenerator:
    """Where numpy would warn of NaN or infinity, this raises."""
    with warnings.catch_warnings(), np.errstate(over="raise", invalid="raise", divide="raise"):
        warnings.simplefilter("error")
        generator = rounded(recipe, arrays)
    for layer in generator.layers:
        assert np.abs(layer.weights.astype(int)).max() <= WEIGHT_LIMIT
        assert np.abs(layer.bias.astype(int)).max() < SUM_LIMIT
    return generator


def mean_error(recipe: Recipe, arrays: Arrays, generator: IntegerGenerator) -> float:
    """Between the pixels of both, on images that the rounding did not look at."""
    noise = latents(3, 0, recipe.latent.size, recipe.latent.distribution)
    labels = (np.arange(len(noise)) % 10).astype(np.uint8) if recipe.conditional else None
    real = noise / np.float32(LATENT_SCALES[recipe.latent.distribution])
    expected = FloatBackend(fold(recipe.shape, arrays))(real, labels)
    return float(np.abs(expected.astype(int) - NumpyBackend(generator)(noise, labels)).mean())


@pytest.mark.parametrize("kernel", range(1, 8))
@pytest.mark.parametrize("norm", [True, False])
def test_rounding_changes_a_random_generators_images_little(kernel: int, norm: bool):
    name = "conditional" if kernel % 2 else "notebook"  # the latter is unconditional
    distribution = "uniform" if kernel > 4 else "gaussian"
    more = [f"generator.kernel_size={kernel}", f"generator.batch_norm={str(norm).lower()}"]
    recipe = load_recipe(name, [*SIZES, *more, f"latent.distribution={distribution}"])
    arrays = random_arrays(recipe)
    generator = strictly_rounded(recipe, arrays)
    assert mean_error(recipe, arrays, generator) < 2.5  # grey levels, of a picture of noise
    other = random_arrays(recipe, seed=2)
    assert mean_error(recipe, other, generator) > 20  # the measure sees a difference


@pytest.mark.skipif(not find_spec("tensorflow"), reason="needs TensorFlow")
def test_a_new_keras_generator_is_rounded_as_its_arrays_are(recipe, tmp_path):
    import keras

    from synthgen.model.networks import build_generator

    keras.utils.set_random_seed(1)
    model = build_generator(recipe)
    generator = rounded(recipe, keras_arrays(model))
    assert mean_error(recipe, keras_arrays(model), generator) < 1
    saved = save_checkpoint(tmp_path, model, recipe, no_guarantee("nothing: untrained"), {})
    assert {name: array.tolist() for name, array in saved.integers().arrays().items()} == {
        name: array.tolist() for name, array in generator.arrays().items()
    }


def test_the_same_weights_give_the_same_integers_twice(recipe):
    first, second = (rounded(recipe, random_arrays(recipe)).arrays() for _ in range(2))
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array, strict=True)


def test_only_weights_and_own_latents_are_looked_at(recipe, monkeypatch):
    """No data can reach the rounding: it has no argument for them, and opens nothing."""
    assert list(inspect.signature(quantise).parameters) == ["folded", "latents", "labels", "latent_scale"]
    assert list(inspect.signature(rounded).parameters) == ["recipe", "arrays"]
    arrays = random_arrays(recipe)

    def refused(*arguments: object, **options: object) -> None:
        raise AssertionError(f"opened {arguments}")

    for name in ("builtins.open", "io.open", "os.open", "h5py.File", "numpy.load"):
        monkeypatch.setattr(name, refused)
    rounded(recipe, arrays)


@pytest.mark.parametrize("width", [1, pytest.param(64, marks=pytest.mark.slow)])
def test_narrow_and_wide_generators_are_rounded(width: int):
    sizes = ["latent.size=64", f"generator.stem_filters={width}", f"generator.filters=[{width}, {width}]"]
    recipe = load_recipe("conditional", sizes)
    arrays = random_arrays(recipe)
    assert mean_error(recipe, arrays, strictly_rounded(recipe, arrays)) < 2.5


def times(layer: str, factor: float) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        with np.errstate(over="ignore", under="ignore"):
            arrays[f"{layer}/vars/0"] *= np.float32(factor)

    return change


def value(name: str, number: float, place: object = ...) -> Callable[[Arrays], None]:
    return lambda arrays: arrays[name].__setitem__(place, number)


def everything(number: float) -> Callable[[Arrays], None]:
    return lambda arrays: [array.fill(number) for array in arrays.values()]


ROUNDED = {
    "all zero": (everything(0), 1.01),  # grey 127.5 is rounded to even there, and up here
    "no latent matters": (times(DENSE, 0), 2.5),
    "tiny latents": (times(DENSE, 1e-8), 2.5),
    "the first kernel is zero": (times(FIRST, 0), 2.5),
    "tiny first kernel": (times(FIRST, 1e-30), 2.5),
    "tiny second kernel": (times(SECOND, 1e-44), 2.5),
    "the last kernel is zero": (times(LAST, 0), 2.5),
    "a dead channel that is made": (value(f"{FIRST}/vars/0", 0, (..., 0, slice(None))), 2.5),
    "a dead channel that is taken": (value(f"{SECOND}/vars/0", 0, (..., 0)), 2.5),
    "a channel that batch norm ends": (value(f"{NORM}/vars/0", 0, 0), 2.5),
    "a variance of 0": (value(f"{NORM}_1/vars/3", 0, 0), 8),
    "variances of 0": (value(f"{NORM}_1/vars/3", 0), 8),
    "a huge variance": (value(f"{NORM}/vars/3", 1e37, 0), 2.5),
    "all white": (value(f"{LAST}/vars/1", 1000), 0),
    "all black": (value(f"{LAST}/vars/1", -1000), 0),
    # Nearly every pixel is black or white, by a logit of thousands.
    "huge latents": (times(DENSE, 1e6), 20),
    "huge first kernel": (times(FIRST, 1e4), 20),
    "huge second kernel": (times(SECOND, 1e4), 20),
    "huge last kernel": (times(LAST, 1e6), 20),
}


@pytest.mark.parametrize("kind", ROUNDED)
def test_odd_weights_are_rounded_sanely(recipe, kind: str):
    change, limit = ROUNDED[kind]
    arrays = random_arrays(recipe)
    change(arrays)
    assert mean_error(recipe, arrays, strictly_rounded(recipe, arrays)) <= limit


REFUSED = {
    "nan": (value(f"{SECOND}/vars/0", np.nan, (0, 0, 0, 0)), "no finite numbers"),
    "infinity": (value(f"{NORM}/vars/1", np.inf, 0), "no finite numbers"),
    "a negative variance": (value(f"{NORM}/vars/3", -1, 0), "a variance is negative"),
    "a variance that is nan": (value(f"{NORM}/vars/3", np.nan, 0), "a variance is negative or no number"),
    "numbers that overflow": (times(DENSE, 1e38), "so large that they draw no numbers"),
    "all huge": (everything(1e9), "large"),
    "a logit of millions": (value(f"{LAST}/vars/1", 1e6), "no scale serves them"),
    "a logit of minus millions": (value(f"{LAST}/vars/1", -1e30), "no scale serves them"),
    "another shape": (lambda arrays: arrays.update({f"{DENSE}/vars/0": np.zeros((3, 3))}), "has shape"),
    "a missing array": (lambda arrays: arrays.pop(f"{LAST}/vars/1"), "is missing"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_weights_that_cannot_be_rounded_are_refused_in_one_line(recipe, kind: str):
    change, words = REFUSED[kind]
    arrays = random_arrays(recipe)
    change(arrays)
    with pytest.raises(CheckpointError, match=f"^the generator cannot be rounded to integers: .*{words}") as refusal:
        strictly_rounded(recipe, arrays)
    assert "\n" not in str(refusal.value)


MAYBE = [(name, size, place) for name in ("0", "1", "2") for size in (1e6, -1e6, 1e20, 1e37) for place in (0, ...)]


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["", "_1", "_2"])
@pytest.mark.parametrize(("variable", "size", "place"), MAYBE, ids=str)
def test_a_huge_batch_norm_is_rounded_sanely_or_refused(recipe, layer: str, variable: str, size: float, place: object):
    arrays = random_arrays(recipe)
    value(f"{NORM}{layer}/vars/{variable}", size, place)(arrays)
    with contextlib.suppress(CheckpointError):
        assert mean_error(recipe, arrays, strictly_rounded(recipe, arrays)) < 40
