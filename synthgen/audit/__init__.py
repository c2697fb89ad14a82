"""Attacks on what was trained: an empirical lower bound on epsilon beside the proven upper one.

In go a checkpoint, a set or a private recipe with the real images; out come bounds and success rates.
"""

__all__ = ["run"]
