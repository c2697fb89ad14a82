"""Every odd kind of image gives the right pixels or one clear line."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from synthgen.preparation.fitting import fitted, fitted_array
from synthgen.untrusted import pictures
from synthgen.untrusted.pictures import decoded

ASYMMETRIC = np.zeros((28, 28), np.uint8)
ASYMMETRIC[2:10, 4:8], ASYMMETRIC[20:24, 15:27] = 200, 90


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def read(data: bytes, *, invert: bool = False) -> np.ndarray:
    pixels = fitted(decoded(data), invert=invert)
    assert pixels.shape == (28, 28)
    assert pixels.dtype == np.uint8
    return pixels


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF", "PPM", "TGA", "SGI"])
def test_grey_images_of_the_right_size_keep_every_pixel(kind: str):
    noise = np.random.default_rng(1).integers(0, 256, (28, 28), np.uint8)
    np.testing.assert_array_equal(read(encoded(Image.fromarray(noise), kind)), noise)
    np.testing.assert_array_equal(read(encoded(Image.fromarray(noise), kind), invert=True), 255 - noise)


def test_colours_become_their_luma():
    for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255), (12, 200, 99)):
        picture = Image.new("RGB", (28, 28), colour)
        expected = round(0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2])
        assert abs(int(read(encoded(picture, "PNG"))[5, 5]) - expected) <= 1


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize(("width", "height"), [(56, 28), (28, 70), (300, 100), (14, 7), (1000, 3)])
def test_the_aspect_is_kept_and_the_rest_is_black(width: int, height: int, invert: bool):
    pixels = read(encoded(Image.new("L", (width, height), 40 if invert else 215), "PNG"), invert=invert)
    rows, columns = pixels.any(axis=1), pixels.any(axis=0)
    longer = max(width, height)
    assert rows.sum() == max(1, round(height * 28 / longer))
    assert columns.sum() == max(1, round(width * 28 / longer))
    assert set(np.unique(pixels)) <= {0, 215}
    for used in (rows, columns):
        first, last = np.flatnonzero(used)[[0, -1]]
        assert abs(first - (27 - last)) <= 1


def test_reduction_does_not_alias():
    """A fine checkerboard is grey, not one of its colours."""
    board = (np.indices((280, 280)).sum(axis=0) % 2 * 255).astype(np.uint8)
    pixels = read(encoded(Image.fromarray(board), "PNG"))
    assert pixels[2:-2, 2:-2].min() > 120
    assert pixels[2:-2, 2:-2].max() < 135


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_by_their_full_range(kind: str):
    values = (ASYMMETRIC.astype(np.uint16) * 257) + 100
    np.testing.assert_array_equal(read(encoded(Image.fromarray(values), kind)), ASYMMETRIC)
    big_endian = values.astype(">u2")
    assert Image.fromarray(big_endian).mode == "I;16B"
    np.testing.assert_array_equal(fitted(Image.fromarray(big_endian), invert=False), ASYMMETRIC)
    full = np.full((28, 28), 65535, np.uint16)
    assert (read(encoded(Image.fromarray(full), kind)) == 255).all()


def test_numbers_without_a_known_range_are_refused():
    with pytest.raises(ValueError, match="32 bits have no known range"):
        read(encoded(Image.fromarray(ASYMMETRIC.astype(np.int32)), "TIFF"))
    with pytest.raises(ValueError, match="float32 values from 0 to 200; expected 0 to 1"):
        read(encoded(Image.fromarray(ASYMMETRIC.astype(np.float32)), "TIFF"))
    halves = encoded(Image.fromarray(ASYMMETRIC.astype(np.float32) / 255), "TIFF")
    np.testing.assert_array_equal(read(halves), ASYMMETRIC)


def test_cmyk_is_converted():
    grey = Image.fromarray(ASYMMETRIC)
    pixels = read(encoded(grey.convert("CMYK"), "JPEG", quality=100))
    assert np.abs(pixels.astype(int) - ASYMMETRIC).max() < 30
    assert np.abs(pixels.astype(int) - ASYMMETRIC).mean() < 2
    np.testing.assert_array_equal(read(encoded(grey.convert("CMYK"), "TIFF")), ASYMMETRIC)


@pytest.mark.parametrize("invert", [False, True])
def test_what_is_transparent_becomes_the_background(invert: bool):
    opaque = ASYMMETRIC > 0
    colour = np.full((28, 28, 4), 77, np.uint8)
    colour[..., 3] = np.where(opaque, 255, 0)
    grey_alpha = np.stack([np.full((28, 28), 77, np.uint8), colour[..., 3]], axis=-1)
    expected = np.where(opaque, 255 - 77 if invert else 77, 0)
    palette = Image.fromarray(np.where(opaque, 1, 0).astype(np.uint8), "P")
    palette.putpalette([250, 10, 10, 77, 77, 77])
    files = [
        encoded(Image.fromarray(colour), "PNG"),
        encoded(Image.fromarray(colour), "WEBP", lossless=True),
        encoded(Image.fromarray(grey_alpha), "PNG"),
        encoded(palette, "PNG", transparency=0),
        encoded(palette, "PNG", transparency=bytes([0, 255])),
        encoded(palette, "GIF", transparency=0),
        encoded(Image.fromarray(np.where(opaque, 77, 30).astype(np.uint8)), "PNG", transparency=30),
        encoded(Image.fromarray(np.where(opaque, 77 * 257, 5).astype(np.uint16)), "PNG", transparency=5),
    ]
    for data in files:
        np.testing.assert_array_equal(read(data, invert=invert), expected)


def test_half_transparent_pixels_are_mixed_with_the_background():
    half = np.full((28, 28, 4), 200, np.uint8)
    half[..., 3] = 128
    assert abs(int(read(encoded(Image.fromarray(half), "PNG"))[0, 0]) - 100) <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int):
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    upright = Image.fromarray(ASYMMETRIC)
    turned = upright if undo is None else upright.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100}, "WEBP": {"lossless": True}}.get(kind, {})
    pixels = read(encoded(turned, kind, exif=exif, **options)).astype(int)
    assert np.abs(pixels - ASYMMETRIC).mean() < 2


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animations_and_several_pages_are_refused(kind: str):
    frames = [Image.fromarray(np.full((28, 28), value, np.uint8)) for value in (10, 200)]
    with pytest.raises(ValueError, match="animated or of several pages; expected one image"):
        read(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))


def test_a_photograph_with_its_preview_is_the_photograph():
    photograph = Image.fromarray(ASYMMETRIC).convert("RGB")
    data = encoded(photograph, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))], quality=100)
    assert np.abs(read(data).astype(int) - ASYMMETRIC).mean() < 2


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP"])
def test_a_truncated_image_is_refused(kind: str):
    noise = np.random.default_rng(1).integers(0, 256, (60, 60), np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    for length in (0, 5, len(data) // 2, len(data) - 100):
        with pytest.raises(ValueError, match=r".") as refusal:
            read(data[:length])
        assert "\n" not in str(refusal.value)
        assert "BytesIO" not in str(refusal.value)


def test_decompression_bombs_are_refused_unread(monkeypatch):
    small = encoded(Image.new("1", (1, 1)), "PNG")
    for side, words in ((20_000, "more than 178,956,970 pixels; expected at most 89,478,485"), (9_999, "9999 × 9999")):
        header = b"IHDR" + side.to_bytes(4, "big") * 2 + small[24:29]
        bomb = small[:12] + header + zlib.crc32(header).to_bytes(4, "big") + small[33:]
        with pytest.raises(ValueError, match=words):
            read(bomb)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 999)
    with pytest.raises(ValueError, match=r"50 × 20 pixels; expected at most 999 in all"):
        read(encoded(Image.new("L", (50, 20)), "PNG"))


def test_other_colour_spaces_are_refused_in_words():
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (28, 28)), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    with pytest.raises(ValueError, match="colours of mode LAB; expected grey, RGB, CMYK or a palette"):
        read(encoded(lab, "TIFF"))


def test_formats_that_start_programs_are_no_images():
    data = encoded(Image.new("L", (28, 28)), "EPS")
    with pytest.raises(ValueError, match="no image that Pillow can open"):
        read(data)


class TestArrays:
    @pytest.mark.parametrize(
        ("array", "expected"),
        [
            (ASYMMETRIC, ASYMMETRIC),
            (ASYMMETRIC > 0, (ASYMMETRIC > 0) * 255),
            (ASYMMETRIC.astype(np.int64), ASYMMETRIC),
            (ASYMMETRIC.astype(">u2") * 257, ASYMMETRIC),
            (ASYMMETRIC / 255, ASYMMETRIC),
            ((ASYMMETRIC / 255).astype(np.float16), ASYMMETRIC),
            (ASYMMETRIC[..., None], ASYMMETRIC),
            (np.stack([ASYMMETRIC] * 3, axis=-1), ASYMMETRIC),
            (np.stack([ASYMMETRIC] * 3 + [np.full_like(ASYMMETRIC, 255)], axis=-1), ASYMMETRIC),
        ],
    )
    def test_every_type_of_number(self, array, expected):
        np.testing.assert_array_equal(fitted_array(array[None], invert=False)[0], expected)
        np.testing.assert_array_equal(fitted_array(array[None], invert=True)[0], 255 - expected)

    @pytest.mark.parametrize(
        ("values", "words"),
        [
            ([-1.0, 1.0], "values from -1 to 1; expected 0 to 1"),
            ([0.0, 16.0], "values from 0 to 16; expected 0 to 1"),
            ([0.0, np.nan], "nan"),
            ([0, 256], "values from 0 to 256; expected 0 to 255"),
            ([-1, 3], "values from -1 to 3; expected 0 to 255"),
        ],
    )
    def test_values_out_of_range_are_refused(self, values, words: str):
        array = np.resize(np.array(values), (2, 28, 28))
        with pytest.raises(ValueError, match=words):
            fitted_array(array, invert=False)

    def test_an_array_is_fitted_as_its_png(self):
        colour = np.random.default_rng(0).integers(0, 256, (3, 40, 25, 3), np.uint8)
        from_files = [read(encoded(Image.fromarray(image), "PNG")) for image in colour]
        np.testing.assert_array_equal(fitted_array(colour, invert=False), from_files)
