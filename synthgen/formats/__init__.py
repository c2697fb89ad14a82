"""File formats, one a module: how it is written, read back, described, and loaded by others.

Batches of images and a folder go in; files come out, and batches again. ``table.FORMATS`` lists them. To add a format,
write a module with a subclass of ``base.Format`` and enter it there.
"""

__all__ = ["base", "hdf5", "idx", "table"]
