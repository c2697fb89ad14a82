"""Draw 520 images of every generator with one backend, and print their digests as JSON.

Run by tests/pixels/test_backends.py in a process of its own, whose environment chooses the kernels and threads.

    python draw_digests.py BACKEND CHUNKS CALLS [NAME…]

CHUNKS: how many images a backend computes together, such as 1,7,256, or 0 for its own choice. CALLS: how many it is
asked for at a time. Every pair of the two is tried.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
from small_generators import SMALL, small_generator
from threadpoolctl import threadpool_info

from synthgen.formats.base import Batch
from synthgen.index import LabelRule, pieces
from synthgen.model.checkpoint import load_checkpoint
from synthgen.pixels import drawing, layers
from synthgen.pixels.backends import open_backend
from synthgen.pixels.integers import IntegerGenerator
from synthgen.pixels.latents import latents
from synthgen.sets.digest import SetDigest

COUNT, SEED = 520, 7  # two blocks and a piece of a third
SHIPPED = ("private", "private-eps1", "conditional")


def generator_of(name: str) -> tuple[IntegerGenerator, str]:
    """A generator, and the distribution of its latents."""
    if name in SMALL:
        return small_generator(name), SMALL[name][1]
    checkpoint = load_checkpoint(name)
    return checkpoint.integers(), checkpoint.recipe.latent.distribution


def inputs_of(generator: IntegerGenerator, distribution: str) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.uint8]]:
    """As an export with ``--seed 7 --labels uniform`` has them."""
    blocks, rule = range(-(-COUNT // 256)), LabelRule.parse("uniform")
    noise = np.concatenate([latents(SEED, block, generator.latent_size, distribution) for block in blocks])
    labels = np.concatenate([rule.labels(SEED, block) for block in blocks])
    return noise[:COUNT], labels[:COUNT]


def digest_of(name: str, backend: str, chunk: int = 0, call: int = COUNT) -> str:
    """The digest of a set of the first images; ``chunk`` and ``call`` as above.

    Where a call is smaller than a chunk, only the first three are made so small, since each costs a whole chunk.
    """
    generator, distribution = generator_of(name)
    noise, labels = inputs_of(generator, distribution)
    with chunks_of(backend, chunk):
        draw = open_backend(generator, backend)
        few = 3 * call if call < chunk else COUNT
        calls = [*pieces(min(few, COUNT), call), *([slice(few, COUNT)] if few < COUNT else [])]
        digest = SetDigest(0)
        for some in calls:
            own = labels[some] if generator.classes > 1 else None
            digest.update(Batch(start=some.start, images=draw(noise[some], own), labels=own))
    return digest.hexdigest()


@contextmanager
def chunks_of(backend: str, size: int) -> Iterator[None]:
    """Let a backend compute so many images together, and see that it does; 0: as it is."""
    if not size:
        yield
        return
    with ExitStack() as patches:
        if backend == "numpy":
            patches.enter_context(patch.object(layers, "CHUNK", size))
            patches.enter_context(patch.object(drawing, "CHUNK", size))
            module = drawing
        elif backend == "onnxruntime":
            from synthgen.pixels import onnx_backend as module

            patches.enter_context(patch.object(module, "_CHUNK", size))
        else:
            from synthgen.pixels import tensorflow_backend as module

            patches.enter_context(patch.object(module, "_CHUNK", {"CPU": size, "GPU": size}))
        patches.enter_context(patch.object(module, "pieces", _pieces_of(size)))
        yield


def _pieces_of(size: int) -> Callable[[int, int], Iterator[slice]]:
    def checked(count: int, step: int) -> Iterator[slice]:
        assert step == size
        return pieces(count, step)

    return checked


def main() -> None:
    backend, chunks, calls, *names = sys.argv[1:]
    digests = {
        f"{name}, chunks of {chunk}, calls of {call}": digest_of(name, backend, chunk, call)
        for name in names or [*SHIPPED, *SMALL]
        for chunk in map(int, chunks.split(","))
        for call in map(int, calls.split(","))
    }
    pools = [pool for pool in threadpool_info() if "numpy" in pool["filepath"]]
    kernels = sorted({str(pool.get("architecture")) for pool in pools})
    threads = sorted({pool["num_threads"] for pool in pools})
    print(json.dumps({"kernels": kernels, "threads": threads, "digests": digests}))


if __name__ == "__main__":
    main()
