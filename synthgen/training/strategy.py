"""How a training is shared out among devices or machines: the wish, checked before TensorFlow is imported.

The strategies are those of ``tf.distribute``: every replica computes its part of each batch, and all hold the same
weights. ``replicas`` carries them out.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from synthgen.errors import TrainingError, UsageError

STRATEGIES = ("mirrored", "multi-worker")
MAX_REPLICAS = 1024
_EXAMPLE = '{"cluster": {"worker": ["HOST0:PORT", "HOST1:PORT"]}, "task": {"type": "worker", "index": 0}}'
_TASKS = ("chief", "worker")


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """A checked wish; see ``choose_strategy``.

    Attributes:
        name: ``mirrored`` or ``multi-worker``.
        replicas: how many devices of this machine; None: every GPU or, where there is none, every logical device of
            the processor.
        workers: how many processes train together.
        is_chief: whether this process is the one that writes.
    """

    name: str
    replicas: int | None = None
    workers: int = 1
    is_chief: bool = True


def choose_strategy(name: str, replicas: int | None = None, environment: Mapping[str, str] = os.environ) -> Strategy:
    """Check how a training is to be shared out.

    Args:
        name: ``mirrored``: among the devices of this machine. ``multi-worker``: among the processes that ``TF_CONFIG``
            names, each with every GPU that it sees.
        replicas: how many devices, with ``mirrored`` only. On a machine without GPUs the processor is divided into so
            many logical devices, which makes nothing faster but shows that all is well.
        environment: where ``TF_CONFIG`` stands.

    Raises:
        UsageError: there is no such strategy, or ``replicas`` or ``TF_CONFIG`` do not go with it.
    """
    if name not in STRATEGIES:
        raise UsageError(f"strategy {name!r}: expected one of {', '.join(STRATEGIES)}")
    if replicas is not None and not 1 <= replicas <= MAX_REPLICAS:
        raise UsageError(f"replicas {replicas}: expected 1 to {MAX_REPLICAS}")
    if name == "mirrored":
        return Strategy(name=name, replicas=replicas)
    if replicas is not None:
        raise UsageError(f"replicas {replicas}: goes with the strategy mirrored; a worker uses every GPU that it sees")
    workers, is_chief = _cluster(environment.get("TF_CONFIG", ""))
    return Strategy(name=name, workers=workers, is_chief=is_chief)


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


def _cluster(config: str) -> tuple[int, bool]:
    """The number of workers, and whether this process is their chief: the task ``chief``, else worker 0."""
    if not config:
        raise UsageError(
            f"strategy multi-worker: TF_CONFIG is not set; expected on every worker, with its own index: {_EXAMPLE}"
        )
    try:
        document = json.loads(config)
        cluster, task = document["cluster"], document["task"]
        kind, index = task["type"], int(task["index"])
        sizes = {name: _addresses(cluster[name]) for name in cluster}
        if kind not in _TASKS or not 0 <= index < sizes[kind]:
            raise ValueError(f"task {kind} {index}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"TF_CONFIG = {config!r:.300}: {error!s:.100}; expected as in {_EXAMPLE}") from error
    workers = sum(sizes.get(name, 0) for name in _TASKS)
    return workers, kind == "chief" or ("chief" not in sizes and index == 0)


def _addresses(tasks: Any) -> int:
    if not isinstance(tasks, list) or not tasks or not all(isinstance(address, str) for address in tasks):
        raise ValueError(f"{tasks!r:.80} is no list of addresses")
    return len(tasks)
