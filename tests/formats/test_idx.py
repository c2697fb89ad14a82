import gzip

import numpy as np


def test_a_set_loads_as_keras_reads_fashion_mnist(export, expected, tmp_path):
    export(tmp_path / "set", file_format="idx", split="test")
    with gzip.open(tmp_path / "set" / "t10k-labels-idx1-ubyte.gz") as stream:  # the very lines of Keras's loader
        labels = np.frombuffer(stream.read(), np.uint8, offset=8)
    with gzip.open(tmp_path / "set" / "t10k-images-idx3-ubyte.gz") as stream:
        images = np.frombuffer(stream.read(), np.uint8, offset=16).reshape(len(labels), 28, 28)
    np.testing.assert_array_equal(images, expected[0])
    np.testing.assert_array_equal(labels, expected[1])


def test_idx_raw_is_the_same_unpacked(export, tmp_path):
    for name in ("idx", "idx-raw"):
        export(tmp_path / name, file_format=name, count=300)
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        packed, raw = (tmp_path / "idx" / f"{name}.gz").read_bytes(), (tmp_path / "idx-raw" / name).read_bytes()
        assert gzip.decompress(packed) == raw
