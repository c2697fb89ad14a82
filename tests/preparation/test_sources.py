"""What each reader understands, and what it says about the rest."""

import gzip
import pickle
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from image_sources import (
    CLASSES,
    idx_bytes,
    images_of,
    labels_of,
    png,
    prepared,
    write_folders,
    write_hdf5,
    write_idx,
    write_npz,
    write_parquet,
)

from synthgen.errors import DataError, SynthgenError, UsageError
from synthgen.preparation.parts import natural
from synthgen.preparation.run import prepare
from synthgen.preparation.sources import open_source
from synthgen.untrusted.tables import _expect_sound_sizes

IMAGES, LABELS = images_of(), labels_of()
WIDE = images_of(240, size=(12, 20))


def refusal_of(path: Path) -> str:
    """What is said of a source that cannot be opened."""
    with pytest.raises(SynthgenError) as refusal:
        prepare(path, path.parent / "out", workers=1)
    assert "\n" not in str(refusal.value)
    assert not (path.parent / "out").exists()
    return str(refusal.value)


def taken(path: Path) -> tuple[np.ndarray, tuple[str, ...], list[int]]:
    """All images of an array source's training part as they stand, with the classes and labels."""
    part = open_source(path).train
    assert part is not None
    return np.concatenate(list(part.chunks())), part.class_names, part.labels.tolist()


def test_people_sort_like_this():
    names = ["b", "a10", "A2", "a2", "a", "10", "9", "009", "x1y2", "x1y10", ""]
    assert sorted(names, key=natural) == ["", "009", "9", "10", "a", "A2", "a2", "a10", "b", "x1y2", "x1y10"]


class TestAnything:
    def test_no_such_source(self, tmp_path):
        assert "no such file or folder; expected class folders, an IDX file" in refusal_of(tmp_path / "nowhere")

    def test_other_files(self, tmp_path):
        for name, content in (("a.png", png(IMAGES[0])), ("empty", b""), ("text.csv", b"label,pixel0\n")):
            (tmp_path / name).write_bytes(content)
            assert "of no kind that is understood; expected a folder" in refusal_of(tmp_path / name)


class TestFolders:
    def test_a_level_of_splits(self, tmp_path):
        root = tmp_path / "source"
        for split, count in (("Train", 240), ("test", 20), ("val", 8)):
            write_folders(root / split, images_of(count, seed=count), labels_of(count))
        notes: list[str] = []
        made = prepare(root, tmp_path / "out", workers=1, on_note=notes.append)
        assert made.counts == {"train": (60,) * 4, "test": (5,) * 4}
        assert notes == ["left out, being neither training nor test images: val/"]
        assert made.subject.class_names == CLASSES

    def test_classes_may_be_called_test(self, tmp_path):
        for name in ("test", "train", "prod"):
            (tmp_path / "source" / name).mkdir(parents=True)
            for i in range(70):
                (tmp_path / "source" / name / f"{i}.png").write_bytes(png(IMAGES[i]))
        assert prepare(tmp_path / "source", tmp_path / "out", workers=1).subject.class_names == (
            "prod",
            "test",
            "train",
        )

    def test_litter_and_notes_beside_the_classes_are_passed_over(self, tmp_path):
        root = write_folders(tmp_path / "source", IMAGES, LABELS)
        for name in (".DS_Store", "README.txt", "cat/.DS_Store", "cat/Thumbs.db", "cat/desktop.ini", "cat/._1.png"):
            (root / name).write_bytes(b"?")
        (root / ".git").mkdir()
        (root / "empty class").mkdir()
        made = prepare(root, tmp_path / "out", workers=1)
        assert made.subject.class_names == CLASSES
        assert made.treatment.skipped == 0

    def test_no_images(self, tmp_path):
        (tmp_path / "source" / "cat").mkdir(parents=True)
        assert "no images in class folders; expected one folder for each class" in refusal_of(tmp_path / "source")
        (tmp_path / "source" / "1.png").write_bytes(png(IMAGES[0]))
        assert "no images in class folders" in refusal_of(tmp_path / "source")

    def test_more_than_256_classes(self, tmp_path):
        for i in range(257):
            (tmp_path / "source" / str(i)).mkdir(parents=True)
            (tmp_path / "source" / str(i) / "1.png").touch()
        assert "257 classes; expected at most 256" in refusal_of(tmp_path / "source")

    def test_names_that_cannot_be_classes(self, tmp_path):
        for name in ("a\tb", "cat"):
            write_folders(tmp_path / "x", IMAGES[:100], LABELS[:100] * 0)
            (tmp_path / "x" / "bird").rename(tmp_path / "x" / name)
        assert "class name 'a\\tb': expected 1 to 100 printable characters" in refusal_of(tmp_path / "x")

    def test_mixed_sizes_and_formats(self, tmp_path):
        rng = np.random.default_rng(2)
        for i in range(200):
            folder = tmp_path / "source" / CLASSES[i % 2]
            folder.mkdir(parents=True, exist_ok=True)
            kind = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")[i % 5]
            image = rng.integers(0, 256, (int(rng.integers(1, 90)), int(rng.integers(1, 90)), 3), np.uint8)
            (folder / f"{i}.{kind.lower()}").write_bytes(png(image, kind))
        prepare(tmp_path / "source", tmp_path / "out", test_share=0, workers=2)
        assert prepared(tmp_path / "out")[0].shape == (200, 28, 28)

    def test_a_pipe_keeps_nobody_waiting(self, tmp_path):
        import os

        root = write_folders(tmp_path / "source", IMAGES, LABELS)
        os.mkfifo(root / "cat" / "pipe.png")
        assert "an image cannot be read, such as cat/pipe.png (no regular file)" in refusal_of(root)


