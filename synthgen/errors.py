"""Everything synthgen raises on purpose.

    SynthgenError            exit code 1
    ├── UsageError           exit code 2: the request itself cannot be honoured as asked
    │   └── RecipeError      a recipe file or a ``--set`` override
    ├── DataError            the real images: missing, altered or malformed
    ├── CheckpointError      a checkpoint folder: missing, altered or malformed
    ├── ExportError          an output folder that cannot take the export
    ├── WorkerError          a process that was drawing or checking died
    ├── VerificationError    a set that is not what its manifest claims
    ├── EvaluationError      a set that cannot be measured, or what measures it is missing
    ├── PrivacyError         a budget that is exhausted, or a privacy claim larger than its proof
    └── TrainingError        training that cannot go on
        └── Interrupted      training stopped on request; what was reached is saved

Every message is one line: the value, what was expected, and what to do. Anything else that escapes is a bug.
"""


class SynthgenError(Exception):
    """A failure the user can understand and act on; ``str(error)`` is one line."""

    exit_code = 1


class UsageError(SynthgenError):
    """The request itself cannot be honoured as asked."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe has an unknown key, a wrong type or a value out of range."""


class DataError(SynthgenError):
    """The real images are missing, altered or malformed."""


class CheckpointError(SynthgenError):
    """A checkpoint folder is missing, altered or malformed."""


class ExportError(SynthgenError):
    """The output folder cannot take this export."""


class WorkerError(SynthgenError):
    """A process that was drawing or checking died."""


class VerificationError(SynthgenError):
    """A set on disk is not what its manifest claims."""


class EvaluationError(SynthgenError):
    """A set cannot be measured, or what is needed to measure it is missing."""


class PrivacyError(SynthgenError):
    """A privacy budget is exhausted, or a private mechanism, ledger or claim is not what it must be."""


class TrainingError(SynthgenError):
    """Training cannot go on; the last good checkpoint is kept."""


class Interrupted(TrainingError):
    """Training stopped on request; what was reached is saved and can be resumed."""

    exit_code = 130  # the shell's convention for a run ended by Ctrl-C
