"""Fixed public features of an image: a small wavelet scattering, and what a generator is taught by.

None of their numbers is computed from images, so that only what is *released* of them costs privacy. What they are (the
scattering, the Fourier features, their shares and bandwidth) was chosen by trials on Fashion-MNIST's public training
images, which no ledger counts: docs/privacy.md, "What was tried".

Every linear step is a matrix product or a convolution over blocks of 4×4 pixels: ten times as fast, there and back, as
convolutions of a single channel.

Scattering: Bruna and Mallat 2013 (arXiv:1203.1513); for private learning, Tramèr and Boneh 2021 (arXiv:2011.11660).
Random Fourier features: Rahimi and Recht 2007; for private generators, Harder et al. 2021 (DP-MERF, arXiv:2002.11603).
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tensorflow as tf

import synthgen.model.networks  # noqa: F401  (sets Keras and TensorFlow up)
from synthgen.subject import IMAGE_SIDE

Array = npt.NDArray[np.float32]

_CELLS = 7 * 7  # of 4×4 pixels; every map is averaged over each
_ORIENTATIONS = 8
_MAPS = 1 + 2 * _ORIENTATIONS + _ORIENTATIONS**2
_TINY = 1e-6  # under the root of a modulus, which has no gradient at 0
_GROUP_CHANNELS = 3  # of the group normalisation

SCATTERING_SIZE = _CELLS * _MAPS  # 3,969
POOLED_SIZE = 14 * 14
_FINE_SIZE = _CELLS * _ORIENTATIONS  # 392
_FOURIER_SIZE = 3_000
_FOURIER_SEED, _FOURIER_BANDWIDTH = 7, 2.2  # the latter in units of the pooled image's norm

# The embedding's squared norm, shared out; the shares sum to 1.
_SHARES = {"count": 0.01, "scattering": 0.3, "pooled": 0.15, "fine": 0.14, "fourier": 0.4}
COUNTING_WEIGHT = math.sqrt(_SHARES["count"])  # the embedding's first, constant coordinate
EMBEDDING_SIZE = 1 + SCATTERING_SIZE + POOLED_SIZE + _FINE_SIZE + _FOURIER_SIZE


@dataclass(frozen=True)
class Features:
    """Features of N images, float32 tensors.

    Attributes:
        scattering: (N, 49, 81): for each cell of 4×4 pixels the mean grey, |x ∗ ψ| at two scales and 8 orientations,
            and ‖x ∗ ψ| ∗ ψ| for the 64 pairs of orientations, the second modulus at half resolution.
        pooled: (N, 196): the image averaged over 2×2 pixels.
        fine: (N, 392): |x ∗ ψ| at the finest scale, which sees checkerboards that the others do not.
    """

    scattering: tf.Tensor
    pooled: tf.Tensor
    fine: tf.Tensor


def extract(images: tf.Tensor) -> Features:
    """All features of ``images``, float32 (N, 28, 28, 1) in [0, 1]; differentiable."""
    count = tf.shape(images)[0]
    blocks = tf.nn.space_to_depth(images, 4)  # (N, 7, 7, 16)
    responses = tf.reshape(tf.nn.conv2d(blocks, _FULL_SIZE_FILTERS, 1, "SAME"), [count * _CELLS, -1])
    by_half = _modulus(responses) @ _MEAN_OF_2X2  # (N · 49, 2 banks · 4 half-size pixels · 8)
    coarse, fine = tf.split(tf.reshape(by_half @ _MEAN_OF_4, [count, _CELLS, 2 * _ORIENTATIONS]), 2, axis=-1)
    halved = tf.reshape(blocks, [count * _CELLS, 16]) @ _HALVE  # (N · 49, 4)
    pooled = tf.reshape(halved, [count, POOLED_SIZE])
    first = tf.reshape(by_half[:, : 4 * _ORIENTATIONS], [count, POOLED_SIZE, _ORIENTATIONS])
    first = tf.reshape(tf.transpose(first, [0, 2, 1]), [count * _ORIENTATIONS, POOLED_SIZE])
    second = tf.reshape(_half_size_modulus(first), [count, _ORIENTATIONS, _CELLS, _ORIENTATIONS])
    second = tf.reshape(tf.transpose(second, [0, 2, 1, 3]), [count, _CELLS, _ORIENTATIONS**2])
    grey = tf.reshape(tf.reduce_mean(halved, 1), [count, _CELLS, 1])
    larger = tf.reshape(_half_size_modulus(pooled), [count, _CELLS, _ORIENTATIONS])
    return Features(
        scattering=tf.concat([grey, coarse, larger, second], -1),
        pooled=pooled,
        fine=tf.reshape(fine, [count, _FINE_SIZE]),
    )


def normalised_scattering(scattering: tf.Tensor) -> tf.Tensor:
    """Scattering (N, 49, 81) → rows of norm at most 1 (N, 3969): each group of three maps to mean 0 and variance 1.

    Every image is normalised by itself (Tramèr and Boneh 2021, section 2.2), so that it costs no privacy.
    """
    groups = tf.reshape(scattering, [-1, _CELLS, _MAPS // _GROUP_CHANNELS, _GROUP_CHANNELS])
    mean, variance = tf.nn.moments(groups, [1, 3], keepdims=True)
    rows = tf.reshape((groups - mean) / (tf.sqrt(variance) + 1e-3), [-1, SCATTERING_SIZE])
    return rows / math.sqrt(SCATTERING_SIZE)


def embedding(features: Features) -> tf.Tensor:
    """φ: features of N images → (N, 7558) rows of norm at most 1, to rounding; each part weighted and bounded.

    The parts are a constant, the scattering, the pooled image, the finest scale, and random Fourier features of the
    pooled image, whose mean separates distributions as a Gaussian kernel does.
    """
    count = tf.shape(features.pooled)[0]
    scattering = tf.reshape(features.scattering * _SCATTERING_WEIGHTS, [count, SCATTERING_SIZE])
    phases = features.pooled @ _FOURIER_FREQUENCIES
    waves = tf.concat([tf.cos(phases), tf.sin(phases)], axis=1) / math.sqrt(_FOURIER_SIZE / 2)  # of norm 1
    parts = {
        "count": tf.ones([count, 1]),
        "scattering": _bounded(scattering, least=1e-3),
        "pooled": _bounded(features.pooled, least=7.0),
        "fine": _bounded(features.fine, least=1e-2),
        "fourier": waves,
    }
    return tf.concat([part * math.sqrt(_SHARES[name]) for name, part in parts.items()], axis=1)


def scattering_rows(images: npt.NDArray[np.uint8]) -> Array:
    """The teacher's input for uint8 images (N, 28, 28): float32 (N, 3969), of norm at most 1."""
    rows: Array = _scattering_graph(tf.constant(images)).numpy()
    return rows


