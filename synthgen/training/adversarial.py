"""Training: a recipe and real images become a checkpoint.

Everything is a function of (recipe, data, seed): the order of the images, the noise, the initial weights. The
state is saved whole at the end of every epoch and on request, so that a resumed run gives the very weights of an
unbroken one.
"""

import math
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

import numpy as np
import numpy.typing as npt

from synthgen.environment import import_tensorflow, made_with
from synthgen.errors import Interrupted, TrainingError, UsageError
from synthgen.fashion import NUM_CLASSES
from synthgen.files import exclusive_lock, remove_litter
from synthgen.index import BLOCK_IMAGES, LabelRule, latents
from synthgen.model.checkpoint import SAMPLES_NAME, Checkpoint, load_checkpoint, save_checkpoint
from synthgen.model.recipe import Recipe
from synthgen.pictures import save_contact_sheet
from synthgen.privacy.statement import no_guarantee
from synthgen.training.plan import TrainingPlan, epoch_order
from synthgen.training.state import STATE_NAME, open_state, read_header, write_metrics, write_state
from synthgen.training.strategy import Strategy, workers_in_reach

if TYPE_CHECKING:
    from synthgen.training.game import Game
    from synthgen.training.replicas import Replicas

LOCK_NAME = ".lock"
_NO_SIGNAL_LOSS = 1e-4  # a discriminator this sure of itself gives the generator nothing to learn from
_LEAST_SPREAD = 1e-3  # standard deviation between images, in [0, 1]: below it the generator draws one picture


@dataclass(frozen=True, kw_only=True)
class EpochSummary:
    """Means over one epoch; ``str`` gives the notebook's line."""

    epoch: int
    generator_loss: float
    discriminator_loss: float
    generator_accuracy: float
    discriminator_accuracy: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"E:{self.epoch}, Loss G:{self.generator_loss:.4f}, Loss D:{self.discriminator_loss:.4f}, "
            f"Acc G:{self.generator_accuracy:.4f}, Acc D:{self.discriminator_accuracy:.4f}"
        )


OnStep = Callable[[int, int, dict[str, float]], None]  # (steps done, of, the last batch's figures)
OnEpoch = Callable[[EpochSummary], None]
OnReplicas = Callable[[int], None]


class _Options(TypedDict, total=False):
    """What ``train`` may be told beside the strategy, which alone decides whether a checkpoint is certain."""

    resume: bool
    on_step: OnStep
    on_epoch: OnEpoch
    should_stop: Callable[[], bool]
    on_replicas: OnReplicas


@overload
def train(plan: TrainingPlan, out: Path, *, strategy: None = None, **options: Unpack[_Options]) -> Checkpoint: ...
@overload
def train(
    plan: TrainingPlan, out: Path, *, strategy: Strategy | None, **options: Unpack[_Options]
) -> Checkpoint | None: ...
def train(
    plan: TrainingPlan,
    out: Path,
    *,
    resume: bool = False,
    on_step: OnStep = lambda done, of, figures: None,
    on_epoch: OnEpoch = lambda summary: None,
    should_stop: Callable[[], bool] = lambda: False,
    on_replicas: OnReplicas = lambda count: None,
    strategy: Strategy | None = None,
) -> Checkpoint | None:
    """Train a generator and leave its checkpoint in ``out``.

    Args:
        plan: see ``plan_training``.
        out: the folder of the checkpoint; new or empty unless ``resume``. Beside the checkpoint it receives
            ``metrics.csv``, ``samples/`` and, until training is done, the state to resume from.
        resume: go on with the interrupted run in ``out``.
        on_step: called after every batch.
        on_epoch: called after every epoch.
        should_stop: asked after every batch; when true the state is saved and ``Interrupted`` raised.
        on_replicas: with a strategy, called once it is known how many replicas share every batch.
        strategy: share every batch out among devices or workers, see ``choose_strategy``; the losses are those of one
            device, to rounding. Workers all call this with the same arguments, and the chief alone writes; to resume,
            all must be able to read ``out``.

    Returns:
        The checkpoint; None in a worker that is not the chief.

    Raises:
        UsageError: ``out`` holds another run, there is nothing to resume, or there are fewer devices, or images in a
            batch, than replicas.
        TrainingError: the losses are no numbers any more, the game has collapsed, or another worker is gone; the last
            good state is kept.
        Interrupted: stopped on request, of any worker; go on with ``resume``.
    """
    with ExitStack() as held:
        replicas = None
        if strategy is not None:  # before the folder is looked at: workers that have met notice when one of them fails
            held.enter_context(workers_in_reach(strategy))
            replicas = _replicas(strategy, plan)
            on_replicas(replicas.count)
        if strategy is None or strategy.is_chief:
            held.enter_context(run_folder(out, resume))
        import_tensorflow()
        from synthgen.training.game import Game

        run = _Run(plan, out, Game(plan.recipe, plan.seed, plan.total_steps, replicas))
        if resume:
            run.restore()
        else:
            run.save_state()  # from here on the run can be resumed, whatever happens
        return _play_on(run, on_step, on_epoch, should_stop)


