"""Engines: what draws the shards of an export. This process, several on this machine, or a Ray cluster.

All of them write shards by ``shard.write_shard``, so the set is the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise
from pathlib import Path

import numpy as np

from synthgen.errors import UsageError
from synthgen.export.outputs import LocalOutput, Output, open_output
from synthgen.export.plan import Job
from synthgen.export.shard import Callbacks, FinishedShard, draw_shard, finished_shard, generate_shard, write_shard
from synthgen.formats.base import Batch
from synthgen.index import BLOCK_IMAGES, Shard
from synthgen.model.sampling import Sampler
from synthgen.pixels.backends import expect_backend, expect_divisible, uses_tensorflow
from synthgen.workers import Progress, Work, available_cpus, run_in_pool

_IMAGES_PER_WORKER = 3_000  # fewer are drawn sooner than one more process has started
_MAX_DEFAULT_WORKERS = 8  # more wait for the disk
_BLOCKS_PER_PIECE = 8  # drawn by one task: 2,048 images, 1.6 MB


def default_workers(count: int, backend: str = "auto") -> int:
    """How many processes draw ``count`` images soonest: one for every processor, fewer for small sets, at most 8.

    One with TensorFlow, which takes all processors, or a GPU, for itself.
    """
    if uses_tensorflow(backend):
        return 1
    return max(1, min(available_cpus(), count // _IMAGES_PER_WORKER, _MAX_DEFAULT_WORKERS))


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What draws.

    Attributes:
        name: ``local`` or ``ray``.
        workers: processes or Ray actors; None: this process alone, or an actor for every processor of the cluster.
        address: of the Ray cluster; None: the one this machine is part of, or a new one on it.
        backend: what computes the images, see ``pixels.backends.open_backend``.
    """

    name: str = "local"
    workers: int | None = None
    address: str | None = None
    backend: str = "auto"

    def expect_ready(self, out: str | Path) -> None:
        """Raise UsageError unless engine and backend exist, are installed, are reachable and can write to ``out``."""
        expect_backend(self.backend)
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"workers {self.workers}: expected at least 1")
        if self.name == "ray" or self.workers not in (None, 1):
            expect_divisible(self.backend)
        if str(out).startswith("memory://") and (self.name == "ray" or self.workers not in (None, 1)):
            raise UsageError(f"{out}: only one process sees its own memory; use --workers 1 and the local engine")
        if self.name == "ray":
            from synthgen.export.ray import expect_ray

            expect_ray(self.address)
        elif self.name != "local":
            raise UsageError(f"engine '{self.name}': expected local or ray")

    def shards(
        self, job: Job, sampler: Sampler, output: Output, indices: Sequence[int], callbacks: Callbacks
    ) -> list[FinishedShard]:
        """Draw and write the shards of ``indices``, and return their records in order.

        ``sampler`` is the job's, for what this process draws itself; workers load their own. ``output`` is claimed.
        """
        finished = []
        for shard in self._shards(job, sampler, output, indices, callbacks):
            finished.append(shard)
            callbacks.on_shard(len(finished), len(indices))
        return finished

    def _shards(
        self, job: Job, sampler: Sampler, output: Output, indices: Sequence[int], callbacks: Callbacks
    ) -> Iterator[FinishedShard]:
        if self.name == "ray":
            from synthgen.export.ray import generate_on_ray

            # An actor has another working folder.
            place = str(output.path.resolve()) if isinstance(output, LocalOutput) else str(output)
            return generate_on_ray(
                job, place, indices, callbacks, address=self.address, actors=self.workers, backend=self.backend
            )
        callbacks.on_begin()
        progress = callbacks.progress
        if self.workers is None or self.workers == 1:
            return (draw_shard(job, index, output, lambda: sampler, progress) for index in indices)
        if len(indices) >= self.workers:
            writing = partial(_writing, job, str(output), sampler.backend)
            return run_in_pool(writing, indices, workers=self.workers, progress=progress)
        return _few_shards(job, output, indices, self.workers, sampler, progress)


def _few_shards(
    job: Job, output: Output, indices: Sequence[int], workers: int, sampler: Sampler, progress: Progress
) -> Iterator[FinishedShard]:
    """Fewer shards than workers: these draw pieces, and this process writes them in order."""
    shards = [job.export.plan[index] for index in indices]
    finished = {shard.index: finished_shard(job, shard, output) for shard in shards}
    pieces = {shard.index: list(_pieces(shard)) for shard in shards if finished[shard.index] is None}
    tasks = [piece for some in pieces.values() for piece in some]
    drawn = run_in_pool(partial(_drawing, job, sampler.backend), tasks, workers=workers)
    for shard in shards:
        earlier = finished[shard.index]
        if earlier is not None:
            progress(shard.count)
            yield earlier
        else:
            batches = islice(drawn, len(pieces[shard.index]))
            yield write_shard(job, shard, output, batches, sampler.made_with(), progress)


def _writing(job: Job, out: str, backend: str) -> Work:
    """The work of a process that writes whole shards: its tasks are their indices."""
    output = open_output(out)
    return lambda index, progress: generate_shard(job, index, output, progress, backend=backend)


def _drawing(job: Job, backend: str) -> Work:
    """The work of a process that only draws: its tasks are pieces of shards."""
    sampler = job.sampler(backend)
    return lambda piece, progress: _joined(list(sampler.shard(piece)))


def _pieces(shard: Shard) -> Iterator[Shard]:
    """A shard cut between blocks into what one task draws."""
    step = _BLOCKS_PER_PIECE * BLOCK_IMAGES
    edges = [shard.start, *range((shard.start // step + 1) * step, shard.stop, step), shard.stop]
    for first, last in pairwise(edges):
        yield Shard(index=shard.index, of=shard.of, start=first, count=last - first)


def _joined(batches: list[Batch]) -> Batch:
    labels = [batch.labels for batch in batches if batch.labels is not None]
    return Batch(
        start=batches[0].start,
        images=np.concatenate([batch.images for batch in batches]),
        labels=np.concatenate(labels) if labels else None,
    )
