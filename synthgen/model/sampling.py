"""Sampling: any part of the sequence of images that a checkpoint draws for a seed and a label rule.

Image ``i`` is a pure function of (checkpoint, seed, label rule, ``i``): a block of 256 consecutive indices is always
drawn whole, at one batch shape, and trimmed. So shards, format, start, count and a resumed run never change a pixel.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar, cast

import numpy as np

from synthgen.errors import UsageError
from synthgen.fashion import Images, Labels
from synthgen.formats.base import Batch
from synthgen.index import BLOCK_IMAGES, NO_LABELS, LabelRule, Shard, latents
from synthgen.model.checkpoint import Checkpoint
from synthgen.model.generator import Generator

T = TypeVar("T")


@dataclass(frozen=True)
class Sampler:
    """What decides every image: a checkpoint, a seed and a label rule. Calling it draws a block."""

    checkpoint: Checkpoint
    seed: int
    labels: LabelRule

    @classmethod
    def of(cls, checkpoint: Checkpoint, seed: int = 0, labels: str = "balanced") -> "Sampler":
        """Read the label rule from a request, see ``LabelRule.parse``; an unconditional checkpoint takes the default.

        Raises:
            UsageError: no such rule, or one for a checkpoint whose images have no labels.
        """
        if checkpoint.recipe.conditional:
            return cls(checkpoint, seed, LabelRule.parse(labels))
        if labels != "balanced":
            raise UsageError(
                f"labels '{labels}': checkpoint '{checkpoint.name}' is unconditional, its images have no labels; "
                "leave --labels out or choose a conditional checkpoint"
            )
        return cls(checkpoint, seed, NO_LABELS)

    def __call__(self, block: int) -> tuple[Images, Labels | None]:
        """Draw a block whole: images (256, 28, 28) and labels (256,), both uint8; None without labels.

        Raises:
            CheckpointError: the checkpoint's weights do not fit its recipe, or give no finite pixels.
        """
        latent = self.checkpoint.recipe.latent
        noise = latents(self.seed, block, latent.size, latent.distribution)
        labels = self.labels.labels(self.seed, block)
        return loaded_generator(self.checkpoint)(noise, labels), labels

    def shard(self, shard: Shard) -> Iterator[Batch]:
        """Draw the images of one shard in index order, a block at a time."""
        for block, wanted in shard.blocks():
            images, labels = self(block)
            yield Batch(
                start=block * BLOCK_IMAGES + wanted.start,
                images=images[wanted],
                labels=None if labels is None else labels[wanted],
            )

    def images(self, indices: Iterable[int]) -> Iterator[tuple[Images, np.uint8 | None]]:
        """Draw single images, (28, 28) uint8 each with its label; of ascending indices, each block is drawn once."""
        for block, some in groupby(indices, lambda index: index // BLOCK_IMAGES):
            images, labels = self(block)
            for index in some:
                offset = index % BLOCK_IMAGES
                yield images[offset], None if labels is None else labels[offset]


def prefetched(items: Iterator[T], ahead: int = 4) -> Iterator[T]:
    """The same items, made by a thread that keeps up to ``ahead`` of them ready.

    numpy, zlib and hashlib all let other threads run, so that drawing and writing overlap.
    """
    with ThreadPoolExecutor(1, "sampler") as thread:
        waiting = deque(thread.submit(next, items, _END) for _ in range(ahead))
        try:
            while (item := waiting.popleft().result()) is not _END:
                waiting.append(thread.submit(next, items, _END))
                yield cast(T, item)
        finally:
            thread.shutdown(wait=False, cancel_futures=True)


_END = object()
_generators: dict[str, Generator] = {}


def loaded_generator(checkpoint: Checkpoint) -> Generator:
    """The checkpoint's generator, loaded once in each process; raises CheckpointError."""
    if checkpoint.sha256 not in _generators:
        _generators[checkpoint.sha256] = checkpoint.generator()
    return _generators[checkpoint.sha256]
