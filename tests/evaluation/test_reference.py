import numpy as np
import pytest
from support import DATA

from synthgen.errors import EvaluationError
from synthgen.evaluation.classifiers import predicted_labels, small_cnn
from synthgen.evaluation.reference import FEATURES, REFERENCE_PATH, extract, load_reference, save_reference
from synthgen.real_images import load_real_images


def test_the_shipped_classifier_is_small_and_knows_clothes():
    assert REFERENCE_PATH.stat().st_size <= 2_000_000
    test = load_real_images("test", DATA, official=False)
    seen = extract(load_reference().model, test.images)
    assert seen.features.shape == (100, FEATURES)
    assert seen.features.dtype == np.float32
    assert (seen.labels == test.labels).mean() > 0.85


def test_features_do_not_depend_on_company():
    reference = load_reference().model
    images = load_real_images("test", DATA, official=False).images
    progress = []
    together = extract(reference, images, lambda done, of: progress.append((done, of))).features
    assert np.allclose(extract(reference, images[40:50]).features, together[40:50], atol=1e-4)
    assert progress == [(100, 100)]


def test_what_is_saved_is_what_is_loaded(tmp_path):
    model = small_cnn(10)
    images = load_real_images("test", DATA, official=False).images
    sha256 = save_reference(tmp_path / "weights" / "cnn.npz", model)
    assert sha256 == save_reference(tmp_path / "again.npz", model)
    loaded = load_reference(tmp_path / "weights" / "cnn.npz", sha256)
    assert (extract(loaded.model, images).labels == predicted_labels(model, images)).all()


def test_altered_or_missing_weights_are_refused(tmp_path):
    copy = tmp_path / "cnn.npz"
    content = bytearray(REFERENCE_PATH.read_bytes())
    content[5_000] ^= 1
    copy.write_bytes(content)
    with pytest.raises(EvaluationError, match="was altered"):
        load_reference(copy)
    with pytest.raises(EvaluationError, match="is missing"):
        load_reference(tmp_path / "none.npz")
