"""Which kind of source a path is: a folder or a file, by what it holds and not by its name."""

from pathlib import Path

from synthgen.errors import DataError, UsageError
from synthgen.preparation.arrays import hdf5_source, idx_source, npz_source
from synthgen.preparation.folders import folder_source
from synthgen.preparation.parquet import parquet_source
from synthgen.preparation.parts import Source, reading
from synthgen.untrusted.files import open_file

_FILES = "an IDX file of images, or an NPZ, HDF5 or Parquet file"


def open_source(path: Path) -> Source:
    """What images a folder or a file holds.

    A folder with IDX files by MNIST's names is taken for IDX; else with Parquet files in it for Parquet; else for class
    folders. A file is told by its first bytes.

    Raises:
        UsageError: there is no such file or folder, or pyarrow is needed for it.
        DataError: it holds no images that are understood, or cannot be read.
    """
    try:
        if path.is_dir():
            with reading(path, "a folder of images"):
                return idx_source(path) or parquet_source(path) or folder_source(path)
        with open_file(path, links=True) as stream:
            start = stream.peek(8)[:8]
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file or folder; expected class folders, {_FILES}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    found = None
    if start.startswith(b"PK"):
        found = npz_source(path)
    elif start.startswith(b"\x89HDF\r\n\x1a\n"):
        found = hdf5_source(path)
    elif start.startswith(b"PAR1"):
        found = parquet_source(path)
    elif start.startswith((b"\x1f\x8b", b"\0\0\x08")):
        found = idx_source(path)
    if found is None:
        raise DataError(f"{path}: of no kind that is understood; expected a folder, {_FILES}")
    return found
