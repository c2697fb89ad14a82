"""The options ``--backend`` and ``--device``, which choose what computes images."""

from synthgen.errors import UsageError

BACKEND_HELP = "auto (the fastest installed), numpy, onnxruntime or tensorflow: what draws; the pixels are the same."
DEVICE_HELP = "cpu, gpu or gpu:1: tensorflow draws there. [default with tensorflow: the first GPU, if any]"


def chosen_backend(backend: str, device: str | None) -> str:
    """Both options as ``pixels.backends.open_backend`` has them, such as ``tensorflow:gpu:1``.

    Raises:
        UsageError: a device for another backend.
    """
    if device is None:
        return backend
    if backend not in ("auto", "tensorflow"):
        raise UsageError(f"--device {device}: goes with --backend tensorflow, not {backend}")
    return f"tensorflow:{device}"
