"""Checkpoints: a folder with a generator's weights, its recipe, its history and its privacy statement.

    checkpoint.json    what it is
    generator.h5       the generator's integers, which decide every pixel: docs/pixels.md
    samples.png        what it draws

Checkpoints of synthgen 0.1 and 0.2 hold float32 Keras weights instead, in ``generator.weights.h5``; they are read for
ever, but their pixels depend on the processor.

A checkpoint's identity is a SHA-256 over the architecture and the arrays, not over the bytes of the HDF5 file. Where a
formal guarantee is claimed, it also covers the whole recipe and privacy statement, so that the claim cannot be edited.
"""

import hashlib
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt

from synthgen.environment import import_tensorflow
from synthgen.errors import CheckpointError, RecipeError
from synthgen.fashion import NUM_CLASSES
from synthgen.files import MALFORMED, publish, sha256_of_json, write_json
from synthgen.index import BLOCK_IMAGES
from synthgen.model.claims import BUILT_IN, FLOAT32, INTEGERS, expect_possible_claim
from synthgen.model.recipe import Recipe
from synthgen.model.spending import statement_of_all
from synthgen.pixels.backends import expect_backend, open_backend
from synthgen.pixels.drawing import Backend, FloatBackend
from synthgen.pixels.folded import fold
from synthgen.pixels.integers import IntegerGenerator
from synthgen.pixels.latents import latents
from synthgen.pixels.quantise import quantise
from synthgen.pixels.tables import LATENT_SCALES
from synthgen.privacy.statement import UNPROTECTED, PrivacyStatement
from synthgen.untrusted.datasets import open_hdf5, own_datasets, whole
from synthgen.untrusted.files import read_file
from synthgen.untrusted.text import parse_json

if TYPE_CHECKING:
    import keras

