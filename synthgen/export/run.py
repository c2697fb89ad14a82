"""Exports: a checkpoint and a plan become a set with its manifest, which is written last.

In one process, in several, on many machines without a coordinator, or through Ray: every shard is written by
``shard.write_shard``, and ``complete`` joins their records, so that the set is the same.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from synthgen.errors import ExportError, UsageError, WorkerError
from synthgen.export.claim import JOB_NAME, MAX_JOB_BYTES, expect_same_job, read_job
from synthgen.export.engine import Engine
from synthgen.export.outputs import LocalOutput, Output, open_output
from synthgen.export.plan import Export, Job, expect_guarantee, plan_export
from synthgen.export.shard import Callbacks, FinishedShard, finished_shard
from synthgen.files import sha256_of_json
from synthgen.model.checkpoint import Checkpoint
from synthgen.model.sampling import loaded_generator
from synthgen.pixels.backends import expect_backend, for_few, uses_tensorflow
from synthgen.sets.cards import sidecar_files
from synthgen.sets.consistency import expect_consistent
from synthgen.sets.integrity import set_problems
from synthgen.sets.manifest import WORK_FOLDER, Manifest, content_record, manifest_documents, split_manifest
from synthgen.sets.records import texts_of
from synthgen.workers import Progress, StepProgress

__all__ = ["Export", "generate", "generate_share", "merge", "plan_export"]


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
    backend: str = "auto",
    max_epsilon: float | None = None,
    max_delta: float | None = None,
    progress: Progress = lambda images: None,
    on_shard: StepProgress = lambda done, of: None,
    on_begin: Callable[[], None] = lambda: None,
) -> Manifest:
    """Draw the images of ``export`` from ``checkpoint`` and write them, with their manifest, into ``out``.

    Args:
        checkpoint: see ``synthgen.load_checkpoint``.
        export: see ``plan_export``.
        out: a folder or fsspec URL that is new, empty, or (``resume``) holds the same export unfinished.
        resume: continue an interrupted export; finished shards are kept.
        allow_unprotected: export from a checkpoint without a formal privacy guarantee, which is refused otherwise.
        max_epsilon: refuse a guarantee with a larger epsilon, or none.
        max_delta: the same of delta; by default 1e-5 where ``max_epsilon`` is given.
        workers: how many processes draw; by default this one alone. They are spawned, so a script that asks for more
            must keep its own work under ``if __name__ == "__main__"``. With Ray: how many actors, by default one for
            every processor of the cluster.
        engine: ``local``, or ``ray`` to draw on a Ray cluster, whose nodes must all reach ``out``.
        address: of the Ray cluster; by default the one this machine is part of, or a new one on it.
        backend: what computes the images, see ``pixels.backends.open_backend``; no pixel depends on it.
        progress: called with the number of images just finished.
        on_shard: called when a shard is finished.
        on_begin: called when drawing begins: every check has passed, and ``out`` is claimed. Not called for a set that
            is finished already.

    Returns:
        The manifest.

    Raises:
        UsageError: the engine or the backend is unknown, not installed or not for this checkpoint, there is no such
            device, ``workers`` is below 1, or ``max_epsilon`` is no number above 0.
        ExportError: ``out`` holds something else, is in use, or cannot be written; or the guarantee is missing or
            larger than ``max_epsilon``.
        PrivacyError: the checkpoint claims less than its ledger proves.
    """
    drawing = Engine(name=engine, workers=workers, address=address, backend=for_few(backend, export.plan.count))
    expect_guarantee(checkpoint, allow_unprotected, max_epsilon, max_delta)
    expect_allowed(checkpoint, out, drawing)
    callbacks = Callbacks(progress=progress, on_shard=on_shard, on_begin=on_begin)
    with one_line_errors(out):
        return export_set(checkpoint, export, open_output(out), drawing, resume, callbacks)


def generate_share(
    checkpoint: Checkpoint,
    export: Export,
    out: str | Path,
    *,
    share: int,
    of: int,
    allow_unprotected: bool = False,
    max_epsilon: float | None = None,
    max_delta: float | None = None,
    workers: int | None = None,
    backend: str = "auto",
    progress: Progress = lambda images: None,
    on_shard: StepProgress = lambda done, of: None,
    on_begin: Callable[[], None] = lambda: None,
) -> int:
    """Write every ``of``-th shard of an export, beginning with shard ``share``, and no manifest: see ``merge``.

    Any number of machines may do so in one ``out``, in any order, without a coordinator, and more than once.

    Args:
        share: 0 to ``of - 1``.
        of: the number of shares.
        checkpoint, export, out, allow_unprotected, max_epsilon, max_delta, workers, backend: as for ``generate``.
        progress, on_shard, on_begin: as for ``generate``.

    Returns:
        How many shards this share has.

    Raises:
        UsageError, ExportError: as ``generate``.
    """
    if not 0 <= share < of:
        raise UsageError(f"shard {share} of {of}: expected --shard 0 to --shard {of - 1}")
    # The whole export's count, so that its manifest is the same however it is shared out.
    engine = Engine(workers=workers, backend=for_few(backend, export.plan.count))
    expect_guarantee(checkpoint, allow_unprotected, max_epsilon, max_delta)
    expect_allowed(checkpoint, out, engine)
    indices = range(share, export.plan.shards, of)
    callbacks = Callbacks(progress=progress, on_shard=on_shard, on_begin=on_begin)
    with one_line_errors(out):
        output, job = open_output(out), Job.of(checkpoint, export)
        with output.claim(job.to_dict(), resume=True, shared=True):
            if output.manifest() is None:  # else the set is merged already
                engine.shards(job, export.sampler(checkpoint, engine.backend), output, indices, callbacks)
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
        if manifest is not None:
            output.remove_leftovers()
            return manifest
        job = _job_in(output, out)
        if job is None:
            raise ExportError(f"{out}: no export here; write its shards with synthgen export --shard I --of N")
        with output.claim(job.to_dict(), resume=True):
            manifest = output.manifest()
            if manifest is not None:  # of a merge that was done between our look and our claim
                return manifest
            manifest = complete(job, output, _all_shards(job, output, out))
            output.release()
    return manifest


def _all_shards(job: Job, output: Output, out: str | Path) -> list[FinishedShard]:
    """The records of all shards of a job, each finished somewhere; raises ExportError if one is not."""
    found = [finished_shard(job, shard, output, hashed=False) for shard in job.export.plan]
    # Two machines that wrote one shard at once may have packed the same images into other bytes of the same number.
    if len({sha256_of_json(shard.made_with) for shard in found if shard is not None}) > 1:
        found = [finished_shard(job, shard, output) for shard in job.export.plan]
    missing = [index for index, shard in enumerate(found) if shard is None]
    if missing:
        raise ExportError(
            f"{out}: {len(missing)} of {len(found)} shards are missing or of another export: "
            f"{_ranges(missing)}; run their export --shard again"
        )
    return [shard for shard in found if shard is not None]


def _joined(parts: Iterable[dict[str, str]]) -> dict[str, str]:
    """What shards were made with, as one: where they differ, all values, such as ``numpy, onnxruntime 1.32.0``."""
    values: dict[str, dict[str, None]] = {}
    for part in parts:
        for key, value in part.items():
            values.setdefault(key, {})[value] = None
    return {key: ", ".join(sorted(some)[:10])[:1000] for key, some in values.items()}


def export_set(
    checkpoint: Checkpoint, export: Export, output: Output, engine: Engine, resume: bool, callbacks: Callbacks
) -> Manifest:
    """What ``generate`` does after ``expect_allowed``."""
    job = Job.of(checkpoint, export)
    with output.claim(job.to_dict(), resume=resume):
        manifest = output.manifest()
        if manifest is not None:
            expect_sound(output, manifest)
            callbacks.progress(manifest.count)
        else:
            sampler = export.sampler(checkpoint, engine.backend)
            finished = engine.shards(job, sampler, output, range(export.plan.shards), callbacks)
            if engine.name == "ray":
                _expect_arrived(job, output, finished)
            manifest = complete(job, output, finished)
            output.release()
    return manifest


def complete(job: Job, output: Output, finished: Sequence[FinishedShard]) -> Manifest:
    """Write the files beside the shards of a set and, last of all, its manifest.

    Raises:
        ExportError: two shards name one file: the records in the work folder were made up.
    """
    export = job.export
    names = Counter(name for shard in finished for name in shard.record.names)
    if twice := [name for name, times in names.items() if times > 1]:
        raise ExportError(f"{output}: two shards name the file {twice[0]}; remove {output} and export anew")
    labelled = export.labels.labelled
    set_digest = hashlib.sha256()
    for shard in finished:
        set_digest.update(shard.block_digests)
    manifest = Manifest(
        checkpoint=job.checkpoint,
        privacy=job.privacy,
        seed=export.seed,
        labels=str(export.labels),
        start=export.plan.start,
        count=export.plan.count,
        split=export.split,
        format=export.file_format,
        class_counts=tuple(np.sum([shard.class_counts for shard in finished], axis=0).tolist()) if labelled else (),
        digest=set_digest.hexdigest(),
        shards=tuple(shard.record for shard in finished),
        sidecars=(),
        made_with=_joined(shard.made_with for shard in finished),
    )
    try:
        texts_of(manifest.made_with)  # texts of shards, few enough each, may be too many together
        expect_consistent(manifest)
    except ValueError as error:  # records of finished shards may come from anyone
        raise ExportError(f"{output}: its job or a shard's record was altered: {error}; export it anew") from error
    return publish_manifests(output, [manifest], job.to_dict())[0]


def publish_manifests(output: Output, manifests: Sequence[Manifest], job: dict[str, Any]) -> tuple[Manifest, ...]:
    """Publish the sidecars and the manifests of a set's splits.

    Each manifest holds the hashes of the sidecars; the first one also those of the other manifests. It is written
    last: its presence means that the set is complete.

    Args:
        output: the set's, its shards in place.
        manifests: of the splits, without sidecars.
        job: the claim on ``output``.

    Returns:
        The manifests as written.

    Raises:
        ExportError: another export has claimed ``output`` meanwhile, which is possible at a URL.
    """
    sidecars = sidecar_files(manifests)
    records = tuple(content_record(name, data) for name, data in sidecars.items())
    with output.staging() as staging:
        for name, data in sidecars.items():
            (staging / name).write_bytes(data)
        output.publish(staging)
    claim = output.read(f"{WORK_FOLDER}/{JOB_NAME}", MAX_JOB_BYTES)
    if claim is not None:
        expect_same_job(str(output), read_job(str(output), claim), job, resume=True)
    first, *others = (replace(manifest, sidecars=records) for manifest in manifests)
    for other in others:
        _, documents = manifest_documents(other, split_manifest(other.split))
        for name, data in documents.items():
            output.write(name, data)
            first = replace(first, sidecars=(*first.sidecars, content_record(name, data)))
    first, documents = manifest_documents(first)
    for name, data in documents.items():
        output.write(name, data)
    return first, *others


def _job_in(output: Output, out: str | Path) -> Job | None:
    data = output.read(f"{WORK_FOLDER}/{JOB_NAME}", MAX_JOB_BYTES)
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
    """Raise ExportError unless a finished set's files are what its manifest says; files at a URL are not read."""
    if isinstance(output, LocalOutput) and (problems := set_problems(output.path, manifest)):
        raise ExportError(f"{output.path}: holds this set, but spoilt: {problems[0]}; remove it and export anew")


