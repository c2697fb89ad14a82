"""Plans: requests are honoured to the letter or refused in a line; a job survives JSON."""

import itertools
import json

import pytest
from small_exports import COUNT, request

from synthgen.errors import ExportError, UsageError
from synthgen.export.plan import Job, plan_export
from synthgen.formats.table import FORMATS
from synthgen.index import BLOCK_IMAGES, MAX_INDEX, MAX_SEED, LabelRule


def refused(checkpoint, words: str, **request) -> None:
    with pytest.raises(UsageError, match=words) as refusal:
        plan_export(checkpoint, **{"file_format": "npz", **request})
    assert "\n" not in str(refusal.value)


def test_no_image_is_refused(tiny_checkpoint):
    refused(tiny_checkpoint, "count 0 is too small", count=0)
    refused(tiny_checkpoint, "count -1 is too small", count=-1)


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


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_seeds_beyond_them_are_refused(tiny_checkpoint, seed: int):
    refused(tiny_checkpoint, "out of range", count=1, seed=seed)


def test_a_count_that_no_seed_can_number(tiny_checkpoint):
    refused(tiny_checkpoint, r"passes 2\^63", count=MAX_INDEX + 1, file_format="tfrecord")
    refused(tiny_checkpoint, r"passes 2\^63", count=2, start=MAX_INDEX - 1)


@pytest.mark.parametrize("file_format", [name for name in FORMATS if FORMATS[name].one_file])
def test_more_than_an_idx_file_can_count(tiny_checkpoint, file_format: str):
    refused(tiny_checkpoint, "one file by nature", count=FORMATS[file_format].max_images + 1, file_format=file_format)


def test_shares_of_one_file_get_a_shard_each(tiny_checkpoint):
    assert plan_export(tiny_checkpoint, count=COUNT, file_format="npz", shares=3).plan.shards == 3
    with pytest.raises(UsageError, match="one file by nature"):
        plan_export(tiny_checkpoint, count=COUNT, file_format="idx", shares=3)


def test_a_job_survives_json(tiny_checkpoint, float_checkpoint):
    for checkpoint in (tiny_checkpoint, float_checkpoint):
        job = Job.of(checkpoint, request(checkpoint))
        assert Job.from_dict(json.loads(json.dumps(job.to_dict()))) == job
    with pytest.raises(ExportError, match="not an export job"):
        Job.from_dict({"seed": 1})


def test_a_machine_that_would_round_otherwise_is_refused(float_checkpoint):
    job = Job.of(float_checkpoint, request(float_checkpoint))
    elsewhere = Job.from_dict({**job.to_dict(), "made_with": {**job.made_with, "processor": "another"}})
    with pytest.raises(ExportError, match="processor another"):
        elsewhere.sampler()


def test_nothing_but_the_request_is_a_condition_of_an_exact_job(tiny_checkpoint, monkeypatch):
    job = Job.of(tiny_checkpoint, request(tiny_checkpoint))
    assert job.made_with == {}
    assert "made_with" not in job.to_dict()
    monkeypatch.setattr("synthgen.export.plan.float_drawn_with", lambda: {"numpy": "1.0"})
    assert Job.of(tiny_checkpoint, request(tiny_checkpoint)).sha256 == job.sha256


def test_labels_for_an_unconditional_checkpoint_are_refused(unlabelled_checkpoint):
    with pytest.raises(UsageError, match="unconditional"):
        plan_export(unlabelled_checkpoint, count=1, file_format="npz", labels="0,3")


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"file_format": "jpeg"}, "format 'jpeg': expected one of tfrecord, hdf5, png, idx, idx-raw, npz"),
        ({"count": 0}, "count 0"),
        ({"shards": 9}, "shards 9 does not fit"),
        ({"file_format": "idx", "shards": 2}, "one file by nature"),
        ({"split": "validation"}, "expected train or test"),
        ({"seed": 1 << 64}, "seed"),
        ({"labels": "shoes"}, "labels 'shoes'"),
    ],
)
def test_bad_requests_are_refused(tiny_checkpoint, request_, words: str):
    with pytest.raises(UsageError, match=words):
        plan_export(tiny_checkpoint, **{"count": 600, "file_format": "npz", **request_})
