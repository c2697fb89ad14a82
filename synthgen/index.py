"""Which image goes where: the pure arithmetic of blocks, shards and labels.

The indices 0, 1, 2, … are cut into fixed blocks of 256. An image's latent and label depend only on the seed and its
index, not on the shard, the format or the count of the export. So a plan may be cut anywhere without changing a pixel.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synthgen.errors import UsageError
from synthgen.subject import NUM_CLASSES

BLOCK_IMAGES = 256
IMAGES_PER_SHARD = 6_000  # the default cut: ten shards for 60,000 images
MAX_INDEX = 1 << 63  # ids are stored as int64
MAX_SHARDS = 99_999  # five digits in a file name
MAX_SEED = (1 << 64) - 1
MAX_SHARE = 1_000_000  # of a class, among all
MAX_DIGITS = 40  # Python refuses to read numbers of thousands

_SHARES = "shares="

# The second word of the Philox counter keeps the random streams of one block apart.
_LATENT_STREAM, _LABEL_STREAM = 0, 1


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Images ``start`` to ``start + count - 1``, stored together as part ``index`` of ``of``."""

    index: int
    of: int
    start: int
    count: int

    @property
    def stop(self) -> int:
        """One more than the index of the last image."""
        return self.start + self.count

    def name(self, split: str) -> str:
        """The shard's name as TensorFlow Datasets has it, such as ``train-00003-of-00010``."""
        return f"{split}-{self.index:05d}-of-{self.of:05d}"

    def blocks(self) -> Iterator[tuple[int, slice]]:
        """Each block that overlaps the shard, with the slice of the block that belongs to it."""
        for block in range(self.start // BLOCK_IMAGES, -(-self.stop // BLOCK_IMAGES)):
            first = block * BLOCK_IMAGES
            yield block, slice(max(self.start - first, 0), min(self.stop - first, BLOCK_IMAGES))


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """Images ``start`` to ``start + count - 1``, cut into ``shards`` parts."""

    start: int
    count: int
    shards: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError(f"count {self.count} is too small: ask for at least 1 image")
        if self.start < 0:
            raise UsageError(f"start {self.start} is negative: the first image is number 0")
        if self.start + self.count > MAX_INDEX:
            raise UsageError(
                f"start {self.start} + count {self.count} passes 2^63, the last image an int64 id can name"
            )
        if not 1 <= self.shards <= min(self._blocks, MAX_SHARDS):
            raise UsageError(
                f"shards {self.shards} does not fit {self.count} images from {self.start} on: a shard holds at least "
                f"one block of {BLOCK_IMAGES}; choose 1 to {min(self._blocks, MAX_SHARDS)}"
            )

    def __len__(self) -> int:
        return self.shards

    def __getitem__(self, index: int) -> Shard:
        """Shard ``index``; they are cut between blocks and as even as that allows."""
        if not 0 <= index < self.shards:
            raise IndexError(f"shard {index}: expected 0 to {self.shards - 1}")
        start, stop = self._edge(index), self._edge(index + 1)
        return Shard(index=index, of=self.shards, start=start, count=stop - start)

    def __iter__(self) -> Iterator[Shard]:
        """The shards in order."""
        return (self[index] for index in range(self.shards))

    def _edge(self, index: int) -> int:
        """The index of the first image of shard ``index``."""
        if index in (0, self.shards):
            return self.start + (self.count if index else 0)
        return (self.start // BLOCK_IMAGES + self._blocks * index // self.shards) * BLOCK_IMAGES

    @property
    def _blocks(self) -> int:
        return -(-(self.start + self.count) // BLOCK_IMAGES) - self.start // BLOCK_IMAGES


def pieces(count: int, size: int) -> Iterator[slice]:
    """Cut 0 … count - 1 into slices of ``size``; the last one may be shorter."""
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))


def default_shards(count: int) -> int:
    """One shard for every 6,000 images, at least one, at most 99,999."""
    return min(max(1, -(-count // IMAGES_PER_SHARD)), MAX_SHARDS)


@dataclass(frozen=True, kw_only=True)
class LabelRule:
    """The label of image ``i``: a pure function of the seed and ``i``.

    Without ``random``, the ``classes`` in turn (``balanced`` means all of them): in any run of consecutive indices the
    class counts differ by at most one. With ``random``, labels drawn uniformly and independently from ``classes``.
    With ``shares``, a whole number for each class, they are drawn independently in these proportions. Without classes
    (``NO_LABELS``) the images are unlabelled. There are ``of`` classes in all.
    """

    classes: tuple[int, ...]
    random: bool = False
    of: int = NUM_CLASSES
    shares: tuple[int, ...] = ()

    @property
    def labelled(self) -> bool:
        """Whether images have labels at all."""
        return bool(self.classes)

    @classmethod
    def parse(cls, text: str, of: int = NUM_CLASSES) -> "LabelRule":
        """Read ``balanced``, ``uniform``, labels such as ``0,3,7``, or shares of all classes such as ``shares=9,0,1``.

        Raises:
            UsageError: anything else, a label out of range, or a label named twice.
        """
        every = tuple(range(of))
        if text == "balanced":
            return cls(classes=every, of=of)
        if text == "uniform":
            return cls(classes=every, random=True, of=of)
        if text.startswith(_SHARES):
            return cls.shared(_shares(text, of))
        parts = [part.strip() for part in text.split(",")]
        if not all(part.isdecimal() and len(part) < MAX_DIGITS and int(part) < of for part in parts):
            raise UsageError(
                f"labels '{text:.80}': expected balanced, uniform, as-trained, or labels from 0 to {of - 1} such as 0,1"
            )
        labels = tuple(int(part) for part in parts)
        if len(set(labels)) < len(labels):
            raise UsageError(f"labels '{text}' names a label twice: name each once")
        return cls(classes=labels, of=of)

    @classmethod
    def shared(cls, shares: Sequence[int]) -> "LabelRule":
        """Classes drawn in the proportions of ``shares``: whole numbers, one for each class, at least one above 0."""
        return cls(classes=tuple(range(len(shares))), random=True, of=len(shares), shares=tuple(shares))

    @classmethod
    def recorded(cls, text: str, of: int = NUM_CLASSES) -> "LabelRule":
        """Read what ``str`` wrote: what ``parse`` reads, or ``none`` for unlabelled images; raises UsageError."""
        return NO_LABELS if text == "none" else cls.parse(text, of)

    def __str__(self) -> str:
        if not self.labelled:
            return "none"
        if self.shares:
            return _SHARES + ",".join(map(str, self.shares))
        if self.random:
            return "uniform"
        return "balanced" if self.classes == tuple(range(self.of)) else ",".join(map(str, self.classes))

    def labels(self, seed: int, block: int) -> npt.NDArray[np.uint8] | None:
        """The labels of one whole block, shape (256,) uint8; None for unlabelled images."""
        if not self.labelled:
            return None
        if self.shares:
            points = _random_labels(seed, block, sum(self.shares))
            drawn = np.searchsorted(np.cumsum(self.shares), points, side="right")
        elif self.random:
            drawn = _random_labels(seed, block, len(self.classes))
        else:
            first = block * BLOCK_IMAGES % len(self.classes)  # Python's integers do not overflow past 2^63
            drawn = (first + np.arange(BLOCK_IMAGES)) % len(self.classes)
        return np.asarray(self.classes, np.uint8)[drawn]

    def class_counts(self, seed: int, start: int, count: int) -> tuple[int, ...]:
        """How many of ``count`` images from ``start`` on have each of the ``of`` labels; all zero if unlabelled.

        Random labels are drawn for it, which takes a second for ten million images.
        """
        counts = np.zeros(self.of, np.int64)
        if self.random:
            for block in range(start // BLOCK_IMAGES, -(-(start + count) // BLOCK_IMAGES)):
                labels, first = self.labels(seed, block), block * BLOCK_IMAGES
                if labels is not None:
                    wanted = labels[max(0, start - first) : start + count - first]
                    counts += np.bincount(wanted, minlength=self.of)
        else:
            for place, label in enumerate(self.classes):  # so many numbers below n leave the remainder ``place``
                below_stop, below_start = (-((place - n) // len(self.classes)) for n in (start + count, start))
                counts[label] = below_stop - below_start
        return tuple(counts.tolist())


NO_LABELS = LabelRule(classes=())


def _shares(text: str, of: int) -> tuple[int, ...]:
    """The numbers of ``shares=9,0,1``; raises UsageError."""
    parts = text.removeprefix(_SHARES).split(",")
    if all(part.isdecimal() and part.isascii() and len(part) <= len(str(MAX_SHARE)) for part in parts):
        shares = tuple(map(int, parts))
        if len(shares) == of and 0 < max(shares) <= MAX_SHARE:
            return shares
    raise UsageError(
        f"labels '{text:.80}': expected a whole number from 0 to {MAX_SHARE:,} for each of the {of} classes, not all 0"
    )


def latent_words(seed: int, block: int, count: int) -> npt.NDArray[np.uint64]:
    """The first raw words of a block's latent stream, uint64, shape (count,); see docs/pixels.md."""
    return _philox(seed, block, _LATENT_STREAM).random_raw(count)


def float_latents(seed: int, block: int, size: int, distribution: str) -> npt.NDArray[np.float32]:
    """The latents of one whole block, shape (256, size) float32, for checkpoints of synthgen 0.1 and 0.2.

    They come from Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") keyed by (seed, block),
    so that a block can be drawn without those before it. ``gaussian`` is N(0, 1); ``uniform`` is U[0, 1).
    """
    stream = np.random.Generator(_philox(seed, block, _LATENT_STREAM))
    if distribution == "uniform":
        return stream.random((BLOCK_IMAGES, size), dtype=np.float32)
    return stream.standard_normal((BLOCK_IMAGES, size), dtype=np.float32)


def check_seed(seed: int) -> int:
    """Return ``seed`` if it lies in 0 … 2^64 - 1, else raise UsageError."""
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"seed {seed} is out of range: choose 0 to 2^64 - 1")
    return seed


def _random_labels(seed: int, block: int, classes: int) -> npt.NDArray[np.int64]:
    """The places, 0 to ``classes`` - 1, of a block's random labels, shape (256,).

    Lemire 2019 (arXiv:1805.10941, section 4) on the 32-bit halves of the raw words, the lower half first. That is what
    numpy's ``Generator.integers`` does, but numpy may change it.
    """
    threshold = np.uint64((1 << 32) % classes)
    count = BLOCK_IMAGES // 2
    while True:
        words = _philox(seed, block, _LABEL_STREAM).random_raw(count)
        products = words.astype("<u8", copy=False).view("<u4").astype(np.uint64) * np.uint64(classes)
        drawn = products[(products & np.uint64(0xFFFFFFFF)) >= threshold] >> np.uint64(32)
        if len(drawn) >= BLOCK_IMAGES:
            return drawn[:BLOCK_IMAGES].astype(np.int64)
        count += (BLOCK_IMAGES - len(drawn) + 1) // 2  # for ten classes a word in 400 million is left out


def _philox(seed: int, block: int, stream: int) -> np.random.Philox:
    key = np.array([seed, block], np.uint64)
    counter = np.array([0, stream, 0, 0], np.uint64)
    return np.random.Philox(key=key, counter=counter)
