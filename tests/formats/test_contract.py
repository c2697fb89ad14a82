"""What holds of every format: what is written is read back by its own reader, and nothing else passes for it."""

import numpy as np
import pytest

from synthgen.errors import VerificationError
from synthgen.files import sha256_of_file
from synthgen.formats.table import FORMATS
from synthgen.index import ShardPlan

pytestmark = pytest.mark.parametrize("name", FORMATS)
COUNT = 600


@pytest.fixture
def write(random_batches, tmp_path):
    """Write a shard of 600 random images, the second of two where the format can be cut: its names and batches."""

    def write_shard(name: str, labelled: bool = True):
        cut = 1 if FORMATS[name].one_file else 2
        shard = ShardPlan(start=0, count=cut * COUNT // 256 * 256, shards=cut)[cut - 1]
        batches = list(random_batches(shard.start, shard.count, labelled))
        names = FORMATS[name].write(tmp_path, shard, "test", iter(batches), lambda: "0" * 64, labelled=labelled)
        return names, batches, shard

    return write_shard


@pytest.mark.parametrize("labelled", [True, False])
def test_what_is_written_is_read_back(write, tmp_path, name: str, labelled: bool):
    names, batches, shard = write(name, labelled)
    runs = list(FORMATS[name].read_shard(tmp_path, names, shard.count))
    wanted = [np.concatenate([batch.images for batch in batches])]
    found = [np.concatenate([images for images, _ in runs])]
    if labelled:
        wanted.append(np.concatenate([batch.labels for batch in batches]))
        found.append(np.concatenate([labels for _, labels in runs]))
    else:
        assert all(labels is None for _, labels in runs)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == np.uint8
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("labelled", [True, False])
def test_every_file_and_folder_is_accounted_for(write, tmp_path, name: str, labelled: bool):
    names, _, shard = write(name, labelled)
    listed = FORMATS[name].listed(tmp_path, names, shard.count)
    assert all(sha256_of_file(tmp_path / file) == digest for digest, file in listed)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {*names, *(file for _, file in listed)}
    assert len(listed) == (shard.count if FORMATS[name].file_an_image else 0)
    assert all((tmp_path / folder).is_dir() for folder in FORMATS[name].folders("test", labelled=labelled))


def test_the_digest_is_asked_for_when_all_images_are_taken(random_batches, tmp_path, name: str):
    left = list(random_batches(0, COUNT, True))
    shard = ShardPlan(start=0, count=COUNT, shards=1)[0]

    def take():
        while left:
            yield left.pop(0)

    def digest() -> str:
        assert not left
        return "0" * 64

    FORMATS[name].write(tmp_path, shard, "train", take(), digest, labelled=True)


@pytest.mark.parametrize("difference", [1, -1])
def test_another_count_is_refused(write, tmp_path, name: str, difference: int):
    names, _, shard = write(name)
    with pytest.raises(VerificationError):
        list(FORMATS[name].read_shard(tmp_path, names, shard.count + difference))


def test_a_missing_and_an_empty_file_are_refused(write, tmp_path, name: str):
    names, _, shard = write(name)
    for file in names:
        whole = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(b"")
        with pytest.raises(VerificationError):
            list(FORMATS[name].read_shard(tmp_path, names, shard.count))
        (tmp_path / file).unlink()
        with pytest.raises(VerificationError, match="missing"):
            list(FORMATS[name].read_shard(tmp_path, names, shard.count))
        (tmp_path / file).write_bytes(whole)
    list(FORMATS[name].read_shard(tmp_path, names, shard.count))
