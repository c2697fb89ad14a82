"""Files from strangers: only errors of our own, bounded memory, no path outside the folder, no code run.

The quick run tries some hundreds of inputs, ``make test-slow`` more than ten thousand.
"""

import gzip
import io
import json
import os
import pickle
import resource
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import mutated, weights_file

from synthgen.errors import CheckpointError, DataError, SynthgenError, TrainingError, VerificationError
from synthgen.export.run import generate, plan_export
from synthgen.formats.idx import idx_header, read_idx_images, read_idx_labels
from synthgen.formats.table import FORMATS
from synthgen.model.checkpoint import load_checkpoint, weights_sha256
from synthgen.model.recipe import builtin_recipes, load_recipe
from synthgen.sets.manifest import load_manifest, sealed
from synthgen.sets.reading import read_set
from synthgen.sets.verification import verify
from synthgen.training.folder import open_state, write_state

EXAMPLES = [40, pytest.param(800, marks=pytest.mark.slow)]
MOST_MEMORY_GROWTH = 300 << 20  # 300 MiB over a whole test, the allocator's leftovers included

edits = st.lists(
    st.tuples(
        st.sampled_from(["set", "cut", "insert", "repeat"]),
        st.integers(0, 1 << 20),
        st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 8, b"\x7f\xff\xff\xff", b"\0" * 8, b"../../"]),
    ),
    min_size=1,
    max_size=6,
)


def fuzz(examples: int, seed: bytes, path: Path, read: Callable[[], object]) -> None:
    """Put mutations of ``seed`` at ``path`` and ``read`` them: it succeeds, or fails with an error of our own."""

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(edits)
    def attempt(changes):
        path.write_bytes(mutated(seed, changes))
        said = "read"
        try:
            read()
        except SynthgenError as error:
            said = str(error)
        assert said.strip()

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    attempt()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < MOST_MEMORY_GROWTH


