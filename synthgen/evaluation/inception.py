"""The Fréchet distance of papers (FID), for users who have Inception's weights; synthgen ships none.

Heusel et al. 2017, arXiv:1706.08500: images are made RGB, resized to 299 × 299 and scaled to [-1, 1]; features are the
2,048 numbers of Inception-v3's last pooling. Papers mostly use the graph of 2015; the weights that fit
``keras.applications.InceptionV3`` were trained anew and give somewhat different numbers.
"""

import warnings
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from synthgen.errors import EvaluationError
from synthgen.evaluation.fidelity import Fidelity, compare
from synthgen.evaluation.material import Material
from synthgen.index import pieces
from synthgen.subject import Images
from synthgen.workers import StepProgress

FEATURES = 2_048
STATEMENT = (
    "Distances are taken in the 2,048 pooled features of the Inception-v3 weights given, images resized to 299 × 299. "
    "Papers mostly use the weights of 2015, which give somewhat different numbers."
)
_SIDE = 299  # pixels
_BATCH = 32
_POOLING = "avg_pool"


def load_inception(weights: Path) -> keras.Model:
    """Inception-v3 up to its last pooling, with the weights of a Keras file (with or without its classifier).

    Raises:
        EvaluationError: the file is missing or holds no weights of Keras's InceptionV3.
    """
    if not weights.is_file():
        raise EvaluationError(f"{weights}: no such file; expected weights of keras.applications.InceptionV3")
    reason = ""
    for include_top in (False, True):
        model = keras.applications.InceptionV3(include_top=include_top, weights=None, pooling="avg")
        untrained = [kernel.copy() for kernel in _kernels(model)]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of layers that the file lacks; the check below finds them
                model.load_weights(weights)
        except (ValueError, KeyError, OSError) as error:
            reason = str(error).splitlines()[0][:200]
            continue
        # Keras skips layers that the file lacks; features of a half-loaded network would be nonsense.
        if not any(np.array_equal(*pair) for pair in zip(untrained, _kernels(model), strict=True)):
            return keras.Model(model.inputs[0], model.get_layer(_POOLING).output) if include_top else model
        reason = "some of its layers are missing"
    raise EvaluationError(f"{weights}: no weights of keras.applications.InceptionV3: {reason}")


def inception_features(
    model: keras.Model, images: Images, progress: StepProgress = lambda done, of: None
) -> npt.NDArray[np.float32]:
    """Features of uint8 images (N, 28, 28): float32, shape (N, 2048).

    ``progress`` is called with (images done, images in all).
    """
    features = np.empty((len(images), FEATURES), np.float32)
    for piece in pieces(len(images), _BATCH):
        features[piece] = model(_prepared(images[piece]), training=False)
        progress(piece.stop, len(images))
    return features


def compare_by_inception(material: Material, inception: keras.Model) -> Fidelity:
    """Fidelity by Inception's features, of at most ``inception_images`` of each kind of images."""

    def of(what: str, images: Images) -> npt.NDArray[np.float32]:
        return inception_features(
            inception, images, lambda done, of: material.progress(f"Inception features of {what}", done, of)
        )

    most = min(len(material.images), material.effort.inception_images)
    real = of("real training images", material.real_sample(material.effort.inception_images).images)
    test = material.test
    return Fidelity(
        statement=STATEMENT,
        synthetic=compare(real, of("the set", material.images[:most])),
        real=None if test is None else compare(real, of("real test images", test.images[:most])),
    )


def _prepared(images: Images) -> tf.Tensor:
    """Grey to RGB, bilinear to 299 × 299 as in the original (no antialiasing: it enlarges), pixels to [-1, 1]."""
    grey = tf.image.resize(tf.cast(images[..., None], tf.float32), (_SIDE, _SIDE))
    return tf.image.grayscale_to_rgb(grey) / 127.5 - 1.0


def _kernels(model: keras.Model) -> list[npt.NDArray[np.float32]]:
    """The convolutions' weights, random where nothing was loaded."""
    return [np.asarray(w) for w in model.trainable_weights if w.name == "kernel" and len(w.shape) == 4]
