"""What every format can do: write a shard, read it back, and say what others need to know about its files."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Self

from synthgen.errors import DataError, VerificationError
from synthgen.files import MALFORMED, is_own_file
from synthgen.index import MAX_INDEX, Shard
from synthgen.subject import FASHION, IMAGE_SIDE, Images, Labels, Subject

Run = tuple[Images, Labels | None]  # consecutive images and their labels
Digest = Callable[[], str]

IMAGE_SHAPE = (IMAGE_SIDE, IMAGE_SIDE)
MAX_DEFLATE_RATIO = 1032  # no deflated byte stands for more
_UNREADABLE: tuple[type[Exception], ...] = (*MALFORMED, DataError)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Consecutive images of a set.

    Attributes:
        start: index of the first image.
        images: uint8, shape (n, 28, 28).
        labels: uint8, shape (n,); None for an unlabelled set.
    """

    start: int
    images: Images
    labels: Labels | None

    def __len__(self) -> int:
        return len(self.images)


class Format(ABC):
    """A file format. Every set in it can be loaded with no code of ours.

    Attributes:
        name: as the command line and the manifest name it.
        bytes_an_image: on the disk, measured on 60,000 images and rounded up.
        one_shard: a set is one shard unless asked otherwise.
        one_file: a set is one file by nature, and cannot be cut.
        max_images: the most that a set can hold.
        file_an_image: every image is a file of its own, named by ``listed``.
        data_files: where Hugging Face's ``load_dataset`` finds a ``{split}``, as a glob; None: it cannot read them.
        encodings: MIME types by suffix, for Croissant.
        subject: what the images of the sets show: names of classes stand in files and folders. See ``showing``.
    """

    name: ClassVar[str]
    bytes_an_image: ClassVar[int]
    one_shard: ClassVar[bool] = False
    one_file: ClassVar[bool] = False
    max_images: ClassVar[int] = MAX_INDEX
    file_an_image: ClassVar[bool] = False
    data_files: ClassVar[str | None] = None
    encodings: ClassVar[Mapping[str, str]] = {}
    subject: Subject = FASHION

    def showing(self, subject: Subject) -> Self:
        """The same format, for sets of another subject."""
        other = copy.copy(self)
        other.subject = subject
        return other

    @abstractmethod
    def write(
        self, folder: Path, shard: Shard, split: str, batches: Iterator[Batch], digest: Digest, *, labelled: bool
    ) -> list[str]:
        """Write one shard.

        Args:
            folder: where to write; the caller moves the files to their final names once the shard is whole.
            shard: which images.
            split: ``train`` or ``test``.
            batches: the images, in index order.
            digest: gives the shard's logical digest, once all batches are taken.
            labelled: whether the images have labels.

        Returns:
            The names of the shard's files, relative to ``folder``; the reader is given them in this order.
        """

    @abstractmethod
    def read(self, folder: Path, names: Sequence[str], count: int) -> Iterator[Run]:
        """The images of a shard's files; ``read_shard`` checks what all formats have in common.

        Files may come from strangers: shapes and lengths are checked before anything is allocated.

        Raises:
            DataError, or any of ``files.MALFORMED``: the files are not what this format writes.
        """

    @abstractmethod
    def loader(self, split: str, *, labelled: bool) -> list[str]:
        """Python that loads a split with the libraries that its users have, at most three lines."""

    def read_shard(self, folder: Path, names: Sequence[str], count: int) -> Iterator[Run]:
        """Yield the images of one shard, in index order: uint8 (n, 28, 28), and labels, uint8 (n,), or None.

        Args:
            folder: the exported set.
            names: the shard's files, relative to ``folder``.
            count: how many images the shard must hold.

        Raises:
            VerificationError: a file is missing or malformed, holds a label of no class, or the shard does not hold
                ``count`` images.
        """
        found, classes = 0, self.subject.num_classes
        for name in names:
            if not is_own_file(folder, name):
                raise VerificationError(f"{name}: missing")
        try:
            for images, labels in self.read(folder, names, count):
                found += len(images)
                if found > count:
                    break
                if labels is not None and labels.max(initial=0) >= classes:
                    raise VerificationError(f"{names[0]}: label {labels.max()} found; expected 0 to {classes - 1}")
                yield images, labels
        except _UNREADABLE as error:
            raise VerificationError(f"{names[0]}: not readable as {self.name}: {error}") from error
        if found != count:
            amount = f"{found} images" if found < count else "more images"
            raise VerificationError(f"{names[0]}: {amount} found; expected {count}")

    def listed(self, folder: Path, names: Sequence[str], count: int) -> list[tuple[str, str]]:
        """(SHA-256, name) of the files that a shard's own files list, and the manifest does not.

        Raises:
            OSError, ValueError: the list cannot be read.
        """
        return []

    def folders(self, split: str, *, labelled: bool) -> set[str]:
        """Folders that a split has even where no file lies in them."""
        return set()

    def sidecars(
        self, split: str, shard_counts: Sequence[int], shard_bytes: int, *, labelled: bool
    ) -> dict[str, bytes]:
        """What other libraries want beside the shards: name → content. ``shard_counts`` are numbers of images."""
        return {}

    def merged_sidecar(self, name: str, contents: Sequence[bytes]) -> bytes:
        """A sidecar of several splits in one folder, from that of each: by default they are all equal."""
        return contents[0]

    def encoding(self, name: str) -> str:
        """The MIME type of one of a set's files."""
        return self.encodings.get(PurePosixPath(name).suffix, "application/octet-stream")

    def file_sets(self, splits: Sequence[str]) -> list[dict[str, Any]]:
        """Croissant's description of files that the manifest does not name one by one."""
        return []

    def image_fields(self, *, labelled: bool) -> list[dict[str, Any]]:
        """Croissant's fields of a record an image; none where Croissant cannot describe how to read one."""
        return []


def array_loader(module: str, opener: str, files: str, take: str, *, labelled: bool) -> list[str]:
    """The ``Format.loader`` of ``files`` (a glob) that hold the arrays ``images`` and ``labels``.

    ``opener`` opens a file by its name, with ``module`` imported; ``take``, behind an array's name, gives its content.
    """
    load = f"images = numpy.concatenate([file['images']{take} for file in files])"
    if labelled:
        pieces = f"numpy.concatenate([file[name]{take} for file in files])"
        load = f'images, labels = ({pieces} for name in ("images", "labels"))'
    return [
        f"import {', '.join(filter(None, ('glob', module, 'numpy')))}",
        f'files = [{opener}(name) for name in sorted(glob.glob("{files}"))]',
        load,
    ]
