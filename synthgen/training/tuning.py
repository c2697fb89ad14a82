"""Several private runs with other settings each, of which the best is kept: ``synthgen train --tune``.

For: settings chosen by results on private images, at a price that is known (``privacy.selection``).
In and out: a private recipe, a grid of settings and a mean number of runs in; one checkpoint out, as of a single run.
What may go wrong: a run that is begun and not counted, or counted and repeated; anything learned of the other runs.

The proof asks for three things. The number of runs K and the settings of each are drawn independently of the images;
one run with the best score is published; of K and of all other runs nothing is. Hence:

1. The whole price is charged, to the ledger in the folder and to the spend log, before the first run begins. It depends
   on the mean of K, not on K. The ledger of each run has the same selection, so that its claim is that of the whole.
2. K and the settings are drawn once, and saved before the charge. A resumed tuning goes on with them.
3. The ledger counts every step of the tuning (begin, score, decide) before the state says it. Killed between the two,
   or while scoring, or in a look that is not taken again, the run in question is lost: it counts as one of the K, with
   the worst score. No run is begun twice. An older state that is put back does not have the count, and is refused.
4. A run whose figures are no numbers any more has the worst score, too, and ends nothing.
5. Shown are the plan, and at the end the best run with its score. No bar, no stage, no summary, no warning: how far a
   run is would tell when the next one begins. Whoever waits learns how long it took, and so about how many runs there
   were; who must not know of the images must not know of that. The files' modification times are all those of the end.
6. The folder of a run that is not the best is deleted at once. The best one's files become those of the folder. Which
   of two names the first run's folder has is drawn.

While it is under way, the folder holds the number of runs that are left and the best so far: give it to nobody. A copy
of the whole folder that goes on by itself is a second tuning, which nothing in the folder can tell.
"""

import logging
import math
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthgen.errors import CheckpointError, Diverged, Interrupted, PrivacyError, TrainingError, UsageError
from synthgen.files import flush_to_disk, remove_litter
from synthgen.model.checkpoint import METADATA_NAME, Checkpoint, load_checkpoint, save_integers
from synthgen.model.recipe import PrivateAdversarialRecipe, Recipe, StatisticsRecipe
from synthgen.privacy.accounting import Mechanism, epsilon_of
from synthgen.privacy.ledger import LedgerRecord
from synthgen.privacy.selection import MAX_MEAN, MIN_MEAN, Selection
from synthgen.training.candidates import Grid, PrivateRecipe, candidate_plan, changed_recipes, parse_grid, settings_of
from synthgen.training.dpgan import plan_private_training
from synthgen.training.folder import STATE_NAME, expect_same_run, write_state
from synthgen.training.matching.plan import plan_matching
from synthgen.training.private import Account, PrivatePlan
from synthgen.training.run import OnStep, OnSummary, Summary, train
from synthgen.training.score import noisy_score, score_noise
from synthgen.training.tuning_progress import SLOTS, Progress
from synthgen.workers import StageProgress

if TYPE_CHECKING:
    from synthgen.training.replicas import Replicas

_FOLDER = "tuning"  # in it those of the run under way and of the best one


@dataclass(frozen=True, kw_only=True)
class TuningSummary(Summary):
    """The run that was chosen; its score is part of what the tuning releases."""

    chosen: str
    accuracy: float  # of a classifier trained on its images, on the real ones; with noise
    accuracy_noise: float  # its standard deviation

    def __str__(self) -> str:
        return (
            f"chosen: {self.chosen}; a classifier trained on its images names {self.accuracy:.1%} of the real images "
            f"rightly (noise of {self.accuracy_noise:.2%})"
        )


@dataclass(frozen=True, kw_only=True)
class TuningPlan(PrivatePlan):
    """A tuning as it will be; its budget is that of the whole.

    Attributes:
        run: one run with the recipe as it is given.
        candidates: a run for each candidate; all charge the same.
        settings: what each candidate changes, as ``key=value``.
        grid: the values of each key.
        selection: how the best run is chosen.
    """

    recipe: PrivateRecipe
    run: PrivatePlan
    candidates: tuple[PrivatePlan, ...]
    settings: tuple[tuple[str, ...], ...]
    grid: Grid
    selection: Selection

    @property
    def is_silent(self) -> bool:
        return True

    @property
    def mechanisms(self) -> tuple[Mechanism, ...]:
        return self.run.mechanisms

    def identity(self) -> dict[str, Any]:
        return {
            **super().identity(),
            "tune": self.selection.mean,
            "grid": [[key, list(values)] for key, values in self.grid],
            "selection": self.selection.to_dict(),
            "noise_multipliers": [mechanism.noise_multiplier for mechanism in self.mechanisms],
        }

    def describe(self) -> list[str]:
        budget, noise = self.recipe.privacy, self.selection.score_noise_multiplier
        alone = epsilon_of(self.mechanisms, budget.delta)
        grid = "; ".join(f"{key} {', '.join(values)}" for key, values in self.grid)
        return [
            f"tuning: the best of a random number of runs, {self.selection.mean:,} on average (geometric), each with "
            f"one of {len(self.candidates):,} candidates at random: {grid}",
            f"budget: epsilon {budget.epsilon:g} at delta {budget.delta:g} for all of it, by RDP; a single run with "
            f"this noise would cost epsilon {alone:.3f}, and choosing costs the rest",
            f"score: how many of the {self.images:,} real images a classifier names rightly that is trained on a run's "
            f"own, with Gaussian noise of {noise:g} images",
            "never shown: how many runs there are, how far they are, and how all but the best do; the guarantee is for "
            "those who do not learn of it, nor of how long it took",
            *(f"each run: {line}" for line in self.run.describe()[1:]),
        ]

    def start(self, out: Path, resume: bool, replicas: "Replicas | None", on_stage: StageProgress) -> "_Tuning":
        if resume:
            return _Tuning.resumed(self, out)
        account = Account(self, out, None)
        if len(account.record.ledger):
            raise PrivacyError(f"{out}: holds the ledger of a tuning without its state; start anew in another --out")
        drawn = tuple(secrets.randbelow(len(self.candidates)) for _ in range(self.selection.draw_runs()))
        slot = secrets.randbelow(len(SLOTS))  # so that a folder's name, as in an error, does not tell a first run
        tuning = _Tuning(self, out, Progress(drawn=drawn, slot=slot), account)
        tuning.save()  # from here on it can be resumed, and nothing is drawn anew
        tuning.charge()
        return tuning


