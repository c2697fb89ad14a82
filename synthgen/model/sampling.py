"""Sampling: any stretch of a checkpoint's endless line of images.

Sample ``i`` is a pure function of (checkpoint, seed, label rule, ``i``): a block of 256 consecutive indices is always
drawn whole, at one batch shape, and trimmed. So shards, format, start, count and a resumed run never change a pixel.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt

from synthgen.formats.base import Batch
from synthgen.index import BLOCK_IMAGES, LabelRule, Shard, latents
from synthgen.model.checkpoint import Checkpoint
from synthgen.model.generator import Generator

T = TypeVar("T")


def sample(checkpoint: Checkpoint, seed: int, rule: LabelRule | None, shard: Shard) -> Iterator[Batch]:
    """Draw the images of one shard, a block at a time, in index order; without a rule they bear no labels."""
    draw = block_sampler(checkpoint, seed, rule)
    for block, wanted in shard.blocks():
        images, labels = draw(block)
        yield Batch(
            start=block * BLOCK_IMAGES + wanted.start,
            images=images[wanted],
            labels=None if labels is None else labels[wanted],
        )


def prefetched(items: Iterator[T], ahead: int = 4) -> Iterator[T]:
    """The same items, drawn by a thread that keeps up to ``ahead`` of them ready while the last one is used.

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
BlockSampler = Callable[[int], tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]]


def block_sampler(checkpoint: Checkpoint, seed: int, rule: LabelRule | None) -> BlockSampler:
    """A function that draws any block whole: its (256, 28, 28) images and (256,) labels, both uint8."""
    draw = loaded_generator(checkpoint)
    latent = checkpoint.recipe.latent

    def draw_block(block: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
        noise = latents(seed, block, latent.size, latent.distribution)
        labels = None if rule is None else rule.labels(seed, block)
        return draw(noise, labels), labels

    return draw_block


_generators: dict[str, Generator] = {}


def loaded_generator(checkpoint: Checkpoint) -> Generator:
    """The checkpoint's generator, loaded once a process."""
    if checkpoint.sha256 not in _generators:
        _generators[checkpoint.sha256] = checkpoint.generator()
    return _generators[checkpoint.sha256]
