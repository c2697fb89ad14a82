import hashlib
import itertools

import numpy as np
import pytest

from synthgen.errors import UsageError
from synthgen.index import BLOCK_IMAGES, LabelRule, ShardPlan, check_seed, default_shards, float_latents, latent_words

GOLDEN_FIRST = [-0.5471856594085693, 1.812480092048645, 1.7433124780654907]
GOLDEN_SHA256 = "4c900aec6c60d540bbcc8b73aaa01ac1210ef23748218c5666352ad91b900ee6"


@pytest.mark.parametrize(
    ("start", "count", "shards"),
    [(0, 1, 1), (0, 600, 3), (0, 60_000, 10), (100, 1_000_003, 167), (255, 2, 2), (1 << 40, 777, 2)],
)
def test_shards_cover_the_plan_once_and_are_cut_between_blocks(start: int, count: int, shards: int):
    parts = list(ShardPlan(start=start, count=count, shards=shards))
    assert len(parts) == shards
    assert parts[0].start == start
    assert parts[-1].stop == start + count
    assert all(before.stop == after.start for before, after in itertools.pairwise(parts))
    assert all(part.start % BLOCK_IMAGES == 0 for part in parts[1:])
    assert all(part.count > 0 for part in parts)
    inner = [part.count for part in parts[1:-1]]
    assert not inner or max(inner) - min(inner) <= BLOCK_IMAGES


def test_blocks_of_a_shard_are_trimmed_to_it():
    (shard,) = ShardPlan(start=250, count=20, shards=1)
    assert list(shard.blocks()) == [(0, slice(250, 256)), (1, slice(0, 14))]


@pytest.mark.parametrize(
    ("start", "count", "shards", "words"),
    [
        (0, 0, 1, "count 0 is too small"),
        (-1, 5, 1, "start -1 is negative"),
        (0, 100, 2, "shards 2 does not fit 100 images"),
        (0, 100, 0, "shards 0 does not fit"),
        ((1 << 63) - 5, 6, 1, "passes 2\\^63"),
    ],
)
def test_impossible_plans_are_refused(start: int, count: int, shards: int, words: str):
    with pytest.raises(UsageError, match=words):
        ShardPlan(start=start, count=count, shards=shards)


def test_default_shards():
    assert [default_shards(n) for n in (1, 6_000, 6_001, 60_000)] == [1, 1, 2, 10]