def plan_tuning(
    recipe: Recipe, mean: int, grid: Sequence[str], data: Path | None, seed: int, *, spend_log: bool
) -> TuningPlan:
    """``synthgen.plan`` for several runs of a private recipe: calibrates the noise so that all of it meets the budget.

    Args:
        recipe: a private, conditional one.
        mean: how many runs there are on average, 2 to 1,000.
        grid: ``key=value,value,…`` texts; the candidates are all combinations.
        data, seed, spend_log: see ``plan``.

    Raises:
        UsageError: the recipe is not private or draws no labels, ``mean`` is out of range, or the grid is empty.
        RecipeError: a key or a value is invalid, costs nothing, or changes what is charged.
        DataError, PrivacyError: as for a single run.
    """
    if type(mean) is not int or not MIN_MEAN <= mean <= MAX_MEAN:
        raise UsageError(f"--tune {mean}: expected {MIN_MEAN} to {MAX_MEAN:,} runs on average")
    if not isinstance(recipe, PrivateAdversarialRecipe | StatisticsRecipe):
        raise UsageError(
            f"--tune {mean}: recipe '{recipe.name}' trains without privacy, so that choosing costs nothing: train with "
            "several --set and compare"
        )
    if not recipe.conditional:
        raise UsageError(f"--tune {mean}: recipe '{recipe.name}' draws no labels, so that its images have no score")
    values = parse_grid(grid)
    settings = settings_of(values)
    changed_recipes(recipe, settings)  # what cannot be is refused before any image is read
    selection = Selection(mean=mean, score_noise_multiplier=score_noise(recipe.privacy.epsilon))
    run: PrivatePlan
    if isinstance(recipe, StatisticsRecipe):
        run = plan_matching(recipe, data, seed, selection)
    else:
        run = plan_private_training(recipe, data, seed, selection)
    chosen = run.recipe  # for these data, with no setting left open
    recipes = changed_recipes(chosen, settings)
    return TuningPlan(
        recipe=chosen,
        seed=seed,
        data=run.data,
        images=run.images,
        spend_log=spend_log,
        selection=selection,
        run=run,
        candidates=tuple(candidate_plan(run, *each) for each in zip(recipes, settings, strict=True)),
        settings=settings,
        grid=values,
    )


def grid_of(header: dict[str, Any]) -> list[str]:
    """The ``grid`` of ``plan_tuning`` for the tuning of a saved state; empty for the state of a single run."""
    return [f"{key}={','.join(values)}" for key, values in header.get("grid", [])]


