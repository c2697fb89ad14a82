"""What ``synthgen train --epsilon E`` gives for fewer images and smaller budgets: the table of docs/training.md.

    python benchmarks/settings.py                                  every cell that is not measured yet
    python benchmarks/settings.py --images 5000 --epsilon 1        one cell
    python benchmarks/settings.py --table                          what is measured so far, as Markdown

A cell trains on the first images of Fashion-MNIST with plain ``--epsilon``, exports 60,000 and evaluates them on the
10,000 test images. It takes 10 to 40 minutes on one core. Runs and numbers are kept in ``bench-results/settings``: an
interrupted cell goes on.
"""

import argparse
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

IMAGES, EPSILONS = (60_000, 15_000, 5_000), (10.0, 3.0, 1.0, 0.2)
RESULTS = Path("bench-results/settings")


def synthgen(*arguments: object) -> None:
    """Run a command of synthgen; its failure ends the benchmark."""
    subprocess.run([sys.executable, "-m", "synthgen", *map(str, arguments)], check=True)


def measure(images: int, epsilon: float) -> None:
    """Train, export and evaluate one cell, unless it is done."""
    cell = RESULTS / f"{images}-{epsilon:g}"
    numbers = cell.with_suffix(".json")
    if numbers.exists():
        return
    run, out = cell / "run", cell / "set"
    minutes = cell / "minutes"
    began = time.monotonic()
    if not minutes.exists():
        begun = ["--resume"] if (run / "training-state.npz").exists() else []
        synthgen("train", "--epsilon", epsilon, "--set", f"data.limit={images}", "--out", run, "--no-spend-log", *begun)
        minutes.write_text(str((time.monotonic() - began) / 60))
    synthgen("export", "--checkpoint", run, "--count", 60_000, "--format", "npz", "--out", out, "--resume")
    synthgen("evaluate", out, "--json", numbers)


def table() -> str:
    """Accuracy of the small CNN, Fréchet distance and minutes of training, a row for each number of images."""
    rows = ["| images | " + " | ".join(f"ε = {epsilon:g}" for epsilon in EPSILONS) + " |", "|---" * 5 + "|"]
    for images in IMAGES:
        cells = []
        for epsilon in EPSILONS:
            numbers = RESULTS / f"{images}-{epsilon:g}.json"
            if not numbers.exists():
                cells.append("")
                continue
            found = json.loads(numbers.read_text())
            cnn = next(each for each in found["utility"] if "CNN" in each["classifier"])
            minutes = float((RESULTS / f"{images}-{epsilon:g}" / "minutes").read_text())
            distance = found["fidelity"]["synthetic"]["frechet_distance"]
            cells.append(f"{cnn['synthetic']['mean']:.1%}, {distance:.1f}, {minutes:.0f} min")
        rows.append(f"| {images:,} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    """Measure, or print what is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="*", default=IMAGES)
    parser.add_argument("--epsilon", type=float, nargs="*", default=EPSILONS)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if not options.table:
        for images, epsilon in itertools.product(reversed(options.images), options.epsilon):
            measure(images, epsilon)
    print(table())


if __name__ == "__main__":
    main()
