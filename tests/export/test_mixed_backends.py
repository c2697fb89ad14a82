"""A set may be begun with one backend, go on with another and be checked with a third: no image tells."""

import os
import signal
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from small_exports import SHARDS, request
from small_generators import random_generator
from support import forge

from synthgen.errors import ExportError, UsageError
from synthgen.export.run import generate, generate_share, merge
from synthgen.formats import png
from synthgen.model.checkpoint import Checkpoint, save_integers
from synthgen.model.recipe import load_recipe
from synthgen.pixels.backends import described
from synthgen.privacy.statement import no_guarantee
from synthgen.sets.manifest import WORK_FOLDER, Manifest
from synthgen.sets.verification import verify

BACKENDS = [name for name in ("numpy", "onnxruntime", "tensorflow") if find_spec(name)]
PAIRS = [(first, second) for first in BACKENDS for second in BACKENDS if first != second]


class Broken(Exception):
    """The power fails."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Checkpoint:
    sizes = ["generator.stem_filters=5", "generator.filters=[6, 3]", "latent.size=8"]
    recipe, folder = load_recipe("conditional", sizes), tmp_path_factory.mktemp("checkpoint") / "small"
    return save_integers(folder, random_generator(recipe.shape, 3), recipe, no_guarantee("nothing: untrained"), {})


@pytest.fixture(scope="module")
def by_numpy(checkpoint, tmp_path_factory) -> Manifest:
    """The whole set, drawn by numpy alone."""
    out = tmp_path_factory.mktemp("numpy") / "set"
    return generate(checkpoint, request(checkpoint), out, allow_unprotected=True, backend="numpy")


def expect_same(manifest: Manifest, by_numpy: Manifest, *backends: str) -> None:
    assert manifest.digest == by_numpy.digest
    assert [shard.files for shard in manifest.shards] == [shard.files for shard in by_numpy.shards]
    assert manifest.made_with["backend"] == ", ".join(sorted(described(backend) for backend in backends))


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_an_interrupted_export_goes_on_with_another_backend(checkpoint, by_numpy, tmp_path, first: str, second: str):
    def stop(done: int, of: int) -> None:
        if done == 2:
            raise Broken

    out, plan = tmp_path / "set", request(checkpoint)
    with pytest.raises(Broken):
        generate(checkpoint, plan, out, allow_unprotected=True, backend=first, on_shard=stop)
    assert not (out / "manifest.json").exists()
    manifest = generate(checkpoint, plan, out, resume=True, allow_unprotected=True, backend=second)
    expect_same(manifest, by_numpy, first, second)
    assert verify(out, regenerate=300, checkpoint=checkpoint, backend=first).sound


KILLED = """
import os, signal, sys
from small_exports import request
from synthgen.export.run import generate
from synthgen.model.checkpoint import load_checkpoint
folder, out, backend = sys.argv[1:]
checkpoint = load_checkpoint(folder)
drawn = 0
def progress(images):
    global drawn
    drawn += images
    if drawn > 1200:  # in the middle of the third shard
        os.kill(os.getpid(), signal.SIGKILL)
