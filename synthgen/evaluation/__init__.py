"""How good a set is, measured against the real images: useful, rightly labelled, varied, and no copy.

In go an exported set and the real images; out come numbers, each beside what real images reach, and a report.
"""

__all__ = ["neighbours", "report", "run"]
