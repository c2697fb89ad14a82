"""What ``untrusted`` lets through and what it refuses."""

import gzip
import hashlib
import io
import json
import os
import time
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from synthgen.untrusted.archives import open_npz
from synthgen.untrusted.datasets import Rows, open_hdf5, own_dataset, whole
from synthgen.untrusted.files import inflated, open_file, read_file, sha256_of
from synthgen.untrusted.text import parse_json, parse_toml


class TestFiles:
    def test_a_file_is_read_to_its_limit_and_no_further(self, tmp_path):
        (tmp_path / "a").write_bytes(b"12345")
        assert read_file(tmp_path / "a", 5) == b"12345"
        with pytest.raises(ValueError, match="5 bytes; expected at most 4"):
            read_file(tmp_path / "a", 4)

    def test_a_link_is_followed_only_where_the_user_names_it(self, tmp_path):
        (tmp_path / "a").write_bytes(b"x")
        (tmp_path / "b").symlink_to(tmp_path / "a")
        assert read_file(tmp_path / "b", 5, links=True) == b"x"
        with pytest.raises(OSError, match="a link; expected a regular file"):
            read_file(tmp_path / "b", 5)

    @pytest.mark.parametrize("links", [False, True])
    def test_pipes_devices_and_folders_are_refused_at_once(self, tmp_path, links: bool):
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
            with pytest.raises(OSError, match=r"regular file|directory"):
                open_file(path, links=links)
        with pytest.raises(FileNotFoundError):
            open_file(tmp_path / "none", links=links)

    def test_hashes_are_of_as_many_bytes_as_are_expected(self, tmp_path):
        data = os.urandom(3 << 20)
        (tmp_path / "a").write_bytes(data)
        assert sha256_of(tmp_path / "a", len(data)) == hashlib.sha256(data).hexdigest()
        assert sha256_of(tmp_path / "a", len(data) - 1) is None
        assert sha256_of(tmp_path / "a", len(data) + 1) is None

    def test_packed_bytes(self):
        assert inflated(zlib.compress(bytes(100)), 100) == bytes(100)
        assert inflated(gzip.compress(b"x"), 1, gzipped=True) == b"x"
        with pytest.raises(ValueError, match="unpacks to more than 99 bytes"):
            inflated(zlib.compress(bytes(100)), 99)
        for broken in (b"", b"x", zlib.compress(bytes(100))[:-2]):
            with pytest.raises(ValueError, match="damaged"):
                inflated(broken, 100)


class TestText:
    @pytest.mark.parametrize("value", [{"a": [1, 2.5, "é[{", None, True, {}]}, [], "x", 1e300, -(10**30)])
    def test_json_as_written(self, value):
        for ascii_only in (True, False):
            assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value

    def test_a_whole_pair_of_surrogates_is_a_letter(self):
        assert parse_json(b'"\\ud83d\\ude00"') == "\U0001f600"

    @pytest.mark.parametrize(
        "text",
        [
            *(
                b"",
                b"{",
                b"\xff",
                b"NaN",
                b"-Infinity",
                b"1e999",
                b'{"a":1,"a":1}',
                b'"\\udc00"',
                b"[" * 33 + b"]" * 33,
            ),
            *(b"1" * 41, b"0." + b"1" * 40, b'"' + b"x" * (1 << 20) + b'"', b'"\xed\xa0\x80"', b"\xef\xbb\xbf1"),
        ],
    )
    def test_what_is_refused(self, text: bytes):
        with pytest.raises(ValueError):  # noqa: PT011
            parse_json(text)

    def test_brackets_in_texts_do_not_count(self):
        text = json.dumps(["[" * 100, '"[' * 100, "\\"])
        assert parse_json(text.encode()) == json.loads(text)

    def test_values_are_counted_before_they_are_made(self):
        with pytest.raises(ValueError, match="more than 10 values"):
            parse_json(b"[" + b"1," * 10 + b"1]", most_values=10)

    @pytest.mark.parametrize("text", [b'"\\"' + b'\\"' * 500_000, b'"\\' * 1_000_000, b'"' * 2_000_001])
    def test_texts_without_an_end_take_no_square_of_time(self, text: bytes):
        begin = time.process_time()
        with pytest.raises(ValueError):  # noqa: PT011
            parse_json(text)
        assert time.process_time() - begin < 5

    def test_toml(self):
        assert parse_toml('a.b = [1, {c = "x.y"}]') == {"a": {"b": [1, {"c": "x.y"}]}}

    @pytest.mark.parametrize(
        "text", ["a." * 30_000 + "a=1", "a=" + "[" * 9_000, "a=" + "9" * 41, "#" * (1 << 17), "a." * 40 + "a=1", "a"]
    )
    def test_toml_that_is_refused(self, text: str):
        begin = time.process_time()
        with pytest.raises(ValueError):  # noqa: PT011
            parse_toml(text)
        assert time.process_time() - begin < 5