@pytest.fixture(scope="module")
def sets(tiny_checkpoint, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    for name in ("tfrecord", "hdf5", "png", "idx", "idx-raw", "npz"):
        plan = plan_export(tiny_checkpoint, count=20, file_format=name)
        generate(tiny_checkpoint, plan, root / name, allow_unprotected=True)
    return root


@pytest.fixture
def checkpoint_copy(tiny_checkpoint, tmp_path) -> Path:
    return shutil.copytree(tiny_checkpoint.path, tmp_path / "checkpoint")


@pytest.mark.parametrize("examples", EXAMPLES)
class TestFuzz:
    @pytest.mark.parametrize("name", ["conditional", "smoke"])
    def test_recipe(self, tmp_path, name: str, examples: int):
        path = tmp_path / "recipe.toml"
        fuzz(examples, builtin_recipes()[name].read_bytes(), path, lambda: load_recipe(str(path)))

    def test_manifest(self, sets, tmp_path, examples: int):
        data = (sets / "npz" / "manifest.json").read_bytes()
        fuzz(examples, data, tmp_path / "manifest.json", lambda: verify(tmp_path))

    def test_manifest_sealed_anew(self, sets, tmp_path, examples: int):
        """A forger's manifest passes the seal, so every other check must hold alone."""
        folder = shutil.copytree(sets / "npz", tmp_path / "set")
        data, path = (folder / "manifest.json").read_bytes(), tmp_path / "draft.json"

        def read() -> None:
            try:
                document = sealed(json.loads(path.read_text("utf-8")))
            except (ValueError, AttributeError, RecursionError):
                return
            (folder / "manifest.json").write_text(json.dumps(document))
            verify(folder)

        fuzz(examples, data, path, read)

    def test_checkpoint_metadata(self, checkpoint_copy, examples: int):
        path = checkpoint_copy / "checkpoint.json"
        fuzz(examples, path.read_bytes(), path, lambda: load_checkpoint(checkpoint_copy))

    @pytest.mark.parametrize("kind", ["tiny_checkpoint", "float_checkpoint"])
    def test_checkpoint_weights(self, request, tmp_path, kind: str, examples: int):
        copy = shutil.copytree(request.getfixturevalue(kind).path, tmp_path / "checkpoint")
        path = weights_file(copy)
        fuzz(examples, path.read_bytes(), path, lambda: load_checkpoint(copy))

    @pytest.mark.parametrize("file_format", ["idx", "idx-raw"])
    def test_idx(self, sets, tmp_path, file_format: str, examples: int):
        suffix = ".gz" if file_format == "idx" else ""
        data = (sets / file_format / f"train-images-idx3-ubyte{suffix}").read_bytes()
        fuzz(examples, data, tmp_path / "images", lambda: read_idx_images(tmp_path / "images"))
        data = (sets / file_format / f"train-labels-idx1-ubyte{suffix}").read_bytes()
        fuzz(examples, data, tmp_path / "labels", lambda: read_idx_labels(tmp_path / "labels"))

    @pytest.mark.parametrize("file_format", ["tfrecord", "hdf5", "npz"])
    def test_shard(self, sets, tmp_path, file_format: str, examples: int):
        (name,) = (file.name for file in load_manifest(sets / file_format).shards[0].files)
        data = (sets / file_format / name).read_bytes()
        fuzz(examples, data, tmp_path / name, lambda: list(FORMATS[file_format].read_shard(tmp_path, [name], 20)))

    def test_png_images(self, sets, tmp_path, examples: int):
        folder = shutil.copytree(sets / "png", tmp_path / "png")
        names = [file.name for file in load_manifest(folder).shards[0].files]
        victim = folder / FORMATS["png"].listed(folder, names, 20)[3][1]
        fuzz(examples, victim.read_bytes(), victim, lambda: list(FORMATS["png"].read_shard(folder, names, 20)))

    def test_png_listing(self, sets, tmp_path, examples: int):
        folder = shutil.copytree(sets / "png", tmp_path / "png")
        (name,) = (file.name for file in load_manifest(folder).shards[0].files)
        data = (folder / name).read_bytes()
        fuzz(examples, data, folder / name, lambda: list(FORMATS["png"].read_shard(folder, [name], 20)))

    def test_training_state(self, tmp_path, examples: int):
        write_state(tmp_path, {"step": 1}, {"a": np.zeros(100)})

        def read() -> None:
            with open_state(tmp_path) as state:
                _ = [state[name] for name in state]

        path = tmp_path / "training-state.npz"
        fuzz(examples, path.read_bytes(), path, read)


def peak_bytes(act: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        act()
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


@pytest.mark.parametrize("packed", [False, True])
def test_an_idx_header_that_claims_two_thousand_million_images_allocates_nothing(tmp_path, packed: bool):
    path = tmp_path / "images"
    data = np.array([0x803, (1 << 31) - 1, 28, 28], ">u4").tobytes() + bytes(784)
    path.write_bytes(gzip.compress(data) if packed else data)

    def read() -> None:
        with pytest.raises(DataError, match="claims 2147483647 items"):
            read_idx_images(path)

    assert peak_bytes(read) < 2 << 20


def test_an_idx_bomb_is_not_unpacked_beyond_its_header(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(idx_header(2, images=True) + bytes(200 << 20)))  # 200 MiB of zeros in 200 KB

    def read() -> None:
        with pytest.raises(DataError, match="longer than the 2 items"):
            read_idx_images(path)

    assert peak_bytes(read) < 16 << 20


@pytest.mark.parametrize("kind", ["chunked", "contiguous"])
def test_an_hdf5_set_that_claims_two_thousand_million_images_allocates_nothing(sets, tmp_path, kind: str):
    folder = shutil.copytree(sets / "hdf5", tmp_path / "set")
    record = load_manifest(folder).shards[0].files[0].name
    with h5py.File(folder / record, "w") as file:
        shape, chunks = (1 << 31, 28, 28), (64, 28, 28) if kind == "chunked" else None
        file.create_dataset("images", shape, "u1", chunks=chunks)
        file.create_dataset("labels", (1 << 31,), "u1", chunks=(64,) if kind == "chunked" else None)

    def read() -> None:
        with pytest.raises(VerificationError, match="expected uint8"):
            list(FORMATS["hdf5"].read_shard(folder, [record], 20))

    assert peak_bytes(read) < 2 << 20


def test_an_npz_member_that_claims_two_thousand_million_images_allocates_nothing(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 31, 28, 28)})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())

    def read() -> None:
        with pytest.raises(VerificationError, match="expected uint8"):
            list(FORMATS["npz"].read_shard(tmp_path, ["x.npz"], 20))

    assert peak_bytes(read) < 2 << 20


