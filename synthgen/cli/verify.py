"""``synthgen verify``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthgen.cli.backend import BACKEND_HELP, DEVICE_HELP, chosen_backend
from synthgen.cli.console import advancing, print_line, progress_bar, say
from synthgen.errors import UsageError

if TYPE_CHECKING:
    from synthgen.sets.keys import PublicKey

_KNOWN_HELP = "Fail unless the checkpoint is built in or signed by the key given with --signed-by."


def verify(
    folder: Annotated[Path, typer.Argument(help="An exported set, or the folder of a checkpoint.")],
    regenerate: Annotated[int, typer.Option(help="Redraw this many images and compare them.", min=0)] = 0,
    checkpoint: Annotated[
        str | None, typer.Option(help="The checkpoint to redraw from. [default: the built-in one]")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes. [default: one per processor]", min=1)] = None,
    files_only: Annotated[bool, typer.Option("--files-only", help="Check file hashes only; read no image.")] = False,
    backend: Annotated[str, typer.Option(help=BACKEND_HELP)] = "auto",
    device: Annotated[str | None, typer.Option(help=DEVICE_HELP)] = None,
    signed_by: Annotated[Path | None, typer.Option(help="Fail unless the owner of this public key signed it.")] = None,
    require_known_checkpoint: Annotated[bool, typer.Option("--require-known-checkpoint", help=_KNOWN_HELP)] = False,
) -> None:
    """``synthgen verify``."""
    from synthgen.model.checkpoint import METADATA_NAME, load_checkpoint
    from synthgen.sets.keys import PublicKey
    from synthgen.sets.manifest import MANIFEST_NAME
    from synthgen.sets.reading import claimed_content
    from synthgen.sets.verification import default_workers
    from synthgen.sets.verification import verify as verify_

    backend = chosen_backend(backend, device)
    if backend != "auto" and not regenerate:
        raise UsageError("--backend and --device draw images again; give --regenerate N too")
    key = PublicKey.read(signed_by) if signed_by else None
    if not (folder / MANIFEST_NAME).is_file() and (folder / METADATA_NAME).is_file():
        if regenerate or checkpoint or files_only:
            raise UsageError(f"{folder}: a checkpoint; --regenerate, --checkpoint and --files-only are for sets")
        _verify_checkpoint(folder, key, require_known_checkpoint)
        return
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
            signed_by=key,
            require_known_checkpoint=require_known_checkpoint,
            progress=advancing(bar),
        )
    anew = f", {report.regenerated:,} drawn anew and equal" if regenerate else ""
    proven = "file hash" if files_only else "file hash and digest"
    sound = f"sound: {report.count:,} images, every {proven} right{anew}"
    _tell(folder, report.problems, [sound, *report.signatures, *report.unchecked])


def _verify_checkpoint(folder: Path, key: "PublicKey | None", require_known: bool) -> None:
    from synthgen.sets.origin import checkpoint_origin

    origin = checkpoint_origin(folder, key, require_known=require_known)
    _tell(folder, origin.problems, ["sound: its content is what its hash names", *origin.signatures, *origin.unchecked])


def _tell(folder: Path, problems: Sequence[str], lines: Sequence[str]) -> None:
    """Say what is wrong and end with 1, or print what was found."""
    for problem in problems:
        say(f"{folder}: {problem}")
    if problems:
        raise typer.Exit(1)
    for line in lines:
        print_line(f"{folder}: {line}")
