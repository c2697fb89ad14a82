"""Determinism, resuming, and what an output folder may hold."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from kill_exports import cheap_pixels
from small_exports import request as shared_request

from synthgen.environment import float_drawn_with, software
from synthgen.errors import ExportError, PrivacyError, UsageError, VerificationError
from synthgen.export.plan import plan_export
from synthgen.export.run import generate
from synthgen.formats.table import FORMATS
from synthgen.index import MAX_INDEX, MAX_SEED
from synthgen.model.checkpoint import load_checkpoint
from synthgen.model.sampling import Sampler
from synthgen.pixels.latents import latents
from synthgen.sets.manifest import WORK_FOLDER, Manifest, load_manifest
from synthgen.sets.reading import read_set
from synthgen.sets.verification import verify


def pixels_and_labels(folder):
    batches = list(read_set(folder, load_manifest(folder)))
    return np.concatenate([b.images for b in batches]), np.concatenate([b.labels for b in batches])


@pytest.fixture(scope="module")
def reference(tiny_checkpoint, tmp_path_factory):
    """600 images of the tiny checkpoint with seed 0, in one shard."""
    out = tmp_path_factory.mktemp("sets") / "reference"
    plan = plan_export(tiny_checkpoint, count=600, file_format="npz")
    return out, generate(tiny_checkpoint, plan, out, allow_unprotected=True)


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_format_gives_the_same_digest_and_verifies(export, reference, tmp_path, file_format: str):
    manifest = export(tmp_path / "set", file_format=file_format)
    assert manifest.digest == reference[1].digest
    report = verify(tmp_path / "set")
    assert report.sound, report.problems


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_format_reads_back_what_was_drawn(export, reference, tmp_path, file_format: str):
    export(tmp_path / "set", file_format=file_format)
    for found, wanted in zip(pixels_and_labels(tmp_path / "set"), pixels_and_labels(reference[0]), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("shards", [2, 3])
def test_the_number_of_shards_changes_nothing(export, reference, tmp_path, shards: int):
    manifest = export(tmp_path / "set", shards=shards)
    assert len(manifest.shards) == shards
    assert manifest.digest == reference[1].digest


def test_two_halves_equal_the_whole(export, reference, tmp_path):
    export(tmp_path / "a", count=100)
    export(tmp_path / "b", count=500, start=100, file_format="hdf5")
    halves = zip(pixels_and_labels(tmp_path / "a"), pixels_and_labels(tmp_path / "b"), strict=True)
    for pair, whole in zip(halves, pixels_and_labels(reference[0]), strict=True):
        np.testing.assert_array_equal(np.concatenate(pair), whole)


def test_a_longer_count_keeps_the_earlier_images(export, reference, tmp_path):
    export(tmp_path / "longer", count=900)
    for longer, earlier in zip(pixels_and_labels(tmp_path / "longer"), pixels_and_labels(reference[0]), strict=True):
        np.testing.assert_array_equal(longer[:600], earlier)


def test_another_seed_gives_other_images_and_the_same_labels(export, reference, tmp_path):
    manifest = export(tmp_path / "other", seed=2**64 - 1)
    assert manifest.digest != reference[1].digest
    np.testing.assert_array_equal(pixels_and_labels(tmp_path / "other")[1], pixels_and_labels(reference[0])[1])


def test_an_export_goes_without_tensorflow(tiny_checkpoint, tmp_path):
    code = (
        "import sys; from pathlib import Path; import synthgen as s; c = s.load_checkpoint(sys.argv[1]);"
        "e = s.plan_export(c, count=300, file_format='tfrecord');"
        "s.generate(c, e, Path(sys.argv[2]), allow_unprotected=True); assert s.verify(sys.argv[2]).sound;"
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, tiny_checkpoint.path, tmp_path / "set"], check=True)


def test_images_far_along_the_index_line(export, tmp_path):
    manifest = export(tmp_path / "far", start=(1 << 40) + 3, count=5, file_format="tfrecord")
    assert sum(manifest.class_counts) == 5
    assert max(manifest.class_counts) == 1
    assert verify(tmp_path / "far").sound


def test_class_counts_and_quotas(export, tmp_path):
    assert export(tmp_path / "a", count=1003).class_counts == (101, 101, 101, *[100] * 7)
    assert export(tmp_path / "b", count=301, labels="0,3,7").class_counts == (101, 0, 0, 100, 0, 0, 0, 100, 0, 0)


@pytest.mark.parametrize("file_format", FORMATS)
def test_an_unconditional_checkpoint_gives_unlabelled_sets(export, unlabelled_checkpoint, tmp_path, file_format: str):
    manifest = export(tmp_path / "set", checkpoint=unlabelled_checkpoint, file_format=file_format, count=300)
    assert not manifest.labelled
    assert manifest.class_counts == ()
    report = verify(tmp_path / "set", regenerate=10, checkpoint=unlabelled_checkpoint)
    assert report.sound, report.problems
    assert not list((tmp_path / "set").glob("*label*"))


def test_the_manifest_says_where_the_set_comes_from(export, tiny_checkpoint, reference):
    manifest = load_manifest(reference[0])
    assert manifest == reference[1]
    assert manifest.checkpoint.sha256 == tiny_checkpoint.sha256
    assert manifest.checkpoint.recipe_sha256 == tiny_checkpoint.recipe.sha256
    assert manifest.privacy == tiny_checkpoint.privacy
    assert set(manifest.made_with) >= {"synthgen", "numpy", "processor", "backend"}
    assert manifest.made_with["backend"] == f"numpy {np.__version__}"  # so few images are drawn without onnxruntime


@pytest.mark.parametrize("file_format", ["tfrecord", "hdf5", "idx", "npz"])
def test_exporting_twice_gives_the_same_bytes(export, tmp_path, file_format: str):
    first = export(tmp_path / "a", file_format=file_format, count=300)
    time.sleep(1.1)  # a time stamp in a file would show
    assert export(tmp_path / "b", file_format=file_format, count=300).files() == first.files()


def test_a_foreign_folder_is_left_alone(export, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ExportError, match="is not empty; choose a new folder"):
        export(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_a_finished_set_is_not_overwritten(export, tmp_path):
    manifest = export(tmp_path / "set")
    with pytest.raises(ExportError, match="holds a finished set"):
        export(tmp_path / "set")
    with pytest.raises(ExportError, match="holds a finished set"):
        export(tmp_path / "set", seed=1, resume=True)
    assert export(tmp_path / "set", resume=True) == manifest  # nothing left to do


def test_an_unfinished_export_wants_resume_and_the_same_request(export, tmp_path, monkeypatch):
    out = tmp_path / "set"
    _break_off(monkeypatch, lambda: export(out, count=2000, shards=4), images=700)
    assert not (out / "manifest.json").exists()
    with pytest.raises(ExportError, match="go on with --resume"):
        export(out, count=2000, shards=4)
    with pytest.raises(ExportError, match="different seed"):
        export(out, count=2000, shards=4, seed=9, resume=True)


@pytest.mark.parametrize("file_format", ["tfrecord", "hdf5", "png", "npz"])
def test_a_resumed_export_equals_an_unbroken_one(export, tmp_path, monkeypatch, file_format: str):
    request = {"count": 2000, "shards": 4, "file_format": file_format}
    whole = export(tmp_path / "whole", **request)
    _break_off(monkeypatch, lambda: export(tmp_path / "broken", **request), images=1100)
    kept = sorted(path.name for path in (tmp_path / "broken" / WORK_FOLDER).glob("shard-*.json"))
    assert kept == ["shard-00000.json", "shard-00001.json"]
    resumed = export(tmp_path / "broken", resume=True, **request)
    assert resumed == whole
    assert not (tmp_path / "broken" / WORK_FOLDER).exists()
    assert verify(tmp_path / "broken").sound


@pytest.mark.parametrize(("file_format", "spoilt"), [("npz", "train-00000-of-00004.npz"), ("png", "train/**/*7.png")])
def test_a_finished_shard_that_was_altered_is_drawn_again(export, tmp_path, monkeypatch, file_format: str, spoilt: str):
    request = {"count": 2000, "shards": 4, "file_format": file_format}
    whole = export(tmp_path / "whole", **request)
    _break_off(monkeypatch, lambda: export(tmp_path / "broken", **request), images=1100)
    next((tmp_path / "broken").glob(spoilt)).write_bytes(b"garbage")
    assert export(tmp_path / "broken", resume=True, **request) == whole
    assert verify(tmp_path / "broken").sound


def test_a_finished_set_that_was_spoilt_is_not_blessed_by_resume(export, tmp_path):
    export(tmp_path / "set", file_format="idx")
    (tmp_path / "set" / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ExportError, match=r"holds this set, but spoilt: train-labels-idx1-ubyte\.gz: missing"):
        export(tmp_path / "set", file_format="idx", resume=True)


def test_a_float_set_says_what_its_pixels_depend_on(export, float_checkpoint, tmp_path):
    manifest = export(tmp_path / "set", checkpoint=float_checkpoint, count=20)
    assert manifest.made_with == float_drawn_with()
    assert set(manifest.made_with) >= {"blas", "arithmetic", "vector_instructions"}


def test_a_float_export_begun_elsewhere_is_not_resumed(export, float_checkpoint, tmp_path, monkeypatch):
    request = {"checkpoint": float_checkpoint, "count": 2000, "shards": 4}
    _break_off(monkeypatch, lambda: export(tmp_path / "set", **request), images=700)
    monkeypatch.setattr("synthgen.export.plan.float_drawn_with", lambda: {"numpy": "1.0"})
    with pytest.raises(ExportError, match=r"begun with numpy .* \(here 1\.0\)"):
        export(tmp_path / "set", **request, resume=True)


def test_an_exact_export_begun_elsewhere_goes_on(export, tmp_path, monkeypatch):
    """With another backend on another processor: the manifest names both, and the images are those of one."""
    whole = export(tmp_path / "whole", count=2000, shards=4, backend="numpy")
    elsewhere = {**software(), "processor": "another"}
    with monkeypatch.context() as patch:
        patch.setattr("synthgen.model.sampling.software", lambda: elsewhere)
        begun = lambda: export(tmp_path / "set", count=2000, shards=4, backend="numpy")  # noqa: E731
        _break_off(patch, begun, images=1100)
    kept = {path: path.read_bytes() for path in (tmp_path / "set").glob("*.npz")}
    resumed = export(tmp_path / "set", count=2000, shards=4, resume=True, backend="onnxruntime")
    assert len(kept) == 2
    assert all(path.read_bytes() == data for path, data in kept.items())  # not drawn again
    assert (resumed.digest, resumed.class_counts) == (whole.digest, whole.class_counts)
    assert resumed.made_with == whole.made_with | {
        "processor": ", ".join(sorted(["another", software()["processor"]])),
        "backend": f"numpy {np.__version__}, onnxruntime {version('onnxruntime')}",
    }
    assert verify(tmp_path / "set").sound


def test_a_users_keras_settings_change_no_network(tiny_checkpoint, tmp_path):
    (tmp_path / "keras.json").write_text('{"floatx": "float16", "image_data_format": "channels_first"}')
    code = (
        "import sys; import synthgen as s; m = s.load_checkpoint(sys.argv[1]).keras_model();"
        "print(m.dtype, m.output_shape)"
    )
    environment = {**os.environ, "KERAS_HOME": str(tmp_path)}
    command = [sys.executable, "-c", code, tiny_checkpoint.path]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert result.stdout.strip() == "float32 (None, 28, 28, 1)"


def test_sigkill_then_resume_gives_the_digest_of_an_unbroken_export(synthgen, tiny_checkpoint, export, tmp_path):
    count, shards = 20_000, 10  # long enough not to be over before it is killed
    whole = export(tmp_path / "whole", count=count, shards=shards, file_format="tfrecord")
    arguments = ["--checkpoint", tiny_checkpoint.path, "--count", count, "--shards", shards, "--allow-unprotected"]
    arguments += ["--workers", 1]
    command = [sys.executable, "-m", "synthgen", "export", *map(str, arguments), "--out", str(tmp_path / "killed")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed" / WORK_FOLDER).glob("shard-0000[2-7].json")) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert list((tmp_path / "killed" / WORK_FOLDER).glob("shard-*.json"))
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "manifest.json").exists()
    result = synthgen("export", *arguments, "--out", tmp_path / "killed", "--resume")
    assert result.returncode == 0, result.stderr
    assert load_manifest(tmp_path / "killed").digest == whole.digest


def test_two_exports_into_one_folder_do_not_meet(export, tmp_path, monkeypatch):
    out = tmp_path / "set"
    refusals = []

    def intrude(images: int) -> None:
        with pytest.raises(ExportError, match="another export is at work"):
            export(out, resume=True)
        refusals.append(images)

    _on_first_batch(monkeypatch, intrude)
    export(out, count=600)
    assert refusals


def test_an_unwritable_folder_is_one_line(export, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot be written"):
        export(tmp_path / "file" / "below")


def test_an_unprotected_checkpoint_needs_a_word(tiny_checkpoint, tmp_path):
    plan = plan_export(tiny_checkpoint, count=10, file_format="npz")
    with pytest.raises(ExportError, match="--allow-unprotected"):
        generate(tiny_checkpoint, plan, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_a_builtin_one_needs_the_word_too(tmp_path):
    conditional = load_checkpoint("conditional")
    with pytest.raises(ExportError, match="--allow-unprotected"):
        generate(conditional, plan_export(conditional, count=1, file_format="npz"), tmp_path / "set")


def test_a_private_checkpoint_needs_no_word_and_its_claim_travels_whole(private_checkpoint, tmp_path):
    plan = plan_export(private_checkpoint, count=10, file_format="npz")
    manifest = generate(
        private_checkpoint, plan, tmp_path / "set", max_epsilon=private_checkpoint.privacy.proof.epsilon
    )
    assert manifest.privacy == load_manifest(tmp_path / "set").privacy == private_checkpoint.privacy
    assert verify(tmp_path / "set", regenerate=10, checkpoint=private_checkpoint).sound


@pytest.mark.parametrize("epsilon", [0.1, 1e-9])
def test_a_looser_guarantee_than_asked_for_is_refused(private_checkpoint, tiny_checkpoint, tmp_path, epsilon: float):
    for checkpoint, found in ((private_checkpoint, "has epsilon"), (tiny_checkpoint, "has no formal")):
        plan = plan_export(checkpoint, count=10, file_format="npz")
        with pytest.raises(ExportError, match=found):
            generate(checkpoint, plan, tmp_path / "set", allow_unprotected=True, max_epsilon=epsilon)
    for senseless in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="max_epsilon"):
            generate(private_checkpoint, plan, tmp_path / "set", max_epsilon=senseless)
    assert not (tmp_path / "set").exists()


def test_a_claim_lowered_in_memory_is_not_exported(private_checkpoint, tmp_path):
    privacy = private_checkpoint.privacy
    lowered = replace(privacy, proof=replace(privacy.proof, epsilon=0.5))
    plan = plan_export(private_checkpoint, count=10, file_format="npz")
    with pytest.raises(PrivacyError, match=r"claims epsilon 0\.5, but its ledger proves only"):
        generate(replace(private_checkpoint, privacy=lowered), plan, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def _break_off(monkeypatch, act, images: int) -> None:
    """Interrupt an export once it has drawn ``images`` images."""
    _interrupt_after(monkeypatch, images)
    with pytest.raises(KeyboardInterrupt):
        act()
    monkeypatch.undo()


def _interrupt_after(monkeypatch, images: int) -> None:
    """Let an export draw ``images`` images, then be interrupted as Ctrl-C would."""
    original, drawn = Sampler.shard, [0]

    def shard(*arguments, **options):
        for batch in original(*arguments, **options):
            drawn[0] += len(batch)
            if drawn[0] > images:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(Sampler, "shard", shard)


def _on_first_batch(monkeypatch, act) -> None:
    original = Sampler.shard

    def shard(*arguments, **options):
        monkeypatch.undo()
        act(600)
        yield from original(*arguments, **options)

    monkeypatch.setattr(Sampler, "shard", shard)


def test_scratch_is_gone_when_done(export, tmp_path):
    export(tmp_path / "set", file_format="png", count=20)
    assert not (tmp_path / "set" / WORK_FOLDER).exists()
    shutil.rmtree(tmp_path / "set")


def test_many_shards_stand_in_lists_that_the_manifest_vouches_for(tiny_checkpoint, whole, tmp_path, monkeypatch):
    monkeypatch.setattr("synthgen.sets.manifest.SHARDS_PER_LIST", 3)
    out = tmp_path / "set"
    manifest = generate(tiny_checkpoint, shared_request(tiny_checkpoint), out, allow_unprotected=True)
    assert [file.name for file in manifest.shard_lists] == ["shard-lists/00000.json", "shard-lists/00001.json"]
    document = json.loads((out / "manifest.json").read_text())
    assert document["schema_version"] == 2
    assert "shards" not in document
    assert load_manifest(out) == manifest
    assert (manifest.digest, manifest.shards) == (whole.digest, whole.shards)
    assert verify(out).sound
    path = out / "shard-lists" / "00001.json"
    path.write_text(path.read_text().replace('"count": ', '"count":  '))
    with pytest.raises(VerificationError, match=r"shard-lists/00001.json: altered"):
        load_manifest(out)
    path.unlink()
    with pytest.raises(VerificationError, match=r"shard-lists/00001.json: missing"):
        verify(out)


def test_what_a_killed_writing_of_shard_lists_left_goes_away(small, tmp_path, monkeypatch):
    monkeypatch.setattr("synthgen.sets.manifest.SHARDS_PER_LIST", 1)

    def interrupt(done: int, of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small(tmp_path, on_shard=interrupt)
    (tmp_path / "shard-lists").mkdir()
    (tmp_path / "shard-lists" / ".00000.json.abc.partial").write_bytes(b"half")
    small(tmp_path, resume=True)
    assert verify(tmp_path).sound


@pytest.fixture
def export_cheaply(tiny_checkpoint, monkeypatch):
    monkeypatch.setattr("synthgen.model.sampling.loaded_generator", cheap_pixels)

    def export(out: Path, **request) -> Manifest:
        plan = plan_export(tiny_checkpoint, **{"file_format": "npz", **request})
        manifest = generate(tiny_checkpoint, plan, out, allow_unprotected=True)
        report = verify(out)
        assert report.sound, report.problems
        return manifest

    return export


@pytest.mark.parametrize("file_format", FORMATS)
def test_one_image(export_cheaply, tmp_path, file_format: str):
    assert export_cheaply(tmp_path / "set", count=1, file_format=file_format).class_counts == (1, *[0] * 9)


def test_one_class(export_cheaply, tmp_path):
    manifest = export_cheaply(tmp_path / "set", count=30, labels="7", file_format="png")
    assert manifest.class_counts == (*[0] * 7, 30, 0, 0)
    assert len(list((tmp_path / "set/train").iterdir())) == 10  # so that a folder's place stays its label


@pytest.mark.parametrize("start", [(1 << 32) - 1, (1 << 32) + 1, MAX_INDEX - 5])
@pytest.mark.parametrize("file_format", FORMATS)
def test_far_along_the_line(export_cheaply, tmp_path, file_format: str, start: int):
    manifest = export_cheaply(tmp_path / "set", count=5, start=start, file_format=file_format)
    assert manifest.start == start
    assert sum(manifest.class_counts) == 5


@pytest.mark.parametrize("seed", [0, 1 << 63, MAX_SEED])
def test_the_ends_of_the_seeds(export_cheaply, tmp_path, seed: int):
    assert export_cheaply(tmp_path / "set", count=5, seed=seed).seed == seed
    others = [latents(other, 0, 4, "gaussian") for other in (seed, seed ^ 1, seed ^ (1 << 63))]
    assert len(np.unique(np.stack(others).reshape(3, -1), axis=0)) == 3


@pytest.mark.parametrize("file_format", FORMATS)
def test_unicode_and_spaces_in_paths(export_cheaply, tmp_path, file_format: str):
    export_cheaply(tmp_path / "mÿ sets; $(x) 'q\" 服装 👗" / "a  b", count=5, file_format=file_format)
