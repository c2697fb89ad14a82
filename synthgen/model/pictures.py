"""Contact sheets: many small images in one picture."""

from pathlib import Path

import numpy as np
from PIL import Image

from synthgen.files import publish
from synthgen.subject import IMAGE_SIDE, Images


def contact_sheet(images: Images, columns: int, *, zoom: int = 2) -> Image.Image:
    """Lay images out row by row, with a thin gap.

    Args:
        images: uint8, shape (N, 28, 28).
        columns: images in a row; the last row may be shorter.
        zoom: screen pixels per image pixel.
    """
    gap, cell = 1, IMAGE_SIDE + 1
    rows = -(-len(images) // columns)
    sheet = np.full((rows * cell + gap, columns * cell + gap), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * cell + gap, i % columns * cell + gap
        sheet[top : top + IMAGE_SIDE, left : left + IMAGE_SIDE] = image
    picture = Image.fromarray(sheet)
    return picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST)


def save_contact_sheet(path: Path, images: Images, columns: int, *, zoom: int = 2) -> None:
    """Publish ``contact_sheet`` as a PNG file."""
    with publish(path) as partial:
        contact_sheet(images, columns, zoom=zoom).save(partial, format="PNG")
