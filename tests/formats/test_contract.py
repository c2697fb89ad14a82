"""Each format through the libraries its users already have."""

import gzip
import json
import subprocess

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from synthgen.fashion import CLASS_NAMES
from synthgen.sets.manifest import load_manifest
from synthgen.sets.reading import read_set


@pytest.fixture
def expected(export, tmp_path):
    """Images and labels of the first 600, read through our own reader of npz."""
    export(tmp_path / "expected")
    batches = list(read_set(tmp_path / "expected", load_manifest(tmp_path / "expected")))
    return np.concatenate([b.images for b in batches]), np.concatenate([b.labels for b in batches])


def test_tfrecord_loads_with_tf_data(export, expected, tmp_path):
    export(tmp_path / "set", file_format="tfrecord", shards=3)
    files = sorted(str(path) for path in (tmp_path / "set").glob("*.tfrecord-*"))
    features = {name: tf.io.FixedLenFeature([], kind) for name, kind in
                (("image", tf.string), ("label", tf.int64), ("id", tf.int64))}  # fmt: skip
    examples = [tf.io.parse_single_example(record, features) for record in tf.data.TFRecordDataset(files)]
    images = np.stack([tf.io.decode_png(example["image"]).numpy() for example in examples])
    np.testing.assert_array_equal(images[..., 0], expected[0])
    np.testing.assert_array_equal([int(example["label"]) for example in examples], expected[1])
    assert [int(example["id"]) for example in examples] == list(range(600))


def test_tfrecord_describes_itself_for_tensorflow_datasets(export, tmp_path):
    manifest = export(tmp_path / "set", file_format="tfrecord", shards=2)
    info = json.loads((tmp_path / "set" / "dataset_info.json").read_text())
    assert info["splits"][0]["shardLengths"] == [str(shard.count) for shard in manifest.shards]
    assert info["fileFormat"] == "tfrecord"
    assert (tmp_path / "set" / "label.labels.txt").read_text().splitlines() == list(CLASS_NAMES)
    features = json.loads((tmp_path / "set" / "features.json").read_text())["featuresDict"]["features"]
    assert features["label"]["classLabel"]["numClasses"] == "10"


def test_hdf5_loads_with_h5py(export, expected, tmp_path):
    manifest = export(tmp_path / "set", file_format="hdf5")
    with h5py.File(tmp_path / "set" / "train-00000-of-00001.h5") as file:
        np.testing.assert_array_equal(file["images"][:], expected[0])
        np.testing.assert_array_equal(file["labels"][:], expected[1])
        assert file["images"].chunks == (64, 28, 28)
        assert list(file.attrs["class_names"]) == list(CLASS_NAMES)
        assert file.attrs["digest"] == manifest.digest


def test_png_loads_with_keras(export, expected, tmp_path):
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


def test_png_listings_satisfy_sha256sum(export, tmp_path):
    export(tmp_path / "set", file_format="png", shards=2)
    listings = sorted((tmp_path / "set" / "checksums").iterdir())
    assert len(listings) == 2
    for listing in listings:
        subprocess.run(["sha256sum", "--check", "--quiet", listing], cwd=tmp_path / "set", check=True)


def test_idx_loads_as_keras_reads_fashion_mnist(export, expected, tmp_path):
    export(tmp_path / "set", file_format="idx", split="test")
    with gzip.open(tmp_path / "set" / "t10k-labels-idx1-ubyte.gz") as stream:  # the very lines of Keras's loader
        labels = np.frombuffer(stream.read(), np.uint8, offset=8)
    with gzip.open(tmp_path / "set" / "t10k-images-idx3-ubyte.gz") as stream:
        images = np.frombuffer(stream.read(), np.uint8, offset=16).reshape(len(labels), 28, 28)
    np.testing.assert_array_equal(images, expected[0])
    np.testing.assert_array_equal(labels, expected[1])


def test_npz_loads_with_numpy(export, expected, tmp_path):
    export(tmp_path / "set", file_format="npz", shards=1)
    with np.load(tmp_path / "set" / "train-00000-of-00001.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["images"], expected[0])
        np.testing.assert_array_equal(archive["labels"], expected[1])
