"""What to export, checked before anything is written: the request, and the job that every machine works from."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

from synthgen.environment import drawn_with
from synthgen.errors import CheckpointError, ExportError, RecipeError, UsageError
from synthgen.files import sha256_of_json
from synthgen.formats.table import find_format
from synthgen.index import LabelRule, ShardPlan, check_seed, default_shards
from synthgen.model.checkpoint import Checkpoint, load_checkpoint
from synthgen.model.recipe import Recipe
from synthgen.privacy.statement import PrivacyStatement
from synthgen.sets.manifest import CheckpointRecord


@dataclass(frozen=True, kw_only=True)
class Export:
    """What to export: everything that decides the pixels and the files, and nothing else.

    Raises:
        UsageError: on construction, for an unknown format or split or a seed out of range.
    """

    plan: ShardPlan
    seed: int
    file_format: str
    labels: LabelRule | None  # None: unlabelled
    split: str = "train"

    def __post_init__(self) -> None:
        find_format(self.file_format)
        check_seed(self.seed)
        if self.split not in ("train", "test"):
            raise UsageError(f"split '{self.split}': expected train or test")

    def share_count(self, share: int, of: int) -> int:
        """How many images are share ``share`` of ``of``."""
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
        labels: ``balanced``, ``uniform`` or a list such as ``0,3,7``.
        split: ``train`` or ``test``; names the files.
        shares: among how many machines the shards will be dealt out; by default there is at least one for each.

    Raises:
        UsageError: any of it cannot be.
    """
    chosen = find_format(file_format)
    if shards is None:
        shards = max(shares, 1 if chosen.one_shard else default_shards(count))
    if chosen.one_file and (shards != 1 or count > chosen.max_images):
        raise UsageError(
            f"shards {shards}, count {count}: the {file_format} format is one file by nature, "
            f"of at most {chosen.max_images:,} images"
        )
    rule = LabelRule.parse(labels) if checkpoint.recipe.conditional else None
    if rule is None and labels != "balanced":
        raise UsageError(
            f"labels '{labels}': checkpoint '{checkpoint.name}' is unconditional, its images bear no labels; "
            "leave --labels out or choose a conditional checkpoint"
        )
    plan = ShardPlan(start=start, count=count, shards=shards)
    return Export(plan=plan, seed=seed, file_format=file_format, labels=rule, split=split)


@dataclass(frozen=True, kw_only=True)
class Job:
    """An export as a small description that any process on any machine can work from, by itself.

    Attributes:
        export: what to export.
        checkpoint: the generator, by its hash, and what a manifest says of it.
        location: where the generator is found: the name of a built-in checkpoint or a folder.
        privacy: the checkpoint's privacy statement.
        made_with: the software and hardware that every shard must be drawn with.
    """

    export: Export
    checkpoint: CheckpointRecord
    location: str
    privacy: PrivacyStatement
    made_with: dict[str, str]

    @classmethod
    def of(cls, checkpoint: Checkpoint, export: Export) -> "Job":
        """The job of drawing ``export`` from ``checkpoint`` with what there is here."""
        return cls(
            export=export,
            checkpoint=CheckpointRecord(
                name=checkpoint.name,
                sha256=checkpoint.sha256,
                recipe=checkpoint.recipe.to_dict(),
                recipe_sha256=checkpoint.recipe.sha256,
            ),
            location=checkpoint.name if checkpoint.is_builtin else str(checkpoint.path.resolve()),
            privacy=checkpoint.privacy,
            made_with=drawn_with(),  # a set drawn half here, half elsewhere would be reproducible nowhere
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What decides every byte, as JSON-ready values."""
        return {
            "checkpoint": self.checkpoint.sha256,
            "seed": self.export.seed,
            "labels": str(self.export.labels or "none"),
            "split": self.export.split,
            "format": self.export.file_format,
            **dataclasses.asdict(self.export.plan),
            "made_with": self.made_with,
        }

    @functools.cached_property
    def sha256(self) -> str:
        """The hash of ``identity``; a shard's record names it."""
        return sha256_of_json(self.identity)

    def to_dict(self) -> dict[str, Any]:
        """The job as JSON-ready values: its identity, and what the manifest will say of the origin."""
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
        """Read a job back.

        Raises:
            ExportError: it is not one this version understands.
        """
        try:
            origin, labels = document["origin"], document["labels"]
            Recipe.from_dict(origin["recipe"])
            return cls(
                export=Export(
                    plan=ShardPlan(**{key: int(document[key]) for key in ("start", "count", "shards")}),
                    seed=int(document["seed"]),
                    file_format=document["format"],
                    labels=None if labels == "none" else LabelRule.parse(labels),
                    split=document["split"],
                ),
                checkpoint=CheckpointRecord(
                    name=str(origin["name"]),
                    sha256=str(document["checkpoint"]),
                    recipe=origin["recipe"],
                    recipe_sha256=sha256_of_json(origin["recipe"]),
                ),
                location=str(origin["location"]),
                privacy=PrivacyStatement.from_dict(origin["privacy"]),
                made_with=dict(document["made_with"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError, UsageError, RecipeError) as error:
            raise ExportError(f"not an export job this version understands: {error}") from error

    def source(self) -> Checkpoint:
        """The checkpoint itself, found, checked, and remembered by this process.

        Raises:
            CheckpointError: what is found at ``location`` is another one, or none.
            ExportError: this machine would draw other pixels than the job's.
        """
        return _source(self.location, self.checkpoint.sha256, tuple(sorted(self.made_with.items())))


@functools.lru_cache(maxsize=4)
def _source(location: str, sha256: str, expected: tuple[tuple[str, str], ...]) -> Checkpoint:
    here = drawn_with()
    if different := [f"{k} {v} (here {here.get(k)})" for k, v in expected if here.get(k) != v]:
        raise ExportError(
            f"the export was begun with {', '.join(different)}: pixels may be rounded otherwise here; "
            "run every part of it with the same software and processor"
        )
    checkpoint = load_checkpoint(location)
    if checkpoint.sha256 != sha256:
        raise CheckpointError(f"{location}: is {checkpoint.sha256[:12]}…; the export was begun from {sha256[:12]}…")
    return checkpoint
