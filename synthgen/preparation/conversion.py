"""The images of a part as 28×28 pixels, on every processor."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from synthgen.errors import DataError
from synthgen.preparation.fitting import fitted, fitted_array
from synthgen.preparation.parts import Chunk, Part
from synthgen.subject import IMAGE_SIDE, Images, Labels
from synthgen.untrusted.files import read_file
from synthgen.untrusted.pictures import decoded
from synthgen.workers import Progress, Work, run_in_pool

_MAX_FILE_BYTES = 512 << 20  # 512 MiB: 89 million pixels of 16-bit RGB
_FEW_CHUNKS = 4  # not worth the start of a process

Unreadable = tuple[str, str]  # the name of what cannot be read, and why


@dataclass(frozen=True, kw_only=True)
class Converted:
    """The images of a part: uint8 (N, 28, 28), labels uint8 (N,), and what could not be read."""

    images: Images
    labels: Labels
    unreadable: tuple[Unreadable, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.images)


def convert(part: Part, *, invert: bool, workers: int, progress: Progress) -> Converted:
    """Read and fit every image of ``part``.

    It holds 784 bytes an image, and in each process the picture that is being fitted.

    Args:
        part: what to read.
        invert: whether black becomes white.
        workers: how many processes.
        progress: called with the number of images just finished.

    Raises:
        DataError: the source itself is damaged, or a value in an array is out of range.
        WorkerError: a process died.
    """
    pixels, kept, unreadable = bytearray(), [], []
    work = partial(fitted_chunk, place=part.place, invert=invert)
    chunks = _Lazy(part)
    if workers == 1 or len(chunks) <= _FEW_CHUNKS:
        results: Iterator[_Result] = (work(chunk, _ignore) for chunk in chunks)
    else:
        results = run_in_pool(partial(_prepare, work), chunks, workers=workers)
    for images, found, bad in results:
        pixels += images.tobytes()
        kept.append(found)
        unreadable += bad
        progress(len(found))
    chunks.expect_end()
    mask = np.concatenate([np.empty(0, bool), *kept])
    if len(mask) != len(part.labels):
        raise DataError(f"{part.place}: {len(mask):,} images, but {len(part.labels):,} labels")
    return Converted(
        images=np.frombuffer(pixels, np.uint8).reshape(-1, IMAGE_SIDE, IMAGE_SIDE),
        labels=part.labels[mask].astype(np.uint8),
        unreadable=tuple(unreadable),
    )


_Result = tuple[Images, npt.NDArray[np.bool_], list[Unreadable]]


def fitted_chunk(chunk: Chunk, progress: Progress, *, place: str, invert: bool) -> _Result:
    """The images of a chunk, which of it they are, and what could not be read.

    Raises:
        DataError: an array holds values out of range.
    """
    if isinstance(chunk, np.ndarray):
        try:
            return fitted_array(chunk, invert=invert), np.ones(len(chunk), bool), []
        except ValueError as error:
            raise DataError(f"{place}: {error}; scale them") from error
    images: list[Images] = []
    kept = np.zeros(len(chunk), bool)
    bad: list[Unreadable] = []
    for i, (first, second) in enumerate(chunk):
        name = second if isinstance(second, str) else first
        try:
            images.append(fitted(decoded(_content(first, second)), invert=invert))
            kept[i] = True
        except OSError as error:
            bad.append((name, error.strerror or str(error)))
        except ValueError as error:
            bad.append((name, str(error)))
    stacked = np.stack(images) if images else np.empty((0, IMAGE_SIDE, IMAGE_SIDE), np.uint8)
    return stacked, kept, bad


def _content(first: str, second: str | bytes | None) -> bytes:
    """The content of an image file, of (path, name) or (name, content)."""
    if isinstance(second, str):
        return read_file(Path(first), _MAX_FILE_BYTES)
    if second is None:
        raise ValueError("holds no image file, at most the path of one")
    return second


class _Lazy(Sequence[Chunk]):
    """Chunks as a sequence of known length whose items are taken once, in order."""

    def __init__(self, part: Part) -> None:
        self._chunks, self._count, self._place, self._taken = part.chunks(), part.chunk_count, part.place, 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Chunk]:
        return (self[i] for i in range(self._count))

    def __getitem__(self, index: int) -> Chunk:  # type: ignore[override]
        if index != self._taken:
            raise IndexError(f"chunk {index} is asked for, {self._taken} is next")
        self._taken += 1
        chunk = next(self._chunks, None)
        if chunk is None:
            raise DataError(f"{self._place}: fewer images than labels")
        return chunk

    def expect_end(self) -> None:
        """Read on to the end, where a reader checks that nothing is left over."""
        if next(self._chunks, None) is not None:
            raise DataError(f"{self._place}: more images than labels")


def _prepare(work: Callable[[Chunk, Progress], _Result]) -> Work:
    return work


def _ignore(amount: int) -> None:
    pass
