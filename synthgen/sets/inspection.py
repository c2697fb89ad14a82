"""Inspection: a checkpoint or an exported set as a picture, or as a few lines of text."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from synthgen.errors import UsageError
from synthgen.formats.base import Run
from synthgen.index import BLOCK_IMAGES
from synthgen.model.checkpoint import Checkpoint, load_checkpoint
from synthgen.model.claims import BUILT_IN, INTEGERS, origin_words
from synthgen.model.ledgers import shortness
from synthgen.model.recipe import Recipe
from synthgen.model.sampling import Sampler
from synthgen.privacy.statement import PrivacyStatement
from synthgen.sets.manifest import MANIFEST_NAME, Manifest, load_manifests
from synthgen.sets.reading import claimed_by, read_set
from synthgen.subject import Subject

_UNFINISHED = "ledger.json holds more than the checkpoint says; epsilon is that of the ledger; go on with --resume"


def preview_images(source: str, columns: int) -> npt.NDArray[np.uint8]:
    """The first images of a set, or of what a checkpoint draws with seed 0.

    Args:
        source: a checkpoint's name or folder, or an exported set's folder.
        columns: images in a row. Each class has a row; without labels there are ten rows of the first images.

    Returns:
        uint8, shape (N, 28, 28), row by row.

    Raises:
        CheckpointError, VerificationError: ``source`` is neither, or is malformed.
        UsageError: the set holds images of a class, but too few to fill its row.
    """
    subject, runs = _opened(source, columns)
    rows: list[list[npt.NDArray[np.uint8]]] = [[] for _ in range(subject.num_classes)]
    for images, labels in runs:
        for i, image in enumerate(images):
            first_open = next((row for row in rows if len(row) < columns), rows[-1])
            row = first_open if labels is None else rows[labels[i]]
            if len(row) < columns:
                row.append(image)
        if all(len(row) == columns for row in rows):
            break
    short = [subject.class_names[i] for i, row in enumerate(rows) if 0 < len(row) < columns]
    if short and labels is not None:
        raise UsageError(f"{source}: fewer than {columns} images of {', '.join(short)}; ask for fewer --columns")
    return np.stack([image for row in rows for image in row])


def describe(source: str) -> dict[str, str]:
    """What a checkpoint or a set is, as short lines: name → value.

    Raises:
        CheckpointError, VerificationError: ``source`` is neither, or is malformed.
    """
    folder = Path(source)
    if (folder / MANIFEST_NAME).is_file():
        return _describe_set(load_manifests(folder))
    return _describe_checkpoint(load_checkpoint(source))


def _opened(source: str, columns: int) -> tuple[Subject, Iterator[Run]]:
    """What a set shows, with its images and labels in order; or a checkpoint, with enough of its first blocks."""
    folder = Path(source)
    if (folder / MANIFEST_NAME).is_file():
        manifest = load_manifests(folder)[0]
        return manifest.subject, ((batch.images, batch.labels) for batch in read_set(folder, manifest))
    sampler = Sampler.of(load_checkpoint(source))
    subject = sampler.checkpoint.recipe.subject
    needed = columns * subject.num_classes
    return subject, (sampler(block) for block in range(-(-needed // BLOCK_IMAGES) + 1))


def _describe_set(manifests: Sequence[Manifest]) -> dict[str, str]:
    first, described = manifests[0], dict[str, str]()
    for manifest in manifests:
        kind = "" if manifest is first else f"{manifest.split}: "  # the first split has no prefix
        counts = zip(manifest.subject.class_names, manifest.class_counts, strict=False)
        shards = f"{len(manifest.shards)} shards"
        described |= {
            f"{kind}set": f"{manifest.count:,} images, {manifest.format}, split {manifest.split}, {shards}",
            f"{kind}classes": ", ".join(f"{name} {count:,}" for name, count in counts) or "none: unlabelled",
            f"{kind}images": f"{manifest.start} to {manifest.start + manifest.count - 1} of seed {manifest.seed}",
            f"{kind}digest": manifest.digest,
        }
    return {
        **described,
        "labels": first.labels,
        "checkpoint": _named(first.checkpoint.name, first.checkpoint.sha256),
        "pixels": _described_pixels(first.checkpoint.arithmetic),
        "drawn with": _drawn_with(first),
        "privacy": first.privacy.sentence,
        "claimed by": claimed_by(first),
        **_described_privacy(Recipe.from_dict(first.checkpoint.recipe), first.privacy),
    }


def _describe_checkpoint(checkpoint: Checkpoint) -> dict[str, str]:
    training, recipe = checkpoint.training, checkpoint.recipe
    return {
        "checkpoint": _named(checkpoint.name, checkpoint.sha256),
        "pixels": _described_pixels(checkpoint.arithmetic),
        "recipe": f'{recipe.name}, which says of itself: "{_shortened(recipe.description)}"',
        "labels": recipe.subject.classes_in_words if recipe.conditional else "none: unconditional",
        "training": _describe_training(training),
        "cost": f"{recipe.generator_flops / 1e6:.1f} MFLOP an image",
        "privacy": checkpoint.privacy.sentence,
        **({"unfinished": _UNFINISHED} if checkpoint.is_behind else {}),
        "claimed by": "synthgen's release" if checkpoint.sha256 in BUILT_IN else "whoever trained the checkpoint",
        **_described_privacy(recipe, checkpoint.privacy),
    }


def _described_privacy(recipe: Recipe, privacy: PrivacyStatement) -> dict[str, str]:
    """The facts of a statement, and in what its ledger falls short of the recipe."""
    short = shortness(recipe, privacy)
    return dict(privacy.facts()) | ({"ledger": short} if short else {})


def _named(name: str, sha256: str) -> str:
    return f"{name} {sha256} ({origin_words(sha256)})"


def _described_pixels(arithmetic: str) -> str:
    if arithmetic == INTEGERS:
        return "exact integers: the same on every machine (docs/pixels.md)"
    return "float32: they depend on software and processor"


def _drawn_with(manifest: Manifest) -> str:
    made_with = manifest.made_with
    drew = made_with.get("backend") or f"synthgen {made_with.get('synthgen', '?')}"  # float sets name no backend
    return f'"{_shortened(drew)}", says the manifest'


def _shortened(text: str) -> str:
    """A free text that goes between quotation marks, which it cannot end."""
    return text[:200].replace('"', "'") + ("…" if len(text) > 200 else "")


def _describe_training(training: dict[str, Any]) -> str:
    """Only numbers: a checkpoint's hash does not cover this part, and text in it could pretend to be a claim."""
    epochs, steps, seconds = (_number(training.get(key)) for key in ("epochs", "steps", "seconds"))
    first, last = (
        f"{epochs} epochs, " if "epochs" in training else "",
        f", {seconds} s" if "seconds" in training else "",
    )
    return f"{first}{steps} steps{last}"


def _number(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, int | float) and abs(value) < 1e15 else "?"
