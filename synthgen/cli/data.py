"""``synthgen data``: where the real images are."""

from pathlib import Path
from typing import Annotated

import typer

from synthgen.cli.console import DATA_HELP, print_line


def data(folder: Annotated[Path | None, typer.Option("--data", help=DATA_HELP)] = None) -> None:
    """``synthgen data``."""
    from synthgen.real_images import find_data, has_split, load_real_images

    found = find_data(folder)
    for split in ("train", "test"):
        if split == "test" and not has_split(found, split):
            print_line(f"{split:<8}       0 images")
            continue
        real = load_real_images(split, found, official=False)
        what = "official Fashion-MNIST" if real.official else f"{real.subject.name}, {real.subject.classes_in_words}"
        print_line(f"{split:<8}{len(real):>8,} images  {what}  {found}")
