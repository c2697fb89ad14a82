"""Verification: is a set on disk what its manifest claims?

Every file is hashed again; every image is read back, counted and digested; on request some are drawn again.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from synthgen.environment import drawn_with, own_version
from synthgen.errors import UsageError, VerificationError
from synthgen.fashion import NUM_CLASSES
from synthgen.formats.table import FORMATS
from synthgen.model.checkpoint import Checkpoint, builtin_checkpoints, load_checkpoint
from synthgen.model.claims import BUILT_IN
from synthgen.model.recipe import Recipe
from synthgen.model.sampling import Sampler
from synthgen.sets.cards import sidecar_files
from synthgen.sets.digest import SetDigest
from synthgen.sets.integrity import files_problems, format_of, listed_problems, shard_problems
from synthgen.sets.manifest import (
    MANIFEST_NAME,
    WORK_FOLDER,
    Manifest,
    ShardRecord,
    content_record,
    load_manifest,
    load_manifests,
    seal_problems,
    split_manifest,
)
from synthgen.sets.reading import read_batches, read_set
from synthgen.workers import Progress, Work, available_cpus, run_in_pool

# Images: fewer are checked sooner than one more process has started.
_READ_PER_WORKER, _HASHED_PER_WORKER = 20_000, 2_000_000
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
    progress: Progress = lambda images: None,
) -> Report:
    """Check a set against its manifest.

    Args:
        folder: an exported set.
        regenerate: how many images of each split to draw again and compare, spread evenly over it.
        checkpoint: what to draw them from; by default the built-in one of that name.
        workers: how many processes hash and read, each a shard at a time. They are spawned, see ``generate``.
        files_only: hash the files, but read no image: the manifest is then trusted to describe its files.
        progress: called with the number of images just checked.

    Raises:
        VerificationError: there is no manifest, or not one that can be understood.
        CheckpointError, UsageError: the checkpoint to regenerate from is not the one the set was drawn from.
    """
    folder = Path(folder)
    manifest = load_manifest(folder)
    format_of(folder, manifest)
    if regenerate or checkpoint:
        checkpoint = _checkpoint_of(manifest, checkpoint)
    problems = [*seal_problems(folder), *files_problems(folder, manifest.sidecars)]
    splits = (manifest,) if problems else load_manifests(folder)
    for split in splits:
        problems += _shard_problems(folder, split, workers, files_only, progress)
    problems = problems or [*_stranger_problems(folder, splits), *_sidecar_problems(splits)]
    problems += _origin_problems(manifest, checkpoint)
    regenerated = 0
    if regenerate and checkpoint and not problems:
        for split in splits:
            problems += _regeneration_problems(folder, split, checkpoint, regenerate)
            regenerated += min(regenerate, split.count)
    return Report(
        manifest=manifest,
        problems=tuple(problems),
        regenerated=regenerated,
        count=sum(split.count for split in splits),
        unchecked=tuple(_unchecked(manifest, checkpoint, regenerated)),
    )


def default_workers(count: int, file_format: str, files_only: bool = False) -> int:
    """How many processes check ``count`` images soonest: one for every processor, fewer for small sets."""
    known = FORMATS.get(file_format)
    quick = files_only and not (known and known.file_an_image)  # opening a file takes longer than decoding an image
    return max(1, min(available_cpus(), count // (_HASHED_PER_WORKER if quick else _READ_PER_WORKER)))


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
    if manifest.labelled != recipe.conditional:
        problems.append(f"{MANIFEST_NAME}: labels '{manifest.labels}' cannot come from its checkpoint")
    return problems


@dataclass(frozen=True)
class _Checked:
    """What checking one shard found."""

    problems: tuple[str, ...]
    block_digests: bytes = b""
    class_counts: tuple[int, ...] = (0,) * NUM_CLASSES


@dataclass(frozen=True)
class _ShardCheck:
    """The work of hashing and reading shards, in this process or in another."""

    folder: Path
    manifest: Manifest  # without its shards: each is a task
    files_only: bool

    def __call__(self) -> Work:
        return self.check

    def check(self, shard: ShardRecord, progress: Progress) -> _Checked:
        """Check every file's hash and, if all are right, every image."""
        # A reader hashes each listed file before it decodes it, so that none is read twice.
        problems, file_format = files_problems(self.folder, shard.files), format_of(self.folder, self.manifest)
        if self.files_only and not problems:
            problems = listed_problems(self.folder, file_format, shard)
        if problems or self.files_only:
            progress(shard.count)
            return _Checked(tuple(problems))
        try:
            return self._read(shard, progress)
        except VerificationError as error:
            return _Checked(tuple(shard_problems(self.folder, file_format, shard)) or (str(error),))

    def _read(self, shard: ShardRecord, progress: Progress) -> _Checked:
        digest, name = SetDigest(shard.start), shard.files[0].name
        class_counts = np.zeros(NUM_CLASSES, np.int64)
        labelled = self.manifest.labelled
        for batch in read_batches(self.folder, self.manifest, shard):
            digest.update(batch)
            if (batch.labels is not None) != labelled:
                raise VerificationError(f"{name}: labels {'missing' if labelled else 'unexpected'}")
            if batch.labels is not None:
                class_counts += np.bincount(batch.labels, minlength=NUM_CLASSES)
            progress(len(batch))
        if digest.hexdigest() != shard.digest:
            return _Checked((f"{name}: its images or labels do not give the digest in the manifest",))
        return _Checked((), b"".join(digest.block_digests()), tuple(class_counts.tolist()))


