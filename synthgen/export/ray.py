"""Shards on a Ray cluster: a pool of actors, each of which loads the checkpoint once.

The shards of an actor that dies go to others, and another actor is started where the cluster has room. A shard may be
written twice, so the set is that of one process. Install with ``pip install 'synthgen[ray]'``.
"""

import contextlib
import importlib.util
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from synthgen.errors import ExportError, SynthgenError, UsageError
from synthgen.export.outputs import open_output
from synthgen.export.plan import Job
from synthgen.export.shard import Callbacks, FinishedShard, generate_shard
from synthgen.workers import Progress

_TASKS_EACH = 2  # shards that an actor is given at once: one being written, one waiting
_MAX_DEATHS = 20  # of actors, before the export fails
_CONNECT_SECONDS = 5
_WAIT_SECONDS = 60
_MAX_PREPARATION_SECONDS = 600  # to be given a processor, start and load the generator


def generate_on_ray(
    job: Job,
    out: str,
    indices: Sequence[int],
    callbacks: Callbacks,
    *,
    address: str | None,
    actors: int | None,
    backend: str,
) -> Iterator[FinishedShard]:
    """Write the shards of ``indices`` on a Ray cluster; yield each one's record, in order.

    Args:
        job: what to export. Its checkpoint must be found at the same location on every node.
        out: a URL or a folder that every node shares.
        indices: which shards.
        address: of the cluster; None: the one this machine is part of, or a new one on it.
        actors: how many draw at once, a processor each; None: as many as the cluster has processors.
        backend: what computes the images, see ``pixels.backends.open_backend``.
        callbacks: ``on_begin`` is called when the cluster is connected, ``progress`` for every finished shard.

    Raises:
        UsageError: Ray is not installed, or no cluster answers at ``address``.
        SynthgenError, OSError: as raised by ``generate_shard``.
        ExportError: actors died again and again.
    """
    expect_ray(address)
    import ray

    begun = _connect(ray, address)
    callbacks.on_begin()
    pool = _Pool(ray, job, out, backend)
    try:
        processors = max(1, int(ray.cluster_resources().get("CPU", 1)))  # a head alone may have none
        for _ in range(min(actors or processors, len(indices))):
            pool.start_actor()
        yield from pool.run(indices, callbacks.progress)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, SynthgenError | OSError):
            raise error.cause from error
        raise
    finally:
        pool.stop()
        if begun:
            ray.shutdown()


def expect_ray(address: str | None) -> None:
    """Raise UsageError unless Ray is installed and something listens at ``address``, where that has a host and a port.

    Ray itself would try for minutes.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError("engine 'ray': Ray is not installed; pip install 'synthgen[ray]'")
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise UsageError(f"address '{address}': no Ray cluster answers: {error}") from error


class ShardActor:
    """A process of the cluster that writes shards."""

    def prepare(self, job: dict[str, Any], out: str, backend: str) -> None:
        """Load the checkpoint."""
        self._job, self._output, self._backend = Job.from_dict(job), open_output(out), backend
        self._job.sampler(backend)

    def generate(self, index: int) -> FinishedShard:
        """Write a shard: a task."""
        return generate_shard(self._job, index, self._output, backend=self._backend)


class _Pool:
    """The actors and their tasks. A task is a position in the list of shards to write."""

    def __init__(self, ray: Any, job: Job, out: str, backend: str) -> None:
        self._ray, self._job, self._out, self._backend = ray, job, out, backend
        self._kind = ray.remote(num_cpus=1)(ShardActor)
        self._load: dict[Any, int] = {}  # prepared actor → number of its tasks
        self._preparing: dict[Any, Any] = {}  # reference → actor; one for which there is no room stays here
        self._running: dict[Any, tuple[int, Any]] = {}  # reference → (task, actor)
        self._waiting: deque[int] = deque()
        self._deaths = 0

    def start_actor(self) -> None:
        actor = self._kind.remote()
        self._preparing[actor.prepare.remote(self._job.to_dict(), self._out, self._backend)] = actor

    def run(self, indices: Sequence[int], progress: Progress) -> Iterator[FinishedShard]:
        """Give the shards to idle actors and yield the results in order."""
        self._waiting.extend(range(len(indices)))
        done: dict[int, FinishedShard] = {}
        yielded = 0
        while yielded < len(indices):
            self._assign(indices)
            reference = self._next()
            try:
                result = self._ray.get(reference)
            except self._ray.exceptions.RayTaskError:
                raise  # what our own code raised; all else is a lost process, node or object
            except self._ray.exceptions.RayError as error:
                self._replace(reference, error)
                continue
            if reference in self._preparing:
                self._load[self._preparing.pop(reference)] = 0
                continue
            task, actor = self._running.pop(reference)
            self._load[actor] -= 1
            done[task] = result
            progress(done[task].record.count)
            while yielded in done:
                yield done.pop(yielded)
                yielded += 1

    def _next(self) -> Any:
        """A reference whose result is there; raises ExportError if no actor can start."""
        waited = 0
        while True:
            ready, _ = self._ray.wait([*self._preparing, *self._running], num_returns=1, timeout=_WAIT_SECONDS)
            if ready:
                return ready[0]
            waited += _WAIT_SECONDS
            if not self._running and waited >= _MAX_PREPARATION_SECONDS:
                raise ExportError(
                    f"{self._out}: no Ray actor could start in {waited} s: no processor is free, or the nodes are too "
                    "slow; make room, then go on with --resume"
                )

    def stop(self) -> None:
        for actor in [*self._load, *self._preparing.values()]:
            self._ray.kill(actor)

    def _assign(self, indices: Sequence[int]) -> None:
        while self._waiting and self._load:
            actor = min(self._load, key=self._load.__getitem__)
            if self._load[actor] >= _TASKS_EACH:
                return
            task = self._waiting.popleft()
            self._running[actor.generate.remote(indices[task])] = task, actor
            self._load[actor] += 1

    def _replace(self, reference: Any, error: Exception) -> None:
        """Take back the tasks of a dead actor, and start another actor."""
        dead = self._preparing.pop(reference, None) or self._running[reference][1]
        if dead in self._load:
            del self._load[dead]
        self._ray.kill(dead)  # where only its result was lost, it still holds a processor
        for lost in [lost for lost, (_, actor) in self._running.items() if actor is dead]:
            self._waiting.appendleft(self._running.pop(lost)[0])
        self._deaths += 1
        if self._deaths > _MAX_DEATHS:
            reason = str(error).splitlines()[0]
            raise ExportError(f"{self._out}: Ray actors died {self._deaths} times: {reason}; go on with --resume")
        self.start_actor()


def _connect(ray: Any, address: str | None) -> bool:
    """Join or start a cluster, unless this process is part of one already; returns whether it did."""
    if ray.is_initialized():
        return False
    try:
        # Ray lets actors import from the folder in which it begins: the one synthgen is in, not one a stranger filled.
        with contextlib.chdir(Path(__file__).parents[2]):
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(f"address '{address}': no Ray cluster answers: {str(error).splitlines()[0]}") from error
    return True
