"""File formats, one a module: its writer, reader, layout, and how others load it.

In go batches of images and a folder; out come files, and batches again. ``table.FORMATS`` lists them.
"""

__all__ = ["base", "hdf5", "idx", "readers", "writers"]
