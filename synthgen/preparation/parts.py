"""What a source is read as: the labels of a split at once, and its images some at a time."""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from synthgen.errors import DataError
from synthgen.files import MALFORMED
from synthgen.subject import MAX_CLASSES

Paths = tuple[tuple[str, str], ...]  # of image files: the path, and the name to show
Encoded = tuple[tuple[str, bytes | None], ...]  # the name to show, and an image file's content, if it is there
Pixels = npt.NDArray[Any]  # (n, height, width) or (n, height, width, channels)
Chunk = Paths | Encoded | Pixels

_DAMAGED: tuple[type[Exception], ...] = (*MALFORMED, IndexError, AttributeError, MemoryError)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One split of a source.

    Attributes:
        place: the file or folder, for messages.
        class_names: those that occur, in label order.
        labels: int64, shape (N,): indices into ``class_names``.
        chunks: begins to yield the images anew, in the order of the labels: chunks of N images in all.
        chunk_count: how many chunks there are.
    """

    place: str
    class_names: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    chunks: Callable[[], Iterator[Chunk]]
    chunk_count: int


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a folder or a file holds.

    Attributes:
        kind: for people: ``class folders``, ``IDX``, ``NPZ``, ``HDF5`` or ``Parquet``.
        train: the training split, if it holds one.
        test: the test split, if it holds one.
        left_out: names in it that are not read.
        unreadable: (name, why) of what should be an image and is not.
    """

    kind: str
    train: Part | None
    test: Part | None
    left_out: tuple[str, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = field(default=())


@contextlib.contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Whatever a damaged file makes its reader raise becomes one line that names it.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        yield
    except DataError:
        raise
    except _DAMAGED as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if isinstance(error, OSError) and error.strerror:
            path, reason = Path(error.filename or path), error.strerror
        raise DataError(f"{path}: cannot be read as {kind}: {reason}") from error


def classes_of(
    values: Sequence[str] | npt.NDArray[Any], names: Sequence[str] | None = None
) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """The classes that occur, in label order, and for every image the index of its class.

    Args:
        values: the class of every image, as integers or texts. Integers keep their order; texts are sorted as people
            sort them, with 2 before 10.
        names: of the integers 0, 1, …; by default they are their own names.

    Raises:
        ValueError: there are more than 256 classes, or an integer has no name.
    """
    array = np.asarray(values)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    found, indices = np.unique(array, return_inverse=True)
    if len(found) > MAX_CLASSES:
        raise ValueError(f"{len(found):,} classes; expected at most {MAX_CLASSES}: a label is a byte")
    if array.dtype.kind == "U":
        texts = [str(value) for value in found]
        order = sorted(range(len(texts)), key=lambda i: natural(texts[i]))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        return tuple(texts[i] for i in order), rank[indices.reshape(-1)] if len(texts) else indices.reshape(-1)
    if names is not None and any(not 0 <= value < len(names) for value in found):
        raise ValueError(f"labels from {found[0]} to {found[-1]}, but {len(names)} class names")
    return tuple(str(value) if names is None else names[value] for value in found), indices.reshape(-1)


def natural(text: str) -> tuple[list[Any], str]:
    """A key that sorts ``image2`` before ``image10``."""
    pieces = re.split(r"([0-9]+)", text)  # every second one is a number
    pieces[1::2] = [piece.lstrip("0") for piece in pieces[1::2]]
    return [(len(piece), piece) if i % 2 else piece.casefold() for i, piece in enumerate(pieces)], text
