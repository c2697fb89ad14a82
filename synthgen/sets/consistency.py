"""Whether the values of a manifest fit each other: seed, counts, labels, shards, file names, and the privacy claim."""

import re
from typing import Any

from synthgen.errors import UsageError
from synthgen.files import sha256_of_json
from synthgen.index import MAX_INDEX, MAX_SEED, MAX_SHARDS
from synthgen.model.claims import BUILT_IN, expect_possible_claim
from synthgen.model.recipe import Recipe
from synthgen.sets.records import expect

_MAX_BYTES_PER_IMAGE, _MAX_SPARE_BYTES = 4096, 1 << 20  # an image takes at most 1,000 bytes in any format
_MAX_SIDECARS, _MAX_SIDECAR_BYTES = 1_000, 1 << 30  # the other split's manifest and its lists are among them


def expect_consistent(manifest: Any) -> None:
    """Refuse a manifest, each of whose values has its type, if they do not fit each other.

    Raises:
        ValueError, RecipeError: in one line, what does not fit.
    """
    recipe_sha256 = sha256_of_json(manifest.checkpoint.recipe)
    expect(recipe_sha256 == manifest.checkpoint.recipe_sha256, "the recipe is not the one its hash names")
    expect(
        is_sha256(manifest.checkpoint.sha256) and len(manifest.checkpoint.name) <= 255,
        "no name or SHA-256 of a checkpoint",
    )
    expect_possible_claim(manifest.checkpoint.sha256, Recipe.from_dict(manifest.checkpoint.recipe), manifest.privacy)
    known = BUILT_IN.get(manifest.checkpoint.sha256)
    same = known is None or known.arithmetic == manifest.checkpoint.arithmetic
    expect(same, "its arithmetic is not that of the built-in checkpoint")
    expect(0 <= manifest.seed <= MAX_SEED, f"seed {manifest.seed} is out of range")
    expect(manifest.split in ("train", "test"), f"split {manifest.split!r}")
    expect(manifest.start >= 0 and manifest.count >= 1, f"start {manifest.start}, count {manifest.count}")
    expect(manifest.start + manifest.count <= MAX_INDEX, f"start {manifest.start} + count {manifest.count}: too many")
    expect(1 <= len(manifest.shards) <= MAX_SHARDS, f"{len(manifest.shards)} shards")
    try:
        labelled = manifest.labelled
    except UsageError as error:
        raise ValueError(str(error)) from error
    if labelled:
        counted = len(manifest.class_counts) == manifest.subject.num_classes and min(manifest.class_counts) >= 0
        expect(counted and sum(manifest.class_counts) == manifest.count, "class_counts do not sum to count")
    expect(labelled or not manifest.class_counts, "class_counts of images without labels")
    expect(
        all(map(is_sha256, (manifest.digest, *(shard.digest for shard in manifest.shards)))), "a digest is no SHA-256"
    )
    next_start = manifest.start
    for index, shard in enumerate(manifest.shards):
        follows = shard.index == index and shard.start == next_start and shard.count >= 1
        expect(follows and bool(shard.files), f"shard {index} does not follow the one before it")
        next_start += shard.count
        size = sum(file.bytes for file in shard.files)
        most = shard.count * _MAX_BYTES_PER_IMAGE + _MAX_SPARE_BYTES  # what is never hashed cannot take hours
        expect(size <= most, f"shard {index}: {size:,} bytes are too many for {shard.count:,} images")
    expect(next_start == manifest.start + manifest.count, "the shards do not add up to count")
    if labelled and not manifest.label_rule.random:  # else only the labels themselves can tell
        counts = manifest.label_rule.class_counts(manifest.seed, manifest.start, manifest.count)
        expect(counts == manifest.class_counts, f"class_counts are not those of labels {manifest.labels}")
    beside = sum(file.bytes for file in manifest.sidecars)
    expect(len(manifest.sidecars) <= _MAX_SIDECARS and beside <= _MAX_SIDECAR_BYTES, "its sidecars are too large")
    names = [file.name for file in manifest.files()]
    expect(len(set(names)) == len(names), "a file is named twice")


def is_sha256(text: str) -> bool:
    """Whether a text is the hexadecimal form of a SHA-256."""
    return re.fullmatch("[0-9a-f]{64}", text) is not None
