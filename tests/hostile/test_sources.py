"""Sources from strangers: ``prepare`` reads them, or refuses them with an error of our own.

The quick run tries some two hundred damaged sources, ``make test-slow`` more than ten thousand.
"""

import gzip
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_sources import (
    images_of,
    labels_of,
    png,
    prepared,
    write_hdf5,
    write_idx,
    write_npz,
    write_parquet,
)
from PIL import Image
from support import mutated

from synthgen.errors import DataError, SynthgenError
from synthgen.preparation import output
from synthgen.preparation.conversion import fitted_chunk
from synthgen.preparation.record import expect_files, read_data_json
from synthgen.preparation.run import prepare

MOST_MEMORY_GROWTH = 600 << 20  # 600 MiB over a whole test: of a picture of 89 million pixels, and the allocator's rest
IMAGES, LABELS = images_of(size=(6, 5)), labels_of()
EXAMPLES = [12, pytest.param(300, marks=pytest.mark.slow)]
IMAGE_EXAMPLES = [12, pytest.param(500, marks=pytest.mark.slow)]
Edits = list[tuple[str, int, bytes]]

edits = st.lists(
    st.tuples(
        st.sampled_from(["flip", "flip", "set", "cut", "insert", "repeat"]),
        st.integers(0, 1 << 20),
        st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 8, b"\x7f\xff\xff\xff", b"\0" * 8]),
    ),
    min_size=1,
    max_size=4,
)


@pytest.fixture(autouse=True)
def no_waiting_for_disks(monkeypatch):
    """Five thousand flushes take longer than all else; what is written is the same."""
    monkeypatch.setattr(output, "move_into_place", lambda partial, path: partial.replace(path))


def fuzz(examples: int, seed: bytes, path: Path, source: Path, out: Path) -> None:
    """Put mutations of ``seed`` at ``path`` and prepare ``source``: a whole result, or an error of our own."""

    def attempt(changes: Edits, skip: bool) -> None:
        path.write_bytes(mutated(seed, changes))
        shutil.rmtree(out, ignore_errors=True)
        try:
            made = prepare(source, out, skip_unreadable=skip, workers=1)
        except SynthgenError as error:
            refused(str(error))
        else:
            assert read_data_json(out) == made
            expect_files(out, made)

    def refused(line: str) -> None:
        assert line.strip()
        assert "\n" not in line
        assert not out.exists()

    bounded(examples, attempt)


def bounded(examples: int, attempt: Callable[[Edits, bool], None]) -> None:
    """Try so many edits, in bounded memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )(given(edits, st.booleans())(attempt))()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < MOST_MEMORY_GROWTH


def idx_file(name: str) -> Callable[[Path], tuple[Path, Path]]:
    def write(folder: Path) -> tuple[Path, Path]:
        source = write_idx(folder, IMAGES, LABELS, packed=name.endswith(".gz"))
        return source, source / name

    return write


def in_place(write: Callable[[Path], Path]) -> Callable[[Path], tuple[Path, Path]]:
    """Of a source that is one file."""

    def written(folder: Path) -> tuple[Path, Path]:
        folder.mkdir()
        return (path := write(folder)), path

    return written


def parquet(folder: Path, *, structs: bool) -> Path:
    pytest.importorskip("pyarrow")
    return write_parquet(folder / "x.parquet", [png(image) for image in IMAGES], LABELS, structs=structs)


ARRAYS = {
    "idx images": idx_file("train-images-idx3-ubyte"),
    "idx images, gzipped": idx_file("train-images-idx3-ubyte.gz"),
    "idx labels": idx_file("train-labels-idx1-ubyte"),
    "npz": in_place(lambda folder: write_npz(folder / "x.npz", IMAGES, LABELS)),
    "hdf5": in_place(lambda folder: write_hdf5(folder / "x.h5", IMAGES, LABELS)),
    "hdf5, chunks": in_place(
        lambda folder: write_hdf5(folder / "x.h5", IMAGES, LABELS, chunks=(50, 4, 3), compression="gzip", shuffle=True)
    ),
    "parquet": in_place(lambda folder: parquet(folder, structs=True)),
    "parquet of bytes": in_place(lambda folder: parquet(folder, structs=False)),
}


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("kind", ARRAYS)
def test_damaged_arrays(tmp_path, kind: str, examples: int):
    source, path = ARRAYS[kind](tmp_path / "source")
    fuzz(examples, path.read_bytes(), path, source, tmp_path / "out")


PICTURE = Image.fromarray(images_of(1, size=(9, 11, 3))[0])
KINDS = {
    "PNG": PICTURE,
    "GIF": PICTURE,
    "JPEG": PICTURE,
    "TIFF": PICTURE,
    "WEBP": PICTURE,
    "BMP": PICTURE,
    "JPEG2000": PICTURE,
    "AVIF": PICTURE,
    "ICO": PICTURE,
    "PPM": PICTURE,
    "TGA": PICTURE,
    "PCX": PICTURE,
    "SGI": PICTURE,
    "ICNS": PICTURE.resize((16, 16)),
    "DDS": PICTURE.convert("RGBA"),
    "16-bit PNG": Image.fromarray(images_of(1, size=(9, 11))[0].astype(np.uint16) * 200),
}


@pytest.mark.parametrize("examples", IMAGE_EXAMPLES)
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_images(kind: str, examples: int):
    """Each is 28×28 pixels, or unreadable for a reason of one line."""
    if kind not in ("16-bit PNG", *Image.registered_extensions().values()):
        pytest.skip(f"this Pillow writes no {kind}")
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif} if kind in ("PNG", "JPEG", "TIFF", "WEBP") else {}
    seed = png(KINDS[kind], kind.removeprefix("16-bit "), **options)
    assert len(fitted_chunk((("whole", seed),), print, place="", invert=False)[0]) == 1

    def read(data: bytes, invert: bool) -> None:
        images, kept, bad = fitted_chunk((("damaged", data),), print, place="", invert=invert)
        assert images.shape == (kept.sum(), 28, 28)
        assert images.dtype == np.uint8
        assert len(bad) == 1 - kept.sum()
        assert all(name == "damaged" and why.strip() and "\n" not in why for name, why in bad)

    bounded(examples, lambda changes, invert: read(mutated(seed, changes), invert))


@pytest.mark.parametrize("examples", EXAMPLES)
def test_damage_below_the_checksums(tmp_path, examples: int):
    """A forger's gzip is whole; what it unpacks to is not."""
    source = write_idx(tmp_path / "source", IMAGES, LABELS)
    path = source / "train-images-idx3-ubyte.gz"
    seed = gzip.decompress(path.read_bytes())

    def attempt(changes: Edits, packed: bool) -> None:
        data = mutated(seed, changes)
        path.write_bytes(gzip.compress(data, mtime=0) if packed else data)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        if data[:16] == seed[:16] and len(data) == len(seed):
            prepare(source, tmp_path / "out", workers=1, test_share=0)
            assert len(prepared(tmp_path / "out")[0]) == 240
        else:
            with pytest.raises(DataError):
                prepare(source, tmp_path / "out", workers=1, test_share=0)

    bounded(examples, attempt)


def test_small_files_do_not_unpack_to_gigabytes(tmp_path):
    header = bytes([0, 0, 8, 3]) + np.array([2_000_000, 28, 28], ">u4").tobytes()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + bytes(1 << 20)))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(
        gzip.compress(bytes([0, 0, 8, 1]) + b"\0\x1e\x84\x80" + bytes(9))
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="more than the file can hold"):
        prepare(tmp_path, tmp_path.parent / "bomb-out", workers=1)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 100 << 20
