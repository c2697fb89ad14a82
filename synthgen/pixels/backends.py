"""Backends: what draws. All give the same images to the bit; which one drew is information, never a condition."""

import functools
import importlib.util

import numpy as np

from synthgen.environment import import_tensorflow, version_of
from synthgen.errors import SynthgenError, UsageError
from synthgen.pixels.drawing import Backend, NumpyBackend
from synthgen.pixels.integers import IntegerGenerator
from synthgen.pixels.tables import LATENT_LIMIT

BACKENDS = ("auto", "numpy", "onnxruntime", "tensorflow")
_NEEDED = {"onnxruntime": ("onnxruntime", "onnx"), "tensorflow": ("tensorflow",)}  # packages, by backend
_TRIED = 16  # images
_FEW_IMAGES = 2_000  # numpy has drawn as many before onnxruntime has started


def open_backend(generator: IntegerGenerator, backend: str) -> Backend:
    """Make a generator ready to draw.

    Args:
        generator: the integers of a checkpoint.
        backend: ``numpy``; ``onnxruntime``, on 8-bit products, about twice as fast; ``tensorflow``, perhaps followed by
            a device such as ``tensorflow:gpu:1``; or ``auto``: onnxruntime where it is installed, else numpy.

    Raises:
        UsageError: there is no such backend or device, or it is not installed.
        SynthgenError: it draws other images than numpy: a fault of the library, its driver or this machine.
    """
    name, _, device = expect_backend(backend).partition(":")
    if name == "auto":
        name = _chosen()
    reference = NumpyBackend(generator)
    if name == "numpy":
        return reference
    if name == "onnxruntime":
        from synthgen.pixels.onnx_backend import OnnxBackend

        drawing: Backend = OnnxBackend(generator)
    else:
        import_tensorflow()
        from synthgen.pixels.tensorflow_backend import TensorFlowBackend

        drawing = TensorFlowBackend(generator, device or "auto")
    _expect_same_images(drawing, reference, generator, backend)
    return drawing


def _expect_same_images(drawing: Backend, reference: Backend, generator: IntegerGenerator, backend: str) -> None:
    """Compare a few images, from latents over their whole range."""
    places = np.arange(_TRIED * generator.latent_size).reshape(_TRIED, generator.latent_size)
    noise = (places * 97 % (2 * LATENT_LIMIT + 1) - LATENT_LIMIT).astype(np.int8)
    labels = (np.arange(_TRIED) % generator.classes).astype(np.uint8) if generator.classes > 1 else None
    if not np.array_equal(drawing(noise, labels), reference(noise, labels)):
        raise SynthgenError(
            f"{described(backend)} draws other images here than numpy does: use --backend numpy, and report it"
        )


def expect_backend(backend: str, *, exact: bool = True) -> str:
    """Return ``backend`` if it can draw, as far as can be told without importing it; else raise UsageError.

    Args:
        backend: see ``open_backend``.
        exact: whether the checkpoint holds integers, or float32 weights.
    """
    name, colon, device = backend.partition(":")
    if name not in BACKENDS or (colon and not (device and name == "tensorflow")):
        raise UsageError(f"backend {backend!r:.80}: expected {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}")
    if not exact and name not in ("auto", "numpy"):
        raise UsageError(
            f"backend '{backend:.80}': the checkpoint holds float32 weights, which only numpy draws; leave the option "
            "out, or round the checkpoint: synthgen convert CHECKPOINT --to integers"
        )
    if not _installed(name):
        packages = " ".join(_NEEDED[name])
        raise UsageError(f"backend '{name}' is not installed: pip install {packages}, or leave the option out")
    return backend


def for_few(backend: str, images: int) -> str:
    """``numpy`` instead of ``auto`` where so few images are drawn that a fast backend's start would take longer."""
    return "numpy" if backend == "auto" and images < _FEW_IMAGES else backend


def uses_tensorflow(backend: str) -> bool:
    """Whether TensorFlow draws: in one process, which takes all processors or the GPU for itself."""
    return backend.partition(":")[0] == "tensorflow"


def expect_divisible(backend: str) -> None:
    """Raise UsageError unless several processes of a machine can draw with ``backend``: they cannot share a GPU."""
    if uses_tensorflow(backend) and not backend.startswith("tensorflow:cpu"):
        raise UsageError(
            f"backend '{backend:.80}': one process draws on a GPU; ask for no workers and no Ray, or for the device cpu"
        )


def _chosen() -> str:
    return "onnxruntime" if _installed("onnxruntime") else "numpy"


@functools.cache
def _installed(backend: str) -> bool:
    return all(importlib.util.find_spec(package) is not None for package in _NEEDED.get(backend, ()))


def described(backend: str) -> str:
    """A backend that ``expect_backend`` accepts, as a manifest has it, such as ``onnxruntime 1.32.0``."""
    name, _, device = backend.partition(":")
    name = _chosen() if name == "auto" else name
    return f"{name} {version_of(name)}{f' on {device}' if device else ''}"
