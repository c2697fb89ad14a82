import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from support import DATA, forge, undescribed

from synthgen.errors import DataError, EvaluationError, UsageError, VerificationError
from synthgen.evaluation import material, utility
from synthgen.evaluation import real as real_module
from synthgen.evaluation.classifiers import SMALL_CNN, TRAINERS
from synthgen.evaluation.report import render_report, summary
from synthgen.evaluation.run import Evaluation, evaluate
from synthgen.files import sha256_of_json
from synthgen.real_images import load_real_images


@pytest.fixture(autouse=True)
def quick_stand_in(monkeypatch):
    """The CNN takes seconds to train; test_classifiers.py and test_cli.py train the real one."""
    monkeypatch.setitem(TRAINERS, SMALL_CNN, TRAINERS["logistic regression"])


@pytest.fixture(scope="module")
def train():
    return load_real_images("train", DATA, official=False)


def measure(folder, **options) -> Evaluation:
    return evaluate(folder, DATA, official=False, **{"quick": True, **options})


def test_real_training_images_as_a_set_are_useful_alike_and_found_out(write_set, train, tmp_path):
    stages = []
    folder = write_set(train.images, train.labels)
    found = measure(folder, quick=False, progress=lambda stage, done, of: stages.append((stage, done, of)))
    assert [u.classifier for u in found.utility] == ["small CNN", "logistic regression", "small MLP"]
    assert found.utility[1].synthetic.mean > 0.7
    assert found.utility[1].ratio == pytest.approx(1, abs=0.03)
    assert found.recognition.synthetic.mean > 0.85
    assert found.fidelity.synthetic.frechet == pytest.approx(0, abs=1e-3)
    assert found.fidelity.synthetic.manifolds == (1, 1)
    assert found.memorisation.synthetic.exact_copies == 500
    assert found.memorisation.synthetic.near_copies == 1
    assert all(done <= of for _, done, of in stages)
    assert {"verifying", "features of the set", "nearest among real images"} <= {stage for stage, _, _ in stages}
    document = found.to_dict()
    found.write(tmp_path / "evaluation.json")
    assert json.loads((tmp_path / "evaluation.json").read_text()) == json.loads(json.dumps(document))
    assert document["utility"][1]["synthetic"]["mean"] == found.utility[1].synthetic.mean
    assert document["set"]["digest"] == found.manifest.digest
    assert "not the Inception FID of papers" in document["fidelity"]["statement"]


def test_noise_is_neither_useful_nor_alike_nor_copied(write_set):
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, 200, dtype=np.uint8)
    found = measure(write_set(random.integers(0, 256, (200, 28, 28), dtype=np.uint8), labels))
    assert found.fidelity.synthetic.frechet > 50
    assert found.fidelity.synthetic.manifolds.recall == 0
    assert found.fidelity.synthetic.balls.coverage < 0.2
    assert found.recognition.synthetic.mean < 0.3
    assert found.memorisation.synthetic.near_copies == 0
    assert found.memorisation.repetition.near_duplicates == 0
    assert sum(found.recognition.taken_for) == 200


def test_wrong_labels_are_seen_by_recognition_class_by_class(write_set, train):
    labels = train.labels.copy()
    labels[train.labels == 3] = 8
    found = measure(write_set(train.images, labels))
    assert found.recognition.synthetic.per_class[3] is None
    assert found.recognition.synthetic.per_class[8] < 0.65
    assert found.recognition.synthetic.per_class[1] > 0.85
    assert "holds no Dress" in " ".join(found.notes)


def test_an_unlabelled_set_has_no_utility_and_says_so(write_set, train):
    found = measure(write_set(train.images[:300], None), quick=False)
    assert found.utility == ()
    assert found.recognition.synthetic is None
    assert found.memorisation.synthetic.exact_copies == 300
    assert any("has no labels" in note for note in found.notes)
    assert json.dumps(found.to_dict(), allow_nan=False)


def test_one_class_only_scores_its_share(write_set, train):
    chosen = train.labels == 9
    found = measure(write_set(train.images[chosen], train.labels[chosen]), quick=False)
    test = load_real_images("test", DATA, official=False)
    for usefulness in found.utility:
        assert usefulness.synthetic.mean == (test.labels == 9).mean()
    assert any("holds no T-shirt/top, Trouser" in note for note in found.notes)


def test_constant_images_give_numbers_and_a_note(write_set):
    found = measure(write_set(np.full((150, 28, 28), 77, np.uint8), np.arange(150, dtype=np.uint8) % 10), quick=False)
    assert "All images are equal: nothing can be learnt from them." in found.notes
    assert found.memorisation.repetition.exact_duplicates == 150
    assert found.fidelity.synthetic.manifolds.recall == 0
    assert json.dumps(found.to_dict(), allow_nan=False)


def test_fewer_images_than_features_give_no_frechet_distance(write_set, train):
    found = measure(write_set(train.images[:100], train.labels[:100]))
    assert found.fidelity.synthetic.frechet is None
    assert found.fidelity.synthetic.kernel is not None
    assert any("100 images are too few for 128 features" in note for note in found.notes)


def test_a_set_of_one_image_gives_what_can_be_given(write_set, train):
    found = measure(write_set(train.images[:1], train.labels[:1]), quick=False)
    assert found.memorisation.repetition is None
    assert found.memorisation.synthetic.exact_copies == 1
    assert json.dumps(found.to_dict(), allow_nan=False)


def test_seeds_give_a_spread(write_set, train):
    found = measure(write_set(train.images[:60], train.labels[:60]), seeds=2)
    assert len(found.utility[0].synthetic.accuracies) == 2
    with pytest.raises(UsageError, match="seeds 0: expected at least 1"):
        measure(write_set(train.images[:60], train.labels[:60]), seeds=0)


