import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group
from support import DATA

from synthgen.errors import EvaluationError
from synthgen.evaluation.inception import FEATURES, _prepared, inception_features, load_inception
from synthgen.real_images import load_real_images


def test_preprocessing_is_the_standard_one():
    prepared = np.asarray(_prepared(np.array([[[0] * 28] * 14 + [[255] * 28] * 14], np.uint8)))
    assert prepared.shape == (1, 299, 299, 3)
    assert prepared.min() == -1
    assert prepared.max() == 1
    assert (prepared[..., 0] == prepared[..., 2]).all()
    assert prepared[0, 149, 0, 0] == pytest.approx(0, abs=0.1)  # interpolated, not repeated


@pytest.mark.parametrize(
    ("name", "with_classifier"),
    [("inception.weights.h5", False), ("inception_v3_weights_tf_dim_ordering_tf_kernels.h5", True)],
)
def test_weights_of_random_numbers_load_and_give_features(tmp_path, name: str, with_classifier: bool):
    """No real weights are at hand in tests; random ones in Keras's own files, new and old, prove the way."""
    keras.utils.set_random_seed(0)
    options = {} if with_classifier else {"include_top": False, "pooling": "avg"}
    model = keras.applications.InceptionV3(weights=None, **options)
    if name.endswith(".weights.h5"):
        model.save_weights(tmp_path / name)
    else:
        with h5py.File(tmp_path / name, "w") as file:
            save_weights_to_hdf5_group(file, model)
    images = load_real_images("test", DATA, official=False).images[:2]
    features = inception_features(load_inception(tmp_path / name), images)
    assert features.shape == (2, FEATURES)
    pooled = keras.Model(model.inputs[0], model.get_layer("avg_pool").output) if with_classifier else model
    assert np.allclose(features, np.asarray(pooled(_prepared(images), training=False)), atol=1e-5)


def test_a_file_of_anything_else_is_refused_in_one_line(tmp_path):
    (tmp_path / "notes.weights.h5").write_text("no weights")
    keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)]).save_weights(tmp_path / "other.weights.h5")
    for name in ("notes", "other"):
        with pytest.raises(EvaluationError, match=r"no weights of keras\.applications\.InceptionV3") as refusal:
            load_inception(tmp_path / f"{name}.weights.h5")
        assert "\n" not in str(refusal.value)
