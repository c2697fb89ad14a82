"""Reading sets back: images in index order, each format through its own reader, none through TensorFlow."""

from collections.abc import Iterator
from pathlib import Path

from synthgen.errors import VerificationError
from synthgen.formats.base import Batch
from synthgen.model.claims import BUILT_IN
from synthgen.sets.integrity import format_of
from synthgen.sets.manifest import Manifest, ShardRecord, load_manifest, load_manifests


def read_set(folder: Path, manifest: Manifest) -> Iterator[Batch]:
    """The images of a set, or of the split that ``manifest`` describes, in index order.

    Yields:
        Batches of consecutive images, uint8 of shape (n, 28, 28), with their labels, uint8 of shape (n,), or None.

    Raises:
        VerificationError: a shard is missing or malformed.
    """
    for shard in manifest.shards:
        yield from read_batches(folder, manifest, shard)


def read_batches(folder: Path, manifest: Manifest, shard: ShardRecord) -> Iterator[Batch]:
    """The images of one shard; as ``read_set``."""
    start = shard.start
    for images, labels in format_of(folder, manifest).read_shard(folder, shard.names, shard.count):
        yield Batch(start=start, images=images, labels=labels)
        start += len(images)


def claimed_by(manifest: Manifest) -> str:
    """Who vouches for a manifest's privacy statement, in one line."""
    known = BUILT_IN.get(manifest.checkpoint.sha256)  # with a built-in checkpoint's hash and another claim: not loaded
    return f"the built-in checkpoint {known.title}" if known else "the manifest; checkpoint not at hand"


def claimed_content(folder: Path) -> tuple[int, str]:
    """How many images the manifests of all splits name, and the format; of the first split if another is malformed.

    Raises:
        VerificationError: there is no manifest, or not one that can be understood.
    """
    first = load_manifest(folder)
    try:
        return sum(manifest.count for manifest in load_manifests(folder)), first.format
    except VerificationError:  # verify will say what is wrong with it
        return first.count, first.format
