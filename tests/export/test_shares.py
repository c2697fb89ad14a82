"""Shares: written apart in any order and more than once, merged to the set of one process."""

import json
from dataclasses import replace

import pytest
from small_exports import COUNT, SHARDS, request, share, small_job

from synthgen.environment import software
from synthgen.errors import ExportError
from synthgen.export.outputs import open_output
from synthgen.export.plan import Job, plan_export
from synthgen.export.run import generate, generate_share, merge
from synthgen.export.shard import FinishedShard, generate_shard
from synthgen.sets.manifest import WORK_FOLDER
from synthgen.sets.verification import verify


def test_shares_written_in_any_order_and_twice_merge_to_the_same_set(tiny_checkpoint, whole, tmp_path):
    out = tmp_path / "set"
    assert [share(tiny_checkpoint, out, number, of=3) for number in (2, 0, 2)] == [1, 2, 1]
    with pytest.raises(ExportError, match=r"1 of 4 shards are missing or of another export: 1; run"):
        merge(out)
    assert not (out / "manifest.json").exists()
    share(tiny_checkpoint, out, 1, of=3)
    assert merge(out) == whole
    assert merge(out) == whole  # nothing left to do
    assert share(tiny_checkpoint, out, 1, of=3) == 1  # a task that a scheduler repeats finds its work done
    assert not (out / WORK_FOLDER).exists()
    assert verify(out).sound


def test_two_shares_at_once_and_a_whole_export_do_not_meet(tiny_checkpoint, tmp_path):
    out = tmp_path / "set"
    job = Job.of(tiny_checkpoint, request(tiny_checkpoint))
    with open_output(out).claim(job.to_dict(), resume=True, shared=True):
        share(tiny_checkpoint, out, 0)
        with pytest.raises(ExportError, match="another export is at work"):
            generate(tiny_checkpoint, request(tiny_checkpoint), out, resume=True, allow_unprotected=True)
        with pytest.raises(ExportError, match="another export is at work"):
            merge(out)
        with pytest.raises(ExportError, match="holds another export"):
            share(tiny_checkpoint, out, 1, file_format="hdf5")


def test_one_shard_written_twice_at_once_is_whole(tiny_checkpoint, whole, tmp_path):
    job, output = Job.of(tiny_checkpoint, request(tiny_checkpoint)), open_output(tmp_path / "set")
    again: list[FinishedShard] = []

    def intrude(images: int) -> None:
        if not again:
            again.append(generate_shard(job, 1, tmp_path / "set"))

    with output.claim(job.to_dict(), resume=True, shared=True):
        first = generate_shard(job, 1, output, intrude)
    assert [first.record] == [again[0].record] == [whole.shards[1]]


def test_shards_of_another_job_are_not_merged(tiny_checkpoint, tmp_path):
    share(tiny_checkpoint, tmp_path / "a", 0, of=1)
    other = plan_export(tiny_checkpoint, count=COUNT, file_format="npz", shards=SHARDS, seed=5)
    generate_share(tiny_checkpoint, other, tmp_path / "b", share=0, of=1, allow_unprotected=True)
    name = f"{WORK_FOLDER}/shard-00002.json"
    (tmp_path / "a" / name).write_bytes((tmp_path / "b" / name).read_bytes())
    with pytest.raises(ExportError, match="missing or of another export: 2;"):
        merge(tmp_path / "a")


def test_a_merge_that_was_killed_behind_its_manifest_ends_well(small, tiny_checkpoint, tmp_path):
    manifest = small(tmp_path)
    (tmp_path / WORK_FOLDER).mkdir()
    (tmp_path / WORK_FOLDER / "job.json").write_text(json.dumps(small_job(tiny_checkpoint).to_dict()))
    assert merge(tmp_path) == manifest
    assert not (tmp_path / WORK_FOLDER).exists()


def test_a_merge_misses_an_image_that_is_gone(small, tiny_checkpoint, tmp_path):
    plan = small_job(tiny_checkpoint, "png").export
    generate_share(tiny_checkpoint, plan, tmp_path, share=0, of=1, allow_unprotected=True)
    next((tmp_path / "train").rglob("000000003.png")).unlink()
    with pytest.raises(ExportError, match="1 of 2 shards are missing or of another export: 0;"):
        merge(tmp_path)


def test_another_machine_is_told_what_differs(float_checkpoint, tmp_path):
    job = small_job(float_checkpoint)
    elsewhere = {**job.to_dict(), "made_with": {**job.made_with, "processor": "another", "numpy": "0.1"}}
    with open_output(tmp_path).claim(elsewhere, resume=True):
        pass
    with pytest.raises(ExportError, match=r"begun with numpy 0\.1 \(here .*\), processor another \(here "):
        generate(float_checkpoint, job.export, tmp_path, resume=True, allow_unprotected=True)


def test_shares_of_machines_that_differ_merge(tiny_checkpoint, whole, tmp_path, monkeypatch):
    """Each share says what drew it, the manifest says both, and the images are those of one process."""
    out = tmp_path / "set"
    for number, zlib in enumerate(("1.3.1", "1.3.1.zlib-ng")):
        monkeypatch.setattr("synthgen.model.sampling.software", lambda zlib=zlib: {**software(), "zlib": zlib})
        share(tiny_checkpoint, out, number)
    merged = merge(out)
    assert merged == replace(whole, made_with={**whole.made_with, "zlib": "1.3.1, 1.3.1.zlib-ng"})
    assert verify(out).sound


def test_a_shard_packed_twice_otherwise_is_not_merged(tiny_checkpoint, tmp_path, monkeypatch):
    """Two machines wrote one shard at once: the bytes are of the one, the record of the other."""
    out = tmp_path / "set"
    share(tiny_checkpoint, out, 0)
    monkeypatch.setattr("synthgen.model.sampling.software", lambda: {**software(), "zlib": "another"})
    share(tiny_checkpoint, out, 1)
    shard = out / "train-00002-of-00004.npz"
    shard.write_bytes(shard.read_bytes()[::-1])
    with pytest.raises(ExportError, match="1 of 4 shards are missing or of another export: 2;"):
        merge(out)
    share(tiny_checkpoint, out, 0)
    merge(out)
    assert verify(out).sound
