"""Standard streams that may be closed, full or a broken pipe: their loss is remembered, and ends no work."""

import contextlib
import io
import os
import sys


class _Stream(io.TextIOWrapper):
    """A standard stream. After its first failed write everything goes to the null device.

    A set or a training is worth more than the lines about it.
    """

    lost: OSError | None = None
    replaced: io.TextIOWrapper  # it would close the buffer that both use

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        self.lost = self.lost or error
        _open_null(self.fileno())
        with contextlib.suppress(OSError):
            super().flush()  # what is left, so that no later flush fails


def secure_streams() -> None:
    """Replace the standard streams by such that never fail; of those that are closed, by the null device.

    A file opened later must not get a closed stream's number, or a library's message would be written into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            _open_null(number)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115 - stays open
    sys.stdout, sys.stderr = _secured(sys.stdout), _secured(sys.stderr)


def output_lost() -> OSError | None:
    """Why something could not be written to standard output; None if all is written."""
    sys.stdout.flush()
    return getattr(sys.stdout, "lost", None)


def _secured(stream: object) -> "_Stream":
    assert isinstance(stream, io.TextIOWrapper)
    stream.flush()
    secured = _Stream(
        stream.buffer,
        encoding=stream.encoding,
        errors="backslashreplace",  # a terminal that knows only ASCII shows the rest as \\u03b5
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    secured.replaced = stream
    return secured


def _open_null(number: int) -> None:
    """Make file descriptor ``number`` the null device."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
