"""How a training is shared out among devices or machines, checked before TensorFlow is imported.

The strategies are those of ``tf.distribute``: every replica computes its part of each batch, and all hold the same
weights. ``replicas`` carries them out.
"""

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from synthgen.errors import TrainingError, UsageError
from synthgen.model.recipe import AdversarialRecipe, Recipe

STRATEGIES = ("mirrored", "multi-worker")
MAX_REPLICAS = 1024
WORKERS_TIMEOUT = 600  # seconds; TensorFlow itself waits for other workers without limit
WORKERS_TIMEOUT_VARIABLE = "SYNTHGEN_WORKERS_TIMEOUT"
_RETRY_SECONDS = 0.2
_EXAMPLE = '{"cluster": {"worker": ["HOST0:PORT", "HOST1:PORT"]}, "task": {"type": "worker", "index": 0}}'
_TASKS = ("chief", "worker")


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """A strategy that was checked; see ``choose_strategy``.

    Attributes:
        name: ``mirrored`` or ``multi-worker``.
        replicas: how many devices of this machine; None: every GPU or, where there is none, every logical device of
            the processor.
        workers: how many processes train together.
        is_chief: whether this process is the one that writes.
        address: HOST:PORT of this process, where there are several.
        others: addresses of the other processes.
        timeout: seconds after which a process gives up that waits for the others to start.
    """

    name: str
    replicas: int | None = None
    workers: int = 1
    is_chief: bool = True
    address: str = ""
    others: tuple[str, ...] = ()
    timeout: float = WORKERS_TIMEOUT


def choose_strategy(name: str, replicas: int | None = None, environment: Mapping[str, str] = os.environ) -> Strategy:
    """Check how a training is to be shared out.

    Args:
        name: ``mirrored``: among the devices of this machine. ``multi-worker``: among the processes that ``TF_CONFIG``
            names, each with every GPU that it sees.
        replicas: how many devices, with ``mirrored`` only. On a machine without GPUs the processor is divided into so
            many logical devices, which makes nothing faster but shows that all is well.
        environment: where ``TF_CONFIG`` stands, and ``SYNTHGEN_WORKERS_TIMEOUT``: after how many seconds a worker
            gives up that waits for the others to start, by default 600.

    Raises:
        UsageError: there is no such strategy, or ``replicas`` or the environment do not go with it.
    """
    if name not in STRATEGIES:
        raise UsageError(f"strategy {name!r}: expected one of {', '.join(STRATEGIES)}")
    if replicas is not None and not 1 <= replicas <= MAX_REPLICAS:
        raise UsageError(f"replicas {replicas}: expected 1 to {MAX_REPLICAS}")
    if name == "mirrored":
        return Strategy(name=name, replicas=replicas)
    if replicas is not None:
        raise UsageError(f"replicas {replicas}: goes with the strategy mirrored; a worker uses every GPU that it sees")
    address, others, is_chief = _cluster(environment.get("TF_CONFIG", ""))
    timeout = environment.get(WORKERS_TIMEOUT_VARIABLE, WORKERS_TIMEOUT)
    try:
        seconds = float(timeout)
        if not 0 < seconds < float("inf"):
            raise ValueError
    except ValueError as error:
        raise UsageError(f"{WORKERS_TIMEOUT_VARIABLE} = {timeout!r:.80}: expected a number of seconds") from error
    return Strategy(
        name=name, workers=1 + len(others), is_chief=is_chief, address=address, others=others, timeout=seconds
    )


def expect_shareable(recipe: Recipe, strategy: Strategy | None) -> None:
    """Raise UsageError where there is a strategy and the recipe is private."""
    if strategy is not None and not isinstance(recipe, AdversarialRecipe):
        raise UsageError(
            f"--strategy {strategy.name}: recipe '{recipe.name}' is private, and the noise of a private look is drawn "
            "once, in one place; leave --strategy out"
        )


def wait_for_workers(strategy: Strategy) -> None:
    """Return once every other worker answers at its address; meanwhile answer at this one's.

    The system accepts connections to a port that is listened to; TensorFlow takes the port over afterwards, so that a
    worker that starts later finds it there.

    Raises:
        UsageError: this worker's port cannot be listened to.
        TrainingError: another worker has not answered within ``strategy.timeout`` seconds.
    """
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    deadline = time.monotonic() + strategy.timeout
    try:
        listening = socket.create_server(("", _host_and_port(strategy.address)[1]), family=family, dualstack_ipv6=dual)
    except OSError as error:
        raise UsageError(f"strategy multi-worker: cannot listen at {strategy.address}: {error.strerror}") from error
    with listening:
        for address in strategy.others:
            while not _answers(address, deadline):
                if time.monotonic() >= deadline:
                    raise TrainingError(
                        f"strategy multi-worker: no worker answered at {address} for {strategy.timeout:g} seconds; "
                        f"start all workers of TF_CONFIG within that time ({WORKERS_TIMEOUT_VARIABLE} changes it)"
                    )
                time.sleep(_RETRY_SECONDS)


def _answers(address: str, deadline: float) -> bool:
    try:
        with socket.create_connection(
            _host_and_port(address), timeout=max(1.0, min(10.0, deadline - time.monotonic()))
        ):
            return True
    except OSError:  # refused, unreachable, or a name that is not known yet
        return False


@contextmanager
def workers_in_reach(strategy: Strategy) -> Iterator[None]:
    """Raise TrainingError, in a line, where another worker goes away."""
    try:
        yield
    except Exception as error:
        import tensorflow as tf

        gone = (
            tf.errors.UnavailableError,
            tf.errors.AbortedError,
            tf.errors.CancelledError,
            tf.errors.DeadlineExceededError,
        )
        if strategy.workers == 1 or not isinstance(error, gone):
            raise
        _, _, cause = str(error).partition("aborted by: ")
        reason = (cause or type(error).__name__).partition("\n")[0].rstrip(":")
        raise TrainingError(
            f"another worker stopped or cannot be reached ({reason:.200}); end all, then start all anew with --resume"
        ) from error


def _cluster(config: str) -> tuple[str, tuple[str, ...], bool]:
    """This worker's address, the others', and whether this process is the chief: the task ``chief``, else worker 0."""
    if not config:
        raise UsageError(
            f"strategy multi-worker: TF_CONFIG is not set; expected on every worker, with its own index: {_EXAMPLE}"
        )
    try:
        document = json.loads(config)
        cluster, task = document["cluster"], document["task"]
        kind, index = task["type"], int(task["index"])
        jobs = {name: _addresses(cluster[name]) for name in cluster}
        if kind not in _TASKS or not 0 <= index < len(jobs[kind]):
            raise ValueError(f"task {kind} {index}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"TF_CONFIG = {config!r:.300}: {error!s:.100}; expected as in {_EXAMPLE}") from error
    others = [jobs[job][i] for job in _TASKS for i in range(len(jobs.get(job, ()))) if (job, i) != (kind, index)]
    return jobs[kind][index], tuple(others), kind == "chief" or ("chief" not in jobs and index == 0)


def _addresses(tasks: Any) -> list[str]:
    if not isinstance(tasks, list) or not tasks or not all(isinstance(address, str) for address in tasks):
        raise ValueError(f"{tasks!r:.80} is no list of addresses")
    for address in tasks:
        _host_and_port(address)
    return tasks


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) >= 1 << 16:
        raise ValueError(f"{address!r:.80} is no HOST:PORT")
    return host.strip("[]"), int(port)
