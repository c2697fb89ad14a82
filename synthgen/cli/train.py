"""``synthgen train``."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from tqdm import tqdm

from synthgen.cli.console import DATA_HELP, print_line, progress_bar, say, stage_bar
from synthgen.cli.interrupts import stop_signals
from synthgen.errors import UsageError

if TYPE_CHECKING:
    from synthgen.training.run import OnStep, Plan


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
            "images, never the noise that protects nor the sampling. [default: 0; with --resume the run's]"
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
            "and --set: no image is used, and no budget spent.",
        ),
    ] = None,
    tune: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Choose among settings privately: keep the best of a random number of runs, N on average. The budget "
            "pays for all of it; nothing of the other runs is kept or shown.",
        ),
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE,VALUE,…", help="With --tune: what to choose among; repeat it for more keys."),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="Share every batch out: mirrored, among the GPUs of this machine; multi-worker, among the machines in "
            "TF_CONFIG, which must all start within 10 minutes (or SYNTHGEN_WORKERS_TIMEOUT seconds). "
            "[default: one device]"
        ),
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option(help="With --strategy mirrored: among so many GPUs, or parts of the processor. [default: all]"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run in --out.")] = False,
    spend_log: Annotated[
        bool,
        typer.Option(
            " /--no-spend-log",
            help="Do not note outside --out what was charged to these images, in $XDG_STATE_HOME/synthgen/spend; the "
            "checkpoint's training record says so.",
        ),
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
) -> None:
    """``synthgen train``."""
    from synthgen.training.plan import DEFAULT_RECIPE, plan
    from synthgen.training.run import train as train_
    from synthgen.training.strategy import choose_strategy

    if replicas is not None and strategy is None:
        raise UsageError(f"--replicas {replicas}: goes with --strategy mirrored")
    shared = choose_strategy(strategy, replicas) if strategy is not None else None
    begun = resume and recipe is None and release is None and not set_ and tune is None and not grid
    if begun:
        out = out or Path("runs") / DEFAULT_RECIPE
    planned = plan(
        recipe,
        overrides=set_ or [],
        epsilon=epsilon,
        delta=delta,
        data=data,
        seed=seed,
        release=release,
        resume=out if begun else None,
        strategy=shared,
        spend_log=spend_log,
        tune=tune,
        grid=grid or [],
    )
    chosen = planned.recipe
    out = out or Path("runs") / (chosen.name if release is None else f"{chosen.name}-anew")
    quiet = shared is not None and not shared.is_chief  # the chief reports
    if not quiet:
        _say_plan(planned, out)
    if dry_run:
        return
    if planned.is_silent:
        say("at work, without a word until the best run is chosen; Ctrl-C saves everything")
    with (
        progress_bar(planned.total_steps, "batch", quiet or planned.is_silent) as bar,
        stage_bar() as on_stage,
        stop_signals(_say_stopping) as stopped,
    ):
        checkpoint = train_(
            planned,
            out,
            resume=resume,
            strategy=shared,
            on_step=_figures_on(bar),
            on_stage=on_stage,
            on_summary=lambda summary: None if quiet else print_line(str(summary)),
            on_replicas=lambda count: None if quiet else _say_replicas(count),
            should_stop=stopped.is_set,
        )
    if checkpoint is not None:
        say(f"checkpoint {checkpoint.sha256[:12]} in {out}, samples in {out / 'samples.png'}")
        unprotected = "" if checkpoint.privacy.protects else " --allow-unprotected"
        say(f"next: synthgen export --checkpoint {out} --count 60000{unprotected}")


def _say_plan(plan: "Plan", out: Path) -> None:
    recipe = plan.recipe
    say(f"{recipe.name}: {recipe.description}")
    if not recipe.conditional:
        say("unconditional: the images of this generator have no labels")
    for line in plan.describe():
        say(line)
    say(f"{recipe.generator_flops / 1e6:.1f} MFLOP an image at export; checkpoint in {out}")


def _say_stopping() -> None:
    with contextlib.suppress(RuntimeError):  # the signal came while another line was being written
        say("stopping after this step, with everything saved; a private look is finished first; Ctrl-C again: at once")


def _say_replicas(count: int) -> None:
    say(f"{count} replicas share every batch" if count > 1 else "TensorFlow sees one device: nothing to share out")


def _figures_on(bar: "tqdm[NoReturn]") -> "OnStep":
    """The callback that moves the bar on, with the latest figures behind it."""
    shown: dict[str, float] = {}

    def on_step(done: int, of: int, figures: dict[str, float]) -> None:
        shown.update(figures)
        bar.set_postfix({_SHORT[k]: f"{v:.4f}" for k, v in sorted(shown.items())}, refresh=False)
        bar.update(done - bar.n)

    return on_step


_SHORT = {
    "generator_loss": "G",
    "discriminator_loss": "D",
    "generator_accuracy": "acc G",
    "discriminator_accuracy": "acc D",
    "forged_accuracy": "acc D on forged",
    "distance": "distance",
    "agreement": "agreement",
}
