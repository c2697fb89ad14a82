"""What many tests name: the tiny real sample of Fashion-MNIST, its override, and images written as a set."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from synthgen.export.outputs import LocalOutput
from synthgen.export.plan import Export, Job
from synthgen.export.run import complete
from synthgen.export.shard import write_shard
from synthgen.files import sha256_of_json, write_json
from synthgen.formats.base import Batch
from synthgen.index import NO_LABELS, LabelRule, ShardPlan
from synthgen.model.checkpoint import (
    FLOAT_SCHEMA_VERSION,
    INTEGERS_NAME,
    METADATA_NAME,
    WEIGHTS_NAME,
    Checkpoint,
    identity_of,
    load_checkpoint,
    rounded,
    weights_sha256,
)
from synthgen.model.recipe import Recipe
from synthgen.model.sampling import Sampler
from synthgen.privacy.statement import PrivacyStatement, no_guarantee
from synthgen.sets.cards import sidecar_files
from synthgen.sets.manifest import Manifest, content_record, load_manifest, manifest_documents, sealed


def forge(folder: Path, change: Callable[[dict[str, Any]], object], *, cards: bool = True) -> None:
    """Alter a set's manifest as a forger does: with ``cards``, write the files that describe it anew, then the seal."""
    path = folder / "manifest.json"
    document = json.loads(path.read_text("utf-8"))
    change(document)
    path.write_text(json.dumps(sealed(document)), "utf-8")
    if cards:
        manifest = load_manifest(folder)
        files = sidecar_files([manifest])
        for name, data in files.items():
            (folder / name).write_bytes(data)
        records = tuple(content_record(name, data) for name, data in files.items())
        path.write_bytes(manifest_documents(replace(manifest, sidecars=records))[1]["manifest.json"])


DATA = Path(__file__).parent / "data"
SAMPLE = ["data.official=false"]  # the tiny sample is real, but not the official 70,000


def undescribed(folder: Path) -> Path:
    """The sample in ``folder``, without the description that says what it shows."""
    for path in DATA.glob("*-ubyte.gz"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def mutated(data: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    """Bytes after edits (kind, where, piece): flip a bit, set, cut, insert, or repeat what stands before."""
    for kind, where, piece in changes:
        place = where % (len(data) + 1)
        if kind == "flip":
            data = data[:place] + bytes(b ^ (1 << where % 8) for b in data[place : place + 1]) + data[place + 1 :]
        elif kind == "set":
            data = data[:place] + piece + data[place + len(piece) :]
        elif kind == "cut":
            data = data[:place]
        elif kind == "insert":
            data = data[:place] + piece + data[place:]
        else:
            data = data[:place] + data[max(0, place - 64) :]
    return data


def write_as_set(
    checkpoint: Checkpoint, out: Path, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8] | None
) -> Manifest:
    """Write given images, (N, 28, 28) with labels (N,) or None, as an npz set that names ``checkpoint`` as its origin.

    It did not draw them, and ``verify --regenerate`` will say so.
    """
    rule = NO_LABELS if labels is None else LabelRule.parse("uniform")
    plan = ShardPlan(start=0, count=len(images), shards=1)
    job = Job.of(checkpoint, Export(plan=plan, seed=0, file_format="npz", labels=rule))
    made_with = Sampler(checkpoint, 0, rule, "numpy").made_with()
    output = LocalOutput(out)
    with output.claim(job.to_dict(), resume=False):
        batches = iter([Batch(start=0, images=images, labels=labels)])
        manifest = complete(job, output, [write_shard(job, plan[0], output, batches, made_with, lambda _: None)])
    output.release()
    return manifest


def weights_file(folder: Path) -> Path:
    """The file with a checkpoint's arrays: integers, or the float32 weights of 0.1 and 0.2."""
    return folder / (INTEGERS_NAME if (folder / INTEGERS_NAME).exists() else WEIGHTS_NAME)


def forged_checkpoint(
    source: Path, folder: Path, change: Callable[[dict[str, Any]], object], *, name: str = "forged"
) -> Path:
    """A copy of a checkpoint, altered and hashed anew."""
    copy = shutil.copytree(source, folder / name)
    (copy / "ledger.json").unlink(missing_ok=True)  # what a forger leaves out
    document = json.loads((copy / "checkpoint.json").read_text("utf-8"))
    change(document)
    document["recipe_sha256"] = sha256_of_json(document["recipe"])
    identified = identity_of(document["recipe"], document["privacy"])
    document["sha256"] = weights_sha256(weights_file(copy), identified)
    (copy / "checkpoint.json").write_text(json.dumps(document), "utf-8")
    return copy


def save_floats(path: Path, model: Any, recipe: Recipe, privacy: PrivacyStatement | None = None) -> Checkpoint:
    """Write a Keras model as a checkpoint of synthgen 0.2: float32 weights, not rounded."""
    path.mkdir(parents=True)
    model.save_weights(path / WEIGHTS_NAME)
    stated = (privacy or no_guarantee("nothing: untrained")).to_dict()
    metadata = {
        "schema_version": FLOAT_SCHEMA_VERSION,
        "sha256": weights_sha256(path / WEIGHTS_NAME, identity_of(recipe.to_dict(), stated)),
        "recipe_sha256": recipe.sha256,
        "privacy": stated,
        "recipe": recipe.to_dict(),
        "training": {},
    }
    write_json(path / METADATA_NAME, metadata)
    return load_checkpoint(path)


@contextmanager
def noted_floats() -> Iterator[dict[str, Any]]:
    """The float32 weights of the generator that is rounded last within, by name: integers could hide a difference."""
    noted: dict[str, Any] = {}

    def note(recipe: Recipe, arrays: dict[str, Any]) -> Any:
        noted.update(arrays)
        return rounded(recipe, arrays)

    with mock.patch("synthgen.model.checkpoint.rounded", note):
        yield noted


def expect_equal_floats(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same names, and the same values to the last bit."""
    assert found.keys() == expected.keys()
    assert expected
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
