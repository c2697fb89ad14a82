"""Claims: one export at a time owns an output folder, and only its own leftovers may lie in it.

The claim is ``.synthgen/job.json``, which says what is being made there; a lock beside it tells whether somebody is at
work right now. Both are gone once the set is complete.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from synthgen.errors import ExportError
from synthgen.files import exclusive_lock, remove_litter, write_json
from synthgen.manifest import MANIFEST_NAME, load_manifest

WORK_FOLDER = ".synthgen"  # holds the claim, finished shards' records and what is being written
_JOB_NAME = "job.json"


@contextlib.contextmanager
def claim_folder(out: Path, job: dict[str, Any], *, resume: bool) -> Iterator[None]:
    """Hold ``out`` for this job: refuse another job's files, and another process at work on it.

    Args:
        out: the output folder; made if need be.
        job: what is to be made, as JSON-ready values that decide every byte.
        resume: take up the same job where it was left.

    Raises:
        ExportError: naming what is in the way and what to do.
    """
    if (out / MANIFEST_NAME).exists():
        _expect_same_set(out, job, resume)
        yield
        return
    work = out / WORK_FOLDER
    if out.is_dir() and not work.is_dir() and any(out.iterdir()):
        raise ExportError(f"{out}: is not empty; choose a new folder with --out")
    work.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(work / "lock") as alone:
        if not alone:
            raise ExportError(f"{out}: another export is at work here; wait for it or choose another --out")
        remove_litter(out)
        remove_litter(work)
        if (work / _JOB_NAME).exists():
            _expect_same_job(out, json.loads((work / _JOB_NAME).read_text("utf-8")), job, resume)
        else:
            write_json(work / _JOB_NAME, job)
        yield


def _expect_same_job(out: Path, found: Any, wanted: dict[str, Any], resume: bool) -> None:
    if found != wanted:
        different = [k for k, v in wanted.items() if not isinstance(found, dict) or found.get(k) != v]
        raise ExportError(
            f"{out}: holds another export (different {', '.join(different)}); choose a new folder with --out"
        )
    if not resume:
        raise ExportError(f"{out}: holds this export unfinished; go on with --resume")


def _expect_same_set(out: Path, job: dict[str, Any], resume: bool) -> None:
    manifest = load_manifest(out)
    found = {
        "checkpoint": manifest.checkpoint.sha256,
        "shards": len(manifest.shards),
        "made_with": job["made_with"],  # a finished set stays finished, wherever it was made
        **{k: getattr(manifest, k) for k in ("seed", "labels", "split", "format", "start", "count")},
    }
    if found != job or not resume:
        raise ExportError(f"{out}: holds a finished set; choose a new folder with --out")