def _expect_arrived(job: Job, output: Output, finished: Sequence[FinishedShard]) -> None:
    """Raise ExportError unless this machine sees what the other machines wrote."""
    for shard in finished:
        if problems := output.problems(job.export.file_format, shard.record, hashed=False):
            raise ExportError(f"{problems[0]}, where a Ray actor wrote it; choose an --out that every node shares")


@contextmanager
def one_line_errors(out: str | Path) -> Iterator[None]:
    """Turn errors of the system and of dead workers into an ExportError that names ``out`` and the cure."""
    try:
        yield
    except WorkerError as error:
        raise ExportError(f"{out}: {error} Finished shards are kept, go on with --resume") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise ExportError(f"{out}: cannot be written: {reason}; mend that, then go on with --resume") from error


def expect_allowed(checkpoint: Checkpoint, out: str | Path, engine: Engine) -> None:
    """Check all else that can be checked before ``out`` is claimed, so that a refused export leaves nothing behind.

    Raises:
        UsageError, ExportError: as ``generate``.
        CheckpointError: the weights do not fit the recipe.
    """
    loaded_generator(checkpoint, "numpy")
    engine.expect_ready(out)
    expect_backend(engine.backend, exact=checkpoint.exact)
    if uses_tensorflow(engine.backend) and engine.name == "local":  # only TensorFlow itself knows its devices
        loaded_generator(checkpoint, engine.backend)
