"""The same images as every kind of source, and files that a source may hold."""

import gzip
import io
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from synthgen.formats.idx import read_idx_images, read_idx_labels

CLASSES = ("bird", "cat", "dog 2", "dog 10")  # sorted as people sort them


def images_of(count: int = 240, *, size: tuple[int, ...] = (28, 28), seed: int = 0) -> np.ndarray:
    """Images that differ, with a dark background."""
    images = np.random.default_rng(seed).integers(0, 256, (count, *size), np.uint8)
    images[:, 0], images[:, -1] = 0, 0
    return images


def labels_of(count: int = 240, classes: int = 4) -> np.ndarray:
    return (np.arange(count) * 7 % classes).astype(np.uint8)


def png(image: np.ndarray | Image.Image, kind: str = "PNG", **options) -> bytes:
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def write_folders(root: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = root / CLASSES[label] / ("deeper/still" if i % 3 == 0 else "")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.png").write_bytes(png(image))
    return root


def write_npz(path: Path, images: np.ndarray, labels: np.ndarray, names=("images", "labels")) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **{names[0]: images, names[1]: np.array(CLASSES)[labels]})
    return path


def write_hdf5(path: Path, images: np.ndarray, labels: np.ndarray, **options) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, **options)
        file.create_dataset("labels", data=labels)
    return path


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_idx(folder: Path, images: np.ndarray, labels: np.ndarray, prefix: str = "train", *, packed=True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in ((f"images-idx{images.ndim}", images), ("labels-idx1", labels)):
        data = idx_bytes(array)
        path = folder / f"{prefix}-{name}-ubyte{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(data, mtime=0) if packed else data)
    return folder


def write_parquet(path: Path, images: list[bytes], labels: np.ndarray, *, names=CLASSES, structs: bool = True) -> Path:
    """As the library ``datasets`` writes them."""
    import json

    import pyarrow
    import pyarrow.parquet

    values = [{"bytes": data, "path": f"{i}.png"} for i, data in enumerate(images)] if structs else images
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()}) if structs else pyarrow.binary()
    features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    table = pyarrow.table({"image": pyarrow.array(values, kind), "label": pyarrow.array(labels, pyarrow.int64())})
    if names:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path, row_group_size=100)
    return path


WRITERS: dict[str, Callable[[Path, np.ndarray, np.ndarray], Path]] = {
    "folders": lambda path, images, labels: write_folders(path / "folders", images, labels),
    "npz": lambda path, images, labels: write_npz(path / "x.npz", images, labels),
    "hdf5": lambda path, images, labels: write_hdf5(path / "x.h5", images, labels, chunks=True, compression="gzip"),
    "idx": lambda path, images, labels: write_idx(path / "idx", images, labels),
    "idx raw": lambda path, images, labels: write_idx(path / "raw", images, labels, packed=False),
    "parquet": lambda path, images, labels: write_parquet(
        path / "train.parquet", [png(image) for image in images], labels
    ),
}


def prepared(out: Path, prefix: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """The images and labels that ``prepare`` wrote."""
    return read_idx_images(out / f"{prefix}-images-idx3-ubyte.gz"), read_idx_labels(
        out / f"{prefix}-labels-idx1-ubyte.gz"
    )
