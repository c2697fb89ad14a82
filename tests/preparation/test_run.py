"""``prepare`` as a whole: the same images give the same files; what is missing or odd is one line."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from image_sources import CLASSES, WRITERS, images_of, labels_of, png, prepared, write_folders, write_idx, write_npz
from PIL import Image

from synthgen.errors import DataError, SynthgenError, UsageError
from synthgen.preparation.record import SHEET_NAME, expect_files, read_data_json
from synthgen.preparation.run import prepare
from synthgen.real_images import load_real_images

IMAGES, LABELS = images_of(), labels_of()
FILES = ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz", "train-images-idx3-ubyte.gz",
         "train-labels-idx1-ubyte.gz"]  # fmt: skip


@pytest.fixture
def source(tmp_path) -> Path:
    return write_npz(tmp_path / "source.npz", IMAGES, LABELS)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """What is made of the images."""
    folder = tmp_path_factory.mktemp("data")
    prepare(write_npz(folder / "x.npz", IMAGES, LABELS), folder / "out", workers=1)
    return folder / "out"


@pytest.fixture(scope="module")
def expected(data) -> dict[str, bytes]:
    return {name: (data / name).read_bytes() for name in FILES}


class TestSameImages:
    @pytest.mark.parametrize("kind", WRITERS)
    def test_every_kind_of_source_gives_the_same_files(self, tmp_path, expected, kind: str):
        if kind == "parquet":
            pytest.importorskip("pyarrow")
        made = prepare(WRITERS[kind](tmp_path, IMAGES, LABELS), tmp_path / "out", class_names=CLASSES, workers=1)
        assert {name: (tmp_path / "out" / name).read_bytes() for name in FILES} == expected
        assert made.subject.class_names == CLASSES
        assert read_data_json(tmp_path / "out") == made
        expect_files(tmp_path / "out", made)

    def test_their_order_in_the_source_does_not_matter(self, tmp_path, expected):
        shuffled = np.random.default_rng(5).permutation(len(IMAGES))
        prepare(write_npz(tmp_path / "x.npz", IMAGES[shuffled], LABELS[shuffled]), tmp_path / "out", workers=1)
        assert {name: (tmp_path / "out" / name).read_bytes() for name in FILES} == expected

    def test_nor_does_the_number_of_processes(self, tmp_path):
        large, labels = images_of(640, size=(40, 30)), labels_of(640)
        folder = write_folders(tmp_path / "source", large, labels)
        seen: list[tuple[str, int, int]] = []
        for workers in (1, 2):
            out = tmp_path / f"out-{workers}"
            prepare(folder, out, workers=workers, progress=lambda *stage: seen.append(stage))
        assert seen.count(("reading", 640, 640)) == 2
        for name in [*FILES, "data.json", SHEET_NAME]:
            assert (tmp_path / "out-1" / name).read_bytes() == (tmp_path / "out-2" / name).read_bytes()

    def test_images_and_labels_stay_together_and_classes_are_mixed(self, tmp_path, source):
        prepare(source, tmp_path / "out", test_share=0, workers=1)
        images, labels = prepared(tmp_path / "out")
        pairs = {(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}
        assert pairs == {(image.tobytes(), int(label)) for image, label in zip(IMAGES, LABELS, strict=True)}
        assert set(labels[-50:].tolist()) == {0, 1, 2, 3}

    def test_the_official_images_keep_their_content(self, tmp_path):
        try:
            real = load_real_images("test")
        except DataError as error:
            pytest.skip(f"needs the whole of Fashion-MNIST: {error}")
        some, their_labels = real.images[:2000], real.labels[:2000]
        prepare(write_idx(tmp_path / "in", some, their_labels), tmp_path / "out", test_share=0, workers=1)
        images, labels = prepared(tmp_path / "out")
        assert sorted(image.tobytes() for image in images) == sorted(image.tobytes() for image in some)
        assert np.bincount(labels).tolist() == np.bincount(their_labels).tolist()


class TestTestImages:
    def test_about_a_share_of_each_class_is_set_aside(self, tmp_path):
        labels = np.repeat(np.arange(2), [1_500, 500]).astype(np.uint8)
        source = write_npz(tmp_path / "x.npz", images_of(2_000), labels)
        by_seed = {}
        for seed in (0, 1):
            made = prepare(source, tmp_path / f"out-{seed}", seed=seed, workers=1)
            assert 100 < made.counts["test"][0] < 200
            assert 20 < made.counts["test"][1] < 80
            assert np.add(*map(np.array, made.counts.values())).tolist() == [1_500, 500]
            assert made.treatment.test_share == 0.1
            assert made.treatment.seed == seed
            by_seed[seed] = {image.tobytes() for image in prepared(tmp_path / f"out-{seed}", "t10k")[0]}
            assert len(by_seed[seed] | {image.tobytes() for image in prepared(tmp_path / f"out-{seed}")[0]}) == 2_000
        assert len(by_seed[0] & by_seed[1]) < 60

    def test_an_image_moves_no_other_to_another_split(self, tmp_path):
        images, labels = images_of(300), np.repeat(np.arange(3), 100).astype(np.uint8)
        parts = {}
        for left_out in (None, 0, 150):
            kept = np.arange(300) != left_out
            source = write_npz(tmp_path / f"{left_out}.npz", images[kept], labels[kept])
            prepare(source, tmp_path / f"out-{left_out}", workers=1)
            parts[left_out] = {image.tobytes() for image in prepared(tmp_path / f"out-{left_out}", "t10k")[0]}
        for left_out in (0, 150):
            assert parts[None] - parts[left_out] <= {images[left_out].tobytes()}
            assert not parts[left_out] - parts[None]

    def test_none_are_set_aside_when_told_so(self, tmp_path, source):
        made = prepare(source, tmp_path / "out", test_share=0, workers=1)
        assert made.counts["test"] == ()
        assert made.treatment.test_share is None
        assert made.treatment.seed is None
        assert not list((tmp_path / "out").glob("t10k*"))
        assert read_data_json(tmp_path / "out") == made
        expect_files(tmp_path / "out", made)

    def test_they_may_come_from_elsewhere(self, tmp_path, source):
        test = write_folders(tmp_path / "test", images_of(10, seed=3), labels_of(10, classes=2))
        made = prepare(source, tmp_path / "out", test=test, workers=1)
        assert made.counts["test"] == (5, 5, 0, 0)
        assert made.treatment.test_source == "class folders"
        assert sum(made.counts["train"]) == 240

    def test_their_classes_must_be_those_of_the_training_images(self, tmp_path, source):
        (tmp_path / "test" / "zebra").mkdir(parents=True)
        (tmp_path / "test" / "zebra" / "1.png").write_bytes(png(IMAGES[0]))
        with pytest.raises(DataError, match="class 'zebra' of the test images has no training images"):
            prepare(source, tmp_path / "out", test=tmp_path / "test", workers=1)

    def test_two_ways_to_get_them_are_one_too_many(self, tmp_path, source):
        both = tmp_path / "both.npz"
        labels = np.array(CLASSES)[LABELS]
        np.savez(both, x_train=IMAGES, y_train=labels, x_test=IMAGES[:9], y_test=labels[:9])
        assert sum(prepare(both, tmp_path / "out", workers=1).counts["test"]) == 9
        for source_, options, words in (
            (both, {"test": source}, "has test images of its own; leave --test out"),
            (both, {"test_share": 0.1}, "there are test images already"),
            (source, {"test": source, "test_share": 0.1}, "there are test images already"),
            (source, {"test": both}, "name the test images alone"),
            (source, {"test_share": 0.6}, r"--test-share 0\.6: expected 0 to 0\.5"),
            (source, {"test_share": float("nan")}, "--test-share nan: expected 0 to"),
        ):
            with pytest.raises(UsageError, match=words):
                prepare(source_, tmp_path / "none", workers=1, **options)
        assert not (tmp_path / "none").exists()


class TestRefusals:
    @pytest.mark.parametrize(
        ("images", "labels", "options", "words"),
        [
            (IMAGES, LABELS * 0, {}, "one class only, 'bird'; expected at least 2"),
            (IMAGES[:199], LABELS[:199], {}, "199 training images; expected at least 200"),
            (
                IMAGES,
                np.repeat(np.arange(2), [221, 19]),
                {},
                "class 'cat' has 19 training images; expected at least 20",
            ),
            (IMAGES, LABELS, {"class_names": ["a", "b"]}, "2 class names for 4 classes: bird, cat, dog 2, dog 10"),
            (IMAGES, LABELS, {"class_names": ["a", "b", "c", "A"]}, "'a' and 'A' give the same folder"),
            (IMAGES, LABELS, {"name": ""}, "name ''"),
            (IMAGES, LABELS, {"licence": "a\nb"}, "licence 'a"),
            (IMAGES, LABELS, {"seed": -1}, "seed -1 is out of range"),
            (IMAGES, LABELS, {"workers": 0}, "workers 0: expected at least 1"),
        ],
    )
    def test_what_cannot_be_learnt_from_is_one_line(self, tmp_path, images, labels, options, words: str):
        source = write_npz(tmp_path / "x.npz", images, labels)
        with pytest.raises(SynthgenError, match=words) as refusal:
            prepare(source, tmp_path / "out", **{"workers": 1, **options})
        assert "\n" not in str(refusal.value)
        assert not (tmp_path / "out").exists()

    def test_the_output_is_no_source_and_empty(self, tmp_path, source):
        folder = write_folders(tmp_path / "folder", IMAGES, LABELS)
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "x").touch()
        (tmp_path / "link").symlink_to(folder)
        for out, words in (
            (folder, "lies in .*folder, which is read"),
            (folder / "cat" / "out", "which is read"),
            (tmp_path / "link" / "out", "which is read"),
            (tmp_path / "full", "is not empty; choose a new folder with --out"),
            (source, "is no folder"),
        ):
            with pytest.raises(UsageError, match=words):
                prepare(folder, out, workers=1)
        with pytest.raises(UsageError, match="which is read"):
            prepare(source, folder, test=folder, workers=1)
        assert len(list(folder.rglob("*.png"))) == 240


class TestUnreadable:
    @pytest.fixture
    def spoilt(self, tmp_path) -> Path:
        folder = write_folders(tmp_path / "folder", IMAGES, LABELS)
        for i in range(12):
            (folder / "cat" / f"bad {i}.jpg").write_bytes(b"no image")
        (folder / "loose.png").write_bytes(png(IMAGES[0]))
        (folder / "cat" / "link.png").symlink_to(folder / "loose.png")
        return folder

    def test_it_is_named_and_stops_the_whole(self, spoilt, tmp_path):
        notes: list[str] = []
        with pytest.raises(DataError, match=r"14 images cannot be read, such as .* --skip-unreadable"):
            prepare(spoilt, tmp_path / "out", workers=1, on_note=notes.append)
        assert notes[0] == "loose.png: lies in no class folder"
        assert notes[1] == "cat/link.png: a link; expected the file itself"
        assert notes[2] == "cat/bad 0.jpg: no image that Pillow can open"
        assert notes[10:] == ["and 4 more"]
        assert not (tmp_path / "out").exists()

    def test_or_is_left_out_and_counted(self, spoilt, tmp_path):
        made = prepare(spoilt, tmp_path / "out", skip_unreadable=True, workers=2)
        assert made.treatment.skipped == 14
        assert sum(map(sum, made.counts.values())) == 240

    def test_but_not_down_to_a_few(self, tmp_path):
        folder = write_folders(tmp_path / "folder", images_of(200), labels_of(200))
        next(folder.rglob("*.png")).write_bytes(b"")
        with pytest.raises(DataError, match="199 training images"):
            prepare(folder, tmp_path / "out", skip_unreadable=True, workers=1)


class TestNotes:
    def notes(self, tmp_path, images, labels=LABELS, **options) -> str:
        found: list[str] = []
        prepare(
            write_npz(tmp_path / "x.npz", images, labels), tmp_path / "out", workers=1, on_note=found.append, **options
        )
        return "\n".join(found)

    def test_usual_images_need_none(self, tmp_path):
        assert self.notes(tmp_path, IMAGES) == ""

    def test_a_light_background(self, tmp_path):
        assert "--invert makes it black" in self.notes(tmp_path, 255 - IMAGES)

    def test_a_background_that_was_black_before(self, tmp_path):
        assert "leave out --invert" in self.notes(tmp_path, IMAGES, invert=True)

    def test_values_of_another_range(self, tmp_path):
        assert "no pixel is brighter than 15 of 255" in self.notes(tmp_path, IMAGES // 16)

    def test_repeated_images(self, tmp_path):
        images, labels = np.concatenate([IMAGES, IMAGES[:3]]), np.concatenate([LABELS, LABELS[:3]])
        assert "3 training images are the same as another" in self.notes(tmp_path, images, labels)


def _everything(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestOutput:
    def test_what_is_written(self, tmp_path, source):
        made = prepare(source, tmp_path / "new" / "out", name="Pets", licence="CC0", workers=1)
        out = tmp_path / "new" / "out"
        assert _everything(out) == sorted([*FILES, "data.json", SHEET_NAME])
        assert made.subject.name == "Pets"
        text = (out / "data.json").read_text("utf-8")
        assert json.loads(text)["subject"]["licence"] == "CC0"
        assert str(tmp_path) not in text
        assert "source.npz" not in text
        assert _everything(tmp_path) == ["new", "source.npz"]
        with Image.open(out / SHEET_NAME) as sheet:
            pixels = np.asarray(sheet)
        assert sheet.size == (220 + 16 * 58, 28 + 4 * 58)
        images, labels = prepared(out)
        shown = pixels[28 + 2 * 58 : 28 + 2 * 58 + 56 : 2, 220 + 58 : 220 + 58 + 56 : 2]
        np.testing.assert_array_equal(shown, images[labels == 2][1])

    def test_read_as_any_other_data(self, tmp_path, source):
        prepare(source, tmp_path / "out", workers=1)
        real = load_real_images("train", tmp_path / "out", official=False)
        np.testing.assert_array_equal(real.images, prepared(tmp_path / "out")[0])

    def test_the_contact_sheet_shows_names_in_any_script(self, tmp_path, source):
        names = ["猫", "x" * 100, "Ærø", "שלום"]
        made = prepare(source, tmp_path / "out", class_names=names, workers=1)
        assert read_data_json(tmp_path / "out") == made

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])
    @pytest.mark.parametrize("moment", range(6))
    def test_whenever_it_is_stopped_nothing_is_left(self, tmp_path, source, monkeypatch, error, moment: int):
        from synthgen.preparation import output

        moves: list[Path] = []

        def moving(partial: Path, path: Path) -> None:
            if len(moves) == moment:
                raise error
            moves.append(path)
            partial.replace(path)

        with monkeypatch.context() as patch:
            patch.setattr(output, "move_into_place", moving)
            with pytest.raises((KeyboardInterrupt, DataError)) as stop:
                prepare(source, tmp_path / "out", workers=1)
        if isinstance(error, OSError):
            assert "out: cannot be written: No space left on device; nothing is left there" in str(stop.value)
        assert _everything(tmp_path) == ["source.npz"]

    def test_what_a_killed_run_left_is_written_anew(self, tmp_path, source):
        out = tmp_path / "out"
        (out / ".prepare.partial").mkdir(parents=True)
        for name in (".prepare.partial/x", ".prepare.lock", *FILES[:2]):
            (out / name).write_bytes(b"half")
        prepare(source, out, test_share=0, workers=1)
        assert _everything(out) == sorted([*FILES[2:], "data.json", SHEET_NAME])
        with pytest.raises(UsageError, match="is not empty"):
            prepare(source, out, workers=1)

    def test_one_at_a_time(self, tmp_path, source):
        from synthgen.files import exclusive_lock

        (tmp_path / "out").mkdir()
        with (
            exclusive_lock(tmp_path / "out" / ".prepare.lock"),
            pytest.raises(DataError, match="another synthgen prepare"),
        ):
            prepare(source, tmp_path / "out", workers=1)
        prepare(source, tmp_path / "out", workers=1)


class TestRecord:
    def test_none_is_none(self, tmp_path):
        assert read_data_json(tmp_path) is None
        assert read_data_json(tmp_path / "nowhere") is None

    @pytest.mark.parametrize(
        ("key", "value", "words"),
        [
            ("schema_version", 2, "schema 2; this synthgen reads 1"),
            ("schema_version", True, "no schema_version"),
            ("more", 1, "expected the keys"),
            ("synthgen_version", "\x1b", "synthgen_version is no short printable text"),
            ("subject", {"name": "x"}, "a subject has the keys"),
            ("subject.class_names", ["a", "b", "c", "C"], "same folder"),
            ("counts.train", [1, 2, 3], "counts of train are not one for each class"),
            ("counts.train", [1, 2, 3, -4], "counts of train are no numbers"),
            ("counts.test", [], "files are not"),
            ("treatment.inverted", 1, "inverted is 1, which cannot be"),
            ("treatment.size", [28], "size is"),
            ("treatment.more", 1, "treatment has the keys"),
            ("files.x", "0" * 64, "files are not"),
            ("files.train-images-idx3-ubyte", "0" * 63, "a file's SHA-256 is none"),
        ],
    )
    def test_another_document_is_refused(self, data, tmp_path, key: str, value, words: str):
        document = json.loads((data / "data.json").read_text("utf-8"))
        place = document
        *parents, last = key.split(".")
        for parent in parents:
            place = place[parent]
        place[last] = value
        (tmp_path / "data.json").write_text(json.dumps(document), "utf-8")
        with pytest.raises(DataError, match=f"{words}.*; run synthgen prepare anew") as refusal:
            read_data_json(tmp_path)
        assert "\n" not in str(refusal.value)

    @pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"a": NaN}', b" " * (2 << 20)])
    def test_what_is_no_document_is_refused(self, tmp_path, content: bytes):
        (tmp_path / "data.json").write_bytes(content)
        with pytest.raises(DataError, match="run synthgen prepare anew"):
            read_data_json(tmp_path)

    def test_files_that_were_exchanged_are_found(self, data, tmp_path):
        made = read_data_json(data)
        assert made is not None
        expect_files(data, made)
        for name, sha256 in made.files.items():
            other = replace(made, files={**made.files, name: sha256[::-1]})
            with pytest.raises(DataError, match=f"{name}.gz: not the file that data.json describes"):
                expect_files(data, other)
        with pytest.raises(DataError, match="header claims"):
            expect_files(data, replace(made, counts={**made.counts, "train": (1, 1, 1, 1)}))
        with pytest.raises(DataError, match="is missing"):
            expect_files(tmp_path, made)
