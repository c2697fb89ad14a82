"""``synthgen prepare`` as a person runs it."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from image_sources import images_of, labels_of, png, write_folders, write_npz

IMAGES, LABELS = images_of(), labels_of()


def test_what_it_says_and_writes(synthgen, tmp_path):
    source = write_folders(tmp_path / "my-images", 255 - IMAGES, LABELS)
    (source / "cat" / "notes.txt").write_text("no image")
    result = synthgen("prepare", "my-images", "--out", "data", "--workers", 1)
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "note: cat/notes.txt: no image that Pillow can open",
        "synthgen: an image cannot be read, such as cat/notes.txt (no image that Pillow can open); mend or remove what "
        "is named, or leave it out with --skip-unreadable",
    ]
    result = synthgen("prepare", "my-images", "--out", "data", "--skip-unreadable", "--invert", "--name", "Pets")
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "note: cat/notes.txt: no image that Pillow can open",
        "train       213 images of 4 classes, 48 to 56 each",
        "test         27 images of 4 classes, 4 to 12 each",
        "1 left out that could not be read",
        "the name 'Pets' and the names of the classes will stand in every set made from these",
        "look at data/contact-sheet-real-images.png; it shows real images, and data is as private as they are",
        "next: synthgen train --data data --epsilon 1",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "my-images"]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (["nowhere"], 2, "nowhere: no such file or folder"),
        (["x.npz", "--out", "full"], 2, "full: is not empty; choose a new folder with --out"),
        (["x.npz", "--test-share", "2"], 2, "--test-share 2: expected 0 to 0.5"),
        (["full"], 1, "no images in class folders"),
        ([], 2, "Missing argument 'source'"),
    ],
)
def test_user_errors_are_one_line(synthgen, tmp_path, arguments, exit_code: int, words: str):
    write_npz(tmp_path / "x.npz", IMAGES, LABELS)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    result = synthgen("prepare", *arguments)
    assert result.returncode == exit_code
    assert words in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "data").exists()


def test_a_full_disk_is_one_line(synthgen, tmp_path):
    """A limit on the size of files stands in for a full disk: the system refuses the write alike."""
    write_npz(tmp_path / "x.npz", IMAGES, LABELS)

    def no_file_above_20_kb() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    result = synthgen("prepare", "x.npz", "--workers", 1, preexec_fn=no_file_above_20_kb)
    assert result.returncode == 1
    assert result.stderr.splitlines() == ["synthgen: data: cannot be written: File too large; nothing is left there"]
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_interrupted_it_leaves_nothing(tmp_path, number: int):
    folder = tmp_path / "source"
    large = png(np.random.default_rng(0).integers(0, 256, (700, 900, 3), np.uint8), "BMP")
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        (folder / name / "0.bmp").write_bytes(large)
        for i in range(1, 3_000):  # half a minute's work
            os.link(folder / name / "0.bmp", folder / name / f"{i}.bmp")
    options = ["--out", str(tmp_path / "out"), "--workers", "2"]
    command = [sys.executable, "-m", "synthgen", "prepare", str(folder), *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    time.sleep(2.0)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert said.splitlines() == ["synthgen: interrupted; what is finished is kept"]
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_no_image_is_written_elsewhere(synthgen, tmp_path):
    """Not even for a moment: there is no other place that may be written to."""
    source = write_folders(tmp_path / "source", images_of(200, size=(40, 50, 3)), labels_of(200))
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    environment = {**os.environ, "TMPDIR": str(nowhere), "HOME": str(nowhere)}
    before = {path for path in tmp_path.rglob("*") if Path(tmp_path / "source") not in path.parents}
    result = synthgen("prepare", source, env=environment)
    assert result.returncode == 0, result.stderr
    after = {path for path in tmp_path.rglob("*") if Path(tmp_path / "source") not in path.parents}
    assert {path.relative_to(tmp_path).parts[0] for path in after - before} == {"data"}
