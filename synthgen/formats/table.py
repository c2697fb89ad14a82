"""The table of formats. A format is imported when it is first used: the command line's help needs only the names."""

import importlib
from collections import UserDict
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from synthgen.errors import UsageError

if TYPE_CHECKING:
    from synthgen.formats.base import Format

DEFAULT_FORMAT = "tfrecord"


class _Formats(UserDict[str, Any]):
    """Formats by name, each first as ``module.Class``."""

    def __getitem__(self, name: str) -> "Format":
        found = self.data[name]
        if isinstance(found, str):
            module, _, kind = found.partition(".")
            found = self.data[name] = getattr(importlib.import_module(f"synthgen.formats.{module}"), kind)()
        format_: Format = found
        return format_


FORMATS: "MutableMapping[str, Format]" = _Formats(  # in the order that people see
    {
        "tfrecord": "tfrecord.TFRecord",
        "hdf5": "hdf5.HDF5",
        "png": "png.PNG",
        "idx": "idx.IDX",
        "idx-raw": "idx.RawIDX",
        "npz": "npz.NPZ",
    }
)


def find_format(name: str) -> "Format":
    """The format called ``name``.

    Raises:
        UsageError: there is none; the message lists those that there are.
    """
    if name not in FORMATS:
        raise UsageError(f"format '{name}': expected one of {', '.join(FORMATS)}")
    return FORMATS[name]
