"""A set of images of one's own, measured against them: few, imbalanced, with and without test images."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import DATA, forge

from synthgen.errors import DataError, UsageError
from synthgen.evaluation import own_reference
from synthgen.evaluation import real as real_module
from synthgen.evaluation.classifiers import SMALL_CNN, TRAINERS, small_cnn
from synthgen.evaluation.material import QUICK, Material
from synthgen.evaluation.own_reference import KEPT_NAME, RECORD_NAME, reference_of
from synthgen.evaluation.reference import Reference
from synthgen.evaluation.report import render_report, summary
from synthgen.evaluation.run import Evaluation, evaluate
from synthgen.files import sha256_of_file, sha256_of_json
from synthgen.formats.idx import IDX_PREFIX, idx_header
from synthgen.real_images import RealImages, find_data, load_real_images
from synthgen.sets.manifest import load_manifest
from synthgen.subject import Subject, undescribed

CLOTHES = (1, 8, 9)  # stand for the user's classes 0, 1 and 2
TRAIN, TEST = (40, 25, 8), (9, 7, 0)  # images of each; of the rarest class none in the test split
OWN = undescribed(3)
LETTERS = Subject(name="Letters", class_names=("alpha", "beta", "gamma"))


@pytest.fixture(autouse=True)
def trainings(monkeypatch) -> list[int]:
    """CNNs are not trained, which takes seconds; the list holds how many images each was to be trained on."""
    asked: list[int] = []

    def untrained(images, labels, seed, epochs, progress, *, classes):
        asked.append(len(images))
        progress(1, 1)
        return small_cnn(classes)

    monkeypatch.setitem(TRAINERS, SMALL_CNN, TRAINERS["logistic regression"])
    monkeypatch.setattr(own_reference, "train_small_cnn", untrained)
    return asked


def few(split: str, counts: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The first images of the sample of each class, in turn shuffled."""
    real = load_real_images(split, DATA, official=False)
    chosen = [np.flatnonzero(real.labels == label)[:n] for label, n in zip(CLOTHES, counts, strict=True)]
    labels = np.repeat(np.arange(3, dtype=np.uint8), [len(places) for places in chosen])
    order = np.random.default_rng(0).permutation(len(labels))
    return real.images[np.concatenate(chosen)][order], labels[order]


def write_idx(folder: Path, split: str, images: np.ndarray, labels: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    prefix = IDX_PREFIX[split]
    (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx_header(len(images), images=True) + images.tobytes())
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_header(len(labels), images=False) + labels.tobytes())


@pytest.fixture
def data(tmp_path) -> Path:
    """A folder with both splits."""
    write_idx(tmp_path / "data", "train", *few("train", TRAIN))
    write_idx(tmp_path / "data", "test", *few("test", TEST))
    return tmp_path / "data"


@pytest.fixture
def train_alone(tmp_path) -> Path:
    """A folder without a test split."""
    write_idx(tmp_path / "alone", "train", *few("train", TRAIN))
    return tmp_path / "alone"


@pytest.fixture
def own(write_set) -> Callable[..., Path]:
    """Write images with labels 0 to 2 as a set of a generator of own images: ``own(images, labels, subject)``."""

    def write(images: np.ndarray, labels: np.ndarray, subject: Subject = OWN, holdout: int = 0) -> Path:
        folder = write_set(images, labels)

        def change(document: dict[str, Any]) -> None:
            checkpoint = document["checkpoint"]
            recipe = checkpoint["recipe"]
            recipe["subject"] = {name: value for name, value in subject.to_dict().items() if value is not None}
            recipe["data"]["holdout"] = holdout
            checkpoint["recipe_sha256"] = sha256_of_json(recipe)
            document["class_names"] = list(subject.class_names)
            document["class_counts"] = document["class_counts"][: subject.num_classes]

        forge(folder, change)
        return folder

    return write


@pytest.fixture
def own_set(own) -> Path:
    """Some altered training images, as a set of three classes of which nobody has said what they show."""
    images, labels = few("train", (10, 10, 8))
    return own(np.roll(images, 1, axis=2), labels)


