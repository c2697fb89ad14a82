"""The commands, and the exit codes of their errors."""

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

import synthgen
from synthgen.cli.console import DATA_HELP, advancing, fail, print_line, progress_bar, say, stage_bar
from synthgen.cli.export import FORMATS_HELP, export, merge
from synthgen.cli.train import train
from synthgen.errors import SynthgenError, UsageError
from synthgen.formats.table import DEFAULT_FORMAT

app = typer.Typer(
    name="synthgen",
    help="Train a generator and export reproducible, labelled synthetic Fashion-MNIST sets.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.command(
    epilog="Examples:  synthgen train --recipe smoke   |   synthgen train --recipe dpgan --epsilon 3 --dry-run"
)(train)
app.command(
    epilog="Examples:  synthgen export --count 60000 --format png   |   synthgen export --count 100 --labels 0,3,7"
)(export)
app.command(epilog="Examples:  synthgen merge dataset   |   synthgen merge s3://bucket/set")(merge)


def main() -> NoReturn:
    """Run the command line; an expected failure is one line on stderr and an exit code."""
    try:
        app(prog_name="synthgen")
    except SynthgenError as error:
        fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        fail("interrupted; what is finished is kept", 130)
    except BrokenPipeError:  # the reader of the output has ended, as `head` does
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:  # a picture or a report that cannot be written, a folder that may not be read
        fail(f"{error.filename or 'file system'}: {error.strerror or error}", 1)
    sys.exit(0)


