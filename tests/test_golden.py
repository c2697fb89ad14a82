"""Upgrades: checkpoints and sets that earlier releases wrote are read for ever. See make_golden.py."""

from pathlib import Path

import numpy as np
import pytest

from synthgen.index import LabelRule
from synthgen.model.checkpoint import load_checkpoint
from synthgen.model.sampling import Sampler
from synthgen.sets.manifest import load_manifest
from synthgen.sets.reading import read_set
from synthgen.sets.verification import verify

GOLDEN = Path(__file__).parent / "golden"
FLOAT_RELEASES = ("0.1.0", "0.2.0")
RELEASES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())
SETS = sorted(f"{path.parent.parent.name}/{path.parent.name}" for path in GOLDEN.glob("*/*/manifest.json"))


def test_there_is_something_to_read():
    assert {*FLOAT_RELEASES, "0.3.0"} <= set(RELEASES)
    assert len(SETS) == 3 * len(RELEASES)
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()) < 200_000 * len(RELEASES)


@pytest.mark.parametrize("release", RELEASES)
def test_a_checkpoint_of_that_release_still_draws(release: str):
    checkpoint = load_checkpoint(GOLDEN / release / "checkpoint")
    assert not checkpoint.privacy.protects
    assert checkpoint.keras_model().count_params() > 0


@pytest.mark.parametrize("name", SETS)
def test_a_set_of_that_release_still_verifies(name: str):
    report = verify(GOLDEN / name)
    assert report.sound, report.problems
    assert report.manifest.made_with["synthgen"] == name.split("/")[0]
    assert (report.manifest.start, report.manifest.count, report.manifest.seed) == (250, 20, 7)


@pytest.mark.parametrize("backend", ["auto", "numpy"])
@pytest.mark.parametrize("release", RELEASES)
def test_its_pixels_come_again(release: str, backend: str):
    """Of integers exactly, everywhere. Of floats within a rounding: elsewhere a pixel may round the other way."""
    checkpoint = load_checkpoint(GOLDEN / release / "checkpoint")
    assert checkpoint.exact == (release not in FLOAT_RELEASES)
    manifest = load_manifest(GOLDEN / release / "npz")
    assert manifest.checkpoint.sha256 == checkpoint.sha256
    draw = Sampler(checkpoint, manifest.seed, LabelRule.parse(manifest.labels), backend)
    (first_images, first_labels), (then_images, then_labels) = draw(0), draw(1)
    images, labels = np.concatenate([first_images, then_images]), np.concatenate([first_labels, then_labels])
    for batch in read_set(GOLDEN / release / "npz", manifest):
        wanted = slice(batch.start, batch.start + len(batch))
        np.testing.assert_array_equal(batch.labels, labels[wanted])
        assert np.abs(batch.images.astype(int) - images[wanted]).max() <= (0 if checkpoint.exact else 1)


@pytest.mark.parametrize("name", [name for name in SETS if name.split("/")[0] not in FLOAT_RELEASES])
def test_every_image_of_an_exact_set_is_drawn_again(name: str):
    checkpoint = load_checkpoint((GOLDEN / name).parent / "checkpoint")
    report = verify(GOLDEN / name, regenerate=20, checkpoint=checkpoint)
    assert report.sound, report.problems
    assert report.regenerated == 20
