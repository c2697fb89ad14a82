"""The table of formats."""

from synthgen.errors import UsageError
from synthgen.formats.base import Format
from synthgen.formats.hdf5 import HDF5
from synthgen.formats.idx import IDX, RawIDX
from synthgen.formats.npz import NPZ
from synthgen.formats.png import PNG
from synthgen.formats.tfrecord import TFRecord

# The command line imports this for its help: a format imports a slow library only where it uses it.
FORMATS: dict[str, Format] = {
    each.name: each for each in (TFRecord(), HDF5(), PNG(), IDX(), RawIDX(), NPZ())
}  # in the order that people see
DEFAULT_FORMAT = TFRecord.name


def find_format(name: str) -> Format:
    """The format called ``name``.

    Raises:
        UsageError: there is none; the message lists those that there are.
    """
    if name not in FORMATS:
        raise UsageError(f"format '{name}': expected one of {', '.join(FORMATS)}")
    return FORMATS[name]
