"""``python -m synthgen`` and the ``synthgen`` command."""

import os

# TensorFlow's start-up notes are for its developers; set before anything imports it, and only where unset.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from synthgen.cli.app import main

if __name__ == "__main__":
    main()
