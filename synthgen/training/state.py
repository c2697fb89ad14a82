"""The state of an unfinished training run: one file, whole or absent, from which the run goes on exactly."""

import contextlib
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from synthgen.errors import TrainingError, UsageError
from synthgen.files import MALFORMED, publish

STATE_NAME = "training-state.npz"
METRICS_NAME = "metrics.csv"

Arrays = Mapping[str, npt.NDArray[Any]]


def write_state(out: Path, header: dict[str, Any], arrays: Arrays) -> None:
    """Publish the state: a JSON-ready header and named arrays (no name may be ``header``)."""
    encoded = np.frombuffer(json.dumps(header).encode(), np.uint8)
    with publish(out / STATE_NAME) as partial, partial.open("wb") as stream:
        np.savez(stream, header=encoded, **arrays)  # type: ignore[arg-type]


def read_header(out: Path) -> dict[str, Any]:
    """The header of the state in ``out``; raises as ``open_state``."""
    with open_state(out) as state:
        header: dict[str, Any] = json.loads(state["header"].tobytes())
    return header


@contextlib.contextmanager
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
        with np.load(path, allow_pickle=False) as state:
            yield state
    except MALFORMED as error:
        raise TrainingError(f"{path}: cannot be resumed from: {error}; start anew in another --out") from error


def write_metrics(out: Path, kind: type[Any], history: Sequence[Any]) -> None:
    """Publish a run's history, dataclasses of one ``kind``, as a table with a line for each."""
    with publish(out / METRICS_NAME) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, [field.name for field in fields(kind)])
        table.writeheader()
        table.writerows(asdict(entry) for entry in history)
