import json
import shutil

import h5py
import numpy as np
import pytest
from support import weights_file

from synthgen.errors import CheckpointError
from synthgen.model.checkpoint import (
    DEFAULT_CHECKPOINT,
    builtin_checkpoints,
    identity_of,
    load_checkpoint,
    rounded,
    save_integers,
    weights_sha256,
)
from synthgen.model.recipe import Recipe

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


def test_the_identity_is_over_the_arrays_not_the_file(tiny_checkpoint, float_checkpoint, tmp_path):
    float_checkpoint.keras_model().save_weights(tmp_path / "again.weights.h5")
    with h5py.File(tmp_path / "again.h5", "w") as file:
        for name, array in reversed(tiny_checkpoint.arrays.items()):
            file.create_dataset(name, data=array)
    for checkpoint, path in ((tiny_checkpoint, "again.h5"), (float_checkpoint, "again.weights.h5")):
        assert (tmp_path / path).read_bytes() != checkpoint.weights_path.read_bytes()
        identified = identity_of(checkpoint.recipe.to_dict(), UNPROTECTED)
        assert weights_sha256(tmp_path / path, identified) == checkpoint.sha256


def test_a_float_checkpoint_still_loads_and_can_be_rounded(float_checkpoint, tmp_path):
    assert not float_checkpoint.exact
    assert {array.dtype for array in float_checkpoint.arrays.values()} == {np.dtype(np.float32)}
    with pytest.raises(CheckpointError, match="holds float32 weights, not integers"):
        float_checkpoint.integers()
    recipe, privacy = float_checkpoint.recipe, float_checkpoint.privacy
    exact = save_integers(tmp_path / "exact", rounded(recipe, float_checkpoint.arrays), recipe, privacy, {})
    assert exact.exact
    assert exact.sha256 != float_checkpoint.sha256
    assert (exact.recipe, exact.privacy) == (recipe, privacy)


def test_rounding_the_same_weights_gives_the_same_integers(tiny_checkpoint, private_checkpoint):
    """On one machine; the two were made of one model under different claims."""
    for name, array in tiny_checkpoint.arrays.items():
        np.testing.assert_array_equal(array, private_checkpoint.arrays[name])


def test_the_shipped_checkpoint_is_honest_and_small():
    checkpoint = load_checkpoint()
    assert checkpoint.name == DEFAULT_CHECKPOINT
    assert checkpoint.is_builtin
    assert checkpoint.privacy.protects
    assert checkpoint.privacy.proof.epsilon <= 10
    assert checkpoint.training["data"] == {"images": 60_000}
    folder = builtin_checkpoints()[DEFAULT_CHECKPOINT].parent  # all that are built in, together
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 8 << 20


@pytest.mark.parametrize("kind", ["tiny_checkpoint", "float_checkpoint"])
def test_altered_weights_are_refused(request, tmp_path, kind: str):
    copy = shutil.copytree(request.getfixturevalue(kind).path, tmp_path / "copy")
    with h5py.File(weights_file(copy), "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        file[names[0]][...] += 1
    with pytest.raises(CheckpointError, match="one of its files was altered"):
        load_checkpoint(copy)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema_version": 99}, "schema_version 99; this version reads 1 and 2"),
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
    with h5py.File(copy / "generator.h5", "w") as file:
        file["dense"] = h5py.ExternalLink(str(tiny_checkpoint.path / "generator.h5"), "/dense")
    with pytest.raises(CheckpointError, match="'dense' is missing or a link"):
        load_checkpoint(copy)


def test_weights_that_claim_too_much_are_refused_unread(copy):
    with h5py.File(copy / "generator.h5", "w") as file:
        file.create_dataset("huge", (1 << 40,), "f4", chunks=(1 << 20,))
    with pytest.raises(CheckpointError, match="larger than 1 GiB"):
        load_checkpoint(copy)


def with_another_recipe(checkpoint, folder, **changes):
    """A copy whose recipe's generator is another, hashed anew."""
    copy = shutil.copytree(checkpoint.path, folder)
    recipe = checkpoint.recipe.to_dict()
    recipe["generator"] |= changes
    sha256 = weights_sha256(weights_file(copy), identity_of(recipe, UNPROTECTED))
    rewrite(copy / "checkpoint.json", recipe=recipe, recipe_sha256=Recipe.from_dict(recipe).sha256, sha256=sha256)
    return copy


def test_integers_of_another_architecture_are_refused(tiny_checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match=r"generator\.h5: '/dense/weights' is int8 of shape .*; expected int8 of"):
        load_checkpoint(with_another_recipe(tiny_checkpoint, tmp_path / "other", stem_filters=9))


def test_float_weights_of_another_architecture_are_refused(float_checkpoint, tmp_path):
    other = load_checkpoint(with_another_recipe(float_checkpoint, tmp_path / "other", stem_filters=9))
    for use in (other.keras_model, other.generator):
        with pytest.raises(CheckpointError, match="do not fit the recipe"):
            use()


@pytest.mark.parametrize(("kind", "schema"), [("tiny_checkpoint", 1), ("float_checkpoint", 2)])
def test_a_file_of_the_other_kind_is_not_taken(request, tmp_path, kind: str, schema: int):
    """Not even under the name, and with the hash, that the metadata wants."""
    copy = shutil.copytree(request.getfixturevalue(kind).path, tmp_path / "copy")
    rewrite(copy / "checkpoint.json", schema_version=schema)
    with pytest.raises(CheckpointError, match="no readable weights"):
        load_checkpoint(copy)
    weights_file(copy).rename(copy / ("generator.h5" if schema == 2 else "generator.weights.h5"))
    with pytest.raises(CheckpointError, match=r"'/dense/weights' is missing|do not fit the recipe"):
        load_checkpoint(copy).generator()


def test_integers_past_their_bounds_are_refused(tiny_checkpoint, tmp_path):
    """As who forges would, with the hash of what is there."""
    for name, value, words in (
        ("dense/weights", 65, "passes ±64"),
        ("stage_1/weights", -128, "passes ±64"),
        ("stage_2/shift", 31, "holds 31; expected 0 to 30"),
        ("dense/low", 1, "is 1; expected -255 to 0"),
        ("image/bias", 1 << 24, "is not below 2"),
        ("stage_1/bias", -(1 << 31), "is not below 2"),
    ):
        copy = shutil.copytree(tiny_checkpoint.path, tmp_path / f"{name.replace('/', '-')}")
        with h5py.File(copy / "generator.h5", "r+") as file:
            file[name][(0,) * file[name].ndim] = value
        identified = identity_of(tiny_checkpoint.recipe.to_dict(), UNPROTECTED)
        rewrite(copy / "checkpoint.json", sha256=weights_sha256(copy / "generator.h5", identified))
        with pytest.raises(CheckpointError, match=rf"generator\.h5: '/{name.split('/')[0]}.*{words}"):
            load_checkpoint(copy)


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
