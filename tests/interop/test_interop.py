"""Every format loads in the libraries its users have, with right counts, pixels, labels and class names.

Run with ``make test-interop``, which installs those libraries; a library that is missing skips its tests.
"""

import bisect
import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from synthgen.export.run import generate, plan_export
from synthgen.export.splits import generate_splits, plan_splits
from synthgen.formats.table import FORMATS
from synthgen.sets.manifest import load_manifest
from synthgen.sets.reading import read_set
from synthgen.sets.verification import verify
from synthgen.subject import CLASS_NAMES, FASHION

pytestmark = pytest.mark.interop
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")  # nothing here may wait for a network
os.environ.setdefault("HF_HUB_OFFLINE", "1")

COUNT = 300
FOLDERS = [FASHION.class_folder(label) for label in range(10)]


@pytest.fixture(scope="session")
def interop_set(tiny_checkpoint, tmp_path_factory) -> Callable[..., Path]:
    """``interop_set(file_format, place="")``: 300 images, two shards where the format has any, exported once."""

    made: dict[tuple[str, str], Path] = {}

    def exported(file_format: str, place: str = "") -> Path:
        if (file_format, place) not in made:
            out = tmp_path_factory.mktemp("interop") / file_format / place
            plan = plan_export(
                tiny_checkpoint, count=COUNT, file_format=file_format, shards=1 if FORMATS[file_format].one_file else 2
            )
            generate(tiny_checkpoint, plan, out, allow_unprotected=True)
            made[file_format, place] = out
        return made[file_format, place]

    return exported


@pytest.fixture(scope="session")
def expected(interop_set) -> tuple[np.ndarray, np.ndarray]:
    """Images (300, 28, 28) and labels (300,), by our own reader."""

    folder = interop_set("npz")
    batches = list(read_set(folder, load_manifest(folder)))
    return np.concatenate([b.images for b in batches]), np.concatenate([b.labels for b in batches])


@pytest.fixture(scope="session")
def by_class(expected) -> tuple[np.ndarray, np.ndarray]:
    """The same, class by class and in each by number: the order of an image folder."""
    order = np.argsort(expected[1], kind="stable")
    return expected[0][order], expected[1][order]


@pytest.fixture(scope="session")
def torchvision():
    """torchvision, also beside a torch without CUDA: its compiled operators are not needed to read images."""
    torch = pytest.importorskip("torch")
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    operators = torch.library.Library("torchvision", "FRAGMENT")  # of no use once it goes out of scope
    try:
        import torchvision
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        import torchvision
    import torchvision.datasets

    yield torchvision
    del operators


@pytest.fixture(scope="session")
def split_set(
    tiny_checkpoint, tmp_path_factory
) -> Callable[..., tuple[Path, dict[str, tuple[np.ndarray, np.ndarray]]]]:
    """``split_set(format, place)``: 300 training and 50 test images below ``root / place``; root, content by split."""

    def exported(file_format: str, place: str):
        root = tmp_path_factory.mktemp("splits")
        exports = plan_splits(tiny_checkpoint, f"train={COUNT},test=50", file_format=file_format)
        manifests = generate_splits(tiny_checkpoint, exports, root / place, allow_unprotected=True)
        sets = {}
        for manifest in manifests:
            batches = list(read_set(root / place, manifest))
            sets[manifest.split] = tuple(
                np.concatenate([getattr(b, name) for b in batches]) for name in ("images", "labels")
            )
        return root, sets

    return exported


def assert_equal(found_images, found_labels, expected) -> None:
    np.testing.assert_array_equal(np.asarray(found_images).reshape(-1, 28, 28), expected[0])
    np.testing.assert_array_equal(np.asarray(found_labels), expected[1])


# TFRecord


def test_tensorflow_datasets_builder_from_directory(interop_set, expected):
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder_from_directory(str(interop_set("tfrecord")))
    assert builder.info.splits["train"].num_examples == COUNT
    assert builder.info.features["label"].names == list(CLASS_NAMES)
    read = tfds.ReadConfig(interleave_cycle_length=1)
    pairs = list(builder.as_dataset(split="train", as_supervised=True, read_config=read).as_numpy_iterator())
    assert pairs[0][0].shape == (28, 28, 1)
    assert_equal([image for image, _ in pairs], [label for _, label in pairs], expected)


def test_tensorflow_datasets_load_by_name(interop_set, expected):
    tfds = pytest.importorskip("tensorflow_datasets")
    out = interop_set("tfrecord", place="fashion_mnist_synth/1.0.0")
    data_dir = str(out.parents[1])
    read = tfds.ReadConfig(interleave_cycle_length=1)
    loaded = tfds.load("fashion_mnist_synth", data_dir=data_dir, split="train", as_supervised=True, read_config=read)
    pairs = list(loaded.as_numpy_iterator())
    assert_equal([image for image, _ in pairs], [label for _, label in pairs], expected)


