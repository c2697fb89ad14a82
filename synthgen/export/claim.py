"""Claims: an output folder belongs to one export, which may be several processes, and may hold nothing else.

The claim is ``.synthgen/job.json``, which says what is being made there. A lock beside it says whether a process is at
work. Both are removed when the set is complete.

The folder may be a stranger's: nothing in it is reached through a link, and nothing that is read is believed.
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from synthgen.errors import ExportError
from synthgen.files import NotOwnError, folder_lock, own_folder, read_own, remove_litter, write_json_once
from synthgen.sets.manifest import LIST_FOLDER, MANIFEST_NAME, WORK_FOLDER, Manifest, load_manifest
from synthgen.sets.records import expect_printable, texts_of
from synthgen.untrusted.text import parse_json

JOB_NAME = "job.json"
MAX_JOB_BYTES = 1 << 20  # 1 MiB; a private statement of 32 mechanisms takes 20 KB


@contextlib.contextmanager
def claim_folder(out: Path, job: dict[str, Any], *, resume: bool, shared: bool = False) -> Iterator[None]:
    """Hold ``out`` for this job: refuse another job's files, and another process at work on it.

    Args:
        out: the output folder; made if need be.
        job: what to make, as JSON-ready values; all of them except ``origin`` decide every image.
        resume: continue the same job.
        shared: hold the folder together with other processes that write shards of the same job; each may continue it.

    Raises:
        ExportError: the folder holds something else or is in use; the message says what to do.
        OSError: it cannot be written, or a link stands in the way.
    """
    resume = resume or shared
    work = out / WORK_FOLDER
    if is_finished(out):
        remove_leftovers(out)
        expect_same_set(str(out), load_manifest(out), job, resume)
        yield
        return
    if out.is_dir() and any(out.iterdir()) and not work.is_dir():
        raise ExportError(f"{out}: is not empty; choose a new folder with --out")
    with _work_folder_lock(out, shared) as held:
        if not held:
            raise ExportError(f"{out}: another export is at work here; wait for it or choose another --out")
        if is_finished(out):  # by another export, between our look and our claim; the work folder is ours
            remove_tree(work)
            expect_same_set(str(out), load_manifest(out), job, resume)
            yield
            return
        if not shared:
            remove_litter(out)
            remove_litter(work)
            if (out / LIST_FOLDER).exists():
                remove_litter(own_folder(out, LIST_FOLDER))
        if os.path.lexists(work / JOB_NAME) or not write_json_once(work / JOB_NAME, job):
            found = read_job(str(out), read_own(work / JOB_NAME, MAX_JOB_BYTES))
            expect_same_job(str(out), found, job, resume)
        yield


@contextlib.contextmanager
def _work_folder_lock(out: Path, shared: bool) -> Iterator[bool]:
    """Hold the lock in the work folder, which is made if need be; yields whether it is held."""
    out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            held = stack.enter_context(folder_lock(own_folder(out, WORK_FOLDER) / "lock", shared=shared))
        except FileNotFoundError:  # removed just now by the export that completed the set
            held = stack.enter_context(folder_lock(own_folder(out, WORK_FOLDER) / "lock", shared=shared))
        yield held


def is_finished(out: Path) -> bool:
    """Whether a set is complete: its manifest is there.

    Raises:
        ExportError: ``out`` is no folder.
        NotOwnError: a link, a pipe or the like stands in the manifest's place.
    """
    try:
        mode = os.lstat(out / MANIFEST_NAME).st_mode
    except FileNotFoundError:
        return False
    except NotADirectoryError as error:
        raise ExportError(
            f"{out}: cannot be written: it is a file or below one; choose a new folder with --out"
        ) from error
    if not stat.S_ISREG(mode):
        raise NotOwnError(f"{out / MANIFEST_NAME}: a link, a pipe or the like; expected the file itself")
    return True


def remove_leftovers(out: Path) -> None:
    """Remove the work folder that an export left in its finished set when it was killed, unless another is at work."""
    work = out / WORK_FOLDER
    if os.path.lexists(work):
        with folder_lock(own_folder(out, WORK_FOLDER) / "lock", shared=False) as held:
            if held:
                remove_tree(work)


def remove_tree(folder: Path) -> None:
    """Remove a folder, as far as that goes; links in it are removed, not followed, and a link itself stays."""
    with contextlib.suppress(OSError, RecursionError):  # a thousand folders deep, it is not ours
        shutil.rmtree(folder, ignore_errors=True)


def read_job(out: str, data: bytes) -> dict[str, Any]:
    """The job that a claim holds, as JSON values without tricks for a terminal.

    Raises:
        ExportError: it is damaged.
    """
    try:
        job = parse_json(data)
        if not isinstance(job, dict):
            raise ValueError("it is no JSON object")
        expect_printable({key: value for key, value in job.items() if key != "origin"}, "it")
        texts_of(job.get("made_with", {}))
    except ValueError as error:
        name = f"{out}/{WORK_FOLDER}/{JOB_NAME}"
        raise ExportError(f"{name}: not an export job: {error}; remove {out} and export anew") from error
    return job


def expect_same_job(out: str, found: dict[str, Any], wanted: dict[str, Any], resume: bool) -> None:
    """Raise ExportError unless the job ``found`` in the work folder is the one ``wanted``, and ``resume`` is set."""
    keys = [key for key in wanted if key != "origin"]  # each machine may have the checkpoint in another place
    different = [key for key in keys if type(found.get(key)) is not type(wanted[key]) or found[key] != wanted[key]]
    if different == ["made_with"]:
        there, here = found.get("made_with", {}), wanted["made_with"]
        changed = [
            f"{k} {there.get(k)} (here {here.get(k)})" for k in {**here, **there} if there.get(k) != here.get(k)
        ][:20]
        raise ExportError(
            f"{out}: this export was begun with {', '.join(changed)}: pixels of a float checkpoint may be "
            "rounded otherwise here; go on with the same software and processor, or choose a new folder with --out"
        )
    if different:
        raise ExportError(
            f"{out}: holds another export (different {', '.join(different)}); choose a new folder with --out"
        )
    if not resume:
        raise ExportError(f"{out}: holds this export unfinished; go on with --resume")


def expect_same_set(out: str, manifest: Manifest, job: dict[str, Any], resume: bool) -> None:
    """Raise ExportError unless the finished set is what ``job`` would make, and ``resume`` is set."""
    found = {
        "checkpoint": manifest.checkpoint.sha256,
        "shards": len(manifest.shards),
        **{k: getattr(manifest, k) for k in ("seed", "labels", "split", "format", "start", "count")},
    }  # but not ``made_with``: nothing is drawn for a finished set
    if any(job[key] != value for key, value in found.items()) or not resume:
        raise ExportError(f"{out}: holds a finished set; choose a new folder with --out")
