"""``synthgen verify``."""

from pathlib import Path
from typing import Annotated

import typer

from synthgen.cli.backend import BACKEND_HELP, DEVICE_HELP, chosen_backend
from synthgen.cli.console import advancing, print_line, progress_bar, say
from synthgen.errors import UsageError


def verify(
    folder: Annotated[Path, typer.Argument(help="An exported set.")],
    regenerate: Annotated[int, typer.Option(help="Redraw this many images and compare them.", min=0)] = 0,
    checkpoint: Annotated[
        str | None, typer.Option(help="The checkpoint to redraw from. [default: the built-in one]")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes. [default: one per processor]", min=1)] = None,
    files_only: Annotated[bool, typer.Option("--files-only", help="Check file hashes only; read no image.")] = False,
    backend: Annotated[str, typer.Option(help=BACKEND_HELP)] = "auto",
    device: Annotated[str | None, typer.Option(help=DEVICE_HELP)] = None,
) -> None:
    """``synthgen verify``."""
    from synthgen.model.checkpoint import load_checkpoint
    from synthgen.sets.reading import claimed_content
    from synthgen.sets.verification import default_workers
    from synthgen.sets.verification import verify as verify_

    backend = chosen_backend(backend, device)
    if backend != "auto" and not regenerate:
        raise UsageError("--backend and --device draw images again; give --regenerate N too")
    source = load_checkpoint(checkpoint) if checkpoint else None
    count, file_format = claimed_content(folder)
    with progress_bar(count, "image") as bar:
        report = verify_(
            folder,
            regenerate=regenerate,
            checkpoint=source,
            workers=workers or default_workers(count, file_format, files_only, regenerate, backend),
            files_only=files_only,
            backend=backend,
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
