"""Membership inference on a checkpoint's images or on an exported set, beside what is proven of them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from synthgen.audit.membership import (
    FALSE_POSITIVE_RATE,
    Attack,
    Membership,
    infer_membership,
)
from synthgen.errors import UsageError
from synthgen.index import Shard
from synthgen.model.checkpoint import Checkpoint
from synthgen.model.recipe import Recipe
from synthgen.model.sampling import Sampler
from synthgen.privacy.curve import largest_true_positive_rate
from synthgen.real_images import find_data, load_real_images
from synthgen.sets.manifest import load_manifest
from synthgen.sets.reading import read_set
from synthgen.subject import Images
from synthgen.training.images import training_images
from synthgen.workers import StageProgress

DEFAULT_IMAGES = 10_000


@dataclass(frozen=True, kw_only=True)
class ImagesAudit:
    """What membership inference found on some images.

    Attributes:
        subject: what was attacked, in words.
        checkpoint_sha256: of the checkpoint that drew the images.
        sentence: the claim of its privacy statement.
        epsilon, delta: what is proven of it; None where nothing is.
        largest_true_positive_rate: the most members that any attack finds at 1 % false positives, by the whole proven
            privacy curve; None without a proof.
        membership: what these attacks found.
    """

    contradicted: ClassVar[bool] = False  # an attack on images cannot refute a proof
    reads_images: ClassVar[bool] = True

    subject: str
    checkpoint_sha256: str
    sentence: str
    epsilon: float | None
    delta: float | None
    largest_true_positive_rate: float | None
    membership: Membership

    def summary(self) -> list[str]:
        """The result as lines to read."""
        found = self.membership
        sizes = f"{found.images:,} synthetic, {found.members:,} training and {found.non_members:,} unseen real images"
        bound = self.largest_true_positive_rate
        proven = "nothing" if self.epsilon is None else f"epsilon {self.epsilon:.4g} at delta {self.delta:.3g}"
        return [
            f"{'audited':<14}{self.subject}",
            f"{'proven':<14}{proven}. {self.sentence}",
            f"{'attack':<14}membership inference: {sizes}; intervals of {found.confidence:.0%}",
            f"{'distance':<14}{_attack_line(found.distance)}",
            f"{'calibrated':<14}{_attack_line(found.calibrated)}",
            f"{'chance':<14}AUC 0.5, {FALSE_POSITIVE_RATE:.1%} found"
            + ("" if bound is None else f"; the proof lets no attack find more than {bound:.2%}"),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return {"audit": "membership inference"} | asdict(self)


def audit_images(
    source: Checkpoint | Path,
    data_folder: Path | None = None,
    *,
    count: int = DEFAULT_IMAGES,
    seed: int = 0,
    confidence: float = 0.95,
    progress: StageProgress = lambda stage, done, of: None,
) -> ImagesAudit:
    """Attack images that a checkpoint draws, or the first images of an exported set.

    Args:
        source: a checkpoint, or the folder of a set. What drew the images was trained on the official training images
            or on some of them.
        data_folder: the real images; by default see ``synthgen.real_images.find_data``.
        count: how many images to attack, at most.
        seed: of the images that a checkpoint draws.
        confidence: of the intervals.
        progress: called as the audit goes on.

    Raises:
        UsageError: the generator was trained on the test images too, so that there are no non-members; or ``count``
            is below 1.
        VerificationError: the folder is no set, or is not what its manifest claims.
        PrivacyError: the privacy statement claims more than its ledger proves.
        DataError: the real images are missing or not the official ones.
        EvaluationError: there are fewer than 100 members or non-members.
    """
    if count < 1:
        raise UsageError(f"count {count}: expected at least 1")
    if isinstance(source, Checkpoint):
        recipe, sha256, privacy = source.recipe, source.sha256, source.privacy
        batches = _drawn(source, seed, count, progress)
        words = f"of seed {seed} from checkpoint {source.name} {sha256[:12]}"
    else:
        manifest = load_manifest(source)
        recipe, sha256 = Recipe.from_dict(manifest.checkpoint.recipe), manifest.checkpoint.sha256
        privacy = manifest.privacy
        batches = (batch.images for batch in read_set(source, manifest))
        words = f"of the set {source}"
    members, non_members = _members(recipe, data_folder)
    images = _first(batches, count)
    membership = infer_membership(images, members, non_members, confidence=confidence, progress=progress)
    privacy.expect_proven()
    proof = privacy.proof
    epsilon = None if proof is None else proof.ledger.epsilon(proof.delta)  # anew, even where its value is well known
    bound = None if proof is None else largest_true_positive_rate(proof.ledger.charges, proof.delta)
    return ImagesAudit(
        subject=f"{len(images):,} images {words}",
        checkpoint_sha256=sha256,
        sentence=privacy.sentence,
        epsilon=epsilon,
        delta=None if proof is None else proof.delta,
        largest_true_positive_rate=bound,
        membership=membership,
    )


def _members(recipe: Recipe, folder: Path | None) -> tuple[Images, Images]:
    """The images a recipe trains on, and the test images."""
    if "test" in recipe.data.images:
        raise UsageError(
            f"recipe '{recipe.name}' trains on the test images too: no real images are left to compare with"
        )
    folder = find_data(folder)
    members = training_images(recipe, folder).images
    return members, load_real_images("test", folder, official=recipe.data.official).images


def _drawn(checkpoint: Checkpoint, seed: int, count: int, progress: StageProgress) -> Iterator[Images]:
    for batch in Sampler.of(checkpoint, seed).shard(Shard(index=0, of=1, start=0, count=count)):
        yield batch.images
        progress("drawing images", batch.start + len(batch.images), count)


def _first(batches: Iterator[Images], count: int) -> Images:
    """The first ``count`` images, or all if there are fewer."""
    parts: list[Images] = []
    for images in batches:
        parts.append(images)
        if sum(map(len, parts)) >= count:
            break
    return np.concatenate(parts)[:count]


def _attack_line(attack: Attack) -> str:
    low, high = attack.auc_interval
    least, most = attack.true_positive_interval
    return (
        f"AUC {attack.auc:.4f} ({low:.4f} to {high:.4f}); at {attack.false_positive_rate:.1%} false positives "
        f"{attack.true_positive_rate:.2%} of the members found ({least:.2%} to {most:.2%})"
    )