def embedding_rows(images: npt.NDArray[np.uint8]) -> Array:
    """φ of uint8 images (N, 28, 28): float32 (N, 7558)."""
    rows: Array = _embedding_graph(tf.constant(images)).numpy()
    return rows


def _scaled(pixels: tf.Tensor) -> tf.Tensor:
    return tf.cast(pixels[..., tf.newaxis], tf.float32) / 255.0


_PIXELS = [tf.TensorSpec((None, IMAGE_SIDE, IMAGE_SIDE), tf.uint8)]
_scattering_graph = tf.function(
    lambda pixels: normalised_scattering(extract(_scaled(pixels)).scattering), input_signature=_PIXELS
)
_embedding_graph = tf.function(lambda pixels: embedding(extract(_scaled(pixels))), input_signature=_PIXELS)


def _bounded(rows: tf.Tensor, least: float) -> tf.Tensor:
    """Rows divided by their norm, or by ``least`` where that is larger."""
    return rows / tf.maximum(tf.norm(rows, axis=1, keepdims=True), least)


def _modulus(responses: tf.Tensor) -> tf.Tensor:
    """|real + i imaginary|, the two halves of the last axis."""
    real, imaginary = tf.split(responses, 2, axis=-1)
    return tf.sqrt(real * real + imaginary * imaginary + _TINY)


def _half_size_modulus(images: tf.Tensor) -> tf.Tensor:
    """|x ∗ ψ| of 14×14 images (M, 196), averaged over 2×2 pixels: (M, 49 · 8)."""
    real, imaginary = images @ _HALF_SIZE_REAL, images @ _HALF_SIZE_IMAGINARY
    modulus = tf.reshape(tf.sqrt(real * real + imaginary * imaginary + _TINY), [-1, 4, _CELLS * _ORIENTATIONS])
    return (modulus[:, 0] + modulus[:, 1] + modulus[:, 2] + modulus[:, 3]) / 4  # far faster than reduce_mean


