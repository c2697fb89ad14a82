"""Training on released statistics, as recipe ``private`` does: a few private looks, and as much training as you like.

The first look comes before training; then, at equal distances, one through the features of each student of the
generator. Every mechanism is charged to a ledger on disk before it runs, and what it releases is published as a whole.
A look that is killed stays charged and is not repeated: without the first there is nothing to train on, without a
student's the run goes on. The order in which things are written stands in ``training.private``.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthgen.environment import import_tensorflow
from synthgen.errors import Diverged, PrivacyError, TrainingError, UsageError
from synthgen.files import publish
from synthgen.model.recipe import StatisticsRecipe
from synthgen.model.sampling import CLASS_SHARES, shares_of
from synthgen.privacy.accounting import Mechanism, epsilon_of
from synthgen.privacy.ledger import LEDGER_NAME, Ledger
from synthgen.subject import Images
from synthgen.training.folder import read_header, write_state
from synthgen.training.matching.fitting import explain
from synthgen.training.matching.looks import LookPlan, look_as_student, look_privately
from synthgen.training.matching.release import RELEASE_NAME, Release, named_releases
from synthgen.training.private import WITHOUT_COUNTS, Account, PrivatePlan, PrivateRun
from synthgen.training.run import Run, Summary
from synthgen.workers import StageProgress

if TYPE_CHECKING:
    from synthgen.training.matching.generator import Matching
    from synthgen.training.matching.student import Student
    from synthgen.training.replicas import Replicas

_STUDENTS_IMAGES = 20_000
_LEAST_FREE_BYTES = 32 << 20  # 32 MiB: release, state, checkpoint and pictures
_MEMORY = 0.05  # weight of the newest figure in a running mean


@dataclass(frozen=True, kw_only=True)
class MatchingSummary(Summary):
    """Where a run stands; every figure is of generated images and of what was released."""

    step: int
    distance: float  # squared maximum mean discrepancy from the release; a running mean
    agreement: float  # of the teacher with the class an image was drawn for; a running mean

    def __str__(self) -> str:
        return f"step {self.step:,}, distance {self.distance:.5f}, agreement {self.agreement:.4f}"


@dataclass(frozen=True, kw_only=True)
class MatchingPlan(PrivatePlan):
    """A run on released statistics; a step is one of the generator.

    Attributes:
        look: the mechanisms, with noise that keeps all of them together within the budget.
        source: the folder of the finished run whose release is trained on anew; None for a run that looks itself.
    """

    recipe: StatisticsRecipe
    look: LookPlan
    source: Path | None = None

    @property
    def mechanisms(self) -> tuple[Mechanism, ...]:
        return self.look.mechanisms

    @property
    def may_hold(self) -> list[str]:
        """A run on an earlier release copies that first."""
        return [] if self.source is None else [RELEASE_NAME]

    def describe(self) -> list[str]:
        mechanisms, budget = self.look.mechanisms, self.recipe.privacy
        training = f"{self.recipe.training.steps:,} steps of the generator on what was released, which cost nothing"
        if self.source is not None:
            spent = Ledger(mechanisms, self.selection).epsilon(budget.delta)
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
        classes = self.recipe.subject.classes_in_words
        looks = [
            f"{i}. {mechanism.name}, {shares[i - 1]:.0f} % of the budget: one Gaussian mechanism over the sums of the "
            f"teacher's {classes}, noise multiplier {mechanism.noise_multiplier:.4f}, sensitivity 1: epsilon "
            f"{alone[i - 1]:.3f} alone, {after[i - 1]:.3f} with all before it"
            for i, mechanism in enumerate((embedding, *students), 2)
        ]
        return [
            *explain(self.recipe, self.images),
            f"budget: epsilon {budget.epsilon:g} at delta {budget.delta:g}, one image replaced by an empty record; a "
            "mechanism's share of it is its part of the summed squared signal-to-noise ratios",
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

        header = None
        if resume:
            account, header = _resumed(self, out)
        else:
            if self.source is not None:
                _adopt(self.source, out)
            account = Account(self, out, None)
        release = _release(self, out, account, header, on_stage)
        run = _MatchingRun(self, out, Matching(self.recipe, release, self.seed), account, release)
        if resume:
            run.restore()
        run.save_all()  # as soon as there is a release: no claim is smaller than what was spent on it
        return run


def _resumed(plan: MatchingPlan, out: Path) -> tuple[Account, dict[str, Any]]:
    account, header = Account.resumed(plan, out)
    charged = account.record.ledger.mechanisms
    if plan.data is None and charged != plan.look.mechanisms:
        raise UsageError(f"{out}: holds a run that looks for itself; go on without --release")
    if charged != plan.look.mechanisms[: len(charged)]:
        raise PrivacyError(f"{out}: {LEDGER_NAME} is not this run's; start anew in another --out")
    return account, header


def _adopt(source: Path, out: Path) -> None:
    """Make ``out`` a run whose looks are over: with the ledger of ``source`` and its release."""
    for name in (LEDGER_NAME, RELEASE_NAME):
        with publish(out / name) as partial:
            shutil.copyfile(source / name, partial)


def _header(plan: MatchingPlan, account: Account, release: Release | None) -> dict[str, Any]:
    """What every state of a run says: which run it is, what it has spent and released, and whether it looks at all."""
    released = None if release is None else release.sha256
    return {**plan.identity(), "step": 0, **account.header(), "release": released, "anew": plan.data is None}


def _release(
    plan: MatchingPlan, out: Path, account: Account, header: dict[str, Any] | None, on_stage: StageProgress
) -> Release:
    """What was released in ``out`` before, or else the first private look itself."""
    path = out / RELEASE_NAME
    if path.exists():
        release = Release.load(path)
        release.expect_outcome_of(account.record, path)
        before, named = (header or {}).get("release"), named_releases(account.record)
        if before is not None and release.sha256 not in named[named.index(before) if before in named else len(named) :]:
            raise PrivacyError(f"{path}: not this run's, or an older one; start anew in another --out")
        return release
    if account.record.ledger.mechanisms:
        raise PrivacyError(
            f"{out}: the first private look was cut short when its budget had been charged; start anew in another "
            "--out, and let the look, a minute or two, come to its end"
        )
    if (free := shutil.disk_usage(out).free) < _LEAST_FREE_BYTES:  # found out before the budget is spent
        raise TrainingError(f"{out}: only {free / 1e6:.0f} MB are free; make room for {_LEAST_FREE_BYTES / 1e6:.0f} MB")
    write_state(out, _header(plan, account, None), {})  # from here on the run can be resumed, whatever happens

    def charge(mechanism: Mechanism) -> None:
        account.charge(mechanism)
        write_state(out, _header(plan, account, None), {})

    assert plan.data is not None  # else the ledger is charged
    release = look_privately(plan.data.images, plan.data.labels, plan.look, charge, on_stage)
    return _published(release, path, account)


def _published(release: Release, path: Path, account: Account) -> Release:
    """The release under the run's name and in its folder; the ledger names it first."""
    named = replace(release, run=account.record.run)
    named.save(path, account.name_release)
    return named


