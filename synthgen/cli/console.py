"""What all commands share: lines for people and programs, progress bars, and what Ctrl-C does."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn

import typer
from tqdm import tqdm

from synthgen.workers import Progress, StageProgress

DATA_HELP = "Folder of the four real Fashion-MNIST files; by default they are looked for (see: synthgen data)."


def print_line(line: str) -> None:
    """A result, on stdout."""
    typer.echo(line)


def say(line: str) -> None:
    """A note for the person at the terminal, on stderr."""
    tqdm.write(line, file=sys.stderr)


def fail(message: str, exit_code: int) -> NoReturn:
    """End with one line on stderr and an exit code."""
    print("synthgen: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(exit_code)


def progress_bar(total: int, unit: str, quiet: bool = False) -> "tqdm[NoReturn]":
    """A progress bar on stderr; silent where stderr is not a terminal, and where told to be ``quiet``."""
    return tqdm(total=total, unit=unit, unit_scale=unit == "image", disable=True if quiet else None, dynamic_ncols=True)


@contextmanager
def stage_bar() -> Iterator[StageProgress]:
    """A progress bar of its own for every stage; silent where stderr is not a terminal."""
    layout = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}"
    with ExitStack() as bars:
        shown = ""
        bar: tqdm[NoReturn] | None = None

        def show(stage: str, done: int, of: int) -> None:
            nonlocal shown, bar
            if bar is None or stage != shown:
                bars.close()
                bar = tqdm(total=of, desc=stage, disable=None, dynamic_ncols=True, bar_format=layout, leave=False)
                shown = stage
                bars.enter_context(bar)
            bar.update(done - bar.n)

        yield show


def advancing(bar: "tqdm[NoReturn]") -> Progress:
    """The callback that moves ``bar`` on."""

    def advance(amount: int) -> None:
        bar.update(amount)

    return advance


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; a second Ctrl-C stops at once."""
    stopped = threading.Event()

    def ask_to_stop(number: int, frame: Any) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        say("stopping after this step, with everything saved; a private look is finished first; Ctrl-C again: at once")
        stopped.set()

    with _handlers(ask_to_stop, signal.SIGINT, signal.SIGTERM):
        yield stopped


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Within it SIGTERM and Ctrl-C both end an export with one line."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    with _handlers(interrupt, signal.SIGTERM):
        try:
            yield
        except KeyboardInterrupt:
            fail("interrupted; finished shards are kept, go on with --resume", 130)


@contextmanager
def _handlers(handler: Any, *signals: signal.Signals) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
