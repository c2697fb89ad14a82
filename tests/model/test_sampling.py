"""One value decides every image, however it is asked for."""

import numpy as np
import pytest
from kill_exports import cheap_pixels

from synthgen.errors import UsageError
from synthgen.index import BLOCK_IMAGES, NO_LABELS, LabelRule, Shard
from synthgen.model.sampling import Sampler


def test_blocks_shards_and_single_images_agree(tiny_checkpoint):
    sampler = Sampler.of(tiny_checkpoint, 5, "0,3,7")
    images, labels = sampler(1)
    (batch,) = sampler.shard(Shard(index=0, of=1, start=BLOCK_IMAGES + 10, count=20))
    assert batch.start == BLOCK_IMAGES + 10
    np.testing.assert_array_equal(batch.images, images[10:30])
    np.testing.assert_array_equal(batch.labels, labels[10:30])
    for offset, (image, label) in zip((10, 29), sampler.images([BLOCK_IMAGES + 10, BLOCK_IMAGES + 29]), strict=True):
        np.testing.assert_array_equal(image, images[offset])
        assert label == labels[offset]


def test_single_images_of_one_block_are_drawn_together(tiny_checkpoint, monkeypatch):
    drawn = []

    def generator(checkpoint, backend):
        return lambda noise, labels: drawn.append(len(noise)) or cheap_pixels(checkpoint, backend)(noise, labels)

    monkeypatch.setattr("synthgen.model.sampling.loaded_generator", generator)
    assert len(list(Sampler.of(tiny_checkpoint).images([0, 7, 255, 256, 1000]))) == 5
    assert drawn == [BLOCK_IMAGES] * 3


def test_an_unconditional_checkpoint_draws_without_labels(unlabelled_checkpoint):
    sampler = Sampler.of(unlabelled_checkpoint)
    assert sampler.labels == NO_LABELS == LabelRule.recorded(str(sampler.labels))
    assert sampler(0)[1] is None
    assert next(sampler.images([3]))[1] is None
    (batch,) = sampler.shard(Shard(index=0, of=1, start=0, count=5))
    assert batch.labels is None
    with pytest.raises(UsageError, match="is unconditional"):
        Sampler.of(unlabelled_checkpoint, labels="uniform")


def test_no_labels_are_recorded_and_not_requested(tiny_checkpoint):
    with pytest.raises(UsageError, match="labels 'none': expected balanced"):
        Sampler.of(tiny_checkpoint, labels="none")
