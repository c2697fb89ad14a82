"""Write shards: one writer a format, all behind one protocol, each loadable with no code of ours.

A writer puts one shard's files into a staging folder; the caller moves them to their final names once the shard
is whole. ``WRITERS`` is the table of formats; ``sidecars`` writes what some readers want beside the shards.
"""

import gzip
import io
import json
import zipfile
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self, cast

import h5py
import numpy as np

from synthgen.errors import UsageError
from synthgen.fashion import CLASS_NAMES, IMAGE_SIDE, class_folder
from synthgen.files import publish, sha256_of_bytes
from synthgen.formats.base import Batch
from synthgen.formats.idx import IDX_PREFIX, idx_header
from synthgen.formats.png import encode_pngs
from synthgen.formats.tfrecord import example_bytes, record_bytes
from synthgen.index import Shard

DATASET_NAME = "fashion_mnist_synth"
_HDF5_CHUNK_IMAGES = 64  # random access decompresses 50 KB, not a megabyte
_GZIP_LEVEL = 6
INFO_NAME = "dataset_info.json"  # TensorFlow Datasets' list of splits


class Writer(Protocol):
    """Writes one shard into a folder; use as a context manager, batches in index order, then ``finish``."""

    def __init__(self, folder: Path, shard: Shard, split: str, *, labelled: bool) -> None: ...

    def write(self, batch: Batch) -> None:
        """Append a batch."""

    def finish(self, digest: str) -> None:
        """Complete the shard; ``digest`` is its logical digest."""

    @property
    def names(self) -> list[str]:
        """The files written, relative to the folder; readers are given them in this order."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class _BaseWriter:
    suffix = ""

    def __init__(self, folder: Path, shard: Shard, split: str, *, labelled: bool) -> None:
        self.folder, self.shard, self.split, self.labelled = folder, shard, split, labelled

    @property
    def names(self) -> list[str]:
        return [f"{self.shard.name(self.split)}{self.suffix}"]

    @property
    def path(self) -> Path:
        return self.folder / self.names[0]

    def finish(self, digest: str) -> None:
        """Nothing to add: the digest stands in the manifest."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release what is open."""


class TFRecordWriter(_BaseWriter):
    """One ``tf.train.Example`` an image: ``image`` (PNG bytes), ``label`` and ``id`` (int64); uncompressed."""

    def __init__(self, folder: Path, shard: Shard, split: str, *, labelled: bool) -> None:
        super().__init__(folder, shard, split, labelled=labelled)
        self._stream = self.path.open("wb")

    @property
    def names(self) -> list[str]:
        shard = self.shard
        return [f"{DATASET_NAME}-{self.split}.tfrecord-{shard.index:05d}-of-{shard.of:05d}"]

    def write(self, batch: Batch) -> None:
        labels = None if batch.labels is None else batch.labels.tolist()
        for i, png in enumerate(encode_pngs(batch.images)):
            example = example_bytes(png, batch.start + i, None if labels is None else labels[i])
            self._stream.write(record_bytes(example))

    def close(self) -> None:
        self._stream.close()


class HDF5Writer(_BaseWriter):
    """Datasets ``images`` (N, 28, 28) and ``labels`` (N,), uint8; class names and digest as attributes."""

    suffix = ".h5"

    def __init__(self, folder: Path, shard: Shard, split: str, *, labelled: bool) -> None:
        super().__init__(folder, shard, split, labelled=labelled)
        self._stream = _HeldErrorFile(self.path, "w+")
        self._file = h5py.File(self._stream, "w")
        chunk = min(_HDF5_CHUNK_IMAGES, shard.count)
        self._images = self._file.create_dataset(
            "images",
            (shard.count, IMAGE_SIDE, IMAGE_SIDE),
            np.uint8,
            chunks=(chunk, IMAGE_SIDE, IMAGE_SIDE),
            compression="gzip",
            compression_opts=4,
        )
        self._labels = self._file.create_dataset("labels", (shard.count,), np.uint8) if labelled else None
        self._file.attrs["class_names"] = list(CLASS_NAMES)
        self._file.attrs["first_id"] = shard.start

    def write(self, batch: Batch) -> None:
        first = batch.start - self.shard.start
        self._images[first : first + len(batch)] = batch.images
        if self._labels is not None:
            self._labels[first : first + len(batch)] = batch.labels

    def finish(self, digest: str) -> None:
        self._file.attrs["digest"] = digest

    def close(self) -> None:
        self._file.close()
        self._stream.close()


