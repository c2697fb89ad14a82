"""Where a tuning stands: the secret part of its state, which says how many runs are left."""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from synthgen.errors import TrainingError

SLOTS = "first", "second"  # folders of the run under way and of the best one; no name tells a number


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a tuning stands: the secret part of its state.

    Attributes:
        drawn: the candidate of each run.
        done: how many runs are over.
        stage: of the run that is under way: ``training`` or ``scoring``; empty between two runs.
        best: the number of the best run so far; None where there is none.
        slot: which of ``SLOTS`` its folder is.
        score: its score.
    """

    drawn: tuple[int, ...]
    done: int = 0
    stage: str = ""
    best: int | None = None
    slot: int = 0
    score: float = -math.inf

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "score": None if self.best is None else self.score}

    @classmethod
    def of(cls, header: dict[str, Any], candidates: int, path: Path) -> "Progress":
        """That of the state in ``path``; raises TrainingError where it is spoilt."""
        try:
            document = header["progress"]
            score = -math.inf if document["best"] is None else float(document["score"])
            found = cls(**{**document, "drawn": tuple(document["drawn"]), "score": score})
            numbers = [found.done, found.slot, *found.drawn, *([] if found.best is None else [found.best])]
            if not found.drawn or not all(type(each) is int and each >= 0 for each in numbers):
                raise ValueError("a number is none")
            if max(found.drawn) >= candidates or max(found.done, (found.best or 0) + 1) > len(found.drawn):
                raise ValueError("a number is too large")
            if found.slot >= len(SLOTS) or found.stage not in ("", "training", "scoring"):
                raise ValueError("it stands nowhere")
        except (KeyError, TypeError, ValueError) as error:
            raise TrainingError(f"{path}: cannot be resumed from: {error}; start anew in another --out") from error
        return found

    def lost(self) -> "Progress":
        """The run that is under way, or would be next, counts and is none."""
        return replace(self, done=self.done + 1, stage="")