@app.command(epilog="Examples:  synthgen verify dataset   |   synthgen verify dataset --regenerate 1000")
def verify(
    folder: Annotated[Path, typer.Argument(help="An exported set.")],
    regenerate: Annotated[int, typer.Option(help="Redraw this many images and compare them.", min=0)] = 0,
    checkpoint: Annotated[
        str | None, typer.Option(help="The checkpoint to redraw from. [default: the built-in one]")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes. [default: one per processor]", min=1)] = None,
    files_only: Annotated[bool, typer.Option("--files-only", help="Check file hashes only; read no image.")] = False,
) -> None:
    """Check a set against its manifest; exit code 1 if they do not match."""
    from synthgen.model.checkpoint import load_checkpoint
    from synthgen.sets.reading import claimed_content
    from synthgen.sets.verification import default_workers
    from synthgen.sets.verification import verify as verify_

    source = load_checkpoint(checkpoint) if checkpoint else None
    count, file_format = claimed_content(folder)
    workers = workers or default_workers(count, file_format, files_only)
    with progress_bar(count, "image") as bar:
        report = verify_(
            folder,
            regenerate=regenerate,
            checkpoint=source,
            workers=workers,
            files_only=files_only,
            progress=advancing(bar),
        )
    for problem in report.problems:
        say(f"{folder}: {problem}")
    if not report.sound:
        raise typer.Exit(1)
    anew = f", {report.regenerated:,} drawn anew and equal" if regenerate else ""
    proven = "file hash" if files_only else "file hash and digest"
    print_line(f"{folder}: sound: {report.count:,} images, every {proven} right{anew}")
    for line in report.unchecked:
        print_line(f"{folder}: {line}")


@app.command(
    epilog="Examples:  synthgen evaluate dataset --report report.html   |   synthgen evaluate dataset --quick --seeds 3"
)
def evaluate(
    folder: Annotated[Path, typer.Argument(help="An exported set.")],
    data: Annotated[Path | None, typer.Option(help=DATA_HELP)] = None,
    report: Annotated[Path | None, typer.Option(help="Write a report (HTML).")] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write the numbers (JSON).")] = None,
    holdout: Annotated[
        int, typer.Option(help="Measure on the last N training images instead of the test images.", min=0)
    ] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Faster: one classifier, other figures on samples.")] = False,
    seeds: Annotated[int, typer.Option(help="How many times each classifier is trained.")] = 1,
    inception: Annotated[
        Path | None, typer.Option(help="Weights of Keras's InceptionV3; adds the usual Fréchet Inception distance.")
    ] = None,
    allow_unofficial: Annotated[
        bool, typer.Option("--allow-unofficial", help="Accept real images that are not the official ones.")
    ] = False,
) -> None:
    """Compare a set with the real images: usefulness, labels, fidelity, variety and copying."""
    from synthgen.environment import import_tensorflow
    from synthgen.evaluation.report import require_jinja, summary, write_report
    from synthgen.evaluation.run import evaluate as evaluate_
    from synthgen.sets.manifest import load_manifest

    for path in (report, json):
        if path and not path.absolute().parent.is_dir():
            raise UsageError(f"{path}: there is no folder {path.parent}; make it first")
    if report:
        require_jinja()
    load_manifest(folder)  # a folder that is no set is refused before TensorFlow starts, which takes seconds
    import_tensorflow()
    with stage_bar() as show:
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
        print_line(line)
    for note in evaluation.notes:
        say(f"note: {note}")
    if json:
        evaluation.write(json)
        say(f"wrote {json}")
    if report:
        write_report(evaluation, report)
        say(f"wrote {report}")


@app.command(
    epilog="Examples:  synthgen audit runs/private   |   synthgen audit private --canaries 1000 --set privacy.epsilon=1"
)
def audit(
    target: Annotated[str, typer.Argument(help="A checkpoint (name or folder), an exported set, or a private recipe.")],
    data: Annotated[Path | None, typer.Option(help=DATA_HELP)] = None,
    canaries: Annotated[
        int | None, typer.Option(help="Audit the recipe's training with N canaries. [default for a recipe: 1000]")
    ] = None,
    count: Annotated[int, typer.Option(help="How many synthetic images to attack.")] = 10_000,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe's key.")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write the numbers (JSON).")] = None,
) -> None:
    """Attack a set or a private training; exit code 1 if the attack refutes the proven epsilon."""
    from synthgen.audit.run import PRIVATE_NOTE
    from synthgen.audit.run import audit as audit_
    from synthgen.files import write_json

    if json and not json.absolute().parent.is_dir():
        raise UsageError(f"{json}: there is no folder {json.parent}; make it first")
    say(PRIVATE_NOTE)
    with stage_bar() as show:
        result = audit_(target, data, canaries=canaries, count=count, overrides=set_ or [], progress=show)
    for line in result.summary():
        print_line(line)
    if json:
        write_json(json, result.to_dict())
        say(f"wrote {json}")
    if result.contradicted:
        raise typer.Exit(1)


@app.command(epilog="Examples:  synthgen preview dataset   |   synthgen preview private --out samples.png")
def preview(
    source: Annotated[str, typer.Argument(help="A checkpoint (name or folder) or an exported set.")],
    out: Annotated[Path, typer.Option(help="The picture to write (PNG).")] = Path("grid.png"),
    columns: Annotated[
        int, typer.Option(help="Images per row; with labels, each row shows one class.", min=1, max=100)
    ] = 10,
) -> None:
    """Write a picture of images from a checkpoint or a set."""
    from synthgen.model.pictures import save_contact_sheet
    from synthgen.sets.inspection import preview_images

    save_contact_sheet(out, preview_images(source, columns), columns)
    say(f"wrote {out}")


@app.command(epilog="Examples:  synthgen info private   |   synthgen info dataset")
def info(
    source: Annotated[str, typer.Argument(help="A checkpoint (name or folder) or an exported set.")],
) -> None:
    """Describe a checkpoint or a set, and its privacy claim."""
    from synthgen.sets.inspection import describe

    lines = describe(source)
    width = max(13, *map(len, lines)) + 1
    for name, value in lines.items():
        print_line(f"{name:<{width}}{value}")


@app.command()
def recipes() -> None:
    """List the recipes that come with synthgen."""
    from synthgen.model.recipe import builtin_recipes, load_recipe

    for name in builtin_recipes():
        print_line(f"{name:<14}{load_recipe(name).description}")


@app.command()
def data(folder: Annotated[Path | None, typer.Option("--data", help=DATA_HELP)] = None) -> None:
    """Print where the real images were found, or how to get them."""
    from synthgen.real_images import find_data, load_real_images

    found = find_data(folder)
    for split in ("train", "test"):
        real = load_real_images(split, found)
        print_line(f"{split:<8}{len(real):>8,} images  official  {found}")


@app.command(epilog="Examples:  synthgen doctor   |   synthgen doctor --count 1000000 --format png --out /data/set")
def doctor(
    checkpoint: Annotated[str | None, typer.Option(help="Built-in name or folder. [default: the one shipped]")] = None,
    data: Annotated[Path | None, typer.Option(help=DATA_HELP)] = None,
    out: Annotated[Path, typer.Option(help="Where the set would go.")] = Path("dataset"),
    count: Annotated[int, typer.Option(help="How many images it would hold.")] = 60_000,
    file_format: Annotated[str, typer.Option("--format", help=FORMATS_HELP)] = DEFAULT_FORMAT,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check environment, data, checkpoints, disk and a small export; paste the output into a bug report."""
    import json as json_

    from synthgen.doctor import diagnose

    diagnosis = diagnose(checkpoint=checkpoint, data=data, out=out, count=count, file_format=file_format)
    print_line(json_.dumps(diagnosis.to_dict(), indent=2) if json else str(diagnosis))
    if not diagnosis.healthy:
        raise typer.Exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        print_line(f"synthgen {synthgen.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass
