import numpy as np
import pytest

from synthgen.evaluation import neighbours
from synthgen.evaluation.neighbours import nearest


def brute_force(queries, references, *, others_only: bool = False):
    gaps = queries[:, None].astype(np.int64) - references[None]
    distances = (gaps**2).sum((2, 3))
    if others_only:
        distances[np.arange(len(queries)), np.arange(len(queries))] = np.iinfo(np.int64).max
    return distances.argmin(1), distances.min(1)


@pytest.fixture(scope="module")
def images():
    from support import DATA

    from synthgen.real_images import load_real_images

    return load_real_images("train", DATA, official=False).images


@pytest.mark.parametrize("blocks", [(7, 11), (2_048, 4_096)])
@pytest.mark.parametrize("others_only", [False, True])
def test_agrees_with_brute_force(images, monkeypatch, blocks, others_only: bool):
    monkeypatch.setattr(neighbours, "_QUERY_BLOCK", blocks[0])
    monkeypatch.setattr(neighbours, "_REFERENCE_BLOCK", blocks[1])
    queries, references = (images[:40], images[:90]) if others_only else (images[:40], images[40:130])
    indices, distances = brute_force(queries, references, others_only=others_only)
    found = nearest(queries, references, others_only=others_only)
    assert found.indices.tolist() == indices.tolist()
    assert found.squared_distances.tolist() == distances.tolist()


@pytest.mark.parametrize("block", [7, 50, 2_048])
def test_a_set_among_itself_agrees_with_brute_force(images, monkeypatch, block: int):
    monkeypatch.setattr(neighbours, "_QUERY_BLOCK", block)
    chosen = np.concatenate([images[:90], images[20:30], images[88:89], 255 - images[:5]])  # copies tie
    indices, distances = brute_force(chosen, chosen, others_only=True)
    seen = []
    found = nearest(chosen, chosen, others_only=True, progress=seen.append)
    assert found.indices.tolist() == indices.tolist()
    assert found.squared_distances.tolist() == distances.tolist()
    assert sum(seen) == len(chosen)


def test_the_extremes_of_grey_are_exact():
    """Black, white and noise: where float32 would round first. One grey level decides."""
    random = np.random.default_rng(3)
    white = np.full((28, 28), 255, np.uint8)
    references = np.stack([white, white, random.integers(0, 256, (28, 28), dtype=np.uint8), 0 * white])
    references[1, 5, 5] = 254
    queries = np.stack([white, references[1], 0 * white, references[2]])
    queries[2, 0, 0] = 1
    queries[3, 9, 9] ^= 1
    found = nearest(queries, references)
    assert found.indices.tolist() == [0, 1, 3, 2]
    assert found.squared_distances.tolist() == [0, 0, 1, 1]


def test_near_ties_are_decided_rightly():
    """Many references that differ by single grey levels from bright queries."""
    random = np.random.default_rng(4)
    base = random.integers(200, 256, (28, 28), dtype=np.uint8)
    references = np.repeat(base[None], 60, 0)
    for i, reference in enumerate(references):
        rows = random.integers(0, 28, i + 1), random.integers(0, 28, i + 1)
        reference[rows] -= random.integers(1, 3, i + 1, dtype=np.uint8)
    queries = references[::-1].copy()
    queries[:, 0, 0] -= 3
    indices, distances = brute_force(queries, references)
    found = nearest(queries, references)
    assert found.squared_distances.tolist() == distances.tolist()
    assert found.indices.tolist() == indices.tolist()


def test_rms_is_in_grey_levels_and_the_closest_come_first():
    queries = np.zeros((3, 28, 28), np.uint8)
    queries[0] += 30
    queries[2] += 10
    found = nearest(queries, np.zeros((1, 28, 28), np.uint8))
    assert found.rms.tolist() == [30, 0, 10]
    assert found.closest(2).tolist() == [1, 2]


def test_progress_adds_up(images):
    seen = []
    nearest(images[:50], images[50:60], progress=seen.append)
    assert sum(seen) == 50


@pytest.mark.parametrize(("amount", "others_only"), [(0, False), (1, True)])
def test_nothing_to_compare_with_is_refused(images, amount: int, others_only: bool):
    with pytest.raises(ValueError, match=f"{amount} images to compare with"):
        nearest(images[:amount], images[:amount], others_only=others_only)
