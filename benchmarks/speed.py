"""How fast is it? Whole processes, as a user starts them: export in every format, verification, start-up."""

import hashlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COUNT = 60_000


def seconds(*arguments: object) -> float:
    """Run the command line once; its wall time."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "synthgen", *map(str, arguments)], check=True, capture_output=True)
    return time.monotonic() - began


def main() -> None:
    """Print one line a measurement."""
    for command in ("--help", "recipes"):
        print(f"synthgen {command}: {min(seconds(command) for _ in range(3)):.2f} s")
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("tfrecord", "hdf5", "npz", "idx", "png"):
            out = Path(scratch) / name
            export = seconds("export", "--count", COUNT, "--format", name, "--out", out)
            verify = seconds("verify", out)
            files = [path for path in out.rglob("*") if path.is_file()]
            size = sum(path.stat().st_size for path in files) / 1e6
            began = time.monotonic()
            for path in files:
                hashlib.sha256(path.read_bytes()).digest()
            bare = time.monotonic() - began
            print(
                f"{name}: export {COUNT:,} images in {export:.1f} s ({COUNT / export:,.0f} a second), {size:.1f} MB; "
                f"verify {verify:.1f} s (SHA-256 alone {bare:.1f} s)",
                flush=True,
            )


if __name__ == "__main__":
    main()
