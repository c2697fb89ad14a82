"""The command line: a thin skin over the library, and the only place that prints, shows progress or exits."""

import json as json_module
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, NoReturn

import typer
from tqdm import tqdm

import synthgen
from synthgen.errors import SynthgenError, UsageError

if TYPE_CHECKING:
    from synthgen.model.checkpoint import Checkpoint
    from synthgen.model.recipe import AdversarialRecipe, PrivateAdversarialRecipe
    from synthgen.training.matching.plan import MatchingPlan
    from synthgen.training.strategy import Strategy

app = typer.Typer(
    name="synthgen",
    help="Train a generator and mass-produce labelled synthetic Fashion-MNIST sets that can be reproduced.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

_DEFAULT_RECIPE = "private"
_DATA = "Folder of the four real Fashion-MNIST files; by default they are looked for (see: synthgen data)."
_FORMATS = "tfrecord, hdf5, png, idx, idx-raw or npz."


def main() -> NoReturn:
    """Run the command line: expected failures become one line on stderr and an exit code."""
    try:
        app(prog_name="synthgen")
    except SynthgenError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted; what is finished is kept", 130)
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:  # a picture or a report that cannot be written, a folder that may not be read
        _fail(f"{error.filename or 'file system'}: {error.strerror or error}", 1)
    sys.exit(0)


@app.command(
    epilog="Examples:  synthgen train --recipe smoke   |   synthgen train --recipe dpgan --epsilon 3 --dry-run"
)
def train(
    recipe: Annotated[str | None, typer.Option(help="Recipe name or TOML file. [default: private]")] = None,
    data: Annotated[Path | None, typer.Option(help=_DATA)] = None,
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
    _say(f"{chosen.name}: {chosen.description}")
    if not chosen.conditional:
        _say("unconditional: what this generator draws bears no labels")
    if isinstance(chosen, PrivateAdversarialRecipe):
        run = _private_training(chosen, data, out, seed or 0)
    elif isinstance(chosen, StatisticsRecipe):
        run = _matching(anew or plan_matching(chosen, data, seed or 0), out)
    else:
        assert isinstance(chosen, AdversarialRecipe)
        run = _training(chosen, data, out, seed or 0, shared)
    _say(f"{chosen.generator_flops / 1e6:.1f} MFLOP an image at export; checkpoint in {out}")
    if dry_run:
        return
    with _bar(run.total_steps, "batch") as bar, _stop_signals() as stopped:
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
    _say(f"checkpoint {checkpoint.sha256[:12]} in {out}, samples in {out / 'samples.png'}")
    unprotected = "" if checkpoint.privacy.protects else " --allow-unprotected"
    _say(f"next: synthgen export --checkpoint {out} --count 60000{unprotected}")


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
    _say(f"{len(plan.data):,} real images, {recipe.training.epochs} epochs of {plan.steps_per_epoch} batches")

    def start(on_summary: Any, **options: Any) -> "Checkpoint":
        checkpoint = train_(plan, out, on_epoch=on_summary, strategy=strategy, on_replicas=_say_replicas, **options)
        assert checkpoint is not None  # this is the chief
        return checkpoint

    return _Planned(plan.total_steps, start)


def _say_replicas(count: int) -> None:
    _say(f"{count} replicas share every batch" if count > 1 else "TensorFlow sees one device: nothing to share out")


def _follow(
    recipe: "AdversarialRecipe", data: Path | None, out: Path, seed: int, strategy: "Strategy", resume: bool
) -> None:
    """Train as a worker that is not the chief: it computes and keeps quiet, for the chief writes and reports."""
    from synthgen.training.adversarial import train as train_
    from synthgen.training.plan import plan_training

    plan = plan_training(recipe, data, seed)
    with _stop_signals() as stopped:
        train_(plan, out, resume=resume, should_stop=stopped.is_set, strategy=strategy)


def _private_training(recipe: "PrivateAdversarialRecipe", data: Path | None, out: Path, seed: int) -> _Planned:
    from synthgen.training.dpgan import train_privately
    from synthgen.training.dpgan_plan import plan_private_training

    plan = plan_private_training(recipe, data, seed)
    for line in plan.describe():
        _say(line)

    def start(on_summary: Any, **options: Any) -> "Checkpoint":
        return train_privately(plan, out, on_look=on_summary, **options)

    return _Planned(recipe.training.steps, start)


def _matching(plan: "MatchingPlan", out: Path) -> _Planned:
    from synthgen.environment import import_tensorflow

    for line in plan.describe():
        _say(line)

    def start(on_summary: Any, **options: Any) -> "Checkpoint":
        import_tensorflow()
        from synthgen.training.matching.run import train_by_matching

        with _stages() as on_stage:
            return train_by_matching(plan, out, on_stage=on_stage, on_look=on_summary, **options)

    return _Planned(plan.recipe.training.steps, start)


@app.command(
    epilog="Examples:  synthgen export --count 60000 --format png   |   synthgen export --count 100 --labels 0,3,7"
)
def export(
    count: Annotated[int | None, typer.Option(help="How many images. [default: 60000]")] = None,
    file_format: Annotated[str, typer.Option("--format", help=_FORMATS)] = "tfrecord",
    checkpoint: Annotated[str | None, typer.Option(help="Built-in name or folder. [default: the one shipped]")] = None,
    out: Annotated[str, typer.Option(help="Folder for the set, or a URL such as s3://bucket/set.")] = "dataset",
    seed: Annotated[int, typer.Option(help="0 to 2^64 - 1; another seed gives another set.")] = 0,
    start: Annotated[int, typer.Option(help="Index of the first image.")] = 0,
    shards: Annotated[int | None, typer.Option(help="Number of parts. [default: one for every 6,000 images]")] = None,
    labels: Annotated[str, typer.Option(help="balanced, uniform or a list such as 0,3,7.")] = "balanced",
    split: Annotated[str | None, typer.Option(help="train or test; names the files. [default: train]")] = None,
    splits: Annotated[
        str | None, typer.Option(help="Several in one folder, as train=60000,test=10000; instead of --count.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted export in --out.")] = False,
    allow_unprotected: Annotated[
        bool, typer.Option("--allow-unprotected", help="Export without a formal privacy guarantee.")
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Processes that draw. [default: one a processor]")] = None,
    shard: Annotated[int | None, typer.Option(help="Write only share I of --of, then: synthgen merge.", min=0)] = None,
    of: Annotated[int | None, typer.Option(help="Among how many the shards are dealt out.", min=1)] = None,
    engine: Annotated[str, typer.Option(help="local, or ray to draw on a Ray cluster.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of the Ray cluster. [default: a new one here]")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for every shard and at the end.")] = False,
    max_epsilon: Annotated[
        float | None, typer.Option(help="Refuse a privacy guarantee that is looser than this, or absent.")
    ] = None,
) -> None:
    """Draw a labelled synthetic set from a checkpoint and write it with its manifest."""
    from synthgen.export.run import default_workers, generate, generate_share, plan_export
    from synthgen.model.checkpoint import load_checkpoint

    if (shard is None) != (of is None):
        raise UsageError("--shard I and --of N go together: share I, counted from 0, of N")
    if shard is not None and engine != "local":
        raise UsageError(f"--shard deals the shards out by itself; leave --engine {engine} out")
    if address is not None and engine != "ray":
        raise UsageError(f"--address {address} is of a Ray cluster; give --engine ray too")
    source = load_checkpoint(checkpoint) if checkpoint else load_checkpoint()
    if splits is not None:
        if any(given is not None for given in (count, split, shard, shards)) or engine != "local" or "://" in out:
            raise UsageError("--splits goes with a folder, and without --count, --split, --shard, --shards, --engine")
        options: dict[str, Any] = {"resume": resume, "allow_unprotected": allow_unprotected, "workers": workers}
        options["max_epsilon"] = max_epsilon
        request = {"file_format": file_format, "seed": seed, "start": start, "labels": labels}
        _export_splits(source, splits, Path(out), request, options, _ExportReport(json))
        return
    count = 60_000 if count is None else count
    wanted = plan_export(
        source,
        count=count,
        file_format=file_format,
        seed=seed,
        start=start,
        shards=shards,
        labels=labels,
        split=split or "train",
        shares=of or 1,
    )
    _say(f"drawing {count:,} images from checkpoint {source.name} {source.sha256[:12]}")
    if wanted.labels is None:
        _say("unconditional checkpoint: these images bear no labels")
    report = _ExportReport(json)
    if workers is None and engine == "local" and not out.startswith("memory://"):
        workers = default_workers(count // (of or 1))
    common: dict[str, Any] = {
        "allow_unprotected": allow_unprotected,
        "max_epsilon": max_epsilon,
        "workers": workers,
        "on_shard": report.on_shard,
    }
    with report.bar(count if of is None else wanted.share_count(shard or 0, of)) as bar, _sigterm_as_interrupt():
        if shard is not None and of is not None:
            written = generate_share(source, wanted, out, share=shard, of=of, progress=_advance(bar), **common)
        else:
            manifest = generate(
                source, wanted, out, resume=resume, engine=engine, address=address, progress=_advance(bar), **common
            )
    if of is not None:
        _say(f"share {shard} of {of}: {written} shards in {out}; when all are there: synthgen merge {out}")
        report.end(out=out, share=shard, of=of, shards=written)
    else:
        _say(f"{manifest.count:,} images in {out}, digest {manifest.digest[:16]}")
        report.end(out=out, count=manifest.count, digest=manifest.digest)
    _say_guarantee(source)


def _export_splits(
    source: "Checkpoint",
    splits: str,
    out: Path,
    request: dict[str, Any],
    options: dict[str, Any],
    report: "_ExportReport",
) -> None:
    from synthgen.export.run import default_workers
    from synthgen.export.splits import generate_splits, plan_splits

    exports = plan_splits(source, splits, **request)
    count = sum(export.plan.count for export in exports)
    if options["workers"] is None:
        options["workers"] = default_workers(count)
    _say(f"drawing {count:,} images from checkpoint {source.name} {source.sha256[:12]}")
    if exports[0].labels is None:
        _say("unconditional checkpoint: these images bear no labels")
    with report.bar(count) as bar, _sigterm_as_interrupt():
        manifests = generate_splits(source, exports, out, progress=_advance(bar), on_shard=report.on_shard, **options)
    for manifest in manifests:
        _say(f"{manifest.split}: {manifest.count:,} images in {out}, digest {manifest.digest[:16]}")
    report.end(out=str(out), count=count, digests={manifest.split: manifest.digest for manifest in manifests})
    _say_guarantee(source)


def _say_guarantee(source: "Checkpoint") -> None:
    if source.privacy.protects:
        _say(source.privacy.sentence)
    else:
        _say(f"warning: {source.privacy.sentence} Trained on {source.privacy.trained_on}.")


@app.command(epilog="Examples:  synthgen merge dataset   |   synthgen merge s3://bucket/set")
def merge(out: Annotated[str, typer.Argument(help="Where export --shard wrote: a folder or a URL.")]) -> None:
    """Complete a set that was written share by share: check that every shard is there, and write the manifest."""
    from synthgen.export.run import merge as merge_

    manifest = merge_(out)
    _say(f"{manifest.count:,} images in {out}, digest {manifest.digest[:16]}")


@app.command(epilog="Examples:  synthgen verify dataset   |   synthgen verify dataset --regenerate 1000")
def verify(
    folder: Annotated[Path, typer.Argument(help="An exported set.")],
    regenerate: Annotated[int, typer.Option(help="Draw this many images anew and compare them.", min=0)] = 0,
    checkpoint: Annotated[str | None, typer.Option(help="What to draw them from. [default: the built-in one]")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that read. [default: one a processor]", min=1)] = None,
    files_only: Annotated[bool, typer.Option("--files-only", help="Compare file hashes; read no image.")] = False,
) -> None:
    """Prove from its manifest that a set is what it claims; exit code 1 if it is not."""
    from synthgen.model.checkpoint import load_checkpoint
    from synthgen.sets.verification import claimed_content, default_workers
    from synthgen.sets.verification import verify as verify_

    source = load_checkpoint(checkpoint) if checkpoint else None
    count, file_format = claimed_content(folder)
    workers = workers or default_workers(count, file_format, files_only)
    with _bar(count, "image") as bar:
        report = verify_(
            folder,
            regenerate=regenerate,
            checkpoint=source,
            workers=workers,
            files_only=files_only,
            progress=_advance(bar),
        )
    for problem in report.problems:
        _say(f"{folder}: {problem}")
    if not report.sound:
        raise typer.Exit(1)
    anew = f", {report.regenerated:,} drawn anew and equal" if regenerate else ""
    proven = "file hash" if files_only else "file hash and digest"
    _print(f"{folder}: sound: {report.count:,} images, every {proven} right{anew}")


@app.command(
    epilog="Examples:  synthgen evaluate dataset --report report.html   |   synthgen evaluate dataset --quick --seeds 3"
)
def evaluate(
    folder: Annotated[Path, typer.Argument(help="An exported set.")],
    data: Annotated[Path | None, typer.Option(help=_DATA)] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page to look at (HTML).")] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write the numbers (JSON).")] = None,
    holdout: Annotated[
        int, typer.Option(help="Measure on the last N training images instead of the test images.", min=0)
    ] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="A first look: one classifier, samples elsewhere.")] = False,
    seeds: Annotated[int, typer.Option(help="How many times each classifier is trained.")] = 1,
    inception: Annotated[
        Path | None, typer.Option(help="Weights of Keras's InceptionV3; adds the Fréchet distance of papers.")
    ] = None,
    allow_unofficial: Annotated[
        bool, typer.Option("--allow-unofficial", help="Accept real images that are not the official ones.")
    ] = False,
) -> None:
    """Measure a set against the real images: is it useful, right, varied, and no copy?"""
    from synthgen.environment import import_tensorflow
    from synthgen.evaluation.report import summary, write_report
    from synthgen.evaluation.run import evaluate as evaluate_
    from synthgen.sets.manifest import load_manifest

    for path in (report, json):
        if path and not path.absolute().parent.is_dir():
            raise UsageError(f"{path}: there is no folder {path.parent}; make it first")
    load_manifest(folder)  # a folder that is no set is refused before TensorFlow takes its seconds
    import_tensorflow()
    with _stages() as show:
        evaluation = evaluate_(
            folder,
            data,
            holdout=holdout,
            quick=quick,
            seeds=seeds,
            inception=inception,
            official=not allow_unofficial,
            progress=show,
        )
    for line in summary(evaluation):
        _print(line)
    for note in evaluation.notes:
        _say(f"note: {note}")
    if json:
        evaluation.write(json)
        _say(f"wrote {json}")
    if report:
        write_report(evaluation, report)
        _say(f"wrote {report}")


@app.command(
    epilog="Examples:  synthgen audit runs/private   |   synthgen audit private --canaries 1000 --set privacy.epsilon=1"
)
def audit(
    target: Annotated[str, typer.Argument(help="A checkpoint (name or folder), an exported set, or a private recipe.")],
    data: Annotated[Path | None, typer.Option(help=_DATA)] = None,
    canaries: Annotated[
        int | None, typer.Option(help="Audit the training of the recipe with so many. [default for a recipe: 1000]")
    ] = None,
    count: Annotated[int, typer.Option(help="How many synthetic images to attack.")] = 10_000,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe's key.")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write the numbers (JSON).")] = None,
) -> None:
    """Attack a set or a private training, and compare with what is proven; exit code 1 if the proof is refuted."""
    from synthgen.audit.run import PRIVATE_NOTE, TrainingAudit
    from synthgen.audit.run import audit as audit_
    from synthgen.files import write_json

    if json and not json.absolute().parent.is_dir():
        raise UsageError(f"{json}: there is no folder {json.parent}; make it first")
    _say(PRIVATE_NOTE)
    with _stages() as show:
        result = audit_(target, data, canaries=canaries, count=count, overrides=set_ or [], progress=show)
    for line in result.summary():
        _print(line)
    if json:
        write_json(json, result.to_dict())
        _say(f"wrote {json}")
    if isinstance(result, TrainingAudit) and result.contradicted:
        raise typer.Exit(1)


@app.command(epilog="Examples:  synthgen preview dataset   |   synthgen preview private --out samples.png")
def preview(
    source: Annotated[str, typer.Argument(help="A checkpoint (name or folder) or an exported set.")],
    out: Annotated[Path, typer.Option(help="The picture to write (PNG).")] = Path("grid.png"),
    columns: Annotated[
        int, typer.Option(help="Images a row; a class a row where there are labels.", min=1, max=100)
    ] = 10,
) -> None:
    """Draw a picture of what a checkpoint draws, or of what a set holds."""
    from synthgen.pictures import save_contact_sheet
    from synthgen.sets.inspection import preview_images

    save_contact_sheet(out, preview_images(source, columns), columns)
    _say(f"wrote {out}")


@app.command(epilog="Examples:  synthgen info private   |   synthgen info dataset")
def info(
    source: Annotated[str, typer.Argument(help="A checkpoint (name or folder) or an exported set.")],
) -> None:
    """Say what a checkpoint or a set is, and what is claimed for its privacy."""
    from synthgen.sets.inspection import describe

    lines = describe(source)
    width = max(13, *map(len, lines)) + 1
    for name, value in lines.items():
        _print(f"{name:<{width}}{value}")


@app.command()
def recipes() -> None:
    """List the recipes that come with synthgen."""
    from synthgen.model.recipe import builtin_recipes, load_recipe

    for name in builtin_recipes():
        _print(f"{name:<14}{load_recipe(name).description}")


@app.command()
def data(folder: Annotated[Path | None, typer.Option("--data", help=_DATA)] = None) -> None:
    """Say where the real images were found, or how to get them."""
    from synthgen.real_images import find_data, load_real_images

    found = find_data(folder)
    for split in ("train", "test"):
        real = load_real_images(split, found)
        _print(f"{split:<8}{len(real):>8,} images  official  {found}")


@app.command(epilog="Examples:  synthgen doctor   |   synthgen doctor --count 1000000 --format png --out /data/set")
def doctor(
    checkpoint: Annotated[str | None, typer.Option(help="Built-in name or folder. [default: the one shipped]")] = None,
    data: Annotated[Path | None, typer.Option(help=_DATA)] = None,
    out: Annotated[Path, typer.Option(help="Where the set would go.")] = Path("dataset"),
    count: Annotated[int, typer.Option(help="How many images it would hold.")] = 60_000,
    file_format: Annotated[str, typer.Option("--format", help=_FORMATS)] = "tfrecord",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check environment, data, checkpoints, disk and a round trip; what to paste into a report of a bug."""
    import json as json_

    from synthgen.doctor import diagnose

    diagnosis = diagnose(checkpoint=checkpoint, data=data, out=out, count=count, file_format=file_format)
    _print(json_.dumps(diagnosis.to_dict(), indent=2) if json else str(diagnosis))
    if not diagnosis.healthy:
        raise typer.Exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        _print(f"synthgen {synthgen.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


_SHORT = {
    "generator_loss": "G",
    "discriminator_loss": "D",
    "generator_accuracy": "acc G",
    "discriminator_accuracy": "acc D",
    "forged_accuracy": "acc D on forged",
    "distance": "distance",
    "agreement": "agreement",
}


class _ExportReport:
    """How an export goes: a bar for people, which also counts shards, and lines of JSON for machines."""

    def __init__(self, as_json: bool) -> None:
        self._as_json, self._began = as_json, time.monotonic()
        self._bar: tqdm[NoReturn] | None = None

    def bar(self, total: int) -> "tqdm[NoReturn]":
        self._bar = _bar(total, "image")
        return self._bar

    def on_shard(self, done: int, of: int) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(f"{done} of {of} shards", refresh=False)
        self._line(event="shard", done=done, of=of)

    def end(self, **facts: object) -> None:
        self._line(event="done", **facts)

    def _line(self, **facts: object) -> None:
        if self._as_json:
            _print(json_module.dumps({**facts, "seconds": round(time.monotonic() - self._began, 3)}))


def _bar(total: int, unit: str) -> "tqdm[NoReturn]":
    """A progress bar on stderr; silent where stderr is not a terminal."""
    return tqdm(total=total, unit=unit, unit_scale=unit == "image", disable=None, dynamic_ncols=True)


@contextmanager
def _stages() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar that begins anew with every stage; silent where stderr is not a terminal."""
    layout = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}"
    with tqdm(total=1, disable=None, dynamic_ncols=True, bar_format=layout, leave=False) as bar:
        shown = ""

        def show(stage: str, done: int, of: int) -> None:
            nonlocal shown
            if stage != shown:
                shown = stage
                bar.set_description(stage, refresh=False)
                bar.reset(of)
            bar.update(done - bar.n)

        yield show


def _advance(bar: "tqdm[NoReturn]") -> Callable[[int], None]:
    def advance(amount: int) -> None:
        bar.update(amount)

    return advance


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; a second Ctrl-C stops at once."""
    stopped = threading.Event()

    def ask_to_stop(number: int, frame: Any) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        _say("stopping after this batch, or the private look under way, with everything saved; once more: at once")
        stopped.set()

    with _handlers(ask_to_stop, signal.SIGINT, signal.SIGTERM):
        yield stopped


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    with _handlers(interrupt, signal.SIGTERM):
        try:
            yield
        except KeyboardInterrupt:
            _fail("interrupted; finished shards are kept, go on with --resume", 130)


@contextmanager
def _handlers(handler: Any, *signals: signal.Signals) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _print(line: str) -> None:
    """A result, on stdout."""
    typer.echo(line)


def _say(line: str) -> None:
    """A note for the person at the terminal, on stderr."""
    tqdm.write(line, file=sys.stderr)


def _fail(message: str, exit_code: int) -> NoReturn:
    print("synthgen: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(exit_code)
