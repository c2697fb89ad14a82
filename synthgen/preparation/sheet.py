"""The contact sheet: some real images of each class, with its name and number of images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from synthgen.preparation.conversion import Converted
from synthgen.subject import IMAGE_SIDE

_COLUMNS, _ZOOM, _GAP = 16, 2, 2
_CELL = IMAGE_SIDE * _ZOOM + _GAP
_TITLE_HEIGHT, _NAMES_WIDTH = 28, 220  # screen pixels
_FONT_SIZE = 14
_MAX_LETTERS = 26  # of a class name
_TITLE = "REAL IMAGES, not synthetic: as private as the images themselves"


def save_sheet(path: Path, converted: Converted, class_names: Sequence[str]) -> None:
    """Write the first sixteen images of each class as a PNG file, a row each.

    Raises:
        OSError: it cannot be written.
    """
    sheet = Image.new("L", (_NAMES_WIDTH + _COLUMNS * _CELL, _TITLE_HEIGHT + len(class_names) * _CELL), 255)
    draw = ImageDraw.Draw(sheet)
    _write(draw, _GAP, _GAP, _TITLE)
    for label, name in enumerate(class_names):
        top = _TITLE_HEIGHT + label * _CELL
        members = np.flatnonzero(converted.labels == label)
        short = name if len(name) <= _MAX_LETTERS else name[: _MAX_LETTERS - 1] + "…"
        _write(draw, _GAP, top, short)
        _write(draw, _GAP, top + _FONT_SIZE + 4, f"{len(members):,} images")
        for column, index in enumerate(members[:_COLUMNS]):
            image = Image.fromarray(converted.images[index])
            large = image.resize((IMAGE_SIDE * _ZOOM, IMAGE_SIDE * _ZOOM), Image.Resampling.NEAREST)
            sheet.paste(large, (_NAMES_WIDTH + column * _CELL, top))
    sheet.save(path, format="PNG")


def _write(draw: ImageDraw.ImageDraw, left: int, top: int, text: str) -> None:
    font = ImageFont.load_default(_FONT_SIZE)
    if not isinstance(font, ImageFont.FreeTypeFont):  # Pillow without FreeType: its own font knows Latin-1 alone
        text = text.encode("latin-1", "replace").decode("latin-1")
    draw.text((left, top), text, fill=0, font=font)
