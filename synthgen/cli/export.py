"""``synthgen export`` and ``synthgen merge``."""

import json as json_module
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from tqdm import tqdm

from synthgen.cli.console import print_line, progress_bar, say, sigterm_as_interrupt
from synthgen.errors import UsageError

if TYPE_CHECKING:
    from synthgen.export.plan import Export
    from synthgen.model.checkpoint import Checkpoint

FORMATS_HELP = "tfrecord, hdf5, png, idx, idx-raw or npz."
_SPLITS_HELP = "Several in one folder, as train=60000,test=10000; instead of --count."
_UNPROTECTED_HELP = "Export without a formal privacy guarantee."
_MAX_EPSILON_HELP = "Refuse a privacy guarantee with a larger epsilon than this, or none."


@dataclass(frozen=True, kw_only=True)
class _How:
    """How to export, whatever is exported: the options of these names."""

    out: str
    resume: bool
    allow_unprotected: bool
    max_epsilon: float | None
    workers: int | None
    engine: str
    address: str | None
    json: bool

    def workers_for(self, images: int) -> int | None:
        """The number asked for, or else the default for so many images."""
        from synthgen.export.engine import default_workers

        if self.workers is None and self.engine == "local" and not self.out.startswith("memory://"):
            return default_workers(images)
        return self.workers


