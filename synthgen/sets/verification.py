"""Verification: is a set on disk what its manifest claims?

Every file is hashed again; every image is read back, counted and digested; on request some are drawn again.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from synthgen.environment import float_drawn_with
from synthgen.errors import UsageError
from synthgen.formats.table import FORMATS
from synthgen.model.checkpoint import Checkpoint, builtin_checkpoints, load_checkpoint
from synthgen.model.claims import BUILT_IN
from synthgen.model.sampling import Sampler, loaded_generator
from synthgen.pixels.backends import expect_backend, expect_divisible, for_few, uses_tensorflow
from synthgen.sets.cards import sidecar_files
from synthgen.sets.checking import Redrawn, ShardCheck
from synthgen.sets.integrity import files_problems, format_of
from synthgen.sets.keys import PublicKey
from synthgen.sets.manifest import (
    MANIFEST_NAME,
    WORK_FOLDER,
    Manifest,
    content_record,
    load_manifest,
    load_manifests,
    seal_problems,
    split_manifest,
)
from synthgen.sets.origin import in_todays_words, set_origin
from synthgen.sets.signatures import signature_name
from synthgen.workers import Progress, available_cpus, run_in_pool

# Images: fewer are checked sooner than one more process has started.
_READ_PER_WORKER, _HASHED_PER_WORKER, _DRAWN_PER_WORKER = 20_000, 2_000_000, 4_000
_MAX_DEPTH = 8  # folders within each other; what lies deeper is a stranger's, whose outermost folder is named


@dataclass(frozen=True, kw_only=True)
class Report:
    """What ``verify`` found.

    Attributes:
        manifest: the set's manifest; of its first split, where it has several.
        problems: one line each, with the file and what is wrong with it; empty for a sound set.
        count: how many images there should be, in all splits.
        regenerated: how many images were drawn again and compared.
        unchecked: what was not checked, one line each.
        signatures: who signed the set, or its checkpoint, one line each; only what was checked.
    """

    manifest: Manifest
    problems: tuple[str, ...]
    count: int
    regenerated: int = 0
    unchecked: tuple[str, ...] = ()
    signatures: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether the set is what its manifest claims."""
        return not self.problems


