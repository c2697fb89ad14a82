"""The real Fashion-MNIST images: found on this machine or downloaded, checked, and read.

The four IDX files are searched for in ``--data``, ``$SYNTHGEN_DATA``, Debian's ``dataset-fashion-mnist`` and Keras's
cache, then downloaded into that cache. The SHA-256 of their *decompressed* content is checked, since distributors
recompress them.
"""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from synthgen.errors import DataError
from synthgen.files import publish
from synthgen.formats.idx import IDX_PREFIX, idx_count, idx_header, read_idx_images, read_idx_labels
from synthgen.preparation.record import expect_files, read_data_json
from synthgen.subject import FASHION, Images, Labels, Subject, undescribed
from synthgen.untrusted.files import inflated

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
DOWNLOAD_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
_DOWNLOAD_TIMEOUT_S = 20
_MAX_OFFICIAL_BYTES = 64 << 20  # 64 MiB: the largest of the four has 47 MB

_OFFICIAL_COUNTS = {"train": 60_000, "test": 10_000}
OFFICIAL_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


@dataclass(frozen=True, kw_only=True)
class RealImages:
    """Real images with their labels.

    Attributes:
        images: uint8, shape (N, 28, 28).
        labels: uint8, shape (N,).
        sha256: of the images' and then the labels' bytes.
        subject: what they show.
        official: whether the content is the official split, byte for byte.
    """

    images: Images
    labels: Labels
    sha256: str
    subject: Subject
    official: bool

    @classmethod
    def of(cls, images: Images, labels: Labels, *, subject: Subject, official: bool) -> "RealImages":
        """Join images and labels, and hash them."""
        digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
        return cls(images=images, labels=labels, sha256=digest, subject=subject, official=official)

    def __len__(self) -> int:
        return len(self.images)


def find_data(folder: Path | None = None, *, download: bool = True) -> Path:
    """The folder of the real images.

    Args:
        folder: the only place searched; by default ``$SYNTHGEN_DATA`` if it is set, else the usual places, then the
            network.
        download: whether they may be downloaded.

    Raises:
        DataError: a named folder has no training split, or the four files are in no other place and cannot be
            downloaded.
    """
    if folder is None and (named := os.environ.get("SYNTHGEN_DATA")):
        folder = Path(named)
    needed = _names("train") if folder else OFFICIAL_SHA256  # images of one's own may have no test split
    for candidate in [folder] if folder else [DEBIAN_FOLDER, _keras_cache()]:
        if all(_idx_path(candidate, name) for name in needed):
            return candidate
    if folder:
        raise DataError(
            f"{folder}: no Fashion-MNIST here; expected {', '.join(OFFICIAL_SHA256)} (.gz or not); images of your own, "
            "of any form, go through synthgen prepare first"
        )
    if not download:
        raise DataError(f"not found in {DEBIAN_FOLDER} or {_keras_cache()}")
    return _download()


def has_split(folder: Path, split: str) -> bool:
    """Whether a folder has images of ``train`` or of ``test``; one file of the two is enough, the other is missed."""
    return any(_idx_path(folder, name) for name in _names(split))


def load_real_images(split: str, folder: Path | None = None, *, official: bool = True) -> RealImages:
    """Load one split of the real images.

    Args:
        split: ``train`` (60,000) or ``test`` (10,000).
        folder: where the four files are; by default see ``find_data``.
        official: refuse anything but the official content, or what ``synthgen prepare`` has described.

    Raises:
        DataError: the files are missing, malformed or (``official``) not the official ones.
    """
    folder = find_data(folder)
    preparation = read_data_json(folder)
    if preparation is not None:
        official = False
        expect_files(folder, preparation)
        if not preparation.counts[split]:
            raise DataError(f"{folder}: has no {split} split; run synthgen prepare anew, with --test or --test-share")
    names = _names(split)
    paths = [_require(folder, name) for name in names]
    if official and idx_count(paths[0]) > _OFFICIAL_COUNTS[split]:  # a small file may unpack to gigabytes
        raise _not_official(folder, split)
    images, labels = read_idx_images(paths[0]), read_idx_labels(paths[1])
    if not len(images):
        raise DataError(f"{folder}: the {split} split is empty")
    if len(images) != len(labels):
        raise DataError(f"{folder}: {len(images)} images but {len(labels)} labels in the {split} split")
    known = all(
        _idx_sha256(array) == OFFICIAL_SHA256[name] for array, name in zip((images, labels), names, strict=True)
    )
    if official and not known:
        raise _not_official(folder, split)
    subject = undescribed(int(labels.max()) + 1) if preparation is None else preparation.subject
    return RealImages.of(images, labels, subject=FASHION if known else subject, official=known)


def _names(split: str) -> tuple[str, str]:
    """The files of a split's images and labels, without ``.gz``."""
    prefix = IDX_PREFIX[split]
    return f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"


def _not_official(folder: Path, split: str) -> DataError:
    return DataError(
        f"{folder}: the {split} split is not the official Fashion-MNIST; fetch it anew; "
        "images of your own go through synthgen prepare first"
    )


def _idx_sha256(array: npt.NDArray[np.uint8]) -> str:
    header = idx_header(len(array), images=array.ndim == 3)
    return hashlib.sha256(header + array.tobytes()).hexdigest()


def _idx_path(folder: Path, name: str) -> Path | None:
    return next((p for p in (folder / f"{name}.gz", folder / name) if p.is_file()), None)


def _require(folder: Path, name: str) -> Path:
    path = _idx_path(folder, name)
    if path is None:
        raise DataError(f"{folder}: {name}.gz is missing")
    return path


def _keras_cache() -> Path:
    home = os.environ.get("KERAS_HOME")
    try:
        keras = Path(home) if home else Path.home() / ".keras"
    except RuntimeError:  # a user without a home: Keras then does the same
        keras = Path(tempfile.gettempdir()) / ".keras"
    return keras / "datasets" / "fashion-mnist"


def _download() -> Path:
    """Download the four files into Keras's cache, checking each before it gets its final name."""
    import urllib.request  # slow to import, and rarely needed

    folder = _keras_cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, expected in OFFICIAL_SHA256.items():
            if _idx_path(folder, name):
                continue
            with urllib.request.urlopen(f"{DOWNLOAD_URL}{name}.gz", timeout=_DOWNLOAD_TIMEOUT_S) as response:
                content = response.read(_MAX_OFFICIAL_BYTES)
            if hashlib.sha256(inflated(content, _MAX_OFFICIAL_BYTES, gzipped=True)).hexdigest() != expected:
                raise DataError(f"{DOWNLOAD_URL}{name}.gz is not the official file")
            with publish(folder / f"{name}.gz") as partial:
                partial.write_bytes(content)
    except (OSError, ValueError) as error:
        raise DataError(
            f"Fashion-MNIST is not on this machine and cannot be downloaded ({error}): install Debian's package "
            "dataset-fashion-mnist, or name the folder of its four files with --data or $SYNTHGEN_DATA"
        ) from error
    return folder
