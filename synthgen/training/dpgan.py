"""Private training: a recipe with a budget and real images become a checkpoint with a guarantee.

A run is a number of discriminator steps, each on its own Poisson sample. Steps are charged to a ledger on disk some
at a time before they are run; a run that is killed has paid for steps whose outcome it lost, and ends so much earlier.
Nothing that is written, printed or decided here comes of the real images except through the noise: no loss or accuracy
on them, no hash of them. Since the noise is the operating system's, no two runs are alike, whatever their seed.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthgen.environment import import_tensorflow, made_with
from synthgen.errors import Interrupted, PrivacyError, UsageError
from synthgen.model.checkpoint import SAMPLES_NAME, Checkpoint, load_checkpoint, save_checkpoint
from synthgen.pictures import save_contact_sheet
from synthgen.privacy.ledger import LEDGER_NAME, OpenLedger
from synthgen.privacy.mechanisms import poisson_sample
from synthgen.privacy.statement import PrivacyStatement, differential_privacy
from synthgen.training.adversarial import sample_drawer
from synthgen.training.dpgan_plan import PrivateTrainingPlan
from synthgen.training.plan import describe_private_images
from synthgen.training.private_folder import private_folder
from synthgen.training.state import STATE_NAME, open_state, read_header, write_metrics, write_state

if TYPE_CHECKING:
    from synthgen.training.dpgan_game import PrivateGame

_STEPS_A_CHARGE = 50
_MEMORY = 0.1  # weight of the newest figure in a running mean


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a private run stands; every figure is of forged images or of the plan."""

    step: int
    generator_steps: int
    forged_accuracy: float  # of the discriminator, on forged images; a running mean
    generator_loss: float
    seconds: int  # whole, for fractions would tell how large the Poisson samples were

    def __str__(self) -> str:
        return (
            f"step {self.step:,}, generator steps {self.generator_steps:,}, Loss G:{self.generator_loss:.4f}, "
            f"Acc D on forged:{self.forged_accuracy:.4f}"
        )


OnStep = Callable[[int, int, dict[str, float]], None]  # (steps done, of, the latest figures)
OnLook = Callable[[Progress], None]


