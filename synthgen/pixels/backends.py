"""Backends: what draws. All give the same images to the bit; which one drew is information, never a condition."""

import functools
import importlib.util
from importlib import metadata

from synthgen.errors import UsageError
from synthgen.pixels.drawing import Backend, NumpyBackend
from synthgen.pixels.integers import IntegerGenerator

BACKENDS = ("auto", "numpy", "onnxruntime", "tensorflow")
_FEW_IMAGES = 2_000  # numpy has drawn as many before onnxruntime has started


def open_backend(generator: IntegerGenerator, backend: str) -> Backend:
    """Make a generator ready to draw.

    Args:
        generator: the integers of a checkpoint.
        backend: ``numpy``; ``onnxruntime``, on 8-bit products, about twice as fast; ``tensorflow``, perhaps followed by
            a device such as ``tensorflow:gpu:1``; or ``auto``: onnxruntime where it is installed, else numpy.

    Raises:
        UsageError: there is no such backend or device, or it is not installed.
    """
    name, _, device = expect_backend(backend).partition(":")
    if name == "auto":
        name = _chosen()
    if name == "onnxruntime":
        from synthgen.pixels.onnx_backend import OnnxBackend

        return OnnxBackend(generator)
    if name == "tensorflow":
        from synthgen.pixels.tensorflow_backend import TensorFlowBackend

        return TensorFlowBackend(generator, device or "auto")
    return NumpyBackend(generator)


def expect_backend(backend: str) -> str:
    """Return ``backend`` if ``open_backend`` knows it, else raise UsageError; nothing is imported."""
    name, _, device = backend.partition(":")
    if name not in BACKENDS or (device and name != "tensorflow"):
        raise UsageError(f"backend {backend!r:.80}: expected {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}")
    if name == "onnxruntime" and not (_installed("onnxruntime") and _installed("onnx")):
        raise UsageError(
            "backend 'onnxruntime' is not installed: pip install onnxruntime onnx, or leave the option out"
        )
    return backend


def for_few(backend: str, images: int) -> str:
    """``numpy`` instead of ``auto`` where so few images are drawn that a fast backend's start would take longer."""
    return "numpy" if backend == "auto" and images < _FEW_IMAGES else backend


def _chosen() -> str:
    return "onnxruntime" if _installed("onnxruntime") and _installed("onnx") else "numpy"


@functools.cache
def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def described(backend: str) -> str:
    """A backend that ``expect_backend`` accepts, as a manifest has it, such as ``onnxruntime 1.32.0``."""
    name, _, device = backend.partition(":")
    name = _chosen() if name == "auto" else name
    return f"{name} {metadata.version(name)}{f' on {device}' if device else ''}"