def measure(folder: Path, data: Path, **options) -> Evaluation:
    return evaluate(folder, data, **{"quick": True, **options})


def test_three_classes_are_measured_by_their_own_classifier_and_names(own_set, data):
    found = measure(own_set, data, quick=False)
    assert found.manifest.subject.num_classes == 3
    document = found.to_dict()
    assert document["class_names"] == ["class 0", "class 1", "class 2"]
    assert np.shape(document["utility"][0]["synthetic"]["confusion"]) == (3, 3)
    assert len(document["recognition"]["taken_for"]) == 3
    assert document["real"]["reference_sha256"] == sha256_of_file(data / KEPT_NAME)
    assert "trained on these very training images" in document["fidelity"]["statement"]
    assert json.dumps(document, allow_nan=False)
    outcome = found.utility[0].synthetic
    assert outcome.per_class[2] is None
    assert outcome.per_class[0] > 0.5
    text = render_report(found)
    assert "real test images of own images" in text
    assert "Fashion-MNIST" not in text.replace("not the official Fashion-MNIST", "")
    assert "class 2" in text
    assert "(shows real images)</title>" in text
    assert "(shows real images)" not in render_report(found.to_share())
    notes = " ".join(found.notes)
    assert "The real test images hold no class 2" in notes
    assert "only 16 real test images: accuracies on them are certain to about ± 24 percentage points" in notes
    assert "kept beside them" in notes
    assert "Dress" not in text


@pytest.fixture
def reference(own_set):
    """Get the reference classifier of a folder's images: ``reference(folder)``."""

    def get(data: Path) -> Reference:
        train = load_real_images("train", data, official=False)
        material = Material.of(own_set, load_manifest(own_set), train, None, QUICK, 1, lambda stage, done, of: None)
        return reference_of(material, data)

    return get


def test_the_reference_is_kept_with_its_record_and_used_for_the_same_images_only(reference, data, trainings):
    first = reference(data)
    record = json.loads((data / RECORD_NAME).read_text())
    train = load_real_images("train", data, official=False)
    assert record["training_sha256"] == train.sha256
    assert record["weights_sha256"] == first.sha256 == sha256_of_file(data / KEPT_NAME)
    assert "without any protection: keep it as private as the images" in record["notice"]
    again = reference(data)
    assert len(trainings) == 1
    features = [np.asarray(each.model(train.images[..., None])[0]) for each in (first, again)]
    assert np.allclose(*features)
    images = train.images.copy()
    images[0, 0, 0] ^= 1
    write_idx(data, "train", images, train.labels)
    assert reference(data).sha256 != first.sha256
    assert len(trainings) == 2
    assert json.loads((data / RECORD_NAME).read_text())["training_sha256"] != record["training_sha256"]


@pytest.mark.parametrize("damage", ["cut", "no json", "a list", "other arrays", "a link", "not finite"])
def test_a_kept_reference_of_others_is_trained_anew(reference, data, trainings, tmp_path, damage: str):
    reference(data)
    kept, record = data / KEPT_NAME, data / RECORD_NAME
    document = json.loads(record.read_text())
    if damage == "cut":
        kept.write_bytes(kept.read_bytes()[:-100])
    elif damage == "no json":
        record.write_text("{" * 100)
    elif damage == "a list":
        record.write_text("[]")
    elif damage == "a link":
        shutil.move(kept, tmp_path / "elsewhere.npz")
        kept.symlink_to(tmp_path / "elsewhere.npz")
    else:
        with np.load(kept) as opened:
            arrays = dict(opened)
        if damage == "other arrays":
            arrays["weight_00"] = arrays["weight_00"][..., :1]
        else:
            arrays["weight_00"][0] = np.nan
        np.savez(kept, **arrays)
        document["weights_sha256"] = sha256_of_file(kept)
        record.write_text(json.dumps(document))
    found = reference(data)
    assert len(trainings) == 2
    assert not kept.is_symlink()
    assert found.sha256 == json.loads(record.read_text())["weights_sha256"] == sha256_of_file(kept)
    assert reference(data).sha256 == found.sha256
    assert len(trainings) == 2


