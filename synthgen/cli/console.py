"""What all commands share: lines for people and programs, and progress bars.

Names and values come from files that a stranger may have made. So nothing is printed but by ``printable``.
"""

import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn

from tqdm import TqdmMonitorWarning, tqdm

from synthgen.errors import SynthgenWarning
from synthgen.workers import Progress, StageProgress

DATA_HELP = "Folder of your own real images; by default Fashion-MNIST is looked for (see: synthgen data)."
_MAX_LINE = 4_000  # characters: longer than any line of ours
# By default tqdm makes a lock for several processes, for which some Pythons start another process.
tqdm.set_lock(threading.RLock())
warnings.filterwarnings("ignore", category=TqdmMonitorWarning)  # no thread can start: then bars move less evenly
_show_any_warning = warnings.showwarning


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """Ours in one line, without the place in the code; others as Python shows them."""
    if issubclass(category, SynthgenWarning):
        say(f"synthgen: warning: {message}")
    else:
        _show_any_warning(message, category, *place, **more)


warnings.showwarning = _show_warning


def printable(text: str) -> str:
    """``text`` as one line that a terminal shows and does not obey.

    What is not printable is escaped as in Python: control characters, line ends, changes of direction, other spaces
    than the usual one, bytes of a file name that are not UTF-8.
    """
    if len(text) > _MAX_LINE:
        text = text[:_MAX_LINE] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_line(line: str) -> None:
    """A result, on stdout."""
    tqdm.write(printable(line), file=sys.stdout)
    sys.stdout.flush()  # a program may wait for it


def say(line: str) -> None:
    """A note for the person at the terminal, on stderr."""
    tqdm.write(printable(line), file=sys.stderr)


def fail(message: str, exit_code: int) -> NoReturn:
    """End with one line on stderr and an exit code."""
    say("synthgen: " + " ".join(message.split()))
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
                bar = tqdm(
                    total=of, desc=printable(stage), disable=None, dynamic_ncols=True, bar_format=layout, leave=False
                )
                shown = stage
                bars.enter_context(bar)
            bar.update(done - bar.n)

        yield show


def advancing(bar: "tqdm[NoReturn]") -> Progress:
    """The callback that moves ``bar`` on."""

    def advance(amount: int) -> None:
        bar.update(amount)

    return advance