generate(checkpoint, request(checkpoint), out, allow_unprotected=True, backend=backend, progress=progress)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs signals")
@pytest.mark.parametrize(("first", "second"), [pair for pair in PAIRS if "tensorflow" not in pair])
def test_a_killed_export_goes_on_with_another_backend(checkpoint, by_numpy, tmp_path, first: str, second: str):
    out, tests = tmp_path / "set", Path(__file__).parents[1]
    command = [sys.executable, "-c", KILLED, checkpoint.path, out, first]
    path = os.pathsep.join([str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")])
    killed = subprocess.run(list(map(str, command)), env={**os.environ, "PYTHONPATH": path}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list((out / WORK_FOLDER).glob("shard-*"))) == 2
    manifest = generate(checkpoint, request(checkpoint), out, resume=True, allow_unprotected=True, backend=second)
    expect_same(manifest, by_numpy, first, second)


def test_shares_drawn_by_different_backends_merge(checkpoint, by_numpy, tmp_path):
    out = tmp_path / "set"
    for share, backend in enumerate(BACKENDS):
        plan = request(checkpoint)
        generate_share(checkpoint, plan, out, share=share, of=len(BACKENDS), allow_unprotected=True, backend=backend)
    expect_same(merge(out), by_numpy, *BACKENDS)
    assert verify(out).sound


def test_workers_draw_with_the_backend_asked_for(checkpoint, by_numpy, tmp_path):
    backend, plan = BACKENDS[1], request(checkpoint)
    manifest = generate(checkpoint, plan, tmp_path, allow_unprotected=True, backend=backend, workers=2)
    expect_same(manifest, by_numpy, backend)


def test_few_images_are_drawn_by_numpy_unless_asked_otherwise(checkpoint, tmp_path):
    plan = request(checkpoint, shards=1)
    few = type(plan)(plan=type(plan.plan)(start=0, count=100, shards=1), seed=0, file_format="npz", labels=plan.labels)
    for backend, drew in (("auto", "numpy"), (BACKENDS[1], BACKENDS[1])):
        manifest = generate(checkpoint, few, tmp_path / backend, allow_unprotected=True, backend=backend)
        assert manifest.made_with["backend"] == described(drew)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_verifies_what_numpy_drew(checkpoint, by_numpy, tmp_path, backend: str):
    out = tmp_path / "set"
    generate(checkpoint, request(checkpoint), out, allow_unprotected=True, backend="numpy")
    report = verify(out, regenerate=500, checkpoint=checkpoint, backend=backend)
    assert report.sound
    assert report.regenerated == 500
    forge(out, lambda document: document.update(seed=1))
    report = verify(out, regenerate=500, checkpoint=checkpoint, backend=backend)
    assert any("of 500 images drawn anew differ" in problem for problem in report.problems), report.problems


@pytest.mark.parametrize("backend", ["cupy", "numpy:gpu"])
def test_an_unknown_backend_leaves_nothing_behind(checkpoint, by_numpy, tmp_path, backend: str):
    for act in (
        lambda out: generate(checkpoint, request(checkpoint), out, allow_unprotected=True, backend=backend),
        lambda out: generate_share(
            checkpoint, request(checkpoint), out, share=0, of=2, allow_unprotected=True, backend=backend
        ),
    ):
        with pytest.raises(UsageError, match="expected auto, numpy, onnxruntime or tensorflow"):
            act(tmp_path / "set")
        assert not (tmp_path / "set").exists()


def test_shards_packed_into_other_bytes_merge(checkpoint, by_numpy, tmp_path, monkeypatch):
    """As another version of zlib packs them."""
    plan, level = request(checkpoint, "png", shards=2), png._LEVEL
    merged = []
    for name, levels in (("alike", (level, level)), ("otherwise", (level, 0))):
        for share, backend in enumerate(BACKENDS[:2]):
            monkeypatch.setattr(png, "_LEVEL", levels[share])
            out = tmp_path / name
            generate_share(checkpoint, plan, out, share=share, of=2, allow_unprotected=True, backend=backend)
        merged.append(merge(out))
        assert verify(out, regenerate=100, checkpoint=checkpoint).sound
    assert [manifest.digest for manifest in merged] == [by_numpy.digest] * 2
    (first, second), (same, other) = (manifest.shards for manifest in merged)
    assert same == first
    assert other.files != second.files
    assert other.digest == second.digest


def test_a_shard_whose_bytes_are_not_its_records_is_found_where_machines_differ(checkpoint, by_numpy, tmp_path):
    """Two machines wrote it at once: the record of one stands beside the file of the other, of the same size."""
    out = tmp_path / "set"
    for share, backend in enumerate(BACKENDS[:2]):
        plan = request(checkpoint)
        generate_share(checkpoint, plan, out, share=share, of=2, allow_unprotected=True, backend=backend)
    (path,) = out.glob(f"train-00001-of-{SHARDS:05d}*")
    with zipfile.ZipFile(path) as archive:
        place = archive.infolist()[0].header_offset + 10  # the time of day, which no reader looks at
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(ExportError, match="1 of 4 shards are missing or of another export: 1; run"):
        merge(out)
    generate_share(checkpoint, request(checkpoint), out, share=1, of=2, allow_unprotected=True, backend="numpy")
    assert merge(out).digest == by_numpy.digest
    assert verify(out).sound
