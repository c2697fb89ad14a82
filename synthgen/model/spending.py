"""The ledger beside a checkpoint: a run that is at work, or killed, may have spent more than the checkpoint says."""

from pathlib import Path

from synthgen.errors import CheckpointError, PrivacyError
from synthgen.privacy.ledger import LEDGER_NAME, read_ledger
from synthgen.privacy.statement import PrivacyStatement, differential_privacy


def statement_of_all(folder: Path, stated: PrivacyStatement) -> PrivacyStatement:
    """The statement of a checkpoint in ``folder``, or of the ledger beside it where that holds more.

    Raises:
        CheckpointError: the ledger is spoilt, of another run, or proves nothing.
    """
    path = folder / LEDGER_NAME
    if (proof := stated.proof) is None or not path.is_file():
        return stated
    try:
        record = read_ledger(path)
        if record.run != proof.run:
            raise CheckpointError(f"{path}: of another run than the checkpoint beside it; move one of them away")
        if proof.ledger.covers(record.ledger):
            return stated
        if not record.ledger.covers(proof.ledger):
            raise CheckpointError(f"{path}: holds other mechanisms than the checkpoint beside it; fetch both anew")
        return differential_privacy(
            record.ledger,
            proof.delta,
            stated.trained_on,
            proof.public,
            exact_noise=proof.exact_noise,
            run=proof.run,
            release_sha256=proof.release_sha256,
        )
    except PrivacyError as error:
        raise CheckpointError(f"{folder}: what its run has spent is unknown: {error}") from error