class TestIdx:
    @pytest.mark.parametrize("packed", [True, False])
    def test_any_size_and_both_splits(self, tmp_path, packed: bool):
        write_idx(tmp_path / "source", WIDE, LABELS, packed=packed)
        write_idx(tmp_path / "source", WIDE[:40], LABELS[:40], "t10k", packed=packed)
        made = prepare(tmp_path / "source", tmp_path / "out", workers=1)
        assert made.counts == {"train": (60,) * 4, "test": (10,) * 4}
        assert made.subject.class_names == ("0", "1", "2", "3")

    def test_colours(self, tmp_path):
        write_idx(tmp_path / "source", images_of(240, size=(8, 8, 3)), LABELS)
        prepare(tmp_path / "source", tmp_path / "out", workers=1)

    def test_a_single_file_and_names_with_dots(self, tmp_path):
        write_idx(tmp_path, IMAGES, LABELS)
        for name in ("images-idx3", "labels-idx1"):
            (tmp_path / f"train-{name}-ubyte.gz").rename(tmp_path / f"my-{name.replace('-', '.')}-ubyte.gz")
        images, names, labels = taken(tmp_path / "my-images.idx3-ubyte.gz")
        np.testing.assert_array_equal(images, IMAGES)
        assert [int(names[label]) for label in labels] == LABELS.tolist()
        assert "name the one of images" in refusal_of(tmp_path / "my-labels.idx1-ubyte.gz")

    def test_labels_with_gaps_are_closed(self, tmp_path):
        write_idx(tmp_path / "source", IMAGES, LABELS * 50 + 7)
        assert prepare(tmp_path / "source", tmp_path / "out", workers=1).subject.class_names == (
            "7",
            "57",
            "107",
            "157",
        )
        assert sorted(set(prepared(tmp_path / "out")[1].tolist())) == [0, 1, 2, 3]

    def test_damage(self, tmp_path):
        folder = write_idx(tmp_path / "source", IMAGES, LABELS, packed=False)
        images, labels = folder / "train-images-idx3-ubyte", folder / "train-labels-idx1-ubyte"
        whole, marks = images.read_bytes(), labels.read_bytes()
        for path, content, words in (
            (images, whole[:-1], "cut short"),
            (images, whole + b"x", "longer than the 240 images"),
            (images, whole[:9], "cut short"),
            (images, b"\0\0\x0d\3" + whole[4:], "begins with 0x00000d03; expected 0x00000803"),
            (images, whole[:4] + b"\xff" * 8 + whole[12:], "more than the file can hold"),
            (images, idx_bytes(IMAGES[:239]), "239 images in 'images', but 240 labels"),
            (images, gzip.compress(whole)[:-20], "cannot be read as IDX"),
            (labels, marks[:-1], "cut short"),
            (labels, marks + b"x", "longer than the 240 labels"),
        ):
            images.write_bytes(whole)
            labels.write_bytes(marks)
            path.write_bytes(content)
            assert words in refusal_of(folder)
        labels.unlink()
        images.write_bytes(whole)
        assert "images without labels; expected train-labels-idx1-ubyte.gz beside it" in refusal_of(folder)


