"""Images in Parquet files in Hugging Face's layout: one file, or a folder of them with the split in their names."""

import contextlib
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from synthgen.errors import DataError, UsageError
from synthgen.preparation.parts import Encoded, Part, Source, classes_of, natural, reading
from synthgen.untrusted.tables import ImageTable, open_parquet

_CHUNK_IMAGES = 16  # image files of some megabytes each may wait in memory
_SPLIT = re.compile(r"(?:^|/)(train|test|val|valid|validation)(?=[-_./])")


def parquet_source(path: Path) -> Source | None:
    """What a Parquet file, or all those below a folder, hold; None: there is none.

    A file is of the split that its name, or a folder's, begins with, such as ``data/test-00000-of-00001.parquet``;
    otherwise of the training split.

    Raises:
        DataError: a file cannot be read.
        UsageError: pyarrow is not installed.
    """
    if path.is_file():
        return Source(kind="Parquet", train=_part([path]), test=None)
    names = sorted((p.relative_to(path).as_posix() for p in path.rglob("*.parquet") if p.is_file()), key=natural)
    splits: dict[str, list[Path]] = {}
    left_out = []
    for name in names:
        match = _SPLIT.search(name)
        if match and match[1].startswith("val"):
            left_out.append(name)
        else:
            splits.setdefault(match[1] if match else "train", []).append(path / name)
    parts = {split: _part(paths) for split, paths in splits.items()}
    if not parts:
        return None
    return Source(kind="Parquet", train=parts.get("train"), test=parts.get("test"), left_out=tuple(left_out))


def _part(paths: Sequence[Path]) -> Part:
    names: list[str] | None = None
    values: list[Any] = []
    for i, path in enumerate(paths):
        with _opened(path) as table:
            found = table.labels()
            if i and table.class_names != names:
                raise DataError(f"{path}: its class names are not those of {paths[0].name}")
            names = table.class_names
            if values and found and type(found[0]) is not type(values[0]):
                raise DataError(f"{path}: its labels are not of the type of those of {paths[0].name}")
            values += found
    with reading(paths[0], "Parquet"):
        class_names, labels = classes_of(values, names)
    count = len(values)

    def chunks() -> Iterator[Encoded]:
        rows = itertools.chain.from_iterable(_rows(path) for path in paths)
        while chunk := tuple(itertools.islice(rows, _CHUNK_IMAGES)):
            yield chunk

    return Part(
        place=str(paths[0]),
        class_names=class_names,
        labels=labels,
        chunks=chunks,
        chunk_count=-(-count // _CHUNK_IMAGES),
    )


def _rows(path: Path) -> Iterator[tuple[str, bytes | None]]:
    with _opened(path) as table:
        for name, data in table.images():
            yield f"{path.name}, {name}", data


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[ImageTable]:
    try:
        with reading(path, "Parquet"), open_parquet(path, links=True) as table:
            yield table
    except ImportError as error:
        raise UsageError("Parquet files need pyarrow: pip install 'synthgen[parquet]'") from error