class TestNpz:
    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_arrays_as_numpy_writes_them(self, tmp_path, save):
        arrays = {
            "a": np.arange(6.0).reshape(2, 3),
            "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
            "scalar": np.array(True),
            "none": np.zeros((0, 4), np.float32),
            "big": np.zeros(5_000_000, np.uint8),
        }
        save(tmp_path / "x.npz", **arrays)
        with open_npz(tmp_path / "x.npz") as found:
            assert set(found) == set(arrays)
            for name, array in arrays.items():
                np.testing.assert_array_equal(found[name], array)
                assert found[name].dtype == array.dtype

    @pytest.mark.parametrize("array", [np.array([object()]), np.array(["text"]), np.zeros(2, [("a", "u1")])])
    def test_other_than_numbers_is_refused(self, tmp_path, array):
        np.savez(tmp_path / "x.npz", a=array)
        with open_npz(tmp_path / "x.npz") as found, pytest.raises(ValueError, match="no plain array of numbers"):
            _ = found["a"]

    def test_a_header_that_claims_more_than_there_is(self, tmp_path):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 24,)})
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
            archive.writestr("a.npy", header.getvalue())
        with open_npz(tmp_path / "x.npz") as found, pytest.raises(ValueError, match="not what it holds"):
            _ = found["a"]

    def test_a_table_of_contents_without_end(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
            for i in range(9_000):
                archive.writestr(f"{i:080d}.npy", b"")
        with pytest.raises(ValueError, match="table of contents"), open_npz(tmp_path / "x.npz"):
            pass


class TestHDF5:
    @pytest.mark.parametrize("options", [{}, {"chunks": (3, 5)}, {"chunks": (3, 5), "compression": "gzip"}])
    def test_rows_as_h5py_writes_them(self, tmp_path, options: dict[str, object]):
        array = np.arange(50, dtype="<f4").reshape(10, 5)
        with h5py.File(tmp_path / "x", "w") as file:
            file.create_dataset("a", data=array, **options)
        with open_hdf5(tmp_path / "x") as file:
            dataset = own_dataset(file, "a")
            np.testing.assert_array_equal(whole(dataset), array)
            rows = Rows(dataset)
            np.testing.assert_array_equal(np.concatenate([rows.take(4), rows.take(0), rows.take(6)]), array)
            with pytest.raises(ValueError, match="10 rows, not more"):
                rows.take(1)

    @pytest.mark.parametrize(
        "options",
        [
            {"chunks": (3, 5), "compression": "lzf"},
            {"chunks": (3, 5), "shuffle": True},
            {"chunks": (3, 5), "fletcher32": True},
            {"chunks": (3, 2)},
        ],
    )
    def test_other_chunks_are_refused(self, tmp_path, options: dict[str, object]):
        with h5py.File(tmp_path / "x", "w") as file:
            file.create_dataset("a", data=np.zeros((10, 5)), **options)
        with open_hdf5(tmp_path / "x") as file, pytest.raises(ValueError, match="expected whole rows"):
            own_dataset(file, "a")

    def test_no_place_is_left_where_the_library_would_look_for_code(self, tmp_path):
        with h5py.File(tmp_path / "x", "w"):
            pass
        h5py.h5pl.prepend(os.fsencode(tmp_path))
        with open_hdf5(tmp_path / "x"):
            assert h5py.h5pl.size() == 0
