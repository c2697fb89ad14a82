"""The reference classifier, in whose features images are compared: one and the same for every set.

It is the small CNN, trained once on the 60,000 real training images (``benchmarks/train_reference.py``) and shipped,
so that two people's distances can be compared. An image's features are the 128 numbers of its last hidden layer.
Distances in them compare with each other, never with the FID of papers, which takes Inception's features.
"""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from synthgen.errors import EvaluationError
from synthgen.evaluation.classifiers import small_cnn
from synthgen.evaluation.fidelity import Fidelity, compare
from synthgen.evaluation.subject import SAMPLING_SEED, Subject
from synthgen.evaluation.utility import Outcome, Recognition
from synthgen.fashion import NUM_CLASSES, Images, Labels
from synthgen.files import publish, sha256_of_bytes, sha256_of_file
from synthgen.index import pieces
from synthgen.untrusted.archives import open_npz
from synthgen.untrusted.files import read_file
from synthgen.workers import StepProgress

REFERENCE_PATH = Path(__file__).parent / "weights" / "small-cnn.npz"
REFERENCE_SHA256 = "2a0769463e9e64b4b2263646045f932d37544bb0c7ae570f50306d8a385f3780"
FEATURES = 128
STATEMENT = (
    "Distances are taken in the 128 features of synthgen's own reference classifier, trained on Fashion-MNIST. "
    "This Fréchet distance is not the Inception FID of papers, and must not be compared with it."
)
_HIDDEN_LAYER = -3  # the last dense layer but one; dropout stands between them
_BATCH = 1_000
_MAX_BYTES = 64 << 20  # 64 MiB; it has two


@dataclass(frozen=True, kw_only=True)
class ReferenceFeatures:
    """What the reference classifier makes of N images.

    Attributes:
        features: what its last hidden layer holds, float32, shape (N, 128).
        labels: the classes it takes them for, uint8, shape (N,).
    """

    features: npt.NDArray[np.float32]
    labels: Labels


def load_reference(path: Path = REFERENCE_PATH, sha256: str = REFERENCE_SHA256) -> keras.Model:
    """Build the reference classifier and load its shipped weights: images → (features, logits).

    Raises:
        EvaluationError: the file is missing or is not the one its pinned SHA-256 names.
    """
    try:
        content = read_file(path, _MAX_BYTES, links=True)
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path}: the reference classifier is missing; install synthgen anew") from error
    if sha256_of_bytes(content) != sha256:
        raise EvaluationError(f"{path}: the reference classifier was altered; install synthgen anew")
    with open_npz(path, links=True) as arrays:
        weights = [arrays[name] for name in sorted(arrays)]
    model = small_cnn()
    model.set_weights(weights)
    return keras.Model(model.inputs[0], [model.layers[_HIDDEN_LAYER].output, model.layers[-1].output])


def save_reference(path: Path, model: keras.Model) -> str:
    """Publish the weights of a trained ``small_cnn`` as plain float32 arrays; returns the file's SHA-256."""
    arrays = {f"weight_{i:02d}": array.astype(np.float32) for i, array in enumerate(model.get_weights())}
    path.parent.mkdir(parents=True, exist_ok=True)
    with publish(path) as partial, partial.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
    return sha256_of_file(path)


def extract(
    reference: keras.Model, images: Images, progress: StepProgress = lambda done, of: None
) -> ReferenceFeatures:
    """Features and labels of uint8 images (N, 28, 28); ``progress`` is called with (images done, images in all)."""
    features = np.empty((len(images), FEATURES), np.float32)
    labels = np.empty(len(images), np.uint8)
    for piece in pieces(len(images), _BATCH):
        hidden, logits = reference(images[piece, ..., None], training=False)
        features[piece], labels[piece] = hidden, np.argmax(logits, 1)
        progress(piece.stop, len(images))
    return ReferenceFeatures(features=features, labels=labels)


def compare_by_reference(subject: Subject, reference: keras.Model) -> tuple[Recognition, Fidelity, Labels]:
    """Recognition and fidelity by the reference classifier, and the labels it gives to the real test images."""

    def of(what: str, images: Images) -> ReferenceFeatures:
        return extract(reference, images, lambda done, of: subject.progress(f"features of {what}", done, of))

    most = subject.effort.reference_images
    synthetic = of("the set", subject.images[:most])
    real = of("real training images", subject.real_sample(most).images)
    test = of("real test images", subject.test.images)
    compared = min(len(subject.images), subject.effort.fidelity_images)
    shuffled = real.features[np.random.default_rng(SAMPLING_SEED).permutation(len(real.features))]
    subject.progress("fidelity", 0, 2)
    fidelity = Fidelity(
        statement=STATEMENT,
        synthetic=compare(shuffled, synthetic.features[:compared]),
        real=compare(shuffled, test.features[:compared]),
    )
    subject.progress("fidelity", 2, 2)
    recognition = Recognition(
        taken_for=tuple(np.bincount(synthetic.labels, minlength=NUM_CLASSES).tolist()),
        synthetic=None if subject.labels is None else Outcome.of(subject.labels[:most], [synthetic.labels]),
        real=Outcome.of(subject.test.labels, [test.labels]),
    )
    return recognition, fidelity, test.labels
