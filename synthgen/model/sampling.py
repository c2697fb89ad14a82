"""Sampling: any part of the sequence of images that a checkpoint draws for a seed and a label rule.

Image ``i`` is a pure function of (checkpoint, seed, label rule, ``i``), on every machine. A block of 256 consecutive
indices is drawn whole and trimmed, since its latents are one random stream. So shards, format, start, count and a
resumed run never change a pixel.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from synthgen.environment import float_drawn_with, software
from synthgen.errors import UsageError
from synthgen.formats.base import Batch
from synthgen.index import BLOCK_IMAGES, MAX_SHARE, NO_LABELS, LabelRule, Shard, float_latents
from synthgen.model.checkpoint import Checkpoint
from synthgen.pixels.backends import described
from synthgen.pixels.drawing import Backend
from synthgen.pixels.latents import latents
from synthgen.subject import Images, Labels

AS_TRAINED, CLASS_SHARES = "as-trained", "class_shares"  # a label rule, and where a record of training says it

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Sampler:
    """What decides every image: a checkpoint, a seed and a label rule. Calling it draws a block.

    Attributes:
        checkpoint: what draws.
        seed: 0 to 2^64 - 1.
        labels: which label each image has.
        backend: what computes, see ``pixels.backends.open_backend``; it changes no pixel of an exact checkpoint.
    """

    checkpoint: Checkpoint
    seed: int
    labels: LabelRule
    backend: str = "auto"

    @classmethod
    def of(cls, checkpoint: Checkpoint, seed: int = 0, labels: str = "balanced") -> "Sampler":
        """Read the label rule from a request; an unconditional checkpoint takes the default.

        Args:
            checkpoint: what draws.
            seed: 0 to 2^64 - 1.
            labels: as for ``LabelRule.parse``; or ``as-trained``, for the shares of the classes in training, as far as
                the checkpoint knows them: a private one what it has released of them, with noise.

        Raises:
            UsageError: no such rule, or one for a checkpoint whose images have no labels.
        """
        if checkpoint.recipe.conditional and labels == AS_TRAINED:
            return cls(checkpoint, seed, LabelRule.shared(_known_shares(checkpoint)))
        if checkpoint.recipe.conditional:
            return cls(checkpoint, seed, LabelRule.parse(labels, checkpoint.recipe.classes))
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
        latent, draw = self.checkpoint.recipe.latent, latents if self.checkpoint.exact else float_latents
        noise = draw(self.seed, block, latent.size, latent.distribution)
        labels = self.labels.labels(self.seed, block)
        return loaded_generator(self.checkpoint, self.backend)(noise, labels), labels

    def made_with(self) -> dict[str, str]:
        """What draws and packs here, for a manifest; on it depend only the pixels of a float checkpoint."""
        if self.checkpoint.exact:
            return {**software(), "backend": described(self.backend)}
        return float_drawn_with()

    def shard(self, shard: Shard, threads: int = 0) -> Iterator[Batch]:
        """Draw the images of one shard in index order, a block at a time; ``threads`` as for ``ahead``."""
        blocks = list(shard.blocks())
        for (block, wanted), (images, labels) in zip(
            blocks, ahead(self, [block for block, _ in blocks], threads), strict=True
        ):
            yield Batch(
                start=block * BLOCK_IMAGES + wanted.start,
                images=images[wanted],
                labels=None if labels is None else labels[wanted],
            )

    def images(self, indices: Iterable[int], threads: int = 0) -> Iterator[tuple[Images, np.uint8 | None]]:
        """Draw single images, (28, 28) uint8 each with its label; of ascending indices, each block is drawn once."""
        drawing = ((block, list(some)) for block, some in groupby(indices, lambda index: index // BLOCK_IMAGES))
        for (images, labels), some in ahead(lambda task: (self(task[0]), task[1]), drawing, threads):
            for index in some:
                offset = index % BLOCK_IMAGES
                yield images[offset], None if labels is None else labels[offset]


def ahead(function: Callable[[Task], Result], tasks: Iterable[Task], threads: int) -> Iterator[Result]:
    """``function`` of each task, in order, by threads that work a few tasks ahead; 0 threads: as they are asked for.

    numpy, onnxruntime, zlib and hashlib all let other threads run, so that drawing, and writing or reading, overlap.
    """
    if not threads:
        yield from map(function, tasks)
        return
    left = iter(tasks)
    with ThreadPoolExecutor(threads, "sampler") as pool:
        waiting = deque(pool.submit(function, task) for task in islice(left, _AHEAD * threads))
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(function, task) for task in islice(left, 1))
                yield result
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def shares_of(counts: npt.NDArray[np.integer] | npt.NDArray[np.floating]) -> list[int]:
    """How frequent classes are, as a record of training has it: whole numbers of images, scaled down if vast."""
    scale = min(1.0, MAX_SHARE / float(counts.max()))
    return [round(float(count) * scale) for count in counts]


def _known_shares(checkpoint: Checkpoint) -> tuple[int, ...]:
    shares: Any = checkpoint.training.get(CLASS_SHARES)
    valid = isinstance(shares, list) and len(shares) == checkpoint.recipe.classes and any(shares)
    if not valid or not all(type(share) is int and 0 <= share <= MAX_SHARE for share in shares):
        raise UsageError(
            f"labels '{AS_TRAINED}': checkpoint '{checkpoint.name}' does not know how frequent its classes were; "
            "choose balanced, uniform or shares=…"
        )
    return tuple(shares)


_AHEAD = 4  # tasks of each thread
_generators: dict[tuple[str, str], Backend] = {}


def loaded_generator(checkpoint: Checkpoint, backend: str = "auto") -> Backend:
    """The checkpoint's generator, loaded once in each process.

    Raises:
        CheckpointError, UsageError: as ``Checkpoint.generator``.
    """
    key = checkpoint.sha256, backend
    if key not in _generators:
        _generators[key] = checkpoint.generator(backend)
    return _generators[key]
