"""Everything synthgen raises on purpose; the command line ends with the class's ``exit_code``.

Every message is one line: the value, what was expected, and what to do. Any other exception is a bug.
"""


class SynthgenWarning(UserWarning):
    """What does not stop a command but should be known; one line, which the command line shows on stderr."""


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
    """A worker process died."""


class VerificationError(SynthgenError):
    """A set on disk does not match its manifest."""


class EvaluationError(SynthgenError):
    """A set cannot be measured, or a library for it is missing."""


class PrivacyError(SynthgenError):
    """A privacy budget is exhausted, or a mechanism, ledger or claim is invalid."""


class TrainingError(SynthgenError):
    """Training cannot continue; the last good checkpoint is kept."""


class Diverged(TrainingError):
    """The figures are no numbers any more: other settings are needed."""


class Interrupted(TrainingError):
    """Training stopped on request; its state is saved and can be resumed."""

    exit_code = 130  # the shell's convention for a run ended by Ctrl-C