class _MatchingRun(PrivateRun):
    summary_type = MatchingSummary
    plan: MatchingPlan
    learner: "Matching"

    def __init__(self, plan: MatchingPlan, out: Path, matching: "Matching", account: Account, release: Release) -> None:
        super().__init__(plan, out, matching, account)
        self._release = release
        self._figures: dict[str, float] = {}
        self._student: Student | None = None  # trained, its look not yet taken

    @property
    def public(self) -> tuple[str, ...]:
        """Class counts are not: they are released, with noise."""
        return WITHOUT_COUNTS

    @property
    def exact_noise(self) -> bool:
        """As the release says, which may be of an earlier version."""
        return self._release.exact_noise

    @property
    def release_sha256(self) -> str:
        """Of the looks so far."""
        return self._release.sha256

    @property
    def _is_students_turn(self) -> bool:
        """Whether the next student is to learn now: the students divide the steps into equal parts."""
        looked, phases = self._students_charged, len(self.plan.look.students) + 1
        return looked + 1 < phases and self.step >= (looked + 1) * self.plan.total_steps // phases

    @property
    def _students_charged(self) -> int:
        """How many students' looks are charged, with those that were cut short."""
        return len(self.account.record.ledger) - 2

    def prepare(self, on_stage: StageProgress) -> bool:
        """Train a student, when its turn has come, on what the generator draws; it sees no real image."""
        if self._is_students_turn:
            self._student = self._taught_student(on_stage)
        return super().prepare(on_stage)

    def _taught_student(self, on_stage: StageProgress) -> "Student":
        from synthgen.training.matching.student import Student

        number = self._students_charged
        student = Student(self.plan.recipe.classes)
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
            raise Diverged(
                f"the distance from the release became {match.distance} at step {self.step}: lower the learning rate "
                "and train anew in another --out"
            )
        for name, value in match._asdict().items():
            self._figures[name] = value + (1 - _MEMORY) * (self._figures.get(name, value) - value)
        return dict(self._figures)

    def _look_through(self, student: "Student", on_stage: StageProgress) -> None:
        """Release the sums of a student's features over the real images, and match them from now on."""
        assert self.plan.data is not None  # else every look is charged
        mechanism = self.plan.look.students[self._students_charged]
        self.charge(mechanism)
        weights = tuple(student.weights)
        release = look_as_student(
            student.embed_pixels(), weights, self.plan.data.images, self._release, mechanism, on_stage
        )
        self._release = _published(release, self.out / RELEASE_NAME, self.account)
        self.learner.admit(self._release.students[-1])
        self.save_all()

    def summarise(self, images: Images) -> MatchingSummary:
        return MatchingSummary(step=self.step, **self._figures)

    def header(self, *, stopping: bool) -> dict[str, Any]:
        """Also the figures, and what ``_header`` says."""
        own = {**_header(self.plan, self.account, self._release), "figures": self._figures}
        return {**own, **super().header(stopping=stopping)}

    def training_record(self) -> dict[str, Any]:
        """Also how frequent the classes are, as far as it was released."""
        return {**super().training_record(), CLASS_SHARES: shares_of(self._release.counts)}

    def restore(self) -> dict[str, Any]:
        """Take up the saved state; that of a run without a step done may lack the arrays, and adds nothing."""
        header = read_header(self.out)
        if header["step"]:
            header = super().restore()
            self._figures = header["figures"]
        self.account.count_resumption()
        return header
