"""What a result was made with: library versions and the machine, found without importing TensorFlow.

And TensorFlow itself, for the few who need it.
"""

import contextlib
import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

_LIBRARIES = ("tensorflow", "keras", "numpy", "pillow", "h5py")
_VECTOR_FLAGS = ("avx", "avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "asimd", "sve")


def made_with() -> dict[str, str]:
    """Versions of synthgen, Python and the libraries, and the processor with its vector instructions.

    Pixels are promised to be the same where these are the same: another processor may round differently.
    """
    libraries = {name: _version(name) for name in _LIBRARIES}
    return {
        "synthgen": _version("synthgen"),
        "python": platform.python_version(),
        **libraries,
        "system": f"{platform.system()} {platform.machine()}",
        "device": "CPU",  # also where there is a GPU: networks.pixel_function places every drawing there
        "processor": _processor(),
        "vector_instructions": " ".join(_vector_instructions()),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),  # other kernels, other rounding
    }


def import_tensorflow() -> None:
    """Import TensorFlow, silently where ``TF_CPP_MIN_LOG_LEVEL`` is 3.

    TensorFlow heeds that level only once it is up: its start-up notes go to descriptor 2 itself.
    """
    quiet = _silence() if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "3" else contextlib.nullcontext()
    with quiet, _without_scikit_learn() if _lean else contextlib.nullcontext():
        import tensorflow  # noqa: F401


_lean = False


def begin_lean_process(threads: int | None = None) -> None:
    """Say that this process is synthgen's own, so that TensorFlow need not be able to do all that it can.

    Args:
        threads: how many threads TensorFlow may use in an operation; imports it. None: as many as it likes.
    """
    global _lean
    _lean = True
    if threads is not None:
        import_tensorflow()
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)


@contextlib.contextmanager
def _without_scikit_learn() -> Iterator[None]:
    """Keras imports scikit-learn, and that SciPy, for wrappers nobody here uses: a fifth of TensorFlow's start-up."""
    if "sklearn" in sys.modules:
        yield
        return
    sys.modules["sklearn"] = None  # type: ignore[assignment]  # Python's way to say: not to be imported
    try:
        yield
    finally:
        del sys.modules["sklearn"]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"


def _cpuinfo(field: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _vector_instructions() -> list[str]:
    flags = set((_cpuinfo("flags") or _cpuinfo("Features")).split())
    return [flag for flag in _VECTOR_FLAGS if flag in flags]
