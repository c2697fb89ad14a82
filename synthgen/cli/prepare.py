"""``synthgen prepare``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthgen.cli.console import say, stage_bar
from synthgen.cli.interrupts import sigterm_as_interrupt

if TYPE_CHECKING:
    from synthgen.preparation.record import Preparation


def prepare(
    source: Annotated[
        Path,
        typer.Argument(help="Folder with a folder for each class, or of IDX or Parquet files; or an NPZ or HDF5 file."),
    ],
    out: Annotated[Path, typer.Option(help="A new folder for the data.")] = Path("data"),
    test: Annotated[Path | None, typer.Option(help="Test images, where SOURCE has none.")] = None,
    test_share: Annotated[
        float | None,
        typer.Option(help="Set so much of each class aside as test images; 0: none. [default: 0.1, if there are none]"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides which images are set aside.")] = 0,
    invert: Annotated[bool, typer.Option("--invert", help="Make black of white: for a light background.")] = False,
    name: Annotated[str, typer.Option(help="Of the data; stands in every set made from it.")] = "images",
    licence: Annotated[str | None, typer.Option(help="Of the images.")] = None,
    class_names: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="Of the labels, in order. [default: those in SOURCE]")
    ] = None,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out what cannot be read, and count it.")
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Processes that read. [default: one a processor]")] = None,
) -> None:
    """``synthgen prepare``."""
    from synthgen.preparation.run import prepare as prepare_

    with sigterm_as_interrupt(), stage_bar() as show:
        preparation = prepare_(
            source,
            out,
            test=test,
            test_share=test_share,
            seed=seed,
            invert=invert,
            name=name,
            licence=licence,
            class_names=None if class_names is None else class_names.split(","),
            skip_unreadable=skip_unreadable,
            workers=workers,
            progress=show,
            on_note=lambda line: say(f"note: {line}"),
        )
    for line in _summary(preparation, out):
        say(line)


def _summary(preparation: "Preparation", out: Path) -> list[str]:
    """What was written, and what to do next."""
    from synthgen.preparation.record import SHEET_NAME

    subject, treatment = preparation.subject, preparation.treatment
    lines = []
    for split, counts in preparation.counts.items():
        if counts:
            each = f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"
            lines.append(f"{split:<6}{sum(counts):>9,} images of {subject.num_classes} classes, {each} each")
    if not preparation.counts["test"]:
        lines.append("no test images: evaluate will have nothing unseen to compare with")
    if treatment.skipped:
        lines.append(f"{treatment.skipped:,} left out that could not be read")
    lines.append(f"the name '{subject.name}' and the names of the classes will stand in every set made from these")
    lines.append(f"look at {out / SHEET_NAME}; it shows real images, and {out} is as private as they are")
    lines.append(f"next: synthgen train --data {out} --epsilon 1")
    return lines
