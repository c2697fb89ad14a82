"""``python -m synthgen`` and the ``synthgen`` command."""

import os

# TensorFlow's start-up notes are for its developers; set before anything imports it, and only where unset.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from synthgen.cli import app as cli
from synthgen.environment import begin_lean_process


def main() -> None:
    """Run the command line in a process that is synthgen's own."""
    begin_lean_process()
    cli.main()


if __name__ == "__main__":
    main()
