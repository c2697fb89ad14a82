"""``synthgen prepare``: labelled images of any kind as the four IDX files that all other commands read.

In: a folder of class folders, or IDX, NPZ, HDF5 or Parquet files. Out: 28×28 grey images in IDX files, ``data.json``,
which says what they show and what was done to them, and a contact sheet. What may go wrong: images that cannot be read,
labels that do not fit, too few images, a folder that holds something else, a full disk; each is one line.
"""

__all__ = ["record", "run"]
