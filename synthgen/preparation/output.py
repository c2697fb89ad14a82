"""The folder that ``prepare`` writes: complete where ``data.json`` is, else to be written anew.

Images are written nowhere but below that folder. A run that is killed leaves files there that the next one removes.
"""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from synthgen.errors import DataError, UsageError
from synthgen.files import exclusive_lock, json_bytes, move_into_place
from synthgen.formats.base import Batch
from synthgen.formats.idx import IDX
from synthgen.index import BLOCK_IMAGES, Shard, pieces
from synthgen.preparation.conversion import Converted
from synthgen.preparation.record import DATA_JSON, SHEET_NAME, SPLITS, Preparation, idx_names
from synthgen.preparation.sheet import save_sheet

_WORK_NAME, _LOCK_NAME = ".prepare.partial", ".prepare.lock"
_NAMES = [*(f"{name}.gz" for split in SPLITS for name in idx_names(split)), SHEET_NAME]


def expect_free(out: Path, sources: list[Path]) -> None:
    """Check that images can be written to ``out``.

    Raises:
        UsageError: it is, or lies in, one of ``sources``, or holds anything but what an interrupted run left.
    """
    place = out.resolve()
    for source in sources:
        if source.resolve() in (place, *place.parents):
            raise UsageError(f"{out}: lies in {source}, which is read; choose another folder with --out")
    if out.is_dir():
        found = {path.name for path in out.iterdir()}
        if not found <= {*_NAMES, _WORK_NAME, _LOCK_NAME}:
            raise UsageError(f"{out}: is not empty; choose a new folder with --out")
    elif out.exists() or out.is_symlink():
        raise UsageError(f"{out}: is no folder; choose a new one with --out")


def write_prepared(out: Path, splits: Mapping[str, Converted], preparation: Preparation) -> None:
    """Write the IDX files, the contact sheet and, last, ``data.json``; on any error nothing of them is left.

    Raises:
        DataError: the disk is full, or ``out`` cannot be written or is in use.
    """
    try:
        with _claimed(out) as work:
            for split, converted in splits.items():
                shard = Shard(index=0, of=1, start=0, count=len(converted))
                IDX().write(work, shard, split, _batches(converted), lambda: "", labelled=True)
            save_sheet(work / SHEET_NAME, splits["train"], preparation.subject.class_names)
            (work / DATA_JSON).write_bytes(json_bytes(preparation.to_dict()))
            for name in [*_NAMES, DATA_JSON]:
                if (work / name).exists():
                    move_into_place(work / name, out / name)
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror or error}; nothing is left there") from error


@contextlib.contextmanager
def _claimed(out: Path) -> Iterator[Path]:
    """Hold ``out`` and yield a work folder in it; on an error all that was written is removed."""
    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with exclusive_lock(out / _LOCK_NAME) as held:
            if not held:
                new = False
                raise DataError(f"{out}: another synthgen prepare is at work here; wait for it")
            try:
                _remove(out, *_NAMES)
                (out / _WORK_NAME).mkdir()
                yield out / _WORK_NAME
            except BaseException:
                _remove(out, DATA_JSON, *_NAMES)
                raise
            finally:
                _remove(out)
                with contextlib.suppress(OSError):  # Windows keeps what is open; the next run takes the lock again
                    (out / _LOCK_NAME).unlink()
    finally:
        if new:
            with contextlib.suppress(OSError):  # something of it is there
                out.rmdir()


def _remove(out: Path, *names: str) -> None:
    """Remove the work folder, and files."""
    shutil.rmtree(out / _WORK_NAME, ignore_errors=True)
    for name in names:
        (out / name).unlink(missing_ok=True)


def _batches(converted: Converted) -> Iterator[Batch]:
    for piece in pieces(len(converted), BLOCK_IMAGES):
        yield Batch(start=piece.start, images=converted.images[piece], labels=converted.labels[piece])
