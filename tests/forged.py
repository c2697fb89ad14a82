"""Sets and checkpoints that a forger has altered and sealed anew, and the command line under a ceiling of memory."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from synthgen.files import sha256_of_bytes
from synthgen.sets.manifest import sealed

GOLDEN = Path(__file__).parent / "golden" / "0.2.0"  # float32 weights
CEILING = 1 << 30  # bytes of address space for a child


def golden_copy(kind: str, folder: Path, release: str = GOLDEN.name) -> Path:
    """A sound set (``hdf5``, ``npz``, ``tfrecord``) or the checkpoint (``checkpoint``) of a release."""
    return shutil.copytree(GOLDEN.parent / release / kind, folder)


def first_shard_file(folder: Path) -> Path:
    """The file of the first shard."""
    return folder / json.loads((folder / "manifest.json").read_text())["shards"][0]["files"][0]["name"]


def seal(folder: Path, **changes: object) -> None:
    """Seal the manifest anew: with the size and hash that the first shard's file now has, and other ``changes``."""
    path = folder / "manifest.json"
    document = json.loads(path.read_text()) | changes
    record = document["shards"][0]["files"][0]
    file = folder / record["name"]
    if file.stat().st_size < 1 << 30 and "shards" not in changes:
        record.update(bytes=file.stat().st_size, sha256=sha256_of_bytes(file.read_bytes()))
    path.write_text(json.dumps(sealed(document)))


def synthgen(*arguments: str | Path, timeout: int = 60) -> subprocess.CompletedProcess[str]:
    """Run a command in a process that may not take more than 1 GiB of address space."""
    code = (
        "import resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({CEILING}, {CEILING}))\n"
        "from synthgen.__main__ import main\n"
        "main()\n"
    )
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    root = str(Path(__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, **threads, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def expect_one_line(done: subprocess.CompletedProcess[str], said: str) -> None:
    """A refusal: exit code 1 or 2, and one line that holds ``said``."""
    assert done.returncode in (1, 2), done
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.split("\n") if line.strip() and "image/s" not in line]
    assert len(lines) == 1, done.stderr
    assert said in lines[0]
