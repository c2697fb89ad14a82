"""How useful is a set? Train a small CNN on it, test it on the 10,000 real test images (TSTR).

    python benchmarks/utility.py                     the shipped checkpoint, 60,000 images, and the real ceiling
    python benchmarks/utility.py --set DIR           a set already exported
    python benchmarks/utility.py --holdout 10000     test on the last training images instead, to choose between recipes

The classifier and its schedule are fixed, and no choice is made by looking at the test images.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

import synthgen
from synthgen.classifiers import predicted_labels, train_small_cnn


def accuracy(train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], seed: int = 0) -> float:
    """Train on one pair of (images, labels), return the accuracy on the other."""
    predicted = predicted_labels(train_small_cnn(*train, seed), test[0])
    return float((predicted == test[1]).mean())


def exported(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of an exported set."""
    batches = list(synthgen.read_set(folder, synthgen.load_manifest(folder)))
    return np.concatenate([b.images for b in batches]), np.concatenate([b.labels for b in batches])


def main() -> None:
    """Print one line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="conditional")
    parser.add_argument("--set", type=Path)
    parser.add_argument("--holdout", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--no-ceiling", action="store_true")
    options = parser.parse_args()

    real = synthgen.load_real_images("train")
    kept = len(real) - options.holdout
    unseen = synthgen.load_real_images("test")
    test = (real.images[kept:], real.labels[kept:]) if options.holdout else (unseen.images, unseen.labels)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.set or Path(scratch) / "set"
        if not options.set:
            checkpoint = synthgen.load_checkpoint(options.checkpoint)
            export = synthgen.plan_export(checkpoint, count=60_000, file_format="npz")
            synthgen.generate(checkpoint, export, folder, allow_unprotected=True)
        sets = {"synthetic": exported(folder)}
    if not options.no_ceiling:
        sets["real"] = (real.images[:kept], real.labels[:kept])
    for name, train in sets.items():
        began = time.monotonic()
        scores = np.array([accuracy(train, test, seed) for seed in range(options.seeds)])
        print(
            f"small CNN trained on {len(train[0]):,} {name} images, tested on {len(test[0]):,} real ones: "
            f"{100 * scores.mean():.2f} % (seeds {options.seeds}, spread {100 * scores.std():.2f}), "
            f"{time.monotonic() - began:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
