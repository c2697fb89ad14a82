"""Training without privacy: a generator against a discriminator that sees the real images as they are.

Everything is a function of (recipe, data, seed): the order of the images, the noise, the initial weights. The state is
saved at the end of every epoch and on request, so that a resumed run gives the very weights of an unbroken one.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from synthgen.environment import import_tensorflow, made_with
from synthgen.errors import TrainingError, UsageError
from synthgen.model.recipe import AdversarialRecipe
from synthgen.model.sampling import CLASS_SHARES, shares_of
from synthgen.privacy.statement import PrivacyStatement, no_guarantee
from synthgen.real_images import RealImages
from synthgen.subject import Images
from synthgen.training.folder import read_header
from synthgen.training.images import enough_images, epoch_order, of_data
from synthgen.training.run import Plan, Run, Summary, expect_seed
from synthgen.workers import StageProgress

if TYPE_CHECKING:
    from synthgen.training.game import Game
    from synthgen.training.replicas import Replicas

_NO_SIGNAL_LOSS = 1e-4  # a discriminator this sure of itself gives the generator nothing to learn from
_LEAST_SPREAD = 1e-3  # standard deviation between images, in [0, 1]: below it the generator draws one picture
_FIGURES = ("generator_loss", "discriminator_loss", "generator_accuracy", "discriminator_accuracy")


@dataclass(frozen=True, kw_only=True)
class EpochSummary(Summary):
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


@dataclass(frozen=True, kw_only=True)
class AdversarialPlan(Plan):
    """A run without privacy; a step is a batch, the last of an epoch perhaps short."""

    recipe: AdversarialRecipe
    data: RealImages

    @property
    def summary_every(self) -> int:
        return math.ceil(len(self.data) / self.recipe.training.batch_size)

    @property
    def total_steps(self) -> int:
        return self.summary_every * self.recipe.training.epochs

    def describe(self) -> list[str]:
        epochs = self.recipe.training.epochs
        return [f"{len(self.data):,} real images, {epochs} epochs of {self.summary_every} batches"]

    def identity(self) -> dict[str, Any]:
        """What must be equal for a resumed run to give the weights of an unbroken one."""
        return {**super().identity(), "data": self.data.sha256, "made_with": made_with()}

    def describe_data(self) -> dict[str, Any]:
        return {"images": len(self.data), "sha256": self.data.sha256, "official": self.data.official}

    def expect_batches_for(self, replicas: int) -> None:
        size = self.recipe.training.batch_size
        smallest = len(self.data) % size or size
        if smallest < replicas:
            raise UsageError(
                f"training.batch_size = {size}: an epoch's last batch has {smallest} of {len(self.data):,} images; "
                f"expected at least one for each of the {replicas} replicas; choose another size or fewer devices"
            )

    def start(self, out: Path, resume: bool, replicas: "Replicas | None", on_stage: StageProgress) -> Run:
        import_tensorflow()
        from synthgen.training.game import Game

        run = _AdversarialRun(self, out, Game(self.recipe, self.seed, self.total_steps, replicas))
        if resume:
            run.restore()
        else:
            run.save_state()  # from here on the run can be resumed, whatever happens
        return run


def plan_training(recipe: AdversarialRecipe, data_folder: Path | None = None, seed: int = 0) -> AdversarialPlan:
    """``synthgen.plan`` for a recipe without privacy.

    Raises:
        UsageError: the seed is out of range, the recipe has a privacy budget, which this method cannot keep, or there
            are too few images for it.
        DataError: the real images are missing or malformed.
    """
    expect_seed(seed)
    if recipe.privacy:
        raise UsageError(
            f"recipe '{recipe.name}': has a [privacy] budget, but method '{recipe.method}' protects nothing"
        )
    section = recipe.training
    data = enough_images(recipe, data_folder, "training.batch_size", section.batch_size)
    plan = AdversarialPlan(recipe=of_data(recipe, data), data=data, seed=seed)
    if section.discriminator_steps > plan.summary_every:
        raise UsageError(
            f"training.discriminator_steps = {section.discriminator_steps}: expected at most the "
            f"{plan.summary_every} batches of an epoch"
        )
    return plan


class _AdversarialRun(Run):
    summary_type = EpochSummary
    plan: AdversarialPlan
    learner: "Game"

    def __init__(self, plan: AdversarialPlan, out: Path, game: "Game") -> None:
        super().__init__(plan, out, game)
        self.is_chief = game.replicas.is_chief
        self._sums = dict.fromkeys(_FIGURES, 0.0)  # over the epoch so far
        self._counts = dict.fromkeys(_FIGURES, 0)
        self._epoch_began = 0.0  # in ``seconds``
        self._batches = self._follow_order()

    def agreed(self, flag: bool) -> bool:
        return self.learner.replicas.any(flag)

    def advance(self, on_stage: StageProgress) -> dict[str, float]:
        """Play one batch: the discriminator on it, then, every ``discriminator_steps`` batches, the generator."""
        chosen = next(self._batches)
        images, labels = self.plan.data.images[chosen], self.plan.data.labels[chosen]
        outcome = self.learner.discriminator_step(images, labels, self.step)
        figures = {"discriminator_loss": outcome.loss, "discriminator_accuracy": outcome.accuracy}
        if (self.step + 1) % self.plan.recipe.training.discriminator_steps == 0:
            outcome = self.learner.generator_step(images, labels, self.step)
            figures |= {"generator_loss": outcome.loss, "generator_accuracy": outcome.accuracy}
        for name, value in figures.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"{name} became {value} at step {self.step + 1}: lower the learning rates; {self._what_now()}"
                )
            self._sums[name] += value
            self._counts[name] += 1
        return figures

    def summarise(self, images: Images) -> EpochSummary:
        means = {name: self._sums[name] / max(1, self._counts[name]) for name in _FIGURES}
        seconds = round(self.seconds - self._epoch_began, 2)
        self._sums, self._counts = dict.fromkeys(_FIGURES, 0.0), dict.fromkeys(_FIGURES, 0)
        self._epoch_began = self.seconds
        summary = EpochSummary(epoch=self.step // self.plan.summary_every, seconds=seconds, **means)
        self._expect_alive(summary, images)
        return summary

    def picture_name(self) -> str:
        """A picture and a checkpoint every so many epochs, and in the end."""
        epoch = self.step // self.plan.summary_every
        due = epoch % self.plan.recipe.training.sample_every_epochs == 0 or self.step == self.plan.total_steps
        return f"epoch-{epoch:04d}.png" if due else ""

    def _expect_alive(self, summary: EpochSummary, images: Images) -> None:
        # Within a class, where there are classes: ten perfect copies of ten pictures are a collapse too.
        groups = np.split(images, self.plan.recipe.classes) if self.plan.recipe.conditional else [images]
        spread = float(np.mean([(group / 255.0).std(axis=0).mean() for group in groups]))
        if summary.discriminator_loss < _NO_SIGNAL_LOSS:
            raise TrainingError(
                f"discriminator loss fell to {summary.discriminator_loss:.1e} in epoch {summary.epoch}: it separates "
                "real from forged perfectly, so the generator learns nothing; lower its learning rate; "
                f"{self._what_now()}"
            )
        if spread < _LEAST_SPREAD:
            raise TrainingError(
                f"the generator collapsed in epoch {summary.epoch}: its images differ by {spread:.1e} of the grey "
                f"scale; lower its learning rate or raise training.ema_decay; {self._what_now()}"
            )

    def identity(self) -> dict[str, Any]:
        """The plan's, and the strategy: with other replicas numbers round differently."""
        return {**super().identity(), "strategy": self.learner.replicas.describe()}

    def header(self, *, stopping: bool) -> dict[str, Any]:
        own = {"sums": self._sums, "counts": self._counts, "epoch_began": self._epoch_began}
        return {**super().header(stopping=stopping), **own}

    def restore(self) -> dict[str, Any]:
        """Take up the saved state of the same recipe, seed, data and strategy."""
        saved, wanted = read_header(self.out), self.identity()
        if [name for name in wanted if saved.get(name) != wanted[name]] == ["strategy"]:
            begun = _describe_strategy(saved.get("strategy"))
            raise UsageError(f"{self.out}: was begun with {begun}; go on with the same, or choose another --out")
        header = super().restore()
        self._sums, self._counts, self._epoch_began = header["sums"], header["counts"], header["epoch_began"]
        self._batches = self._follow_order()
        return header

    def training_record(self) -> dict[str, Any]:
        record = {"steps": self.step, "epochs": len(self.history), **super().training_record()}
        if self.plan.recipe.conditional:
            counts = np.bincount(self.plan.data.labels, minlength=self.plan.recipe.classes)
            record[CLASS_SHARES] = shares_of(counts)
        strategy = self.learner.replicas.describe()
        return {**record, "strategy": strategy} if strategy else record

    def statement(self) -> PrivacyStatement:
        section, data = self.plan.recipe.data, self.plan.data
        splits = {"train": "training split", "train+test": "training and test splits"}[section.images]
        origin = "the public Fashion-MNIST" if data.official else "the user's own images"
        return no_guarantee(f"{len(data):,} images of {origin}, {splits}")

    def _follow_order(self) -> Iterator[npt.NDArray[np.int64]]:
        """The batches from ``self.step`` on, as index arrays."""
        plan, size = self.plan, self.plan.recipe.training.batch_size
        first_epoch, done = divmod(self.step, plan.summary_every)
        for epoch in range(first_epoch, plan.recipe.training.epochs):
            order = epoch_order(len(plan.data), plan.recipe.data.shuffle_buffer, plan.seed, epoch)
            for batch in range(done, plan.summary_every):
                yield order[batch * size : (batch + 1) * size]
            done = 0

    def _what_now(self) -> str:
        """What to do after a game that failed, and what is left of it."""
        every = self.plan.recipe.training.sample_every_epochs
        saved = len(self.history) // every * every
        kept = f"; the checkpoint of epoch {saved} is kept in {self.out}" if saved else ""
        return f"train anew with other values in another --out{kept}"


def _describe_strategy(record: dict[str, Any] | None) -> str:
    """What a record of ``Replicas.describe`` says, for people."""
    if record is None:
        return "no --strategy"
    workers = f", {record['workers']} workers" if record["workers"] > 1 else ""
    return f"--strategy {record['name']}{workers}, {record['replicas']} replicas"