def test_where_it_cannot_be_kept_a_note_says_so(own_set, data, monkeypatch):
    def refuse(path, model):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(own_reference, "save_reference", refuse)
    found = measure(own_set, data)
    assert any("could not be kept beside them (Permission denied)" in note for note in found.notes)
    assert found.real["reference_sha256"] is None
    assert not (data / KEPT_NAME).exists()
    assert "reference classifier trained on the real images" in render_report(found)


def test_what_is_shared_has_no_hash_of_a_classifier_of_private_images(own_set, data):
    shared = measure(own_set, data).to_share()
    assert set(shared.to_dict()["real"]) == {"training_images", "test_images", "official"}
    assert render_report(shared)


def test_without_a_test_split_what_cannot_be_told_is_null(own_set, train_alone):
    found = measure(own_set, train_alone, quick=False)
    document = found.to_dict()
    assert document["utility"] is None
    assert document["recognition"]["real"] is document["fidelity"]["real"] is document["memorisation"]["real"] is None
    assert document["real"]["test_sha256"] is None
    closeness = document["memorisation"]["synthetic"]
    unknown = {name for name, value in closeness.items() if value is None}
    assert unknown == {
        "part_quantiles",
        "test_quantiles",
        "ratio",
        "nearer_to_training",
        "near_copies",
        "part_histogram",
        "test_histogram",
    }
    assert closeness["exact_copies"] == 0
    assert document["memorisation"]["repetition"]["near_duplicates"] is None
    assert document["recognition"]["synthetic"]["per_class"][0] is not None
    assert any("--holdout N" in note and "no real test images" in note for note in found.notes)
    assert any("not to be told: no real test images" in line for line in summary(found))
    page = render_report(found)
    assert "There are no real test images" in page
    assert "train on synthetic, test on real" not in page
    assert json.dumps(document, allow_nan=False)


def test_copies_are_found_without_a_test_split(own, train_alone):
    assert measure(own(*few("train", (10, 10, 8))), train_alone).memorisation.synthetic.exact_copies == 28


def test_a_holdout_stands_for_the_test_split_and_was_not_seen_by_the_reference(own_set, train_alone, trainings):
    found = measure(own_set, train_alone, holdout=20)
    assert (found.real["training_images"], found.real["test_images"]) == (53, 20)
    assert found.utility
    assert trainings == [json.loads((train_alone / RECORD_NAME).read_text())["training_images"]] == [53]
    assert any("trained on all of them" in note for note in found.notes)
    assert found.utility[0].real.balanced is not None
    words = f"balanced {100 * found.utility[0].synthetic.balanced:.1f} %"
    assert any(words in line for line in summary(found))
    assert words.removeprefix("balanced ") in render_report(found)
    assert "balanced_accuracy" in found.to_dict()["utility"][0]["real"]


def test_a_recipe_that_held_the_images_out_needs_no_warning(own, train_alone):
    folder = own(*few("train", (10, 10, 8)), holdout=20)
    within, beyond = (" ".join(measure(folder, train_alone, holdout=n).notes) for n in (20, 30))
    assert "stand for test images" not in within
    assert "trained on some of them" in beyond


def described(monkeypatch, subject: Subject) -> None:
    """Let the images say what they show, as those of ``synthgen prepare`` do."""

    def load(*args, **kwargs) -> RealImages:
        return replace(load_real_images(*args, **kwargs), subject=subject)

    monkeypatch.setattr(real_module, "load_real_images", load)


def test_names_must_be_the_same_where_both_are_known(own, own_set, data, monkeypatch):
    described(monkeypatch, LETTERS)
    found = measure(own(*few("train", (10, 10, 8)), LETTERS), data)
    assert found.to_dict()["class_names"] == ["alpha", "beta", "gamma"]
    assert any("Measured against Letters" in note for note in found.notes)
    assert "real test images of Letters" in render_report(found)
    with pytest.raises(DataError, match=r"Letters, 3 classes: alpha, beta, gamma; the set shows own images") as refusal:
        measure(own_set, data)
    assert "\n" not in str(refusal.value)


