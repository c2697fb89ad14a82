"""The reference classifier: the eye through which images are compared, one and the same for every set.

The small CNN trained once on the 60,000 real training images (``benchmarks/train_reference.py``) and shipped, so that
two people's distances can be compared. An image's features are what its last hidden layer holds: 128 numbers. It is
no Inception network: distances in these features compare with each other, never with the FID of papers.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from synthgen.errors import EvaluationError
from synthgen.evaluation.classifiers import small_cnn
from synthgen.files import publish, sha256_of_bytes
from synthgen.workers import StepProgress

REFERENCE_PATH = Path(__file__).parent / "weights" / "small-cnn.npz"
REFERENCE_SHA256 = "2a0769463e9e64b4b2263646045f932d37544bb0c7ae570f50306d8a385f3780"
FEATURES = 128
_HIDDEN_LAYER = -3  # the last dense layer but one; dropout stands between them
_BATCH = 1_000


@dataclass(frozen=True, kw_only=True)
class Views:
    """What the reference classifier sees in images.

    Attributes:
        features: float32, shape (N, 128).
        labels: the classes it takes them for, uint8, shape (N,).
    """

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint8]


def load_reference(path: Path = REFERENCE_PATH, sha256: str = REFERENCE_SHA256) -> keras.Model:
    """Build the reference classifier and load its shipped weights: images → (features, logits).

    Raises:
        EvaluationError: the file is missing or is not the one its pinned SHA-256 names.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EvaluationError(f"{path}: the reference classifier is missing; install synthgen anew") from error
    if sha256_of_bytes(content) != sha256:
        raise EvaluationError(f"{path}: the reference classifier was altered; install synthgen anew")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        weights = [arrays[name] for name in sorted(arrays.files)]
    model = small_cnn()
    model.set_weights(weights)
    return keras.Model(model.inputs[0], [model.layers[_HIDDEN_LAYER].output, model.layers[-1].output])


def save_reference(path: Path, model: keras.Model) -> str:
    """Publish the weights of a trained ``small_cnn`` as plain float32 arrays; returns the file's SHA-256."""
    arrays = {f"weight_{i:02d}": array.astype(np.float32) for i, array in enumerate(model.get_weights())}
    path.parent.mkdir(parents=True, exist_ok=True)
    with publish(path) as partial, partial.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
    return sha256_of_bytes(path.read_bytes())


def view(
    reference: keras.Model, images: npt.NDArray[np.uint8], progress: StepProgress = lambda done, of: None
) -> Views:
    """Show uint8 images (N, 28, 28) to the reference classifier; ``progress`` hears of (images done, images in all)."""
    features = np.empty((len(images), FEATURES), np.float32)
    labels = np.empty(len(images), np.uint8)
    for first in range(0, len(images), _BATCH):
        piece = slice(first, first + _BATCH)
        seen, logits = reference(images[piece, ..., None], training=False)
        features[piece], labels[piece] = seen, np.argmax(logits, 1)
        progress(min(piece.stop, len(images)), len(images))
    return Views(features=features, labels=labels)
