"""Training on released statistics, as recipe ``private`` does: a few private looks, and as much training as you like.

The first look comes before training; then, at equal distances, one through the features of each student of the
generator. Every mechanism is charged to a ledger on disk before it runs, and what it releases is published as a whole.
A look that is killed stays charged and is not repeated: without the first there is nothing to train on, without a
student's the run goes on.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthgen.environment import import_tensorflow
from synthgen.errors import PrivacyError, TrainingError, UsageError
from synthgen.fashion import Images
from synthgen.files import publish
from synthgen.model.recipe import StatisticsRecipe
from synthgen.privacy.accounting import epsilon_of
from synthgen.privacy.ledger import LEDGER_NAME, Ledger, OpenLedger
from synthgen.privacy.statement import PUBLIC, PrivacyStatement, differential_privacy
from synthgen.real_images import RealImages
from synthgen.training.folder import expect_same_run, read_header, write_state
from synthgen.training.matching.release import RELEASE_NAME, LookPlan, Release, look_as_student, look_privately
from synthgen.training.run import PrivatePlan, Run, Summary
from synthgen.workers import StageProgress

if TYPE_CHECKING:
    from synthgen.training.matching.generator import Matching
    from synthgen.training.matching.student import Student
    from synthgen.training.replicas import Replicas

_PUBLIC = tuple(fact for fact in PUBLIC if fact != "equal class counts")  # they are released, with noise
_STUDENTS_IMAGES = 20_000
_LEAST_FREE_BYTES = 32 << 20  # 32 MiB: release, state, checkpoint and pictures
_MEMORY = 0.05  # weight of the newest figure in a running mean


@dataclass(frozen=True, kw_only=True)
class MatchingSummary(Summary):
    """Where a run stands; every figure is of generated images and of what was released."""

    step: int
    distance: float  # squared maximum mean discrepancy from the release; a running mean
    agreement: float  # of the teacher with the class an image was drawn for; a running mean
    seconds: float

    def __str__(self) -> str:
        return f"step {self.step:,}, distance {self.distance:.5f}, agreement {self.agreement:.4f}"


@dataclass(frozen=True, kw_only=True)
class MatchingPlan(PrivatePlan):
    """A run on released statistics; a step is one of the generator.

    Attributes:
        data: the real images, whose content is private; None where all looks are over.
        look: the mechanisms, with noise that keeps all of them together within the budget.
        source: the folder of the finished run whose release is trained on anew; None for a run that looks itself.
    """

    recipe: StatisticsRecipe
    data: RealImages | None
    look: LookPlan
    source: Path | None = None

    @property
    def may_hold(self) -> list[str]:
        """A run on an earlier release copies that first."""
        return [] if self.source is None else [RELEASE_NAME]

    def describe(self) -> list[str]:
        mechanisms, budget = self.look.mechanisms, self.recipe.privacy
        training = f"{self.recipe.training.steps:,} steps of the generator on what was released, which cost nothing"
        if self.source is not None:
            spent = epsilon_of(mechanisms, budget.delta)
            return [
                f"no image is looked at: {self.source} released the outcome of {len(mechanisms)} mechanisms, epsilon "
                f"{spent:.3f} at delta {budget.delta:g}",
                training,
            ]
        teacher, embedding, *students = mechanisms
        alone = [epsilon_of([mechanism], budget.delta) for mechanism in mechanisms]
        after = [epsilon_of(mechanisms[: i + 1], budget.delta) for i in range(len(mechanisms))]
        precision = [each.steps * (each.sampling_probability / each.noise_multiplier) ** 2 for each in mechanisms]
        shares = [
            100 * each / sum(precision) for each in precision
        ]  # squared signal-to-noise ratios add up over mechanisms
        looks = [
            f"{i}. {mechanism.name}, {shares[i - 1]:.0f} % of the budget: one Gaussian mechanism over the sums of the "
            f"teacher's ten classes, noise multiplier {mechanism.noise_multiplier:.4f}, sensitivity 1: epsilon "
            f"{alone[i - 1]:.3f} alone, {after[i - 1]:.3f} with all before it"
            for i, mechanism in enumerate((embedding, *students), 2)
        ]
        return [
            f"budget: epsilon {budget.epsilon:g} at delta {budget.delta:g}, add or remove one image; a mechanism's "
            "share of it is its part of the summed squared signal-to-noise ratios",
            f"1. teacher, {shares[0]:.0f} % of the budget: {teacher.steps:,} steps of DP-SGD on fixed features, noise "
            f"multiplier {teacher.noise_multiplier:.4f}, clip norm {teacher.l2_sensitivity:g}, Poisson sampling of "
            f"each of {self.images:,} images with probability {teacher.sampling_probability:.5f}: "
            f"epsilon {alone[0]:.3f}",
            *looks,
            f"then {training}",
        ]

    def identity(self) -> dict[str, Any]:
        noise = [mechanism.noise_multiplier for mechanism in self.look.mechanisms]
        return {**super().identity(), "noise_multipliers": noise}

    def start(self, out: Path, resume: bool, replicas: "Replicas | None", on_stage: StageProgress) -> Run:
        """Take the first look, or load what was released before, and begin or go on with it."""
        import_tensorflow()
        from synthgen.training.matching.generator import Matching

        ledger = OpenLedger.open(out / LEDGER_NAME, self.recipe.privacy)
        if resume:
            _expect_own_ledger(self, out, ledger)
        elif self.source is not None:
            ledger = _adopt(self.source, self, out)
        release = _release(self, out, ledger, on_stage)
        run = _MatchingRun(self, out, Matching(self.recipe, release, self.seed), ledger, release)
        if resume:
            run.restore()
        return run


def _expect_own_ledger(plan: MatchingPlan, out: Path, ledger: OpenLedger) -> None:
    header = expect_same_run(out, plan.identity())
    charged = ledger.ledger.mechanisms
    if plan.data is None and charged != plan.look.mechanisms:
        raise UsageError(f"{out}: holds a run that looks for itself; go on without --release")
    before = Ledger.from_list(header["charged"]).mechanisms
    if charged != plan.look.mechanisms[: len(charged)] or before != charged[: len(before)]:
        raise PrivacyError(f"{out}: {LEDGER_NAME} is not this run's; start anew in another --out")


def _adopt(source: Path, plan: MatchingPlan, out: Path) -> OpenLedger:
    """Make ``out`` a run whose looks are over: with the ledger of ``source``, its release, and no step done."""
    for name in (LEDGER_NAME, RELEASE_NAME):
        with publish(out / name) as partial:
            shutil.copyfile(source / name, partial)
    ledger = OpenLedger.open(out / LEDGER_NAME, plan.recipe.privacy)
    write_state(out, _header(plan, ledger), {})  # last: it says that all is there
    return ledger


def _header(plan: MatchingPlan, ledger: OpenLedger) -> dict[str, Any]:
    """What every state of a run says: which run it is, what it has spent, and whether it looks at all."""
    return {**plan.identity(), "step": 0, "charged": ledger.ledger.to_list(), "anew": plan.data is None}


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
    write_state(out, _header(plan, ledger), {})  # from here on the run can be resumed, whatever happens
    assert plan.data is not None  # else the ledger is charged
    release = look_privately(plan.data.images, plan.data.labels, plan.look, ledger.charge, on_stage)
    release.save(path)
    return release


class _MatchingRun(Run):
    summary_type = MatchingSummary
    plan: MatchingPlan
    learner: "Matching"

    def __init__(
        self, plan: MatchingPlan, out: Path, matching: "Matching", ledger: OpenLedger, release: Release
    ) -> None:
        super().__init__(plan, out, matching)
        self._ledger, self._release = ledger, release
        self._figures: dict[str, float] = {}
        self._student: Student | None = None  # trained, its look not yet taken

    @property
    def _is_students_turn(self) -> bool:
        """Whether the next student is to learn now: the students divide the steps into equal parts."""
        looked, phases = self._students_charged, len(self.plan.look.students) + 1
        return looked + 1 < phases and self.step >= (looked + 1) * self.plan.total_steps // phases

    @property
    def _students_charged(self) -> int:
        """How many students' looks are charged, with those that were cut short."""
        return len(self._ledger.ledger) - 2

    def prepare(self, on_stage: StageProgress) -> bool:
        """Train a student, when its turn has come, on what the generator draws; it sees no real image."""
        if self._is_students_turn:
            self._student = self._taught_student(on_stage)
        return super().prepare(on_stage)

    def _taught_student(self, on_stage: StageProgress) -> "Student":
        from synthgen.training.matching.student import Student

        number = self._students_charged
        student = Student()
        images, labels = self.learner.draw(_STUDENTS_IMAGES, number)
        seed = (self.plan.seed + 1 + number) % (1 << 32)
        student.fit(images, labels, seed, lambda done, of: on_stage(f"student {number + 1}", done, of))
        return student

    def advance(self, on_stage: StageProgress) -> dict[str, float]:
        """The look of a student that has learned, and one step of the generator."""
        if self._student is not None:
            self._look_through(self._student, on_stage)
            self._student = None
        match = self.learner.step(self.step)
        if not match.distance < float("inf"):
            raise TrainingError(
                f"the distance from the release became {match.distance} at step {self.step}: lower the learning rate "
                "and train anew in another --out"
            )
        for name, value in match._asdict().items():
            self._figures[name] = value + (1 - _MEMORY) * (self._figures.get(name, value) - value)
        return dict(self._figures)

    def _look_through(self, student: "Student", on_stage: StageProgress) -> None:
        """Release the sums of a student's features over the real images, and match them from now on."""
        assert self.plan.data is not None  # else every look is charged
        self.save_state()  # a kill from here on loses no step
        mechanism = self.plan.look.students[self._students_charged]
        self._ledger.charge(mechanism)
        weights = tuple(student.weights)
        self._release = look_as_student(
            student.embed_pixels(), weights, self.plan.data.images, self._release, mechanism, on_stage
        )
        self._release.save(self.out / RELEASE_NAME)
        self.learner.admit(self._release.students[-1])

    def summarise(self, images: Images) -> MatchingSummary:
        return MatchingSummary(step=self.step, seconds=round(self.seconds, 2), **self._figures)

    def header(self, *, stopping: bool) -> dict[str, Any]:
        """Also the figures, and what ``_header`` says."""
        own = {**_header(self.plan, self._ledger), "figures": self._figures}
        return {**own, **super().header(stopping=stopping)}

    def restore(self) -> dict[str, Any]:
        """Take up the saved state; that of a run without a step done may lack the arrays, and adds nothing."""
        header = read_header(self.out)
        if header["step"]:
            header = super().restore()
            self._figures = header["figures"]
        return header

    def statement(self) -> PrivacyStatement:
        plan = self.plan
        return differential_privacy(
            self._ledger.ledger,
            plan.recipe.privacy.delta,
            plan.trained_on,
            _PUBLIC,
            exact_noise=self._release.exact_noise,
        )
