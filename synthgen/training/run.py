"""A run of training, whatever its recipe: one plan, one loop, one way to save and to resume.

The kinds of run (``adversarial``, ``dpgan``, ``matching``) say what a step does, what a resumed run must know, and what
their checkpoint claims.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypedDict, Unpack, overload

from synthgen.environment import import_tensorflow, made_with
from synthgen.errors import Interrupted, UsageError
from synthgen.model.checkpoint import SAMPLES_NAME, Checkpoint, load_checkpoint, save_checkpoint
from synthgen.model.pictures import save_contact_sheet
from synthgen.model.recipe import Recipe
from synthgen.privacy.statement import PrivacyStatement
from synthgen.sets.inspection import preview_images
from synthgen.subject import Images
from synthgen.training.folder import STATE_NAME, expect_same_run, open_state, run_folder, write_metrics, write_state
from synthgen.training.strategy import Strategy, expect_shareable, workers_in_reach
from synthgen.workers import StageProgress

if TYPE_CHECKING:
    from synthgen.training.game import Learner
    from synthgen.training.replicas import Replicas

MAX_TRAINING_SEED = (1 << 32) - 1
_COLUMNS = 10  # of a picture, a row for each class


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How a run does: a row of ``metrics.csv``, its columns the fields; ``str`` gives a line for people."""


OnStep = Callable[[int, int, dict[str, float]], None]  # (steps done, of, the latest figures)
OnSummary = Callable[[Any], None]  # called with a ``Summary``
OnReplicas = Callable[[int], None]  # called with the number of replicas


@dataclass(frozen=True, kw_only=True)
class Plan(ABC):
    """A run as it will be, before it begins; see ``synthgen.plan``.

    Attributes:
        recipe: what to train.
        seed: 0 to 2^32 - 1; never of a private mechanism.
    """

    recipe: Recipe
    seed: int

    @property
    def is_silent(self) -> bool:
        """Whether nothing may be shown of how far the run is."""
        return False

    @property
    @abstractmethod
    def total_steps(self) -> int:
        """Steps in the whole run."""

    @property
    @abstractmethod
    def summary_every(self) -> int:
        """Steps from one summary to the next."""

    @property
    def may_hold(self) -> list[str]:
        """Files beside the ledger that such a run, killed early, may have left in its folder."""
        return []

    @abstractmethod
    def describe(self) -> list[str]:
        """The plan in lines for people."""

    def identity(self) -> dict[str, Any]:
        """What must be equal for a resumed run to be the same run; JSON-ready."""
        return {"recipe": self.recipe.to_dict(), "seed": self.seed}

    @abstractmethod
    def describe_data(self) -> dict[str, Any]:
        """The real images, for the checkpoint's record; of private ones nothing but their number."""

    def expect_batches_for(self, replicas: int) -> None:
        """Raise UsageError unless every batch has an image for each replica."""
        raise NotImplementedError  # only batches without privacy are shared

    @abstractmethod
    def start(self, out: Path, resume: bool, replicas: "Replicas | None", on_stage: StageProgress) -> "Playable":
        """Begin the run in its folder, which is held alone, or take it up again."""


class Playable(Protocol):
    """What ``train`` plays: a run, or several of which the best is kept."""

    def play(
        self,
        on_step: OnStep,
        on_stage: StageProgress,
        on_summary: OnSummary,
        should_stop: Callable[[], bool],
    ) -> Checkpoint | None:
        """Train to the end; arguments and result as for ``train``."""


class TrainOptions(TypedDict, total=False):
    """The options of ``train`` but the strategy, which alone decides whether a checkpoint is returned for certain."""

    resume: bool
    on_step: OnStep
    on_stage: StageProgress
    on_summary: OnSummary
    on_epoch: OnSummary | None
    on_replicas: OnReplicas
    should_stop: Callable[[], bool]


