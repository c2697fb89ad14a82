"""Folders and URLs: what they take, what they refuse, what they resume."""

import json

import pytest
from small_exports import request, share, small_job

from synthgen.errors import ExportError
from synthgen.export.outputs import RemoteOutput
from synthgen.export.run import generate, merge
from synthgen.sets.manifest import WORK_FOLDER
from synthgen.sets.verification import verify


@pytest.mark.parametrize("file_format", ["tfrecord", "png"])
def test_a_url_takes_a_set_and_resumes_one(tiny_checkpoint, whole, tmp_path, file_format: str):
    fsspec = pytest.importorskip("fsspec")
    url = f"memory://{tmp_path.name}/{file_format}"
    share(tiny_checkpoint, url, 0, file_format=file_format)
    files = fsspec.filesystem("memory")
    assert not files.exists(f"{url}/manifest.json")
    with pytest.raises(ExportError, match="go on with --resume"):
        generate(tiny_checkpoint, request(tiny_checkpoint, file_format), url, allow_unprotected=True)
    manifest = generate(
        tiny_checkpoint, request(tiny_checkpoint, file_format), url, resume=True, allow_unprotected=True
    )
    assert manifest.digest == whole.digest
    assert not files.exists(f"{url}/{WORK_FOLDER}")
    files.get(url, str(tmp_path / "copy"), recursive=True)
    assert verify(tmp_path / "copy").sound
    with pytest.raises(ExportError, match="holds a finished set"):
        generate(tiny_checkpoint, request(tiny_checkpoint, file_format), url, allow_unprotected=True)


@pytest.mark.parametrize("place", ["folder", "url"])
@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_a_damaged_claim_is_named(small, tmp_path, place: str, content: bytes):
    out = str(tmp_path / "set")
    if place == "url":
        fsspec = pytest.importorskip("fsspec")
        out = f"memory://{tmp_path.name}/set"
        fsspec.filesystem("memory").pipe_file(f"{out}/{WORK_FOLDER}/job.json", content)
    else:
        (tmp_path / "set" / WORK_FOLDER).mkdir(parents=True)
        (tmp_path / "set" / WORK_FOLDER / "job.json").write_bytes(content)
    for act in (lambda: small(out, resume=True), lambda: merge(out)):
        with pytest.raises(ExportError, match=r"job.json: not an export job"):
            act()


def test_a_store_that_fails_in_its_own_words_is_one_line(small, tmp_path, monkeypatch):
    pytest.importorskip("fsspec")
    from fsspec.implementations.memory import MemoryFileSystem

    class StoreError(Exception):
        pass

    def refuse(*_: object, **__: object) -> None:
        raise StoreError("access\ndenied")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuse)
    with pytest.raises(ExportError, match="cannot be written: StoreError: access denied; mend that"):
        small(f"memory://{tmp_path.name}/set")


def test_two_that_claim_a_url_at_once_notice(small, tiny_checkpoint, tmp_path, monkeypatch):
    pytest.importorskip("fsspec")
    job, write = small_job(tiny_checkpoint, "hdf5").to_dict(), RemoteOutput.write

    def written_over(self: RemoteOutput, name: str, data: bytes) -> None:
        write(self, name, json.dumps(job).encode() if name.endswith("job.json") else data)

    monkeypatch.setattr(RemoteOutput, "write", written_over)
    with pytest.raises(ExportError, match=r"another export \(different format\)"):
        small(f"memory://{tmp_path.name}/set")
