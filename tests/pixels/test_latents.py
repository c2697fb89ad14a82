"""Random words, latents and labels: pinned, and the same from plain integers after docs/pixels.md."""

import hashlib

import numpy as np
import pytest

from synthgen import index
from synthgen.index import BLOCK_IMAGES, LabelRule, latent_words
from synthgen.pixels.latents import latents
from synthgen.pixels.tables import gaussian_table

LARGEST = (1 << 64) - 1
LAST_BLOCK = (1 << 63) // BLOCK_IMAGES - 1  # of the last image that an export can name


def philox(seed: int, block: int, stream: int, count: int) -> list[int]:
    """Words of Philox with ten rounds, from Python's integers."""
    words: list[int] = []
    while len(words) < count:
        c = [len(words) // 4 + 1, stream, 0, 0]
        k = [seed, block]
        for number in range(10):
            if number:
                k = [(k[0] + 0x9E3779B97F4A7C15) & LARGEST, (k[1] + 0xBB67AE8584CAA73B) & LARGEST]
            b, a = 0xCA5A826395121157 * c[2], 0xD2E7470EE14C6C93 * c[0]
            c = [(b >> 64) ^ c[1] ^ k[0], b & LARGEST, (a >> 64) ^ c[3] ^ k[1], a & LARGEST]
        words += c
    return words[:count]


@pytest.mark.parametrize("seed", [0, 7, LARGEST])
@pytest.mark.parametrize("block", [0, 3, LAST_BLOCK])
def test_words_are_philoxs(seed: int, block: int):
    assert latent_words(seed, block, 11).tolist() == philox(seed, block, 0, 11)


def test_words_are_pinned():
    assert [hex(word) for word in latent_words(7, 3, 3).tolist()] == [
        "0x7b6cc7b1862cc5f2",
        "0xb960f2ea4b3f8d9f",
        "0xcdd72e015deb1a6",
    ]


@pytest.mark.parametrize(
    ("distribution", "first", "last"),
    [("gaussian", [24, 2, 25, -1, 4, -17], [-10, 20, -7]), ("uniform", [98, 67, 99, 61, 70, 37], [48, 94, 52])],
)
def test_the_first_and_the_last_latents_are_pinned(distribution: str, first: list[int], last: list[int]):
    found = latents(7, 3, 150, distribution)
    assert (found.dtype, found.shape) == (np.int8, (256, 150))
    assert found[0, :6].tolist() == first
    assert found[255, -3:].tolist() == last


def test_a_block_of_latents_is_pinned():
    digest = hashlib.sha256()
    for distribution in ("gaussian", "uniform"):
        for seed, block in ((0, 0), (LARGEST, LAST_BLOCK)):
            digest.update(latents(seed, block, 48, distribution).tobytes())
    assert digest.hexdigest() == "f982f96bf8c0b7f32586c5608e40ea0a87f850b07296894939f9a3972ef6286f"


@pytest.mark.parametrize("size", [1, 3, 150])
def test_latents_are_cut_from_the_words_in_order(size: int):
    words = philox(7, 3, 0, -(-256 * size // 4))
    parts = np.array([word >> (16 * place) & 0xFFFF for word in words for place in range(4)])[: 256 * size]
    parts = parts.reshape(256, size)
    np.testing.assert_array_equal(latents(7, 3, size, "gaussian"), gaussian_table()[parts])
    np.testing.assert_array_equal(latents(7, 3, size, "uniform"), parts // 512)


def test_latents_have_the_range_and_mean_of_their_distribution():
    gaussian = np.concatenate([latents(1, block, 64, "gaussian") for block in range(16)]) / 32
    uniform = np.concatenate([latents(1, block, 64, "uniform") for block in range(16)])
    assert abs(gaussian.mean()) < 0.01
    assert abs(gaussian.std() - 1) < 0.01
    assert (uniform.min(), uniform.max()) == (0, 127)
    assert abs(uniform.mean() - 63.5) < 0.5


def test_neighbours_share_no_latents():
    blocks = [latents(seed, block, 8, "gaussian").tobytes() for seed in (0, 1, 2) for block in (0, 1, 2)]
    assert len(set(blocks)) == 9


def test_random_labels_are_pinned():
    assert LabelRule.parse("uniform").labels(7, 3)[:10].tolist() == [8, 5, 1, 8, 0, 1, 6, 6, 3, 9]


@pytest.mark.parametrize("classes", range(1, 11))
def test_random_labels_are_those_of_numpy_today(classes: int):
    rule = LabelRule(classes=tuple(range(classes)), random=True)
    for seed, block in ((0, 0), (7, 3), (LARGEST, LAST_BLOCK)):
        key, counter = np.array([seed, block], np.uint64), np.array([0, 1, 0, 0], np.uint64)
        theirs = np.random.Generator(np.random.Philox(key=key, counter=counter)).integers(classes, size=BLOCK_IMAGES)
        np.testing.assert_array_equal(rule.labels(seed, block), theirs)


def test_random_labels_follow_the_documentation():
    halves = [half for word in philox(7, 3, 1, 128) for half in (word & 0xFFFFFFFF, word >> 32)]
    assert LabelRule.parse("uniform").labels(7, 3).tolist() == [half * 10 >> 32 for half in halves]


@pytest.mark.parametrize("left_out", [1, 2, 3, 300])
def test_a_half_that_would_favour_a_class_is_left_out(monkeypatch, left_out: int):
    """One of 700 million: so words are made up. (h · 10) mod 2^32 must be at least 6, as it is of the next one."""
    four, six = (place * pow(5, -1, 1 << 31) % (1 << 31) for place in (2, 3))
    assert (four * 10 % (1 << 32), six * 10 % (1 << 32)) == (4, 6)

    class Made:
        def random_raw(self, count: int) -> np.ndarray:
            halves = np.arange(2 * count, dtype=np.uint64) * np.uint64(7345677) + np.uint64(1)
            halves[:left_out] = four
            halves[left_out : left_out + 1] = six
            return halves[::2] | halves[1::2] << np.uint64(32)

    monkeypatch.setattr(index, "_philox", lambda seed, block, stream: Made())
    kept = [six, *(7345677 * place + 1 for place in range(left_out + 1, left_out + 256))]
    assert LabelRule.parse("uniform").labels(0, 0).tolist() == [half * 10 >> 32 for half in kept]