@overload
def train(plan: Plan, out: Path, *, strategy: None = None, **options: Unpack[TrainOptions]) -> Checkpoint: ...
@overload
def train(
    plan: Plan, out: Path, *, strategy: Strategy | None, **options: Unpack[TrainOptions]
) -> Checkpoint | None: ...
def train(
    plan: Plan,
    out: Path,
    *,
    resume: bool = False,
    strategy: Strategy | None = None,
    on_step: OnStep = lambda done, of, figures: None,
    on_stage: StageProgress = lambda stage, done, of: None,
    on_summary: OnSummary = lambda summary: None,
    on_epoch: OnSummary | None = None,
    on_replicas: OnReplicas = lambda count: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Checkpoint | None:
    """Train a generator as planned and leave its checkpoint in ``out``.

    Args:
        plan: see ``synthgen.plan``.
        out: the folder of the checkpoint; new or empty unless ``resume``. Beside the checkpoint it receives
            ``metrics.csv``, ``samples/``, in a private run ``ledger.json`` (and ``release.h5``) and, until training is
            done, the state to resume from.
        resume: go on with the interrupted run in ``out``.
        strategy: share every batch out among devices or workers, see ``choose_strategy``; the losses are those of one
            device, to rounding. Workers all call this with the same arguments, and the chief alone writes; to resume,
            all must be able to read ``out``.
        on_step: called after every step.
        on_stage: called during the private looks of recipe ``private``.
        on_summary: called with a ``Summary`` after every epoch or, in a private run, when a picture has been drawn.
        on_epoch: an older name of ``on_summary``.
        on_replicas: with a strategy, called once it is known how many replicas share every batch.
        should_stop: asked before every step; when true the state is saved and ``Interrupted`` raised.

    Returns:
        The checkpoint; None in a worker that is not the chief.

    Raises:
        UsageError: ``out`` holds another run, there is nothing to resume, there are fewer devices, or images in a
            batch, than replicas, or the recipe is private and ``strategy`` given.
        PrivacyError: the ledger is missing, spoilt or of another budget; the budget is exhausted, or was spent on a
            first look that was cut short.
        TrainingError: the figures are no numbers any more, the game has collapsed, another worker is gone or never
            came, or the folder cannot be written; the last good state is kept.
        Interrupted: stopped on request, of any worker; go on with ``resume``.
    """
    with ExitStack() as held:
        replicas = None
        if strategy is not None:  # before the folder is read: workers that have met notice when one of them fails
            expect_shareable(plan.recipe, strategy)
            held.enter_context(workers_in_reach(strategy))
            import_tensorflow()
            from synthgen.training.replicas import Replicas

            replicas = Replicas(strategy)
            plan.expect_batches_for(replicas.count)
            on_replicas(replicas.count)
        if strategy is None or strategy.is_chief:
            private = plan.recipe.privacy is not None
            held.enter_context(run_folder(out, resume, private=private, may_hold=plan.may_hold))
        run = plan.start(out, resume, replicas, on_stage)
        return run.play(on_step, on_stage, on_epoch or on_summary, should_stop)


def train_privately(
    plan: Plan, out: Path, *, on_look: OnSummary | None = None, **options: Unpack[TrainOptions]
) -> Checkpoint:
    """The older name of ``train``; ``on_look`` is that of ``on_summary``."""
    return train(plan, out, **(options if on_look is None else {**options, "on_summary": on_look}))


train_by_matching = train_privately


class Run(ABC):
    """A run under way: the generator that learns, where it stands, and its record so far."""

    summary_type: ClassVar[type[Summary]]
    is_chief = True  # whether this process is the one that writes

    def __init__(self, plan: Plan, out: Path, learner: "Learner") -> None:
        self.plan, self.out, self.learner = plan, out, learner
        self.step = self.summarised = 0  # steps done, and done at the latest summary
        self.seconds = 0.0
        self.history: list[Any] = []  # of ``summary_type``

    def prepare(self, on_stage: StageProgress) -> bool:
        """Do what precedes a step and costs no privacy; False where there is no step to do any more."""
        return self.step < self.plan.total_steps

    @abstractmethod
    def advance(self, on_stage: StageProgress) -> dict[str, float]:
        """Do one step and return the latest figures; in a private run, first charge what it costs."""

    @abstractmethod
    def summarise(self, images: Images) -> Summary:
        """The summary at this step, where ``images`` are drawn; raises TrainingError where going on is useless."""

    @abstractmethod
    def statement(self) -> PrivacyStatement:
        """What the checkpoint claims."""

    def agreed(self, flag: bool) -> bool:
        """Whether any worker raises the flag; every worker must ask."""
        return flag

    def play(
        self, on_step: OnStep, on_stage: StageProgress, on_summary: OnSummary, should_stop: Callable[[], bool]
    ) -> Checkpoint | None:
        """Train to the end; arguments and result as for ``train``."""
        began = time.monotonic()
        while self.prepare(on_stage):
            if self.agreed(should_stop()):
                self.save_stopped()
                raise Interrupted(
                    f"stopped after {self.step} of {self.plan.total_steps} steps, all saved; go on with --resume"
                )
            figures = self.advance(on_stage)
            self.step += 1
            self.seconds += time.monotonic() - began
            on_step(self.step, self.plan.total_steps, figures)
            if self.step % self.plan.summary_every == 0:
                on_summary(self.save())
            began = time.monotonic()
        if self.summarised < self.step:  # the run ended between two summaries
            on_summary(self.save())
        checkpoint = self.complete()
        self.agreed(False)  # no worker leaves before the chief has written everything
        return checkpoint

    def save(self) -> Summary:
        """Sum up, draw a picture, and save that, the checkpoint and the state."""
        images = self.learner.draw_samples()
        summary = self.summarise(images)
        self.history.append(summary)
        self.summarised = self.step
        name = self.picture_name()
        if name and self.is_chief:
            columns = _COLUMNS if self.plan.recipe.conditional else 9
            for path in (self.out / "samples" / name, self.out / SAMPLES_NAME):
                save_contact_sheet(path, images, columns=columns)
            self.save_checkpoint()
        self.save_state()
        return summary

    def save_checkpoint(self) -> None:
        """Save the generator as it is, with its claim."""
        recipe, generator = self.plan.recipe, self.learner.best_generator
        save_checkpoint(self.out, generator, recipe, self.statement(), self.training_record())

    def save_stopped(self) -> None:
        """Save all that a run needs that goes on where this one ends."""
        self.save_state(stopping=True)

    def picture_name(self) -> str:
        """The picture of this step under ``samples/``; empty where neither it nor the checkpoint is due."""
        return f"step-{self.step:06d}.png"

    def training_record(self) -> dict[str, Any]:
        """What the checkpoint says of its training."""
        return {
            "steps": self.step,
            "seed": self.plan.seed,
            "seconds": round(self.seconds, 1),
            "data": self.plan.describe_data(),
            "history": [asdict(summary) for summary in self.history],
            "made_with": made_with(),
        }

    def identity(self) -> dict[str, Any]:
        """See ``Plan.identity``."""
        return self.plan.identity()

    def header(self, *, stopping: bool) -> dict[str, Any]:
        """All that a resumed run needs beside the learner's arrays; JSON-ready."""
        position = {"step": self.step, "summarised": self.summarised, "seconds": self.seconds}
        return {**self.identity(), **position, "history": [asdict(summary) for summary in self.history]}

    def save_state(self, *, stopping: bool = False) -> None:
        """Publish the state in one file, and the metrics table beside it; ``stopping``: this process ends here."""
        if self.is_chief:
            write_state(self.out, self.header(stopping=stopping), self.learner.state())
            write_metrics(self.out, self.summary_type, self.history)

    def restore(self) -> dict[str, Any]:
        """Take up the saved state; returns its header. Raises UsageError where it is of another run."""
        header = expect_same_run(self.out, self.identity())
        with open_state(self.out) as state:
            self.learner.restore(state)
        self.step, self.summarised, self.seconds = header["step"], header["summarised"], header["seconds"]
        self.history = [self.summary_type(**summary) for summary in header["history"]]
        return header

    def complete(self) -> Checkpoint | None:
        """The checkpoint that was saved last, for the chief; the state to resume from is of no more use."""
        if not self.is_chief:
            return None
        checkpoint = load_checkpoint(self.out)
        # The picture that stays is of the integers; those before it, of what was being trained.
        save_contact_sheet(self.out / SAMPLES_NAME, preview_images(str(self.out), _COLUMNS), _COLUMNS)
        (self.out / STATE_NAME).unlink(missing_ok=True)
        return checkpoint


def expect_seed(seed: int) -> None:
    """Raise UsageError unless the seed is within 0 to 2^32 - 1."""
    if not 0 <= seed <= MAX_TRAINING_SEED:
        raise UsageError(f"seed {seed} is out of range: choose 0 to 2^32 - 1")
