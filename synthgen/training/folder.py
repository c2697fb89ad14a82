"""The folder of a run: held by one process, with the state from which the run goes on exactly.

The state is one file, whole or absent: a JSON header and named arrays.
"""

import csv
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from synthgen.errors import PrivacyError, TrainingError, UsageError
from synthgen.files import MALFORMED, NoLocksError, exclusive_lock, own_folder, publish, remove_litter
from synthgen.privacy.ledger import LEDGER_FILES, LEDGER_NAME
from synthgen.untrusted.archives import open_npz
from synthgen.untrusted.text import parse_json

STATE_NAME, METRICS_NAME, LOCK_NAME = "training-state.npz", "metrics.csv", ".lock"
_STATE_VERSION = 3

Arrays = Mapping[str, npt.NDArray[Any]]


@contextmanager
def run_folder(out: Path, resume: bool, *, private: bool, may_hold: Collection[str] = ()) -> Iterator[None]:
    """Hold the folder of a run alone, with ``samples/`` in it and no litter.

    Args:
        out: new or empty, but for the files named below, unless ``resume``.
        resume: it holds an interrupted run.
        private: the run keeps a ledger there; without it nothing is resumed.
        may_hold: what else a run that was killed early may have left.

    Raises:
        UsageError: ``out`` holds something else, is in use, or there is nothing to resume.
        PrivacyError: the ledger of the run to resume is missing, or a private run's folder cannot be locked.
        TrainingError: the folder cannot be written.
    """
    try:
        _expect_room(out, resume, private, may_hold)
        out.mkdir(parents=True, exist_ok=True)
        own_folder(out, "samples")
        with exclusive_lock(out / LOCK_NAME, certain=private) as alone:
            if not alone:
                raise UsageError(f"{out}: another training is at work here; wait for it or choose another --out")
            _expect_room(out, resume, private, may_hold)  # again: another may have finished since
            remove_litter(out)
            yield
            for name in (LOCK_NAME, LEDGER_NAME + ".lock"):
                (out / name).unlink(missing_ok=True)
    except NoLocksError as error:
        raise PrivacyError(f"{error}, and charge once for two looks; choose --out on a local disk") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise TrainingError(f"{out}: cannot be written: {reason}; mend that, then go on with --resume") from error


def _expect_room(out: Path, resume: bool, private: bool, may_hold: Collection[str]) -> None:
    """Raise as ``run_folder`` unless ``out`` is fit for the run; nothing of the run's may be a link to elsewhere."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: a file; choose a new folder with --out")
    for name in sorted({LOCK_NAME, "samples", STATE_NAME, *LEDGER_FILES, *may_hold}):
        if (out / name).is_symlink():
            raise UsageError(
                f"{out / name}: a link; expected the file or folder itself; choose a new folder with --out"
            )
    if private and resume and out.is_dir() and not (out / LEDGER_NAME).is_file():
        raise PrivacyError(f"{out}: {LEDGER_NAME} is missing, so what was spent is unknown; start in a new folder")
    has_state = (out / STATE_NAME).is_file()
    if resume and not has_state:
        raise UsageError(f"{out}: nothing to resume here; expected a {STATE_NAME}")
    if not resume and has_state:
        raise UsageError(f"{out}: holds an interrupted run; go on with --resume or choose another --out")
    leftovers = {LOCK_NAME, "samples", *may_hold, *(LEDGER_FILES if private else ())}  # of a run killed early
    if not resume and out.exists() and {path.name for path in out.iterdir()} - leftovers:
        raise UsageError(f"{out}: is not empty; choose a new folder with --out")


def expect_same_run(out: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """The header of the state in ``out``; raises UsageError where it is of another run."""
    header = read_header(out)
    different = [name for name, value in identity.items() if header.get(name) != value]
    if different:
        raise UsageError(f"{out}: holds a run with different {', '.join(different)}; choose another --out")
    return header


def write_state(out: Path, header: dict[str, Any], arrays: Arrays) -> None:
    """Publish the state: a JSON-ready header and named arrays (no name may be ``header``)."""
    encoded = np.frombuffer(json.dumps({"version": _STATE_VERSION, **header}).encode(), np.uint8)
    with publish(out / STATE_NAME) as partial, partial.open("wb") as stream:
        np.savez(stream, header=encoded, **arrays)  # type: ignore[arg-type]


def read_header(out: Path) -> dict[str, Any]:
    """The header of the state in ``out``; raises as ``open_state``, and UsageError for an older version's state."""
    with open_state(out) as state:
        header: dict[str, Any] = parse_json(state["header"].tobytes())
        if not isinstance(header, dict):
            raise ValueError("its header is no JSON object")
        version = header.get("version")
    if type(version) is not int or version != _STATE_VERSION:
        raise UsageError(f"{out}: begun by another version of synthgen; finish it with that, or choose another --out")
    return header


@contextmanager
def open_state(out: Path) -> Iterator[Arrays]:
    """The state in ``out`` as named arrays.

    Raises:
        UsageError: there is none.
        TrainingError: it is spoilt, or what is done with it inside the ``with`` block finds it unfit.
    """
    path = out / STATE_NAME
    if not path.is_file():
        raise UsageError(f"{out}: nothing to resume here; expected a {STATE_NAME}")
    try:
        with open_npz(path) as state:
            yield state
    except MALFORMED as error:
        raise TrainingError(f"{path}: cannot be resumed from: {error}; start anew in another --out") from error


def write_metrics(out: Path, kind: type[Any], history: Sequence[Any]) -> None:
    """Publish a run's history, dataclasses of one ``kind``, as a table with a row for each."""
    with publish(out / METRICS_NAME) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, [field.name for field in fields(kind)])
        table.writeheader()
        table.writerows(asdict(entry) for entry in history)
