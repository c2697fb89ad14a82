"""Kill exports at seeded moments, resume them, compare all files with those of the unbroken set.

Run by tests/export/test_kills.py.

    python kill_exports.py FOLDER CHECKPOINT FORMAT ATTEMPTS SEED

A process of its own, because it forks: each attempt is a child that dies by SIGKILL just before its n-th operation on
the file system, or in the middle of whatever it does after so many milliseconds. The pixels are made by numpy from the
very latents the generator would be given: what is tried here is the writing.
"""

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import synthgen.model.sampling
from synthgen.errors import ExportError
from synthgen.export.run import generate, plan_export
from synthgen.model.checkpoint import load_checkpoint
from synthgen.sets.manifest import WORK_FOLDER

COUNT = 600  # three blocks
REFUSED = 3


def cheap_pixels(checkpoint: object, backend: str) -> Callable[..., np.ndarray]:
    def draw(noise: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        stream = np.random.default_rng(noise[0].view(np.uint8))  # random bytes: no compressor makes them fit a disk
        return stream.integers(256, size=(len(noise), 28, 28), dtype=np.uint8)

    return draw


def child(act: Callable[[], None]) -> int:
    """Fork; the child runs ``act`` and leaves at once."""
    pid = os.fork()
    if pid:
        return pid
    try:
        act()
    except ExportError as error:
        print(f"refused: {error}", file=sys.stderr)
        os._exit(REFUSED)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        os._exit(1)
    os._exit(0)


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def count_operations(limit: int | None, write: Callable[[int], None]) -> None:
    """Count what this process does to the file system from now on; die at the ``limit``-th."""
    done = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal done
        if event == "open" or event.startswith(("os.", "shutil.", "tempfile.")):
            done += 1
            if limit is not None and done >= limit:
                os.kill(os.getpid(), signal.SIGKILL)
            write(done)

    sys.addaudithook(hook)


def content(folder: Path) -> dict[str, bytes]:
    """Every file that bears a final name."""
    if not folder.is_dir():  # killed before it was made
        return {}
    tops = [path for path in folder.iterdir() if path.name != WORK_FOLDER and path.suffix != ".partial"]
    files = [file for top in tops for file in ([top] if top.is_file() else top.rglob("*")) if file.is_file()]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def main() -> None:
    root, checkpoint_path, file_format, attempts, seed = sys.argv[1:]
    synthgen.model.sampling.loaded_generator = cheap_pixels  # type: ignore[assignment]
    os.sync = lambda: None  # a kill loses nothing that was written; only a power cut would
    checkpoint = load_checkpoint(checkpoint_path)
    shards = 1 if file_format.startswith("idx") else 3
    plan = plan_export(checkpoint, count=COUNT, file_format=file_format, shards=shards)
    randomly = random.Random(int(seed))

    def export(out: Path, resume: bool) -> None:
        generate(checkpoint, plan, out, resume=resume, allow_unprotected=True)

    def counted() -> None:
        with (Path(root) / "operations").open("w") as stream:
            count_operations(None, lambda n: os.pwrite(stream.fileno(), b"%08d" % n, 0))
            export(Path(root) / "whole", False)

    began = time.monotonic()
    assert ended(child(counted)) == 0
    seconds = time.monotonic() - began
    operations = int((Path(root) / "operations").read_text())
    whole = content(Path(root) / "whole")

    killed = 0
    for attempt in range(int(attempts)):
        out = Path(root) / f"killed-{attempt}"
        at = randomly.randint(1, operations)
        after = randomly.uniform(0, seconds)

        def doomed(out: Path = out, limit: int | None = at if attempt % 2 else None) -> None:
            if limit is not None:
                count_operations(limit, lambda n: None)
            export(out, False)

        pid = child(doomed)
        if attempt % 2 == 0:
            time.sleep(after)
            os.kill(pid, signal.SIGKILL)
        killed += ended(pid) == -signal.SIGKILL
        where = f"{file_format}, attempt {attempt}, operation {at} of {operations}, {after:.3f} s"
        for name, data in content(out).items():
            assert data == whole.get(name), f"{where}: {name} bears a final name and is not whole"
        assert ended(child(lambda out=out: export(out, True))) == 0, f"{where}: cannot be resumed"
        assert content(out) == whole, f"{where}: resumed, it is another set"
        assert not (out / WORK_FOLDER).exists(), f"{where}: scratch is left"
        shutil.rmtree(out)

    out = Path(root) / "race"
    endings = sorted(ended(pid) for pid in [child(lambda: export(out, False)) for _ in range(2)])
    assert endings == [0, REFUSED], f"{file_format}: two exports into one folder ended with {endings}"
    assert content(out) == whole, f"{file_format}: two exports into one folder spoilt it"
    print(f"{file_format}: {killed} of {attempts} killed, all resumed")


if __name__ == "__main__":
    main()