class _Tuning:
    """A tuning under way; ``account`` is None where all runs are over, and nothing is charged or counted any more."""

    def __init__(
        self, plan: TuningPlan, out: Path, progress: Progress, account: Account | None, *, is_logged: bool = False
    ) -> None:
        self._plan, self._out, self.progress = plan, out, progress
        self._open, self._is_logged = account, is_logged

    @classmethod
    def resumed(cls, plan: TuningPlan, out: Path) -> "_Tuning":
        """Take up the tuning in ``out``; a run that may have looked already, and cannot go on, is lost."""
        header = expect_same_run(out, plan.identity())
        progress = Progress.of(header, len(plan.candidates), out / STATE_NAME)
        if progress.done == len(progress.drawn):
            return cls(plan, out, progress, None, is_logged=header["spend_log"] is True)
        account, header = Account.resumed(plan, out)
        charged = account.record.ledger.mechanisms
        missed = account.record.resumed - LedgerRecord.from_dict(header["ledger"]).resumed
        if missed > 1 or charged != plan.mechanisms[: len(charged)]:
            raise PrivacyError(f"{out}: {STATE_NAME} is not this tuning's, or an older one; start in a new folder")
        tuning = cls(plan, out, progress, account)
        if missed or progress.stage == "scoring":
            tuning.progress = progress.lost()
            tuning.save()
        tuning.charge()
        return tuning

    @property
    def _account(self) -> Account:
        assert self._open is not None  # some run is left
        return self._open

    def charge(self) -> None:
        """Charge all mechanisms that are not yet charged."""
        for mechanism in self._plan.mechanisms[len(self._account.record.ledger) :]:
            self._account.charge(mechanism)
            self.save()

    def play(
        self, on_step: OnStep, on_stage: StageProgress, on_summary: OnSummary, should_stop: Callable[[], bool]
    ) -> Checkpoint:
        """Run all runs and keep the best; ``on_step`` and ``on_stage`` are never called."""
        with _silence():
            while self.progress.done < len(self.progress.drawn):
                self._run_next(should_stop)
        best, plan = self.progress.best, self._plan
        if best is None:
            raise TrainingError(f"{self._out}: no run came to its end; tune anew in another --out, with other settings")
        summary = TuningSummary(
            chosen=", ".join(plan.settings[self.progress.drawn[best]]),
            accuracy=round(self.progress.score / plan.images, 6),
            accuracy_noise=plan.selection.score_noise_multiplier / plan.images,
        )
        checkpoint = self._hand_over(summary)
        on_summary(summary)
        return checkpoint

    def save(self) -> None:
        """Publish where it stands."""
        header = {**self._plan.identity(), **self._account.header(), "progress": self.progress.to_dict()}
        write_state(self._out, header, {})

    def _advance(self, progress: Progress) -> None:
        """Go on to the next step; the ledger counts it first."""
        self._account.count_resumption()
        self.progress = progress
        self.save()

    def _run_next(self, should_stop: Callable[[], bool]) -> None:
        """One run: train, score, and keep it if it is the best so far."""
        before = self.progress
        slot = before.slot if before.best is None else 1 - before.slot
        folder, is_taken_up = self._folder(slot), before.stage == "training"
        if not is_taken_up:
            shutil.rmtree(folder, ignore_errors=True)
            self._advance(replace(before, stage="training"))
        plan = replace(self._plan.candidates[before.drawn[before.done]], tuning=self._account.record.run)
        checkpoint = _trained(plan, folder, is_taken_up, should_stop)
        self._advance(replace(self.progress, stage="scoring"))
        score, after = -math.inf, self.progress.lost()
        if checkpoint is not None and plan.data is not None:
            score = noisy_score(checkpoint, plan.data, self._plan.selection.score_noise_multiplier, plan.seed)
        if score > before.score:
            after = replace(after, best=before.done, slot=slot, score=score)
        self._advance(after)
        shutil.rmtree(self._folder(1 - slot if after.best == before.done else slot), ignore_errors=True)

    def _hand_over(self, summary: TuningSummary) -> Checkpoint:
        """Make the best run's files those of the folder, the checkpoint last; what is done already stays done."""
        folder, out = self._folder(self.progress.slot), self._out
        if (folder / METADATA_NAME).is_file():
            found = load_checkpoint(folder)
            is_logged = self._is_logged if self._open is None else self._open.is_logged
            tuning = {"grid": dict(self._plan.grid), **asdict(summary)}
            record = {**found.training, "spend_log": is_logged, "tuning": tuning}
            save_integers(folder, found.integers(), found.recipe, found.privacy, record)
            for path in sorted(folder.iterdir(), key=lambda path: path.name == METADATA_NAME):
                if path.is_dir() and (out / path.name).is_dir():
                    shutil.rmtree(out / path.name)
                path.replace(out / path.name)
        checkpoint = load_checkpoint(out)
        flush_to_disk(out)
        shutil.rmtree(out / _FOLDER, ignore_errors=True)
        for path in out.rglob("*"):
            os.utime(path)
        (out / STATE_NAME).unlink(missing_ok=True)
        return checkpoint

    def _folder(self, slot: int) -> Path:
        return self._out / _FOLDER / SLOTS[slot]


@contextmanager
def _silence() -> Iterator[None]:
    """No warning, as of a number that is none or of a graph traced too often: the number of runs could be read off."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _trained(plan: PrivatePlan, folder: Path, is_taken_up: bool, should_stop: Callable[[], bool]) -> Checkpoint | None:
    """The checkpoint of one run, begun or taken up in ``folder``; None where there can be none."""
    begun = (folder / STATE_NAME).is_file()
    try:
        if is_taken_up and not begun and (folder / METADATA_NAME).is_file():  # it came to its end before the kill
            return load_checkpoint(folder)
        remove_litter(folder)
        return train(plan, folder, resume=begun, should_stop=should_stop)
    except Interrupted:
        raise Interrupted("stopped, with everything saved; go on with --resume") from None
    except (Diverged, CheckpointError):  # its figures, or its weights, are no numbers
        return None
    except PrivacyError:
        if is_taken_up:  # a look was cut short, and is not taken again
            return None
        raise
