"""A pool of worker processes: each prepares once (loads a generator, say), then works through tasks; results in order.

Workers are spawned, not forked: threads do not survive a fork. None outlives the process that started it, however
that one ends. A worker that dies ends the whole pool with one line. Workers import nothing from the working folder,
which may hold what a stranger sent, unless the process that starts them does.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from synthgen.errors import SynthgenError, WorkerError

# How long work reports where it is; nothing else defines such a callback.
Progress = Callable[[int], None]  # called with the amount just finished, such as a number of images
StepProgress = Callable[[int, int], None]  # (steps done, steps in all)
StageProgress = Callable[[str, int, int], None]  # (what is being done, steps done, steps in all)

Work = Callable[[Any, Progress], Any]  # (task, progress) → result
Prepare = Callable[[], Work]  # called once in each worker; must be picklable

_TASKS_AHEAD = 4  # of the next result, for each worker: bounds what waits in memory when one task takes long


@dataclass
class _Worker:
    process: multiprocessing.process.BaseProcess
    connection: Connection
    busy: bool = False


def run_in_pool(
    prepare: Prepare, tasks: Sequence[Any], *, workers: int, progress: Progress = lambda amount: None
) -> Iterator[Any]:
    """Yield the result of every task, in the order of ``tasks``.

    Args:
        prepare: called once in every worker; what it returns is called with each task and a progress callback.
        tasks: picklable; each goes to the next idle worker.
        workers: how many processes, at least 1.
        progress: called in this process with the amounts that the tasks report.

    Raises:
        SynthgenError, OSError: as raised in a worker.
        WorkerError: a worker died, ran out of memory or could not be started.
    """
    context = multiprocessing.get_context("spawn")
    pool: list[_Worker] = []
    done: dict[int, Any] = {}
    sent = yielded = 0
    try:
        for _ in range(min(workers, len(tasks))):
            pool.append(_start(context, prepare))
        while yielded < len(tasks):
            for worker in pool:
                if not worker.busy and sent < min(len(tasks), yielded + _TASKS_AHEAD * len(pool)):
                    _send(worker, sent, tasks[sent])
                    sent += 1
            for worker in _ready(pool):
                index, value = _receive(worker)
                if index is None:
                    progress(value)
                else:
                    done[index], worker.busy = value, False
            while yielded in done:
                yield done.pop(yielded)
                yielded += 1
    finally:
        for worker in pool:
            worker.process.kill()
        for worker in pool:
            worker.process.join()
            worker.connection.close()


def available_cpus() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start(context: Any, prepare: Prepare) -> _Worker:
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(prepare, theirs), daemon=True)
    try:
        with _safe_start():
            process.start()
    except OSError as error:
        raise WorkerError(f"a worker process cannot be started: {error.strerror or error}; use --workers 1.") from error
    theirs.close()  # so that the end of the process is the end of the pipe
    return _Worker(process, ours)


@contextlib.contextmanager
def _safe_start() -> Iterator[None]:
    """While a process is started: it shall import nothing from the working folder, and not be interrupted.

    It begins as ``python -c``, which imports from the working folder until it is given this process's path; the
    process with which multiprocessing tracks resources remains so. Ctrl-C reaches it, too, before it can ignore it:
    it inherits that the signal is blocked. Here the signal is then handled a moment later.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    mask = None
    try:
        if hasattr(signal, "pthread_sigmask"):
            from multiprocessing import resource_tracker

            resource_tracker.ensure_running()  # by itself it would be started below, and unblock the signal
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        yield
    finally:
        if before is None:
            os.environ.pop("PYTHONSAFEPATH", None)
        else:
            os.environ["PYTHONSAFEPATH"] = before
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _ready(pool: list[_Worker]) -> list[_Worker]:
    readable = wait([worker.connection for worker in pool])
    return [worker for worker in pool if worker.connection in readable]


def _send(worker: _Worker, index: int, task: Any) -> None:
    worker.busy = True
    try:
        worker.connection.send((index, task))
    except OSError as error:
        raise _death_of(worker) from error


def _receive(worker: _Worker) -> tuple[int | None, Any]:
    """(index, result) of a finished task, or (None, progress); raises what the worker raised."""
    try:
        kind, index, value = worker.connection.recv()
    except (EOFError, OSError) as error:
        raise _death_of(worker) from error
    if kind == "error":
        raise value
    return index, value


def _death_of(worker: _Worker) -> WorkerError:
    worker.process.join(timeout=5)
    code = worker.process.exitcode
    how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
    return WorkerError(f"a worker process {how}; is memory short?")


def _work(prepare: Prepare, connection: Connection) -> None:
    """What a worker does: prepare, then tasks until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the process that started us decides
    try:
        threading.Thread(target=_end_with_parent, daemon=True).start()
        work = prepare()
        while True:
            index, task = connection.recv()
            result = work(task, lambda amount: connection.send(("progress", None, amount)))
            connection.send(("result", index, result))
    except EOFError:
        return
    except (SynthgenError, OSError) as error:
        connection.send(("error", None, error))
    except MemoryError:
        connection.send(("error", None, WorkerError("a worker process ran out of memory; use fewer --workers.")))
    except Exception as error:
        if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
            connection.send(("error", None, WorkerError("a worker process cannot start a thread; use --workers 1.")))
            return
        connection.send(("error", None, RuntimeError(f"in a worker process:\n{traceback.format_exc()}")))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
