"""Training on released statistics: a few private looks at the real images, and as much training as you like.

The first look comes before training; then, at equal distances, one through the eyes of each student of the generator.
Every mechanism is charged to a ledger on disk before it runs, and what it releases is published as a whole. A look that
is killed stays charged and is not repeated: without the first there is nothing to go on with, without a student's the
run goes on.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from synthgen.environment import made_with
from synthgen.errors import Interrupted, PrivacyError, TrainingError, UsageError
from synthgen.files import publish
from synthgen.model.checkpoint import SAMPLES_NAME, Checkpoint, load_checkpoint, save_checkpoint
from synthgen.pictures import save_contact_sheet
from synthgen.privacy.ledger import LEDGER_NAME, Ledger, OpenLedger
from synthgen.privacy.statement import PUBLIC, differential_privacy
from synthgen.training.adversarial import sample_drawer
from synthgen.training.matching.generator import Match, Matching
from synthgen.training.matching.plan import MatchingPlan
from synthgen.training.matching.release import RELEASE_NAME, Release, look_as_student, look_privately
from synthgen.training.matching.student import Student
from synthgen.training.plan import describe_private_images
from synthgen.training.private_folder import private_folder
from synthgen.training.state import STATE_NAME, open_state, read_header, write_metrics, write_state
from synthgen.workers import StageProgress

_PUBLIC = tuple(fact for fact in PUBLIC if fact != "equal class counts")  # they are released, with noise
_STUDENTS_IMAGES = 20_000
_LEAST_FREE_BYTES = 32 << 20  # 32 MiB: release, state, checkpoint and pictures
_MEMORY = 0.05  # weight of the newest figure in a running mean


@dataclass(frozen=True, kw_only=True)
class MatchingProgress:
    """Where a run stands; every figure is of generated images and of what was released."""

    step: int
    distance: float  # squared maximum mean discrepancy from the release; a running mean
    agreement: float  # of the teacher with the class an image was drawn for; a running mean
    seconds: float

    def __str__(self) -> str:
        return f"step {self.step:,}, distance {self.distance:.5f}, agreement {self.agreement:.4f}"


OnStep = Callable[[int, int, dict[str, float]], None]  # (steps done, of, the latest figures)


def train_by_matching(
    plan: MatchingPlan,
    out: Path,
    *,
    resume: bool = False,
    on_stage: StageProgress = lambda stage, done, of: None,
    on_step: OnStep = lambda done, of, figures: None,
    on_look: Callable[[MatchingProgress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Checkpoint:
    """Look at the real images once, within the budget, then train a generator; leave its checkpoint in ``out``.

    Args:
        plan: see ``plan_matching``.
        out: the folder of the checkpoint; new or empty unless ``resume``. Beside the checkpoint it receives
            ``ledger.json``, ``release.h5``, ``metrics.csv``, ``samples/`` and, until training is done, the state to
            resume from.
        resume: go on with the interrupted run in ``out``.
        on_stage: called during the private look.
        on_step: called after every step of the generator.
        on_look: called whenever a picture has been drawn and the state saved.
        should_stop: asked after the look and after every step; when true the state is saved and ``Interrupted``
            raised.

    Raises:
        UsageError: ``out`` holds another run, or there is nothing to resume.
        PrivacyError: the ledger is spoilt or of another budget, or was spent on a look that was cut short.
        TrainingError: the folder cannot be written, or the distance is no number any more.
        Interrupted: stopped on request; go on with ``resume``.
    """
    with private_folder(out, plan.budget, resume, may_hold=[] if plan.source is None else [RELEASE_NAME]) as ledger:
        if resume:
            _expect_same_run(plan, out, ledger)
        elif plan.source is not None:
            ledger = _adopt(plan.source, plan, out)
        run = _Run(plan, out, ledger, _release(plan, out, ledger, on_stage))
        return _play_on(run, on_stage, on_step, on_look, should_stop)


def _adopt(source: Path, plan: MatchingPlan, out: Path) -> OpenLedger:
    """Make ``out`` a run that has looked already: with the ledger of ``source``, its release, and no step done."""
    for name in (LEDGER_NAME, RELEASE_NAME):
        with publish(out / name) as partial:
            shutil.copyfile(source / name, partial)
    ledger = OpenLedger.open(out / LEDGER_NAME, plan.budget)
    write_state(out, _header(plan, ledger, step=0), {})  # last: it says that all is there
    return ledger


def _release(plan: MatchingPlan, out: Path, ledger: OpenLedger, on_stage: StageProgress) -> Release:
    """What was released in ``out`` before, or else the first private look itself."""
    path = out / RELEASE_NAME
    charged = ledger.ledger.mechanisms
    if path.exists():
        release = Release.load(path)
        release.expect_outcome_of(ledger.ledger, path)
        return release
    if charged:
        raise PrivacyError(
            f"{out}: the first private look was cut short when its budget had been charged; start anew in another "
            "--out, and let the look, a minute or two, come to its end"
        )
    if (free := shutil.disk_usage(out).free) < _LEAST_FREE_BYTES:  # found out before the budget is spent
        raise TrainingError(f"{out}: only {free / 1e6:.0f} MB are free; make room for {_LEAST_FREE_BYTES / 1e6:.0f} MB")
    write_state(out, _header(plan, ledger, step=0), {})  # what --resume will look for
    assert plan.data is not None  # else the ledger is charged
    release = look_privately(plan.data.images, plan.data.labels, plan.look, ledger.charge, on_stage)
    release.save(path)
    return release


def _play_on(
    run: "_Run",
    on_stage: StageProgress,
    on_step: OnStep,
    on_look: Callable[[MatchingProgress], None],
    should_stop: Callable[[], bool],
) -> Checkpoint:
    section = run.plan.recipe.training
    while run.step < section.steps:
        student = run.taught_student(on_stage) if run.is_students_turn else None
        if should_stop():
            run.save_state()
            raise Interrupted(f"stopped after {run.step} of {section.steps} steps, all saved; go on with --resume")
        if student is not None:
            run.look_through(student, on_stage)
        on_step(run.advance(), section.steps, run.figures)
        if run.step % section.sample_every_steps == 0 or run.step == section.steps:
            on_look(run.look())
    return run.complete()


class _Run:
    """One run after its look: the generator, and where it stands."""

    def __init__(self, plan: MatchingPlan, out: Path, ledger: OpenLedger, release: Release) -> None:
        self.plan, self.out = plan, out
        self.step = 0
        self.figures: dict[str, float] = {}
        self.history: list[MatchingProgress] = []
        self._ledger, self._release = ledger, release
        self._matching = Matching(plan.recipe, release, plan.seed)
        self._seconds = 0.0
        self._draw_samples = sample_drawer(self._matching.best_generator, plan.recipe)
        self._restore()

    @property
    def is_students_turn(self) -> bool:
        """Whether the next student is to learn now: the students divide the steps into equal parts."""
        looked, phases = self._students_charged, len(self.plan.look.students) + 1
        return looked + 1 < phases and self.step >= (looked + 1) * self.plan.recipe.training.steps // phases

    @property
    def _students_charged(self) -> int:
        """How many students' looks were paid for, those included that were cut short."""
        return len(self._ledger.ledger) - 2

    def taught_student(self, on_stage: StageProgress) -> Student:
        """A student trained on what the generator draws; it sees no real image."""
        began = time.monotonic()
        number = self._students_charged
        student = Student()
        images, labels = self._matching.draw(_STUDENTS_IMAGES, number)
        seed = (self.plan.seed + 1 + number) % (1 << 32)
        student.fit(images, labels, seed, lambda done, of: on_stage(f"student {number + 1}", done, of))
        self._seconds += time.monotonic() - began
        return student

    def look_through(self, student: Student, on_stage: StageProgress) -> None:
        """Look at the real images through the student's eyes, and publish what it saw."""
        began = time.monotonic()
        assert self.plan.data is not None  # else every look is charged
        self.save_state()  # a kill from here on loses no step
        mechanism = self.plan.look.students[self._students_charged]
        self._ledger.charge(mechanism)
        weights = tuple(student.weights)
        self._release = look_as_student(
            student.embed_pixels(), weights, self.plan.data.images, self._release, mechanism, on_stage
        )
        self._release.save(self.out / RELEASE_NAME)
        self._matching.admit(self._release.students[-1])
        self._seconds += time.monotonic() - began

    def advance(self) -> int:
        """One step of the generator; returns the number of steps done."""
        began = time.monotonic()
        match = self._matching.step(self.step)
        if not match.distance < float("inf"):
            raise TrainingError(
                f"the distance from the release became {match.distance} at step {self.step}: lower the learning rate "
                "and train anew in another --out"
            )
        self._remember(match)
        self.step += 1
        self._seconds += time.monotonic() - began
        return self.step

    def look(self) -> MatchingProgress:
        """Draw a picture, and save that, the checkpoint and the state."""
        progress = MatchingProgress(step=self.step, seconds=round(self._seconds, 2), **self.figures)
        self.history.append(progress)
        images = self._draw_samples()
        for path in (self.out / "samples" / f"step-{self.step:06d}.png", self.out / SAMPLES_NAME):
            save_contact_sheet(path, images, columns=10)
        self._save_checkpoint()
        self.save_state()
        return progress

    def save_state(self) -> None:
        """Publish all that a resumed run needs, in one file, and the metrics table beside it."""
        header = {
            **_header(self.plan, self._ledger, self.step),
            "figures": self.figures,
            "seconds": self._seconds,
            "history": [asdict(progress) for progress in self.history],
        }
        write_state(self.out, header, self._matching.state())
        write_metrics(self.out, MatchingProgress, self.history)

    def complete(self) -> Checkpoint:
        """The checkpoint that the last look left; the state to resume from is of no more use."""
        checkpoint = load_checkpoint(self.out)
        (self.out / STATE_NAME).unlink(missing_ok=True)
        return checkpoint

    def _restore(self) -> None:
        header = read_header(self.out)
        if not header["step"]:
            return
        with open_state(self.out) as state:
            self._matching.restore(state)
        self.step, self.figures, self._seconds = header["step"], header["figures"], header["seconds"]
        self.history = [MatchingProgress(**progress) for progress in header["history"]]

    def _remember(self, match: Match) -> None:
        for name, value in match._asdict().items():
            self.figures[name] = value + (1 - _MEMORY) * (self.figures.get(name, value) - value)

    def _save_checkpoint(self) -> None:
        plan = self.plan
        training = {
            "steps": self.step,
            "seed": plan.seed,
            "seconds": round(self._seconds, 1),
            "data": {"images": plan.images},
            "history": [asdict(progress) for progress in self.history],
            "made_with": made_with(),
        }
        trained_on = describe_private_images(plan.recipe, plan.images)
        statement = differential_privacy(self._ledger.ledger, plan.budget.delta, trained_on, _PUBLIC)
        save_checkpoint(self.out, self._matching.best_generator, plan.recipe, statement, training)