def test_a_set_of_clothes_is_not_judged_by_other_images(write_set, data, monkeypatch):
    train = load_real_images("train", DATA, official=False)
    clothes = write_set(train.images[:20], train.labels[:20])
    with pytest.raises(DataError, match=r"own images, 3 classes: .*; the set shows Fashion-MNIST, ten classes"):
        measure(clothes, data, official=False)
    digits = undescribed(10)
    described(monkeypatch, replace(digits, name="Digits", class_names=tuple("0123456789")))
    with pytest.raises(DataError, match="Digits, ten classes: 0, 1, 2, …; the set shows Fashion-MNIST"):
        measure(clothes, DATA, official=False)


def test_images_of_ten_classes_that_are_no_clothes_are_found_out(write_set, tmp_path):
    train = load_real_images("train", DATA, official=False)
    clothes = write_set(train.images[:20], train.labels[:20])
    for split in ("train", "test"):
        real = load_real_images(split, DATA, official=False)
        write_idx(tmp_path / "other", split, real.images, (real.labels + 1) % 10)
    with pytest.raises(DataError, match=r"not Fashion-MNIST, whose classifier agrees with \d+ % of their labels"):
        measure(clothes, tmp_path / "other", official=False)
    assert not (tmp_path / "other" / KEPT_NAME).exists()


def test_a_set_of_own_images_needs_their_folder(own_set, monkeypatch):
    monkeypatch.delenv("SYNTHGEN_DATA", raising=False)
    monkeypatch.setattr(real_module, "find_data", lambda *_: pytest.fail("looks for Fashion-MNIST"))
    with pytest.raises(UsageError, match=r"own images, 3 classes.*--data FOLDER"):
        measure(own_set, None)


def test_a_test_label_beyond_the_classes_is_one_line(own_set, data):
    images, labels = few("test", TEST)
    labels[0] = 7
    write_idx(data, "test", images, labels)
    with pytest.raises(DataError, match="label 7 in the test split; expected at most 2"):
        measure(own_set, data)


def test_one_real_image_of_each_kind_gives_what_can_be_given(own_set, tmp_path):
    images, labels = few("train", (1, 1, 1))
    write_idx(tmp_path / "tiny", "train", images, labels)
    write_idx(tmp_path / "tiny", "test", images[:1], labels[:1])
    found = measure(own_set, tmp_path / "tiny", quick=False)
    assert found.fidelity.synthetic.kernel is None
    assert any("for real test images no Fréchet distance: 1 images" in note for note in found.notes)
    assert json.dumps(found.to_dict(), allow_nan=False)
    assert render_report(found)


def test_a_folder_with_a_training_split_alone_is_data(train_alone, tmp_path):
    assert find_data(train_alone) == train_alone
    (train_alone / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="no Fashion-MNIST here"):
        find_data(train_alone)


@pytest.mark.slow
def test_real_digits_as_a_set_are_useful_and_rightly_labelled(write_set, monkeypatch, tmp_path):
    """A second real data set, with the real CNN and the reference classifier trained in earnest."""
    monkeypatch.undo()
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    small = (digits.images * (255 / 16)).astype(np.uint8)
    images = np.stack([np.asarray(Image.fromarray(image).resize((28, 28))) for image in small])
    labels = digits.target.astype(np.uint8)
    write_idx(tmp_path / "digits", "train", images[:1500], labels[:1500])
    write_idx(tmp_path / "digits", "test", images[1500:], labels[1500:])
    folder = write_set(images[:1500], labels[:1500])

    def change(document: dict[str, Any]) -> None:
        recipe = document["checkpoint"]["recipe"]
        recipe["subject"] = {"name": OWN.name, "class_names": list(undescribed(10).class_names)}
        document["checkpoint"]["recipe_sha256"] = sha256_of_json(recipe)
        document["class_names"] = recipe["subject"]["class_names"]

    forge(folder, change)
    found = measure(folder, tmp_path / "digits")
    assert found.utility[0].synthetic.mean > 0.9
    assert found.recognition.synthetic.mean > 0.95
    assert found.memorisation.synthetic.exact_copies == 1500