class TestNpz:
    @pytest.mark.parametrize(
        "names", [("images", "labels"), ("x_train", "y_train"), ("train_images", "train_labels"), ("X", "y")]
    )
    def test_usual_names(self, tmp_path, names):
        images, classes, labels = taken(write_npz(tmp_path / "x.npz", IMAGES, LABELS, names))
        np.testing.assert_array_equal(images, IMAGES)
        assert classes == CLASSES
        assert labels == LABELS.tolist()

    @pytest.mark.parametrize(
        "labels",
        [
            LABELS.astype(np.int64),
            LABELS.astype(np.int8)[:, None],
            LABELS.astype(">i4"),
            np.array([b"bird", b"cat", b"dog 10", b"dog 2"])[LABELS],
        ],
    )
    def test_labels_of_every_type(self, tmp_path, labels):
        np.savez(tmp_path / "x.npz", images=WIDE, labels=labels)
        assert len(taken(tmp_path / "x.npz")[1]) == 4

    @pytest.mark.parametrize("order", ["C", "F"])
    def test_rows_and_columns(self, tmp_path, order: str):
        np.savez(tmp_path / "x.npz", images=np.asarray(WIDE, order=order), labels=LABELS)
        np.testing.assert_array_equal(taken(tmp_path / "x.npz")[0], WIDE)

    def test_channels_first(self, tmp_path):
        colour = images_of(240, size=(9, 8, 3))
        np.savez(tmp_path / "x.npz", images=np.moveaxis(colour, 3, 1), labels=LABELS)
        np.testing.assert_array_equal(taken(tmp_path / "x.npz")[0], colour)

    def test_what_is_left_out_is_said(self, tmp_path):
        arrays = {"train_images": IMAGES, "train_labels": LABELS, "val_images": IMAGES, "val_labels": LABELS}
        np.savez(tmp_path / "x.npz", **arrays)
        notes: list[str] = []
        prepare(tmp_path / "x.npz", tmp_path / "out", workers=1, on_note=notes.append)
        assert notes == ["left out, being neither training nor test images: val_images, val_labels"]

    @pytest.mark.parametrize(
        ("arrays", "words"),
        [
            (
                {"images": IMAGES},
                "'images' has no labels beside it; expected images and labels, or x_train and y_train",
            ),
            ({"foo": IMAGES}, "no images under a name that is understood; .* found foo"),
            ({"images": IMAGES, "labels": LABELS[1:]}, "240 images in 'images', but 239 labels"),
            ({"images": IMAGES, "labels": LABELS / 2}, "labels are float64; expected integers or class names"),
            ({"images": IMAGES, "labels": np.eye(4)[LABELS]}, r"labels of shape \(240, 4\); expected one for an image"),
            ({"images": IMAGES.reshape(240, 784), "labels": LABELS}, r"shape \(240, 784\); expected \(images, rows"),
            ({"images": IMAGES[..., None].repeat(2, 3), "labels": LABELS}, r"shape \(240, 28, 28, 2\); expected"),
            ({"images": IMAGES[:, :, :0], "labels": LABELS}, r"shape \(240, 28, 0\); expected"),
            ({"images": np.array(CLASSES)[LABELS], "labels": LABELS}, "'images' is <U6; expected numbers"),
            (
                {"images": IMAGES / 16, "labels": LABELS},
                "x.npz: float64 values from 0 to 15.9.*; expected 0 to 1; scale",
            ),
            ({"images": IMAGES, "labels": np.arange(240) // 2 * 3}, "class '0' has 2 training images"),
            ({"images": images_of(300), "labels": np.arange(300)}, "300 classes; expected at most 256"),
            ({"images": IMAGES, "labels": np.array(CLASSES, object)[LABELS]}, "'labels' is no plain array"),
        ],
    )
    def test_what_does_not_fit_is_one_line(self, tmp_path, arrays, words: str):
        np.savez(tmp_path / "x.npz", **arrays)
        with pytest.raises(DataError, match=words):
            prepare(tmp_path / "x.npz", tmp_path / "out", workers=1)
        refusal_of(tmp_path / "x.npz")

    def test_no_code_is_run(self, tmp_path):
        class Bomb:
            def __reduce__(self):
                return Path.touch, (tmp_path / "ran",)

        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
            archive.writestr("images.npy", pickle.dumps(Bomb()))
            archive.writestr("labels.npy", pickle.dumps(Bomb()))
        assert "no plain array" in refusal_of(tmp_path / "x.npz")
        assert not (tmp_path / "ran").exists()

    def test_a_claim_of_more_than_there_is(self, tmp_path):
        write_npz(tmp_path / "small.npz", IMAGES, LABELS)
        with zipfile.ZipFile(tmp_path / "small.npz") as old, zipfile.ZipFile(tmp_path / "x.npz", "w") as new:
            for name in old.namelist():
                new.writestr(name, old.read(name).replace(b"(240, 28, 28)", b"(240, 28, 99)"))
        assert "which is not what it holds" in refusal_of(tmp_path / "x.npz")


class TestHdf5:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"chunks": True},
            {"chunks": True, "compression": "gzip"},
            {"chunks": True, "compression": "gzip", "shuffle": True},
            {"chunks": (7, 5, 6), "compression": "gzip"},
            {"chunks": (64, 12, 20), "compression": "gzip", "compression_opts": 9},
        ],
    )
    @pytest.mark.parametrize("dtype", ["u1", ">u2", "f4"])
    def test_every_layout(self, tmp_path, options, dtype: str):
        images = (WIDE / 255 if dtype == "f4" else WIDE).astype(dtype)
        write_hdf5(tmp_path / "x.h5", images, LABELS, **options)
        np.testing.assert_array_equal(taken(tmp_path / "x.h5")[0], images)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"compression": "lzf"}, "expected chunks packed by gzip or not at all"),
            ({"fletcher32": True}, "expected chunks packed by gzip or not at all"),
        ],
    )
    def test_other_packings_are_refused(self, tmp_path, options, words: str):
        assert words in refusal_of(write_hdf5(tmp_path / "x.h5", IMAGES, LABELS, **options))

    def test_what_is_not_stored_is_not_taken_for_black(self, tmp_path):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file.create_dataset("images", (10**9, 28, 28), np.uint8)
            file.create_dataset("labels", (10**9,), np.uint8)
        assert "which is not what it holds" in refusal_of(tmp_path / "x.h5")

    def test_links_and_texts(self, tmp_path):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file["images"] = h5py.ExternalLink("other.h5", "images")
            file["labels"] = LABELS
        assert "'images' is missing or a link" in refusal_of(tmp_path / "x.h5")
        with h5py.File(tmp_path / "y.h5", "w") as file:
            file["images"] = IMAGES
            file["labels"] = ["cat"] * 240
        assert "'labels' is object; expected numbers" in refusal_of(tmp_path / "y.h5")


