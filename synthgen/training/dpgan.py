"""Training by recipe ``dpgan``: a generator against a discriminator that is trained by DP-SGD.

A run is a number of discriminator steps, each on its own Poisson sample. Steps are charged to a ledger on disk some at
a time before they are run; a run that is killed has paid for steps whose outcome it lost, and ends so much earlier.
Nothing that is written into the folder, printed or decided here depends on the real images except through the noise: no
loss or accuracy on them, no hash of them. The noise is the operating system's, so that no two runs are alike, whatever
their seed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthgen.environment import import_tensorflow, made_with
from synthgen.errors import PrivacyError
from synthgen.model.checkpoint import Checkpoint
from synthgen.model.recipe import PrivateAdversarialRecipe
from synthgen.privacy.accounting import Charge, Mechanism, calibrated, epsilon_of
from synthgen.privacy.ledger import LEDGER_NAME, Ledger
from synthgen.privacy.mechanisms import poisson_sample
from synthgen.privacy.selection import Selection
from synthgen.real_images import RealImages
from synthgen.subject import Images, Labels
from synthgen.training.images import enough_images, of_data
from synthgen.training.private import Account, PrivatePlan, PrivateRun, expect_small_delta
from synthgen.training.run import Run, Summary, expect_seed
from synthgen.workers import StageProgress

if TYPE_CHECKING:
    from synthgen.training.dpgan_game import PrivateGame
    from synthgen.training.replicas import Replicas

_STAGES = (0.25, 0.5, 0.75, 1.0)
_STEPS_A_CHARGE = 50
_MEMORY = 0.1  # weight of the newest figure in a running mean


@dataclass(frozen=True, kw_only=True)
class DpganSummary(Summary):
    """Where a run stands; every figure is of forged images or of the plan."""

    step: int
    generator_steps: int
    forged_accuracy: float  # of the discriminator, on forged images; a running mean
    generator_loss: float

    def __str__(self) -> str:
        return (
            f"step {self.step:,}, generator steps {self.generator_steps:,}, Loss G:{self.generator_loss:.4f}, "
            f"Acc D on forged:{self.forged_accuracy:.4f}"
        )


@dataclass(frozen=True, kw_only=True)
class DpganPlan(PrivatePlan):
    """A run within a budget; a step is one of the discriminator.

    Attributes:
        data: the real images.
        noise_multiplier: what keeps all its steps within the budget.
    """

    recipe: PrivateAdversarialRecipe
    data: RealImages
    noise_multiplier: float

    @property
    def sampling_probability(self) -> float:
        """Of each real image, independently, at every step."""
        return self.recipe.training.batch_size / self.images

    def mechanism(self, steps: int) -> Mechanism:
        """So many discriminator steps, for the ledger."""
        return _mechanism(self.recipe, self.sampling_probability, self.noise_multiplier, steps)

    @property
    def mechanisms(self) -> tuple[Mechanism, ...]:
        return (self.mechanism(self.total_steps),)

    def describe(self) -> list[str]:
        section, budget = self.recipe.training, self.recipe.privacy
        stages = [max(1, round(share * section.steps)) for share in _STAGES]
        costs = [epsilon_of([self.mechanism(steps)], budget.delta) for steps in stages]
        table = ", ".join(f"{cost:.2f} after {steps:,}" for cost, steps in zip(costs, stages, strict=True))
        return [
            f"budget: epsilon {budget.epsilon:g} at delta {budget.delta:g}, one image replaced by an empty record",
            f"one mechanism, 100 % of the budget: discriminator, {section.steps:,} steps of Gaussian noise, "
            f"noise multiplier {self.noise_multiplier:.4f}, clip norm {section.l2_clip_norm:g}",
            f"Poisson sampling of each of {self.images:,} images with probability "
            f"{self.sampling_probability:.5f}: {section.batch_size:,} a step on average",
            f"epsilon by step: {table}",
        ]

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "noise_multiplier": self.noise_multiplier, "made_with": made_with()}

    def start(self, out: Path, resume: bool, replicas: "Replicas | None", on_stage: StageProgress) -> Run:
        account = Account.resumed(self, out)[0] if resume else Account(self, out, None)
        import_tensorflow()
        from synthgen.training.dpgan_game import PrivateGame

        run = _DpganRun(self, out, PrivateGame(self.recipe, self.seed, self.noise_multiplier), account)
        if resume:
            run.restore()
        else:
            run.save_all()  # from here on the run can be resumed, whatever happens
        return run


def plan_private_training(
    recipe: PrivateAdversarialRecipe,
    data_folder: Path | None = None,
    seed: int = 0,
    selection: Selection | None = None,
) -> DpganPlan:
    """``synthgen.plan`` for a recipe like ``dpgan``: noise by the budget, which pays for a selection, too.

    Raises:
        UsageError: the seed is out of range, or the batch larger than the data.
        PrivacyError: the budget is out of range, or its delta not below 1 / the number of images.
        DataError: the real images are missing or malformed.
    """
    expect_seed(seed)
    section = recipe.training
    data = enough_images(recipe, data_folder, "training.batch_size", section.batch_size)
    recipe = of_data(recipe, data)
    expect_small_delta(recipe.privacy, len(data))
    probability = section.batch_size / len(data)

    def charges(scale: float) -> tuple[Charge, ...]:
        return Ledger((_mechanism(recipe, probability, scale, section.steps),), selection).charges

    scale = calibrated(charges, recipe.privacy)
    return DpganPlan(recipe=recipe, data=data, images=len(data), seed=seed, noise_multiplier=scale, selection=selection)


def sampled(images: Images, labels: Labels, probability: float) -> tuple[Images, Labels]:
    """A Poisson sample of the real images, for one step of the discriminator."""
    chosen = poisson_sample(len(images), probability)
    return images[chosen], labels[chosen]


def _mechanism(recipe: PrivateAdversarialRecipe, probability: float, noise_multiplier: float, steps: int) -> Mechanism:
    return Mechanism(
        name="discriminator",
        releases="the clipped sum of the discriminator's gradients over a Poisson sample, with noise",
        noise_multiplier=noise_multiplier,
        l2_sensitivity=recipe.training.l2_clip_norm,
        sampling_probability=probability,
        steps=steps,
    )


class _DpganRun(PrivateRun):
    summary_type = DpganSummary
    plan: DpganPlan
    learner: "PrivateGame"

    def __init__(self, plan: DpganPlan, out: Path, game: "PrivateGame", account: Account) -> None:
        super().__init__(plan, out, game, account)
        self._paid = 0  # steps charged and not yet run
        self._since_generator = 0
        self._figures = {"generator_loss": 0.0, "forged_accuracy": 1.0}
        self._generator_steps = 0
        self._exact_noise = game.keeps_examples_apart()

    def prepare(self, on_stage: StageProgress) -> bool:
        """Whether another step is paid for, or can be: what was charged and lost is not run again."""
        return self._paid > 0 or self._charged < self.plan.total_steps

    @property
    def exact_noise(self) -> bool:
        """Where TensorFlow does not keep examples apart, the proof is for real numbers only, and so is the claim."""
        return self._exact_noise

    @property
    def release_sha256(self) -> None:
        """Nothing is released but the generator."""

    @property
    def _charged(self) -> int:
        return sum(mechanism.steps for mechanism in self.account.record.ledger)

    def advance(self, on_stage: StageProgress) -> dict[str, float]:
        """One step of the discriminator, paid for, and one of the generator when its turn has come."""
        if not self._paid:
            steps = min(_STEPS_A_CHARGE, self.plan.total_steps - self._charged)
            self.charge(self.plan.mechanism(steps))
            self._paid = steps
        data, figures = self.plan.data, self._figures
        images, labels = sampled(data.images, data.labels, self.plan.sampling_probability)
        self._paid -= 1
        accuracy = self.learner.discriminator_step(images, labels, self.step)
        figures["forged_accuracy"] += _MEMORY * (accuracy - figures["forged_accuracy"])
        self._since_generator += 1
        if self._generators_turn(accuracy):
            figures["generator_loss"] = self.learner.teach_generator(self.step)
            self._generator_steps += 1
            self._since_generator = 0
        return dict(figures)

    def _generators_turn(self, accuracy: float) -> bool:
        """Whether the discriminator is good enough to learn from, judged by forged images alone.

        Bie et al. (section 4.2) raise the number of discriminator steps whenever its accuracy falls below a floor;
        here the discriminator goes on, within bounds, until it has reached the floor.
        """
        section = self.plan.recipe.training
        ready = self._since_generator >= section.discriminator_steps and accuracy >= section.accuracy_floor
        return ready or self._since_generator >= section.most_discriminator_steps

    def summarise(self, images: Images) -> DpganSummary:
        return DpganSummary(step=self.step, generator_steps=self._generator_steps, **self._figures)

    def header(self, *, stopping: bool) -> dict[str, Any]:
        """Also the figures, and the steps that are paid for.

        Only a run that stops here may leave steps that are paid for to the one that resumes it: one that goes on may
        run them, be killed, and have them run a second time.
        """
        return {
            **super().header(stopping=stopping),
            "paid": self._paid if stopping else 0,
            "since_generator": self._since_generator,
            "generator_steps": self._generator_steps,
            "figures": self._figures,
            "exact_noise": self._exact_noise,
        }

    def restore(self) -> dict[str, Any]:
        """Take up the saved state of the same plan; what was charged and lost since stays charged."""
        header = super().restore()
        ours = all(self.plan.mechanism(mechanism.steps) == mechanism for mechanism in self.account.record.ledger)
        if not ours or self._charged < header["step"] + header["paid"]:
            raise PrivacyError(f"{self.out}: {LEDGER_NAME} is not this run's, or an older one; start in a new folder")
        self._since_generator, self._generator_steps = header["since_generator"], header["generator_steps"]
        self._figures = header["figures"]
        self._exact_noise = self._exact_noise and header["exact_noise"] is True  # not better than any part of the run
        # Steps paid for and not run may be run now, but only once: ledger and state forget them before they are.
        self.account.count_resumption()
        self.save_all()
        self._paid = 0 if self.account.was_resumed_since else header["paid"]
        return header

    def complete(self) -> Checkpoint | None:
        """The checkpoint that was saved last; there is none where every step was lost."""
        if not self.step:
            raise PrivacyError("budget exhausted before the first step: start anew in another --out")
        return super().complete()

    def training_record(self) -> dict[str, Any]:
        """Also the generator's steps."""
        return {"steps": self.step, "generator_steps": self._generator_steps, **super().training_record()}
