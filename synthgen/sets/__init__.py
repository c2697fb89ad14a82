"""Sets on disk: the manifest, reading a set back, proving it, and the files that describe it to others.

In goes a folder or URL with a manifest; out come batches of images, problems in words, cards.
"""

__all__ = [
    "account",
    "cards",
    "consistency",
    "croissant",
    "digest",
    "inspection",
    "integrity",
    "keys",
    "manifest",
    "origin",
    "reading",
    "records",
    "signatures",
    "verification",
]
