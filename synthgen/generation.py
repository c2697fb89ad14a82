"""Generation: a checkpoint and a plan become a set on disk with its manifest, which is written last."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synthgen.batch import SetDigest, join_block_digests
from synthgen.cards import write_cards
from synthgen.checkpoint import Checkpoint
from synthgen.claim import WORK_FOLDER, claim_folder
from synthgen.datasets import MAX_IDX_IMAGES
from synthgen.environment import made_with
from synthgen.errors import ExportError, UsageError
from synthgen.fashion import NUM_CLASSES
from synthgen.files import flush_all, flush_to_disk, write_json
from synthgen.integrity import set_problems, shard_problems
from synthgen.manifest import (
    MANIFEST_NAME,
    CheckpointRecord,
    FileRecord,
    Manifest,
    ShardRecord,
    load_manifest,
    write_manifest,
)
from synthgen.sampling import sample
from synthgen.shards import LabelRule, Shard, ShardPlan, check_seed, default_shards
from synthgen.writers import IDX_FORMATS, SINGLE_FILE_FORMATS, WRITERS, check_format, write_sidecars

Progress = Callable[[int], None]  # called with the number of images just finished


@dataclass(frozen=True, kw_only=True)
class Export:
    """What to export: everything that decides the pixels and the files, and nothing else.

    Raises:
        UsageError: on construction, for an unknown format or split or a seed out of range.
    """

    plan: ShardPlan
    seed: int
    file_format: str
    labels: LabelRule | None  # None: unlabelled
    split: str = "train"

    def __post_init__(self) -> None:
        check_format(self.file_format)
        check_seed(self.seed)
        if self.split not in ("train", "test"):
            raise UsageError(f"split '{self.split}': expected train or test")


def plan_export(
    checkpoint: Checkpoint,
    *,
    count: int,
    file_format: str,
    seed: int = 0,
    start: int = 0,
    shards: int | None = None,
    labels: str = "balanced",
    split: str = "train",
) -> Export:
    """Check a request and fill in its defaults.

    Args:
        checkpoint: what will draw the images; an unconditional one gives unlabelled images.
        count: how many images.
        file_format: ``tfrecord``, ``hdf5``, ``png``, ``idx``, ``idx-raw`` or ``npz``.
        seed: 0 to 2^64 - 1.
        start: index of the first image.
        shards: how many parts; by default one for every 6,000 images (idx, npz: one).
        labels: ``balanced``, ``uniform`` or a list such as ``0,3,7``.
        split: ``train`` or ``test``; names the files.

    Raises:
        UsageError: any of it cannot be.
    """
    if shards is None:
        shards = 1 if file_format in SINGLE_FILE_FORMATS else default_shards(count)
    if file_format in IDX_FORMATS and (shards != 1 or count > MAX_IDX_IMAGES):
        raise UsageError(
            f"shards {shards}, count {count}: the {file_format} format is one file by nature, "
            f"of at most {MAX_IDX_IMAGES:,} images"
        )
    rule = LabelRule.parse(labels) if checkpoint.recipe.conditional else None
    if rule is None and labels != "balanced":
        raise UsageError(
            f"labels '{labels}': checkpoint '{checkpoint.name}' is unconditional, its images bear no labels; "
            "leave --labels out or choose a conditional checkpoint"
        )
    plan = ShardPlan(start=start, count=count, shards=shards)
    return Export(plan=plan, seed=seed, file_format=file_format, labels=rule, split=split)


def generate(
    checkpoint: Checkpoint,
    export: Export,
    out: Path,
    *,
    resume: bool = False,
    allow_unprotected: bool = False,
    progress: Progress = lambda images: None,
) -> Manifest:
    """Draw the images of ``export`` from ``checkpoint`` and write them, with their manifest, into ``out``.

    Args:
        checkpoint: see ``synthgen.load_checkpoint``.
        export: see ``plan_export``.
        out: a folder that is new, empty, or (``resume``) holds the same export unfinished.
        resume: go on where an interrupted export stopped; finished shards are kept.
        allow_unprotected: export from a checkpoint without a formal privacy guarantee. The checkpoints that
            come with synthgen were trained on public images and need no such word.
        progress: called with the number of images just finished.

    Returns:
        The manifest that was written last of all.

    Raises:
        ExportError: ``out`` holds something else, is in use, cannot be written, or a guarantee is missing.
    """
    _refuse_unprotected(checkpoint, allow_unprotected)
    try:
        with claim_folder(out, _job_document(checkpoint, export), resume=resume):
            if (out / MANIFEST_NAME).exists():
                manifest = load_manifest(out)
                if problems := set_problems(out, manifest):
                    raise ExportError(f"{out}: holds this set, but spoilt: {problems[0]}; remove it and export anew")
                progress(manifest.count)
            else:
                records = _write_shards(checkpoint, export, out, progress)
                manifest = _finish(checkpoint, export, out, records)
                write_manifest(out, manifest)
        shutil.rmtree(out / WORK_FOLDER, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ExportError(f"{out}: cannot be written: {reason}; mend that, then go on with --resume") from error
    return manifest


def _job_document(checkpoint: Checkpoint, export: Export) -> dict[str, Any]:
    return {
        "checkpoint": checkpoint.sha256,
        "seed": export.seed,
        "labels": str(export.labels or "none"),
        "split": export.split,
        "format": export.file_format,
        **dataclasses.asdict(export.plan),
        "made_with": made_with(),  # a set drawn half here, half elsewhere would be reproducible nowhere
    }


def _write_shards(checkpoint: Checkpoint, export: Export, out: Path, progress: Progress) -> list[dict[str, Any]]:
    records = []
    for shard in export.plan:
        record = _finished_record(out, export.file_format, shard)
        if record is None:
            record = _write_shard(checkpoint, export, shard, out, progress)
        else:
            progress(shard.count)
        records.append(record)
    return records


def _write_shard(checkpoint: Checkpoint, export: Export, shard: Shard, out: Path, progress: Progress) -> dict[str, Any]:
    """Write one shard into a staging folder, move its files into place, then record it as finished."""
    staging = out / WORK_FOLDER / f"staging-{shard.index:05d}"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    digest = SetDigest(shard.start)
    class_counts = np.zeros(NUM_CLASSES, np.int64)
    labelled = export.labels is not None
    with WRITERS[export.file_format](staging, shard, export.split, labelled=labelled) as writer:
        for batch in sample(checkpoint, export.seed, export.labels, shard):
            digest.update(batch)
            if batch.labels is not None:
                class_counts += np.bincount(batch.labels, minlength=NUM_CLASSES)
            writer.write(batch)
            progress(len(batch))
        writer.finish(digest.hexdigest())
        names = writer.names
    files = [FileRecord.of(staging, name) for name in names]
    _move_tree(staging, out)
    record = {
        "index": shard.index,
        "start": shard.start,
        "count": shard.count,
        "files": [dataclasses.asdict(file) for file in files],
        "class_counts": class_counts.tolist(),
        "block_digests": [block.hex() for block in digest.block_digests()],
    }
    write_json(_record_path(out, shard), record)
    return record


def _move_tree(staging: Path, out: Path) -> None:
    """Flush every file below ``staging`` and rename it to the same place below ``out``."""
    paths = sorted(staging.rglob("*"))
    flush_all([path for path in paths if path.is_file()])
    for path in paths:
        target = out / path.relative_to(staging)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        else:
            path.replace(target)
    shutil.rmtree(staging)
    flush_to_disk(out)


def _record_path(out: Path, shard: Shard) -> Path:
    return out / WORK_FOLDER / f"shard-{shard.index:05d}.json"


def _finished_record(out: Path, file_format: str, shard: Shard) -> dict[str, Any] | None:
    """The record of a shard that an earlier run finished, if its files are still what it wrote."""
    path = _record_path(out, shard)
    if not path.exists():
        return None
    record: dict[str, Any] = json.loads(path.read_text("utf-8"))
    files = [FileRecord(**file) for file in record["files"]]
    return None if shard_problems(out, file_format, files) else record


def _finish(checkpoint: Checkpoint, export: Export, out: Path, records: list[dict[str, Any]]) -> Manifest:
    shards = tuple(_shard_record(record) for record in records)
    labelled = export.labels is not None
    sidecars = write_sidecars(
        out,
        export.file_format,
        export.split,
        [shard.count for shard in shards],
        sum(file.bytes for shard in shards for file in shard.files),
        labelled=labelled,
    )
    class_counts = np.sum([record["class_counts"] for record in records], axis=0).tolist()
    blocks = [bytes.fromhex(block) for record in records for block in record["block_digests"]]
    manifest = Manifest(
        checkpoint=CheckpointRecord(
            name=checkpoint.name,
            sha256=checkpoint.sha256,
            recipe=checkpoint.recipe.to_dict(),
            recipe_sha256=checkpoint.recipe.sha256,
        ),
        privacy=checkpoint.privacy,
        seed=export.seed,
        labels=str(export.labels or "none"),
        start=export.plan.start,
        count=export.plan.count,
        split=export.split,
        format=export.file_format,
        class_counts=tuple(class_counts) if labelled else (),
        digest=join_block_digests(blocks),
        shards=shards,
        sidecars=tuple(FileRecord.of(out, name) for name in sidecars),
        made_with=made_with(),
    )
    cards = write_cards(out, [manifest])
    return dataclasses.replace(manifest, sidecars=(*manifest.sidecars, *cards))


def _shard_record(record: dict[str, Any]) -> ShardRecord:
    return ShardRecord(
        index=record["index"],
        start=record["start"],
        count=record["count"],
        digest=join_block_digests([bytes.fromhex(block) for block in record["block_digests"]]),
        files=tuple(FileRecord(**file) for file in record["files"]),
    )


def _refuse_unprotected(checkpoint: Checkpoint, allowed: bool) -> None:
    if not (checkpoint.privacy.protects or checkpoint.is_builtin or allowed):
        raise ExportError(
            f"checkpoint '{checkpoint.name}' has no formal privacy guarantee; if its training images may be "
            "exposed, say so with --allow-unprotected"
        )
