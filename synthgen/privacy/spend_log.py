"""The spend log: what was charged on this machine to each data set, by whichever run, kept outside the runs' folders.

A ledger knows its own run alone. Two runs on the same images cost their sum; and a whole folder that was copied before
a look and put back after it has a ledger that does not know of the look. Both are seen here, on the machine and by the
user that ran them, and nowhere else.

The log lies in ``$XDG_STATE_HOME/synthgen/spend/`` (by default ``~/.local/state``): one file for each data set, one
line of JSON for each charge, with nothing but what a ledger says, the day and the folder's name. The file's name is the
data set's SHA-256 under a key that was drawn at random and lies beside it: the plain SHA-256 would let anyone who has
all images but one, and some guesses for that one, find out which is right. Whoever reads the key can do so; only the
user may. A data set that differs in one image is another one, and no warning comes.
"""

import hmac
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from synthgen.errors import PrivacyError
from synthgen.files import exclusive_lock, flush_to_disk, open_own, publish, read_own
from synthgen.privacy.accounting import Mechanism, epsilon_of, merged
from synthgen.privacy.ledger import Ledger, LedgerRecord
from synthgen.privacy.selection import Selection
from synthgen.untrusted.text import parse_json

_KEY_BYTES = 32
_MAX_LOG_BYTES = 8 << 20  # 8 MiB: some 20,000 charges
_LOCK_SECONDS = 5.0


@dataclass(frozen=True)
class Spent:
    """What other runs have charged to the same images.

    Attributes:
        runs: how many there are.
        epsilon: of all their mechanisms together, an upper bound.
        delta: at which it holds.
    """

    runs: int
    epsilon: float
    delta: float

    def __str__(self) -> str:
        runs = "1 run" if self.runs == 1 else f"{self.runs} runs"
        return (
            f"these images were charged before by {runs}, together epsilon {self.epsilon:.2f} at delta "
            f"{self.delta:g}; what this run costs comes on top of it, if both are published"
        )


class SpendLog:
    """The charges to one data set.

    Args:
        data_sha256: of the data set, see ``RealImages``; it stands nowhere in the log.
        folder: where the logs lie.

    Raises:
        OSError: from every method, where the log cannot be read or written.
    """

    def __init__(self, data_sha256: str, folder: Path | None = None) -> None:
        self._data, self._folder = data_sha256, folder

    def add(self, run: str, mechanism: Mechanism, out: Path, selection: Selection | None = None) -> None:
        """Note a charge of a run, or of the best of several, whose folder is ``out``; it is on the disk on return."""
        day = datetime.now(UTC).date().isoformat()
        entry: dict[str, Any] = {"run": run, "day": day, "out": out.resolve().name, "mechanism": asdict(mechanism)}
        if selection is not None:
            entry["selection"] = selection.to_dict()
        line = (json.dumps(entry) + "\n").encode()
        with self._held() as path:
            whole = not path.exists() or read_own(path, _MAX_LOG_BYTES)[-1:] in (b"\n", b"")
            with os.fdopen(open_own(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab") as stream:
                stream.write(line if whole else b"\n" + line)  # after a line that a power cut left unfinished
            flush_to_disk(path)
            flush_to_disk(path.parent)

    def spent_by_others(self, run: str | None, delta: float) -> Spent | None:
        """What runs but ``run`` have charged; None where none has."""
        ledgers = {name: ledger for name, ledger in self._ledgers().items() if name != run}
        if not ledgers:
            return None
        charges = merged(charge for ledger in ledgers.values() for charge in ledger.charges)
        return Spent(len(ledgers), epsilon_of(charges, delta), delta)

    def expect_all_charges_in(self, record: LedgerRecord, path: Path) -> None:
        """Refuse a ledger, read from ``path``, that lacks a charge of its own run: its folder was put back.

        Raises:
            PrivacyError: the log holds more of that run.
        """
        logged = self._ledgers().get(record.run or "")
        if logged is not None and not record.ledger.covers(logged):
            raise PrivacyError(
                f"{path}: holds fewer charges than this run has made on this machine, so that an older copy was put "
                "back; go on with the newest one, or start in a new folder"
            )

    def _ledgers(self) -> dict[str, Ledger]:
        """By run, what was charged; lines that are none of ours are left out."""
        ledgers: dict[str, Ledger] = {}
        with self._held() as path:
            lines = read_own(path, _MAX_LOG_BYTES).splitlines() if path.exists() else []
        for line in lines:
            try:
                entry = parse_json(line)
                run, one = str(entry["run"]), Ledger.from_list([entry["mechanism"]], entry.get("selection"))
                (mechanism,) = one
                ledgers[run] = ledgers.get(run, Ledger(selection=one.selection)).charged(mechanism)
            except (ValueError, KeyError, TypeError, PrivacyError):
                continue
        return ledgers

    @contextmanager
    def _held(self) -> Iterator[Path]:
        """Hold the logs alone; yields the path of this one."""
        folder = self._folder or spend_folder()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            with exclusive_lock(folder / ".lock") as alone:
                if alone:
                    yield folder / f"{self._name(folder)}.jsonl"
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{folder}: another process holds the log")
            time.sleep(0.05)

    def _name(self, folder: Path) -> str:
        path = folder / "key"
        if not path.exists():
            with publish(path) as partial:
                partial.write_text(os.urandom(_KEY_BYTES).hex())
            path.chmod(0o600)
        return hmac.digest(read_own(path, 2 * _KEY_BYTES), self._data.encode(), "sha256").hex()[:32]


def spend_folder() -> Path:
    """Where the logs lie.

    Raises:
        OSError: the user has no home.
    """
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if state.is_absolute():  # the specification: a relative one is to be ignored
        return state / "synthgen" / "spend"
    try:
        return Path.home() / ".local" / "state" / "synthgen" / "spend"
    except RuntimeError as error:
        raise FileNotFoundError(str(error)) from error
