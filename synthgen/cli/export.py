"""``synthgen export`` and ``synthgen merge``."""

import json as json_module
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, NoReturn, TypedDict

import typer
from tqdm import tqdm

from synthgen.cli import interrupts
from synthgen.cli.backend import BACKEND_HELP, DEVICE_HELP, chosen_backend
from synthgen.cli.console import fail, print_line, progress_bar, say
from synthgen.errors import UsageError
from synthgen.formats.table import DEFAULT_FORMAT, FORMATS
from synthgen.workers import Progress, StepProgress

if TYPE_CHECKING:
    from synthgen.export.plan import Export
    from synthgen.model.checkpoint import Checkpoint
    from synthgen.sets.manifest import Manifest

FORMATS_HELP = " or ".join(", ".join(FORMATS).rsplit(", ", 1)) + "."
_SPLITS_HELP = "Several in one folder, as train=60000,test=10000; instead of --count."
_UNPROTECTED_HELP = "Export without a formal privacy guarantee."
_MAX_EPSILON_HELP = "Refuse a privacy guarantee with a larger epsilon than this, or none."

_MAX_DELTA_HELP = "Refuse one with a larger delta, or none. [default: with --max-epsilon 1e-5]"


@dataclass(frozen=True, kw_only=True)
class _How:
    """The options that do not decide what is drawn."""

    splits: bool
    shard: int | None
    of: int | None
    out: str
    resume: bool
    allow_unprotected: bool
    max_epsilon: float | None
    max_delta: float | None
    workers: int | None
    engine: str
    address: str | None
    backend: str
    json: bool


class _Common(TypedDict):
    """What every function that exports is given."""

    allow_unprotected: bool
    max_epsilon: float | None
    max_delta: float | None
    workers: int | None
    backend: str
    progress: Progress
    on_shard: StepProgress
    on_begin: Callable[[], None]


def export(
    count: Annotated[int | None, typer.Option(help="How many images. [default: 60000]")] = None,
    file_format: Annotated[str, typer.Option("--format", help=FORMATS_HELP)] = DEFAULT_FORMAT,
    checkpoint: Annotated[str | None, typer.Option(help="Built-in name or folder. [default: the one shipped]")] = None,
    out: Annotated[str, typer.Option(help="Folder for the set, or a URL such as s3://bucket/set.")] = "dataset",
    seed: Annotated[int, typer.Option(help="0 to 2^64 - 1; another seed gives another set.")] = 0,
    start: Annotated[int, typer.Option(help="Index of the first image.")] = 0,
    shards: Annotated[int | None, typer.Option(help="Number of parts. [default: one for every 6,000 images]")] = None,
    labels: Annotated[
        str,
        typer.Option(
            help="balanced, uniform, as-trained (as often as in training, if the checkpoint knows), a list such as "
            "0,3,7, or shares=9,0,1 for each class."
        ),
    ] = "balanced",
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
    max_delta: Annotated[float | None, typer.Option(help=_MAX_DELTA_HELP)] = None,
    backend: Annotated[str, typer.Option(help=BACKEND_HELP)] = "auto",
    device: Annotated[str | None, typer.Option(help=DEVICE_HELP)] = None,
) -> None:
    """``synthgen export``."""
    from synthgen.export.plan import plan_export
    from synthgen.export.splits import plan_splits
    from synthgen.model.checkpoint import load_checkpoint

    how = _How(
        splits=splits is not None,
        shard=shard,
        of=of,
        out=out,
        resume=resume,
        allow_unprotected=allow_unprotected,
        max_epsilon=max_epsilon,
        max_delta=max_delta,
        workers=workers,
        engine=engine,
        address=address,
        backend=chosen_backend(backend, device),
        json=json,
    )
    _expect_consistent(how)
    source = load_checkpoint(checkpoint) if checkpoint else load_checkpoint()
    if splits is not None:
        if any(given is not None for given in (count, split, shard, shards)) or engine != "local" or "://" in out:
            raise UsageError("--splits goes with a folder, and without --count, --split, --shard, --shards, --engine")
        parts = plan_splits(source, splits, file_format=file_format, seed=seed, start=start, labels=labels)
        _run(source, parts, how)
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
    _run(source, (wanted,), how)


def merge(out: Annotated[str, typer.Argument(help="Where export --shard wrote: a folder or a URL.")]) -> None:
    """``synthgen merge``."""
    from synthgen.export.run import merge as merge_

    say(_content(out, merge_(out)))