def export(
    count: Annotated[int | None, typer.Option(help="How many images. [default: 60000]")] = None,
    file_format: Annotated[str, typer.Option("--format", help=FORMATS_HELP)] = "tfrecord",
    checkpoint: Annotated[str | None, typer.Option(help="Built-in name or folder. [default: the one shipped]")] = None,
    out: Annotated[str, typer.Option(help="Folder for the set, or a URL such as s3://bucket/set.")] = "dataset",
    seed: Annotated[int, typer.Option(help="0 to 2^64 - 1; another seed gives another set.")] = 0,
    start: Annotated[int, typer.Option(help="Index of the first image.")] = 0,
    shards: Annotated[int | None, typer.Option(help="Number of parts. [default: one for every 6,000 images]")] = None,
    labels: Annotated[str, typer.Option(help="balanced, uniform or a list such as 0,3,7.")] = "balanced",
    split: Annotated[str | None, typer.Option(help="train or test; names the files. [default: train]")] = None,
    splits: Annotated[str | None, typer.Option(help=_SPLITS_HELP)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the interrupted export in --out.")] = False,
    allow_unprotected: Annotated[bool, typer.Option("--allow-unprotected", help=_UNPROTECTED_HELP)] = False,
    workers: Annotated[int | None, typer.Option(help="Processes that draw. [default: one a processor]")] = None,
    shard: Annotated[int | None, typer.Option(help="Write only share I of --of, then: synthgen merge.", min=0)] = None,
    of: Annotated[int | None, typer.Option(help="Number of shares into which the shards are divided.", min=1)] = None,
    engine: Annotated[str, typer.Option(help="local, or ray to draw on a Ray cluster.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of the Ray cluster. [default: a new one here]")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for every shard and at the end.")] = False,
    max_epsilon: Annotated[float | None, typer.Option(help=_MAX_EPSILON_HELP)] = None,
) -> None:
    """Draw a labelled synthetic set from a checkpoint and write it with its manifest."""
    from synthgen.export.plan import plan_export
    from synthgen.export.splits import plan_splits
    from synthgen.model.checkpoint import load_checkpoint

    how = _How(
        out=out,
        resume=resume,
        allow_unprotected=allow_unprotected,
        max_epsilon=max_epsilon,
        workers=workers,
        engine=engine,
        address=address,
        json=json,
    )
    _expect_consistent(how, shard, of)
    source = load_checkpoint(checkpoint) if checkpoint else load_checkpoint()
    if splits is not None:
        if any(given is not None for given in (count, split, shard, shards)) or engine != "local" or "://" in out:
            raise UsageError("--splits goes with a folder, and without --count, --split, --shard, --shards, --engine")
        parts = plan_splits(source, splits, file_format=file_format, seed=seed, start=start, labels=labels)
        _export_splits(source, parts, how)
        return
    wanted = plan_export(
        source,
        count=60_000 if count is None else count,
        file_format=file_format,
        seed=seed,
        start=start,
        shards=shards,
        labels=labels,
        split=split or "train",
        shares=of or 1,
    )
    if shard is None or of is None:
        _export_set(source, wanted, how)
    else:
        _export_share(source, wanted, how, shard, of)


def merge(out: Annotated[str, typer.Argument(help="Where export --shard wrote: a folder or a URL.")]) -> None:
    """Complete a set that was written share by share: check that every shard is there, and write the manifest."""
    from synthgen.export.run import merge as merge_

    manifest = merge_(out)
    say(f"{manifest.count:,} images in {out}, digest {manifest.digest[:16]}")


def _expect_consistent(how: _How, shard: int | None, of: int | None) -> None:
    """Raise UsageError for options that would be ignored."""
    if (shard is None) != (of is None):
        raise UsageError("--shard I and --of N go together: share I, counted from 0, of N")
    if shard is not None and how.engine != "local":
        raise UsageError(f"--shard draws on this machine; leave --engine {how.engine} out")
    if how.address is not None and how.engine != "ray":
        raise UsageError(f"--address {how.address} is of a Ray cluster; give --engine ray too")


def _export_set(source: "Checkpoint", wanted: "Export", how: _How) -> None:
    from synthgen.export.run import generate

    count = wanted.plan.count
    with _reporting(source, (wanted,), count, how.json) as report:
        manifest = generate(
            source,
            wanted,
            how.out,
            resume=how.resume,
            allow_unprotected=how.allow_unprotected,
            max_epsilon=how.max_epsilon,
            workers=how.workers_for(count),
            engine=how.engine,
            address=how.address,
            progress=report.progress,
            on_shard=report.on_shard,
            on_begin=report.on_begin,
        )
    say(f"{manifest.count:,} images in {how.out}, digest {manifest.digest[:16]}")
    report.end(out=how.out, count=manifest.count, digest=manifest.digest)


def _export_share(source: "Checkpoint", wanted: "Export", how: _How, share: int, of: int) -> None:
    from synthgen.export.run import generate_share

    with _reporting(source, (wanted,), wanted.share_count(share, of), how.json) as report:
        written = generate_share(
            source,
            wanted,
            how.out,
            share=share,
            of=of,
            allow_unprotected=how.allow_unprotected,
            max_epsilon=how.max_epsilon,
            workers=how.workers_for(wanted.plan.count // of),
            progress=report.progress,
            on_shard=report.on_shard,
            on_begin=report.on_begin,
        )
    say(f"share {share} of {of}: {written} shards in {how.out}; when all are there: synthgen merge {how.out}")
    report.end(out=how.out, share=share, of=of, shards=written)


def _export_splits(source: "Checkpoint", parts: "tuple[Export, ...]", how: _How) -> None:
    from synthgen.export.splits import generate_splits

    count = sum(part.plan.count for part in parts)
    with _reporting(source, parts, count, how.json) as report:
        manifests = generate_splits(
            source,
            parts,
            Path(how.out),
            resume=how.resume,
            allow_unprotected=how.allow_unprotected,
            max_epsilon=how.max_epsilon,
            workers=how.workers_for(count),
            progress=report.progress,
            on_shard=report.on_shard,
            on_begin=report.on_begin,
        )
    for manifest in manifests:
        say(f"{manifest.split}: {manifest.count:,} images in {how.out}, digest {manifest.digest[:16]}")
    report.end(out=how.out, count=count, digests={manifest.split: manifest.digest for manifest in manifests})


@contextmanager
def _reporting(source: "Checkpoint", parts: "tuple[Export, ...]", images: int, as_json: bool) -> Iterator["_Report"]:
    """A report whose bar is closed in the end; SIGTERM and Ctrl-C end the export with one line."""
    report = _Report(source, parts, images, as_json)
    with sigterm_as_interrupt():
        try:
            yield report
        finally:
            report.close()


class _Report:
    """What an export prints: notes and a bar for people, lines of JSON for machines.

    Args:
        source: what draws.
        parts: the exports.
        images: how many images this process is to finish.
        as_json: whether to print JSON.
    """

    def __init__(self, source: "Checkpoint", parts: "tuple[Export, ...]", images: int, as_json: bool) -> None:
        self._source, self._parts, self._images, self._as_json = source, parts, images, as_json
        self._began = time.monotonic()
        self._bar: tqdm[NoReturn] | None = None

    def on_begin(self) -> None:
        count = sum(part.plan.count for part in self._parts)
        say(f"drawing {count:,} images from checkpoint {self._source.name} {self._source.sha256[:12]}")
        if not self._parts[0].labels.labelled:
            say("unconditional checkpoint: these images have no labels")
        self._bar = progress_bar(self._images, "image")

    def progress(self, images: int) -> None:
        if self._bar is not None:
            self._bar.update(images)

    def on_shard(self, done: int, of: int) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(f"{done} of {of} shards", refresh=False)
        self._line(event="shard", done=done, of=of)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def end(self, **facts: object) -> None:
        self._line(event="done", **facts)
        if self._source.privacy.protects:
            say(self._source.privacy.sentence)
        else:
            say(f"warning: {self._source.privacy.sentence} Trained on {self._source.privacy.trained_on}.")

    def _line(self, **facts: object) -> None:
        if self._as_json:
            print_line(json_module.dumps({**facts, "seconds": round(time.monotonic() - self._began, 3)}))
