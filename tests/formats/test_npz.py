import numpy as np


def test_a_set_loads_with_numpy(export, expected, tmp_path):
    export(tmp_path / "set", file_format="npz", shards=1)
    with np.load(tmp_path / "set" / "train-00000-of-00001.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["images"], expected[0])
        np.testing.assert_array_equal(archive["labels"], expected[1])
