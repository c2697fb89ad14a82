"""Training: a recipe and real images become a checkpoint; private recipes use the images through noise alone.

In go a recipe, a seed and the folder of the images; out comes a folder with a checkpoint and its privacy statement.
"""

__all__ = ["adversarial", "dpgan", "dpgan_game", "images", "matching", "plan", "private", "run", "strategy", "tuning"]