def _replicas(strategy: Strategy, plan: TrainingPlan) -> "Replicas":
    import_tensorflow()
    from synthgen.training.replicas import Replicas

    replicas = Replicas(strategy)
    size = plan.recipe.training.batch_size
    smallest = len(plan.data) % size or size
    if smallest < replicas.count:
        raise UsageError(
            f"training.batch_size = {size}: an epoch's last batch has {smallest} of {len(plan.data):,} images; "
            f"expected at least one for each of the {replicas.count} replicas; choose another size or fewer devices"
        )
    return replicas


@contextmanager
def run_folder(out: Path, resume: bool, *, may_hold: Collection[str] = ()) -> Iterator[None]:
    """Hold the folder of a training run alone, with ``samples/`` in it and no litter.

    Args:
        out: new or empty, but for files named in ``may_hold``, unless ``resume``.
        resume: it holds an interrupted run.
        may_hold: what a run that was killed early may have left.

    Raises:
        UsageError: ``out`` holds something else, is in use, or there is nothing to resume.
        TrainingError: the folder cannot be written.
    """
    check_folder(out, resume, may_hold=may_hold)
    try:
        (out / "samples").mkdir(parents=True, exist_ok=True)
        with exclusive_lock(out / LOCK_NAME) as alone:
            if not alone:
                raise UsageError(f"{out}: another training is at work here; wait for it or choose another --out")
            remove_litter(out)
            yield
        (out / LOCK_NAME).unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise TrainingError(f"{out}: cannot be written: {reason}; mend that, then go on with --resume") from error


def _play_on(run: "_Run", on_step: OnStep, on_epoch: OnEpoch, should_stop: Callable[[], bool]) -> Checkpoint | None:
    plan = run.plan
    while run.step < plan.total_steps:
        figures = run.advance()
        on_step(run.step, plan.total_steps, figures)
        if run.at_epoch_end:
            on_epoch(run.finish_epoch())
        if run.replicas.any(should_stop()) and run.step < plan.total_steps:
            run.save_state()
            raise Interrupted(f"stopped after {run.step} of {plan.total_steps} steps, all saved; go on with --resume")
    checkpoint = run.complete()
    run.replicas.any(False)  # no worker goes home before the chief has written everything
    return checkpoint


def resumable_recipe(out: Path) -> tuple[Recipe, int]:
    """The recipe and the seed of the interrupted run in ``out``.

    Raises:
        UsageError: there is none.
    """
    state = read_header(out)
    return Recipe.from_dict(state["recipe"]), int(state["seed"])


