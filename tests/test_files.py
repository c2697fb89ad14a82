import hashlib
import json

import pytest

from synthgen.files import exclusive_lock, flush_all, is_inside, publish, sha256_of_file, sha256_of_json, write_json


def test_a_published_file_appears_whole(tmp_path):
    with publish(tmp_path / "file") as partial:
        partial.write_text("whole")
        assert not (tmp_path / "file").exists()
    assert (tmp_path / "file").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failure_leaves_the_old_content_and_no_litter(tmp_path):
    (tmp_path / "file").write_text("old")

    def fail_halfway() -> None:
        with publish(tmp_path / "file") as partial:
            partial.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert (tmp_path / "file").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_json_hashes_do_not_depend_on_the_order_of_keys():
    assert sha256_of_json({"a": 1, "b": [2, 3]}) == sha256_of_json(json.loads('{"b": [2, 3], "a": 1}'))
    assert sha256_of_json({"a": 1}) != sha256_of_json({"a": 1.5})


def test_sha256_of_a_file_larger_than_a_read(tmp_path):
    (tmp_path / "file").write_bytes(data := bytes(range(256)) * 8192)
    assert sha256_of_file(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_only_one_holds_a_lock(tmp_path):
    with exclusive_lock(tmp_path / "lock") as first, exclusive_lock(tmp_path / "lock") as second:
        assert (first, second) == (True, False)
    with exclusive_lock(tmp_path / "lock") as again:
        assert again


@pytest.mark.parametrize("count", [1, 20])
def test_many_files_can_be_flushed(tmp_path, count: int):
    paths = [tmp_path / str(i) for i in range(count)]
    for path in paths:
        path.write_text("x")
    flush_all(paths)


@pytest.mark.parametrize("name", ["a", "a/b.png", "train/0_t-shirt-top/1.png", "..a"])
def test_names_inside(name: str):
    assert is_inside(name)


@pytest.mark.parametrize("name", ["", "/a", "../a", "a/../b", "a//b", "./a", "a\\b", "C:/a", "a\0"])
def test_names_that_leave_a_folder(name: str):
    assert not is_inside(name)
