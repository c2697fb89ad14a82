"""The generator: recipes, networks, checkpoints, and images drawn from them.

In go a recipe file or a checkpoint folder; out come checked values, a function from latents to images, batches.
"""

__all__ = [
    "checkpoint",
    "claims",
    "conversion",
    "ledgers",
    "networks",
    "parts",
    "pictures",
    "recipe",
    "reference",
    "sampling",
]
