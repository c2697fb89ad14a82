"""What a result was made with (library versions, the machine), and the one place that starts TensorFlow."""

import _thread
import contextlib
import functools
import hashlib
import os
import platform
import sys
import zlib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

_DRAWING, _TRAINING = ("numpy", "h5py", "zlib-ng"), ("tensorflow", "keras", "pillow")
_TENSORFLOW_THREADS = 3  # for each processor, about
_VECTOR_FLAGS = ("avx", "avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "asimd", "sve")


def own_version() -> str:
    """The version of the code that runs, whatever was installed last."""
    return str(sys.modules["synthgen"].__version__)


def version_of(distribution: str) -> str:
    """The version of an installed distribution, or ``unknown``."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"


def software() -> dict[str, str]:
    """The software that draws and packs images, and the processor: for information, since no pixel depends on them."""
    return {
        "synthgen": own_version(),
        "python": platform.python_version(),
        **{name: version_of(name) for name in _DRAWING},
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
    }


def float_drawn_with() -> dict[str, str]:
    """The software and processor that decide the pixels of a float checkpoint, of synthgen 0.1 and 0.2.

    The same pixels are promised where all of these are the same. Another processor may round differently. So may a
    library that is told to use another processor's kernels, which only ``arithmetic`` shows.
    """
    return {
        **software(),
        "blas": _blas(),
        "arithmetic": _arithmetic(),
        "vector_instructions": " ".join(_vector_instructions()),
    }


def made_with() -> dict[str, str]:
    """What a training depends on."""
    return {
        **float_drawn_with(),
        **{name: version_of(name) for name in _TRAINING},
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),  # other kernels, other rounding
    }


def import_tensorflow() -> None:
    """Import TensorFlow, silently where ``TF_CPP_MIN_LOG_LEVEL`` is 3.

    TensorFlow obeys that level only after its start; its start-up notes go straight to file descriptor 2.

    Raises:
        RuntimeError: it could not start its threads, and would end the process without a word of ours.
    """
    if "tensorflow" not in sys.modules and not threads_can_start(_TENSORFLOW_THREADS * (os.cpu_count() or 1)):
        raise RuntimeError("TensorFlow can't start new threads: the system allows no more; raise the limit (ulimit -u)")
    quiet = _silence() if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "3" else contextlib.nullcontext()
    with quiet:
        import tensorflow  # noqa: F401


def threads_can_start(number: int) -> bool:
    """Whether the system lets so many more threads start; tried out, as limits count other processes, too."""
    gate = _thread.allocate_lock()

    def wait() -> None:
        with gate:
            pass

    with gate:
        try:
            for _ in range(number):
                _thread.start_new_thread(wait, ())
        except RuntimeError:
            return False
    return True


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


def _blas() -> str:
    """The library that multiplies numpy's matrices, which numpy's version does not determine."""
    import numpy as np

    found: Any = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"{found.get('name', 'unknown')} {found.get('version', '')}".strip()


@functools.cache
def _arithmetic() -> str:
    """A digest, to the last bit, of what matrix products and exponentials of the kind used in drawing give here."""
    import numpy as np

    numbers = np.random.Generator(np.random.Philox(0)).random(1 << 16, np.float32) - np.float32(0.5)
    digest = hashlib.sha256(np.exp(numbers).tobytes())
    for rows, inner in ((96, 59), (48, 384), (16, 192), (9, 16)):
        product = numbers[: rows * inner].reshape(rows, inner) @ numbers[-inner * 32 :].reshape(inner, 32)
        digest.update(product.tobytes())
    return digest.hexdigest()[:16]


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