class _Run:
    """One training run: the game, where it stands, and its record so far."""

    def __init__(self, plan: TrainingPlan, out: Path, game: "Game") -> None:
        self.plan, self.out, self.game = plan, out, game
        self.replicas = game.replicas
        self.step = 0
        self.history: list[EpochSummary] = []
        self._sums = dict.fromkeys(_FIGURES, 0.0)  # over the epoch so far
        self._counts = dict.fromkeys(_FIGURES, 0)
        self._seconds = 0.0
        self._batches = self._follow_order()
        self._draw_samples = sample_drawer(game.best_generator, plan.recipe)

    @property
    def at_epoch_end(self) -> bool:
        return self.step % self.plan.steps_per_epoch == 0

    def advance(self) -> dict[str, float]:
        """Play one batch: the discriminator on it, then, every ``discriminator_steps`` batches, the generator."""
        began = time.monotonic()
        chosen = next(self._batches)
        data, section = self.plan.data, self.plan.recipe.training
        images, labels = data.images[chosen], data.labels[chosen]
        outcome = self.game.discriminator_step(images, labels, self.step)
        figures = {"discriminator_loss": outcome.loss, "discriminator_accuracy": outcome.accuracy}
        if (self.step + 1) % section.discriminator_steps == 0:
            outcome = self.game.generator_step(images, labels, self.step)
            figures |= {"generator_loss": outcome.loss, "generator_accuracy": outcome.accuracy}
        self.step += 1
        for name, value in figures.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"{name} became {value} at step {self.step}: lower the learning rates; {self._what_now()}"
                )
            self._sums[name] += value
            self._counts[name] += 1
        self._seconds += time.monotonic() - began
        return figures

    def finish_epoch(self) -> EpochSummary:
        """Sum the epoch up, look at what is drawn now, and save everything."""
        means = {name: self._sums[name] / max(1, self._counts[name]) for name in _FIGURES}
        epoch = self.step // self.plan.steps_per_epoch
        summary = EpochSummary(epoch=epoch, seconds=round(self._seconds, 2), **means)
        images = self._draw_samples()
        self._expect_alive(summary, images)
        self.history.append(summary)
        self._sums, self._counts = dict.fromkeys(_FIGURES, 0.0), dict.fromkeys(_FIGURES, 0)
        self._seconds = 0.0
        due = epoch % self.plan.recipe.training.sample_every_epochs == 0 or self.step == self.plan.total_steps
        if due and self.replicas.is_chief:
            self._save_samples(self.out / "samples" / f"epoch-{epoch:04d}.png", images)
            self._save_checkpoint(images)
        self.save_state()
        return summary

    def save_state(self) -> None:
        """Publish all that a resumed run needs, in one file, and the metrics table beside it."""
        if not self.replicas.is_chief:
            return
        header = {
            **self._identity(),
            "step": self.step,
            "history": [asdict(summary) for summary in self.history],
            "sums": self._sums,
            "counts": self._counts,
            "seconds": self._seconds,
        }
        write_state(self.out, header, self.game.state())
        write_metrics(self.out, EpochSummary, self.history)

    def restore(self) -> None:
        """Take up the saved state of the same recipe, seed and data."""
        header = read_header(self.out)
        wanted = self._identity()
        different = [name for name, value in wanted.items() if header.get(name) != value]
        if different == ["strategy"]:  # other replicas, other rounding
            begun = _describe_strategy(header.get("strategy"))
            raise UsageError(f"{self.out}: was begun with {begun}; go on with the same, or choose another --out")
        if different:
            raise UsageError(f"{self.out}: holds a run with different {', '.join(different)}; choose another --out")
        with open_state(self.out) as state:
            self.game.restore(state)
        self.step = header["step"]
        self.history = [EpochSummary(**summary) for summary in header["history"]]
        self._sums, self._counts, self._seconds = header["sums"], header["counts"], header["seconds"]
        self._batches = self._follow_order()

    def complete(self) -> Checkpoint | None:
        """The checkpoint that the last epoch left, for the chief; the state to resume from is of no more use."""
        if not self.replicas.is_chief:
            return None
        checkpoint = load_checkpoint(self.out)
        (self.out / STATE_NAME).unlink(missing_ok=True)
        return checkpoint

    def _identity(self) -> dict[str, Any]:
        """What must be equal for a resumed run to give the weights of an unbroken one."""
        return {
            "recipe": self.plan.recipe.to_dict(),
            "seed": self.plan.seed,
            "data": self.plan.data.sha256,
            "made_with": made_with(),
            "strategy": self.replicas.describe(),
        }

    def _save_checkpoint(self, images: npt.NDArray[np.uint8]) -> None:
        """Write the checkpoint of the generator as it is now, with the ``images`` it draws."""
        self._save_samples(self.out / SAMPLES_NAME, images)
        data = self.plan.data
        training = {
            "steps": self.step,
            "epochs": len(self.history),
            "seed": self.plan.seed,
            "seconds": round(sum(summary.seconds for summary in self.history), 1),
            "data": {"images": len(data), "sha256": data.sha256, "official": data.official},
            "history": [asdict(summary) for summary in self.history],
            "made_with": made_with(),
        }
        if strategy := self.replicas.describe():
            training["strategy"] = strategy
        privacy = no_guarantee(self._describe_data())
        save_checkpoint(self.out, self.game.best_generator, self.plan.recipe, privacy, training)

    def _describe_data(self) -> str:
        section, data = self.plan.recipe.data, self.plan.data
        splits = {"train": "training split", "train+test": "training and test splits"}[section.images]
        origin = "the public Fashion-MNIST" if data.official else "the user's own images"
        return f"{len(data):,} images of {origin}, {splits}"

    def _follow_order(self) -> Iterator[npt.NDArray[np.int64]]:
        """The batches from ``self.step`` on, as index arrays."""
        plan, size = self.plan, self.plan.recipe.training.batch_size
        first_epoch, done = divmod(self.step, plan.steps_per_epoch)
        for epoch in range(first_epoch, plan.recipe.training.epochs):
            order = epoch_order(len(plan.data), plan.recipe.data.shuffle_buffer, plan.seed, epoch)
            for batch in range(done, plan.steps_per_epoch):
                yield order[batch * size : (batch + 1) * size]
            done = 0

    def _expect_alive(self, summary: EpochSummary, images: npt.NDArray[np.uint8]) -> None:
        # Within a class, where there are classes: ten perfect copies of ten pictures are a collapse too.
        groups = np.split(images, NUM_CLASSES) if self.plan.recipe.conditional else [images]
        spread = float(np.mean([(group / 255.0).std(axis=0).mean() for group in groups]))
        if summary.discriminator_loss < _NO_SIGNAL_LOSS:
            raise TrainingError(
                f"discriminator loss fell to {summary.discriminator_loss:.1e} in epoch {summary.epoch}: it tells "
                "real from forged perfectly, so the generator learns nothing; lower its learning rate; "
                f"{self._what_now()}"
            )
        if spread < _LEAST_SPREAD:
            raise TrainingError(
                f"the generator collapsed in epoch {summary.epoch}: its images differ by {spread:.1e} of the grey "
                f"scale; lower its learning rate or raise training.ema_decay; {self._what_now()}"
            )

    def _what_now(self) -> str:
        """The cure and the comfort behind a failed game."""
        every = self.plan.recipe.training.sample_every_epochs
        saved = len(self.history) // every * every
        kept = f"; the checkpoint of epoch {saved} is kept in {self.out}" if saved else ""
        return f"train anew with other values in another --out{kept}"

    def _save_samples(self, path: Path, images: npt.NDArray[np.uint8]) -> None:
        save_contact_sheet(path, images, columns=10 if self.plan.recipe.conditional else 9)


