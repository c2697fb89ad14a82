"""A second implementation of docs/pixels.md, in 64-bit integers, that shares no code with the program.

It was written from that page alone, and is plain rather than fast: about a hundred images a second.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count as counted
from itertools import islice
from pathlib import Path
from statistics import NormalDist

import h5py
import numpy as np
import numpy.typing as npt

BLOCK = 256
LATENTS, LABELS = 0, 1
WORD = 2**64 - 1
EXACT = 2**24

Integers = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Rule = str | Sequence[int]


# 1. Random words


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x64-10."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        a, b = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (b >> 64) ^ c1 ^ k0, b & WORD, (a >> 64) ^ c3 ^ k1, a & WORD
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & WORD, (k1 + 0xBB67AE8584CAA73B) & WORD
    return c0, c1, c2, c3


def words(seed: int, block: int, stream: int) -> Iterator[int]:
    """The words of a stream of a block, without end."""
    for n in counted(1):
        yield from philox((n, stream, 0, 0), (seed, block))


def parts(seed: int, block: int, stream: int, bits: int) -> Iterator[int]:
    """The words cut into parts of so many bits, the least significant first."""
    for word in words(seed, block, stream):
        for low in range(0, 64, bits):
            yield word >> low & 2**bits - 1


# 2. Latents


@cache
def gaussian() -> Integers:
    """The table G."""
    quantile = NormalDist().inv_cdf
    values = [min(max(round(32 * quantile((w + 0.5) / 65536)), -127), 127) for w in range(65536)]
    return checked(np.array(values, np.int8), "81503143e301da3555e9fb644b0bec8beddfbbdbec8dd0bd77430be89ee5ff67")


def checked(table: npt.NDArray[np.integer], sha256: str) -> Integers:
    """The table as 64-bit integers, once its bytes have this SHA-256."""
    assert hashlib.sha256(table.tobytes()).hexdigest() == sha256
    return table.astype(np.int64)


def latents(seed: int, block: int, size: int, distribution: str) -> Integers:
    """The (256, size) latents of a block."""
    numbers = np.array(list(islice(parts(seed, block, LATENTS, 16), BLOCK * size)), np.int64).reshape(BLOCK, size)
    assert distribution in ("gaussian", "uniform")
    return gaussian()[numbers] if distribution == "gaussian" else numbers // 512


# 3. Labels


def labels(seed: int, block: int, rule: Rule) -> Bytes:
    """The 256 labels of a block; a rule is "balanced", "uniform", "shares=…", or a list of classes."""
    classes = range(10) if isinstance(rule, str) else rule
    m = len(classes)
    shares = [int(a) for a in rule[7:].split(",")] if isinstance(rule, str) and rule.startswith("shares=") else None
    if shares is not None:
        m = sum(shares)
        classes = [k for k, a in enumerate(shares) for _ in range(a)]
    if rule == "uniform" or shares is not None:
        halves = (half * m for half in parts(seed, block, LABELS, 32))
        taken = (product >> 32 for product in halves if product % 2**32 >= 2**32 % m)
        places: Sequence[int] = list(islice(taken, BLOCK))
    else:
        assert rule == "balanced" or not isinstance(rule, str)
        places = [i % m for i in range(block * BLOCK, (block + 1) * BLOCK)]
    return np.array([classes[place] for place in places], np.uint8)


# 4. The generator's integers


@dataclass(frozen=True)
class Layer:
    """The integers of a layer; the last one, which does not settle, has no ``low`` in the file."""

    weights: Integers
    bias: Integers
    shift: Integers
    low: int

    @classmethod
    def read(
        cls, group: h5py.Group, weights: tuple[int, ...], bias: tuple[int, ...], shift: tuple[int, ...]
    ) -> "Layer":
        """Read a layer whose arrays must have these shapes, and check what holds of each array alone."""
        expected = {"weights": ("int8", weights), "bias": ("int32", bias), "shift": ("uint8", shift)}
        if group.name != "/image":
            expected["low"] = ("int16", (1,))
        assert {name: (array.dtype, array.shape) for name, array in group.items()} == expected
        arrays = {name: array[()].astype(np.int64) for name, array in group.items()}
        low = int(arrays["low"][0]) if "low" in arrays else 0
        layer = cls(arrays["weights"], arrays["bias"], arrays["shift"], low)
        assert np.abs(layer.weights).max() <= 64
        assert layer.shift.min() >= 0
        assert layer.shift.max() <= 30
        assert -255 <= low <= 0
        return layer

    def settle(self, sums: Integers) -> Integers:
        """Shift the sums, round them and clip them."""
        return np.clip(rounded(sums, self.shift), self.low, self.low + 255)

    def largest(self, *, leaky: bool) -> int:
        """The largest absolute value that the layer hands on."""
        ends = np.array([self.low, self.low + 255])
        return int(np.abs(leaky_relu(ends) if leaky else ends).max())

    def worst(self) -> "Layer":
        """The layer whose sums, for inputs of the largest absolute value, are the bounds of this one's."""
        return Layer(np.abs(self.weights), np.abs(self.bias), self.shift, self.low)


