"""The reference classifier of images that are not Fashion-MNIST: trained on them once, and kept beside them.

It is ``small_cnn`` as for Fashion-MNIST, trained without protection: its weights tell of single images. So it stays in
the folder of the images, under a name that says so, with a record of which images it was trained on. It is used again
for these very images only. What is damaged or of others is trained anew and replaced.
"""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from synthgen.errors import DataError
from synthgen.evaluation.classifiers import BATCH, small_cnn, train_small_cnn
from synthgen.evaluation.material import FULL, Material
from synthgen.evaluation.real import is_described
from synthgen.evaluation.reference import (
    MAX_WEIGHTS_BYTES,
    Reference,
    extract,
    load_reference,
    load_weights,
    save_reference,
    seeing,
)
from synthgen.files import MALFORMED, sha256_of_bytes, write_json
from synthgen.subject import FASHION
from synthgen.untrusted.files import read_file
from synthgen.untrusted.text import parse_json

KEPT_NAME = "reference-classifier-unprotected.npz"
RECORD_NAME = "reference-classifier-unprotected.json"
NOTICE = (
    "A classifier trained on the images in this folder without any protection: keep it as private as the images "
    "themselves. synthgen evaluate makes it anew if it is deleted."
)
_SCHEMA_VERSION = 1
_SEED = 0
_MAX_RECORD_BYTES = 64 << 10  # 64 KiB
_PROBED = 1_000  # images by which it is seen whether the shipped classifier knows what they show
_LEAST_KNOWN = 0.5  # of them; 0.9 of clothes, 0.1 of digits
_STATEMENT = (
    "Distances are taken in the 128 features of a small CNN that was trained on these very training images. They "
    "compare only with distances by the same classifier. This Fréchet distance is not the Inception FID of papers, and "
    "must not be compared with it."
)


def reference_of(material: Material, folder: Path) -> Reference:
    """The reference classifier for the real images: the shipped one for Fashion-MNIST, else one trained on them.

    Args:
        material: the set and the real images.
        folder: of the real images, where their classifier is kept; where that cannot be, a note says so.

    Raises:
        DataError: images that should be Fashion-MNIST are something else.
        EvaluationError: the shipped classifier is missing or altered.
    """
    train = material.train
    clothes = material.manifest.subject if not is_described(train) else train.subject
    if (clothes.name, clothes.class_names) != (FASHION.name, FASHION.class_names):
        return _own(material, folder)
    shipped = load_reference()
    if not train.official:
        probed = material.real_sample(_PROBED)
        known = float((extract(shipped.model, probed.images).labels == probed.labels).mean())
        if known < _LEAST_KNOWN:
            raise DataError(
                f"{folder}: these images are not Fashion-MNIST, whose classifier agrees with {100 * known:.0f} % of "
                "their labels; name the folder of the set's own images: --data FOLDER"
            )
    return shipped


def _own(material: Material, folder: Path) -> Reference:
    model = small_cnn(material.classes)
    expected = _record(material)
    sha256 = _load_kept(model, folder, expected)
    notes = [
        "The reference classifier was trained on these images without protection. It is kept beside them as "
        f"{KEPT_NAME} and is as private as they are."
    ]
    if sha256 is None:
        with material.timed("reference classifier"):
            model = _trained(material)
        try:
            sha256 = save_reference(folder / KEPT_NAME, model)
            write_json(folder / RECORD_NAME, expected | {"weights_sha256": sha256})
        except OSError as error:
            sha256 = None
            notes = [
                "The reference classifier was trained on these images and could not be kept beside them "
                f"({error.strerror or error}): the next evaluation trains another, whose figures differ a little."
            ]
    return Reference(model=seeing(model), sha256=sha256, statement=_STATEMENT, notes=tuple(notes))


def _record(material: Material) -> dict[str, Any]:
    """What is kept beside the weights, but for their SHA-256."""
    return {
        "notice": NOTICE,
        "schema_version": _SCHEMA_VERSION,
        "architecture": "small CNN",
        "classes": material.classes,
        "seed": _SEED,
        "training_images": len(material.train),
        "training_sha256": material.train.sha256,
    }


def _load_kept(model: keras.Model, folder: Path, expected: dict[str, Any]) -> str | None:
    """Give ``model`` the weights that are kept; their SHA-256, or None where they are not those expected."""
    try:
        record = parse_json(read_file(folder / RECORD_NAME, _MAX_RECORD_BYTES))
        if not isinstance(record, dict):
            return None
        sha256 = record.pop("weights_sha256", None)
        if record != expected or sha256 != sha256_of_bytes(read_file(folder / KEPT_NAME, MAX_WEIGHTS_BYTES)):
            return None
        load_weights(model, folder / KEPT_NAME)
    except MALFORMED:
        return None
    return str(sha256) if all(np.isfinite(array).all() for array in model.get_weights()) else None


def _trained(material: Material) -> keras.Model:
    stage = "reference classifier, on the real training images"
    train = material.train
    return train_small_cnn(
        train.images,
        train.labels,
        _SEED,
        FULL.epochs_for(len(train), BATCH),
        lambda done, of: material.progress(stage, done, of),
        classes=material.classes,
    )
