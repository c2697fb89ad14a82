"""Shards on a Ray cluster: actors that load the generator once and outlive no failure that matters.

Ray restarts an actor that died, on another node if its own is gone, and calls it again; a shard is idempotent, so the
set is that of one process. Install with ``pip install 'synthgen[ray]'``.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from synthgen.environment import begin_lean_process
from synthgen.errors import ExportError, SynthgenError, UsageError
from synthgen.export_plan import Job
from synthgen.outputs import open_output
from synthgen.shard_files import FinishedShard, Progress, generate_shard

_SHARDS_IN_FLIGHT = 2  # an actor: one at work, one waiting
_RETRIES = 5


def generate_on_ray(
    job: Job, out: str, indices: Sequence[int], *, address: str | None, actors: int, progress: Progress
) -> Iterator[FinishedShard]:
    """Write the shards of ``indices`` on a Ray cluster; yield each one's record, in order.

    Args:
        job: what to export. Its checkpoint must be found at the same location on every node.
        out: a URL or a folder that every node shares.
        indices: which shards.
        address: of the cluster; None: the one this machine is part of, or a new one on it.
        actors: how many draw at once.
        progress: called with the number of images of every finished shard.

    Raises:
        UsageError: Ray is not installed, or no cluster answers at ``address``.
        ExportError: a shard failed again and again.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError("engine 'ray': Ray is not installed; pip install 'synthgen[ray]'") from error
    begun = _connect(ray, address)
    drawer = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=_RETRIES)(ShardActor)
    try:
        yield from _in_order(ray, [drawer.remote(job.to_dict(), out) for _ in range(actors)], indices, progress)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, SynthgenError | OSError):
            raise error.cause from error
        raise
    except ray.exceptions.RayError as error:
        raise ExportError(f"{out}: Ray gave up: {str(error).splitlines()[0]}; go on with --resume") from error
    finally:
        if begun:
            ray.shutdown()


class ShardActor:
    """A process of the cluster that writes shards."""

    def __init__(self, job: dict[str, Any], out: str) -> None:
        begin_lean_process(threads=1)
        self._job, self._output = Job.from_dict(job), open_output(out)

    def generate(self, index: int) -> dict[str, Any]:
        """Write a shard; its record as JSON-ready values."""
        return generate_shard(self._job, index, self._output).to_dict()


def _connect(ray: Any, address: str | None) -> bool:
    """Join or begin a cluster, unless this process is part of one already; whether it was begun or joined here."""
    if ray.is_initialized():
        return False
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(f"address '{address}': no Ray cluster answers: {str(error).splitlines()[0]}") from error
    return True


def _in_order(ray: Any, actors: Sequence[Any], indices: Sequence[int], progress: Progress) -> Iterator[FinishedShard]:
    """Deal the shards out to whoever is free, few at a time, and yield the results in order."""
    waiting = list(reversed(range(len(indices))))
    flying: dict[Any, tuple[int, int]] = {}  # reference → (which shard, whose)
    load = [0] * len(actors)
    done: dict[int, FinishedShard] = {}
    yielded = 0
    while yielded < len(indices):
        while waiting and min(load) < _SHARDS_IN_FLIGHT:
            position, actor = waiting.pop(), load.index(min(load))
            flying[actors[actor].generate.remote(indices[position])] = position, actor
            load[actor] += 1
        (reference,), _ = ray.wait(list(flying), num_returns=1)
        position, actor = flying.pop(reference)
        load[actor] -= 1
        done[position] = FinishedShard.from_dict(ray.get(reference))
        progress(done[position].record.count)
        while yielded in done:
            yield done.pop(yielded)
            yielded += 1
