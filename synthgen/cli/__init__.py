"""The command line: a thin skin over the library, and the only place that prints, shows progress or exits.

In come arguments; out go one public call a command, lines of text and an exit code.
"""

__all__ = ["app"]
