import io

import pytest
import tensorflow as tf

from synthgen.formats.tfrecord import example_bytes, next_record, parse_example

IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


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
    with pytest.raises((ValueError, KeyError)):
        parse_example(example_bytes(IMAGE, 1, 1)[:cut])


def test_a_record_that_claims_too_much_is_refused():
    with pytest.raises(ValueError, match="claims"):
        next_record(io.BufferedReader(io.BytesIO((1 << 40).to_bytes(8, "little") + bytes(8))))
    assert next_record(io.BufferedReader(io.BytesIO(b""))) is None
