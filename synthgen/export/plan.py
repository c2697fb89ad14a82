"""What to export, checked before anything is written: the request, and the job that every machine works from."""

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any

from synthgen.environment import float_drawn_with
from synthgen.errors import CheckpointError, ExportError, PrivacyError, SynthgenError, UsageError
from synthgen.files import sha256_of_json
from synthgen.formats.table import find_format
from synthgen.index import LabelRule, ShardPlan, check_seed, default_shards
from synthgen.model.checkpoint import METADATA_NAME, Checkpoint, load_checkpoint
from synthgen.model.claims import FLOAT32, INTEGERS
from synthgen.model.recipe import Recipe
from synthgen.model.sampling import Sampler
from synthgen.privacy.ledger import LEDGER_NAME
from synthgen.privacy.statement import PrivacyStatement
from synthgen.sets.manifest import CheckpointRecord
from synthgen.sets.records import expect, expect_printable, texts_of

DEFAULT_MAX_DELTA = 1e-5  # where only the largest epsilon is given


@dataclass(frozen=True, kw_only=True)
class Export:
    """What to export: with a checkpoint, everything that decides the pixels and the files, and nothing else.

    Raises:
        UsageError: on construction, for an unknown format or split, a seed out of range, or more than the format holds.
    """

    plan: ShardPlan
    seed: int
    file_format: str
    labels: LabelRule
    split: str = "train"

    def __post_init__(self) -> None:
        chosen, shards, count = find_format(self.file_format), self.plan.shards, self.plan.count
        if chosen.one_file and (shards != 1 or count > chosen.max_images):
            raise UsageError(
                f"shards {shards}, count {count}: the {self.file_format} format is one file by nature, "
                f"of at most {chosen.max_images:,} images"
            )
        check_seed(self.seed)
        if self.split not in ("train", "test"):
            raise UsageError(f"split '{self.split}': expected train or test")

    def sampler(self, checkpoint: Checkpoint, backend: str = "auto") -> Sampler:
        """What draws these images from ``checkpoint``."""
        return Sampler(checkpoint, self.seed, self.labels, backend)

    def share_count(self, share: int, of: int) -> int:
        """How many images share ``share`` of ``of`` holds."""
        return sum(self.plan[index].count for index in range(share, self.plan.shards, of))


def plan_export(
    checkpoint: Checkpoint,
    *,
    count: int,
    file_format: str,
    seed: int = 0,
    start: int = 0,
    shards: int | None = None,
    labels: str = "balanced",
    split: str = "train",
    shares: int = 1,
) -> Export:
    """Check a request and fill in its defaults.

    Args:
        checkpoint: what will draw the images; an unconditional one gives unlabelled images.
        count: how many images.
        file_format: a key of ``formats.table.FORMATS``.
        seed: 0 to 2^64 - 1.
        start: index of the first image.
        shards: how many parts; by default one for every 6,000 images, or one, as the format has it.
        labels: as for ``Sampler.of``: ``balanced``, ``uniform``, ``as-trained``, or a list such as ``0,3,7``.
        split: ``train`` or ``test``; names the files.
        shares: how many machines will write shards; by default there is at least one shard for each.

    Raises:
        UsageError: a value is out of range, or does not fit the format or the checkpoint.
    """
    chosen = find_format(file_format)
    if shards is None:
        shards = max(shares, 1 if chosen.one_shard else default_shards(count))
    rule = Sampler.of(checkpoint, seed, labels).labels
    plan = ShardPlan(start=start, count=count, shards=shards)
    return Export(plan=plan, seed=seed, file_format=file_format, labels=rule, split=split)


def expect_guarantee(
    checkpoint: Checkpoint, allow_unprotected: bool, max_epsilon: float | None, max_delta: float | None = None
) -> None:
    """Refuse a checkpoint whose privacy guarantee is not the one asked for; see ``generate``.

    Raises:
        UsageError: ``max_epsilon`` is no number above 0, or ``max_delta`` none between 0 and 1.
        ExportError: the guarantee is missing or larger than ``max_epsilon`` or ``max_delta``.
        PrivacyError: the checkpoint claims less than its ledger proves, or than the ledger beside it holds.
    """
    if max_epsilon is not None and not 0 < max_epsilon < math.inf:
        raise UsageError(f"max_epsilon {max_epsilon}; expected a number above 0")
    if max_delta is not None and not 0 < max_delta < 1:
        raise UsageError(f"max_delta {max_delta}; expected a number between 0 and 1")
    checkpoint.privacy.expect_proven()  # again: a checkpoint may be built in memory
    proof = checkpoint.privacy.proof
    if proof is not None and checkpoint.is_behind:
        raise PrivacyError(
            f"{checkpoint.path}: {LEDGER_NAME} holds more (epsilon {proof.epsilon:g}) than {METADATA_NAME} says: go on "
            "with --resume"
        )
    if max_epsilon is not None and max_delta is None:
        max_delta = DEFAULT_MAX_DELTA  # an epsilon means little without its delta
    asked = {"epsilon": max_epsilon, "delta": max_delta}
    for name, most in asked.items():
        if most is None or (proof is not None and getattr(proof, name) <= most):
            continue
        found = "no formal privacy guarantee" if proof is None else f"{name} {getattr(proof, name):g}"
        raise ExportError(
            f"checkpoint '{checkpoint.name}' has {found}; asked for was {name} {most:g} or less: choose "
            f"another checkpoint or a larger --max-{name}"
        )
    if proof is None and not allow_unprotected:
        raise ExportError(
            f"checkpoint '{checkpoint.name}' has no formal privacy guarantee; if its training images may be "
            "exposed, say so with --allow-unprotected"
        )


