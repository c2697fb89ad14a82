"""The commands, and the exit codes of their errors.

Help texts are given as such: docstrings are gone under ``python -OO``.
"""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

import synthgen
from synthgen.cli import interrupts
from synthgen.cli.account import account
from synthgen.cli.console import DATA_HELP, fail, print_line, say, stage_bar
from synthgen.cli.convert import convert
from synthgen.cli.data import data
from synthgen.cli.export import FORMATS_HELP, export, merge
from synthgen.cli.prepare import prepare
from synthgen.cli.recipes import recipes_app
from synthgen.cli.sign import sign
from synthgen.cli.streams import output_lost, secure_streams
from synthgen.cli.train import train
from synthgen.cli.verify import verify
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

# What Typer raises for unusable arguments; it brings its own copy of click, or takes the installed one.
_ArgumentError: type[Exception] = typer.BadParameter.__mro__[2]
_BROKEN_PIPE = 141  # the shell's number for a process that writes to a reader that has ended, as ``head`` does


def main() -> NoReturn:
    """Run the command line; an expected failure is one line on stderr and an exit code."""
    secure_streams()
    interrupts.take_interrupts()
    try:
        code = _run(lambda: app(prog_name="synthgen", standalone_mode=False))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    lost = output_lost()
    if lost is not None and not code:
        if isinstance(lost, BrokenPipeError):
            sys.exit(_BROKEN_PIPE)
        fail(f"standard output: {lost.strerror or lost}; nothing else failed", 1)
    sys.exit(code)


def _run(command: Callable[[], Any]) -> int:
    """The exit code of a command; exits with one line where it failed in a way that is no bug."""
    try:
        code = int(command() or 0)
    except _ArgumentError as error:
        _say_usage(error)
        return int(getattr(error, "exit_code", 2))
    except (Exception, KeyboardInterrupt) as error:
        line, code = _in_words(error)
        if not interrupts.was_interrupted():
            if not line:
                raise
            fail(line, code)
    if interrupts.was_interrupted():
        interrupts.told()
        fail("interrupted; what is finished is kept", interrupts.EXIT_CODE)
    return code


def _in_words(error: BaseException) -> tuple[str, int]:
    """What to say about an error that a user can understand, and the exit code; no words for a bug."""
    if isinstance(error, SynthgenError):
        return str(error), error.exit_code
    if isinstance(error, OSError):  # a picture or a report that cannot be written, a folder that may not be read
        return f"{error.filename or 'file system'}: {error.strerror or error}", 1
    if isinstance(error, MemoryError):
        return "memory is short; close other programs, or raise the limit (ulimit -v)", 1
    if isinstance(error, ImportError):  # of a library: no memory for it, a broken installation
        return f"a library cannot be loaded: {error}", 1
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object[:200]}: a name that is not UTF-8 cannot be recorded; rename it", 1
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return "the system lets no further thread start; raise the limit on processes (ulimit -u)", 1
    if isinstance(error, ValueError) and "integer string conversion" in str(error):  # Python's own limit
        return "a number has thousands of digits; choose a smaller one", 2
    return "", 1


def _say_usage(error: Exception) -> None:
    """Print Typer's usage lines, which are ours, and its message, which quotes arguments, as one line."""
    shown = io.StringIO()
    error.show(file=shown)  # type: ignore[attr-defined]
    usage, found, message = f"\n{shown.getvalue()}".partition("\nError: ")
    for line in usage.splitlines()[1:]:
        say(line)
    if found:
        say(f"Error: {message.rstrip()}")


def _expect_folder_of(*paths: Path | None) -> None:
    """Raise UsageError for a file to be written where there is no folder: before the work, not after it."""
    for path in paths:
        if path and not path.absolute().parent.is_dir():
            raise UsageError(f"{path}: there is no folder {path.parent}; make it first")


