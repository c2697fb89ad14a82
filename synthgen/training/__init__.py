"""Training: a recipe and real images become a checkpoint; only private recipes look through noise.

In go a recipe, a seed and the folder of the images; out comes a folder with a checkpoint and its privacy statement.
"""

__all__ = [
    "adversarial",
    "dpgan",
    "dpgan_plan",
    "matching.features",
    "matching.plan",
    "matching.release",
    "matching.run",
    "plan",
    "strategy",
]
