from collections.abc import Iterator

import numpy as np
import pytest

from synthgen.formats.base import Batch
from synthgen.sets.manifest import load_manifest
from synthgen.sets.reading import read_set


@pytest.fixture
def expected(export, tmp_path) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of the first 600, read through our own reader of npz."""
    export(tmp_path / "expected")
    batches = list(read_set(tmp_path / "expected", load_manifest(tmp_path / "expected")))
    return np.concatenate([b.images for b in batches]), np.concatenate([b.labels for b in batches])


@pytest.fixture
def random_batches():
    """Batches of at most 256 random images: ``random_batches(start, count, labelled)``."""

    def draw(start: int, count: int, labelled: bool) -> Iterator[Batch]:
        random = np.random.default_rng(start)
        for first in range(0, count, 256):
            size = min(256, count - first)
            images = random.integers(0, 256, (size, 28, 28), np.uint8)
            yield Batch(
                start=start + first, images=images, labels=random.integers(0, 10, size, np.uint8) if labelled else None
            )

    return draw