@pytest.mark.parametrize("file_format", ["hdf5", "npz"])
def test_a_label_that_no_class_has_is_named(tmp_path, file_format: str):
    arrays = {"images": np.zeros((20, 28, 28), "u1"), "labels": np.full(20, 200, "u1")}
    if file_format == "hdf5":
        with h5py.File(tmp_path / "x", "w") as file:
            for name, array in arrays.items():
                file[name] = array
    else:
        with (tmp_path / "x").open("wb") as stream:
            np.savez(stream, **arrays)
    with pytest.raises(VerificationError, match="label 200 found; expected 0 to 9"):
        list(FORMATS[file_format].read_shard(tmp_path, ["x"], 20))


def test_npz_labels_without_images_are_not_unpacked(tmp_path):
    count = 1 << 24
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, shape, data in (("images", (count, 28, 28), b""), ("labels", (count,), bytes(count))):
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
            archive.writestr(f"{name}.npy", header.getvalue() + data)

    def read() -> None:
        with pytest.raises(VerificationError, match="cut short"):
            list(FORMATS["npz"].read_shard(tmp_path, ["x.npz"], count))

    assert peak_bytes(read) < 4 << 20


def test_an_hdf5_shard_that_stores_nothing_is_not_read_as_zeros(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("images", (1 << 40, 28, 28), "u1", chunks=(64, 28, 28))
    with pytest.raises(VerificationError, match="stores 0 bytes"):
        next(iter(FORMATS["hdf5"].read_shard(tmp_path, ["x.h5"], 1 << 40)))


def test_a_listing_far_too_long_for_its_images_is_not_read(tmp_path):
    (tmp_path / "x").write_bytes(bytes(20 * 200 + 1))
    with pytest.raises(VerificationError, match="too large for 20 images"):
        list(FORMATS["png"].read_shard(tmp_path, ["x"], 20))


def test_lists_of_shards_are_not_read_without_end(sets, tmp_path):
    folder = shutil.copytree(sets / "npz", tmp_path / "set")
    document = json.loads((folder / "manifest.json").read_text())
    document.update(schema_version=2)
    record = document.pop("shards")[0]["files"][0]
    for lists in ([record] * 2, [{**record, "name": f"{i}"} for i in range(101)], [{**record, "bytes": 1 << 40}]):
        document["shard_lists"] = lists
        (folder / "manifest.json").write_text(json.dumps(sealed(document)))
        with pytest.raises(VerificationError, match="lists of shards"):
            load_manifest(folder)


def test_a_tfrecord_that_claims_two_thousand_million_bytes_allocates_nothing(tmp_path):
    (tmp_path / "x").write_bytes((1 << 31).to_bytes(8, "little") + bytes(100))

    def read() -> None:
        with pytest.raises(VerificationError):
            list(FORMATS["tfrecord"].read_shard(tmp_path, ["x"], 20))

    assert peak_bytes(read) < 2 << 20


def test_weights_that_claim_a_tebibyte_allocate_nothing(checkpoint_copy):
    with h5py.File(checkpoint_copy / "generator.h5", "w") as file:
        file.create_dataset("x", (1 << 40,), "u1", chunks=(1 << 16,))

    def read() -> None:
        with pytest.raises(CheckpointError, match="larger than 1 GiB"):
            load_checkpoint(checkpoint_copy)

    assert peak_bytes(read) < 2 << 20


OUTSIDE = [
    "../secret.npz",
    "/etc/passwd",
    "a/../../secret.npz",
    "..\\secret.npz",
    "C:secret.npz",
    "./x.npz",
    "a//b",
    "",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_path_in_a_manifest_does_not_leave_the_folder(sets, tmp_path, name: str):
    (tmp_path / "secret.npz").write_bytes(b"secret")
    folder = shutil.copytree(sets / "npz", tmp_path / "set")
    document = json.loads((folder / "manifest.json").read_text())
    document["shards"][0]["files"][0]["name"] = name
    (folder / "manifest.json").write_text(json.dumps(sealed(document)))
    with pytest.raises(VerificationError, match="leaves the folder"):
        verify(folder)


def test_a_linked_folder_in_a_set_is_not_followed(sets, tmp_path):
    folder = shutil.copytree(sets / "png", tmp_path / "set")
    shutil.move(folder / "train", tmp_path / "elsewhere")
    (folder / "train").symlink_to(tmp_path / "elsewhere")
    assert "missing" in "\n".join(verify(folder).problems)
    with pytest.raises(VerificationError):
        list(read_set(folder, load_manifest(folder)))


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_in_a_set_is_not_opened(sets, tmp_path):
    np.savez(tmp_path / "x.npz", images=np.array([Bomb(tmp_path / "ran")], dtype=object), labels=np.zeros(20, "u1"))
    with pytest.raises(VerificationError):
        list(FORMATS["npz"].read_shard(tmp_path, ["x.npz"], 20))
    assert not (tmp_path / "ran").exists()


def test_a_pickle_in_a_training_state_is_not_opened(tmp_path):
    with (tmp_path / "training-state.npz").open("wb") as stream:
        np.savez(stream, header=np.array([Bomb(tmp_path / "ran")], dtype=object))
    with pytest.raises(TrainingError), open_state(tmp_path) as state:
        _ = state["header"]
    assert not (tmp_path / "ran").exists()


def test_a_pickle_for_weights_is_refused(checkpoint_copy, tmp_path):
    (checkpoint_copy / "generator.h5").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(CheckpointError, match="no readable weights"):
        load_checkpoint(checkpoint_copy)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["tiny_checkpoint", "float_checkpoint"])
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_a_whole_model_with_a_lambda_layer_is_refused(request, tmp_path, kind: str, suffix: str):
    """Only arrays are taken from the weights file: a model's configuration in it is never looked at."""
    checkpoint_copy = shutil.copytree(request.getfixturevalue(kind).path, tmp_path / "checkpoint")
    import keras

    ran = tmp_path / "ran"
    code = keras.layers.Lambda(lambda x, ran=str(ran): (__import__("os").mkdir(ran), x)[1], output_shape=(1,))
    model = keras.Sequential([keras.layers.Input((1,)), code, keras.layers.Dense(1)])
    shutil.rmtree(ran, ignore_errors=True)  # building the model ran it
    weights = weights_file(checkpoint_copy)
    model.save(tmp_path / f"model{suffix}")
    shutil.copy(tmp_path / f"model{suffix}", weights)
    document = json.loads((checkpoint_copy / "checkpoint.json").read_text())
    with pytest.raises(CheckpointError):
        load_checkpoint(checkpoint_copy)
    if suffix == ".h5":  # as who forges would, give the metadata the hash of what is there
        recipe = document["recipe"]
        architecture = {key: recipe[key] for key in ("conditional", "latent", "generator")}
        document["sha256"] = weights_sha256(weights, architecture)
        (checkpoint_copy / "checkpoint.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError):
        load_checkpoint(checkpoint_copy).keras_model()
    assert not ran.exists()