app.command(
    help="Make your own labelled images, of any kind and size, the data to train on.",
    epilog="Examples:  synthgen prepare my-images --out data   |   "
    "synthgen prepare scans.npz --invert --name 'Part scans' --out data",
)(prepare)
app.command(
    help="Train a generator on the real images; leaves a checkpoint, metrics and sample pictures.",
    epilog="Examples:  synthgen train --recipe smoke   |   synthgen train --recipe dpgan --epsilon 3 --dry-run",
)(train)
app.command(
    help="Draw a labelled synthetic set from a checkpoint and write it with its manifest.",
    epilog="Examples:  synthgen export --count 60000 --format png   |   synthgen export --count 100 --labels 0,3,7",
)(export)
app.command(
    help="Complete a set that was written share by share: check that every shard is there, and write the manifest.",
    epilog="Examples:  synthgen merge dataset   |   synthgen merge s3://bucket/set",
)(merge)
app.command(
    help="Check a set against its manifest, or a checkpoint against its hash; exit code 1 if they do not match.",
    epilog="Examples:  synthgen verify dataset --regenerate 1000   |   synthgen verify dataset --signed-by maker.pub",
)(verify)
app.command(
    help="Put your name under a set or a checkpoint, or make the key for it.",
    epilog="Examples:  synthgen sign --new-key maker --name 'Ada L.'   |   synthgen sign dataset --key maker",
)(sign)


@app.command(
    help="Compare a set with the real images: usefulness, labels, fidelity, variety and copying.",
    epilog="Examples:  synthgen evaluate dataset --report report.html   |   "
    "synthgen evaluate dataset --quick --seeds 3",
)
def evaluate(
    folder: Annotated[Path, typer.Argument(help="An exported set.")],
    data: Annotated[Path | None, typer.Option(help=DATA_HELP)] = None,
    report: Annotated[Path | None, typer.Option(help="Write a report (HTML).")] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write the numbers (JSON).")] = None,
    holdout: Annotated[int, typer.Option(help="Measure on the last N training images, not on test images.", min=0)] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Faster: one classifier, other figures on samples.")] = False,
    seeds: Annotated[int, typer.Option(help="How many times each classifier is trained.", max=1_000)] = 1,
    inception: Annotated[
        Path | None, typer.Option(help="Weights of Keras's InceptionV3; adds the usual Fréchet Inception distance.")
    ] = None,
    allow_unofficial: Annotated[
        bool,
        typer.Option(
            "--allow-unofficial",
            help="Accept another Fashion-MNIST than the official one; a set of your own images needs no such word.",
        ),
    ] = False,
    shareable: Annotated[
        bool, typer.Option("--shareable", help="Leave real images and their hashes out of report and JSON.")
    ] = False,
) -> None:
    """``synthgen evaluate``."""
    from synthgen.environment import import_tensorflow
    from synthgen.evaluation.report import require_jinja, summary, write_report
    from synthgen.evaluation.run import evaluate as evaluate_
    from synthgen.sets.manifest import load_manifest

    _expect_folder_of(report, json)
    if report:
        require_jinja()
    load_manifest(folder)  # a folder that is no set is refused before TensorFlow starts, which takes seconds
    if (report or json) and not shareable:
        say(
            "warning: the report shows real training images, and the JSON has their exact SHA-256: both are as private "
            "as the real images; --shareable leaves them out"
        )
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
    evaluation = evaluation.to_share() if shareable else evaluation
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
    help="Attack a set or a private training; exit code 1 if the attack refutes the proven epsilon.",
    epilog="Examples:  synthgen audit runs/private   |   "
    "synthgen audit private --canaries 1000 --set privacy.epsilon=1   |   synthgen audit dpgan --looks 1000",
)
def audit(
    target: Annotated[str, typer.Argument(help="A checkpoint (name or folder), an exported set, or a private recipe.")],
    data: Annotated[Path | None, typer.Option(help=DATA_HELP)] = None,
    canaries: Annotated[
        int | None, typer.Option(help="Audit the recipe's training with N canaries. [default for a recipe: 1000]")
    ] = None,
    looks: Annotated[
        int | None,
        typer.Option(
            help="Audit each mechanism of the recipe by N looks at neighbours; reads no real image. "
            "[default for dpgan: 1000]"
        ),
    ] = None,
    count: Annotated[int, typer.Option(help="How many synthetic images to attack.", max=10_000_000)] = 10_000,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe's key.")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write the numbers (JSON).")] = None,
) -> None:
    """``synthgen audit``."""
    from synthgen.audit.run import PRIVATE_NOTE
    from synthgen.audit.run import audit as audit_
    from synthgen.files import write_json

    _expect_folder_of(json)
    with stage_bar() as show:
        result = audit_(target, data, canaries=canaries, looks=looks, count=count, overrides=set_ or [], progress=show)
    if result.reads_images:
        say(PRIVATE_NOTE)
    for line in result.summary():
        print_line(line)
    if json:
        write_json(json, result.to_dict())
        say(f"wrote {json}")
    if result.contradicted:
        raise typer.Exit(1)


