"""A crew: processes that each prepare once (load a generator, say) and then work through tasks, results in order.

They are spawned, not forked: threads do not survive a fork. None outlives the process that started it, however
that one ends, and a process that dies ends the whole crew with one line.
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

# How long work tells where it is. Every module that reports takes one of these.
Progress = Callable[[int], None]  # called with the amount just finished, such as a number of images
StepProgress = Callable[[int, int], None]  # (steps done, steps in all)
StageProgress = Callable[[str, int, int], None]  # (what is being done, steps done, steps in all)

Act = Callable[[Any, Progress], Any]  # (task, progress) → result
Prepare = Callable[[], Act]  # called once in each process; must be picklable

_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_TASKS_AHEAD = 4  # of the next result, a process: bounds what waits in memory when one task takes long


@dataclass
class _Member:
    process: multiprocessing.process.BaseProcess
    connection: Connection
    busy: bool = False


def run_in_processes(
    prepare: Prepare, tasks: Sequence[Any], *, processes: int, progress: Progress = lambda amount: None
) -> Iterator[Any]:
    """Yield the result of every task, in the order of ``tasks``.

    Args:
        prepare: called once in every process; what it returns is called with each task and a progress callback.
        tasks: picklable; given out one at a time to whoever is free.
        processes: how many, at least 1.
        progress: called here with what the tasks report.

    Raises:
        SynthgenError, OSError: as raised in a process.
        WorkerError: a process died.
    """
    context = multiprocessing.get_context("spawn")
    members: list[_Member] = []
    done: dict[int, Any] = {}
    given = yielded = 0
    try:
        with _one_thread_each():
            for _ in range(min(processes, len(tasks))):
                members.append(_start(context, prepare))
        while yielded < len(tasks):
            for member in members:
                if not member.busy and given < min(len(tasks), yielded + _TASKS_AHEAD * len(members)):
                    _tell(member, given, tasks[given])
                    given += 1
            for member in _ready(members):
                index, value = _hear(member)
                if index is None:
                    progress(value)
                else:
                    done[index], member.busy = value, False
            while yielded in done:
                yield done.pop(yielded)
                yielded += 1
    finally:
        for member in members:
            member.process.kill()
        for member in members:
            member.process.join()
            member.connection.close()


def available_cpus() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_environment_lock = threading.Lock()  # threads of one process may each start a crew


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started meanwhile multiply matrices by one thread each: there are as many of them as processors."""
    with _environment_lock:
        before = {name: os.environ.get(name) for name in _THREADS}
        os.environ.update(dict.fromkeys(_THREADS, "1"))
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _start(context: Any, prepare: Prepare) -> _Member:
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(prepare, theirs), daemon=True)
    process.start()
    theirs.close()  # so that the end of the process is the end of the pipe
    return _Member(process, ours)


def _ready(members: list[_Member]) -> list[_Member]:
    readable = wait([member.connection for member in members])
    return [member for member in members if member.connection in readable]


def _tell(member: _Member, index: int, task: Any) -> None:
    member.busy = True
    try:
        member.connection.send((index, task))
    except OSError as error:
        raise _death_of(member) from error


def _hear(member: _Member) -> tuple[int | None, Any]:
    """(index, result) of a finished task, or (None, progress); raises what the process raised."""
    try:
        kind, index, value = member.connection.recv()
    except (EOFError, OSError) as error:
        raise _death_of(member) from error
    if kind == "error":
        raise value
    return index, value


def _death_of(member: _Member) -> WorkerError:
    member.process.join(timeout=5)
    code = member.process.exitcode
    how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
    return WorkerError(f"a worker process {how}; is memory short?")


def _work(prepare: Prepare, connection: Connection) -> None:
    """What a process of the crew does: prepare, then tasks until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; whoever started us decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        act = prepare()
        while True:
            index, task = connection.recv()
            result = act(task, lambda amount: connection.send(("progress", None, amount)))
            connection.send(("result", index, result))
    except EOFError:
        return
    except (SynthgenError, OSError) as error:
        connection.send(("error", None, error))
    except Exception:
        connection.send(("error", None, RuntimeError(f"in a worker process:\n{traceback.format_exc()}")))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
