"""``synthgen export`` and ``synthgen merge``."""

import json as json_module
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from tqdm import tqdm

from synthgen.cli.console import advancing, print_line, progress_bar, say, sigterm_as_interrupt
from synthgen.errors import UsageError
from synthgen.formats.table import DEFAULT_FORMAT, FORMATS

if TYPE_CHECKING:
    from synthgen.model.checkpoint import Checkpoint

FORMATS_HELP = " or ".join(", ".join(FORMATS).rsplit(", ", 1)) + "."


def export(
    count: Annotated[int | None, typer.Option(help="How many images. [default: 60000]")] = None,
    file_format: Annotated[str, typer.Option("--format", help=FORMATS_HELP)] = DEFAULT_FORMAT,
    checkpoint: Annotated[str | None, typer.Option(help="Built-in name or folder. [default: the one shipped]")] = None,
    out: Annotated[str, typer.Option(help="Folder for the set, or a URL such as s3://bucket/set.")] = "dataset",
    seed: Annotated[int, typer.Option(help="0 to 2^64 - 1; another seed gives another set.")] = 0,
    start: Annotated[int, typer.Option(help="Index of the first image.")] = 0,
    shards: Annotated[int | None, typer.Option(help="Number of parts. [default: one for every 6,000 images]")] = None,
    labels: Annotated[str, typer.Option(help="balanced, uniform or a list such as 0,3,7.")] = "balanced",
    split: Annotated[str | None, typer.Option(help="train or test; names the files. [default: train]")] = None,
    splits: Annotated[
        str | None, typer.Option(help="Several in one folder, as train=60000,test=10000; instead of --count.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted export in --out.")] = False,
    allow_unprotected: Annotated[
        bool, typer.Option("--allow-unprotected", help="Export without a formal privacy guarantee.")
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Processes that draw. [default: one a processor]")] = None,
    shard: Annotated[int | None, typer.Option(help="Write only share I of --of, then: synthgen merge.", min=0)] = None,
    of: Annotated[int | None, typer.Option(help="Among how many the shards are dealt out.", min=1)] = None,
    engine: Annotated[str, typer.Option(help="local, or ray to draw on a Ray cluster.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of the Ray cluster. [default: a new one here]")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for every shard and at the end.")] = False,
    max_epsilon: Annotated[
        float | None, typer.Option(help="Refuse a privacy guarantee that is looser than this, or absent.")
    ] = None,
) -> None:
    """Draw a labelled synthetic set from a checkpoint and write it with its manifest."""
    from synthgen.export.run import default_workers, generate, generate_share, plan_export
    from synthgen.model.checkpoint import load_checkpoint

    if (shard is None) != (of is None):
        raise UsageError("--shard I and --of N go together: share I, counted from 0, of N")
    if shard is not None and engine != "local":
        raise UsageError(f"--shard deals the shards out by itself; leave --engine {engine} out")
    if address is not None and engine != "ray":
        raise UsageError(f"--address {address} is of a Ray cluster; give --engine ray too")
    source = load_checkpoint(checkpoint) if checkpoint else load_checkpoint()
    if splits is not None:
        if any(given is not None for given in (count, split, shard, shards)) or engine != "local" or "://" in out:
            raise UsageError("--splits goes with a folder, and without --count, --split, --shard, --shards, --engine")
        options: dict[str, Any] = {"resume": resume, "allow_unprotected": allow_unprotected, "workers": workers}
        options["max_epsilon"] = max_epsilon
        request = {"file_format": file_format, "seed": seed, "start": start, "labels": labels}
        _export_splits(source, splits, Path(out), request, options, _ExportReport(json))
        return
    count = 60_000 if count is None else count
    wanted = plan_export(
        source,
        count=count,
        file_format=file_format,
        seed=seed,
        start=start,
        shards=shards,
        labels=labels,
        split=split or "train",
        shares=of or 1,
    )
    say(f"drawing {count:,} images from checkpoint {source.name} {source.sha256[:12]}")
    if wanted.labels is None:
        say("unconditional checkpoint: these images bear no labels")
    report = _ExportReport(json)
    if workers is None and engine == "local" and not out.startswith("memory://"):
        workers = default_workers(count // (of or 1))
    common: dict[str, Any] = {
        "allow_unprotected": allow_unprotected,
        "max_epsilon": max_epsilon,
        "workers": workers,
        "on_shard": report.on_shard,
    }
    with report.bar(count if of is None else wanted.share_count(shard or 0, of)) as bar, sigterm_as_interrupt():
        if shard is not None and of is not None:
            written = generate_share(source, wanted, out, share=shard, of=of, progress=advancing(bar), **common)
        else:
            manifest = generate(
                source, wanted, out, resume=resume, engine=engine, address=address, progress=advancing(bar), **common
            )
    if of is not None:
        say(f"share {shard} of {of}: {written} shards in {out}; when all are there: synthgen merge {out}")
        report.end(out=out, share=shard, of=of, shards=written)
    else:
        say(f"{manifest.count:,} images in {out}, digest {manifest.digest[:16]}")
        report.end(out=out, count=manifest.count, digest=manifest.digest)
    _say_guarantee(source)


def _export_splits(
    source: "Checkpoint",
    splits: str,
    out: Path,
    request: dict[str, Any],
    options: dict[str, Any],
    report: "_ExportReport",
) -> None:
    from synthgen.export.run import default_workers
    from synthgen.export.splits import generate_splits, plan_splits

    exports = plan_splits(source, splits, **request)
    count = sum(export.plan.count for export in exports)
    if options["workers"] is None:
        options["workers"] = default_workers(count)
    say(f"drawing {count:,} images from checkpoint {source.name} {source.sha256[:12]}")
    if exports[0].labels is None:
        say("unconditional checkpoint: these images bear no labels")
    with report.bar(count) as bar, sigterm_as_interrupt():
        manifests = generate_splits(source, exports, out, progress=advancing(bar), on_shard=report.on_shard, **options)
    for manifest in manifests:
        say(f"{manifest.split}: {manifest.count:,} images in {out}, digest {manifest.digest[:16]}")
    report.end(out=str(out), count=count, digests={manifest.split: manifest.digest for manifest in manifests})
    _say_guarantee(source)


def _say_guarantee(source: "Checkpoint") -> None:
    if source.privacy.protects:
        say(source.privacy.sentence)
    else:
        say(f"warning: {source.privacy.sentence} Trained on {source.privacy.trained_on}.")


def merge(out: Annotated[str, typer.Argument(help="Where export --shard wrote: a folder or a URL.")]) -> None:
    """Complete a set that was written share by share: check that every shard is there, and write the manifest."""
    from synthgen.export.run import merge as merge_

    manifest = merge_(out)
    say(f"{manifest.count:,} images in {out}, digest {manifest.digest[:16]}")


class _ExportReport:
    """How an export goes: a bar for people, which also counts shards, and lines of JSON for machines."""

    def __init__(self, as_json: bool) -> None:
        self._as_json, self._began = as_json, time.monotonic()
        self._bar: tqdm[NoReturn] | None = None

    def bar(self, total: int) -> "tqdm[NoReturn]":
        self._bar = progress_bar(total, "image")
        return self._bar

    def on_shard(self, done: int, of: int) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(f"{done} of {of} shards", refresh=False)
        self._line(event="shard", done=done, of=of)

    def end(self, **facts: object) -> None:
        self._line(event="done", **facts)

    def _line(self, **facts: object) -> None:
        if self._as_json:
            print_line(json_module.dumps({**facts, "seconds": round(time.monotonic() - self._began, 3)}))
