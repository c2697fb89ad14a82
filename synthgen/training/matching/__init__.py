"""The method ``released_statistics``: a few private looks at the images, then training without them.

In go the recipe and the images, or an earlier release; out come a release, its ledger and a checkpoint.
"""

__all__ = ["features", "fitting", "looks", "plan", "release", "student", "teacher"]