def verify(
    folder: str | Path,
    *,
    regenerate: int = 0,
    checkpoint: Checkpoint | None = None,
    workers: int = 1,
    files_only: bool = False,
    backend: str = "auto",
    signed_by: PublicKey | None = None,
    require_known_checkpoint: bool = False,
    progress: Progress = lambda images: None,
) -> Report:
    """Check a set against its manifest.

    Args:
        folder: an exported set.
        regenerate: how many images of each split to draw again and compare, spread evenly over it.
        checkpoint: what to draw them from; by default the built-in one of that name.
        workers: how many processes hash and read, each a shard at a time. They are spawned, see ``generate``.
        files_only: hash the files, but read no image: the manifest is then trusted to describe its files.
        backend: what computes the images drawn again, see ``pixels.backends.open_backend``; no pixel depends on it.
        signed_by: whose signature the set or ``checkpoint`` must bear.
        require_known_checkpoint: it is a problem if the set's checkpoint is neither built in nor vouched for by such a
            signature.
        progress: called with the number of images just checked.

    Raises:
        VerificationError: there is no manifest, or not one that can be understood.
        CheckpointError, UsageError: the checkpoint to regenerate from is not the one the set was drawn from; or there
            is no such backend or device, or not for this checkpoint; or images are to be drawn again and none is to
            be read.
    """
    if regenerate and files_only:
        raise UsageError(f"regenerate {regenerate} goes without files_only: to be compared, images must be read")
    folder = Path(folder)
    manifest = load_manifest(folder)
    format_of(folder, manifest)
    given = checkpoint
    if regenerate or checkpoint:
        checkpoint = _checkpoint_of(manifest, checkpoint)
    expect_backend(backend, exact=checkpoint is None or checkpoint.exact)
    if regenerate and workers > 1:
        expect_divisible(backend)
    problems = [*seal_problems(folder), *files_problems(folder, manifest.sidecars)]
    splits = (manifest,) if problems else load_manifests(folder)
    found, differing = Redrawn(), []
    for split in splits:
        sampler = _sampler(split, checkpoint, regenerate, backend)
        threads = max(1, workers // max(1, len(split.shards)))
        check = ShardCheck(
            folder=folder,
            manifest=replace(split, shards=(), shard_lists=()),
            files_only=files_only,
            sampler=sampler,
            regenerate=regenerate,
            threads=threads,
        )
        shard_problems, redrawn = _shard_problems(check, split, workers, progress)
        problems += shard_problems
        found += redrawn
        differing += _regeneration_problems(split, redrawn, checkpoint is None or checkpoint.exact)
    problems = problems or [*_stranger_problems(folder, splits), *_sidecar_problems(splits)]
    origin = set_origin(
        folder,
        manifest,
        checkpoint,
        given,
        signed_by,
        require_known=require_known_checkpoint,
        regenerated=found.compared,
    )
    problems += origin.problems
    problems = problems or differing  # an altered set differs too: its cause is said
    return Report(
        manifest=manifest,
        problems=tuple(problems),
        regenerated=found.compared,
        count=sum(split.count for split in splits),
        unchecked=origin.unchecked,
        signatures=origin.signatures,
    )


def default_workers(
    count: int, file_format: str, files_only: bool = False, regenerate: int = 0, backend: str = "auto"
) -> int:
    """How many processes check ``count`` images soonest: one for every processor, fewer for small sets.

    One where TensorFlow draws, which takes all processors, or a GPU, for itself.
    """
    if regenerate and uses_tensorflow(backend):
        return 1
    known = FORMATS.get(file_format)
    quick = files_only and not (known and known.file_an_image)  # opening a file takes longer than decoding an image
    shares = count / (_HASHED_PER_WORKER if quick else _READ_PER_WORKER) + min(regenerate, count) / _DRAWN_PER_WORKER
    return max(1, min(available_cpus(), int(shares)))


def _stranger_problems(folder: Path, splits: Sequence[Manifest]) -> list[str]:
    """Files and folders that no manifest names: a loader might read them, or count a folder as a class."""
    files = {file.name for manifest in splits for file in manifest.files()}
    files |= {MANIFEST_NAME, signature_name(MANIFEST_NAME)}
    folders: set[str] = set()
    strangers = []
    for manifest in splits:
        file_format = format_of(folder, manifest)
        for shard in manifest.shards:
            listed = [name for _, name in file_format.listed(folder, shard.names, shard.count)]
            strangers += [f"{name}: listed twice" for name in sorted(files.intersection(listed))[:10]]
            files.update(listed)
        folders |= file_format.folders(manifest.split, labelled=manifest.labelled)
    folders |= {parent for name in files | folders for parent in _parents(name)}
    for name, is_folder in _everything_in(folder, ""):
        if name not in (folders if is_folder else files) and name.partition("/")[0] != WORK_FOLDER:
            strangers.append(f"{name}: not part of the set; the manifest does not name it")
    return sorted(strangers)


def _sidecar_problems(splits: Sequence[Manifest]) -> list[str]:
    """Files beside the shards that an export does not write, or, as far as this version words them, not like this.

    The files have the bytes of their records, so it is enough to compare these.
    """
    first, expected, problems = splits[0], sidecar_files(splits), []
    of_splits = {split_manifest(manifest.split) for manifest in splits[1:]}
    for record in first.sidecars:
        if record.name in of_splits:
            continue
        if record.name not in expected:
            problems.append(f"{record.name}: no file that an export writes beside its shards")
        elif in_todays_words(first) and record != content_record(record.name, expected[record.name]):
            problems.append(f"{record.name}: does not say what the manifest says")
    return problems


def _sampler(split: Manifest, checkpoint: Checkpoint | None, regenerate: int, backend: str) -> Sampler | None:
    """What draws images of a split again; None if none are to be."""
    if not regenerate or checkpoint is None or split.labelled != checkpoint.recipe.conditional:
        return None
    backend = for_few(backend, min(regenerate, split.count))
    # One that cannot draw, and a device that is not there, are told of here, not in each worker.
    loaded_generator(checkpoint, backend if uses_tensorflow(backend) else "numpy")
    return Sampler(checkpoint, split.seed, split.label_rule, backend)


def _parents(name: str) -> Iterator[str]:
    while (name := name.rpartition("/")[0]) != "":
        yield name


def _everything_in(folder: Path, prefix: str) -> Iterator[tuple[str, bool]]:
    """(name, whether it is a folder and no link) of everything below a folder, as deep as any set and a little more."""
    waiting = [prefix]
    while waiting:
        prefix = waiting.pop()
        with os.scandir(folder / prefix) as entries:
            for entry in entries:
                is_folder = entry.is_dir(follow_symlinks=False)
                yield f"{prefix}{entry.name}", is_folder
                if is_folder and prefix.count("/") < _MAX_DEPTH:
                    waiting.append(f"{prefix}{entry.name}/")


def _shard_problems(
    check: ShardCheck, manifest: Manifest, workers: int, progress: Progress
) -> tuple[list[str], Redrawn]:
    """Check every shard by itself, then what the manifest says about all of them together."""
    if workers > 1:
        found = run_in_pool(check, manifest.shards, workers=workers, progress=progress)
    else:
        found = (check.check(shard, progress) for shard in manifest.shards)
    problems: list[str] = []
    set_digest, redrawn = hashlib.sha256(), Redrawn()
    class_counts = np.zeros(manifest.subject.num_classes, np.int64)
    for checked in found:
        problems += checked.problems
        set_digest.update(checked.block_digests)
        class_counts += checked.class_counts or 0
        redrawn += checked.redrawn
    if problems or check.files_only:
        return problems, Redrawn()
    if set_digest.hexdigest() != manifest.digest:
        problems.append(f"{MANIFEST_NAME}: the set's digest is not that of its shards")
    if manifest.labelled and tuple(class_counts.tolist()) != manifest.class_counts:
        problems.append(f"{MANIFEST_NAME}: class_counts are not those of the images")
    return problems, redrawn


def _checkpoint_of(manifest: Manifest, given: Checkpoint | None) -> Checkpoint:
    record = manifest.checkpoint
    if given is None:
        known = BUILT_IN.get(record.sha256)  # by its hash: a manifest must not choose which of our files are opened
        if known is None or known.title not in builtin_checkpoints():
            raise UsageError(
                f"the set was drawn from checkpoint '{record.name}' {record.sha256[:12]}…, which is not built in; "
                "name its folder with --checkpoint"
            )
        given = load_checkpoint(known.title)
    if given.sha256 != record.sha256:
        raise UsageError(
            f"checkpoint '{given.name}' is {given.sha256[:12]}…; the set was drawn from {record.sha256[:12]}…"
        )
    return given


def _regeneration_problems(manifest: Manifest, redrawn: Redrawn, exact: bool) -> list[str]:
    """What it means that images drawn anew are others."""
    if redrawn.mislabelled:
        return [redrawn.mislabelled]
    if not redrawn.differing:
        return []
    cause = "the set is not what it claims"
    if not exact:
        there = manifest.made_with
        changed = [f"{k} {there.get(k)} → {v}" for k, v in float_drawn_with().items() if there.get(k) != v]
        cause = f"made with other software or hardware: {'; '.join(changed)}" if changed else cause
    differ = f"{redrawn.differing} of {redrawn.compared} images drawn anew differ"
    return [f"{differ}, by up to {redrawn.largest} grey levels; {cause}"]
