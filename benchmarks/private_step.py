"""What clipping each example's gradient costs: the private step of dpgan's discriminator beside the plain one."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from synthgen.model.networks import build_discriminator
from synthgen.model.recipe import PrivateAdversarialRecipe, load_recipe
from synthgen.privacy.per_example import ClippedGradients
from synthgen.subject import NUM_CLASSES

EXAMPLES, REPEATS = 256, 20


def cpu_milliseconds(step: Callable[[], Any]) -> float:
    """The least processor time of one step over several; the first, which traces the graph, does not count."""
    step()
    times = []
    for _ in range(REPEATS):
        began = time.process_time()
        step()
        times.append(time.process_time() - began)
    return 1e3 * min(times)


def main() -> None:
    """Print the two times and their ratio."""
    recipe = load_recipe("dpgan")
    assert isinstance(recipe, PrivateAdversarialRecipe)
    discriminator = build_discriminator(recipe)
    clipped = ClippedGradients(discriminator, recipe.training.l2_clip_norm)
    random = np.random.default_rng(0)
    inputs = [
        tf.constant(random.random((EXAMPLES, 28, 28, 1), np.float32)),
        tf.one_hot(random.integers(0, NUM_CLASSES, EXAMPLES), NUM_CLASSES),
    ]

    @tf.function
    def private_step() -> Any:
        return clipped.sum(inputs, lambda logits: tf.nn.softplus(-logits), tf.ones([EXAMPLES]))[0]

    @tf.function
    def plain_step() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.nn.softplus(-discriminator(inputs, training=True)))
        return tape.gradient(loss, discriminator.trainable_variables)

    private, plain = cpu_milliseconds(private_step), cpu_milliseconds(plain_step)
    print(
        f"dpgan's {discriminator.count_params():,} parameters, {EXAMPLES} examples: plain step {plain:.1f} ms, "
        f"clipped one by one {private:.1f} ms of processor time, ratio {private / plain:.2f} (at most 4)"
    )


if __name__ == "__main__":
    main()