class _HeldErrorFile(io.FileIO):
    """A file whose first failed write is raised when it is closed.

    The HDF5 library flushes its caches whenever and from wherever it likes, and a flush that fails brings the whole
    process down; so writes behind a failure are dropped, and the failure is told once HDF5 is out of the way.
    """

    _failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        written = 0
        while written < len(view) and self._failure is None:  # a raw write may be short, and h5py does not look
            try:
                written += super().write(view[written:])
            except OSError as error:
                self._failure = error
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        return super().truncate(size) if self._failure is None else (size or 0)

    def close(self) -> None:
        super().close()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure


class PNGWriter(_BaseWriter):
    """A PNG file an image in class folders, and a ``sha256sum`` listing of the shard's files."""

    def __init__(self, folder: Path, shard: Shard, split: str, *, labelled: bool) -> None:
        super().__init__(folder, shard, split, labelled=labelled)
        self._listing: list[str] = []
        folders = [class_folder(label) for label in range(len(CLASS_NAMES))] if labelled else ["unlabelled"]
        for name in folders:
            (folder / split / name).mkdir(parents=True, exist_ok=True)

    @property
    def names(self) -> list[str]:
        return [f"checksums/{self.shard.name(self.split)}.sha256"]

    def write(self, batch: Batch) -> None:
        for i, data in enumerate(encode_pngs(batch.images)):
            class_name = "unlabelled" if batch.labels is None else class_folder(int(batch.labels[i]))
            name = f"{self.split}/{class_name}/{batch.start + i:09d}.png"
            (self.folder / name).write_bytes(data)
            self._listing.append(f"{sha256_of_bytes(data)}  {name}\n")

    def finish(self, digest: str) -> None:
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text("".join(self._listing), "utf-8")


class IDXWriter(_BaseWriter):
    """The original's own file names and layout, gzipped, so that any Fashion-MNIST loader reads the set."""

    def __init__(self, folder: Path, shard: Shard, split: str, *, labelled: bool) -> None:
        super().__init__(folder, shard, split, labelled=labelled)
        self._files = [(folder / name).open("wb") for name in self.names]
        self._streams = [self._stream(file) for file in self._files]
        for stream, is_images in zip(self._streams, (True, False), strict=False):
            stream.write(idx_header(shard.count, images=is_images))

    @property
    def names(self) -> list[str]:
        prefix = IDX_PREFIX[self.split]
        labels = [f"{prefix}-labels-idx1-ubyte.gz"] if self.labelled else []
        return [f"{prefix}-images-idx3-ubyte.gz", *labels]

    def write(self, batch: Batch) -> None:
        self._streams[0].write(batch.images.tobytes())
        if batch.labels is not None:
            self._streams[1].write(batch.labels.tobytes())

    def close(self) -> None:
        for stream in (*self._streams, *self._files):
            stream.close()

    def _stream(self, file: BinaryIO) -> BinaryIO:
        return cast(BinaryIO, _gzip_without_time(file))


class RawIDXWriter(IDXWriter):
    """The same uncompressed, as torchvision's ``FashionMNIST`` wants it in ``ROOT/FashionMNIST/raw``."""

    @property
    def names(self) -> list[str]:
        return [name.removesuffix(".gz") for name in super().names]

    def _stream(self, file: BinaryIO) -> BinaryIO:
        return file


