"""Odd requests are honoured to the letter or refused in a line."""

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
from kill_exports import cheap_pixels

from synthgen.errors import CheckpointError, UsageError
from synthgen.export.run import generate, plan_export
from synthgen.formats.table import FORMATS
from synthgen.index import BLOCK_IMAGES, MAX_INDEX, MAX_SEED, LabelRule, latents
from synthgen.model.checkpoint import load_checkpoint
from synthgen.sets.manifest import Manifest
from synthgen.sets.verification import verify


@pytest.fixture
def export_cheaply(tiny_checkpoint, monkeypatch):
    monkeypatch.setattr("synthgen.model.sampling.loaded_generator", cheap_pixels)

    def export(out: Path, **request) -> Manifest:
        plan = plan_export(tiny_checkpoint, **{"file_format": "npz", **request})
        manifest = generate(tiny_checkpoint, plan, out, allow_unprotected=True)
        report = verify(out)
        assert report.sound, report.problems
        return manifest

    return export


def refused(checkpoint, words: str, **request) -> None:
    with pytest.raises(UsageError, match=words) as refusal:
        plan_export(checkpoint, **{"file_format": "npz", **request})
    assert "\n" not in str(refusal.value)


def test_no_image_is_refused(tiny_checkpoint):
    refused(tiny_checkpoint, "count 0 is too small", count=0)
    refused(tiny_checkpoint, "count -1 is too small", count=-1)


@pytest.mark.parametrize("file_format", FORMATS)
def test_one_image(export_cheaply, tmp_path, file_format: str):
    assert export_cheaply(tmp_path / "set", count=1, file_format=file_format).class_counts == (1, *[0] * 9)


def test_a_million_and_three(tiny_checkpoint):
    plan = plan_export(tiny_checkpoint, count=1_000_003, file_format="tfrecord").plan
    shards = list(plan)
    assert len(shards) == 167
    assert sum(shard.count for shard in shards) == 1_000_003
    assert all(one.stop == other.start for one, other in itertools.pairwise(shards))
    assert all(shard.start % BLOCK_IMAGES == 0 for shard in shards)
    rule = LabelRule.parse("balanced")
    last = shards[-1].stop // BLOCK_IMAGES  # labels follow the number of the image, wherever it is cut
    assert rule.labels(0, last)[0] == last * BLOCK_IMAGES % 10


def test_more_shards_than_images(tiny_checkpoint):
    refused(tiny_checkpoint, "shards 11 does not fit 10 images", count=10, shards=11)
    refused(tiny_checkpoint, "shards 0 does not fit", count=10, shards=0)


def test_one_class(export_cheaply, tmp_path):
    manifest = export_cheaply(tmp_path / "set", count=30, labels="7", file_format="png")
    assert manifest.class_counts == (*[0] * 7, 30, 0, 0)
    assert len(list((tmp_path / "set/train").iterdir())) == 10  # so that a folder's place stays its label


@pytest.mark.parametrize("start", [(1 << 32) - 1, (1 << 32) + 1, MAX_INDEX - 5])
@pytest.mark.parametrize("file_format", FORMATS)
def test_far_along_the_line(export_cheaply, tmp_path, file_format: str, start: int):
    manifest = export_cheaply(tmp_path / "set", count=5, start=start, file_format=file_format)
    assert manifest.start == start
    assert sum(manifest.class_counts) == 5


@pytest.mark.parametrize("seed", [0, 1 << 63, MAX_SEED])
def test_the_ends_of_the_seeds(export_cheaply, tmp_path, seed: int):
    assert export_cheaply(tmp_path / "set", count=5, seed=seed).seed == seed
    others = [latents(other, 0, 4, "gaussian") for other in (seed, seed ^ 1, seed ^ (1 << 63))]
    assert len(np.unique(np.stack(others).reshape(3, -1), axis=0)) == 3


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_seeds_beyond_them_are_refused(tiny_checkpoint, seed: int):
    refused(tiny_checkpoint, "out of range", count=1, seed=seed)


def test_a_count_that_no_seed_can_number(tiny_checkpoint):
    refused(tiny_checkpoint, r"passes 2\^63", count=MAX_INDEX + 1, file_format="tfrecord")
    refused(tiny_checkpoint, r"passes 2\^63", count=2, start=MAX_INDEX - 1)


@pytest.mark.parametrize("file_format", [name for name in FORMATS if FORMATS[name].one_file])
def test_more_than_an_idx_file_can_count(tiny_checkpoint, file_format: str):
    refused(tiny_checkpoint, "one file by nature", count=FORMATS[file_format].max_images + 1, file_format=file_format)


@pytest.mark.parametrize("file_format", FORMATS)
def test_unicode_and_spaces_in_paths(export_cheaply, tmp_path, file_format: str):
    export_cheaply(tmp_path / "mÿ sets; $(x) 'q\" 服装 👗" / "a  b", count=5, file_format=file_format)


def test_a_checkpoint_whose_name_cannot_be_printed_is_refused(tiny_checkpoint, tmp_path):
    """The manifest names it, and a manifest that plays tricks on a terminal is read by nobody."""
    folder = shutil.copytree(tiny_checkpoint.path, tmp_path / "two\nlines")
    with pytest.raises(CheckpointError, match="rename"):
        load_checkpoint(folder)
    named = shutil.copytree(tiny_checkpoint.path, tmp_path / "mÿ 服装")
    assert load_checkpoint(named).name == "mÿ 服装"
