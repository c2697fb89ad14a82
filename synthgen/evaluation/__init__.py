"""Is a set useful, right, varied, and no copy? A set measured against the real images.

In go an exported set and the real images; out come figures, each beside what real images reach, and a report.
"""

__all__ = ["neighbours", "report", "run"]
