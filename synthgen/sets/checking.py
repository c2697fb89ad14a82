"""Checking shards: every file is hashed, every image is read back and digested, and some are drawn again.

A shard is a task of its own, for this process or for another.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from synthgen.errors import VerificationError
from synthgen.formats.base import Batch
from synthgen.model.sampling import Sampler
from synthgen.sets.digest import SetDigest
from synthgen.sets.integrity import files_problems, format_of, listed_problems, shard_problems
from synthgen.sets.manifest import Manifest, ShardRecord
from synthgen.sets.reading import read_batches
from synthgen.subject import Images
from synthgen.workers import Progress, Work


@dataclass(frozen=True, kw_only=True)
class Redrawn:
    """What comparing images with those drawn anew found.

    Attributes:
        compared: how many.
        differing: how many have other pixels.
        largest: by how many grey levels at most.
        mislabelled: one line about the first image with another label; empty if there is none.
    """

    compared: int = 0
    differing: int = 0
    largest: int = 0
    mislabelled: str = ""

    def __add__(self, other: "Redrawn") -> "Redrawn":
        """Both together."""
        return Redrawn(
            compared=self.compared + other.compared,
            differing=self.differing + other.differing,
            largest=max(self.largest, other.largest),
            mislabelled=self.mislabelled or other.mislabelled,
        )


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What checking one shard found: problems, one line each, or its content."""

    problems: tuple[str, ...] = ()
    block_digests: bytes = b""
    class_counts: tuple[int, ...] = ()
    redrawn: Redrawn = Redrawn()


@dataclass(frozen=True, kw_only=True)
class ShardCheck:
    """The work of checking shards.

    Attributes:
        folder: of the set.
        manifest: of the split, without its shards: each of these is a task.
        files_only: hash the files, but read no image.
        sampler: what the images are drawn with again; None: none is.
        regenerate: how many images of the split are drawn again, spread evenly.
        threads: that draw, of each shard.
    """

    folder: Path
    manifest: Manifest
    files_only: bool
    sampler: Sampler | None
    regenerate: int
    threads: int

    def __call__(self) -> Work:
        """As a pool wants it."""
        return self.check

    def check(self, shard: ShardRecord, progress: Progress) -> Checked:
        """Check every file's hash and, if all are right, every image."""
        # A reader hashes each listed file before it decodes it, so that none is read twice.
        problems, file_format = files_problems(self.folder, shard.files), format_of(self.folder, self.manifest)
        if self.files_only and not problems:
            problems = listed_problems(self.folder, file_format, shard)
        if problems or self.files_only:
            progress(shard.count)
            return Checked(problems=tuple(problems))
        try:
            return self._read(shard, progress)
        except VerificationError as error:
            return Checked(problems=tuple(shard_problems(self.folder, file_format, shard)) or (str(error),))

    def _read(self, shard: ShardRecord, progress: Progress) -> Checked:
        digest, name = SetDigest(shard.start), shard.files[0].name
        classes, redrawn = self.manifest.subject.num_classes, Redrawn()
        class_counts = np.zeros(classes, np.int64)
        labelled, drawn = self.manifest.labelled, self._drawn(shard)
        for batch in read_batches(self.folder, self.manifest, shard):
            digest.update(batch)
            if (batch.labels is not None) != labelled:
                raise VerificationError(f"{name}: labels {'missing' if labelled else 'unexpected'}")
            if batch.labels is not None:
                class_counts += np.bincount(batch.labels, minlength=classes)
            if self.sampler is not None:
                redrawn += _compared(batch, list(self._wanted(batch.start, len(batch))), drawn)
            progress(len(batch))
        if digest.hexdigest() != shard.digest:
            return Checked(problems=(f"{name}: its images or labels do not give the digest in the manifest",))
        return Checked(
            block_digests=b"".join(digest.block_digests()), class_counts=tuple(class_counts.tolist()), redrawn=redrawn
        )

    def _drawn(self, shard: ShardRecord) -> Iterator[tuple[Images, np.uint8 | None]]:
        """The images of a shard that are to be compared, drawn again."""
        if self.sampler is None:
            return iter(())
        return self.sampler.images(self._wanted(shard.start, shard.count), self.threads)

    def _wanted(self, start: int, images: int) -> Iterator[int]:
        """The indices among ``images`` from ``start`` on of those ⌊i · count / regenerate⌋ after the split's first."""
        count, first = self.manifest.count, self.manifest.start
        amount = min(self.regenerate, count)
        # The least i with ⌊i · count / amount⌋ ≥ p is ⌈p · amount / count⌉.
        begin, end = (-(-place * amount // count) for place in (start - first, start - first + images))
        return (first + i * count // amount for i in range(begin, end))


def _compared(batch: Batch, wanted: Sequence[int], drawn: Iterator[tuple[Images, np.uint8 | None]]) -> Redrawn:
    """The images of a batch that are to be compared, with what is drawn."""
    if not wanted:
        return Redrawn()
    places, anew, mislabelled = np.array(wanted) - batch.start, list(islice(drawn, len(wanted))), ""
    gaps = np.abs(np.stack([image for image, _ in anew]).astype(np.int16) - batch.images[places]).max((1, 2))
    if batch.labels is not None:
        for index, found, (_, label) in zip(wanted, batch.labels[places].tolist(), anew, strict=True):
            if label is not None and found != label:
                mislabelled = mislabelled or f"image {index}: label {found}; drawn anew it is {label}"
    return Redrawn(
        compared=len(wanted), differing=int((gaps > 0).sum()), largest=int(gaps.max()), mislabelled=mislabelled
    )