def _expect_consistent(how: _How) -> None:
    """Raise UsageError for options that would be ignored."""
    if (how.shard is None) != (how.of is None):
        raise UsageError("--shard I and --of N go together: share I, counted from 0, of N")
    if how.shard is not None and how.engine != "local":
        raise UsageError(f"--shard draws on this machine; leave --engine {how.engine} out")
    if how.address is not None and how.engine != "ray":
        raise UsageError(f"--address {how.address} is of a Ray cluster; give --engine ray too")


def _run(source: "Checkpoint", exports: "tuple[Export, ...]", how: _How) -> None:
    """Draw an export, a share of it, or several splits, and say what was written."""
    from synthgen.export.run import generate, generate_share
    from synthgen.export.splits import generate_splits

    out, share, of = how.out, how.shard, how.of
    report = _Report(source, exports, how)
    options, resume = report.options(), how.resume
    facts: dict[str, object]
    with report.running():
        if share is not None and of is not None:
            written = generate_share(source, exports[0], out, share=share, of=of, **options)
            lines = [f"share {share} of {of}: {written} shards in {out}; when all are there: synthgen merge {out}"]
            facts = {"share": share, "of": of, "shards": written}
        elif how.splits:
            manifests = generate_splits(source, exports, out, resume=resume, **options)
            lines = [f"{manifest.split}: {_content(out, manifest)}" for manifest in manifests]
            digests = {manifest.split: manifest.digest for manifest in manifests}
            facts = {"count": sum(manifest.count for manifest in manifests), "digests": digests}
        else:
            engine, address = how.engine, how.address
            made = generate(source, exports[0], out, resume=resume, engine=engine, address=address, **options)
            lines, facts = [_content(out, made)], {"count": made.count, "digest": made.digest}
    report.end(lines, out=out, **facts)


def _content(out: str, manifest: "Manifest") -> str:
    return f"{manifest.count:,} images in {out}, digest {manifest.digest[:16]}"


class _Report:
    """What an export prints: notes and a bar for people, lines of JSON for machines."""

    def __init__(self, source: "Checkpoint", exports: "tuple[Export, ...]", how: _How) -> None:
        self._source, self._exports, self._how = source, exports, how
        self._count = sum(export.plan.count for export in exports)
        self._began = time.monotonic()
        self._bar: tqdm[NoReturn] | None = None

    def options(self) -> _Common:
        """What the functions that export are given; by default as many workers as draw soonest."""
        from synthgen.export.engine import default_workers

        how, workers = self._how, self._how.workers
        if workers is None and how.engine == "local" and not how.out.startswith("memory://"):
            workers = default_workers(self._count // (how.of or 1), how.backend)
        return {
            "allow_unprotected": how.allow_unprotected,
            "max_epsilon": how.max_epsilon,
            "max_delta": how.max_delta,
            "workers": workers,
            "backend": how.backend,
            "progress": self._progress,
            "on_shard": self._on_shard,
            "on_begin": self._on_begin,
        }

    @contextmanager
    def running(self) -> Iterator[None]:
        """While it exports: the bar is closed in the end; SIGTERM and Ctrl-C end the export with one line."""
        with interrupts.sigterm_as_interrupt():
            try:
                yield
            except KeyboardInterrupt:
                interrupts.told()
                fail("interrupted; finished shards are kept, go on with --resume", interrupts.EXIT_CODE)
            finally:
                if self._bar is not None:
                    self._bar.close()

    def end(self, lines: list[str], **facts: object) -> None:
        """Say what was written, and what is claimed for its privacy."""
        for line in lines:
            say(line)
        self._json(event="done", **facts)
        privacy = self._source.privacy
        say(privacy.sentence if privacy.protects else f"warning: {privacy.sentence} Trained on {privacy.trained_on}.")

    def _on_begin(self) -> None:
        say(f"drawing {self._count:,} images from checkpoint {self._source.name} {self._source.sha256[:12]}")
        if not self._exports[0].labels.labelled:
            say("unconditional checkpoint: these images have no labels")
        share, of = self._how.shard, self._how.of
        images = self._count if share is None or of is None else self._exports[0].share_count(share, of)
        self._bar = progress_bar(images, "image")

    def _progress(self, images: int) -> None:
        if self._bar is not None:
            self._bar.update(images)

    def _on_shard(self, done: int, of: int) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(f"{done} of {of} shards", refresh=False)
        self._json(event="shard", done=done, of=of)

    def _json(self, **facts: object) -> None:
        if self._how.json:
            print_line(json_module.dumps({**facts, "seconds": round(time.monotonic() - self._began, 3)}))
