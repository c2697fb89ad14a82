"""Shards on disk: each is written whole or not at all, and its record says that it is finished.

``generate_shard`` is all that a machine has to call: a pure function of a job and a shard's number. It may be called
again, on another machine, and twice at once.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from synthgen.export.outputs import MAX_DOCUMENT_BYTES, Output, open_output
from synthgen.export.plan import Job
from synthgen.files import json_bytes
from synthgen.formats.base import Batch
from synthgen.formats.table import FORMATS
from synthgen.index import BLOCK_IMAGES, Shard
from synthgen.model.sampling import Sampler
from synthgen.sets.digest import SetDigest, join_block_digests
from synthgen.sets.manifest import WORK_FOLDER, FileRecord, ShardRecord, shard_record
from synthgen.sets.records import texts_of
from synthgen.subject import MAX_CLASSES
from synthgen.untrusted.text import parse_json
from synthgen.workers import Progress, StepProgress

_RECORD_BYTES, _BLOCK_BYTES = 64 << 10, 100  # a shard's record: at most so much, and so much for every block of images


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """How an export reports; see ``generate``."""

    progress: Progress
    on_shard: StepProgress
    on_begin: Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class FinishedShard:
    """A shard that is on disk, whole.

    Attributes:
        record: what the manifest will say about it.
        class_counts: images of each class; all zero where there are no labels.
        block_digests: the SHA-256 of its blocks, 32 bytes each; the set's digest is made from them.
        job: the hash of its job.
        made_with: what drew and packed it, for the manifest.
    """

    record: ShardRecord
    class_counts: tuple[int, ...]
    block_digests: bytes
    job: str
    made_with: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        blocks = [self.block_digests[i : i + 32].hex() for i in range(0, len(self.block_digests), 32)]
        return {
            **asdict(self.record),
            "class_counts": list(self.class_counts),
            "block_digests": blocks,
            "job": self.job,
            "made_with": self.made_with,
        }

    @classmethod
    def from_dict(cls, document: Any) -> "FinishedShard":
        """Read it back; raises ValueError, KeyError, TypeError or AttributeError for anything else."""
        own = {"class_counts", "block_digests", "job", "made_with"}
        record = shard_record({key: value for key, value in document.items() if key not in own})
        digests, counts = document["block_digests"], document["class_counts"]
        blocks = b"".join(bytes.fromhex(block) for block in digests)
        if len(blocks) != 32 * len(digests) or join_block_digests([blocks]) != record.digest:
            raise ValueError("the block digests do not give the shard's digest")
        if len(counts) > MAX_CLASSES or not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError("class_counts are not numbers of images")
        return cls(
            record=record,
            class_counts=tuple(counts),
            block_digests=blocks,
            job=str(document["job"]),
            made_with=texts_of(document["made_with"]),
        )


def generate_shard(
    job: Job, index: int, out: str | Path | Output, progress: Progress = lambda images: None, *, backend: str = "auto"
) -> FinishedShard:
    """Draw and write shard ``index`` of a job, unless it is there already.

    Every call with the same job and index leaves the same images. Files get their final names only once they are whole,
    and the shard's record is written after them. So the call may be killed and repeated, and made twice at once.

    Args:
        job: what to export, from which checkpoint.
        index: 0 to ``job.export.plan.shards - 1``.
        out: a folder or URL that the job has claimed.
        progress: called with the number of images just finished.
        backend: what computes, see ``pixels.backends.open_backend``.

    Raises:
        CheckpointError, ExportError: the checkpoint is not the job's, or a float one whose pixels would be rounded
            otherwise here.
        UsageError: there is no such backend.
        OSError: ``out`` cannot be written.
    """
    output = open_output(out) if isinstance(out, str | Path) else out
    return draw_shard(job, index, output, lambda: job.sampler(backend), progress)


def draw_shard(
    job: Job, index: int, output: Output, sampler: Callable[[], Sampler], progress: Progress
) -> FinishedShard:
    """As ``generate_shard``; ``sampler`` gives what draws the job's images, and is called only if it is needed."""
    shard = job.export.plan[index]
    finished = finished_shard(job, shard, output)
    if finished is not None:
        progress(shard.count)
        return finished
    source = sampler()
    return write_shard(job, shard, output, source.shard(shard, threads=1), source.made_with(), progress)


def write_shard(
    job: Job, shard: Shard, output: Output, batches: Iterator[Batch], made_with: dict[str, str], progress: Progress
) -> FinishedShard:
    """Write the images of one shard, then its record, which says what they were made with."""
    export, digest = job.export, SetDigest(shard.start)
    class_counts = np.zeros(export.labels.of, np.int64)
    with output.staging() as staging:
        names = (
            FORMATS[export.file_format]
            .showing(job.checkpoint.subject)
            .write(
                staging,
                shard,
                export.split,
                _counted(batches, digest, class_counts, progress),
                digest.hexdigest,
                labelled=export.labels.labelled,
            )
        )
        files = tuple(FileRecord.of(staging, name) for name in names)
        output.publish(staging)
    finished = FinishedShard(
        record=ShardRecord(
            index=shard.index, start=shard.start, count=shard.count, digest=digest.hexdigest(), files=files
        ),
        class_counts=tuple(class_counts.tolist()),
        block_digests=b"".join(digest.block_digests()),
        job=job.sha256,
        made_with=made_with,
    )
    output.write(_record_name(shard), json_bytes(finished.to_dict()))
    return finished


def _counted(
    batches: Iterator[Batch], digest: SetDigest, class_counts: npt.NDArray[np.int64], progress: Progress
) -> Iterator[Batch]:
    """The batches: each is digested and its labels are counted before it is written, and it is reported afterwards."""
    for batch in batches:
        digest.update(batch)
        if batch.labels is not None:
            class_counts += np.bincount(batch.labels, minlength=len(class_counts))
        yield batch
        progress(len(batch))


def finished_shard(job: Job, shard: Shard, output: Output, *, hashed: bool = True) -> FinishedShard | None:
    """The record of a shard that was finished earlier, if it is this job's and its files are unchanged; else None.

    Args:
        job: the shard's job.
        shard: the shard.
        output: where it would be.
        hashed: read the files and compare their hashes, not just their sizes.
    """
    blocks = -(-shard.stop // BLOCK_IMAGES) - shard.start // BLOCK_IMAGES
    limit = min(_RECORD_BYTES + _BLOCK_BYTES * blocks, MAX_DOCUMENT_BYTES)
    data = output.read(_record_name(shard), limit)
    if data is None:
        return None
    try:
        finished = FinishedShard.from_dict(parse_json(data))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    record = finished.record
    wanted = (job.sha256, shard.index, shard.start, shard.count, 32 * blocks)
    if (finished.job, record.index, record.start, record.count, len(finished.block_digests)) != wanted:
        return None
    if finished.class_counts != job.export.labels.class_counts(job.export.seed, shard.start, shard.count):
        return None
    return None if output.problems(job.export.file_format, record, hashed=hashed) else finished


def _record_name(shard: Shard) -> str:
    return f"{WORK_FOLDER}/shard-{shard.index:05d}.json"