@dataclass(frozen=True)
class Generator:
    """What a checkpoint holds."""

    latent_size: int
    distribution: str
    batch_norm: bool
    conditional: bool
    dense: Layer
    stage_1: Layer
    stage_2: Layer
    image: Layer

    @classmethod
    def load(cls, checkpoint: Path) -> "Generator":
        """Read a checkpoint's folder and check every bound of section 4."""
        recipe = json.loads((checkpoint / "checkpoint.json").read_text())["recipe"]
        latent, generator = recipe["latent"], recipe["generator"]
        size, kernel, stem = latent["size"], generator["kernel_size"], generator["stem_filters"]
        first, second = generator["filters"]
        with h5py.File(checkpoint / "generator.h5") as file:
            assert set(file) == {"dense", "stage_1", "stage_2", "image"}
            classes = len(file["dense/bias"])
            assert classes in (1, 10)
            loaded = cls(
                size,
                latent["distribution"],
                generator["batch_norm"],
                classes == 10,
                Layer.read(file["dense"], (size, 49, stem), (classes, 49, stem), (49, stem)),
                Layer.read(file["stage_1"], (kernel, kernel, first, stem), (first,), (first,)),
                Layer.read(file["stage_2"], (kernel, kernel, second, first), (second,), (second,)),
                Layer.read(file["image"], (2, 3, 3, second), (1,), (1,)),
            )
        loaded.check()
        return loaded

    def check(self) -> None:
        """The bound on every sum: the layers themselves, with all that is negative made positive."""
        of_dense = self.dense.largest(leaky=self.batch_norm)
        of_stage_1 = self.stage_1.largest(leaky=True)
        of_stage_2 = self.stage_2.largest(leaky=False)
        classes = np.arange(len(self.dense.bias), dtype=np.uint8)
        latent = np.full((len(classes), self.latent_size), 127)
        assert dense_sums(latent, classes, self.dense.worst()).max() < EXACT
        for layer, size, top in (self.stage_1, 7, of_dense), (self.stage_2, 14, of_stage_1):
            inputs = np.full((1, size, size, layer.weights.shape[3]), top)
            assert transposed_sums(inputs, layer.worst()).max() < EXACT
        inputs = np.full((1, 28, 28, self.image.weights.shape[3]), of_stage_2)
        assert image_sums(inputs, self.image.worst()).max() < EXACT

    def draw(self, latent: Integers, label: Bytes) -> Bytes:
        """The images of these latents and labels."""
        x = self.dense.settle(dense_sums(latent, label, self.dense)).reshape(len(latent), 7, 7, -1)
        if self.batch_norm:
            x = leaky_relu(x)
        x = leaky_relu(self.stage_1.settle(transposed_sums(x, self.stage_1)))
        x = self.stage_2.settle(transposed_sums(x, self.stage_2))
        logit = np.clip(rounded(image_sums(x, self.image), self.image.shift[0]), -1024, 1023)
        return grey()[logit + 1024].astype(np.uint8)


