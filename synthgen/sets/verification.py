"""Verification: is a set on disk what its manifest claims?

Every file is hashed again; every image is read back, counted and digested; on request some are drawn again.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from synthgen.environment import float_drawn_with, own_version
from synthgen.errors import UsageError
from synthgen.fashion import NUM_CLASSES
from synthgen.formats.table import FORMATS
from synthgen.model.checkpoint import Checkpoint, builtin_checkpoints, load_checkpoint
from synthgen.model.claims import BUILT_IN
from synthgen.model.recipe import Recipe
from synthgen.model.sampling import Sampler, loaded_generator
from synthgen.pixels.backends import expect_backend, expect_divisible, for_few, uses_tensorflow
from synthgen.sets.cards import sidecar_files
from synthgen.sets.checking import Redrawn, ShardCheck
from synthgen.sets.integrity import files_problems, format_of
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
    """

    manifest: Manifest
    problems: tuple[str, ...]
    count: int
    regenerated: int = 0
    unchecked: tuple[str, ...] = ()

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
    if regenerate or checkpoint:
        checkpoint = _checkpoint_of(manifest, checkpoint)
    expect_backend(backend, exact=checkpoint is None or checkpoint.exact)
    if regenerate and workers > 1:
        expect_divisible(backend)
    problems = [*seal_problems(folder), *files_problems(folder, manifest.sidecars)]
    splits = (manifest,) if problems else load_manifests(folder)
    found, differing = Redrawn(), []
    for split in splits:
        check = _check(folder, split, files_only, checkpoint, regenerate, backend)
        shard_problems, redrawn = _shard_problems(check, split, workers, progress)
        problems += shard_problems
        found += redrawn
        differing += _regeneration_problems(split, redrawn, checkpoint is None or checkpoint.exact)
    problems = problems or [*_stranger_problems(folder, splits), *_sidecar_problems(splits)]
    problems += _origin_problems(manifest, checkpoint)
    problems = problems or differing  # an altered set differs too: its cause is said
    return Report(
        manifest=manifest,
        problems=tuple(problems),
        regenerated=found.compared,
        count=sum(split.count for split in splits),
        unchecked=tuple(_unchecked(manifest, checkpoint, found.compared)),
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
    files = {file.name for manifest in splits for file in manifest.files()} | {MANIFEST_NAME}
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
        elif _in_todays_words(first) and record != content_record(record.name, expected[record.name]):
            problems.append(f"{record.name}: does not say what the manifest says")
    return problems


def _in_todays_words(manifest: Manifest) -> bool:
    return manifest.made_with.get("synthgen") == own_version()


def _check(
    folder: Path, split: Manifest, files_only: bool, checkpoint: Checkpoint | None, regenerate: int, backend: str
) -> ShardCheck:
    """What checks the shards of a split; see ``verify``."""
    sampler = None
    if regenerate and checkpoint is not None and split.labelled == checkpoint.recipe.conditional:
        backend = for_few(backend, min(regenerate, split.count))
        sampler = Sampler(checkpoint, split.seed, split.label_rule, backend)
        # One that cannot draw, and a device that is not there, are told of here, not in each worker.
        loaded_generator(checkpoint, backend if uses_tensorflow(backend) else "numpy")
    return ShardCheck(
        folder=folder,
        manifest=replace(split, shards=(), shard_lists=()),
        files_only=files_only,
        sampler=sampler,
        regenerate=regenerate,
        count=split.count,
    )


def _unchecked(manifest: Manifest, checkpoint: Checkpoint | None, regenerated: int) -> Iterator[str]:
    if not _in_todays_words(manifest):
        version = manifest.made_with.get("synthgen", "of an unknown version")
        yield f"cards not compared with the manifest: written by synthgen {version}"
    if checkpoint is None and manifest.checkpoint.sha256 not in BUILT_IN:
        yield "privacy claim not checked: checkpoint unknown"
    elif not regenerated:
        yield "not checked: whether the images are drawn from their checkpoint; --regenerate 1000 would"


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


def _origin_problems(manifest: Manifest, checkpoint: Checkpoint | None) -> list[str]:
    """Where the manifest differs from its checkpoint, if this is given or built in."""
    recipe, problems = Recipe.from_dict(manifest.checkpoint.recipe), []
    if checkpoint is None and manifest.checkpoint.sha256 not in BUILT_IN:  # its claim and recipe are known by heart
        return []
    if checkpoint and manifest.privacy != checkpoint.privacy:
        problems.append(f"{MANIFEST_NAME}: the privacy statement is not that of its checkpoint")
    if checkpoint and recipe.sha256 != checkpoint.recipe.sha256:  # as this version writes them both
        problems.append(f"{MANIFEST_NAME}: the recipe is not that of its checkpoint")
    if checkpoint and manifest.checkpoint.arithmetic != checkpoint.arithmetic:
        problems.append(f"{MANIFEST_NAME}: the arithmetic is not that of its checkpoint")
    if manifest.labelled != recipe.conditional:
        problems.append(f"{MANIFEST_NAME}: labels '{manifest.labels}' cannot come from its checkpoint")
    return problems


def _shard_problems(
    check: ShardCheck, manifest: Manifest, workers: int, progress: Progress
) -> tuple[list[str], Redrawn]:
    """Check every shard by itself, then what the manifest says about all of them together."""
    if workers > 1:
        found = run_in_pool(check, manifest.shards, workers=workers, progress=progress)
    else:
        found = (check.check(shard, progress) for shard in manifest.shards)
    problems: list[str] = []
    set_digest, class_counts, redrawn = hashlib.sha256(), np.zeros(NUM_CLASSES, np.int64), Redrawn()
    for checked in found:
        problems += checked.problems
        set_digest.update(checked.block_digests)
        class_counts += checked.class_counts
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