@dataclass(frozen=True, kw_only=True)
class Job:
    """An export as a small description from which any process on any machine can work.

    Attributes:
        export: what to export.
        checkpoint: what a manifest says of the checkpoint, its hash included.
        location: where the checkpoint is found: the name of a built-in one or a folder.
        privacy: the checkpoint's privacy statement.
        made_with: the software and processor that every shard of a float checkpoint must be drawn with; empty for an
            exact one, whose pixels do not depend on them.
    """

    export: Export
    checkpoint: CheckpointRecord
    location: str
    privacy: PrivacyStatement
    made_with: dict[str, str]

    @classmethod
    def of(cls, checkpoint: Checkpoint, export: Export) -> "Job":
        """The job of drawing ``export`` from ``checkpoint``."""
        return cls(
            export=export,
            checkpoint=CheckpointRecord(
                name=checkpoint.name,
                sha256=checkpoint.sha256,
                recipe=checkpoint.recipe.to_dict(),
                recipe_sha256=checkpoint.recipe.sha256,
                arithmetic=checkpoint.arithmetic,
            ),
            location=checkpoint.name if checkpoint.is_builtin else str(checkpoint.path.resolve()),
            privacy=checkpoint.privacy,
            made_with={} if checkpoint.exact else float_drawn_with(),
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What decides every image and its place, as JSON-ready values."""
        condition = {"made_with": self.made_with} if self.made_with else {}
        return {
            "checkpoint": self.checkpoint.sha256,
            "seed": self.export.seed,
            "labels": str(self.export.labels),
            "split": self.export.split,
            "format": self.export.file_format,
            **dataclasses.asdict(self.export.plan),
            **condition,
        }

    @functools.cached_property
    def sha256(self) -> str:
        """The hash of ``identity``; a shard's record names it."""
        return sha256_of_json(self.identity)

    def to_dict(self) -> dict[str, Any]:
        """The job as JSON-ready values: its identity, and what the manifest will say about its origin."""
        origin = {
            "location": self.location,
            "name": self.checkpoint.name,
            "recipe": self.checkpoint.recipe,
            "recipe_sha256": self.checkpoint.recipe_sha256,
            "privacy": self.privacy.to_dict(),
        }
        return {**self.identity, "origin": origin}

    @classmethod
    def from_dict(cls, document: Any) -> "Job":
        """Read a job back; it may come from a stranger.

        Raises:
            ExportError: it is not one this version understands.
        """
        try:
            return cls._parsed(document, document["origin"])
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError, SynthgenError) as error:
            reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else error
            raise ExportError(f"not an export job this version understands: {reason}") from error

    @classmethod
    def _parsed(cls, document: Any, origin: Any) -> "Job":
        for holder, kind, keys in (
            (document, int, ("start", "count", "shards", "seed")),
            (document, str, ("format", "labels", "split", "checkpoint")),
            (origin, str, ("location", "name")),
        ):
            for key in keys:
                if type(holder[key]) is not kind:
                    raise ValueError(f"{key} is {holder[key]!r:.80}; expected {kind.__name__}")
        recipe, made_with = origin["recipe"], texts_of(document.get("made_with", {}))
        expect_printable([document["checkpoint"], origin["name"], recipe], "it")
        known = Recipe.from_dict(recipe)
        labels = LabelRule.recorded(document["labels"], known.subject.num_classes)
        expect(labels.labelled == known.conditional, f"labels {labels} do not fit the recipe")
        return cls(
            export=Export(
                plan=ShardPlan(**{key: document[key] for key in ("start", "count", "shards")}),
                seed=document["seed"],
                file_format=document["format"],
                labels=labels,
                split=document["split"],
            ),
            checkpoint=CheckpointRecord(
                name=origin["name"],
                sha256=document["checkpoint"],
                recipe=recipe,
                recipe_sha256=sha256_of_json(recipe),
                arithmetic=FLOAT32 if made_with else INTEGERS,  # the job of an exact one has no such condition
            ),
            location=origin["location"],
            privacy=PrivacyStatement.from_dict(origin["privacy"]),
            made_with=made_with,
        )

    def sampler(self, backend: str = "auto") -> Sampler:
        """What draws the job's images; each process loads the checkpoint from ``location`` and checks it once.

        Raises:
            CheckpointError: ``location`` holds another checkpoint, or none.
            ExportError: this machine would draw other pixels than the job's, from a float checkpoint.
        """
        made_with = tuple(sorted(self.made_with.items()))
        return self.export.sampler(_source(self.location, self.checkpoint.sha256, made_with), backend)


@functools.lru_cache(maxsize=4)
def _source(location: str, sha256: str, expected: tuple[tuple[str, str], ...]) -> Checkpoint:
    here = float_drawn_with() if expected else {}
    if different := [f"{k} {v} (here {here.get(k)})" for k, v in expected if here.get(k) != v]:
        raise ExportError(
            f"the export was begun with {', '.join(different)}: pixels of a float checkpoint may be rounded "
            "otherwise here; run every part of it with the same software and processor"
        )
    checkpoint = load_checkpoint(location)
    if checkpoint.sha256 != sha256:
        raise CheckpointError(f"{location}: is {checkpoint.sha256[:12]}…; the export was begun from {sha256[:12]}…")
    if checkpoint.exact == bool(expected):
        raise ExportError(f"{location}: holds {checkpoint.arithmetic}; the job was altered: remove it and export anew")
    return checkpoint