@pytest.mark.parametrize(("start", "count"), [(0, 1003), (7, 1000), (509, 4099)])
def test_balanced_quotas_are_exact_over_any_stretch(start: int, count: int):
    rule = LabelRule.parse("balanced")
    labels = np.concatenate([rule.labels(0, block) for block in range(30)])[start : start + count]
    counts = np.bincount(labels, minlength=10)
    assert counts.sum() == count
    assert set(counts.tolist()) <= {count // 10, -(-count // 10)}


def test_chosen_labels_come_in_turn_and_nothing_else():
    labels = LabelRule.parse("0,3,7").labels(5, 1 << 60)
    assert set(labels.tolist()) == {0, 3, 7}
    assert np.ptp(np.bincount(labels, minlength=8)[[0, 3, 7]]) <= 1


def test_uniform_labels_are_uniform():
    labels = np.concatenate([LabelRule.parse("uniform").labels(3, block) for block in range(200)])
    expected = len(labels) / 10
    chi_squared = ((np.bincount(labels, minlength=10) - expected) ** 2 / expected).sum()
    assert chi_squared < 33.7  # the 99.99th percentile of chi-squared with 9 degrees of freedom


@pytest.mark.parametrize("classes", [1, 2, 3, 7, 10])
def test_uniform_labels_are_numpys(classes: int):
    """What ``Generator.integers`` gave in 0.1 and 0.2, so that no set of these got other labels."""
    rule = LabelRule(classes=tuple(range(classes)), random=True)
    for seed, block in ((0, 0), (7, 3), ((1 << 64) - 1, 1 << 55)):
        key, counter = np.array([seed, block], np.uint64), np.array([0, 1, 0, 0], np.uint64)
        numpys = np.random.Generator(np.random.Philox(key=key, counter=counter))
        np.testing.assert_array_equal(rule.labels(seed, block), numpys.integers(classes, size=BLOCK_IMAGES))


def test_a_word_that_would_favour_a_label_is_left_out(monkeypatch):
    """A half h with (h · m) mod 2^32 < 2^32 mod m: for ten classes 0 is one, and so rare that no seed is known."""

    class Words:
        def random_raw(self, count: int) -> np.ndarray:
            words = np.full(count, 0x9000_0000_FFFF_FFFF, np.uint64)  # halves: of label 9, then of label 5
            words[0] = 0xFFFF_FFFF_0000_0000  # halves: 0, then of label 9
            return words

    monkeypatch.setattr("synthgen.index._philox", lambda *key: Words())
    labels = LabelRule.parse("uniform").labels(0, 0).tolist()
    assert len(labels) == BLOCK_IMAGES
    assert labels == [9, *[9, 5] * 127, 9]


@pytest.mark.parametrize("text", ["", "10", "0,0", "cat", "-1", "0,,1", "1.5"])
def test_bad_labels_are_refused(text: str):
    with pytest.raises(UsageError, match="labels"):
        LabelRule.parse(text)


@pytest.mark.parametrize("text", ["balanced", "uniform", "0,3,7"])
def test_a_label_rule_prints_as_it_parses(text: str):
    assert str(LabelRule.parse(text)) == text


def test_golden_float_latents():
    """Pinned for all time: a change here would change every image of a float checkpoint."""
    digest = hashlib.sha256(
        float_latents(42, 7, 48, "gaussian").tobytes() + float_latents(42, 7, 48, "uniform").tobytes()
    )
    assert float_latents(42, 7, 48, "gaussian")[0, :3].tolist() == GOLDEN_FIRST
    assert digest.hexdigest() == GOLDEN_SHA256


def test_golden_words():
    """The check in docs/pixels.md: what every latent is made of."""
    assert latent_words(7, 3, 3).tolist() == [0x7B6CC7B1862CC5F2, 0xB960F2EA4B3F8D9F, 0x0CDD72E015DEB1A6]


def test_golden_random_labels():
    assert LabelRule.parse("uniform").labels(7, 3)[:10].tolist() == [8, 5, 1, 8, 0, 1, 6, 6, 3, 9]


def test_float_latents_have_the_distribution_they_claim():
    normal = np.concatenate([float_latents(1, block, 64, "gaussian") for block in range(20)])
    uniform = np.concatenate([float_latents(1, block, 64, "uniform") for block in range(20)])
    assert abs(normal.mean()) < 0.01
    assert abs(normal.std() - 1) < 0.01
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.005


def test_float_latents_differ_by_seed_block_and_stream():
    drawn = {
        float_latents(seed, block, 8, "gaussian").tobytes() for seed in (0, 1, 2**64 - 1) for block in (0, 1, 2**55)
    }
    assert len(drawn) == 9


@pytest.mark.parametrize("seed", [-1, 1 << 64])
def test_seeds_out_of_range_are_refused(seed: int):
    with pytest.raises(UsageError, match="seed"):
        check_seed(seed)


def test_shares_are_drawn_in_their_proportions():
    rule = LabelRule.parse("shares=100,1,0", of=3)
    counts = np.array(rule.class_counts(5, 100, 101_000))
    assert counts.sum() == 101_000
    assert counts[2] == 0
    assert abs(counts[1] - 1_000) < 6 * 1_000**0.5
    assert LabelRule.recorded(str(rule), of=3) == rule
    largest = LabelRule.shared([1_000_000] * 256)  # a tenth of all words are left out
    assert len(largest.labels(1, 1)) == 256


@pytest.mark.parametrize(
    "text", ["shares=", "shares=1,2", "shares=0,0,0", "shares=1,2,-3", "shares=1,2,1000001", "shares=1,2,x"]
)
def test_shares_that_are_none_are_refused(text: str):
    with pytest.raises(UsageError, match="expected a whole number from 0 to 1,000,000 for each of the 3 classes"):
        LabelRule.parse(text, of=3)
