"""``synthgen convert``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthgen.cli.console import say

if TYPE_CHECKING:
    from synthgen.model.checkpoint import Checkpoint


def convert(
    checkpoint: Annotated[str, typer.Argument(help="Built-in name or folder.")],
    to: Annotated[
        str,
        typer.Option(
            help="onnx: a file for onnxruntime, the same pixels; keras: a file for Keras, pixels nearly the same; "
            "integers: a checkpoint of synthgen 0.1 or 0.2, rounded."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="What to write. [default: NAME.onnx, NAME.keras or NAME-integers, here]")
    ] = None,
) -> None:
    """``synthgen convert``."""
    from synthgen.model.checkpoint import load_checkpoint
    from synthgen.model.conversion import convert as convert_

    source = load_checkpoint(checkpoint)
    written = convert_(source, to, out)
    say(f"wrote {written}")
    for line in _notes(source, to, written):
        say(line)


def _notes(source: "Checkpoint", to: str, written: Path) -> list[str]:
    """How to use what was written."""
    from synthgen.pixels.tables import LATENT_SCALES

    latent, labelled = source.recipe.latent, source.recipe.conditional
    if to == "onnx":
        labels = " and labels uint8 (N,)" if labelled else ""
        return [
            f"from latents int8 (N, {latent.size}){labels} to images uint8 (N, 28, 28): docs/pixels.md",
            "it needs onnxruntime, whose operators it uses; pixels are those of synthgen export",
        ]
    if to == "keras":
        classes = " and one-hot classes (N, 10)" if labelled else ""
        lines = [f"from latents (N, {latent.size}){classes} to images (N, 28, 28, 1) from 0 to 1, all float32"]
        if source.exact:
            lines += [
                f"latents are the integers of docs/pixels.md, divided by {LATENT_SCALES[latent.distribution]}",
                "its pixels differ from those of synthgen export, since it does not round activations: by a grey level "
                "or two on average, here and there by many",
            ]
        return lines
    unprotected = "" if source.privacy.protects else " --allow-unprotected"
    return [
        "another checkpoint: it draws other images, the same on every machine",
        f"next: synthgen export --checkpoint {written} --count 60000{unprotected}",
    ]
