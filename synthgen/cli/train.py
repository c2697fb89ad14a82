"""``synthgen train``."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from synthgen.cli.console import DATA_HELP, progress_bar, say, stage_bar, stop_signals
from synthgen.errors import UsageError

if TYPE_CHECKING:
    from synthgen.model.checkpoint import Checkpoint
    from synthgen.model.recipe import AdversarialRecipe, PrivateAdversarialRecipe
    from synthgen.training.matching.plan import MatchingPlan
    from synthgen.training.strategy import Strategy

_DEFAULT_RECIPE = "private"


def train(
    recipe: Annotated[str | None, typer.Option(help="Recipe name or TOML file. [default: private]")] = None,
    data: Annotated[Path | None, typer.Option(help=DATA_HELP)] = None,
    out: Annotated[
        Path | None, typer.Option(help="Checkpoint folder. [default: runs/RECIPE; with --release runs/RECIPE-anew]")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Decides initial weights, image order and noise; in a private run only initial weights and forged "
            "images, never the noise that protects nor the sampling. [default: 0]"
        ),
    ] = None,
    epsilon: Annotated[float | None, typer.Option(help="Privacy budget. [default: the recipe's]")] = None,
    delta: Annotated[float | None, typer.Option(help="Of the privacy budget. [default: the recipe's]")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key.")] = None,
    release: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Train anew on what a private run released (its folder, or private, which is built in), by its recipe "
            "and --set: no image is looked at, and no budget spent.",
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="Share every batch out: mirrored, among the GPUs of this machine; multi-worker, among the machines in "
            "TF_CONFIG. [default: one device]"
        ),
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option(help="With --strategy mirrored: among so many GPUs, or parts of the processor. [default: all]"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run in --out.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
) -> None:
    """Train a generator on the real images; leaves a checkpoint, metrics and sample pictures."""
    from synthgen.model.recipe import (
        AdversarialRecipe,
        PrivateAdversarialRecipe,
        Recipe,
        StatisticsRecipe,
        load_recipe,
        with_budget,
    )
    from synthgen.training.adversarial import resumable_recipe
    from synthgen.training.matching.plan import plan_matching, plan_matching_anew, plan_matching_resumed
    from synthgen.training.strategy import choose_strategy

    if replicas is not None and strategy is None:
        raise UsageError(f"--replicas {replicas}: goes with --strategy mirrored")
    shared = choose_strategy(strategy, replicas) if strategy is not None else None
    anew = None
    if release is not None:
        if any(value is not None for value in (recipe, data, epsilon, delta)):
            raise UsageError(f"--release {release}: goes without --recipe, --data, --epsilon and --delta")
        anew = plan_matching_anew(release, set_ or [], seed or 0)
        chosen: Recipe = anew.recipe
        out = out or Path("runs") / f"{chosen.name}-anew"
    elif resume and recipe is None and not set_:
        out = out or Path("runs") / _DEFAULT_RECIPE
        chosen, begun_with = resumable_recipe(out)
        anew = plan_matching_resumed(out)
        seed = begun_with if seed is None else seed
    else:
        chosen = load_recipe(recipe or _DEFAULT_RECIPE, set_ or [])
    chosen = with_budget(chosen, epsilon, delta)
    out = out or Path("runs") / chosen.name
    if shared and not isinstance(chosen, AdversarialRecipe):
        raise UsageError(
            f"--strategy {shared.name}: recipe '{chosen.name}' is private, and the noise of a private look is drawn "
            "once, in one place; leave --strategy out"
        )
    if shared and not shared.is_chief:
        assert isinstance(chosen, AdversarialRecipe)
        if not dry_run:
            _follow(chosen, data, out, seed or 0, shared, resume)
        return
    say(f"{chosen.name}: {chosen.description}")
    if not chosen.conditional:
        say("unconditional: what this generator draws bears no labels")
    if isinstance(chosen, PrivateAdversarialRecipe):
        run = _private_training(chosen, data, out, seed or 0)
    elif isinstance(chosen, StatisticsRecipe):
        run = _matching(anew or plan_matching(chosen, data, seed or 0), out)
    else:
        assert isinstance(chosen, AdversarialRecipe)
        run = _training(chosen, data, out, seed or 0, shared)
    say(f"{chosen.generator_flops / 1e6:.1f} MFLOP an image at export; checkpoint in {out}")
    if dry_run:
        return
    with progress_bar(run.total_steps, "batch") as bar, stop_signals() as stopped:
        shown: dict[str, float] = {}

        def on_step(done: int, of: int, figures: dict[str, float]) -> None:
            shown.update(figures)
            bar.set_postfix({_SHORT[k]: f"{v:.4f}" for k, v in sorted(shown.items())}, refresh=False)
            bar.update(done - bar.n)

        checkpoint = run.start(
            resume=resume,
            on_step=on_step,
            on_summary=lambda summary: bar.write(str(summary), file=sys.stdout),
            should_stop=stopped.is_set,
        )
    say(f"checkpoint {checkpoint.sha256[:12]} in {out}, samples in {out / 'samples.png'}")
    unprotected = "" if checkpoint.privacy.protects else " --allow-unprotected"
    say(f"next: synthgen export --checkpoint {out} --count 60000{unprotected}")


class _Planned(NamedTuple):
    """A training run that is ready to start."""

    total_steps: int
    start: "Callable[..., Checkpoint]"


def _training(
    recipe: "AdversarialRecipe", data: Path | None, out: Path, seed: int, strategy: "Strategy | None"
) -> _Planned:
    from synthgen.training.adversarial import train as train_
    from synthgen.training.plan import plan_training

    plan = plan_training(recipe, data, seed)
    say(f"{len(plan.data):,} real images, {recipe.training.epochs} epochs of {plan.steps_per_epoch} batches")

    def start(on_summary: Any, **options: Any) -> "Checkpoint":
        checkpoint = train_(plan, out, on_epoch=on_summary, strategy=strategy, on_replicas=_say_replicas, **options)
        assert checkpoint is not None  # this is the chief
        return checkpoint

    return _Planned(plan.total_steps, start)


def _say_replicas(count: int) -> None:
    say(f"{count} replicas share every batch" if count > 1 else "TensorFlow sees one device: nothing to share out")


def _follow(
    recipe: "AdversarialRecipe", data: Path | None, out: Path, seed: int, strategy: "Strategy", resume: bool
) -> None:
    """Train as a worker that is not the chief: it computes and keeps quiet, for the chief writes and reports."""
    from synthgen.training.adversarial import train as train_
    from synthgen.training.plan import plan_training

    plan = plan_training(recipe, data, seed)
    with stop_signals() as stopped:
        train_(plan, out, resume=resume, should_stop=stopped.is_set, strategy=strategy)


def _private_training(recipe: "PrivateAdversarialRecipe", data: Path | None, out: Path, seed: int) -> _Planned:
    from synthgen.training.dpgan import train_privately
    from synthgen.training.dpgan_plan import plan_private_training

    plan = plan_private_training(recipe, data, seed)
    for line in plan.describe():
        say(line)

    def start(on_summary: Any, **options: Any) -> "Checkpoint":
        return train_privately(plan, out, on_look=on_summary, **options)

    return _Planned(recipe.training.steps, start)


def _matching(plan: "MatchingPlan", out: Path) -> _Planned:
    from synthgen.environment import import_tensorflow

    for line in plan.describe():
        say(line)

    def start(on_summary: Any, **options: Any) -> "Checkpoint":
        import_tensorflow()
        from synthgen.training.matching.run import train_by_matching

        with stage_bar() as on_stage:
            return train_by_matching(plan, out, on_stage=on_stage, on_look=on_summary, **options)

    return _Planned(plan.recipe.training.steps, start)


_SHORT = {
    "generator_loss": "G",
    "discriminator_loss": "D",
    "generator_accuracy": "acc G",
    "discriminator_accuracy": "acc D",
    "forged_accuracy": "acc D on forged",
    "distance": "distance",
    "agreement": "agreement",
}
