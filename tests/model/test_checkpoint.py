import json
import shutil

import h5py
import numpy as np
import pytest

from synthgen.errors import CheckpointError
from synthgen.model.checkpoint import (
    DEFAULT_CHECKPOINT,
    builtin_checkpoints,
    identity_of,
    load_checkpoint,
    weights_sha256,
)

UNPROTECTED = {"guarantee": "none"}


@pytest.fixture
def copy(tiny_checkpoint, tmp_path):
    """A copy of the tiny checkpoint to tamper with."""
    return shutil.copytree(tiny_checkpoint.path, tmp_path / "copy")


def rewrite(path, **changes):
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, **changes}))


def test_a_checkpoint_survives_the_disk(tiny_checkpoint):
    loaded = load_checkpoint(tiny_checkpoint.path)
    assert loaded == tiny_checkpoint
    for before, after in zip(tiny_checkpoint.keras_model().weights, loaded.keras_model().weights, strict=True):
        np.testing.assert_array_equal(before.numpy(), after.numpy())


def test_the_identity_is_over_the_arrays_not_the_file(tiny_checkpoint, tmp_path):
    tiny_checkpoint.keras_model().save_weights(tmp_path / "again.weights.h5")
    assert (
        weights_sha256(tmp_path / "again.weights.h5", identity_of(tiny_checkpoint.recipe.to_dict(), UNPROTECTED))
        == tiny_checkpoint.sha256
    )


def test_the_shipped_checkpoint_is_honest_and_small():
    checkpoint = load_checkpoint()
    assert checkpoint.name == DEFAULT_CHECKPOINT
    assert checkpoint.is_builtin
    assert checkpoint.privacy.protects
    assert checkpoint.privacy.proof.epsilon <= 10
    assert checkpoint.training["data"] == {"images": 60_000}
    folder = builtin_checkpoints()[DEFAULT_CHECKPOINT].parent  # all that are built in, together
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 8 << 20


def test_altered_weights_are_refused(copy):
    with h5py.File(copy / "generator.weights.h5", "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        file[names[0]][...] += 1
    with pytest.raises(CheckpointError, match="one of its files was altered"):
        load_checkpoint(copy)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema_version": 99}, "schema_version 99; this version reads 1"),
        ({"recipe": 3}, "recipe = 3: expected a section"),
        ({"recipe_sha256": "0" * 64}, "the recipe is not the one its hash names"),
        ({"privacy": {"guarantee": "total"}}, "privacy statement is missing or of an unknown form"),
        ({"sha256": "0" * 64}, "altered"),
    ],
)
def test_altered_metadata_is_refused(copy, changes, words: str):
    rewrite(copy / "checkpoint.json", **changes)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(copy)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 100_000])
def test_metadata_that_is_no_json_object_is_refused(copy, text: str):
    (copy / "checkpoint.json").write_text(text)
    with pytest.raises(CheckpointError, match="not a checkpoint this version reads"):
        load_checkpoint(copy)


def test_weights_that_reach_outside_their_file_are_refused(copy, tiny_checkpoint):
    path = copy / "generator.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers"] = h5py.ExternalLink(str(tiny_checkpoint.path / "generator.weights.h5"), "/layers")
    with pytest.raises(CheckpointError, match="'layers' is missing or a link"):
        load_checkpoint(copy)


def test_weights_that_claim_too_much_are_refused_unread(copy):
    with h5py.File(copy / "generator.weights.h5", "w") as file:
        file.create_dataset("huge", (1 << 40,), "f4", chunks=(1 << 20,))
    with pytest.raises(CheckpointError, match="larger than 1 GiB"):
        load_checkpoint(copy)


def test_weights_of_another_architecture_are_refused(copy, tiny_checkpoint):
    recipe = tiny_checkpoint.recipe.to_dict()
    recipe["generator"]["stem_filters"] = 9
    from synthgen.model.recipe import Recipe

    other = Recipe.from_dict(recipe)
    sha256 = weights_sha256(copy / "generator.weights.h5", identity_of(recipe, UNPROTECTED))
    rewrite(copy / "checkpoint.json", recipe=recipe, recipe_sha256=other.sha256, sha256=sha256)
    with pytest.raises(CheckpointError, match="do not fit the recipe"):
        load_checkpoint(copy).keras_model()


def test_an_unknown_name_lists_the_builtin():
    with pytest.raises(CheckpointError, match="no checkpoint 'nowhere': expected a built-in one"):
        load_checkpoint("nowhere")


def test_a_checkpoint_whose_name_cannot_be_printed_is_refused(tiny_checkpoint, tmp_path):
    """The manifest names it, and a manifest that plays tricks on a terminal is read by nobody."""
    folder = shutil.copytree(tiny_checkpoint.path, tmp_path / "two\nlines")
    with pytest.raises(CheckpointError, match="rename"):
        load_checkpoint(folder)
    named = shutil.copytree(tiny_checkpoint.path, tmp_path / "mÿ 服装")
    assert load_checkpoint(named).name == "mÿ 服装"
