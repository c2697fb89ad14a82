"""Doctor: does synthgen work on this machine? One line per check, to read or to paste into a bug report."""

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from synthgen.environment import import_tensorflow, made_with
from synthgen.errors import SynthgenError
from synthgen.export.run import generate, plan_export
from synthgen.formats.writers import check_format
from synthgen.index import BLOCK_IMAGES, ShardPlan, default_shards
from synthgen.model.checkpoint import DEFAULT_CHECKPOINT, builtin_checkpoints, load_checkpoint
from synthgen.real_images import find_data, load_real_images
from synthgen.sets.verification import verify
from synthgen.workers import available_cpus

OK, NOTE, PROBLEM = "ok", "note", "problem"
_ROUND_TRIP_IMAGES = BLOCK_IMAGES
# Bytes per image on the disk, measured on 60,000 and rounded up; a PNG fills a block of the file system.
_BYTES_AN_IMAGE = {"tfrecord": 750, "hdf5": 500, "png": 4_300, "idx": 500, "idx-raw": 800, "npz": 500}


@dataclass(frozen=True, kw_only=True)
class Check:
    """What one check found.

    Attributes:
        name: what was checked.
        state: ``ok``, ``note`` (it works, but is worth knowing) or ``problem``.
        finding: one line.
    """

    name: str
    state: str
    finding: str


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What ``diagnose`` found, in the order of its checks."""

    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """Whether no check found a problem."""
        return not any(check.state == PROBLEM for check in self.checks)

    def __str__(self) -> str:
        width = max(len(check.name) for check in self.checks)
        return "\n".join(f"{check.state:<9}{check.name:<{width + 2}}{check.finding}" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """The findings as JSON-ready values."""
        return {"healthy": self.healthy, "checks": [asdict(check) for check in self.checks]}


def diagnose(
    *,
    checkpoint: str | None = None,
    data: Path | None = None,
    out: Path = Path("dataset"),
    count: int = 60_000,
    file_format: str = "tfrecord",
) -> Diagnosis:
    """Check everything that an export of ``count`` images needs, and export, verify and redraw 256 of them.

    Nothing is downloaded, and nothing is left behind: the trial set is made in the system's temporary folder.

    Args:
        checkpoint: a built-in name or a folder; by default the shipped one.
        data: where the real images should be; by default the usual places.
        out: where the set would go.
        count: how many images it would hold.
        file_format: a key of ``WRITERS``.

    Raises:
        UsageError: ``count`` or ``file_format`` is invalid on any machine.
    """
    check_format(file_format)
    ShardPlan(start=0, count=count, shards=default_shards(count))  # refuses what no folder could hold
    name = checkpoint or DEFAULT_CHECKPOINT
    names = [name, *(other for other in builtin_checkpoints() if other != name)]
    checks = [
        *_environment(),
        _checked("real images", lambda: _data_finding(data), otherwise=NOTE, cure="; only training needs them"),
        *(_checked("checkpoint", partial(_checkpoint_finding, name)) for name in names),
        _checked("TensorFlow", _tensorflow_finding, otherwise=NOTE, cure="; only training and evaluation need it"),
        _checked(f"disk for {count:,} images", lambda: _disk_finding(out, count, file_format)),
        _checked("round trip", lambda: _round_trip_finding(name, file_format)),
    ]
    return Diagnosis(checks=tuple(checks))


def _environment() -> Iterator[Check]:
    for name, value in made_with().items():
        yield Check(name=name, state=NOTE if value == "unknown" else OK, finding=value)
    yield Check(name="platform", state=OK, finding=platform.platform())
    yield Check(name="cores", state=OK, finding=f"{available_cpus()} usable of {os.cpu_count()}")
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        yield Check(name="memory", state=OK, finding=_size(memory))


def _checked(name: str, find: Callable[[], str], otherwise: str = PROBLEM, cure: str = "") -> Check:
    """Run one check; an error in it is its finding."""
    try:
        return Check(name=name, state=OK, finding=find())
    except Exception as error:  # broken libraries may raise anything, and this is the place to report it
        kind = "" if isinstance(error, SynthgenError | OSError) else f"{type(error).__name__}: "
        return Check(name=name, state=otherwise, finding=kind + " ".join(str(error).split()) + cure)


def _data_finding(folder: Path | None) -> str:
    found = find_data(folder, download=False)
    sizes = [f"{split} {len(load_real_images(split, found)):,}" for split in ("train", "test")]
    return f"official, {', '.join(sizes)}, in {found}"


def _checkpoint_finding(name: str) -> str:
    checkpoint = load_checkpoint(name)
    return f"{checkpoint.name} {checkpoint.sha256}, guarantee: {checkpoint.privacy.guarantee}"


def _tensorflow_finding() -> str:
    began = time.monotonic()
    import_tensorflow()
    import tensorflow as tf

    return f"started in {time.monotonic() - began:.1f} s, GPUs: {len(tf.config.list_physical_devices('GPU'))}"


def _disk_finding(out: Path, count: int, file_format: str) -> str:
    place = next(parent for parent in (out.absolute(), *out.absolute().parents) if parent.exists())
    if not os.access(place, os.W_OK) or not place.is_dir():
        raise OSError(f"{place}: cannot be written to; choose another --out")
    free, needed = shutil.disk_usage(place).free, count * _BYTES_AN_IMAGE[file_format]
    if free < needed:
        raise OSError(f"{_size(free)} free in {place}, about {_size(needed)} needed as {file_format}; make room")
    return f"about {_size(needed)} needed as {file_format}, {_size(free)} free"


def _round_trip_finding(name: str, file_format: str) -> str:
    """Draw, write, hash, read back and redraw 256 images."""
    began = time.monotonic()
    checkpoint = load_checkpoint(name)
    with tempfile.TemporaryDirectory(prefix="synthgen-doctor-") as folder:
        out = Path(folder) / "set"
        wanted = plan_export(checkpoint, count=_ROUND_TRIP_IMAGES, file_format=file_format)
        manifest = generate(checkpoint, wanted, out, allow_unprotected=True)  # it never leaves the temporary folder
        report = verify(out, regenerate=_ROUND_TRIP_IMAGES, checkpoint=checkpoint)
    if not report.sound:
        raise OSError(f"a set of {_ROUND_TRIP_IMAGES} images failed its verification: {report.problems[0]}")
    seconds = time.monotonic() - began
    return f"{manifest.count} images as {file_format}, digest {manifest.digest[:16]}, {seconds:.1f} s"


def _size(number: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"
