import io
import json
import resource

import numpy as np
import pytest
import tensorflow as tf

from synthgen.errors import VerificationError
from synthgen.formats.png import encode_pngs
from synthgen.formats.table import FORMATS
from synthgen.formats.tfrecord import ExampleEncoder, next_record, parse_example, record_bytes
from synthgen.subject import CLASS_NAMES

IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


def example_bytes(image: bytes, index: int, label: int | None) -> bytes:
    encoder = ExampleEncoder(labelled=label is not None)
    encoder.encode(b"an earlier image", 2**62, 1)  # leaves nothing behind
    return encoder.encode(image, index, label)


def by_tensorflow(index: int, label: int | None, **more) -> bytes:
    train = tf.train
    feature = {
        "image": train.Feature(bytes_list=train.BytesList(value=[IMAGE])),
        "id": train.Feature(int64_list=train.Int64List(value=[index])),
        **more,
    }
    if label is not None:
        feature["label"] = train.Feature(int64_list=train.Int64List(value=[label]))
    return train.Example(features=train.Features(feature=feature)).SerializeToString(deterministic=True)


@pytest.mark.parametrize("index", [0, 127, 128, 300, 2**31, 2**63 - 1])
@pytest.mark.parametrize("label", [None, 0, 9])
def test_an_example_is_the_bytes_that_tensorflow_writes(index: int, label: int | None):
    record = example_bytes(IMAGE, index, label)
    assert record == by_tensorflow(index, label)
    assert parse_example(record) == (IMAGE, label)


def test_an_example_of_another_make_is_read():
    more = {"zebra": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"x"]))}
    assert parse_example(by_tensorflow(5, 3, **more)) == (IMAGE, 3)


@pytest.mark.parametrize("cut", [1, 5, 20, -1])
def test_a_cut_record_is_refused(cut: int):
    with pytest.raises(ValueError, match="a record"):
        parse_example(example_bytes(IMAGE, 1, 1)[:cut])


def test_a_record_that_claims_too_much_is_refused():
    with pytest.raises(ValueError, match="claims"):
        next_record(io.BufferedReader(io.BytesIO((1 << 40).to_bytes(8, "little") + bytes(8))))
    assert next_record(io.BufferedReader(io.BytesIO(b""))) is None


def test_the_bytes_are_those_of_earlier_versions():
    pixels = b"\x89PNG\r\n\x1a\npixels"
    assert example_bytes(pixels, 300, 7) == (
        b"\n;\n\x0c\n\x02id\x12\x06\x1a\x04\n\x02\xac\x02\n\x1b\n\x05image\x12\x12\n\x10\n\x0e" + pixels +
        b"\n\x0e\n\x05label\x12\x05\x1a\x03\n\x01\x07"
    )  # fmt: skip
    assert record_bytes(b"data") == b"\x04\0\0\0\0\0\0\0BER\x04data\x88H&\x9e"


def feature(**values: object) -> bytes:
    """An Example of TensorFlow's own with lists of bytes or integers."""
    made = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=value))
        if isinstance(value[0], bytes)
        else tf.train.Feature(int64_list=tf.train.Int64List(value=value))
        for name, value in values.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"no protocol buffer",
        feature(label=[1]),
        feature(image=[1]),
        feature(image=[IMAGE, IMAGE], label=[1]),
        feature(image=[IMAGE], label=[1, 2]),
        feature(image=[IMAGE], label=[1]).replace(b"label", b"\xff\xfe\xfd\xfc\xfb"),  # a name that is no UTF-8
        b"\x0b" * 60_000,  # groups within groups
    ],
)
def test_what_is_no_example_of_one_image_is_refused(record: bytes):
    with pytest.raises(ValueError, match="a record"):
        parse_example(record)


@pytest.mark.parametrize("label", [-1, 10, 256, -(2**63), 2**63 - 1])
def test_a_label_that_no_class_has_is_refused(random_batches, tmp_path, label: int):
    (png,) = encode_pngs(next(random_batches(0, 1, True)).images)
    (tmp_path / "x").write_bytes(record_bytes(feature(image=[png], label=[label], id=[0])))
    with pytest.raises(VerificationError, match="out of range"):
        list(FORMATS["tfrecord"].read_shard(tmp_path, ["x"], 1))


def test_hostile_records_take_no_memory():
    entries = b"".join(b"\n\x04\n\x02%c%c" % divmod(i, 128) for i in range(10_000))
    records = [feature(image=[b""] * 30_000), feature(label=[1] * 60_000), b"\n\xe0\xd4\x03" + entries]  # 60,000 bytes
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for record in records * 50:
        with pytest.raises(ValueError, match="a record"):
            parse_example(record)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10  # KiB


def test_a_set_loads_with_tf_data(export, expected, tmp_path):
    export(tmp_path / "set", file_format="tfrecord", shards=3)
    files = sorted(str(path) for path in (tmp_path / "set").glob("*.tfrecord-*"))
    features = {name: tf.io.FixedLenFeature([], kind) for name, kind in
                (("image", tf.string), ("label", tf.int64), ("id", tf.int64))}  # fmt: skip
    examples = [tf.io.parse_single_example(record, features) for record in tf.data.TFRecordDataset(files)]
    images = np.stack([tf.io.decode_png(example["image"]).numpy() for example in examples])
    np.testing.assert_array_equal(images[..., 0], expected[0])
    np.testing.assert_array_equal([int(example["label"]) for example in examples], expected[1])
    assert [int(example["id"]) for example in examples] == list(range(600))


def test_a_set_describes_itself_for_tensorflow_datasets(export, tmp_path):
    manifest = export(tmp_path / "set", file_format="tfrecord", shards=2)
    info = json.loads((tmp_path / "set" / "dataset_info.json").read_text())
    assert info["splits"][0]["shardLengths"] == [str(shard.count) for shard in manifest.shards]
    assert info["fileFormat"] == "tfrecord"
    assert (tmp_path / "set" / "label.labels.txt").read_text().splitlines() == list(CLASS_NAMES)
    features = json.loads((tmp_path / "set" / "features.json").read_text())["featuresDict"]["features"]
    assert features["label"]["classLabel"]["numClasses"] == "10"
