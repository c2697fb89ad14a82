"""Attacks on our own sets and trainings: a lower bound on epsilon by experiment, beside the proven upper one.

In go a checkpoint, a set or a private recipe, and, but for looks at neighbours, the real images; out come success
rates and bounds.
"""

__all__ = ["run"]
