import numpy as np
import pytest
from support import DATA

from synthgen.evaluation.material import FULL, QUICK, Effort, Material
from synthgen.real_images import load_real_images
from synthgen.sets.manifest import load_manifest
from synthgen.sets.reading import read_set


@pytest.fixture
def material_of():
    def build(folder, effort: Effort = FULL) -> Material:
        train, test = (load_real_images(split, DATA, official=False) for split in ("train", "test"))
        return Material.of(folder, load_manifest(folder), train, test, effort, 1, lambda stage, done, of: None)

    return build


@pytest.mark.parametrize("file_format", ["tfrecord", "hdf5", "png", "idx", "npz"])
def test_every_format_gives_the_same_images_in_the_same_order(export, material_of, tmp_path, file_format: str):
    export(tmp_path / "plain", count=300, start=100, file_format="npz")
    manifest = export(tmp_path / "set", count=300, start=100, file_format=file_format)
    expected, material = material_of(tmp_path / "plain"), material_of(tmp_path / "set")
    assert (material.images == expected.images).all()
    assert (material.labels == expected.labels).all()
    batches = list(read_set(tmp_path / "set", manifest))
    stored = np.concatenate([batch.images for batch in batches]), np.concatenate([batch.labels for batch in batches])
    assert sorted(image.tobytes() for image in material.images) == sorted(image.tobytes() for image in stored[0])
    for image, label in zip(material.images[:20], material.labels, strict=False):
        same = (stored[0] == image).all((1, 2))
        assert label in stored[1][same]
    assert not (material.images == stored[0]).all()


def test_of_a_large_set_a_random_sample_is_looked_at(export, material_of, tmp_path):
    export(tmp_path / "set", count=600)
    material = material_of(tmp_path / "set", Effort(images=200))
    assert len(material.images) == len(material.labels) == 200
    assert np.bincount(material.labels, minlength=10).min() > 5
    assert (material.images[:50] == material_of(tmp_path / "set").images[:50]).all()


def test_real_samples_are_random_and_test_images_keep_their_labels(export, material_of, tmp_path):
    export(tmp_path / "set", count=10)
    material = material_of(tmp_path / "set")
    train, test = (load_real_images(split, DATA, official=False) for split in ("train", "test"))
    assert material.real_sample(500).images is material.train.images
    few = material.real_sample(50)
    assert few.images.shape == (50, 28, 28)
    place = np.flatnonzero((train.images == few.images[0]).all((1, 2)))[0]
    assert train.labels[place] == few.labels[0]
    assert not (material.test.images == test.images).all()
    place = np.flatnonzero((test.images == material.test.images[0]).all((1, 2)))[0]
    assert test.labels[place] == material.test.labels[0]


def test_small_sets_are_seen_more_often():
    assert FULL.epochs_for(60_000, 256) == 6
    assert FULL.epochs_for(12_800, 256) == 6
    assert FULL.epochs_for(256, 256) == 300
    assert QUICK.epochs_for(12_000, 256) == 3
    assert QUICK.epochs_for(1, 256) == 141
