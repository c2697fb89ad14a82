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
        "device": "CPU",
        "processor": _processor(),
        "vector_instructions": " ".join(_vector_instructions()),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),  # other kernels, other rounding
    }


def import_tensorflow() -> None:
    """Import TensorFlow, silently where ``TF_CPP_MIN_LOG_LEVEL`` is 3.

    TensorFlow heeds that level only once it is up: its start-up notes go to descriptor 2 itself.
    """
    with _silence() if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "3" else contextlib.nullcontext():
        import tensorflow  # noqa: F401


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
