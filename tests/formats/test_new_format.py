"""A format is one class and one entry in the table: with these alone a set is exported, resumed, verified and read."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from support import DATA

from synthgen.evaluation.material import FULL, Material
from synthgen.export.run import generate, plan_export
from synthgen.export.splits import generate_splits, plan_splits
from synthgen.formats.base import Batch, Format, Run
from synthgen.formats.table import FORMATS
from synthgen.index import Shard
from synthgen.real_images import load_real_images
from synthgen.sets.manifest import load_manifest, load_manifests
from synthgen.sets.reading import read_set
from synthgen.sets.verification import verify
from synthgen.subject import UNLABELLED


class Plain(Format):
    """A label byte and 784 pixels an image."""

    name = "plain"
    bytes_an_image = 785

    def write(
        self,
        folder: Path,
        shard: Shard,
        split: str,
        batches: Iterator[Batch],
        digest: Callable[[], str],
        *,
        labelled: bool,
    ) -> list[str]:
        name = f"{shard.name(split)}.bin"
        with (folder / name).open("wb") as stream:
            for batch in batches:
                labels = np.full(len(batch), UNLABELLED, np.uint8) if batch.labels is None else batch.labels
                stream.write(np.column_stack([labels, batch.images.reshape(-1, 784)]).tobytes())
        return [name]

    def read(self, folder: Path, names: Sequence[str], count: int) -> Iterator[Run]:
        rows = np.fromfile(folder / names[0], np.uint8).reshape(-1, 785)
        yield rows[:, 1:].reshape(-1, 28, 28), None if (rows[:, 0] == UNLABELLED).all() else rows[:, 0]

    def loader(self, split: str, *, labelled: bool) -> list[str]:
        return ["import numpy", f'rows = numpy.fromfile("{split}-00000-of-00001.bin", "u1").reshape(-1, 785)']


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, Plain.name, Plain())


def test_a_set_is_exported_verified_and_found_out_when_it_is_altered(export, tiny_checkpoint, tmp_path):
    manifest = export(tmp_path / "set", file_format="plain", shards=2)
    assert manifest.digest == export(tmp_path / "npz").digest
    report = verify(tmp_path / "set", regenerate=30, checkpoint=tiny_checkpoint)
    assert report.sound, report.problems
    assert "numpy.fromfile" in (tmp_path / "set/README.md").read_text()
    victim = tmp_path / "set/train-00001-of-00002.bin"
    victim.write_bytes(victim.read_bytes()[:-1] + b"!")
    assert "altered" in verify(tmp_path / "set").problems[0]


def test_an_unlabelled_set_is_exported_and_verified(export, unlabelled_checkpoint, tmp_path):
    export(tmp_path / "set", checkpoint=unlabelled_checkpoint, file_format="plain", count=300)
    assert verify(tmp_path / "set").sound


def test_an_interrupted_export_goes_on(export, tiny_checkpoint, tmp_path):
    def stop(done: int, of: int) -> None:
        raise KeyboardInterrupt

    plan = plan_export(tiny_checkpoint, count=600, file_format="plain", shards=2)
    with pytest.raises(KeyboardInterrupt):
        generate(tiny_checkpoint, plan, tmp_path / "set", allow_unprotected=True, on_shard=stop)
    (first,) = (tmp_path / "set").glob("*.bin")
    kept = first.stat().st_ino
    manifest = export(tmp_path / "set", file_format="plain", shards=2, resume=True)
    assert first.stat().st_ino == kept
    assert manifest.digest == export(tmp_path / "whole").digest
    assert verify(tmp_path / "set").sound


def test_several_splits_stand_in_one_folder(tiny_checkpoint, tmp_path):
    exports = plan_splits(tiny_checkpoint, "train=300,test=50", file_format="plain")
    generate_splits(tiny_checkpoint, exports, tmp_path / "set", allow_unprotected=True)
    assert [manifest.count for manifest in load_manifests(tmp_path / "set")] == [300, 50]
    report = verify(tmp_path / "set")
    assert report.sound, report.problems


def test_a_set_is_read_back_for_evaluation(export, tmp_path):
    train, test = (load_real_images(split, DATA, official=False) for split in ("train", "test"))
    subjects = []
    for name in ("plain", "npz"):
        folder = tmp_path / name
        manifest = export(folder, file_format=name, count=300)
        assert sum(len(batch) for batch in read_set(folder, load_manifest(folder))) == 300
        subjects.append(Material.of(folder, manifest, train, test, FULL, 1, lambda stage, done, of: None))
    np.testing.assert_array_equal(subjects[0].images, subjects[1].images)
    np.testing.assert_array_equal(subjects[0].labels, subjects[1].labels)