def _shard_problems(folder: Path, manifest: Manifest, workers: int, files_only: bool, progress: Progress) -> list[str]:
    """Check every shard by itself, then what the manifest says about all of them together."""
    check = _ShardCheck(folder, replace(manifest, shards=(), shard_lists=()), files_only)
    if workers > 1:
        found = run_in_pool(check, manifest.shards, workers=workers, progress=progress)
    else:
        found = (check.check(shard, progress) for shard in manifest.shards)
    problems: list[str] = []
    set_digest, class_counts = hashlib.sha256(), np.zeros(NUM_CLASSES, np.int64)
    for checked in found:
        problems += checked.problems
        set_digest.update(checked.block_digests)
        class_counts += checked.class_counts
    if problems or files_only:
        return problems
    if set_digest.hexdigest() != manifest.digest:
        problems.append(f"{MANIFEST_NAME}: the set's digest is not that of its shards")
    if manifest.labelled and tuple(class_counts.tolist()) != manifest.class_counts:
        problems.append(f"{MANIFEST_NAME}: class_counts are not those of the images")
    return problems


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


def _regeneration_problems(folder: Path, manifest: Manifest, checkpoint: Checkpoint, amount: int) -> list[str]:
    """Draw ``amount`` images again, spread evenly over the set, and compare pixels and labels."""
    amount = min(amount, manifest.count)
    wanted = manifest.start + np.arange(amount, dtype=np.int64) * manifest.count // amount
    drawn = Sampler(checkpoint, manifest.seed, manifest.label_rule).images(wanted.tolist())
    differing = largest = 0
    for batch in read_set(folder, manifest):
        for index in wanted[(wanted >= batch.start) & (wanted < batch.start + len(batch))].tolist():
            image, label = next(drawn)
            found = index - batch.start
            if batch.labels is not None and label is not None and batch.labels[found] != label:
                return [f"image {index}: label {batch.labels[found]}; drawn anew it is {label}"]
            gap = int(np.abs(image.astype(int) - batch.images[found]).max())
            differing, largest = differing + (gap > 0), max(largest, gap)
    if not differing:
        return []
    here, there = drawn_with(), manifest.made_with
    changed = [f"{k} {there.get(k)} → {v}" for k, v in here.items() if there.get(k) != v]
    cause = (
        f"made with other software or hardware: {'; '.join(changed)}" if changed else "the set is not what it claims"
    )
    return [f"{differing} of {amount} images drawn anew differ, by up to {largest} grey levels; {cause}"]
