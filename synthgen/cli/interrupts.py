"""What Ctrl-C and SIGTERM do: the first is a KeyboardInterrupt, and another one ends the process at once.

A second exception would fall into the cleaning up after the first. Nothing needs that cleaning up: files are whole or
absent, and workers end with the process.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

EXIT_CODE = 130
_state = {"interrupted": False, "told": False}


def take_interrupts() -> None:
    """From now on Ctrl-C is a KeyboardInterrupt, once."""
    signal.signal(signal.SIGINT, _interrupt)
    sys.unraisablehook = _unraisable


def was_interrupted() -> bool:
    """Whether Ctrl-C or SIGTERM has ended the work: libraries turn a KeyboardInterrupt into errors of their own."""
    return _state["interrupted"]


def told() -> None:
    """Note that the person knows: another signal needs no line of its own."""
    _state["told"] = True


@contextlib.contextmanager
def stop_signals(announce: Callable[[], None]) -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; the second one is a KeyboardInterrupt."""
    stopped = threading.Event()

    def ask_to_stop(number: int, frame: Any) -> None:
        if stopped.is_set():
            _interrupt(number, frame)
        announce()
        stopped.set()

    with _handlers(ask_to_stop, signal.SIGINT, signal.SIGTERM):
        yield stopped


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Within it SIGTERM is as Ctrl-C."""
    with _handlers(_interrupt, signal.SIGTERM):
        yield


def _interrupt(number: int, frame: Any) -> None:
    if was_interrupted():
        _leave()
    _state["interrupted"] = True
    raise KeyboardInterrupt


def _unraisable(unraisable: Any) -> None:
    """A KeyboardInterrupt in a destructor, where Python would show it and go on."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        _leave()
    sys.__unraisablehook__(unraisable)


def _leave() -> None:
    if not _state["told"]:
        os.write(2, b"synthgen: interrupted; what is finished is kept\n")
    os._exit(EXIT_CODE)


@contextlib.contextmanager
def _handlers(handler: Any, *signals: signal.Signals) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