def _morlet(size: int, wavelength: float, width: float) -> Array:
    """Morlet wavelets, (size, size, 1, 16): real parts of 8 orientations, then their imaginary parts.

    Each has mean 0 and absolute sum 1; ``wavelength`` and ``width`` (a standard deviation) are in pixels.
    """
    offset = np.arange(size) - (size - 1) / 2
    y, x = np.meshgrid(offset, offset, indexing="ij")
    window = np.exp(-(x**2 + y**2) / (2 * width**2))
    parts = []
    for wave in (np.cos, np.sin):
        for i in range(_ORIENTATIONS):
            angle = math.pi * i / _ORIENTATIONS
            kernel = window * wave(2 * math.pi * (x * math.cos(angle) + y * math.sin(angle)) / wavelength)
            kernel -= window * kernel.sum() / window.sum()
            parts.append(kernel / np.abs(kernel).sum())
    return np.stack(parts, -1)[:, :, None].astype(np.float32)


def _filter_blocks(*banks: Array) -> tf.Tensor:
    """Convolutions of 28×28 images as one convolution of 7×7 blocks of 16 pixels: (3, 3, 16, 512).

    Its outputs are in the order (real or imaginary, bank, half-size pixel of the block, pixel of that, orientation).
    """
    impulses = np.zeros((16, 12, 12, 1), np.float32)  # one for each pixel of the middle one of 3×3 blocks
    for i in range(16):
        impulses[i, 4 + i // 4, 4 + i % 4] = 1
    kernels = []
    for bank in banks:
        seen = tf.nn.conv2d(impulses, bank, 1, "SAME").numpy()
        #                   (pixel in, block y, half y, y, block x, half x, x, real or imaginary, orientation)
        seen = seen.reshape(16, 3, 2, 2, 3, 2, 2, 2, _ORIENTATIONS).transpose(1, 4, 0, 7, 2, 5, 3, 6, 8)
        kernels.append(seen[::-1, ::-1])  # what the middle sends out is what a block takes in, mirrored
    return tf.constant(np.stack(kernels, 4).reshape(3, 3, 16, -1))


def _filter_half_size(bank: Array) -> tuple[tf.Tensor, tf.Tensor]:
    """A convolution of 14×14 images as two matrices (196, 4 · 49 · 8), for real and imaginary parts.

    Pixels come in the order (cell, pixel of the cell); results go out as (pixel of the cell, cell, orientation).
    """
    impulses = np.eye(POOLED_SIZE, dtype=np.float32).reshape(-1, 14, 14, 1)
    seen = tf.nn.conv2d(impulses, bank, 1, "SAME").numpy().reshape(7, 2, 7, 2, 7, 2, 7, 2, 2, _ORIENTATIONS)
    seen = seen.transpose(0, 2, 1, 3, 8, 5, 7, 4, 6, 9).reshape(POOLED_SIZE, 2, -1)
    return tf.constant(seen[:, 0].copy()), tf.constant(seen[:, 1].copy())


def _mean_over(*, outer: int, averaged: int, inner: int) -> tf.Tensor:
    """The matrix that averages the middle one of three axes that lie flattened in a row."""
    mean = np.full((averaged, 1), 1 / averaged, np.float32)
    return tf.constant(np.kron(np.kron(np.eye(outer), mean), np.eye(inner)).astype(np.float32))


def _halve() -> tf.Tensor:
    """The matrix that averages the 16 pixels of a block over 2×2: (16, 4)."""
    pairs = np.kron(np.eye(2), np.full((2, 1), 0.5))
    return tf.constant(np.kron(pairs, pairs).astype(np.float32))


_COARSE, _FINE = _morlet(7, 4.0, 1.6), _morlet(5, 2.2, 0.9)
assert 4 * math.isqrt(_CELLS) == IMAGE_SIDE
_FULL_SIZE_FILTERS = _filter_blocks(_COARSE, _FINE)
_HALF_SIZE_REAL, _HALF_SIZE_IMAGINARY = _filter_half_size(_COARSE)
_MEAN_OF_2X2 = _mean_over(outer=2 * 4, averaged=4, inner=_ORIENTATIONS)
_MEAN_OF_4 = _mean_over(outer=2, averaged=4, inner=_ORIENTATIONS)
_HALVE = _halve()
_SCATTERING_WEIGHTS = tf.constant([0.12] + [1.0] * 2 * _ORIENTATIONS + [3.0] * _ORIENTATIONS**2)  # to like sizes
_random = np.random.Generator(np.random.Philox(_FOURIER_SEED))
_FOURIER_FREQUENCIES = tf.constant(
    _random.standard_normal((POOLED_SIZE, _FOURIER_SIZE // 2), np.float32) / np.float32(_FOURIER_BANDWIDTH)
)
