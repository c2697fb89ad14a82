"""Upgrades: checkpoints and sets that earlier releases wrote are read for ever. See make_golden.py."""

from pathlib import Path

import numpy as np
import pytest

from synthgen.model.checkpoint import load_checkpoint
from synthgen.sets.manifest import load_manifest
from synthgen.sets.reading import read_set
from synthgen.sets.verification import verify

GOLDEN = Path(__file__).parent / "golden"
RELEASES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())
SETS = sorted(f"{path.parent.parent.name}/{path.parent.name}" for path in GOLDEN.glob("*/*/manifest.json"))


def test_there_is_something_to_read():
    assert "0.1.0" in RELEASES
    assert len(SETS) >= 3
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


@pytest.mark.parametrize("release", RELEASES)
def test_its_pixels_come_again_within_a_rounding(release: str):
    """Equal on the same libraries and processor; elsewhere a pixel may round the other way."""
    from synthgen.index import LabelRule
    from synthgen.model.sampling import Sampler as block_sampler  # noqa: N813  # golden tests change in imports only

    checkpoint = load_checkpoint(GOLDEN / release / "checkpoint")
    manifest = load_manifest(GOLDEN / release / "npz")
    assert manifest.checkpoint.sha256 == checkpoint.sha256
    draw = block_sampler(checkpoint, manifest.seed, LabelRule.parse(manifest.labels))
    (first_images, first_labels), (then_images, then_labels) = draw(0), draw(1)
    images, labels = np.concatenate([first_images, then_images]), np.concatenate([first_labels, then_labels])
    for batch in read_set(GOLDEN / release / "npz", manifest):
        wanted = slice(batch.start, batch.start + len(batch))
        np.testing.assert_array_equal(batch.labels, labels[wanted])
        assert np.abs(batch.images.astype(int) - images[wanted]).max() <= 1
