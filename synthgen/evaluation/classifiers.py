"""The classifiers that measure a set's usefulness: fixed, small, and never tuned on test images.

Train on synthetic, test on real (TSTR) goes back to Esteban, Hyland and Rätsch 2017 (arXiv:1706.02633). Architectures
and schedules are constants: no choice depends on a test image.
"""

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

import synthgen.model.networks  # noqa: F401  (refuses a Keras that does not run on TensorFlow)
from synthgen.errors import EvaluationError
from synthgen.subject import IMAGE_SIDE, PIXELS, Images, Labels
from synthgen.workers import StepProgress

Classifier = Callable[[Images], Labels]  # uint8 (N, 28, 28) → uint8 (N,)

EPOCHS, BATCH = 6, 256
_LEARNING_RATE, _WEIGHT_DECAY = 2e-3, 1e-4
_PREDICTION_BATCH = 1_000
_LBFGS_STEPS = 100
_MLP_UNITS, _MLP_EPOCHS = 128, 10

SMALL_CNN, LOGISTIC_REGRESSION, SMALL_MLP = "small CNN", "logistic regression", "small MLP"


def train_classifier(
    name: str,
    images: Images,
    labels: Labels,
    seed: int,
    *,
    classes: int,
    epochs: int = EPOCHS,
    progress: StepProgress = lambda done, of: None,
) -> Classifier:
    """Train one of the fixed classifiers.

    Args:
        name: a key of ``TRAINERS``.
        images: uint8, shape (N, 28, 28).
        labels: uint8, shape (N,). If all are equal, the classifier always answers that label.
        seed: decides initial weights and image order.
        classes: how many there are.
        epochs: passes of the CNN over the images; the other classifiers have their own schedules.
        progress: called with the steps done and the steps in all.

    Raises:
        EvaluationError: scikit-learn is needed and not installed.
    """
    if (labels == labels[0]).all():
        only = labels[0]
        return lambda unseen: np.full(len(unseen), only, np.uint8)
    return TRAINERS[name](images, labels, seed, epochs, progress, classes)


def small_cnn(classes: int) -> keras.Sequential:
    """Three convolutions and a dense layer, pixels 0 to 255 in, a logit for each class out.

    For ten classes it has 241,000 parameters and costs 15 MFLOP an image.
    """
    convolutions = [
        layer
        for filters in (32, 64, 128)
        for layer in (
            layers.Conv2D(filters, 3, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.MaxPool2D(),
        )
    ]
    head = [
        layers.Flatten(),
        layers.Dropout(0.3),
        layers.Dense(128, "relu"),
        layers.Dropout(0.3),
        layers.Dense(classes),
    ]
    return keras.Sequential(
        [layers.Input((IMAGE_SIDE, IMAGE_SIDE, 1)), layers.Rescaling(1 / 255), *convolutions, *head]
    )


def train_small_cnn(
    images: Images,
    labels: Labels,
    seed: int,
    epochs: int = EPOCHS,
    progress: StepProgress = lambda done, of: None,
    *,
    classes: int,
) -> keras.Sequential:
    """Train ``small_cnn`` by AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) with a cosine decay of its rate.

    Args:
        images: uint8, shape (N, 28, 28).
        labels: uint8, shape (N,).
        seed: sets the global random state of Python, NumPy and TensorFlow.
        epochs: passes over the images.
        progress: called after every batch.
        classes: how many there are.
    """
    keras.utils.set_random_seed(seed)
    model = small_cnn(classes)
    steps = epochs * -(-len(images) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, steps)
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=_WEIGHT_DECAY),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,  # XLA makes convolutions three times slower on a processor
    )
    model.fit(images[..., None], labels, BATCH, epochs, verbose=0, callbacks=[_Steps(steps, progress)])
    return model


def predicted_labels(model: keras.Model, images: Images) -> Labels:
    """The most likely class of each image: uint8, shape (N,)."""
    labels = np.empty(len(images), np.uint8)
    for first in range(0, len(images), _PREDICTION_BATCH):
        piece = slice(first, first + _PREDICTION_BATCH)
        # Not by ``predict``: it would trace a graph for every model and size, and warn of it.
        labels[piece] = np.argmax(model(images[piece, ..., None], training=False), 1)
    return labels


class _Steps(keras.callbacks.Callback):  # type: ignore[misc]  # Keras's classes are untyped
    """Reports batches as they are done."""

    def __init__(self, steps: int, progress: StepProgress) -> None:
        super().__init__()
        self._done, self._steps, self._progress = 0, steps, progress

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._done += 1
        self._progress(self._done, self._steps)


def _train_cnn(
    images: Images, labels: Labels, seed: int, epochs: int, progress: StepProgress, classes: int
) -> Classifier:
    model = train_small_cnn(images, labels, seed, epochs, progress, classes=classes)
    return lambda unseen: predicted_labels(model, unseen)


def _train_logistic_regression(
    images: Images, labels: Labels, seed: int, epochs: int, progress: StepProgress, classes: int
) -> Classifier:
    """Multinomial logistic regression on pixels in [0, 1]: 100 steps of L-BFGS, ridge penalty 1."""
    linear_model = _scikit_learn("linear_model")
    return _fitted(linear_model.LogisticRegression(max_iter=_LBFGS_STEPS, random_state=seed), images, labels, progress)


def _train_mlp(
    images: Images, labels: Labels, seed: int, epochs: int, progress: StepProgress, classes: int
) -> Classifier:
    """One hidden layer of 128 on pixels in [0, 1]: 10 epochs of Adam."""
    neural_network = _scikit_learn("neural_network")
    model = neural_network.MLPClassifier(
        (_MLP_UNITS,), batch_size=min(BATCH, len(images)), max_iter=_MLP_EPOCHS, random_state=seed
    )
    return _fitted(model, images, labels, progress)


def _fitted(model: Any, images: Images, labels: Labels, progress: StepProgress) -> Classifier:
    """Fit a scikit-learn classifier; its number of steps is fixed on purpose, so the warning of that is silenced."""
    progress(0, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", _scikit_learn("exceptions").ConvergenceWarning)
        model.fit(_rows(images), labels)
    progress(1, 1)
    return lambda unseen: np.asarray(model.predict(_rows(unseen)), np.uint8)


def _rows(images: Images) -> npt.NDArray[np.float32]:
    """Pixels in [0, 1], float32, shape (N, 784)."""
    return images.reshape(len(images), PIXELS).astype(np.float32) / np.float32(255)


def require_scikit_learn() -> None:
    """Find out before the work begins.

    Raises:
        EvaluationError: scikit-learn is not installed.
    """
    _scikit_learn("exceptions")


def _scikit_learn(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise EvaluationError(
            "the full evaluation needs scikit-learn: pip install 'synthgen[evaluate]', or evaluate with --quick"
        ) from error


TRAINERS: dict[str, Callable[[Images, Labels, int, int, StepProgress, int], Classifier]] = {
    SMALL_CNN: _train_cnn,
    LOGISTIC_REGRESSION: _train_logistic_regression,
    SMALL_MLP: _train_mlp,
}