class TestParquet:
    def test_without_pyarrow_the_extra_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        (tmp_path / "x.parquet").write_bytes(b"PAR1")
        with pytest.raises(UsageError, match=r"Parquet files need pyarrow: pip install 'synthgen\[parquet\]'"):
            prepare(tmp_path / "x.parquet", tmp_path / "out")

    @pytest.fixture
    def encoded(self) -> list[bytes]:
        pytest.importorskip("pyarrow")
        return [png(image) for image in IMAGES]

    def test_a_folder_as_the_hub_has_it(self, tmp_path, encoded):
        for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001", "validation-0-of-1"):
            write_parquet(tmp_path / "source" / "data" / f"{name}.parquet", encoded, LABELS)
        notes: list[str] = []
        made = prepare(tmp_path / "source", tmp_path / "out", workers=1, on_note=notes.append)
        assert made.counts == {"train": (120,) * 4, "test": (60,) * 4}
        assert made.subject.class_names == CLASSES
        assert "validation-0-of-1.parquet" in notes[0]

    def test_bytes_and_texts_without_metadata(self, tmp_path, encoded):
        import pyarrow
        import pyarrow.parquet

        for kind in (pyarrow.string(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string())):
            names = pyarrow.array([CLASSES[label] for label in LABELS]).cast(kind)
            table = pyarrow.table({"img": encoded, "label": names, "note": ["x"] * 240})
            pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
            part = open_source(tmp_path / "x.parquet").train
            assert part is not None
            assert part.class_names == CLASSES
            assert part.labels.tolist() == LABELS.tolist()

    def test_only_classes_that_occur(self, tmp_path, encoded):
        names = ("unused", *CLASSES, "unused too")
        source = write_parquet(tmp_path / "x.parquet", encoded, LABELS + 1, names=names)
        assert prepare(source, tmp_path / "out", workers=1).subject.class_names == CLASSES

    @pytest.mark.parametrize(
        ("labels", "names", "words"),
        [
            (LABELS + 1, CLASSES, "labels from 1 to 4, but 4 class names"),
            (LABELS.astype(int) - 1, CLASSES, "labels from -1 to 2, but 4 class names"),
            ([None, *LABELS[1:].tolist()], CLASSES, "1 rows have no label"),
        ],
    )
    def test_labels_without_a_name(self, tmp_path, encoded, labels, names, words: str):
        assert words in refusal_of(write_parquet(tmp_path / "x.parquet", encoded, labels, names=names))

    def test_rows_that_are_no_images(self, tmp_path, encoded):
        encoded[3], encoded[5] = None, b"?"
        source = write_parquet(tmp_path / "x.parquet", encoded, LABELS)
        notes: list[str] = []
        made = prepare(source, tmp_path / "out", workers=1, skip_unreadable=True, on_note=notes.append)
        assert made.treatment.skipped == 2
        assert notes[:2] == [
            "x.parquet, row 3 (3.png): holds no image file, at most the path of one",
            "x.parquet, row 5 (5.png): no image that Pillow can open",
        ]

    def test_a_claim_of_more_rows_than_there_are(self):
        group = SimpleNamespace(num_rows=240, total_byte_size=9000)

        def check(num_rows: int, *groups: SimpleNamespace) -> None:
            claims = SimpleNamespace(num_rows=num_rows, num_row_groups=len(groups), row_group=lambda i: groups[i])
            _expect_sound_sizes(claims, 9000)

        check(480, group, group)
        for num_rows, groups, words in (
            (240, (group, group), "do not have as many rows as the whole"),
            (0, (group, SimpleNamespace(num_rows=-240, total_byte_size=9)), "do not have as many rows"),
            (72_001, (SimpleNamespace(num_rows=72_001, total_byte_size=9),), "72,001 rows, more than it can hold"),
            (240, (SimpleNamespace(num_rows=240, total_byte_size=3 << 30),), "more than 2 GiB"),
        ):
            with pytest.raises(ValueError, match=words):
                check(num_rows, *groups)

    def test_columns_that_are_none(self, tmp_path, encoded):
        import pyarrow
        import pyarrow.parquet

        for table, words in (
            ({"a": encoded, "b": encoded, "label": LABELS}, "no one column of images among a, b, label"),
            ({"image": encoded, "kind": LABELS}, "no one column of labels among image, kind; call it 'label'"),
            ({"image": encoded, "label": LABELS / 2}, "column 'label' is double; expected integers or class names"),
            ({"image": ["x.png"] * 240, "label": LABELS}, "no one column of images"),
        ):
            pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "x.parquet")
            assert words in refusal_of(tmp_path / "x.parquet")


def test_real_digits_of_eight_pixels(tmp_path):
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    scaled = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    for i, (image, label) in enumerate(zip(scaled, digits.target, strict=True)):
        (tmp_path / "folders" / str(label)).mkdir(parents=True, exist_ok=True)
        (tmp_path / "folders" / str(label) / f"{i}.png").write_bytes(png(image))
    np.savez(tmp_path / "x.npz", images=scaled, labels=digits.target)
    made = [prepare(tmp_path / name, tmp_path / f"{name}-out", workers=1) for name in ("folders", "x.npz")]
    assert made[0].files == made[1].files
    assert sum(map(sum, made[0].counts.values())) == 1797
    images, labels = prepared(tmp_path / "x.npz-out")
    zero, one = images[labels == 0].mean(axis=0), images[labels == 1].mean(axis=0)
    assert zero[13:15, 13:15].mean() < 30  # a ring
    assert one[13:15, 13:15].mean() > 150  # a stroke
    assert "float64 values from 0 to 16; expected 0 to 1" in refusal_of_digits(tmp_path, digits)


def refusal_of_digits(tmp_path: Path, digits) -> str:
    np.savez(tmp_path / "raw.npz", images=digits.images, labels=digits.target)
    return refusal_of(tmp_path / "raw.npz")
