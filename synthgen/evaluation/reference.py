"""The reference classifier, in whose features images are compared: one and the same for every set.

For Fashion-MNIST it is the small CNN, trained once on the 60,000 real training images
(``benchmarks/train_reference.py``) and shipped, so that two people's distances can be compared. For images of one's own
it is trained on them (``own_reference``). An image's features are the 128 numbers of its last hidden layer.
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
from synthgen.evaluation.material import REFERENCE_SHA256, SAMPLING_SEED, Material
from synthgen.evaluation.utility import Outcome, Recognition
from synthgen.files import publish, sha256_of_bytes, sha256_of_file
from synthgen.index import pieces
from synthgen.subject import NUM_CLASSES, Images, Labels
from synthgen.untrusted.archives import open_npz
from synthgen.untrusted.files import read_file
from synthgen.workers import StepProgress

REFERENCE_PATH = Path(__file__).parent / "weights" / "small-cnn.npz"
FEATURES = 128
STATEMENT = (
    "Distances are taken in the 128 features of synthgen's own reference classifier, trained on Fashion-MNIST. "
    "This Fréchet distance is not the Inception FID of papers, and must not be compared with it."
)
_HIDDEN_LAYER = -3  # the last dense layer but one; dropout stands between them
_BATCH = 1_000
MAX_WEIGHTS_BYTES = 64 << 20  # 64 MiB; it has two


@dataclass(frozen=True, kw_only=True)
class ReferenceFeatures:
    """What the reference classifier makes of N images.

    Attributes:
        features: what its last hidden layer holds, float32, shape (N, 128).
        labels: the classes it takes them for, uint8, shape (N,).
    """

    features: npt.NDArray[np.float32]
    labels: Labels


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A reference classifier.

    Attributes:
        model: images → (features, logits).
        sha256: of its file; None where it is in no file.
        statement: which one it is, and what distances in its features may be compared with.
        notes: what a reader of the numbers must know of it, one line each.
    """

    model: keras.Model
    sha256: str | None
    statement: str
    notes: tuple[str, ...] = ()


def load_reference(path: Path = REFERENCE_PATH, sha256: str = REFERENCE_SHA256) -> Reference:
    """Build the reference classifier of Fashion-MNIST and load its shipped weights.

    Raises:
        EvaluationError: the file is missing or is not the one its pinned SHA-256 names.
    """
    try:
        content = read_file(path, MAX_WEIGHTS_BYTES, links=True)
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path}: the reference classifier is missing; install synthgen anew") from error
    if sha256_of_bytes(content) != sha256:
        raise EvaluationError(f"{path}: the reference classifier was altered; install synthgen anew")
    model = small_cnn(NUM_CLASSES)
    load_weights(model, path, links=True)
    return Reference(model=seeing(model), sha256=sha256, statement=STATEMENT)


def load_weights(model: keras.Model, path: Path, *, links: bool = False) -> None:
    """Give a ``small_cnn`` the weights of a file that ``save_reference`` wrote; ``links`` as for ``open_file``.

    Raises:
        OSError, ValueError, zipfile.BadZipFile: the file is damaged, or holds other arrays than the model has.
    """
    wanted = {name: array.shape for name, array in _named(model).items()}
    with open_npz(path, links=links) as arrays:
        if set(arrays) != set(wanted):
            raise ValueError(f"it has {len(arrays)} arrays; expected {len(wanted)}")
        for name, expected in wanted.items():  # before any is read
            with arrays.stream(name) as (_, dtype, shape, _):
                if dtype != np.float32 or shape != expected:
                    raise ValueError(f"{name} is {dtype} {shape}; expected float32 {expected}")
        model.set_weights([arrays[name] for name in sorted(wanted)])


def seeing(model: keras.Model) -> keras.Model:
    """Of a ``small_cnn`` the model that gives (features, logits)."""
    return keras.Model(model.inputs[0], [model.layers[_HIDDEN_LAYER].output, model.layers[-1].output])


def save_reference(path: Path, model: keras.Model) -> str:
    """Publish the weights of a trained ``small_cnn`` as plain float32 arrays; returns the file's SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with publish(path) as partial, partial.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **_named(model))
    return sha256_of_file(path)


def _named(model: keras.Model) -> dict[str, npt.NDArray[np.float32]]:
    """The weights by their names in the file, whose sorted order is theirs."""
    return {f"weight_{i:02d}": array.astype(np.float32) for i, array in enumerate(model.get_weights())}


def extract(model: keras.Model, images: Images, progress: StepProgress = lambda done, of: None) -> ReferenceFeatures:
    """Features and labels of uint8 images (N, 28, 28) by a ``Reference.model``.

    ``progress`` is called with (images done, images in all).
    """
    features = np.empty((len(images), FEATURES), np.float32)
    labels = np.empty(len(images), np.uint8)
    for piece in pieces(len(images), _BATCH):
        hidden, logits = model(images[piece, ..., None], training=False)
        features[piece], labels[piece] = hidden, np.argmax(logits, 1)
        progress(piece.stop, len(images))
    return ReferenceFeatures(features=features, labels=labels)


def compare_by_reference(material: Material, reference: Reference) -> tuple[Recognition, Fidelity, Labels | None]:
    """Recognition and fidelity by a reference classifier, and the labels it gives to the real test images."""

    def of(what: str, images: Images) -> ReferenceFeatures:
        return extract(reference.model, images, lambda done, of: material.progress(f"features of {what}", done, of))

    most = material.effort.reference_images
    synthetic = of("the set", material.images[:most])
    real = of("real training images", material.real_sample(most).images)
    test = None if material.test is None else of("real test images", material.test.images)
    compared = min(len(material.images), material.effort.fidelity_images)
    shuffled = real.features[np.random.default_rng(SAMPLING_SEED).permutation(len(real.features))]
    material.progress("fidelity", 0, 2)
    fidelity = Fidelity(
        statement=reference.statement,
        synthetic=compare(shuffled, synthetic.features[:compared]),
        real=None if test is None else compare(shuffled, test.features[:compared]),
    )
    material.progress("fidelity", 2, 2)
    recognition = Recognition(
        taken_for=tuple(np.bincount(synthetic.labels, minlength=material.classes).tolist()),
        synthetic=_outcome(material, material.labels, synthetic.labels),
        real=None if material.test is None or test is None else _outcome(material, material.test.labels, test.labels),
    )
    return recognition, fidelity, None if test is None else test.labels


def _outcome(material: Material, truth: Labels | None, answers: Labels) -> Outcome | None:
    return None if truth is None else Outcome.of(truth[: len(answers)], [answers], material.classes)
