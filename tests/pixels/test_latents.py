"""Latents as integers: pinned, distributed as they claim, and each block and seed with its own."""

import hashlib

import numpy as np
import pytest

from synthgen.index import BLOCK_IMAGES
from synthgen.pixels.latents import latents
from synthgen.pixels.tables import LATENT_SCALES

GOLDEN = {  # of seed 42, block 7, 48 latents
    "gaussian": "8b1d847c33afaba775f054f76a071b840348965cd07d3c873f9326338f2786c3",
    "uniform": "46f0568b085e3ae68befec20001a9dd74445aa129529c1bead0fd4b19c00c05b",
}


@pytest.mark.parametrize(("distribution", "sha256"), GOLDEN.items())
def test_golden_latents(distribution: str, sha256: str):
    """Pinned for all time: a change here would change every image ever exported."""
    assert hashlib.sha256(latents(42, 7, 48, distribution).tobytes()).hexdigest() == sha256


@pytest.mark.parametrize(
    ("distribution", "first"), [("gaussian", [24, 2, 25, -1, 4, -17]), ("uniform", [98, 67, 99, 61, 70, 37])]
)
def test_the_check_in_the_documentation(distribution: str, first: list[int]):
    assert latents(7, 3, 150, distribution)[0, :6].tolist() == first


@pytest.mark.parametrize("size", [1, 3, 64])
def test_shape_and_type(size: int):
    drawn = latents(1, 0, size, "gaussian")
    assert (drawn.shape, drawn.dtype) == ((BLOCK_IMAGES, size), np.int8)


def test_latents_have_the_distribution_they_claim():
    normal = np.concatenate([latents(1, block, 64, "gaussian") for block in range(20)]) / LATENT_SCALES["gaussian"]
    uniform = np.concatenate([latents(1, block, 64, "uniform") for block in range(20)]) / LATENT_SCALES["uniform"]
    assert abs(normal.mean()) < 0.01
    assert abs(normal.std() - 1) < 0.01
    assert abs((normal**4).mean() - 3) < 0.1  # tails and all
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(uniform.mean() - 0.5 + 1 / 256) < 0.005  # rounded down to 1 / 128


def test_latents_differ_by_seed_and_block():
    drawn = {latents(seed, block, 8, "gaussian").tobytes() for seed in (0, 1, 2**64 - 1) for block in (0, 1, 2**55)}
    assert len(drawn) == 9
