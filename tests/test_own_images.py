"""Images of one's own, of other classes than Fashion-MNIST's: prepared, trained on, exported, verified, described."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from support import DATA, forge

import synthgen
from synthgen.errors import DataError, UsageError, VerificationError
from synthgen.export.plan import plan_export
from synthgen.export.run import generate
from synthgen.formats.table import FORMATS
from synthgen.model.checkpoint import load_checkpoint
from synthgen.preparation.run import prepare
from synthgen.real_images import load_real_images
from synthgen.sets.inspection import describe, preview_images
from synthgen.sets.manifest import load_manifest
from synthgen.sets.reading import read_set
from synthgen.sets.verification import verify
from synthgen.subject import FASHION, Subject
from synthgen.training.matching import run as matching_run

NAMES = ("bolt, M6", "nut", "Unterlegscheibe / washer")
SIZES = ["latent.size=4", "generator.stem_filters=4", "generator.filters=[4, 4]"]
GAME = ["training.epochs=1", "discriminator.filters=[4]", "discriminator.strides=[2]", "discriminator.kernel_sizes=[3]"]
LOOKS = ["look.teacher_steps=5", "look.students=1", "training.steps=4", "training.images_per_class=4"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real images under three other names, the last of which has a fifth of them."""
    real = load_real_images("train", DATA)
    folder = tmp_path_factory.mktemp("data")
    np.savez(folder / "parts.npz", images=real.images, labels=real.labels // 4)
    prepare(folder / "parts.npz", folder / "data", name="Parts", licence="CC0-1.0", class_names=NAMES, workers=1)
    return folder / "data"


@pytest.fixture(scope="module")
def unprotected(data: Path, tmp_path_factory: pytest.TempPathFactory):
    plan = synthgen.plan("smoke", overrides=[*SIZES, *GAME], data=data)
    return synthgen.train(plan, tmp_path_factory.mktemp("runs") / "smoke")


@pytest.fixture(scope="module")
def private(data: Path, tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching_run, "_STUDENTS_IMAGES", 300)
        plan = synthgen.plan(overrides=[*SIZES, *LOOKS], data=data, epsilon=3, spend_log=False)
        assert plan.recipe.look.teacher_batch_size == round(len(plan.data) * 8_192 / 60_000)
        assert any("of 3 classes" in line for line in plan.describe())
        return synthgen.train(plan, tmp_path_factory.mktemp("runs") / "private")


def test_a_checkpoint_bears_the_subject_of_its_data(unprotected, private):
    for checkpoint in (unprotected, private):
        subject = load_checkpoint(checkpoint.path).recipe.subject
        assert subject == Subject(name="Parts", class_names=NAMES, licence="CC0-1.0")
        assert not checkpoint.recipe.data.official
        assert "the user's own images" in checkpoint.privacy.trained_on
        shares = checkpoint.training["class_shares"]
        assert len(shares) == 3
        assert checkpoint.recipe.shape.classes == 3
        assert "3 classes" in describe(str(checkpoint.path))["labels"]
    assert private.privacy.proof.exact_noise
    assert "equal class counts" not in private.privacy.proof.public


@pytest.mark.parametrize("name", FORMATS)
def test_sets_of_every_format_bear_it_too(unprotected, tmp_path, name: str):
    out = tmp_path / "set"
    generate(unprotected, plan_export(unprotected, count=30, file_format=name), out, allow_unprotected=True)
    assert verify(out, checkpoint=unprotected, regenerate=30).sound
    manifest = load_manifest(out)
    assert manifest.subject.class_names == NAMES
    assert manifest.class_counts == (10, 10, 10)
    labels = np.concatenate([batch.labels for batch in read_set(out, manifest)])
    assert labels.tolist() == [0, 1, 2] * 10
    card, croissant = (out / "README.md").read_text("utf-8"), json.loads((out / "croissant.json").read_text("utf-8"))
    assert "30 synthetic Parts images" in card
    assert "| 2 | Unterlegscheibe / washer | 10 |" in card
    assert "CC0-1.0" in card
    assert "Fashion" not in card + json.dumps(croissant)
    assert croissant["name"] == "parts_synth"
    assert preview_images(str(out), 10).shape == (30, 28, 28)
    if name == "png":
        folders = sorted(path.name for path in (out / "train").iterdir())
        assert folders == ["0_bolt--m6", "1_nut", "2_unterlegscheibe---washer"]
    if name == "hdf5":
        with h5py.File(next(out.glob("*.h5"))) as file:
            assert tuple(file.attrs["class_names"]) == NAMES
    if name == "tfrecord":
        assert (out / "label.labels.txt").read_text("utf-8").splitlines() == list(NAMES)
        assert list(out.glob("parts_synth-train.tfrecord-*"))
        assert json.loads((out / "features.json").read_text())["featuresDict"]["features"]["label"]["classLabel"] == {
            "numClasses": "3"
        }


def test_labels_follow_the_released_counts(private, tmp_path):
    shares = private.training["class_shares"]
    export = plan_export(private, count=3_000, file_format="npz", labels="as-trained")
    assert str(export.labels) == f"shares={','.join(map(str, shares))}"
    manifest = generate(private, export, tmp_path / "set")
    expected = 3_000 * np.array(shares) / sum(shares)
    assert np.abs(np.array(manifest.class_counts) - expected).max() < 6 * np.sqrt(expected.max())
    assert verify(tmp_path / "set", checkpoint=private, regenerate=100).sound


def test_a_checkpoint_that_knows_no_counts_says_so(tiny_checkpoint):
    with pytest.raises(UsageError, match="does not know how frequent its classes were"):
        plan_export(tiny_checkpoint, count=10, file_format="npz", labels="as-trained")
    with pytest.raises(UsageError, match="labels from 0 to 9"):
        plan_export(tiny_checkpoint, count=10, file_format="npz", labels="10")


def test_labels_of_no_class_are_refused(unprotected):
    with pytest.raises(UsageError, match="labels from 0 to 2"):
        plan_export(unprotected, count=10, file_format="npz", labels="3")


def test_forged_names_are_refused(unprotected, tmp_path):
    out = tmp_path / "set"
    generate(unprotected, plan_export(unprotected, count=30, file_format="npz"), out, allow_unprotected=True)
    forge(out, lambda document: document.update(class_names=["a", "b", "c"]), cards=False)
    with pytest.raises(VerificationError, match="class_names are not those of Parts"):
        load_manifest(out)


def test_altered_data_and_a_missing_test_split_are_named(data, tmp_path):
    description = json.loads((data / "data.json").read_text("utf-8"))
    for path in data.glob("*ubyte.gz"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    description["files"]["train-images-idx3-ubyte"] = "0" * 64
    (tmp_path / "data.json").write_text(json.dumps(description))
    with pytest.raises(DataError, match="not the file that data"):
        load_real_images("train", tmp_path)
    prepare(data, tmp_path / "all", test_share=None, workers=1)
    assert load_real_images("test", tmp_path / "all").subject.num_classes == 3


def test_without_a_description_classes_have_numbers(data, tmp_path):
    for path in data.glob("train*ubyte.gz"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="images of your own go through synthgen prepare first"):
        load_real_images("train", tmp_path)
    found = load_real_images("train", tmp_path, official=False)
    assert found.subject.class_names == ("class 0", "class 1", "class 2")
    with pytest.raises(DataError, match="t10k"):
        load_real_images("test", tmp_path, official=False)


def test_fashion_mnist_is_as_it_was(tiny_checkpoint):
    assert tiny_checkpoint.recipe.subject == FASHION
    assert "subject" not in tiny_checkpoint.recipe.to_dict()
    other = replace(tiny_checkpoint.recipe, subject=Subject(name="x", class_names=FASHION.class_names))
    assert other.sha256 != tiny_checkpoint.recipe.sha256
