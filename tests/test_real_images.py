import gzip

import numpy as np
import pytest
from support import DATA, undescribed

from synthgen.errors import DataError
from synthgen.formats.idx import idx_header, read_idx_images, read_idx_labels
from synthgen.real_images import find_data, load_real_images


def test_the_sample_is_read():
    real = load_real_images("train", DATA, official=False)
    assert real.images.shape == (500, 28, 28)
    assert real.labels.shape == (500,)
    assert not real.official
    assert np.bincount(real.labels, minlength=10).min() > 30


def test_unofficial_content_is_refused_with_the_cure(tmp_path):
    with pytest.raises(DataError, match=r"not the official Fashion-MNIST.*go through synthgen prepare first"):
        load_real_images("train", undescribed(tmp_path))


def test_the_environment_names_a_folder(monkeypatch):
    monkeypatch.setenv("SYNTHGEN_DATA", str(DATA))
    assert find_data() == DATA


def test_a_folder_the_environment_names_is_not_silently_passed_over(tmp_path, monkeypatch):
    monkeypatch.setenv("SYNTHGEN_DATA", str(tmp_path))
    with pytest.raises(DataError, match="no Fashion-MNIST here"):
        find_data()


def test_a_named_folder_is_the_only_place_to_look(tmp_path):
    with pytest.raises(DataError, match="no Fashion-MNIST here"):
        find_data(tmp_path)


def test_without_data_or_network_the_three_ways_are_named(tmp_path, monkeypatch):
    monkeypatch.delenv("SYNTHGEN_DATA", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("synthgen.real_images.DEBIAN_FOLDER", tmp_path / "none")
    monkeypatch.setattr("synthgen.real_images.DOWNLOAD_URL", "http://127.0.0.1:9/")
    with pytest.raises(DataError, match=r"dataset-fashion-mnist.*--data or \$SYNTHGEN_DATA"):
        find_data()


def test_a_download_is_checked_before_it_gets_its_name(tmp_path, monkeypatch):
    monkeypatch.delenv("SYNTHGEN_DATA", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("synthgen.real_images.DEBIAN_FOLDER", tmp_path / "none")
    monkeypatch.setattr("synthgen.real_images.DOWNLOAD_URL", DATA.as_uri() + "/")
    with pytest.raises(DataError, match="is not the official file"):
        find_data()
    assert not list((tmp_path / "home").rglob("*-ubyte*"))


HEADER = idx_header(2, images=True)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "magic number"),
        (HEADER[:7], "images of shape"),
        (b"\0\0\x08\x01" + HEADER[4:] + bytes(2 * 784), "magic number 0x00000801; expected 0x00000803"),
        (HEADER[:8] + b"\0\0\0\x1d\0\0\0\x1c" + bytes(2 * 29 * 28), r"shape \(29, 28\); expected \(28, 28\)"),
        (HEADER + bytes(2 * 784 - 1), "shorter than the 2 items"),
        (HEADER + bytes(2 * 784 + 1), "longer than the 2 items"),
        (idx_header(1 << 31, images=True) + bytes(784), "claims 2147483648 items, more than the file can hold"),
        (b"\x1f\x8b" + bytes(30), "cannot be read"),
        (gzip.compress(HEADER + bytes(2 * 784), mtime=0)[:-12], "cannot be read"),
    ],
)
def test_malformed_images_are_refused_in_one_line(tmp_path, content: bytes, words: str):
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as refusal:
        read_idx_images(path)
    assert "\n" not in str(refusal.value)


def test_labels_are_bytes(tmp_path):
    (tmp_path / "labels").write_bytes(idx_header(3, images=False) + bytes([0, 9, 255]))
    assert read_idx_labels(tmp_path / "labels").tolist() == [0, 9, 255]