# PNG


def test_keras_image_dataset_from_directory(interop_set, by_class):
    import keras

    options = {"color_mode": "grayscale", "image_size": (28, 28), "shuffle": False, "batch_size": COUNT}
    loaded = keras.utils.image_dataset_from_directory(interop_set("png") / "train", verbose=False, **options)
    assert loaded.class_names == FOLDERS
    images, labels = next(iter(loaded))
    assert_equal(images.numpy(), labels.numpy(), by_class)


def test_torchvision_image_folder(interop_set, by_class, torchvision):
    loaded = torchvision.datasets.ImageFolder(interop_set("png") / "train")
    assert loaded.classes == FOLDERS
    assert_equal([np.asarray(image)[..., 0] for image, _ in loaded], loaded.targets, by_class)


@pytest.mark.parametrize("how", ["imagefolder", "folder", "train"])
def test_hugging_face_image_folder(interop_set, by_class, tmp_path, how: str):
    datasets = pytest.importorskip("datasets")
    folder = interop_set("png")
    if how == "folder":  # the card's front matter says where the images are
        loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path))
    else:
        data_dir = str(folder / "train") if how == "train" else str(folder)
        loaded = datasets.load_dataset("imagefolder", data_dir=data_dir, cache_dir=str(tmp_path))
    assert list(loaded) == ["train"]
    assert loaded["train"].features["label"].names == FOLDERS
    images = [np.asarray(image) for image in loaded["train"]["image"]]
    assert_equal(images, loaded["train"]["label"], by_class)


# HDF5


def test_hugging_face_hdf5(interop_set, expected, tmp_path):
    datasets = pytest.importorskip("datasets")
    files = sorted(str(path) for path in interop_set("hdf5").glob("train-*.h5"))
    loaded = datasets.load_dataset("hdf5", data_files=files, cache_dir=str(tmp_path), split="train")
    assert_equal(loaded["images"], loaded["labels"], expected)


def test_hugging_face_hdf5_by_folder(interop_set, expected, tmp_path):
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(interop_set("hdf5")), cache_dir=str(tmp_path))
    assert list(loaded) == ["train"]
    assert_equal(loaded["train"]["images"], loaded["train"]["labels"], expected)


def test_a_torch_dataset_over_several_shards_with_random_access(interop_set, expected):
    torch = pytest.importorskip("torch")
    import h5py

    class Shards(torch.utils.data.Dataset):
        def __init__(self, paths):
            self.files = [h5py.File(path) for path in paths]
            self.ends = np.cumsum([len(file["labels"]) for file in self.files]).tolist()

        def __len__(self):
            return self.ends[-1]

        def __getitem__(self, index):
            shard = bisect.bisect_right(self.ends, index)
            row = index - (self.ends[shard - 1] if shard else 0)
            return torch.from_numpy(self.files[shard]["images"][row]), int(self.files[shard]["labels"][row])

    data = Shards(sorted(interop_set("hdf5").glob("train-*.h5")))
    assert len(data) == COUNT
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0)).tolist()
    loader = torch.utils.data.DataLoader(torch.utils.data.Subset(data, order), batch_size=64)
    batches = list(loader)
    images, labels = torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches])
    assert_equal(images.numpy(), labels.numpy(), (expected[0][order], expected[1][order]))


# IDX


def test_torchvision_fashion_mnist_without_download(split_set, torchvision):
    root, sets = split_set("idx-raw", "FashionMNIST/raw")
    for split, expected in sets.items():
        loaded = torchvision.datasets.FashionMNIST(root, train=split == "train", download=False)
        assert loaded.classes == list(CLASS_NAMES)
        assert_equal(loaded.data.numpy(), loaded.targets.numpy(), expected)