class NPZWriter(_BaseWriter):
    """``images`` and ``labels`` for ``np.load``, compressed; streamed, so that no shard is held in memory."""

    suffix = ".npz"

    def __init__(self, folder: Path, shard: Shard, split: str, *, labelled: bool) -> None:
        super().__init__(folder, shard, split, labelled=labelled)
        self._archive = zipfile.ZipFile(self.path, "w", zipfile.ZIP_DEFLATED, compresslevel=_GZIP_LEVEL)
        self._labels: list[bytes] = []
        self._images = self._member("images.npy", (shard.count, IMAGE_SIDE, IMAGE_SIDE))

    def write(self, batch: Batch) -> None:
        self._images.write(batch.images.tobytes())
        if batch.labels is not None:
            self._labels.append(batch.labels.tobytes())

    def finish(self, digest: str) -> None:
        self._images.close()
        if self.labelled:
            with self._member("labels.npy", (self.shard.count,)) as stream:
                stream.write(b"".join(self._labels))

    def close(self) -> None:
        self._images.close()
        self._archive.close()

    def _member(self, name: str, shape: tuple[int, ...]) -> Any:
        info = zipfile.ZipInfo(name)  # dated 1980: the same set gives the same bytes
        info.compress_type = zipfile.ZIP_DEFLATED
        stream = self._archive.open(info, "w", force_zip64=True)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        return stream


WRITERS: dict[str, type[Writer]] = {
    "tfrecord": TFRecordWriter,
    "hdf5": HDF5Writer,
    "png": PNGWriter,
    "idx": IDXWriter,
    "idx-raw": RawIDXWriter,
    "npz": NPZWriter,
}
IDX_FORMATS = ("idx", "idx-raw")
SINGLE_FILE_FORMATS = (*IDX_FORMATS, "npz")  # one shard unless asked otherwise


def check_format(name: str) -> str:
    """Return ``name`` if it is a format, else raise UsageError."""
    if name not in WRITERS:
        raise UsageError(f"format '{name}': expected one of {', '.join(WRITERS)}")
    return name


def write_sidecars(
    folder: Path, file_format: str, split: str, shard_counts: list[int], shard_bytes: int, *, labelled: bool
) -> list[str]:
    """Write what TensorFlow Datasets needs beside TFRecord shards; other formats need nothing.

    Returns:
        The names of the files written, relative to ``folder``.
    """
    if file_format != "tfrecord":
        return []
    documents = {
        INFO_NAME: json.dumps(_dataset_info(split, shard_counts, shard_bytes, labelled), indent=2),
        "features.json": json.dumps(_features(labelled), indent=2),
    }
    if labelled:
        documents["label.labels.txt"] = "\n".join(CLASS_NAMES)
    for name, text in documents.items():
        with publish(folder / name) as partial:
            partial.write_text(text + "\n", "utf-8")
    return list(documents)


def _gzip_without_time(file: BinaryIO) -> gzip.GzipFile:
    """A gzip stream with no name and no time in its header: the same set gives the same bytes."""
    return gzip.GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=file, mtime=0)


def _dataset_info(split: str, shard_counts: list[int], shard_bytes: int, labelled: bool) -> dict[str, Any]:
    info: dict[str, Any] = {
        "name": DATASET_NAME,
        "version": "1.0.0",
        "description": "Synthetic Fashion-MNIST images; manifest.json says which checkpoint drew them.",
        "citation": "",
        "fileFormat": "tfrecord",
        "splits": [
            {
                "name": split,
                "numBytes": str(shard_bytes),
                "shardLengths": [str(count) for count in shard_counts],
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
        ],
    }
    if labelled:
        info["supervisedKeys"] = {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}}
    return info


def _features(labelled: bool) -> dict[str, Any]:
    core = "tensorflow_datasets.core.features"
    features: dict[str, Any] = {
        "image": {
            "pythonClassName": f"{core}.image_feature.Image",
            "image": {
                "shape": {"dimensions": [str(IMAGE_SIDE), str(IMAGE_SIDE), "1"]},
                "dtype": "uint8",
                "encodingFormat": "png",
            },
        }
    }
    if labelled:
        features["label"] = {
            "pythonClassName": f"{core}.class_label_feature.ClassLabel",
            "classLabel": {"numClasses": str(len(CLASS_NAMES))},
        }
    return {
        "pythonClassName": f"{core}.features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }
