"""Generation: a checkpoint and a plan become a set with its manifest, which is written last.

In one process, in several, on many machines that know nothing of each other, or through Ray: every shard is made by
``shard_files.generate_shard``, and ``complete`` joins their records, so that the set is the same.
"""

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from synthgen.errors import ExportError, UsageError, WorkerError
from synthgen.export.claim import JOB_NAME, expect_same_job, read_job
from synthgen.export.outputs import LocalOutput, Output, open_output
from synthgen.export.plan import Export, Job, plan_export
from synthgen.export.shard import FinishedShard, finished_shard, generate_shard, write_shard
from synthgen.formats.base import Batch
from synthgen.formats.table import FORMATS
from synthgen.index import BLOCK_IMAGES, LabelRule, Shard, ShardPlan
from synthgen.model.checkpoint import Checkpoint
from synthgen.model.sampling import loaded_generator, sample
from synthgen.sets.cards import write_cards
from synthgen.sets.integrity import set_problems
from synthgen.sets.manifest import WORK_FOLDER, FileRecord, Manifest, manifest_documents
from synthgen.workers import Act, Progress, StepProgress, available_cpus, run_in_processes

__all__ = [
    "Export",
    "default_workers",
    "expect_guarantee",
    "generate",
    "generate_share",
    "merge",
    "plan_export",
    "write_set",
]

_IMAGES_PER_WORKER = 3_000  # fewer are drawn sooner than one more process has started
_MAX_DEFAULT_WORKERS = 8  # more wait for the disk
_BLOCKS_PER_PIECE = 8  # what one task of a drawing process gives: 2,048 images, 1.6 MB


def generate(
    checkpoint: Checkpoint,
    export: Export,
    out: str | Path,
    *,
    resume: bool = False,
    allow_unprotected: bool = False,
    workers: int | None = None,
    engine: str = "local",
    address: str | None = None,
    max_epsilon: float | None = None,
    progress: Progress = lambda images: None,
    on_shard: StepProgress = lambda done, of: None,
) -> Manifest:
    """Draw the images of ``export`` from ``checkpoint`` and write them, with their manifest, into ``out``.

    Args:
        checkpoint: see ``synthgen.load_checkpoint``.
        export: see ``plan_export``.
        out: a folder or fsspec URL that is new, empty, or (``resume``) holds the same export unfinished.
        resume: go on where an interrupted export stopped; finished shards are kept.
        allow_unprotected: export from a checkpoint without a formal privacy guarantee; the package's own default
            needs no such word.
        max_epsilon: refuse a guarantee that is looser than this, or absent.
        workers: how many processes draw; by default this one alone. They are spawned, so a script that asks for more
            must keep its own work under ``if __name__ == "__main__"``. With Ray: how many actors, by default one for
            every processor of the cluster.
        engine: ``local``, or ``ray`` to draw on a Ray cluster, on which ``out`` must be reachable everywhere.
        address: of the Ray cluster; by default the one this machine is part of, or a new one on it.
        progress: called with the number of images just finished.
        on_shard: called when a shard is finished.

    Returns:
        The manifest that was written last of all.

    Raises:
        UsageError: an engine that does not exist or is not installed, no workers at all, or ``max_epsilon`` is no
            number above 0.
        ExportError: ``out`` holds something else, is in use, cannot be written, or a guarantee is missing or loose.
        PrivacyError: the checkpoint claims less than its ledger proves.
    """
    expect_guarantee(checkpoint, allow_unprotected, max_epsilon)
    loaded_generator(checkpoint)  # what cannot be drawn from is refused before anything is written
    with one_line_errors(out):
        crew = _Crew(_expect_workers(workers, out, engine), engine, address)
        crew.expect_ready()  # before the claim: what is refused leaves nothing behind
        output = open_output(out)
        job = Job.of(checkpoint, export)
        with output.claim(job.to_dict(), resume=resume):
            manifest = output.manifest()
            if manifest is not None:
                expect_sound(output, manifest)
                progress(manifest.count)
            else:
                drawn = crew.shards(job, str(out), output, range(export.plan.shards), progress)
                finished = list(_told(drawn, export.plan.shards, on_shard))
                if engine == "ray":
                    _expect_arrived(job, output, finished)
                manifest = complete(job, output, finished)
        output.release()
    return manifest


def generate_share(
    checkpoint: Checkpoint,
    export: Export,
    out: str | Path,
    *,
    share: int,
    of: int,
    allow_unprotected: bool = False,
    max_epsilon: float | None = None,
    workers: int | None = None,
    progress: Progress = lambda images: None,
    on_shard: StepProgress = lambda done, of: None,
) -> int:
    """Write every ``of``-th shard of an export, beginning with shard ``share``, and no manifest: see ``merge``.

    Any number of machines may do so in one ``out``, in any order, with no coordinator, twice if need be.

    Args:
        share: 0 to ``of - 1``.
        of: among how many the shards are dealt out.
        checkpoint, export, out, allow_unprotected, max_epsilon, workers, progress, on_shard: as for ``generate``.

    Returns:
        How many shards are this share.

    Raises:
        UsageError, ExportError: as ``generate``.
    """
    if not 0 <= share < of:
        raise UsageError(f"shard {share} of {of}: expected --shard 0 to --shard {of - 1}")
    expect_guarantee(checkpoint, allow_unprotected, max_epsilon)
    loaded_generator(checkpoint)
    crew = _Crew(_expect_workers(workers, out), "local", None)
    indices = range(share, export.plan.shards, of)
    with one_line_errors(out):
        output = open_output(out)
        job = Job.of(checkpoint, export)
        with output.claim(job.to_dict(), resume=True, shared=True):
            if output.manifest() is None:  # else all is done, merged even
                finished = crew.shards(job, str(out), output, indices, progress)
                for _ in _told(finished, len(indices), on_shard):
                    pass
    return len(indices)


def merge(out: str | Path) -> Manifest:
    """Complete a set whose shards were written share by share: check that all are there, and write the manifest.

    Args:
        out: the folder or URL the shares were written to.

    Raises:
        ExportError: a share is still being written; shards are missing, spoilt or of another job.
    """
    with one_line_errors(out):
        output = open_output(out)
        manifest = output.manifest()
        if manifest is not None:  # the work folder may be left, where the merge that wrote the manifest was killed
            output.release()
            return manifest
        job = _job_in(output, out)
        if job is None:
            raise ExportError(f"{out}: no export here; write its shards with synthgen export --shard I --of N")
        with output.claim(job.to_dict(), resume=True):
            found = [(shard, finished_shard(job, shard, output, hashed=False)) for shard in job.export.plan]
            missing = [shard.index for shard, finished in found if finished is None]
            if missing:
                raise ExportError(
                    f"{out}: {len(missing)} of {len(found)} shards are missing or of another export: "
                    f"{_ranges(missing)}; run their export --shard again"
                )
            manifest = complete(job, output, [finished for _, finished in found if finished is not None])
        output.release()
    return manifest


def complete(job: Job, output: Output, finished: Sequence[FinishedShard]) -> Manifest:
    """Write what stands beside the shards of a set and, last of all, its manifest."""
    export = job.export
    labelled = export.labels is not None
    set_digest = hashlib.sha256()
    for shard in finished:
        set_digest.update(shard.block_digests)
    manifest = Manifest(
        checkpoint=job.checkpoint,
        privacy=job.privacy,
        seed=export.seed,
        labels=str(export.labels or "none"),
        start=export.plan.start,
        count=export.plan.count,
        split=export.split,
        format=export.file_format,
        class_counts=tuple(np.sum([shard.class_counts for shard in finished], axis=0).tolist()) if labelled else (),
        digest=set_digest.hexdigest(),
        shards=tuple(shard.record for shard in finished),
        sidecars=(),
        made_with=job.made_with,
    )
    with output.staging() as staging:
        sidecars = FORMATS[export.file_format].sidecars(
            export.split,
            [shard.count for shard in manifest.shards],
            sum(file.bytes for shard in manifest.shards for file in shard.files),
            labelled=labelled,
        )
        for name, data in sidecars.items():
            (staging / name).write_bytes(data)
        manifest = dataclasses.replace(manifest, sidecars=tuple(FileRecord.of(staging, name) for name in sidecars))
        cards = write_cards(staging, [manifest])
        output.publish(staging)
    manifest, documents = manifest_documents(dataclasses.replace(manifest, sidecars=(*manifest.sidecars, *cards)))
    claim = output.read(f"{WORK_FOLDER}/{JOB_NAME}")
    if claim is not None:  # where nobody can be locked out, another's claim may lie there by now
        expect_same_job(str(output), read_job(str(output), claim), job.to_dict(), resume=True)
    for name, data in documents.items():
        output.write(name, data)
    return manifest


