"""Train the reference classifier of ``synthgen evaluate``, and write it where the package ships it.

    python benchmarks/train_reference.py                     about two minutes on two cores

The small CNN on the 60,000 real training images, with seed 0 and its fixed schedule; the test images are used only for
the accuracy that is printed. Weights depend on the machine in their last digits, so the shipped file is one run's. Its
SHA-256 is pinned in ``synthgen/evaluation/reference.py`` and must be changed there together with the file.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import time
from pathlib import Path

import synthgen
from synthgen.evaluation.classifiers import predicted_labels, train_small_cnn
from synthgen.evaluation.material import REFERENCE_SHA256
from synthgen.evaluation.reference import REFERENCE_PATH, save_reference


def main() -> None:
    """Train, save, and print the hash to pin."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=REFERENCE_PATH)
    options = parser.parse_args()

    train, test = synthgen.load_real_images("train"), synthgen.load_real_images("test")
    began = time.monotonic()
    model = train_small_cnn(train.images, train.labels, seed=0, classes=10)
    seconds = time.monotonic() - began
    accuracy = (predicted_labels(model, test.images) == test.labels).mean()
    sha256 = save_reference(options.out, model)
    print(f"trained in {seconds:.0f} s; {100 * accuracy:.2f} % of the real test images right")
    print(f"{options.out.stat().st_size:,} bytes, SHA-256 {sha256}; pinned: {REFERENCE_SHA256}")


if __name__ == "__main__":
    main()