def test_keras_fashion_mnist_load_data(split_set, tmp_path):
    home, sets = split_set("idx", "datasets/fashion-mnist")
    code = (
        "import sys, keras, numpy as np; (a, b), (c, d) = keras.datasets.fashion_mnist.load_data();"
        "np.savez(sys.argv[1], a=a, b=b, c=c, d=d)"
    )
    environment = {**os.environ, "KERAS_HOME": str(home)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.npz")], check=True, env=environment)
    with np.load(tmp_path / "x.npz") as loaded:
        assert_equal(loaded["a"], loaded["b"], sets["train"])
        assert_equal(loaded["c"], loaded["d"], sets["test"])


# Two splits


def test_tensorflow_datasets_sees_two_splits(split_set):
    tfds = pytest.importorskip("tensorflow_datasets")
    root, sets = split_set("tfrecord", "set")
    builder = tfds.builder_from_directory(str(root / "set"))
    for split, expected in sets.items():
        pairs = list(builder.as_dataset(split=split, as_supervised=True).as_numpy_iterator())
        assert_equal([image for image, _ in pairs], [label for _, label in pairs], expected)


@pytest.mark.parametrize("file_format", ["png", "hdf5"])
def test_hugging_face_sees_two_splits(split_set, tmp_path, file_format: str):
    datasets = pytest.importorskip("datasets")
    root, sets = split_set(file_format, "set")
    loaded = datasets.load_dataset(str(root / "set"), cache_dir=str(tmp_path))
    assert {name: len(split) for name, split in loaded.items()} == {"train": COUNT, "test": 50}
    label = "label" if file_format == "png" else "labels"
    for split, (_, labels) in sets.items():
        np.testing.assert_array_equal(np.sort(loaded[split][label]), np.sort(labels))


def test_croissant_iterates_over_both_splits(split_set):
    mlcroissant = pytest.importorskip("mlcroissant")
    root, sets = split_set("png", "set")
    records = list(mlcroissant.Dataset(str(root / "set" / "croissant.json")).records("images"))
    for split, (_, labels) in sets.items():
        found = [record["images/label"] for record in records if record["images/split"] == split.encode()]
        np.testing.assert_array_equal(np.sort(found), np.sort(labels))


# All


@pytest.mark.parametrize("file_format", FORMATS)
def test_croissant_is_valid_and_tells_the_provenance(interop_set, file_format: str, caplog):
    mlcroissant = pytest.importorskip("mlcroissant")
    folder = interop_set(file_format)
    with caplog.at_level(logging.WARNING):
        dataset = mlcroissant.Dataset(str(folder / "croissant.json"))
    assert not list(dataset.metadata.ctx.issues.errors)
    warnings = [w for w in dataset.metadata.ctx.issues.warnings if "datePublished" not in w]  # see croissant.py
    assert not warnings
    assert "context` is not standard" not in caplog.text

    import rdflib

    graph = rdflib.Graph().parse(data=(folder / "croissant.json").read_text("utf-8"), format="json-ld")
    prov, manifest = rdflib.Namespace("http://www.w3.org/ns/prov#"), load_manifest(folder)
    (checkpoint,) = graph.objects(None, prov.wasDerivedFrom)
    assert str(checkpoint) == f"urn:sha256:{manifest.checkpoint.sha256}"
    (activity,) = graph.objects(None, prov.wasGeneratedBy)
    assert (activity, prov.used, checkpoint) in graph
    assert (activity, rdflib.RDF.type, prov.Activity) in graph
    schema = rdflib.Namespace("https://schema.org/")
    told = {
        str(graph.value(node, schema.name)): str(graph.value(node, schema.value))
        for node in graph.objects(activity, schema.additionalProperty)
    }
    assert told["seed"] == str(manifest.seed)
    assert told["privacy guarantee"] == "none"


def test_croissant_iterates_over_png(interop_set, expected):
    mlcroissant = pytest.importorskip("mlcroissant")
    records = list(mlcroissant.Dataset(str(interop_set("png") / "croissant.json")).records("images"))
    records.sort(key=lambda record: record["images/id"])
    assert [record["images/id"] for record in records] == list(range(COUNT))
    assert {record["images/split"] for record in records} == {b"train"}
    images = [np.asarray(record["images/image"].convert("L")) for record in records]  # mlcroissant gives RGB
    assert_equal(images, [record["images/label"] for record in records], expected)


def test_croissant_names_the_classes(interop_set):
    mlcroissant = pytest.importorskip("mlcroissant")
    records = list(mlcroissant.Dataset(str(interop_set("npz") / "croissant.json")).records("classes"))
    assert [record["classes/name"] for record in records] == list(CLASS_NAMES)


def test_croissant_hashes_are_the_files(interop_set):
    folder = interop_set("hdf5")
    named = {f["contentUrl"]: f["sha256"] for f in json.loads((folder / "croissant.json").read_text())["distribution"]}
    shards = {f.name: f.sha256 for shard in load_manifest(folder).shards for f in shard.files}
    assert shards.items() <= named.items()


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_cards_three_lines_load_the_set(interop_set, expected, file_format: str, tmp_path):
    if file_format == "tfrecord":
        pytest.importorskip("tensorflow_datasets")
    folder = interop_set(file_format)
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text("utf-8"), re.DOTALL)
    assert len(code.splitlines()) <= 3
    if file_format in ("tfrecord", "png"):
        code += "labels = [int(l) for item in train for l in __import__('numpy').ravel(item[1])]\n"
    code += "import numpy; numpy.save(__import__('sys').argv[1], numpy.sort(labels))"
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "labels.npy")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), np.sort(expected[1]))
    assert verify(folder).sound  # loading leaves nothing behind
