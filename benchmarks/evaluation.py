"""Is the yardstick sound, and how long does it take? ``synthgen evaluate`` as a whole process, as a user starts it.

    python benchmarks/evaluation.py                  quick and full, on 60,000 real training images written as a set,
                                                     and on as many images of the shipped checkpoint
    python benchmarks/evaluation.py --set DIR        on a set already exported
    python benchmarks/evaluation.py --quick          the quick evaluation alone

Reports (HTML) and numbers (JSON) are written to ``bench-results``.

The real training images, judged by the very command that judges synthetic ones, must reach what real images reach
(91.5 to 93 % for the CNN), and must be found out as copies.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import synthgen
from synthgen.model.checkpoint import Checkpoint

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support import write_as_set

QUICK_LIMIT_S, FULL_LIMIT_S, MEMORY_LIMIT_GB = 90, 360, 3


def stand_in(scratch: Path) -> Checkpoint:
    """An untrained generator, for the real images' set to name as its origin."""
    from synthgen.model.checkpoint import save_checkpoint
    from synthgen.model.networks import build_generator
    from synthgen.privacy.statement import no_guarantee

    recipe = synthgen.load_recipe("smoke")
    origin = no_guarantee("60,000 images of the public Fashion-MNIST, training split")  # and is these very images
    return save_checkpoint(scratch / "real-images", build_generator(recipe), recipe, origin, {})


def shipped_set(scratch: Path) -> Path:
    """60,000 images of the shipped checkpoint."""
    checkpoint = synthgen.load_checkpoint()
    plan = synthgen.plan_export(checkpoint, count=60_000, file_format="tfrecord")
    synthgen.generate(checkpoint, plan, scratch / "shipped")
    return scratch / "shipped"


def real_set(scratch: Path) -> Path:
    """The real training images as a set."""
    real = synthgen.load_real_images("train")
    write_as_set(stand_in(scratch), scratch / "real", real.images, real.labels)
    return scratch / "real"


def measure(folder: Path, numbers: Path, *options: str) -> tuple[dict, float, float]:
    """Run the command once: its numbers, its seconds, its peak memory in GB."""
    report = numbers.with_suffix(".html")
    command = [sys.executable, "-m", "synthgen", "evaluate", folder, "--json", numbers, "--report", report, *options]
    code = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], capture_output=True, text=True);"
        "sys.stderr.write(done.stderr); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss);"
        "sys.exit(done.returncode)"
    )
    began = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, command)], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(numbers.read_text()), time.monotonic() - began, int(run.stdout) * 1024 / 1e9


def main() -> None:
    """Print one line a measurement, and beside it the limit it must keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("bench-results"), help="where reports are written")
    options = parser.parse_args()

    options.out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folders = [options.set] if options.set else [real_set(scratch), shipped_set(scratch)]
        for folder in folders:
            for kind, limit in [("quick", QUICK_LIMIT_S), ("full", FULL_LIMIT_S)][: 1 if options.quick else 2]:
                arguments = ["--quick"] if kind == "quick" else []
                numbers, *cost = measure(folder, options.out / f"{folder.name}-{kind}.json", *arguments)
                print(line(f"{folder.name}, {kind}", numbers, *cost, limit), flush=True)


def line(title: str, numbers: dict, seconds: float, memory: float, limit: float) -> str:
    """What was measured, in one line."""
    accuracies = ", ".join(
        f"{u['classifier']} {100 * u['synthetic']['mean']:.2f} % (ceiling {100 * u['real']['mean']:.2f} %)"
        for u in numbers["utility"]
    )
    fidelity, copies = numbers["fidelity"]["synthetic"], numbers["memorisation"]["synthetic"]["exact_copies"]
    return (
        f"evaluate {title}, {numbers['set']['count']:,} images: {seconds:.0f} s (limit {limit:.0f}), "
        f"{memory:.2f} GB at most (limit {MEMORY_LIMIT_GB}); {accuracies}; "
        f"Fréchet {fidelity['frechet_distance']:.2f}, precision {fidelity['precision']:.2f}, "
        f"recall {fidelity['recall']:.2f}; {copies:,} exact copies; seconds by part: {numbers['seconds']}"
    )


if __name__ == "__main__":
    main()
