"""Checkpoints: a folder with a generator's weights, its recipe, its history and its privacy statement.

    checkpoint.json         what it is; read without TensorFlow
    generator.weights.h5    Keras weights: arrays, never code
    samples.png             what it draws

Its identity is a SHA-256 over the architecture and the arrays, not over the bytes of the HDF5 file. Where a formal
guarantee is claimed, it also covers the whole recipe and privacy statement, so that the claim cannot be edited.
"""

import hashlib
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from synthgen.environment import import_tensorflow
from synthgen.errors import CheckpointError, RecipeError
from synthgen.files import MALFORMED, publish, sha256_of_json, write_json
from synthgen.model.claims import BUILT_IN, expect_possible_claim
from synthgen.model.generator import Generator
from synthgen.model.recipe import Recipe
from synthgen.privacy.statement import UNPROTECTED, PrivacyStatement
from synthgen.untrusted.datasets import open_hdf5, own_datasets, whole
from synthgen.untrusted.files import read_file
from synthgen.untrusted.text import parse_json

if TYPE_CHECKING:
    import keras

Array = npt.NDArray[np.generic]
DEFAULT_CHECKPOINT = "private"
METADATA_NAME, WEIGHTS_NAME, SAMPLES_NAME = "checkpoint.json", "generator.weights.h5", "samples.png"
SCHEMA_VERSION = 1
_MAX_METADATA_BYTES = 16 << 20  # 16 MiB
_MAX_WEIGHT_BYTES = 1 << 30  # 1 GiB of arrays


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A generator on disk, checked against its own hash.

    Attributes:
        path: its folder.
        sha256: its identity, over architecture, weights and any formal privacy claim.
        recipe: how it was built and trained.
        privacy: what may be claimed for its images.
        identified: what the identity covers beside the weights, exactly as ``checkpoint.json`` has it.
        training: steps, epochs, seed, seconds, data checksum, per-epoch history, versions.
        arrays: the weights that ``sha256`` names, by name.
    """

    path: Path
    sha256: str
    recipe: Recipe
    privacy: PrivacyStatement
    identified: dict[str, Any]
    training: dict[str, Any]
    arrays: dict[str, Array] = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @property
    def is_builtin(self) -> bool:
        """Whether it came with the package: by its content, and by its place, so that its name finds it again."""
        return self.sha256 in BUILT_IN and self.path.resolve().parent == _builtin_folder().resolve()

    def generator(self) -> Generator:
        """The generator, ready to draw (without TensorFlow).

        Raises:
            CheckpointError: the weights do not fit the recipe's architecture.
        """
        try:
            return Generator(self.recipe, self.arrays)
        except ValueError as error:
            raise CheckpointError(f"{self.path}: the weights do not fit the recipe: {error}") from error

    def keras_model(self) -> "keras.Model":
        """The generator as a Keras model, for training and inspection (imports TensorFlow).

        Raises:
            CheckpointError: the weights do not fit the recipe's architecture.
        """
        import_tensorflow()
        from synthgen.model.networks import build_generator

        model = build_generator(self.recipe)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # Keras only warns about a layer that it leaves random
                model.load_weights(self.path / WEIGHTS_NAME)
        except (ValueError, KeyError, OSError, UserWarning) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"{self.path}: the weights do not fit the recipe: {reason}") from error
        if weights_sha256(self.path / WEIGHTS_NAME, self.identified) != self.sha256:
            raise CheckpointError(f"{self.path}: changed while it was read; is a training at work there?")
        return model


def builtin_checkpoints() -> dict[str, Path]:
    """The checkpoints that come with synthgen: name → folder."""
    return {path.parent.name: path.parent for path in sorted(_builtin_folder().glob(f"*/{METADATA_NAME}"))}


def load_checkpoint(name_or_path: str | Path = DEFAULT_CHECKPOINT) -> Checkpoint:
    """Load a built-in checkpoint by name or any other by its folder, and check its hashes.

    Raises:
        CheckpointError: it does not exist, is malformed, does not have the content that its hash names, or claims a
            smaller epsilon than its ledger proves.
    """
    path = _find(str(name_or_path))
    if not path.resolve().name.isprintable():
        raise CheckpointError(f"checkpoint {str(path)!r}: rename the folder; a manifest cannot print its name")
    try:
        metadata = _read_metadata(path / METADATA_NAME)
        recipe = Recipe.from_dict(metadata["recipe"])
        privacy = PrivacyStatement.from_dict(metadata["privacy"])
        sha256, training = metadata["sha256"], metadata["training"]
        # Hashes are over the file's own values: this version may add keys with defaults, or word a sentence otherwise.
        identified = identity_of(metadata["recipe"], metadata["privacy"])
        if sha256_of_json(metadata["recipe"]) != metadata["recipe_sha256"] or not isinstance(training, dict):
            raise ValueError("the recipe is not the one its hash names")
        expect_possible_claim(str(sha256), recipe, privacy)
    except (OSError, ValueError, KeyError, RecipeError) as error:
        raise CheckpointError(f"{path / METADATA_NAME}: not a checkpoint this version reads: {error}") from error
    arrays = dict(_read_arrays(path / WEIGHTS_NAME))
    found = _identity(arrays.items(), identified)
    if found != sha256:
        raise CheckpointError(
            f"{path}: its content hashes to {found[:12]}… but the checkpoint says {str(sha256)[:12]}…: "
            "one of its files was altered; fetch it anew"
        )
    return Checkpoint(
        path=path,
        sha256=found,
        recipe=recipe,
        privacy=privacy,
        identified=identified,
        training=training,
        arrays=arrays,
    )


def save_checkpoint(
    path: Path,
    generator: "keras.Model",
    recipe: Recipe,
    privacy: PrivacyStatement,
    training: dict[str, Any],
) -> Checkpoint:
    """Write a checkpoint into the folder ``path``, each file whole or not at all, the metadata last.

    A process killed between the two leaves a checkpoint whose hash does not match; loading refuses it.

    Raises:
        PrivacyError: ``privacy`` claims a smaller epsilon than its ledger proves; nothing is written.
    """
    privacy.expect_proven()
    path.mkdir(parents=True, exist_ok=True)
    with publish(path / WEIGHTS_NAME) as partial:
        named = partial.with_suffix(".weights.h5")  # Keras insists on the ending
        try:
            generator.save_weights(named)
            named.replace(partial)
        finally:
            named.unlink(missing_ok=True)
    metadata = {
        "schema_version": SCHEMA_VERSION,
        "sha256": weights_sha256(path / WEIGHTS_NAME, identity_of(recipe.to_dict(), privacy.to_dict())),
        "recipe_sha256": recipe.sha256,
        "privacy": privacy.to_dict(),
        "recipe": recipe.to_dict(),
        "training": training,
    }
    write_json(path / METADATA_NAME, metadata)
    return load_checkpoint(path)


def identity_of(recipe: dict[str, Any], privacy: dict[str, Any]) -> dict[str, Any]:
    """What the identity covers beside the weights; recipe and privacy statement are given as plain values.

    With a formal claim it is both of them whole; without, the part of the recipe that decides what is computed.
    """
    if privacy["guarantee"] == UNPROTECTED:
        return {key: recipe[key] for key in ("conditional", "latent", "generator")}
    return {"recipe": recipe, "privacy": privacy}


def weights_sha256(path: Path, identified: dict[str, Any]) -> str:
    """The identity of a generator: SHA-256 over ``identified``, then each array's name, type, shape and bytes.

    Raises:
        CheckpointError: the file is missing, is no HDF5, is too large, or links to data outside itself.
    """
    return _identity(_read_arrays(path), identified)


def _identity(arrays: Iterable[tuple[str, Array]], identified: dict[str, Any]) -> str:
    digest = hashlib.sha256(sha256_of_json(identified).encode())
    for name, array in arrays:
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _read_arrays(path: Path) -> Iterator[tuple[str, Array]]:
    """The names and arrays of a weights file, sorted by name; raises as ``weights_sha256``."""
    try:
        # Tools that share storage between folders (DVC, caches of models) link files; the identity is of the content.
        with open_hdf5(path, links=True) as file:
            datasets = list(own_datasets(file))
            size = sum(dataset.nbytes for dataset in datasets)
            if size > _MAX_WEIGHT_BYTES:
                raise ValueError("the arrays are larger than 1 GiB")
            if size > path.stat().st_size:  # Keras stores them as they are; so memory is bounded by what was sent
                raise ValueError("the arrays are larger than the file")
            for dataset in datasets:
                yield dataset.name, whole(dataset)
    except MALFORMED as error:
        raise CheckpointError(f"{path}: no readable weights: {error}") from error


def _read_metadata(path: Path) -> dict[str, Any]:
    metadata = parse_json(read_file(path, _MAX_METADATA_BYTES, links=True))
    if not isinstance(metadata, dict):
        raise ValueError("it is no JSON object")
    found = metadata.get("schema_version")
    if type(found) is not int or found != SCHEMA_VERSION:  # True is equal to 1
        raise ValueError(f"schema_version {found!r}; this version reads {SCHEMA_VERSION}")
    return metadata


def _find(name_or_path: str) -> Path:
    builtin = builtin_checkpoints()
    if name_or_path in builtin:
        return builtin[name_or_path]
    path = Path(name_or_path)
    if (path / METADATA_NAME).is_file():
        return path
    names = ", ".join(builtin) or "none is built in"
    raise CheckpointError(
        f"no checkpoint '{name_or_path}': expected a built-in one ({names}) or a folder with a {METADATA_NAME}"
    )


def _builtin_folder() -> Path:
    return Path(__file__).parents[1] / "checkpoints"
