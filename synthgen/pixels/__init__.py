"""Pixels: drawing as exact integer arithmetic, defined in docs/pixels.md, and the backends that compute it.

In go a generator's integers, latents and labels; out come images, the same to the bit from every backend.
"""

__all__ = [
    "backends",
    "drawing",
    "folded",
    "graph",
    "integers",
    "latents",
    "layers",
    "onnx_backend",
    "quantise",
    "tables",
    "tensorflow_backend",
]