Array = npt.NDArray[np.generic]
DEFAULT_CHECKPOINT = "private"
METADATA_NAME, INTEGERS_NAME, SAMPLES_NAME = "checkpoint.json", "generator.h5", "samples.png"
WEIGHTS_NAME = "generator.weights.h5"  # of a float checkpoint
SCHEMA_VERSION, FLOAT_SCHEMA_VERSION = 2, 1
_CALIBRATION_SEED, _CALIBRATION_BLOCKS = (1 << 64) - 1, 2  # which images the rounding is fitted to
MAX_METADATA_BYTES = 16 << 20  # 16 MiB
_MAX_WEIGHT_BYTES = 1 << 30  # 1 GiB of arrays


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A generator on disk, checked against its own hash.

    Attributes:
        path: its folder.
        sha256: its identity, over architecture, weights and any formal privacy claim.
        recipe: how it was built and trained.
        privacy: what may be claimed for its images; where the ledger beside it holds more, what that proves.
        is_behind: whether that is so: then no set is made of it, for the identity covers the smaller claim.
        identified: what the identity covers beside the weights, exactly as ``checkpoint.json`` has it.
        training: steps, epochs, seed, seconds, data checksum, per-epoch history, versions.
        exact: whether it holds integers, whose pixels are the same everywhere, or float32 weights.
        arrays: the integers or weights that ``sha256`` names, by name.
    """

    path: Path
    sha256: str
    recipe: Recipe
    privacy: PrivacyStatement
    identified: dict[str, Any]
    training: dict[str, Any]
    exact: bool
    arrays: dict[str, Array] = field(repr=False, compare=False)
    is_behind: bool = False

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @property
    def arithmetic(self) -> str:
        """``INTEGERS`` or ``FLOAT32``, as a manifest has it."""
        return INTEGERS if self.exact else FLOAT32

    @property
    def is_builtin(self) -> bool:
        """Whether it came with the package: by its content, and by its place, so that its name finds it again."""
        return self.sha256 in BUILT_IN and self.path.resolve().parent == _builtin_folder().resolve()

    @property
    def weights_path(self) -> Path:
        """The file with ``arrays``."""
        return self.path / (INTEGERS_NAME if self.exact else WEIGHTS_NAME)

    def generator(self, backend: str = "numpy") -> Backend:
        """The generator, ready to draw (``numpy`` and ``onnxruntime`` do so without TensorFlow).

        Args:
            backend: see ``pixels.backends.open_backend``; of no effect on a pixel.

        Raises:
            CheckpointError: the weights do not fit the recipe's architecture.
            UsageError: there is no such backend, it is not installed, or it draws no float checkpoint.
        """
        expect_backend(backend, exact=self.exact)
        try:
            if self.exact:
                return open_backend(self.integers(), backend)
            return FloatBackend(fold(self.recipe.shape, self.arrays))
        except ValueError as error:
            raise CheckpointError(f"{self.path}: the weights do not fit the recipe: {error}") from error

    def integers(self) -> IntegerGenerator:
        """The generator of an exact checkpoint, as integers.

        Raises:
            CheckpointError: it is a float checkpoint.
        """
        if not self.exact:
            raise CheckpointError(f"{self.path}: holds float32 weights, not integers; its pixels depend on the machine")
        return IntegerGenerator.from_arrays(self.recipe.shape, self.arrays)

    def keras_model(self) -> "keras.Model":
        """The generator as a Keras model, for inspection and further training (imports TensorFlow).

        Of an exact checkpoint the model's weights are the integers in real units. It does not round activations, so
        that its pixels differ by about a grey level on average, and single ones by a hundred.

        Raises:
            CheckpointError: the weights do not fit the recipe's architecture.
        """
        import_tensorflow()
        from synthgen.model.networks import build_generator, set_integers

        model = build_generator(self.recipe)
        if self.exact:
            set_integers(model, self.integers(), LATENT_SCALES[self.recipe.latent.distribution])
            return model
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # Keras only warns about a layer that it leaves random
                model.load_weights(self.weights_path)
        except (ValueError, KeyError, OSError, UserWarning) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"{self.path}: the weights do not fit the recipe: {reason}") from error
        if weights_sha256(self.weights_path, self.identified) != self.sha256:
            raise CheckpointError(f"{self.path}: changed while it was read; is a training at work there?")
        return model


def builtin_checkpoints() -> dict[str, Path]:
    """The checkpoints that come with synthgen: name → folder."""
    return {path.parent.name: path.parent for path in sorted(_builtin_folder().glob(f"*/{METADATA_NAME}"))}


def load_checkpoint(name_or_path: str | Path = DEFAULT_CHECKPOINT) -> Checkpoint:
    """Load a built-in checkpoint by name or any other by its folder, and check its hashes.

    Raises:
        CheckpointError: it does not exist, is malformed, does not have the content that its hash names, claims a
            smaller epsilon than its ledger proves, or lies beside a ledger that is spoilt or of another run.
    """
    path = _find(str(name_or_path))
    if not path.resolve().name.isprintable():
        raise CheckpointError(f"checkpoint {str(path)!r}: rename the folder; a manifest cannot print its name")
    try:
        metadata = _read_metadata(path / METADATA_NAME)
        recipe = Recipe.from_dict(metadata["recipe"])
        privacy = PrivacyStatement.from_dict(metadata["privacy"])
        sha256, training, exact = metadata["sha256"], metadata["training"], metadata["schema_version"] == SCHEMA_VERSION
        # Hashes are over the file's own values: this version may add keys with defaults, or word a sentence otherwise.
        identified = identity_of(metadata["recipe"], metadata["privacy"])
        if sha256_of_json(metadata["recipe"]) != metadata["recipe_sha256"] or not isinstance(training, dict):
            raise ValueError("the recipe is not the one its hash names")
        expect_possible_claim(str(sha256), recipe, privacy, training.get("steps"))
    except (OSError, ValueError, KeyError, RecipeError) as error:
        raise CheckpointError(f"{path / METADATA_NAME}: not a checkpoint this version reads: {error}") from error
    arrays = dict(_read_arrays(path / (INTEGERS_NAME if exact else WEIGHTS_NAME)))
    found = _identity(arrays.items(), identified)
    if found != sha256:
        raise CheckpointError(
            f"{path}: its content hashes to {found[:12]}… but the checkpoint says {str(sha256)[:12]}…: "
            "one of its files was altered; fetch it anew"
        )
    if exact:
        try:
            IntegerGenerator.from_arrays(recipe.shape, arrays)
        except ValueError as error:
            raise CheckpointError(f"{path / INTEGERS_NAME}: {error}") from error
    whole = statement_of_all(path, privacy)
    known = {"identified": identified, "training": training, "exact": exact, "arrays": arrays}
    return Checkpoint(path=path, sha256=found, recipe=recipe, privacy=whole, is_behind=whole != privacy, **known)


def save_checkpoint(
    path: Path,
    generator: "keras.Model",
    recipe: Recipe,
    privacy: PrivacyStatement,
    training: dict[str, Any],
) -> Checkpoint:
    """Round a trained generator to integers and write it as a checkpoint into the folder ``path``.

    Each file is written whole or not at all, the metadata last: a process killed between the two leaves a checkpoint
    whose hash does not match; loading refuses it.

    Args:
        path: the checkpoint's folder, made if need be.
        generator: as ``networks.build_generator`` makes it; only its own images are looked at to round it.
        recipe: how it was built and trained.
        privacy: what may be claimed for its images.
        training: see ``Checkpoint``.

    Raises:
        PrivacyError: ``privacy`` claims a smaller epsilon than its ledger proves; nothing is written.
        CheckpointError: the weights are no finite numbers; nothing is written.
    """
    privacy.expect_proven()
    return save_integers(path, rounded(recipe, keras_arrays(generator)), recipe, privacy, training)


def save_integers(
    path: Path, generator: IntegerGenerator, recipe: Recipe, privacy: PrivacyStatement, training: dict[str, Any]
) -> Checkpoint:
    """What ``save_checkpoint`` does after rounding."""
    privacy.expect_proven()
    path.mkdir(parents=True, exist_ok=True)
    with publish(path / INTEGERS_NAME) as partial, h5py.File(partial, "w") as file:
        for name, array in generator.arrays().items():
            file.create_dataset(name, data=array)
    metadata = {
        "schema_version": SCHEMA_VERSION,
        "sha256": weights_sha256(path / INTEGERS_NAME, identity_of(recipe.to_dict(), privacy.to_dict())),
        "recipe_sha256": recipe.sha256,
        "privacy": privacy.to_dict(),
        "recipe": recipe.to_dict(),
        "training": training,
    }
    write_json(path / METADATA_NAME, metadata)
    return load_checkpoint(path)


def rounded(recipe: Recipe, arrays: dict[str, Array]) -> IntegerGenerator:
    """A generator of a Keras weights file's arrays, rounded to integers; see ``pixels.quantise``.

    Raises:
        CheckpointError: the weights do not fit the recipe's architecture, or are no finite numbers.
    """
    size, distribution = recipe.latent.size, recipe.latent.distribution
    drawn = [latents(_CALIBRATION_SEED, block, size, distribution) for block in range(_CALIBRATION_BLOCKS)]
    labels = (np.arange(len(drawn) * BLOCK_IMAGES) % NUM_CLASSES).astype(np.uint8) if recipe.conditional else None
    try:
        return quantise(fold(recipe.shape, arrays), np.concatenate(drawn), labels, LATENT_SCALES[distribution])
    except ValueError as error:
        raise CheckpointError(f"the generator cannot be rounded to integers: {error}") from error


def keras_arrays(generator: "keras.Model") -> dict[str, Array]:
    """A Keras model's weights by their names in a weights file, such as ``/layers/dense/vars/0``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / WEIGHTS_NAME
        generator.save_weights(path)
        return dict(_read_arrays(path))


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
    metadata = parse_json(read_file(path, MAX_METADATA_BYTES, links=True))
    if not isinstance(metadata, dict):
        raise ValueError("it is no JSON object")
    found = metadata.get("schema_version")
    if type(found) is not int or found not in (FLOAT_SCHEMA_VERSION, SCHEMA_VERSION):  # True is equal to 1
        raise ValueError(f"schema_version {found!r}; this version reads {FLOAT_SCHEMA_VERSION} and {SCHEMA_VERSION}")
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