# 5. The layers


def rounded(sums: Integers, shift: Integers) -> Integers:
    """round(sums / 2^shift), half-way to the even neighbour."""
    below = sums >> shift
    twice = 2 * (sums - (below << shift))
    one = np.int64(1) << shift
    return below + ((twice > one) | ((twice == one) & (below & 1 == 1)))


def leaky_relu(n: Integers) -> Integers:
    """n, or the integer nearest to n / 5 if n is negative."""
    return np.where(n >= 0, n, (2 * n + 5) // 10)


def dense_sums(latent: Integers, label: Bytes, layer: Layer) -> Integers:
    """The sums of shape (images, 49, F₀)."""
    return layer.bias[label] + np.tensordot(latent, layer.weights, 1)


def transposed_sums(x: Integers, layer: Layer) -> Integers:
    """Each input pixel adds to K × K pixels of a canvas, from which the margin q is then cut."""
    images, size, kernel, filters = len(x), x.shape[1], len(layer.weights), len(layer.bias)
    canvas = np.zeros((images, 2 * size + kernel, 2 * size + kernel, filters), np.int64)
    for a, b in np.ndindex(kernel, kernel):
        canvas[:, a : a + 2 * size : 2, b : b + 2 * size : 2] += x @ layer.weights[a, b].T
    q = max(kernel - 2, 0) // 2
    return canvas[:, q : q + 2 * size, q : q + 2 * size] + layer.bias


def image_sums(x: Integers, layer: Layer) -> Integers:
    """Each input pixel adds to 3 × 3 pixels of a canvas, whose margin of one is then cut."""
    canvas = np.zeros((len(x), 30, 30), np.int64)
    for a, b in np.ndindex(3, 3):
        products = x @ layer.weights[0, a, b] + np.maximum(x, 0) @ layer.weights[1, a, b]
        canvas[:, a : a + 28, b : b + 28] += products
    return canvas[:, 1:29, 1:29] + layer.bias[0]


@cache
def grey() -> Integers:
    """The table E."""
    values = [math.floor(255 / (1 + math.exp(-(k - 1024) / 128)) + 0.5) for k in range(2048)]
    return checked(np.array(values, np.uint8), "3a66e6b10ba15ef7ccab660dbdce48dae8e44bbc8cf19369d1afecf493889398")


def images(checkpoint: Path, seed: int, rule: Rule, start: int, count: int) -> tuple[Bytes, Bytes | None]:
    """The images of the indices from ``start`` on, and their labels if the generator is conditional."""
    generator = Generator.load(checkpoint)
    drawn, given = [], []
    for block in range(start // BLOCK, -(-(start + count) // BLOCK)):
        rows = slice(max(start - block * BLOCK, 0), min(start + count - block * BLOCK, BLOCK))
        latent = latents(seed, block, generator.latent_size, generator.distribution)[rows]
        label = labels(seed, block, rule)[rows] if generator.conditional else np.zeros(len(latent), np.uint8)
        drawn.append(generator.draw(latent, label))
        given.append(label)
    return np.concatenate(drawn), np.concatenate(given) if generator.conditional else None


# 6. The digest


def digest(drawn: Bytes, given: Bytes | None, start: int) -> str:
    """The digest of a set of these images, whose indices follow one another from ``start`` on."""
    label = np.full(len(drawn), 255, np.uint8) if given is None else given
    records = np.concatenate([label[:, None], drawn.reshape(len(drawn), 784)], axis=1)
    ends = range(BLOCK - start % BLOCK, len(records), BLOCK)
    digests = (hashlib.sha256(block.tobytes()).digest() for block in np.split(records, ends))
    return hashlib.sha256(b"".join(digests)).hexdigest()
