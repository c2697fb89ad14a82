"""Image files of any format that Pillow decodes by itself: in memory, a bounded number of pixels, one image each."""

import io
import warnings

from PIL import Image, UnidentifiedImageError

MAX_PIXELS = 89_478_485  # Pillow's own limit, where it warns of a decompression bomb
# They start another program (Ghostscript), or Pillow has no decoder for them.
_EXCLUDED = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}
# Where the first of several images is the picture itself: beside a photograph lies its preview, in a PSD its layers.
_FIRST_IS_WHOLE = {"MPO", "PSD"}
_ORIENTATION = 0x0112  # a tag of EXIF 2.3, section 4.6.4
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decoded(data: bytes) -> Image.Image:
    """The picture in an image file, in whatever mode it has, turned as its EXIF data say.

    Raises:
        ValueError: it is no image, damaged, cut short, animated or of several pages, or has over 89 million pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF data, and of large images, which are refused below
            return _decoded(data)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's forty decoders raise whatever their code meets in a damaged file
        if isinstance(error, UnidentifiedImageError):
            raise ValueError("no image that Pillow can open") from error
        if isinstance(error, Image.DecompressionBombError):
            raise ValueError(f"more than {2 * MAX_PIXELS:,} pixels; expected at most {MAX_PIXELS:,}") from error
        raise ValueError(" ".join(str(error).split())[:200] or type(error).__name__) from error


def decodable_suffixes() -> set[str]:
    """The endings of image files, such as ``.png``, in lower case."""
    Image.init()
    return {suffix for suffix, kind in Image.registered_extensions().items() if kind not in _EXCLUDED}


def _decoded(data: bytes) -> Image.Image:
    Image.init()
    formats = [name for name in Image.ID if name not in _EXCLUDED]
    with Image.open(io.BytesIO(data), formats=formats) as opened:
        width, height = opened.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"{width} × {height} pixels; expected at most {MAX_PIXELS:,} in all")
        if not width * height:
            raise ValueError("it has no pixels")
        if getattr(opened, "is_animated", False) and opened.format not in _FIRST_IS_WHOLE:
            raise ValueError("animated or of several pages; expected one image in a file")
        opened.load()
        turn = _UPRIGHT.get(opened.getexif().get(_ORIENTATION, 1))  # Pillow itself turns a TIFF
        if turn is None:
            return opened  # its pixels outlast the file
        picture = opened.transpose(turn)
        picture.format = opened.format  # says what the values of mode I stand for
    return picture
