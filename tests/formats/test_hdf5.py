import h5py
import numpy as np

from synthgen.subject import CLASS_NAMES


def test_a_set_loads_with_h5py(export, expected, tmp_path):
    manifest = export(tmp_path / "set", file_format="hdf5")
    with h5py.File(tmp_path / "set" / "train-00000-of-00001.h5") as file:
        np.testing.assert_array_equal(file["images"][:], expected[0])
        np.testing.assert_array_equal(file["labels"][:], expected[1])
        assert file["images"].chunks == (64, 28, 28)
        assert list(file.attrs["class_names"]) == list(CLASS_NAMES)
        assert file.attrs["digest"] == manifest.digest
