"""Claims: an output folder belongs to one export, which may be several processes, and may hold nothing else.

The claim is ``.synthgen/job.json``, which says what is being made there. A lock beside it says whether a process is at
work. Both are removed when the set is complete.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from synthgen.errors import ExportError
from synthgen.files import folder_lock, remove_litter, write_json_once
from synthgen.sets.manifest import LIST_FOLDER, MANIFEST_NAME, WORK_FOLDER, Manifest, load_manifest

JOB_NAME = "job.json"


@contextlib.contextmanager
def claim_folder(out: Path, job: dict[str, Any], *, resume: bool, shared: bool = False) -> Iterator[None]:
    """Hold ``out`` for this job: refuse another job's files, and another process at work on it.

    Args:
        out: the output folder; made if need be.
        job: what to make, as JSON-ready values; all of them except ``origin`` decide every byte.
        resume: continue the same job.
        shared: hold the folder together with other processes that write shards of the same job; each may continue it.

    Raises:
        ExportError: the folder holds something else or is in use; the message says what to do.
    """
    resume = resume or shared
    if (out / MANIFEST_NAME).exists():
        expect_same_set(str(out), load_manifest(out), job, resume)
        yield
        return
    work = out / WORK_FOLDER
    if out.is_dir() and any(out.iterdir()) and not work.is_dir():
        raise ExportError(f"{out}: is not empty; choose a new folder with --out")
    work.mkdir(parents=True, exist_ok=True)
    with folder_lock(work / "lock", shared=shared) as held:
        if not held:
            raise ExportError(f"{out}: another export is at work here; wait for it or choose another --out")
        if not shared:
            remove_litter(out)
            remove_litter(work)
            remove_litter(out / LIST_FOLDER)
        if (work / JOB_NAME).exists() or not write_json_once(work / JOB_NAME, job):
            expect_same_job(str(out), read_job(str(out), (work / JOB_NAME).read_bytes()), job, resume)
        yield


def read_job(out: str, data: bytes) -> dict[str, Any]:
    """The job that a claim holds, as JSON values.

    Raises:
        ExportError: it is damaged.
    """
    try:
        job = json.loads(data)
        if not isinstance(job, dict):
            raise ValueError("it is no JSON object")
    except (ValueError, RecursionError) as error:
        name = f"{out}/{WORK_FOLDER}/{JOB_NAME}"
        raise ExportError(f"{name}: not an export job: {error}; remove {out} and export anew") from error
    return job


def expect_same_job(out: str, found: dict[str, Any], wanted: dict[str, Any], resume: bool) -> None:
    """Raise ExportError unless the job ``found`` in the work folder is the one ``wanted``, and ``resume`` is set."""
    keys = [key for key in wanted if key != "origin"]  # each machine may have the checkpoint in another place
    different = [key for key in keys if found.get(key) != wanted[key]]
    if different == ["made_with"]:
        made, here = found.get("made_with"), wanted["made_with"]
        there = made if isinstance(made, dict) else {}
        changed = [f"{k} {there.get(k)} (here {here.get(k)})" for k in {**here, **there} if there.get(k) != here.get(k)]
        raise ExportError(
            f"{out}: this export was begun with {', '.join(changed)}: pixels may be rounded otherwise here; go on with "
            "the same software and processor, or choose a new folder with --out"
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