def train_privately(
    plan: PrivateTrainingPlan,
    out: Path,
    *,
    resume: bool = False,
    on_step: OnStep = lambda done, of, figures: None,
    on_look: OnLook = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Checkpoint:
    """Train a generator within a privacy budget and leave its checkpoint in ``out``.

    Args:
        plan: see ``plan_private_training``.
        out: the folder of the checkpoint; new or empty unless ``resume``. Beside the checkpoint it receives
            ``ledger.json``, ``metrics.csv``, ``samples/`` and, until training is done, the state to resume from.
        resume: go on with the interrupted run in ``out``.
        on_step: called after every discriminator step.
        on_look: called whenever a picture has been drawn and the state saved.
        should_stop: asked after every step; when true the state is saved and ``Interrupted`` raised.

    Raises:
        UsageError: ``out`` holds another run, or there is nothing to resume.
        PrivacyError: the ledger is spoilt or of another budget, or the budget is exhausted.
        TrainingError: the gradients are no numbers any more; the last good state is kept.
        Interrupted: stopped on request; go on with ``resume``.
    """
    with private_folder(out, plan.budget, resume) as ledger:
        import_tensorflow()
        from synthgen.training.dpgan_game import PrivateGame

        run = _Run(plan, out, ledger, PrivateGame(plan.recipe, plan.seed, plan.noise_multiplier))
        if resume:
            run.restore()
        else:
            run.save_state()  # from here on the run can be resumed, whatever happens
        return _play_on(run, on_step, on_look, should_stop)


def _play_on(run: "_Run", on_step: OnStep, on_look: OnLook, should_stop: Callable[[], bool]) -> Checkpoint:
    section = run.plan.recipe.training
    while run.may_step():
        on_step(*run.advance())
        if run.step % section.sample_every_steps == 0:
            on_look(run.look())
        if should_stop() and run.step < section.steps:
            run.save_state(stopping=True)
            raise Interrupted(f"stopped after {run.step} of {section.steps} steps, all saved; go on with --resume")
    if not run.step:
        raise PrivacyError("budget exhausted before the first step: start anew in another --out")
    if not run.is_saved:
        on_look(run.look())
    return run.complete()


class _Run:
    """One private run: the game, the ledger, and where it stands."""

    def __init__(self, plan: PrivateTrainingPlan, out: Path, ledger: OpenLedger, game: "PrivateGame") -> None:
        self.plan, self.out, self.game = plan, out, game
        self.step = 0
        self.history: list[Progress] = []
        self._ledger = ledger
        self._paid = 0  # steps charged and not yet run
        self._since_generator = 0
        self._figures = {"generator_loss": 0.0, "forged_accuracy": 1.0}
        self._generator_steps = 0
        self._seconds = 0.0
        self._draw_samples = sample_drawer(game.best_generator, plan.recipe)

    @property
    def is_saved(self) -> bool:
        """Whether the checkpoint is of this very step."""
        return bool(self.history) and self.history[-1].step == self.step

    def may_step(self) -> bool:
        """Whether another step is paid for, paying for some more where the plan has any left."""
        if not self._paid:
            charged = sum(mechanism.steps for mechanism in self._ledger.ledger)
            affordable = min(_STEPS_A_CHARGE, self.plan.recipe.training.steps - charged)
            if affordable > 0:
                self._ledger.charge(self.plan.mechanism(affordable))
                self._paid = affordable
        return self._paid > 0

    def advance(self) -> tuple[int, int, dict[str, float]]:
        """One step of the discriminator, and one of the generator when its turn has come."""
        began = time.monotonic()
        data, figures = self.plan.data, self._figures
        chosen = poisson_sample(len(data), self.plan.sampling_probability)
        self._paid -= 1
        accuracy = self.game.discriminator_step(data.images[chosen], data.labels[chosen], self.step)
        figures["forged_accuracy"] += _MEMORY * (accuracy - figures["forged_accuracy"])
        self._since_generator += 1
        if self._generators_turn(accuracy):
            figures["generator_loss"] = self.game.teach_generator(self.step)
            self._generator_steps += 1
            self._since_generator = 0
        self.step += 1
        self._seconds += time.monotonic() - began
        return self.step, self.plan.recipe.training.steps, dict(figures)

    def look(self) -> Progress:
        """Draw a picture, and save that, the checkpoint and the state."""
        progress = Progress(
            step=self.step, generator_steps=self._generator_steps, seconds=round(self._seconds), **self._figures
        )
        self.history.append(progress)
        images = self._draw_samples()
        columns = 10 if self.plan.recipe.conditional else 9
        for path in (self.out / "samples" / f"step-{self.step:06d}.png", self.out / SAMPLES_NAME):
            save_contact_sheet(path, images, columns=columns)
        self._save_checkpoint()
        self.save_state()
        return progress

    def save_state(self, *, stopping: bool = False) -> None:
        """Publish all that a resumed run needs, in one file, and the metrics table beside it.

        Only a run that stops here may leave steps that are paid for to the one that resumes it: one that goes on may
        run them, be killed, and have them run a second time.
        """
        header = {
            **self._identity(),
            "step": self.step,
            "paid": self._paid if stopping else 0,
            "since_generator": self._since_generator,
            "generator_steps": self._generator_steps,
            "figures": self._figures,
            "seconds": self._seconds,
            "history": [asdict(progress) for progress in self.history],
        }
        write_state(self.out, header, self.game.state())
        write_metrics(self.out, Progress, self.history)

    def restore(self) -> None:
        """Take up the saved state of the same plan; what was charged and lost since stays charged."""
        header = read_header(self.out)
        different = [name for name, value in self._identity().items() if header.get(name) != value]
        if different:
            raise UsageError(f"{self.out}: holds a run with different {', '.join(different)}; choose another --out")
        charged = sum(mechanism.steps for mechanism in self._ledger.ledger)
        ours = all(self.plan.mechanism(mechanism.steps) == mechanism for mechanism in self._ledger.ledger)
        if not ours or charged < header["step"] + header["paid"]:
            raise PrivacyError(f"{self.out}: {LEDGER_NAME} is not this run's, or an older one; start in a new folder")
        with open_state(self.out) as state:
            self.game.restore(state)
        self.step, self._since_generator = header["step"], header["since_generator"]
        self._generator_steps, self._figures = header["generator_steps"], header["figures"]
        self._seconds = header["seconds"]
        self.history = [Progress(**progress) for progress in header["history"]]
        # Steps paid for and not run may be run now, but only once: the state forgets them before they are.
        self.save_state()
        self._paid = header["paid"]

    def complete(self) -> Checkpoint:
        """The checkpoint that the last look left; the state to resume from is of no more use."""
        checkpoint = load_checkpoint(self.out)
        (self.out / STATE_NAME).unlink(missing_ok=True)
        return checkpoint

    def _generators_turn(self, accuracy: float) -> bool:
        """Whether the discriminator is good enough to learn from, judged by forged images alone.

        Bie et al. (section 4.2) raise the number of discriminator steps whenever its accuracy falls below a floor;
        here the discriminator goes on, within bounds, until it has reached the floor.
        """
        section = self.plan.recipe.training
        ready = self._since_generator >= section.discriminator_steps and accuracy >= section.accuracy_floor
        return ready or self._since_generator >= section.most_discriminator_steps

    def _identity(self) -> dict[str, Any]:
        """What must be equal for a resumed run to be the same run."""
        plan = self.plan
        return {
            "recipe": plan.recipe.to_dict(),
            "seed": plan.seed,
            "images": len(plan.data),
            "noise_multiplier": plan.noise_multiplier,
            "made_with": made_with(),
        }

    def _save_checkpoint(self) -> None:
        plan = self.plan
        training = {
            "steps": self.step,
            "generator_steps": self._generator_steps,
            "seed": plan.seed,
            "seconds": round(self._seconds),
            "data": {"images": len(plan.data)},
            "history": [asdict(progress) for progress in self.history],
            "made_with": made_with(),
        }
        save_checkpoint(self.out, self.game.best_generator, plan.recipe, self._statement(), training)

    def _statement(self) -> PrivacyStatement:
        trained_on = describe_private_images(self.plan.recipe, len(self.plan.data))
        return differential_privacy(self._ledger.ledger, self.plan.budget.delta, trained_on)
