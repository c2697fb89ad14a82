import io
import subprocess

import keras
import numpy as np
import pytest
from PIL import Image

from synthgen.formats.png import decode_png, encode_pngs

RANDOM = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
IMAGES = np.concatenate([RANDOM, np.zeros((1, 28, 28), np.uint8), np.full((1, 28, 28), 255, np.uint8)])


def test_pillow_reads_what_is_written():
    for image, data in zip(IMAGES, encode_pngs(IMAGES), strict=True):
        with Image.open(io.BytesIO(data)) as read:
            read.load()
            assert read.mode == "L"
            np.testing.assert_array_equal(np.asarray(read), image)
        np.testing.assert_array_equal(decode_png(data), image)


def test_what_pillow_writes_is_read():
    buffer = io.BytesIO()
    Image.fromarray(RANDOM[0]).save(buffer, "PNG")
    np.testing.assert_array_equal(decode_png(buffer.getvalue()), RANDOM[0])


@pytest.mark.parametrize("size", [(28, 29), (1000, 1000)])
def test_other_sizes_are_refused(size: tuple[int, int]):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros(size, np.uint8)).save(buffer, "PNG")
    with pytest.raises(ValueError, match="expected L"):
        decode_png(buffer.getvalue())


def test_no_flipped_bit_passes_unnoticed():
    (data,) = encode_pngs(RANDOM[:1])
    for position in range(8, len(data), 37):
        spoilt = bytearray(data)
        spoilt[position] ^= 4
        with pytest.raises((ValueError, OSError)):
            np.testing.assert_array_equal(decode_png(bytes(spoilt)), "other pixels")


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_png_is_refused(data: bytes):
    with pytest.raises((ValueError, OSError)):
        decode_png(data)


def test_a_set_loads_with_keras(export, expected, tmp_path):
    export(tmp_path / "set", file_format="png", shards=2)
    loaded = keras.utils.image_dataset_from_directory(
        tmp_path / "set" / "train",
        color_mode="grayscale",
        image_size=(28, 28),
        shuffle=False,
        batch_size=600,
        verbose=False,
    )
    images, labels = next(iter(loaded))
    order = np.argsort(expected[1], kind="stable")  # folder by folder, in each by index
    np.testing.assert_array_equal(images.numpy()[..., 0].astype(np.uint8), expected[0][order])
    np.testing.assert_array_equal(labels.numpy(), expected[1][order])


def test_listings_satisfy_sha256sum(export, tmp_path):
    export(tmp_path / "set", file_format="png", shards=2)
    listings = sorted((tmp_path / "set" / "checksums").iterdir())
    assert len(listings) == 2
    for listing in listings:
        subprocess.run(["sha256sum", "--check", "--quiet", listing], cwd=tmp_path / "set", check=True)