def _describe_strategy(record: dict[str, Any] | None) -> str:
    """What a record of ``Replicas.describe`` says, for people."""
    if record is None:
        return "no --strategy"
    workers = f", {record['workers']} workers" if record["workers"] > 1 else ""
    return f"--strategy {record['name']}{workers}, {record['replicas']} replicas"


_FIGURES = ("generator_loss", "discriminator_loss", "generator_accuracy", "discriminator_accuracy")


def sample_drawer(generator: Any, recipe: Recipe) -> Callable[[], npt.NDArray[np.uint8]]:
    """A function that draws the picture's images, always from the same latents.

    Ten of each class in rows; 81 where there are no classes.
    """
    from synthgen.model.networks import pixel_function

    noise = latents(0, 0, recipe.latent.size, recipe.latent.distribution)
    labels = LabelRule.parse("balanced").labels(0, 0) if recipe.conditional else None
    draw = pixel_function(generator, recipe, BLOCK_IMAGES)

    def draw_samples() -> npt.NDArray[np.uint8]:
        images = draw(noise, labels)
        if labels is None:
            return images[:81]
        return np.concatenate([images[labels == label][:10] for label in range(NUM_CLASSES)])

    return draw_samples


def check_folder(out: Path, resume: bool, may_hold: Collection[str] = ()) -> None:
    """Refuse a folder that cannot take a new run, or has none to resume.

    Raises:
        UsageError: nothing to resume, an interrupted run not to be resumed, or files beyond ``may_hold``.
    """
    has_state = (out / STATE_NAME).is_file()
    if resume and not has_state:
        raise UsageError(f"{out}: nothing to resume here; expected a {STATE_NAME}")
    if not resume and has_state:
        raise UsageError(f"{out}: holds an interrupted run; go on with --resume or choose another --out")
    leftovers = {LOCK_NAME, "samples", *may_hold}  # of a run that was killed before it had anything to save
    if not resume and out.exists() and (not out.is_dir() or {path.name for path in out.iterdir()} - leftovers):
        raise UsageError(f"{out}: is not empty; choose a new folder with --out")
