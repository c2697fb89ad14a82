"""Where a set comes from: what its checkpoint and its signatures say, and what nobody has checked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from synthgen.environment import own_version
from synthgen.errors import VerificationError
from synthgen.model.checkpoint import METADATA_NAME, Checkpoint, load_checkpoint
from synthgen.model.claims import BUILT_IN
from synthgen.model.ledgers import shortness
from synthgen.model.recipe import Recipe
from synthgen.privacy.statement import PrivacyStatement
from synthgen.sets.keys import PublicKey
from synthgen.sets.manifest import MANIFEST_NAME, Manifest
from synthgen.sets.signatures import check, is_signed, signature_name

_UNKNOWN = "privacy claim not checked: checkpoint unknown"
_UNPROVEN = (
    "privacy claim not proven: it follows from its ledger, but the checkpoint is neither built in nor signed, and only "
    "who trained it knows what was run"
)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What is known of where a set or a checkpoint comes from.

    Attributes:
        problems: what is wrong: signatures, and where a set differs from its checkpoint; one line each.
        signatures: who signed, one line each; only what was checked and is right.
        unchecked: what was not checked, one line each.
    """

    problems: tuple[str, ...]
    signatures: tuple[str, ...]
    unchecked: tuple[str, ...]


def set_origin(
    folder: Path,
    manifest: Manifest,
    checkpoint: Checkpoint | None,
    given: Checkpoint | None,
    key: PublicKey | None,
    *,
    require_known: bool,
    regenerated: int,
) -> Origin:
    """Compare a set with its checkpoint and with a key.

    Args:
        folder: the set's.
        manifest: its manifest, of the first split.
        checkpoint: the one it was drawn from, if this is at hand.
        given: the same, if the user names it, rather than that its hash is known.
        key: whose signature the set, or else the checkpoint given, must bear; None: signatures are not checked.
        require_known: it is a problem if nobody vouches for the checkpoint.
        regenerated: how many images were drawn again.

    Raises:
        UsageError: a signature is to be checked, and ``cryptography`` is not installed.
    """
    places = [(folder, MANIFEST_NAME, ""), *([(given.path, METADATA_NAME, "checkpoint ")] if given else [])]
    signatures, problems, unchecked = _signatures(places, key)
    record, recipe = manifest.checkpoint, Recipe.from_dict(manifest.checkpoint.recipe)
    vouched = bool(signatures) or record.sha256 in BUILT_IN
    if require_known and not vouched:
        problems.append(_unknown(f"{MANIFEST_NAME}: its checkpoint {record.name} {record.sha256[:12]}…"))
    if not in_todays_words(manifest):
        version = manifest.made_with.get("synthgen", "of an unknown version")
        unchecked.append(f"cards not compared with the manifest: written by synthgen {version}")
    if (vouched or checkpoint) and not regenerated:
        unchecked.append("not checked: whether the images are drawn from their checkpoint; --regenerate 1000 would")
    unchecked += _unproven(record.sha256, recipe, manifest.privacy, bool(signatures), checkpoint is not None)
    return Origin(
        problems=(*_differences(manifest, checkpoint), *problems),
        signatures=tuple(signatures),
        unchecked=tuple(unchecked),
    )


def checkpoint_origin(folder: Path, key: PublicKey | None, *, require_known: bool) -> Origin:
    """Load a checkpoint from its folder, and compare it with a key; arguments as for ``set_origin``.

    Raises:
        CheckpointError: it is altered or malformed.
        UsageError: as ``set_origin``.
    """
    checkpoint = load_checkpoint(folder.absolute())  # absolute: a folder may have a built-in checkpoint's name
    signatures, problems, unchecked = _signatures([(folder, METADATA_NAME, "")], key)
    if require_known and not signatures and checkpoint.sha256 not in BUILT_IN:
        problems.append(_unknown(f"checkpoint {checkpoint.sha256[:12]}…"))
    unchecked += _unproven(checkpoint.sha256, checkpoint.recipe, checkpoint.privacy, bool(signatures), True)
    return Origin(problems=tuple(problems), signatures=tuple(signatures), unchecked=tuple(unchecked))


def _signatures(
    places: Sequence[tuple[Path, str, str]], key: PublicKey | None
) -> tuple[list[str], list[str], list[str]]:
    """Who signed, what is wrong, and what was not checked, of signatures in ``places``: (folder, file, whose)."""
    signed = [place for place in places if is_signed(*place[:2])]
    lines, problems = list[str](), list[str]()
    if key is None:
        names = (f"{whose}{signature_name(file)}" for _, file, whose in signed)
        return lines, problems, [f"{name}: a signature, not checked; --signed-by PUBLICKEY would" for name in names]
    for folder, _, whose in signed or places[:1]:  # where there is none at all, the first is missing
        try:
            lines.append(f"{whose}{check(folder, key)}")
        except VerificationError as error:
            problems.append(f"{whose}{error}")
    return lines, problems, []


def _unknown(what: str) -> str:
    return f"{what} is neither built in nor signed by a key given with --signed-by"


def _unproven(sha256: str, recipe: Recipe, privacy: PrivacyStatement, signed: bool, at_hand: bool) -> Iterator[str]:
    """What no file can prove of a claim, one line each; ``at_hand``: its checkpoint makes the same claim."""
    if sha256 in BUILT_IN or (not privacy.protects and (signed or at_hand)):
        return
    if short := shortness(recipe, privacy):
        yield f"its ledger {short}"
    if signed:
        yield "privacy claim not checked beyond its ledger: it is as good as the name that signed"
    else:
        yield _UNPROVEN if at_hand else _UNKNOWN


def in_todays_words(manifest: Manifest) -> bool:
    """Whether this version wrote the set, so that it can write the files beside the shards again."""
    return manifest.made_with.get("synthgen") == own_version()


def _differences(manifest: Manifest, checkpoint: Checkpoint | None) -> Iterator[str]:
    """Where the manifest differs from its checkpoint, if this is given or built in."""
    recipe = Recipe.from_dict(manifest.checkpoint.recipe)
    if checkpoint is None and manifest.checkpoint.sha256 not in BUILT_IN:  # its claim and recipe are known by heart
        return
    if checkpoint and manifest.privacy != checkpoint.privacy:
        yield f"{MANIFEST_NAME}: the privacy statement is not that of its checkpoint"
    if checkpoint and recipe.sha256 != checkpoint.recipe.sha256:  # as this version writes them both
        yield f"{MANIFEST_NAME}: the recipe is not that of its checkpoint"
    if checkpoint and manifest.checkpoint.arithmetic != checkpoint.arithmetic:
        yield f"{MANIFEST_NAME}: the arithmetic is not that of its checkpoint"
    if manifest.labelled != recipe.conditional:
        yield f"{MANIFEST_NAME}: labels '{manifest.labels}' cannot come from its checkpoint"