app.command(
    help="Write a checkpoint's generator for other programs, or round a float checkpoint to integers.",
    epilog="Examples:  synthgen convert private --to onnx   |   "
    "synthgen convert runs/old --to integers --out runs/rounded",
)(convert)


@app.command(
    help="Write a picture of images from a checkpoint or a set.",
    epilog="Examples:  synthgen preview dataset   |   synthgen preview private --out samples.png",
)
def preview(
    source: Annotated[str, typer.Argument(help="A checkpoint (name or folder) or an exported set.")],
    out: Annotated[Path, typer.Option(help="The picture to write (PNG).")] = Path("grid.png"),
    columns: Annotated[
        int, typer.Option(help="Images per row; with labels, each row shows one class.", min=1, max=100)
    ] = 10,
) -> None:
    """``synthgen preview``."""
    from synthgen.model.pictures import save_contact_sheet
    from synthgen.sets.inspection import preview_images

    save_contact_sheet(out, preview_images(source, columns), columns)
    say(f"wrote {out}")


@app.command(
    help="Describe a checkpoint or a set, and its privacy claim.",
    epilog="Examples:  synthgen info private   |   synthgen info dataset",
)
def info(
    source: Annotated[str, typer.Argument(help="A checkpoint (name or folder) or an exported set.")],
) -> None:
    """``synthgen info``."""
    from synthgen.sets.inspection import describe

    lines = describe(source)
    width = max(13, *map(len, lines)) + 1
    for name, value in lines.items():
        print_line(f"{name:<{width}}{value}")


app.command(
    help="Say what several checkpoints or sets prove together: their joint privacy guarantee.",
    epilog="Examples:  synthgen account private private-eps1   |   "
    "synthgen account runs/a runs/b dataset --delta 1e-6 --json",
)(account)


app.add_typer(recipes_app, name="recipes")


app.command(
    help="Print where the real images were found, or how to get them.",
    epilog="Examples:  synthgen data   |   synthgen data --data my-data",
)(data)


@app.command(
    help="Check environment, data, checkpoints, disk and a small export; paste the output into a bug report.",
    epilog="Examples:  synthgen doctor   |   synthgen doctor --count 1000000 --format png --out /data/set",
)
def doctor(
    checkpoint: Annotated[str | None, typer.Option(help="Built-in name or folder. [default: the one shipped]")] = None,
    data: Annotated[Path | None, typer.Option(help=DATA_HELP)] = None,
    out: Annotated[Path, typer.Option(help="Where the set would go.")] = Path("dataset"),
    count: Annotated[int, typer.Option(help="How many images it would hold.")] = 60_000,
    file_format: Annotated[str, typer.Option("--format", help=FORMATS_HELP)] = DEFAULT_FORMAT,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """``synthgen doctor``."""
    import json as json_

    from synthgen.doctor import diagnose

    diagnosis = diagnose(checkpoint=checkpoint, data=data, out=out, count=count, file_format=file_format)
    text = json_.dumps(diagnosis.to_dict(), indent=2) if json else str(diagnosis)
    for line in text.split("\n"):
        print_line(line)
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
