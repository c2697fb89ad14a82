"""The folder of a private run: held alone, with the ledger of what the run has spent."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from synthgen.errors import PrivacyError
from synthgen.privacy.accounting import Budget
from synthgen.privacy.ledger import LEDGER_FILES, LEDGER_NAME, OpenLedger
from synthgen.training.adversarial import run_folder


@contextmanager
def private_folder(out: Path, budget: Budget, resume: bool, *, may_hold: Collection[str] = ()) -> Iterator[OpenLedger]:
    """``run_folder`` with the ledger in it, of this run or of one that was killed before it had anything to save.

    Raises:
        UsageError: ``out`` holds something else, is in use, or there is nothing to resume.
        PrivacyError: the ledger is missing, spoilt or of another budget.
        TrainingError: the folder cannot be written.
    """
    if resume and out.is_dir() and not (out / LEDGER_NAME).is_file():
        raise PrivacyError(f"{out}: {LEDGER_NAME} is missing, so what was spent is unknown; start in a new folder")
    with run_folder(out, resume, may_hold={*LEDGER_FILES, *may_hold}):
        yield OpenLedger.open(out / LEDGER_NAME, budget)
        (out / (LEDGER_NAME + ".lock")).unlink(missing_ok=True)