def write_set(
    checkpoint: Checkpoint,
    out: Path,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint8] | None,
    file_format: str,
) -> Manifest:
    """Write given images as a set that names ``checkpoint`` as its origin, to test what judges sets.

    Args:
        checkpoint: a stand-in; it did not draw these images, and ``verify --regenerate`` will say so.
        out: a new folder.
        images: uint8, shape (N, 28, 28).
        labels: uint8, shape (N,), or None.
        file_format: of the set.
    """
    rule = None if labels is None else LabelRule.parse("uniform")
    plan = ShardPlan(start=0, count=len(images), shards=1)
    job = Job.of(checkpoint, Export(plan=plan, seed=0, file_format=file_format, labels=rule))
    output = LocalOutput(out)
    with output.claim(job.to_dict(), resume=False):
        batches = iter([Batch(start=0, images=images, labels=labels)])
        manifest = complete(job, output, [write_shard(job, plan[0], output, batches)])
    output.release()
    return manifest


def default_workers(count: int) -> int:
    """How many processes draw ``count`` images soonest: one for every processor, fewer for small sets, at most 8."""
    return max(1, min(available_cpus(), count // _IMAGES_PER_WORKER, _MAX_DEFAULT_WORKERS))


@dataclass(frozen=True)
class _Crew:
    """Who draws: this process, several, or a Ray cluster."""

    workers: int | None
    engine: str
    address: str | None

    def expect_ready(self) -> None:
        """Raise UsageError unless the engine exists, is installed, and something listens at the address."""
        if self.engine == "ray":
            from synthgen.export.ray import expect_ray

            expect_ray(self.address)
        elif self.engine != "local":
            raise UsageError(f"engine '{self.engine}': expected local or ray")

    def shards(
        self, job: Job, out: str, output: Output, indices: Sequence[int], progress: Progress
    ) -> Iterator[FinishedShard]:
        """Write the shards of ``indices``; yield each one's record, in order."""
        if self.engine == "ray":
            from synthgen.export.ray import generate_on_ray

            place = out if "://" in out else str(Path(out).resolve())  # an actor's working folder is another
            return generate_on_ray(job, place, indices, address=self.address, actors=self.workers, progress=progress)
        if self.workers is None or self.workers == 1:
            return (generate_shard(job, index, output, progress) for index in indices)
        if len(indices) >= self.workers:
            return run_in_processes(_ShardWork(job, out), indices, processes=self.workers, progress=progress)
        return self._few_shards(job, output, indices, progress)

    def _few_shards(
        self, job: Job, output: Output, indices: Sequence[int], progress: Progress
    ) -> Iterator[FinishedShard]:
        """Fewer shards than processes: these draw pieces, and this one writes them in order."""
        shards = [job.export.plan[index] for index in indices]
        finished = {shard.index: finished_shard(job, shard, output) for shard in shards}
        pieces = {shard.index: list(_pieces(shard)) for shard in shards if finished[shard.index] is None}
        tasks = [piece for some in pieces.values() for piece in some]
        drawn = run_in_processes(_DrawWork(job), tasks, processes=self.workers or 1)
        for shard in shards:
            earlier = finished[shard.index]
            if earlier is not None:
                progress(shard.count)
                yield earlier
            else:
                batches = islice(drawn, len(pieces[shard.index]))
                yield write_shard(job, shard, output, batches, progress)


@dataclass(frozen=True)
class _ShardWork:
    """What a process that writes whole shards does."""

    job: Job
    out: str

    def __call__(self) -> Act:
        output = open_output(self.out)
        return lambda index, progress: generate_shard(self.job, index, output, progress)


@dataclass(frozen=True)
class _DrawWork:
    """What a process that only draws does."""

    job: Job

    def __call__(self) -> Act:
        source, export = self.job.source(), self.job.export
        return lambda piece, progress: _joined(list(sample(source, export.seed, export.labels, piece)))


def _pieces(shard: Shard) -> Iterator[Shard]:
    """A shard cut between blocks into what one task draws."""
    step = _BLOCKS_PER_PIECE * BLOCK_IMAGES
    edges = [shard.start, *range((shard.start // step + 1) * step, shard.stop, step), shard.stop]
    for first, last in pairwise(edges):
        yield Shard(index=shard.index, of=shard.of, start=first, count=last - first)


def _joined(batches: list[Batch]) -> Batch:
    labels = [batch.labels for batch in batches if batch.labels is not None]
    return Batch(
        start=batches[0].start,
        images=np.concatenate([batch.images for batch in batches]),
        labels=np.concatenate(labels) if labels else None,
    )


def _told(finished: Iterator[FinishedShard], of: int, on_shard: StepProgress) -> Iterator[FinishedShard]:
    for done, shard in enumerate(finished, start=1):
        on_shard(done, of)
        yield shard


def _job_in(output: Output, out: str | Path) -> Job | None:
    data = output.read(f"{WORK_FOLDER}/{JOB_NAME}")
    if data is None:
        return None
    document = read_job(str(out), data)
    try:
        return Job.from_dict(document)
    except ExportError as error:
        raise ExportError(f"{out}: {error}") from error


def _ranges(numbers: Sequence[int]) -> str:
    """``2, 5-7``: numbers in order, the first few runs of them."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    shown = [f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs[:10]]
    return ", ".join(shown) + (", …" if len(runs) > 10 else "")


def expect_sound(output: Output, manifest: Manifest) -> None:
    """Raise ExportError where a finished set's files are not what its manifest says; at a URL they are not read."""
    if isinstance(output, LocalOutput) and (problems := set_problems(output.path, manifest)):
        raise ExportError(f"{output.path}: holds this set, but spoilt: {problems[0]}; remove it and export anew")


def _expect_arrived(job: Job, output: Output, finished: Sequence[FinishedShard]) -> None:
    """Raise ExportError unless what other machines wrote is seen here too."""
    for shard in finished:
        if problems := output.problems(job.export.file_format, shard.record, hashed=False):
            raise ExportError(f"{problems[0]}, where a Ray actor wrote it; choose an --out that every node shares")


def _expect_workers(workers: int | None, out: str | Path, engine: str = "local") -> int | None:
    if workers is not None and workers < 1:
        raise UsageError(f"workers {workers}: expected at least 1")
    if str(out).startswith("memory://") and (engine == "ray" or workers not in (None, 1)):
        raise UsageError(f"{out}: only one process sees its own memory; use --workers 1 and the local engine")
    return workers


@contextmanager
def one_line_errors(out: str | Path) -> Iterator[None]:
    """Turn what the system or a dead worker raises while ``out`` is written into an ExportError that names the cure."""
    try:
        yield
    except WorkerError as error:
        raise ExportError(f"{out}: {error} Finished shards are kept, go on with --resume") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise ExportError(f"{out}: cannot be written: {reason}; mend that, then go on with --resume") from error


def expect_guarantee(checkpoint: Checkpoint, allow_unprotected: bool, max_epsilon: float | None) -> None:
    """Raise ExportError unless the checkpoint's privacy guarantee is what ``generate`` is asked to insist on."""
    if max_epsilon is not None and not 0 < max_epsilon < math.inf:
        raise UsageError(f"max_epsilon {max_epsilon}; expected a number above 0")
    checkpoint.privacy.expect_proven()  # again: a checkpoint may be built in memory
    proof = checkpoint.privacy.proof
    if max_epsilon is not None and (proof is None or proof.epsilon > max_epsilon):
        found = "no formal privacy guarantee" if proof is None else f"epsilon {proof.epsilon:g}"
        raise ExportError(
            f"checkpoint '{checkpoint.name}' has {found}; asked for was epsilon {max_epsilon:g} or less: choose "
            "another checkpoint or a larger --max-epsilon"
        )
    if proof is None and not allow_unprotected:
        raise ExportError(
            f"checkpoint '{checkpoint.name}' has no formal privacy guarantee; if its training images may be "
            "exposed, say so with --allow-unprotected"
        )
