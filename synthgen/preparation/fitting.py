"""Any image as 28×28 grey pixels: the one place that says how."""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from synthgen.subject import IMAGE_SIDE, Images

# For the record.
GREY, RESAMPLING = "luma of ITU-R BT.601", "Lanczos"
FIT = "the longer side to 28 pixels, in the middle of black"
_FILTER = Image.Resampling.LANCZOS  # Pillow's, whose window widens as an image is reduced: no aliasing
_SIXTEEN_BITS = 257  # 65535 / 255
_WHITE, _BLACK = 255, 0

Pixels = npt.NDArray[Any]


def fitted(picture: Image.Image, *, invert: bool) -> Images:
    """A picture as uint8 (28, 28): grey, its longer side 28 pixels, in the middle of black.

    Grey is Pillow's mode L: luma of ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B. 16-bit grey is divided by 257. What is
    transparent becomes black: it is laid on white where the picture is inverted afterwards, otherwise on black. A grey
    picture of 28×28 pixels keeps them.

    Raises:
        ValueError: it has a colour space without such a conversion, or pixels without a known range.
    """
    grey = _grey(picture, _WHITE if invert else _BLACK)
    if grey.size != (IMAGE_SIDE, IMAGE_SIDE):
        longer = max(grey.size)
        size = tuple(max(1, round(side * IMAGE_SIDE / longer)) for side in grey.size)
        grey = grey.resize((size[0], size[1]), _FILTER)
    pixels = np.asarray(grey)
    if invert:
        pixels = 255 - pixels
    if pixels.shape == (IMAGE_SIDE, IMAGE_SIDE):
        return pixels
    canvas = np.full((IMAGE_SIDE, IMAGE_SIDE), _BLACK, np.uint8)
    top, left = (IMAGE_SIDE - pixels.shape[0]) // 2, (IMAGE_SIDE - pixels.shape[1]) // 2
    canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return canvas


def fitted_array(array: Pixels, *, invert: bool) -> Images:
    """Images in an array as uint8 (n, 28, 28), as ``fitted`` does it.

    Args:
        array: (n, height, width) grey, or (n, height, width, c) of 1 (grey), 3 (RGB) or 4 (RGBA) channels; of bool,
            uint8, uint16 (0 to 65535), another integer type with values from 0 to 255, or floats from 0 to 1.
        invert: whether black becomes white.

    Raises:
        ValueError: a value is out of range.
    """
    array = _as_bytes(array)
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.shape[1:] == (IMAGE_SIDE, IMAGE_SIDE):
        return 255 - array if invert else array
    return np.stack([fitted(Image.fromarray(np.ascontiguousarray(image)), invert=invert) for image in array])


def _grey(picture: Image.Image, background: int) -> Image.Image:
    if picture.mode == "L" and "transparency" not in picture.info:
        return picture
    if picture.mode.startswith("I") or picture.mode == "F":
        return _grey_of_numbers(picture, background)
    if "transparency" in picture.info or picture.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        if picture.mode == "La":
            picture = picture.convert("LA")
        base = Image.new("RGBA", picture.size, (background, background, background, 255))
        base.alpha_composite(picture.convert("RGBA"))
        return base.convert("L")
    if picture.mode not in ("1", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"):
        raise ValueError(f"colours of mode {picture.mode}; expected grey, RGB, CMYK or a palette")
    return picture.convert("RGB").convert("L")


def _grey_of_numbers(picture: Image.Image, background: int) -> Image.Image:
    """Of pixels that are wider than a byte."""
    numbers = np.asarray(picture)
    if picture.mode == "I":
        if picture.format not in ("PNG", "PPM"):  # those have 16 bits at most, whatever Pillow holds them in
            raise ValueError("pixels of 32 bits have no known range; save them with 8 or 16")
        numbers = numbers.clip(0, 65535).astype(np.uint16)
    pixels = _as_bytes(numbers)
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int):
        pixels = np.where(numbers == transparent, np.uint8(background), pixels)
    return Image.fromarray(pixels)


def _as_bytes(array: Pixels) -> Images:
    kind, size = array.dtype.kind, array.dtype.itemsize
    if array.dtype == np.uint8:
        return array
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if kind == "u" and size == 2:
        whole: Images = ((array.astype(np.uint32) + _SIXTEEN_BITS // 2) // _SIXTEEN_BITS).astype(np.uint8)
        return whole
    most = 1 if kind == "f" else 255
    if array.size and not (array.min() >= 0 and array.max() <= most):  # so put that NaN fails, too
        raise ValueError(f"{array.dtype} values from {array.min():g} to {array.max():g}; expected 0 to {most}")
    return np.rint(array * 255.0).astype(np.uint8) if kind == "f" else array.astype(np.uint8)
