"""Integer generators at the edges of their bounds: drawn exactly by every backend, or refused in one line."""

import json
import math
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_generators import SMALL, random_generator, shape, small_generator

from synthgen.errors import CheckpointError, UsageError
from synthgen.model.checkpoint import identity_of, load_checkpoint, save_integers, weights_sha256
from synthgen.model.recipe import load_recipe
from synthgen.pixels.backends import open_backend
from synthgen.pixels.folded import Shape
from synthgen.pixels.integers import SUM_LIMIT, WEIGHT_LIMIT, IntegerGenerator, Layer, leaky, stage_sums
from synthgen.privacy.statement import no_guarantee

BACKENDS = [name for name in ("numpy", "onnxruntime", "tensorflow") if find_spec(name)]
QUICK = [name for name in BACKENDS if name != "tensorflow"]  # to start, and to make a generator ready
GREY = np.array([math.floor(255 / (1 + math.exp(-n / 128)) + 0.5) for n in range(-1024, 1024)], np.uint8)


# What docs/pixels.md says, in 64-bit integers, pixel by pixel and as slowly as that is.


def halved(sums: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Divided by a power of two, and rounded half to even."""
    shift = shift.astype(np.int64)
    whole, rest, half = sums >> shift, sums & ((1 << shift) - 1), (1 << shift) >> 1
    up = (rest > half) | ((rest == half) & (whole % 2 == 1))
    return whole + np.where(shift > 0, up, False)


def settled(sums: np.ndarray, layer: Layer) -> np.ndarray:
    n = np.clip(halved(sums, layer.shift), layer.low, layer.low + 255)
    return np.where(n < 0, -((-2 * n + 5) // 10), n) if layer.activates else n


def expected(generator: IntegerGenerator, latents: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    latents, dense = latents.astype(np.int64), generator.dense
    labels = np.zeros(len(latents), int) if labels is None else labels
    sums = dense.bias.astype(np.int64)[labels] + np.einsum("nj,jpf->npf", latents, dense.weights.astype(np.int64))
    hidden = settled(sums, dense).reshape(len(latents), 7, 7, -1)
    for layer in generator.stages:
        size, side = len(layer.weights), hidden.shape[1]
        before = max(size - 2, 0) // 2
        sums = np.zeros((len(latents), 2 * side, 2 * side, layer.weights.shape[2]), np.int64) + layer.bias
        for v, w, a, b in np.ndindex(side, side, size, size):
            y, x = 2 * v + a - before, 2 * w + b - before
            if 0 <= y < 2 * side and 0 <= x < 2 * side:
                sums[:, y, x] += hidden[:, v, w] @ layer.weights[a, b].astype(np.int64).T
        hidden = settled(sums, layer)
    sums = np.zeros((len(latents), 28, 28), np.int64) + generator.last.bias
    for part, values in zip(generator.last.weights.astype(np.int64), (hidden, np.maximum(hidden, 0)), strict=True):
        framed = np.pad(values, ((0, 0), (1, 1), (1, 1), (0, 0)))
        for a, b in np.ndindex(3, 3):  # v = y + 1 - a
            sums += framed[:, 2 - a : 30 - a, 2 - b : 30 - b] @ part[a, b]
    return GREY[np.clip(halved(sums, generator.last.shift), -1024, 1023) + 1024]


def expect_exact(generator: IntegerGenerator, latents: np.ndarray, backends=QUICK) -> np.ndarray:
    """Draw with every backend, compare each pixel with the 64-bit integers, return the images."""
    labels = (np.arange(len(latents)) % 10).astype(np.uint8) if generator.classes > 1 else None
    wanted = expected(generator, latents, labels)
    for backend in backends:
        np.testing.assert_array_equal(open_backend(generator, backend)(latents, labels), wanted, err_msg=backend)
    return wanted


def latents_at_the_edge(size: int, seed: int = 0) -> np.ndarray:
    """All largest, all smallest, all zero, alternating, and random ones."""
    signs = np.where(np.arange(size) % 2, 1, -1)
    rows = [np.full(size, 127), np.full(size, -127), np.zeros(size), 127 * signs, -127 * signs]
    drawn = np.random.Generator(np.random.Philox(seed)).integers(-127, 128, (4, size))
    return np.concatenate([rows, drawn]).astype(np.int8)


def layer_with(layer: Layer, **values: object) -> Layer:
    """The layer with arrays of one value: ``weights=64``, or of other values of the same shape."""
    arrays = {
        name: np.full_like(getattr(layer, name), value) if name != "low" else value for name, value in values.items()
    }
    return replace(layer, **arrays)


def made(wanted: Shape, *, every: dict[str, object] | None = None, **layers: dict[str, object]) -> IntegerGenerator:
    """A random generator, some of whose arrays are of one value: of ``every`` layer, or of ``dense``, …, ``last``."""
    names, start = ("dense", "first", "second", "last"), random_generator(wanted, 1)
    dense, first, second, last = (
        layer_with(layer, **(every or {}), **layers.get(name, {}))
        for name, layer in zip(names, start.layers, strict=True)
    )
    return IntegerGenerator(dense=dense, stages=(first, second), last=last)


TINY = shape(4, (2, 3, 2), 5)
ODD = shape(5, (3, 1, 2), 4, classes=0, norm=False)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(
    kernel=st.integers(1, 7),
    widths=st.tuples(*[st.integers(1, 5)] * 3),
    latents=st.integers(1, 9),
    classes=st.sampled_from([0, 10]),
    norm=st.booleans(),
    seed=st.integers(0, 1 << 32),
)
def test_any_generator_is_drawn_as_64_bit_integers_draw_it(kernel, widths, latents, classes, norm, seed):
    wanted = shape(kernel, widths, latents, classes=classes, norm=norm)
    expect_exact(random_generator(wanted, seed), latents_at_the_edge(latents, seed))


@pytest.mark.parametrize("name", SMALL)
def test_tensorflow_draws_the_same(name: str):
    if "tensorflow" not in BACKENDS:
        pytest.skip("needs TensorFlow")
    expect_exact(small_generator(name), latents_at_the_edge(SMALL[name][0].latent_size), ["tensorflow"])


EXTREMES = {
    "all weights 64": {"every": {"weights": 64}},
    "all weights -64": {"every": {"weights": -64}},
    "activations from 0 up": {"every": {"weights": 64, "low": 0}},
    "activations from -255 up": {"every": {"weights": -64, "low": -255}},
    "no division": {"every": {"shift": 0}},
    "no division, large weights": {"every": {"shift": 0, "weights": 64, "low": 0}},
    "divided to nothing": {"every": {"shift": 30}},
    "all activations largest": {"dense": {"bias": SUM_LIMIT - 300_000, "shift": 0, "low": 0}},
    "all activations smallest": {"dense": {"bias": 300_000 - SUM_LIMIT, "shift": 0, "low": -255}},
    "largest, then 64": {
        "dense": {"bias": 1 << 20, "shift": 0, "low": 0, "weights": 0},
        "first": {"weights": 64, "shift": 0, "low": 0, "bias": 0},
        "second": {"weights": 64, "shift": 0, "low": 0, "bias": 0},
        "last": {"weights": 64, "shift": 6, "bias": -200_000},
    },
    "largest, then -64": {
        "dense": {"bias": 1 << 20, "shift": 0, "low": 0, "weights": 0},
        "first": {"weights": -64, "shift": 9, "low": -255, "bias": 0},
        "second": {"weights": -64, "shift": 9, "low": -255, "bias": 0},
        "last": {"weights": -64, "shift": 5, "bias": 0},
    },
    "all zero": {"every": {"weights": 0, "bias": 0, "shift": 0, "low": 0}},
}


@pytest.mark.parametrize("wanted", [TINY, ODD], ids=["4×4, labels", "5×5, no labels"])
@pytest.mark.parametrize("extreme", EXTREMES)
def test_extremes_are_drawn_exactly(extreme: str, wanted: Shape):
    expect_exact(made(wanted, **EXTREMES[extreme]), latents_at_the_edge(wanted.latent_size))


@pytest.mark.parametrize("extreme", EXTREMES)
def test_tensorflow_draws_extremes_exactly(extreme: str):
    if "tensorflow" not in BACKENDS:
        pytest.skip("needs TensorFlow")
    expect_exact(made(TINY, **EXTREMES[extreme]), latents_at_the_edge(TINY.latent_size), ["tensorflow"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_halves_are_rounded_to_even(backend: str):
    """Every activation is half of an odd number, or a quarter off it; so is every logit."""
    generator = made(
        shape(2, (1, 1, 1), 1, classes=0),
        dense={"weights": 1, "bias": 0, "shift": 1, "low": -100},
        first={"weights": 2, "bias": 0, "shift": 2, "low": -100},
        second={"weights": 3, "bias": 0, "shift": 1, "low": -128},
        last={"weights": 1, "bias": 1, "shift": 1},
    )
    latents = np.arange(-127, 128).astype(np.int8)[:, None]
    images = expect_exact(generator, latents, [backend])
    assert len(np.unique(images)) > 50
    ties = [2 * n + 1 for n in range(-60, 60)]
    assert [round(n / 2) for n in ties] == halved(np.array(ties), np.array(1)).tolist()  # Python rounds to even too


@pytest.mark.parametrize("backend", BACKENDS)
def test_sums_just_below_the_limit_are_exact(backend: str):
    """2^24 - 1 is odd: what rounds it, even once on the way, gives another logit or activation."""
    size, limit = 1, SUM_LIMIT - 1
    for sign in (1, -1):
        generator = made(
            shape(4, (1, 1, 1), size, classes=0),
            dense={"weights": sign * 64, "bias": sign * (limit - 64 * 127), "shift": 16, "low": -128},
            first={"weights": 0, "bias": sign * limit, "shift": 17, "low": -128},  # 127.99999 → 128
            second={"weights": 0, "bias": sign * (limit - (1 << 16)), "shift": 17, "low": -128},  # 127.49999 → 127
            last={"weights": 0, "bias": sign * limit, "shift": 14},  # 1023.9999
        )
        expect_exact(generator, latents_at_the_edge(size), [backend])
    generator = made(
        shape(2, (1, 1, 1), 1, classes=0),
        dense={"weights": 0, "bias": 255, "shift": 0, "low": 0},
        first={"weights": 0, "bias": 255, "shift": 0, "low": 0},
        second={"weights": 0, "bias": 255, "shift": 0, "low": 0},
        last={"weights": 64, "bias": limit - 2 * 9 * 64 * 255, "shift": 14},  # whole only where nothing is cut off
    )
    expect_exact(generator, latents_at_the_edge(1), [backend])


def limits(start: IntegerGenerator) -> dict[str, int]:
    """Layer → the largest bias with which its sums stay below 2^24, by the documentation."""
    dense, first, second, last = start.layers
    sums = np.abs(dense.weights.astype(int)).sum(0).max() * 127
    steps = stage_sums(first.weights).max() * max(-leaky(dense.low), dense.low + 255)
    more = stage_sums(second.weights).max() * max(-leaky(first.low), first.low + 255)
    plain, positive = np.abs(last.weights.astype(int)).sum((1, 2, 3))
    final = plain * max(-second.low, second.low + 255) + positive * (second.low + 255)
    return {
        name: SUM_LIMIT - 1 - int(found)
        for name, found in (("dense", sums), ("stage_1", steps), ("stage_2", more), ("image", final))
    }


def with_bias(generator: IntegerGenerator, name: str, bias: int) -> IntegerGenerator:
    arrays = generator.arrays()
    arrays[f"/{name}/bias"] = np.full_like(arrays[f"/{name}/bias"], bias)
    return IntegerGenerator.from_arrays(TINY, arrays)


@pytest.mark.parametrize("name", ["dense", "stage_1", "stage_2", "image"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("low", [-255, -100, 0])
def test_the_limit_of_sums_is_exact(name: str, sign: int, low: int):
    generator = made(TINY, every={"low": low})
    largest = limits(generator)[name]
    expect_exact(with_bias(generator, name, sign * largest), latents_at_the_edge(TINY.latent_size))
    with pytest.raises(ValueError, match=rf"'/{name}' could add up to 16,777,216, which is not below 2\^24"):
        with_bias(generator, name, sign * (largest + 1))


@pytest.mark.parametrize("kernel", range(1, 8))
def test_the_limit_counts_every_product_of_an_output_once(kernel: int):
    """Found by adding up where each weight goes, as docs/pixels.md has it."""
    weights = random_generator(shape(kernel, (2, 3, 1), 1), 5).stages[0].weights
    sums, before = np.zeros((8, 8, 3), int), max(kernel - 2, 0) // 2
    for v, w, a, b in np.ndindex(4, 4, kernel, kernel):
        y, x = 2 * v + a - before, 2 * w + b - before
        if 0 <= y < 8 and 0 <= x < 8:
            sums[y, x] += np.abs(weights[a, b].astype(int)).sum(1)
    assert stage_sums(weights).tolist() == sums.max((0, 1)).tolist()


def test_the_limit_of_weights_keeps_two_products_within_16_bits():
    """Some processors add two products of an unsigned byte and a weight in 16 bits, and cut off what passes them."""
    assert 2 * 255 * WEIGHT_LIMIT < 1 << 15 <= 2 * 255 * (WEIGHT_LIMIT + 1)


def test_a_leaky_relu_of_integers_has_no_ties():
    assert [leaky(n) for n in range(-255, 256)] == [n if n >= 0 else round(n / 5) for n in range(-255, 256)]
    for factor in (np.float32(0.2), np.float64(0.2)):
        assert np.rint(np.arange(-255, 0).astype(factor.dtype) * factor).tolist() == [leaky(n) for n in range(-255, 0)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("latents", "labels", "words"),
    [
        (np.full((2, 5), -128, np.int8), np.zeros(2, np.uint8), "latents down to -128: expected -127 to 127"),
        (np.full((2, 5), 128, np.int16), np.zeros(2, np.uint8), "latents"),
        (np.zeros((2, 5), np.float32), np.zeros(2, np.uint8), "latents"),
        (np.zeros((2, 5), np.int64), np.zeros(2, np.uint8), "latents"),
        (np.zeros((2, 4), np.int8), np.zeros(2, np.uint8), r"latents of shape \(2, 4\)"),
        (np.zeros(5, np.int8), np.zeros(5, np.uint8), r"latents of shape \(5,\)"),
        (np.zeros((2, 5), np.int8), None, "labels missing"),
        (np.zeros((2, 5), np.int8), np.zeros(3, np.uint8), r"labels of shape \(3,\)"),
        (np.zeros((2, 5), np.int8), np.full(2, 10, np.uint8), "labels from 10 to 10"),
        (np.zeros((2, 5), np.int8), np.zeros(2, np.float32), "labels"),
        (np.zeros((2, 5), np.int8), np.zeros(2, np.int64), "labels"),
    ],
)
def test_other_inputs_are_refused_alike_by_every_backend(backend: str, latents, labels, words: str):
    with pytest.raises(UsageError, match=words) as refusal:
        open_backend(random_generator(TINY, 1), backend)(latents, labels)
    assert "\n" not in str(refusal.value)


# Checkpoints whose hash is right, but whose integers are a stranger's.


@pytest.fixture(scope="module")
def recipe():
    sizes = ["generator.stem_filters=2", "generator.filters=[3, 2]", "latent.size=5"]
    return load_recipe("smoke", sizes)


@pytest.fixture
def forged(recipe, tmp_path):
    """A checkpoint's folder with other arrays under a hash that is right: ``forged({"/dense/low": array or None})``."""

    def write(changes: dict[str, np.ndarray | None]) -> Path:
        folder = tmp_path / "forged"
        save_integers(folder, random_generator(recipe.shape, 1), recipe, no_guarantee("nothing: untrained"), {})
        with h5py.File(folder / "generator.h5", "r+") as file:
            for name, array in changes.items():
                if name in file:
                    del file[name]
                if array is not None:
                    file[name] = array
        document = json.loads((folder / "checkpoint.json").read_text())
        identified = identity_of(document["recipe"], document["privacy"])
        document["sha256"] = weights_sha256(folder / "generator.h5", identified)
        (folder / "checkpoint.json").write_text(json.dumps(document))
        return folder

    return write


def one(kind: str, *size: int, value: float = 1) -> np.ndarray:
    return np.full(size, value, kind)


HOSTILE = {
    "an array is missing": ({"/stage_1/bias": None}, "'/stage_1/bias' is missing"),
    "an array too many": ({"/stage_3/bias": one("i4", 3)}, "'/stage_3/bias' belongs to no layer"),
    "a limit of the last layer": ({"/image/low": one("i2", 1)}, "'/image/low' belongs to no layer"),
    "a name that plays tricks": ({"/x\x1b[2J\ny": one("i4", 3)}, r"belongs to no layer"),
    "floats": ({"/image/weights": one("f4", 2, 3, 3, 2, value=np.nan)}, "'/image/weights' is float32"),
    "doubles": ({"/dense/bias": one("f8", 10, 49, 2, value=np.inf)}, "'/dense/bias' is float64"),
    "wide weights": ({"/image/weights": one("i8", 2, 3, 3, 2)}, "'/image/weights' is int64"),
    "unsigned limits": ({"/dense/low": one("u2", 1)}, "'/dense/low' is uint16"),
    "a signed shift": ({"/image/shift": one("i1", 1, value=-1)}, "'/image/shift' is int8"),
    "the other byte order": ({"/stage_1/bias": one(">i4", 3)}, "'/stage_1/bias' is >i4"),
    "another shape": ({"/stage_1/bias": one("i4", 4)}, r"'/stage_1/bias' is int32 of shape \(4,\)"),
    "as many in another shape": ({"/stage_1/bias": one("i4", 3, 1)}, r"of shape \(3, 1\)"),
    "a scalar": ({"/dense/low": one("i2")}, r"of shape \(\)"),
    "nothing": ({"/dense/low": one("i2", 0)}, r"of shape \(0,\)"),
    "a weight of -128": ({"/image/weights": one("i1", 2, 3, 3, 2, value=-128)}, "'/image/weights' passes ±64"),
    "a weight of 65": ({"/stage_2/weights": one("i1", 4, 4, 2, 3, value=65)}, "'/stage_2/weights' passes ±64"),
    "a shift of 31": ({"/stage_1/shift": one("u1", 3, value=31)}, "'/stage_1/shift' holds 31; expected 0 to 30"),
    "a shift of 255": ({"/image/shift": one("u1", 1, value=255)}, "'/image/shift' holds 255"),
    "a limit above 0": ({"/dense/low": one("i2", 1, value=1)}, "'/dense/low' is 1; expected -255 to 0"),
    "a limit below": ({"/stage_2/low": one("i2", 1, value=-256)}, "'/stage_2/low' is -256; expected -255 to 0"),
    "the lowest limit": ({"/stage_2/low": one("i2", 1, value=-32768)}, "'/stage_2/low' is -32768"),
    "a huge bias": ({"/image/bias": one("i4", 1, value=1 << 24)}, "'/image' could add up to 16,"),
    "the lowest bias": ({"/image/bias": one("i4", 1, value=-(1 << 31))}, "'/image' could add up to 2,147,"),
    "a huge bias of one class": (
        {"/dense/bias": np.eye(980, dtype="i4")[0].reshape(10, 49, 2) * ((1 << 31) - 1)},
        "'/dense' could add up to 2,147,",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_integers_are_refused_in_one_line(forged, kind: str):
    changes, words = HOSTILE[kind]
    with pytest.raises(CheckpointError, match=words) as refusal:
        load_checkpoint(forged(changes))
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("kind", ["an array is missing", "floats", "a huge bias", "a name that plays tricks"])
@pytest.mark.parametrize("command", ["info", "export"])
def test_the_command_line_says_so(synthgen, forged, kind: str, command: str):
    folder = forged(HOSTILE[kind][0])
    arguments = [folder] if command == "info" else ["--checkpoint", folder, "--allow-unprotected", "--count", 10]
    result = synthgen(command, *arguments)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert "generator.h5: " in result.stderr


def test_the_forger_of_these_tests_forges_nothing_by_itself(forged):
    assert load_checkpoint(forged({})).exact


def test_integers_survive_the_disk(recipe, tmp_path):
    generator = random_generator(recipe.shape, 1)
    saved = save_integers(tmp_path, generator, recipe, no_guarantee("nothing: untrained"), {}).integers()
    assert [layer.activates for layer in saved.layers] == [layer.activates for layer in generator.layers]
    assert [layer.low for layer in saved.layers] == [layer.low for layer in generator.layers]
    for name, array in generator.arrays().items():
        np.testing.assert_array_equal(saved.arrays()[name], array, strict=True)
