"""``python -m synthgen`` and the ``synthgen`` command: what must be so before any other module is imported."""

import _signal  # type: ignore[import-not-found] # ``signal``, which imports others, would leave time for a traceback
import os
import sys


def main() -> None:
    """Run the command line, and end the process with its exit code.

    Code that lies in the working folder, beside a stranger's set, is out of reach from here on. With ``python -m`` it
    is within reach of Python itself before: ``python -P -m synthgen`` and ``synthgen`` are not exposed.
    """
    _signal.signal(_signal.SIGINT, _leave)  # until the command line takes it; an import leaves nothing to clean up
    if __name__ == "__main__" and not sys.flags.safe_path and sys.path[0] != _source_folder():
        del sys.path[0]  # the working folder
    os.environ["PYTHONSAFEPATH"] = "1"  # nor do the processes that libraries start look there
    os.environ["HDF5_PLUGIN_PRELOAD"] = "::"  # HDF5's word for: load no plug-ins
    # TensorFlow's start-up notes are for its developers; set before anything imports it, and only where unset.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in [name for name in os.environ if name.startswith("TQDM_")]:
        del os.environ[name]  # tqdm takes any of its arguments from there, unchecked, and fails

    try:
        from synthgen.environment import threads_can_start

        if not threads_can_start(os.cpu_count() or 1):
            os.environ["OPENBLAS_NUM_THREADS"] = "1"  # when numpy is imported, it would interrupt the process
        from synthgen.cli.app import main as run
    except (ImportError, MemoryError) as error:  # too little memory to load a library, or a broken installation
        reason = " ".join(str(error).split()) or "memory is short"
        sys.exit(f"synthgen: a library cannot be loaded: {reason}")
    run()


def _source_folder() -> str:
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - pathlib is not there yet


def _leave(number: int, frame: object) -> None:
    os.write(2, b"synthgen: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    main()
