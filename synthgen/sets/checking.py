"""Checking shards: every file is hashed, every image is read back and digested, and some are drawn again.

A shard is a task of its own, for this process or for another.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from synthgen.errors import VerificationError
from synthgen.fashion import NUM_CLASSES
from synthgen.formats.base import Batch
from synthgen.model.sampling import Sampler
from synthgen.sets.digest import SetDigest
from synthgen.sets.integrity import files_problems, format_of, listed_problems, shard_problems
from synthgen.sets.manifest import Manifest, ShardRecord
from synthgen.sets.reading import read_batches
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
    class_counts: tuple[int, ...] = (0,) * NUM_CLASSES
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
        count: images of the split.
    """

    folder: Path
    manifest: Manifest
    files_only: bool
    sampler: Sampler | None
    regenerate: int
    count: int

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
        class_counts, redrawn = np.zeros(NUM_CLASSES, np.int64), Redrawn()
        labelled = self.manifest.labelled
        for batch in read_batches(self.folder, self.manifest, shard):
            digest.update(batch)
            if (batch.labels is not None) != labelled:
                raise VerificationError(f"{name}: labels {'missing' if labelled else 'unexpected'}")
            if batch.labels is not None:
                class_counts += np.bincount(batch.labels, minlength=NUM_CLASSES)
            if self.sampler is not None:
                redrawn += self._compared(batch, self.sampler)
            progress(len(batch))
        if digest.hexdigest() != shard.digest:
            return Checked(problems=(f"{name}: its images or labels do not give the digest in the manifest",))
        return Checked(
            block_digests=b"".join(digest.block_digests()), class_counts=tuple(class_counts.tolist()), redrawn=redrawn
        )

    def _compared(self, batch: Batch, sampler: Sampler) -> Redrawn:
        """The images of a batch that are to be drawn again, compared with what is drawn."""
        wanted = self._wanted(batch)
        if not len(wanted):
            return Redrawn()
        drawn = list(sampler.images(wanted.tolist()))
        places = wanted - batch.start
        differences = np.abs(np.stack([image for image, _ in drawn]).astype(np.int16) - batch.images[places])
        gaps, mislabelled = differences.max((1, 2)), ""
        if batch.labels is not None:
            for index, found, (_, label) in zip(wanted.tolist(), batch.labels[places].tolist(), drawn, strict=True):
                if label is not None and found != label:
                    mislabelled = mislabelled or f"image {index}: label {found}; drawn anew it is {label}"
        return Redrawn(
            compared=len(wanted),
            differing=int((gaps > 0).sum()),
            largest=int(gaps.max()),
            mislabelled=mislabelled,
        )

    def _wanted(self, batch: Batch) -> npt.NDArray[np.int64]:
        """The indices in a batch of those ⌊i · count / regenerate⌋ after the split's first image, i = 0, 1, …"""
        count, amount = self.count, min(self.regenerate, self.count)
        first = batch.start - self.manifest.start
        # The least i with ⌊i · count / amount⌋ ≥ p is ⌈p · amount / count⌉; Python's integers do not overflow.
        begin, end = (-(-place * amount // count) for place in (first, first + len(batch)))
        return np.array([self.manifest.start + i * count // amount for i in range(begin, end)], np.int64)
