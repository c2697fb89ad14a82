"""Several splits in one folder, without an image in common: each is the next part of one sequence of images.

Every split is first made as an ordinary set in the work folder, by the same code and resumed by the same code. When all
are complete, their files are linked into the set's folder, and what describes them together is written. The first
split's manifest is ``manifest.json``; it holds the hashes of the others, which are named after their splits.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from synthgen.errors import ExportError, UsageError
from synthgen.export.claim import is_finished
from synthgen.export.engine import Engine
from synthgen.export.outputs import LocalOutput, open_output
from synthgen.export.plan import Export, Job, expect_guarantee, plan_export
from synthgen.export.run import (
    expect_allowed,
    expect_sound,
    export_set,
    one_line_errors,
    publish_manifests,
)
from synthgen.export.shard import Callbacks
from synthgen.files import flush_to_disk, is_own_folder, move_into_place, own_folder
from synthgen.formats.table import FORMATS
from synthgen.index import MAX_DIGITS
from synthgen.model.checkpoint import Checkpoint
from synthgen.pixels.backends import for_few
from synthgen.sets.manifest import SHARDS_PER_LIST, WORK_FOLDER, Manifest, load_manifests
from synthgen.workers import Progress, StepProgress


def plan_splits(
    checkpoint: Checkpoint, splits: str, *, file_format: str, seed: int = 0, start: int = 0, labels: str = "balanced"
) -> tuple[Export, ...]:
    """Check a request such as ``train=60000,test=10000``: each split begins where the one before it ends.

    Raises:
        UsageError: ``splits`` is not of that form or a split has too many shards; or as ``plan_export``.
    """
    exports: list[Export] = []
    for part in splits.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        if not number.isdecimal() or len(number) > MAX_DIGITS or name in [export.split for export in exports]:
            raise UsageError(
                f"splits '{splits:.80}': expected each split once, with a count, as in train=60000,test=10000"
            )
        export = plan_export(
            checkpoint,
            count=int(number),
            file_format=file_format,
            seed=seed,
            start=start,
            labels=labels,
            split=name,
        )
        if export.plan.shards > SHARDS_PER_LIST:
            raise UsageError(
                f"splits '{splits}': {name} makes {export.plan.shards:,} shards; expected at most "
                f"{SHARDS_PER_LIST:,}: export each split into a folder of its own"
            )
        exports.append(export)
        start += int(number)
    return tuple(exports)


def generate_splits(
    checkpoint: Checkpoint,
    exports: Sequence[Export],
    out: str | Path,
    *,
    resume: bool = False,
    allow_unprotected: bool = False,
    max_epsilon: float | None = None,
    max_delta: float | None = None,
    workers: int | None = None,
    backend: str = "auto",
    progress: Progress = lambda images: None,
    on_shard: StepProgress = lambda done, of: None,
    on_begin: Callable[[], None] = lambda: None,
) -> tuple[Manifest, ...]:
    """Draw several splits and write them, each with its manifest, into one folder.

    Args:
        checkpoint: see ``synthgen.load_checkpoint``.
        exports: see ``plan_splits``; the first one's manifest is ``manifest.json``.
        out: a folder that is new, empty, or (``resume``) holds the same splits unfinished.
        resume: continue an interrupted export.
        allow_unprotected, max_epsilon, max_delta, workers, backend, on_begin: as for ``generate``.
        progress: called with the number of images just finished.
        on_shard: called when a shard of any split is finished.

    Returns:
        The manifests of the splits.

    Raises:
        UsageError, ExportError, PrivacyError: as ``generate``.
    """
    engine = Engine(workers=workers, backend=for_few(backend, sum(export.plan.count for export in exports)))
    expect_guarantee(checkpoint, allow_unprotected, max_epsilon, max_delta)
    expect_allowed(checkpoint, out, engine)
    job = _job(checkpoint, exports)
    with one_line_errors(out):
        output = open_output(out)
        if not isinstance(output, LocalOutput):
            raise UsageError(f"out '{out}': several splits need a folder; export each to a URL of its own")
        if is_finished(output.path):
            return _finished(output, exports, checkpoint, resume, progress)
        with output.claim(job, resume=resume):
            on_begin()
            of, earlier = sum(export.plan.shards for export in exports), 0
            parts = []
            for export in exports:
                part = LocalOutput(own_folder(output.path, f"{WORK_FOLDER}/splits/{export.split}"))
                callbacks = Callbacks(
                    progress=progress, on_shard=partial(_count_on, on_shard, earlier, of), on_begin=lambda: None
                )
                parts.append((part.path, export_set(checkpoint, export, part, engine, True, callbacks)))
                earlier += export.plan.shards
            manifests = _assemble(parts, output, job)
            output.release()
    return manifests


def _count_on(on_shard: StepProgress, earlier: int, of: int, done: int, _: int) -> None:
    on_shard(earlier + done, of)


def _job(checkpoint: Checkpoint, exports: Sequence[Export]) -> dict[str, Any]:
    """One claim for all splits. Its ``split`` lists them all, so it is no claim of a single set."""
    splits = ",".join(f"{export.split}={export.plan.count}" for export in exports)
    return {**Job.of(checkpoint, exports[0]).to_dict(), "split": splits}


def _finished(
    output: LocalOutput, exports: Sequence[Export], checkpoint: Checkpoint, resume: bool, progress: Progress
) -> tuple[Manifest, ...]:
    """The manifests of a finished set; raises ExportError unless it is the one asked for."""
    manifests = load_manifests(output.path)
    wanted = [(e.split, e.plan.start, e.plan.count, e.seed, str(e.labels), e.file_format) for e in exports]
    found = [(m.split, m.start, m.count, m.seed, m.labels, m.format) for m in manifests]
    if not resume or found != wanted or manifests[0].checkpoint.sha256 != checkpoint.sha256:
        raise ExportError(f"{output.path}: holds a finished set; choose a new folder with --out")
    for manifest in manifests:
        expect_sound(output, manifest)
        progress(manifest.count)
    output.remove_leftovers()  # the work folder stays where an export was killed after it wrote the manifest
    return manifests


def _assemble(parts: Sequence[tuple[Path, Manifest]], output: LocalOutput, job: dict[str, Any]) -> tuple[Manifest, ...]:
    """Link the files of complete sets into one folder, then write what describes them together."""
    for folder, manifest in parts:
        _link_tree(folder, output.path, _names(folder, manifest))
    manifests = [manifest for _, manifest in parts]
    return publish_manifests(output, manifests, job)


def _names(folder: Path, manifest: Manifest) -> list[str]:
    """Every file of a set except what describes it, and the folders that may be empty."""
    file_format, names = FORMATS[manifest.format].showing(manifest.subject), []
    for shard in manifest.shards:
        names += [*shard.names, *(name for _, name in file_format.listed(folder, shard.names, shard.count))]
    return [*names, *file_format.folders(manifest.split, labelled=manifest.labelled)]


def _link_tree(folder: Path, out: Path, names: Sequence[str]) -> None:
    """Give files of ``folder``, which are its own, the same names below ``out``, and make its folders there."""
    changed = {out: True}  # in order
    for name in names:
        source, target = folder / name, out / name
        if is_own_folder(source):
            own_folder(out, name)
            continue
        if target.parent not in changed:
            changed[own_folder(out, name.rpartition("/")[0])] = True
        target.unlink(missing_ok=True)  # of an earlier try
        try:
            os.link(source, target)
        except OSError:  # a file system without links; an unfinished copy stays in the work folder
            copy = out / WORK_FOLDER / "copy"
            copy.unlink(missing_ok=True)
            shutil.copyfile(source, copy)
            move_into_place(copy, target)
    for parent in changed:
        flush_to_disk(parent)