def test_a_set_that_is_not_what_it_claims_is_not_measured(write_set, train, tmp_path):
    folder = write_set(train.images[:20], train.labels[:20])
    shard = next(folder.glob("*.npz"))
    content = bytearray(shard.read_bytes())
    content[200] ^= 1
    shard.write_bytes(content)
    with pytest.raises(VerificationError, match=f"not what its manifest claims: {shard.name}.*altered") as refusal:
        measure(folder)
    assert "\n" not in str(refusal.value)
    shard.unlink()
    with pytest.raises(VerificationError, match=f"{shard.name}: missing"):
        measure(folder)
    with pytest.raises(VerificationError, match=r"no manifest\.json here"):
        measure(tmp_path)


def test_unofficial_real_images_need_a_word_and_leave_a_note(write_set, train, tmp_path):
    folder = write_set(train.images[:20], train.labels[:20])

    def make_official(document):
        document["checkpoint"]["recipe"]["data"]["official"] = True
        document["checkpoint"]["recipe_sha256"] = sha256_of_json(document["checkpoint"]["recipe"])

    forge(folder, make_official)
    with pytest.raises(DataError, match="not the official Fashion-MNIST"):
        evaluate(folder, undescribed(tmp_path), quick=True)
    notes = evaluate(folder, tmp_path, quick=True, official=False).notes
    assert any("not the official Fashion-MNIST" in note for note in notes)
    assert any("label 0 is taken for T-shirt/top" in note for note in notes)


def test_without_scikit_learn_quick_still_works(write_set, train, monkeypatch):
    folder = write_set(train.images[:20], train.labels[:20])
    monkeypatch.setitem(sys.modules, "sklearn.exceptions", None)
    with pytest.raises(EvaluationError, match="pip install 'synthgen"):
        measure(folder, quick=False)
    monkeypatch.setitem(TRAINERS, SMALL_CNN, lambda images, *others: lambda unseen: 0 * unseen[:, 0, 0])
    assert measure(folder).utility


def test_a_missing_inception_file_is_found_out_first(write_set, train, tmp_path):
    folder = write_set(train.images[:20], train.labels[:20])
    with pytest.raises(EvaluationError, match=r"none\.h5: no such file"):
        measure(folder, inception=tmp_path / "none.h5")


def test_inceptions_distance_stands_beside_where_its_weights_are_given(write_set, train, monkeypatch, tmp_path):
    """With some pixels in the place of its features; test_inception.py shows the network itself."""

    def some_pixels(model, images, progress):
        progress(len(images), len(images))
        return images.reshape(len(images), 784)[:, ::100].astype(np.float32)

    monkeypatch.setattr("synthgen.evaluation.inception.load_inception", lambda weights: weights)
    monkeypatch.setattr("synthgen.evaluation.inception.inception_features", some_pixels)
    found = measure(write_set(train.images, train.labels), inception=tmp_path / "weights.h5")
    assert found.inception.synthetic.frechet == pytest.approx(0, abs=1e-3)
    assert found.inception.real.frechet > 1
    document = found.to_dict()["inception"]
    assert document["synthetic"]["frechet_distance"] == found.inception.synthetic.frechet
    assert "weights of 2015" in document["statement"]
    assert "In Inception’s features" in render_report(found)
    assert any("Inception's features" in line for line in summary(found))


def test_the_reference_is_the_ceiling_only_of_a_full_official_training(write_set, train, monkeypatch):
    """Its answers stand in for a training only where that would be the very same one."""
    taken = []

    def remember(name, *args, known_ceiling=None, **kwargs):
        taken.append((name, known_ceiling is not None))
        return original(name, *args, known_ceiling=known_ceiling, **kwargs)

    for name in TRAINERS:  # what is trained does not matter here, only whether
        monkeypatch.setitem(TRAINERS, name, lambda *arguments: lambda unseen: np.zeros(len(unseen), np.uint8))
    original = utility.train_on_synthetic_test_on_real
    monkeypatch.setattr(utility, "train_on_synthetic_test_on_real", remember)
    folder = write_set(train.images, train.labels)
    measure(folder, quick=False)
    assert taken == [("small CNN", False), ("logistic regression", False), ("small MLP", False)]
    real = load_real_images
    monkeypatch.setattr(
        real_module, "load_real_images", lambda *args, official: replace(real(*args, official=False), official=True)
    )
    taken.clear()
    measure(folder, quick=False)
    assert taken[0] == ("small CNN", False)  # the reference classifier has seen more than these 500
    monkeypatch.setattr(material, "REFERENCE_IMAGES", 500)
    taken.clear()
    measure(folder, quick=False)
    assert taken == [("small CNN", True), ("logistic regression", False), ("small MLP", False)]
    taken.clear()
    measure(write_set(train.images[:400], train.labels[:400]), quick=False)
    assert taken[0] == ("small CNN", False)


def test_a_holdout_is_measured_on_the_last_training_images_and_no_test_image(write_set, train, monkeypatch):
    loaded = []
    real = load_real_images
    monkeypatch.setattr(
        real_module,
        "load_real_images",
        lambda split, *args, **kwargs: loaded.append(split) or real(split, *args, **kwargs),
    )
    folder = write_set(train.images[:400], train.labels[:400])
    found = measure(folder, holdout=100)
    assert loaded == ["train"]
    assert (found.real["training_images"], found.real["test_images"]) == (400, 100)
    assert found.memorisation.synthetic.exact_copies == 400
    for holdout in (-1, 500):
        with pytest.raises(UsageError, match=f"holdout {holdout}: expected 1 to 499"):
            measure(folder, holdout=holdout)
