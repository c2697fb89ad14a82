"""Class folders of image files, with an optional level ``train`` and ``test`` above them."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from synthgen.errors import DataError
from synthgen.preparation.parts import Part, Paths, Source, classes_of, natural
from synthgen.untrusted.pictures import decodable_suffixes

_CHUNK_IMAGES = 64
_MAX_DEPTH = 16
_LITTER = {"thumbs.db", "desktop.ini"}  # which Windows leaves; macOS and others begin theirs with a dot
_SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_VALIDATION = {"val", "valid", "validation"}


def folder_source(root: Path) -> Source:
    """The images below the class folders in ``root``, or below those in ``root/train`` and ``root/test``.

    Every file below a class folder, however deep, is an image of that class, except for hidden ones.

    Raises:
        DataError: there are no class folders.
        OSError, ValueError: a folder cannot be listed, or there are too many classes.
    """
    entries = _entries(root)
    folders = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    names = {entry.name.lower() for entry in folders}
    if "train" not in {_SPLITS.get(name) for name in names} or not names <= {*_SPLITS, *_VALIDATION}:
        part, bad = _part(root, entries, "")
        return Source(kind="class folders", train=part, test=None, unreadable=tuple(bad))
    parts: dict[str, Part] = {}
    bad = _loose(entries, "")
    left_out = []
    for folder in folders:
        split = _SPLITS.get(folder.name.lower())
        if split is None:
            left_out.append(f"{folder.name}/")
            continue
        if split in parts:
            raise DataError(f"{root}: two folders of the {split} split; expected train and test")
        parts[split], more = _part(root, _entries(Path(folder.path)), f"{folder.name}/")
        bad += more
    return Source(
        kind="class folders",
        train=parts.get("train"),
        test=parts.get("test"),
        left_out=tuple(left_out),
        unreadable=tuple(bad),
    )


def _part(root: Path, entries: list[os.DirEntry[str]], prefix: str) -> tuple[Part, list[tuple[str, str]]]:
    bad = _loose(entries, prefix)
    files: list[str] = []
    counts: dict[str, int] = {}  # of class folders with images
    for folder in entries:
        if folder.is_dir(follow_symlinks=False):
            before = len(files)
            files += _below(folder.path, f"{prefix}{folder.name}", 0, bad)
            if len(files) > before:
                counts[folder.name] = len(files) - before
    if not files:
        where = root / prefix
        raise DataError(f"{where}: no images in class folders; expected one folder for each class, such as {where}/cat")
    class_names, labels = classes_of(list(counts))

    def chunks() -> Iterator[Paths]:
        for start in range(0, len(files), _CHUNK_IMAGES):
            yield tuple((f"{root}/{name}", name) for name in files[start : start + _CHUNK_IMAGES])

    count = -(-len(files) // _CHUNK_IMAGES)
    return Part(
        place=str(root),
        class_names=class_names,
        labels=np.repeat(labels, list(counts.values())),
        chunks=chunks,
        chunk_count=count,
    ), bad


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    """What is in a folder, sorted as people sort it, without hidden files."""
    with os.scandir(folder) as found:
        entries = [e for e in found if not e.name.startswith(".") and e.name.lower() not in _LITTER]
    return sorted(entries, key=lambda entry: natural(entry.name))


def _below(folder: str, shown: str, depth: int, bad: list[tuple[str, str]]) -> Iterator[str]:
    """The name, from the source on, of every file below a folder; what is neither file nor folder goes to ``bad``."""
    if depth > _MAX_DEPTH:
        bad.append((shown, f"folders nested deeper than {_MAX_DEPTH}"))
        return
    for entry in _entries(folder):
        name = f"{shown}/{entry.name}"
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            yield from _below(entry.path, name, depth + 1, bad)
        elif stat.S_ISREG(mode):
            yield name
        else:
            bad.append((name, "a link; expected the file itself" if stat.S_ISLNK(mode) else "no regular file"))


def _loose(entries: list[os.DirEntry[str]], prefix: str) -> list[tuple[str, str]]:
    """Images, and links, that lie beside class folders, where they have no class; other files may lie there."""
    suffixes = decodable_suffixes()
    loose = []
    for entry in entries:
        if entry.is_symlink() and entry.is_dir():
            loose.append((f"{prefix}{entry.name}", "a link; expected the folder itself"))
        elif not entry.is_dir() and os.path.splitext(entry.name)[1].lower() in suffixes:  # noqa: PTH122 - a mere name
            loose.append((f"{prefix}{entry.name}", "lies in no class folder"))
    return loose
