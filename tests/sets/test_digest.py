import hashlib

import numpy as np
import pytest

from synthgen.formats.base import Batch
from synthgen.sets.digest import SetDigest, join_block_digests

IMAGES = np.random.default_rng(0).integers(0, 256, (700, 28, 28), np.uint8)
LABELS = np.random.default_rng(1).integers(0, 10, 700).astype(np.uint8)


def by_hand(start: int) -> str:
    """The digest as the manifest words it, one image at a time."""
    blocks: dict[int, bytes] = {}
    for i, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        block = (start + i) // 256
        blocks[block] = blocks.get(block, b"") + bytes([label]) + image.tobytes()
    return hashlib.sha256(b"".join(hashlib.sha256(blocks[block]).digest() for block in sorted(blocks))).hexdigest()


def digest_in(start: int, *edges: int) -> SetDigest:
    digest = SetDigest(start)
    for first, last in zip((0, *edges), (*edges, 700), strict=True):
        digest.update(Batch(start=start + first, images=IMAGES[first:last], labels=LABELS[first:last]))
    return digest


@pytest.mark.parametrize("start", [0, 1, 255, 256, 512, (1 << 62) + 5])
def test_the_digest_is_what_the_manifest_words(start: int):
    assert digest_in(start).hexdigest() == by_hand(start)


@pytest.mark.parametrize("edges", [(1,), (256,), (100, 101, 600), (512, 699)])
def test_the_size_of_batches_does_not_matter(edges: tuple[int, ...]):
    assert digest_in(3, *edges).hexdigest() == by_hand(3)


def test_shards_cut_between_blocks_join():
    first, second = SetDigest(0), SetDigest(512)
    first.update(Batch(start=0, images=IMAGES[:512], labels=LABELS[:512]))
    second.update(Batch(start=512, images=IMAGES[512:], labels=LABELS[512:]))
    assert join_block_digests(first.block_digests() + second.block_digests()) == by_hand(0)


def test_pixels_labels_and_order_all_count():
    changed = IMAGES.copy()
    changed[699, 27, 27] ^= 1
    digests = {
        SetDigestOf(IMAGES, LABELS),
        SetDigestOf(changed, LABELS),
        SetDigestOf(IMAGES, (LABELS + 1) % 10),
        SetDigestOf(IMAGES[::-1], LABELS),
        SetDigestOf(IMAGES, None),
    }
    assert len(digests) == 5


def SetDigestOf(images, labels) -> str:  # noqa: N802
    digest = SetDigest(0)
    digest.update(Batch(start=0, images=images, labels=labels))
    return digest.hexdigest()


def test_a_gap_is_a_bug():
    with pytest.raises(ValueError, match="starts at 5; expected 0"):
        SetDigest(0).update(Batch(start=5, images=IMAGES, labels=LABELS))
