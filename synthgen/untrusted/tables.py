"""Parquet files, by pyarrow, which ``synthgen[parquet]`` installs: images in Hugging Face's layout, and their labels.

https://huggingface.co/docs/datasets/en/image_dataset: a column of structures {bytes, path} or of bytes, and a column of
labels, whose names stand in the metadata of the schema. A path is never opened.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from synthgen.untrusted.files import open_file
from synthgen.untrusted.text import parse_json

_MAX_METADATA_BYTES, _MAX_METADATA_ITEMS = 64 << 20, 1_000_000
_MAX_ROWS = 50_000_000
_MAX_GROUP_BYTES = 2 << 30  # 2 GiB: a row group of image files may have to be held
_BATCH_ROWS = 16
_IMAGE_NAMES, _LABEL_NAMES = ("image", "img", "picture", "images"), ("label", "labels", "class", "target")

Encoded = tuple[str, bytes | None]  # a name to show, and an image file's content, if it is there


class ImageTable:
    """An open Parquet file of images.

    Attributes:
        class_names: of labels 0, 1, …, where the file says them.
    """

    def __init__(self, file: Any, size: int) -> None:
        self._file = file
        schema = file.schema_arrow
        features = _features(schema.metadata or {})
        types = {name: schema.field(name).type for name in schema.names}
        self._image = _one(_image_columns(types, features), _IMAGE_NAMES, "images", types)
        classed = [name for name in types if _kind(features, name) == "ClassLabel"]
        named = [name for name in types if name.lower() in _LABEL_NAMES]
        self._label = _one(classed or named, _LABEL_NAMES, "labels", types)
        names = features.get(self._label, {}).get("names") if self._label in classed else None
        if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise ValueError("the class names are no list of texts")
        self.class_names: list[str] | None = names
        _expect_sound_sizes(file.metadata, size)

    def labels(self) -> list[int] | list[str]:
        """The label of every row.

        Raises:
            ValueError: a row has none, or they are neither integers nor texts.
        """
        import pyarrow

        column = self._file.read(columns=[self._label], use_threads=False).column(0)
        column.validate(full=True)
        if pyarrow.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        kinds = pyarrow.types
        if not (kinds.is_integer(column.type) or kinds.is_string(column.type) or kinds.is_large_string(column.type)):
            raise ValueError(f"column '{self._label:.80}' is {column.type!s:.80}; expected integers or class names")
        if column.null_count:
            raise ValueError(f"{column.null_count:,} rows have no label")
        values: list[Any] = column.to_pylist()
        return values

    def images(self) -> Iterator[Encoded]:
        """The image file of every row."""
        row = 0
        for batch in self._file.iter_batches(_BATCH_ROWS, columns=[self._image], use_threads=False):
            batch.validate(full=True)
            for value in batch.column(0).to_pylist():
                name, data = f"row {row}", value
                if isinstance(value, dict):
                    data, path = value.get("bytes"), value.get("path")
                    name = f"row {row} ({path})" if isinstance(path, str) and path else name
                yield name, data if isinstance(data, bytes) else None
                row += 1


@contextlib.contextmanager
def open_parquet(path: Path, *, links: bool = False) -> Iterator[ImageTable]:
    """The images of a Parquet file; ``links`` as for ``open_file``.

    Raises:
        ImportError: pyarrow is not installed.
        OSError, ValueError, and what else pyarrow derives from its ArrowException, all of them as ValueError.
    """
    import pyarrow
    import pyarrow.parquet

    with open_file(path, links=links) as stream:
        try:
            file = pyarrow.parquet.ParquetFile(
                stream,
                thrift_string_size_limit=_MAX_METADATA_BYTES,
                thrift_container_size_limit=_MAX_METADATA_ITEMS,
            )
            yield ImageTable(file, os.fstat(stream.fileno()).st_size)
        except pyarrow.ArrowException as error:
            raise ValueError(" ".join(str(error).split())[:200]) from error


def _expect_sound_sizes(metadata: Any, file_bytes: int) -> None:
    """Compare what the file claims to hold: pyarrow takes memory for as many rows as a row group claims.

    What it claims of a column is not looked at: for some damaged files pyarrow would end the process.
    """
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    if sum(group.num_rows for group in groups) != metadata.num_rows or any(group.num_rows < 0 for group in groups):
        raise ValueError("its row groups do not have as many rows as the whole")
    if metadata.num_rows > min(_MAX_ROWS, 8 * file_bytes):  # a row takes a bit, where all images are the same
        raise ValueError(f"it claims {metadata.num_rows:,} rows, more than it can hold")
    if any(group.total_byte_size > _MAX_GROUP_BYTES for group in groups):
        raise ValueError("a row group takes more than 2 GiB; write it in smaller ones")


def _features(metadata: dict[bytes, bytes]) -> dict[str, dict[str, Any]]:
    """What Hugging Face's library notes of every column: name → {"_type": …}."""
    document = parse_json(metadata[b"huggingface"]) if b"huggingface" in metadata else {}
    for key in ("info", "features"):
        document = document.get(key, {}) if isinstance(document, dict) else {}
    return {k: v for k, v in document.items() if isinstance(v, dict)} if isinstance(document, dict) else {}


def _kind(features: dict[str, dict[str, Any]], name: str) -> Any:
    return features.get(name, {}).get("_type")


def _image_columns(types: dict[str, Any], features: dict[str, dict[str, Any]]) -> list[str]:
    import pyarrow.types as kinds

    def holds_bytes(kind: Any) -> bool:
        if kinds.is_struct(kind):
            fields = [kind.field(i) for i in range(kind.num_fields)]
            return any(field.name == "bytes" and holds_bytes(field.type) for field in fields)
        return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind))

    able = [name for name, kind in types.items() if holds_bytes(kind)]
    return [name for name in able if _kind(features, name) == "Image"] or able


def _one(found: list[str], preferred: tuple[str, ...], what: str, columns: dict[str, Any]) -> str:
    """The one column of ``found``, or the one with a usual name among them."""
    usual = [name for name in found if name.lower() in preferred]
    choice = found if len(found) == 1 else usual
    if len(choice) != 1:
        raise ValueError(f"no one column of {what} among {', '.join(columns)[:200]}; call it '{preferred[0]}'")
    return choice[0]
