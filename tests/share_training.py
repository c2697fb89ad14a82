"""Train by one device and then by two that share every batch; a program, since TensorFlow is divided at its start.

Prints a line of JSON for each case: the losses of every step and the weights' largest difference.
"""

import contextlib
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from support import DATA, SAMPLE, expect_equal_floats, noted_floats

from synthgen.errors import Interrupted, UsageError
from synthgen.model.recipe import load_recipe
from synthgen.training.adversarial import AdversarialPlan, plan_training
from synthgen.training.run import train
from synthgen.training.strategy import Strategy, choose_strategy

# Three batches an epoch, the last of 13 images: six for one replica and seven for the other.
SHORT = [*SAMPLE, "data.limit=45", "training.batch_size=16", "training.epochs=2"]
SMALL = ["generator.stem_filters=4", "generator.filters=[4, 4]", "discriminator.filters=[4, 4]"]
CASES = {
    "relativistic": ("smoke", []),  # batch normalisation, averaged weights, a penalty on both kinds of images
    "hinge": (
        "smoke",
        [
            "training.loss=hinge",
            "training.gradient_penalty=0",
            "discriminator.dropout=0.3",
            "discriminator.spectral_norm=true",
        ],
    ),
    "cross-entropy": ("notebook", [*SMALL, "training.discriminator_steps=2", "latent.distribution=uniform"]),
    "everything": (
        "smoke",
        [
            "training.loss=binary_cross_entropy",
            "training.gradient_penalty_interval=2",
            "training.learning_rate_decay=true",
            "discriminator.dropout=0.3",
            "discriminator.spectral_norm=true",
        ],
    ),
}
TWO = choose_strategy("mirrored", replicas=2)


def main(names: list[str]) -> None:
    for name in names:
        base, overrides = CASES[name]
        plan = plan_training(load_recipe(base, [*SHORT, *overrides]), DATA, seed=3)
        shared, weights = run(plan, TWO)
        alone, expected = run(plan, None)
        difference = max(float(np.abs(a - b).max()) for a, b in zip(weights, expected, strict=True))
        print(json.dumps({"case": name, "shared": shared, "alone": alone, "difference": difference}), flush=True)


def run(plan: AdversarialPlan, strategy: Strategy | None) -> tuple[list[dict[str, float]], list[np.ndarray]]:
    losses: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        with noted_floats() as noted:
            checkpoint = train(
                plan, Path(folder) / "run", on_step=lambda done, of, figures: losses.append(figures), strategy=strategy
            )
        expected = {"name": "mirrored", "workers": 1, "replicas": 2} if strategy else None
        assert checkpoint.training.get("strategy") == expected
        return losses, list(noted.values())


def resume() -> None:
    """An interrupted run goes on to the very weights of the unbroken one, under the same strategy alone."""
    plan = plan_training(load_recipe("smoke", [*SHORT, "discriminator.dropout=0.3"]), DATA, seed=3)
    with tempfile.TemporaryDirectory() as folder:
        with noted_floats() as noted:
            whole = train(plan, Path(folder) / "whole", strategy=TWO)
        asked: list[int] = []
        broken = Path(folder) / "broken"
        with contextlib.suppress(Interrupted):
            train(plan, broken, strategy=TWO, should_stop=lambda: asked.append(1) or len(asked) == 4)
        try:
            train(plan, broken, resume=True)
        except UsageError as error:
            message = str(error)
        with noted_floats() as noted_again:
            resumed = train(plan, broken, resume=True, strategy=TWO)
        expect_equal_floats(noted_again, noted)
        print(json.dumps({"refused": message, "equal": resumed.sha256 == whole.sha256}))


if __name__ == "__main__":
    resume() if sys.argv[1:] == ["resume"] else main(sys.argv[1:])
