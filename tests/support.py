"""What many tests name: the tiny real sample of Fashion-MNIST, and the override that lets it be trained on."""

from pathlib import Path

DATA = Path(__file__).parent / "data"
SAMPLE = ["data.official=false"]  # the tiny sample is real, but not the official 70,000