def _expect_same_run(plan: MatchingPlan, out: Path, ledger: OpenLedger) -> None:
    header = read_header(out)
    different = [name for name, value in _identity(plan).items() if header.get(name) != value]
    if different:
        raise UsageError(f"{out}: holds a run with different {', '.join(different)}; choose another --out")
    charged = ledger.ledger.mechanisms
    if plan.data is None and charged != plan.look.mechanisms:
        raise UsageError(f"{out}: holds a run that looks for itself; go on without --release")
    before = Ledger.from_list(header["charged"]).mechanisms
    if charged != plan.look.mechanisms[: len(charged)] or before != charged[: len(before)]:
        raise PrivacyError(f"{out}: {LEDGER_NAME} is not this run's; start anew in another --out")


def _header(plan: MatchingPlan, ledger: OpenLedger, step: int) -> dict[str, Any]:
    """What every state of a run says: which run it is, how far, what it has spent, and whether it looks at all."""
    return {**_identity(plan), "step": step, "charged": ledger.ledger.to_list(), "anew": plan.data is None}


def _identity(plan: MatchingPlan) -> dict[str, Any]:
    """What must be equal for a resumed run to be the same run."""
    return {
        "recipe": plan.recipe.to_dict(),
        "seed": plan.seed,
        "images": plan.images,
        "noise_multipliers": [mechanism.noise_multiplier for mechanism in plan.look.mechanisms],
    }
