import numpy as np
import pytest

from synthgen.errors import UsageError
from synthgen.sets.inspection import describe, preview_images


def test_a_preview_has_a_class_a_row(export, tiny_checkpoint, tmp_path):
    export(tmp_path / "set", count=200)
    from_set, from_checkpoint = (preview_images(str(s), 4) for s in (tmp_path / "set", tiny_checkpoint.path))
    assert from_set.shape == (40, 28, 28)
    np.testing.assert_array_equal(from_set, from_checkpoint)  # both begin with images 0, 1, 2, … of seed 0


def test_a_preview_of_many_columns(tiny_checkpoint):
    assert preview_images(str(tiny_checkpoint.path), 100).shape == (1000, 28, 28)


def test_a_preview_without_classes(export, unlabelled_checkpoint, tmp_path):
    assert preview_images(str(unlabelled_checkpoint.path), 9).shape == (90, 28, 28)
    export(tmp_path / "set", checkpoint=unlabelled_checkpoint, count=7)
    assert preview_images(str(tmp_path / "set"), 3).shape == (7, 28, 28)


def test_too_few_images_for_a_row(export, tmp_path):
    export(tmp_path / "set", count=15)
    with pytest.raises(UsageError, match=r"fewer than 2 images of Sandal, .*; ask for fewer --columns"):
        preview_images(str(tmp_path / "set"), 2)


def test_descriptions_name_what_matters(export, tiny_checkpoint, unlabelled_checkpoint, tmp_path):
    manifest = export(tmp_path / "set", count=20, labels="0,3")
    described = describe(str(tmp_path / "set"))
    assert described["digest"] == manifest.digest
    assert described["classes"].startswith("T-shirt/top 10, Trouser 0, Pullover 0, Dress 10")
    assert described["privacy"] == manifest.privacy.sentence
    assert tiny_checkpoint.sha256 in describe(str(tiny_checkpoint.path))["checkpoint"]
    assert describe(str(unlabelled_checkpoint.path))["labels"] == "none: unconditional"
