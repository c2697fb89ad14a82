"""Disks that fail at any write: one line that names the folder asked for, and a resume that completes the set."""

import errno
import os
from pathlib import Path

import pytest
from kill_exports import cheap_pixels
from small_exports import small_job

from synthgen.errors import ExportError
from synthgen.export.run import generate, generate_share, merge
from synthgen.export.splits import generate_splits, plan_splits
from synthgen.sets.verification import verify


@pytest.fixture
def acts(tiny_checkpoint, monkeypatch):
    """Every way to write a set: a function of the folder and whether to resume."""
    monkeypatch.setattr("synthgen.model.sampling.loaded_generator", cheap_pixels)

    def whole(out: Path, resume: bool) -> None:
        plan = small_job(tiny_checkpoint, "png").export
        generate(tiny_checkpoint, plan, out, resume=resume, allow_unprotected=True)

    def splits(out: Path, resume: bool) -> None:
        exports = plan_splits(tiny_checkpoint, "train=20,test=10", file_format="tfrecord")
        generate_splits(tiny_checkpoint, exports, out, resume=resume, allow_unprotected=True)

    def shares(out: Path, resume: bool) -> None:
        export = small_job(tiny_checkpoint, "hdf5").export
        generate_share(tiny_checkpoint, export, out, share=0, of=1, allow_unprotected=True)
        merge(out)

    return {"whole": whole, "splits": splits, "shares": shares}


WRITES = (
    "os.open",
    "os.mkdir",
    "os.replace",
    "os.rename",
    "os.link",
    "os.fsync",
    "tempfile.mkstemp",
    "tempfile.mkdtemp",
)


def _fail_at(monkeypatch, number: int, error: int) -> list[str]:
    """Let the ``number``-th change of the file system, and all after it, fail; returns what was called."""
    called: list[str] = []

    def failing(name: str, function):
        def call(*arguments, **options):
            if name == "os.open" and not arguments[1] & (os.O_CREAT | os.O_TRUNC):
                return function(*arguments, **options)  # reading goes on
            called.append(name)
            if len(called) >= number:
                raise OSError(error, os.strerror(error), str(arguments[0]) if arguments else None)
            return function(*arguments, **options)

        return call

    for path in WRITES:
        module, _, name = path.partition(".")
        function = getattr(__import__(module), name)
        monkeypatch.setattr(path, failing(path, function))
    return called


@pytest.mark.parametrize("kind", ["whole", "splits", "shares"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("moments", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_whichever_write_fails_it_is_one_line_that_names_out(
    acts, tmp_path, monkeypatch, kind: str, error: int, moments: int
):
    with monkeypatch.context() as patch:
        called = _fail_at(patch, 10**9, error)
        acts[kind](tmp_path / "whole", False)
    for number in sorted({1 + len(called) * moment // moments for moment in range(moments)}):
        out = tmp_path / f"set-{number}"
        with monkeypatch.context() as patch:
            _fail_at(patch, number, error)
            try:
                acts[kind](out, False)
            except ExportError as refusal:
                message = str(refusal)
                assert message.startswith(f"{out}: cannot be written: {os.strerror(error)}"), message
                assert ".synthgen" not in message
                assert "\n" not in message
        acts[kind](out, True)
        assert verify(out).sound
