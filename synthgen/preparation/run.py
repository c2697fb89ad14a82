"""Prepare: read a source, fit its images, set test images aside, and write them with their record."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from synthgen.environment import own_version
from synthgen.errors import DataError, UsageError
from synthgen.formats.idx import idx_header
from synthgen.index import MAX_SEED
from synthgen.preparation.conversion import Converted, Unreadable, convert
from synthgen.preparation.fitting import FIT, GREY, RESAMPLING
from synthgen.preparation.ordering import ORDER, in_order, set_aside
from synthgen.preparation.output import expect_free, write_prepared
from synthgen.preparation.parts import Part
from synthgen.preparation.record import SPLITS, Preparation, Treatment, idx_names
from synthgen.preparation.sources import open_source
from synthgen.subject import IMAGE_SIDE, MIN_CLASSES, Subject
from synthgen.workers import Progress, StageProgress, available_cpus

MIN_IMAGES, MIN_CLASS_IMAGES = 200, 20
DEFAULT_TEST_SHARE, MAX_TEST_SHARE = 0.1, 0.5
DEFAULT_NAME = "images"  # not the source's: a name stands in every set, and a folder's may tell what it should not
_SHOWN_UNREADABLE = 10
_DARK, _LIGHT = 128, 160  # of 255


def prepare(
    source: Path | str,
    out: Path | str,
    *,
    test: Path | str | None = None,
    test_share: float | None = None,
    seed: int = 0,
    invert: bool = False,
    name: str = DEFAULT_NAME,
    licence: str | None = None,
    class_names: Sequence[str] | None = None,
    skip_unreadable: bool = False,
    workers: int | None = None,
    progress: StageProgress = lambda stage, done, of: None,
    on_note: Callable[[str], None] = lambda line: None,
) -> Preparation:
    """Make labelled images of any kind and size the data of this package: 28×28 grey, in IDX files.

    The same images give the same files, from whatever kind of source. Nothing is written but below ``out``, and
    nothing is sent anywhere. It holds 784 bytes an image, and in each process the picture that is being fitted.

    Args:
        source: a folder of class folders with image files, or with IDX or Parquet files, or an NPZ, HDF5, Parquet or
            IDX file; see docs/your-images.md.
        out: a new or empty folder.
        test: where test images are, if not in ``source``.
        test_share: how much of each class to set aside as test images, up to 0.5; 0: there are none. By default 0.1,
            where neither ``source`` nor ``test`` has any.
        seed: decides which images are set aside.
        invert: make black of white: for images with a light background.
        name: of the data; stands in everything made from them, as the class names do.
        licence: of the images.
        class_names: of the labels, in their order, in place of those in ``source``.
        skip_unreadable: leave out what cannot be read.
        workers: how many processes; by default one for each processor.
        progress: called with a stage, what is done of it, and of how much.
        on_note: called with lines for people: what was left out, and what looks odd.

    Returns:
        What ``data.json`` says.

    Raises:
        UsageError: there is no such source, ``out`` is not free, or a value is out of range.
        DataError: an image or a file cannot be read, or there are too few images; ``out`` is left as it was.
    """
    source, out = Path(source), Path(out)
    places = [source] if test is None else [source, Path(test)]
    _expect_in_range(test_share, seed, workers)
    expect_free(out, places)
    opened = _opened(places, test_share)
    if opened.left_out:
        on_note(f"left out, being neither training nor test images: {', '.join(opened.left_out)[:300]}")
    subject = _subject(name, licence, class_names, opened.train)
    _expect_enough(opened.train.labels, opened.train.class_names)

    parts = [opened.train] if opened.test is None else [opened.train, opened.test]
    advance = _advancing(progress, sum(len(part.labels) for part in parts))
    workers = available_cpus() if workers is None else workers
    converted = [convert(part, invert=invert, workers=workers, progress=advance) for part in parts]
    unreadable = [*opened.unreadable, *(bad for found in converted for bad in found.unreadable)]
    _report(unreadable, skip_unreadable, on_note)
    _expect_enough(converted[0].labels, opened.train.class_names)
    _note_brightness(converted[0], invert, on_note)

    share = 0.0 if opened.test else DEFAULT_TEST_SHARE if test_share is None else test_share
    splits = _splits(converted, share, seed, on_note)
    treatment = Treatment(
        source=opened.kinds[0],
        test_source=opened.kinds[1] if len(places) > 1 else None,
        test_share=share or None,
        seed=seed if share else None,
        size=(IMAGE_SIDE, IMAGE_SIDE),
        grey=GREY,
        resampling=RESAMPLING,
        fit=FIT,
        order=ORDER,
        inverted=invert,
        skipped=len(unreadable),
    )
    preparation = Preparation(
        subject=subject,
        counts={split: _counts(splits.get(split), subject.num_classes) for split in SPLITS},
        treatment=treatment,
        files={name: sha256 for split, found in splits.items() for name, sha256 in _hashes(split, found)},
        synthgen_version=own_version(),
    )
    progress("writing", 0, 1)
    write_prepared(out, splits, preparation)
    progress("writing", 1, 1)
    return preparation


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """What the sources hold; the labels of both parts are of the training part's classes."""

    train: Part
    test: Part | None
    kinds: tuple[str, ...]
    left_out: tuple[str, ...]
    unreadable: tuple[Unreadable, ...]


def _opened(places: list[Path], test_share: float | None) -> _Opened:
    sources = [open_source(place) for place in places]
    train, test = sources[0].train, sources[0].test
    if train is None:
        raise DataError(f"{places[0]}: test images alone; expected training images")
    if len(sources) > 1:
        if test is not None:
            raise UsageError(f"{places[0]}: has test images of its own; leave --test out")
        if sources[1].train and sources[1].test:
            raise UsageError(f"{places[1]}: has training and test images; name the test images alone with --test")
        test = sources[1].test or sources[1].train
    if test is not None:
        if test_share is not None:
            raise UsageError(f"--test-share {test_share:g}: there are test images already; leave it out")
        unknown = next((name for name in test.class_names if name not in train.class_names), None)
        if unknown is not None:
            raise DataError(f"{places[-1]}: class '{unknown:.100}' of the test images has no training images")
        place = np.array([train.class_names.index(name) for name in test.class_names], np.int64)
        test = replace(test, class_names=train.class_names, labels=place[test.labels])
    return _Opened(
        train=train,
        test=test,
        kinds=tuple(source.kind for source in sources),
        left_out=tuple(name for source in sources for name in source.left_out),
        unreadable=tuple(bad for source in sources for bad in source.unreadable),
    )


def _expect_in_range(test_share: float | None, seed: int, workers: int | None) -> None:
    if test_share is not None and not 0 <= test_share <= MAX_TEST_SHARE:
        raise UsageError(f"--test-share {test_share:g}: expected 0 to {MAX_TEST_SHARE:g}")
    if not 0 <= seed <= MAX_SEED:
        raise UsageError(f"seed {seed} is out of range: expected 0 to 2^64 - 1")
    if workers is not None and workers < 1:
        raise UsageError(f"workers {workers}: expected at least 1")


def _subject(name: str, licence: str | None, class_names: Sequence[str] | None, train: Part) -> Subject:
    names = train.class_names if class_names is None else tuple(class_names)
    if len(train.class_names) == 1:
        raise DataError(f"one class only, '{train.class_names[0]:.100}'; expected at least {MIN_CLASSES}")
    if len(names) != len(train.class_names):
        listed = ", ".join(train.class_names)[:200]
        raise UsageError(f"{len(names)} class names for {len(train.class_names)} classes: {listed}")
    try:
        return Subject(name=name, class_names=names, licence=licence)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _expect_enough(labels: npt.NDArray[Any], class_names: Sequence[str]) -> None:
    if len(labels) < MIN_IMAGES:
        raise DataError(
            f"{len(labels)} training images; expected at least {MIN_IMAGES}: fewer teach a generator nothing"
        )
    counts = np.bincount(labels, minlength=len(class_names))
    label = int(counts.argmin())
    if counts[label] < MIN_CLASS_IMAGES:
        name = class_names[label]
        raise DataError(
            f"class '{name:.100}' has {counts[label]} training images; expected at least {MIN_CLASS_IMAGES}: leave it "
            "out or join it with another"
        )


def _advancing(progress: StageProgress, of: int) -> Progress:
    done = 0
    progress("reading", 0, of)

    def advance(amount: int) -> None:
        nonlocal done
        done += amount
        progress("reading", done, of)

    return advance


def _report(unreadable: Sequence[Unreadable], skip: bool, on_note: Callable[[str], None]) -> None:
    """Name what could not be read, and stop unless it may be left out."""
    for name, why in unreadable[:_SHOWN_UNREADABLE]:
        on_note(f"{name}: {why}")
    if len(unreadable) > _SHOWN_UNREADABLE:
        on_note(f"and {len(unreadable) - _SHOWN_UNREADABLE:,} more")
    if unreadable and not skip:
        name, why = unreadable[0]
        number = f"{len(unreadable):,} images" if len(unreadable) > 1 else "an image"
        raise DataError(
            f"{number} cannot be read, such as {name} ({why}); mend or remove what is named, or leave it out with "
            "--skip-unreadable"
        )


def _note_brightness(converted: Converted, invert: bool, on_note: Callable[[str], None]) -> None:
    images = converted.images
    brightest = int(images.max())
    if brightest < _DARK:
        on_note(f"no pixel is brighter than {brightest} of 255: do the values in the source use their whole range?")
    corners = images[:, :: IMAGE_SIDE - 1, :: IMAGE_SIDE - 1]
    if np.median(corners) > _LIGHT:
        advice = "leave out --invert" if invert else "--invert makes it black, as in Fashion-MNIST"
        on_note(f"most images have a light background: {advice}")


def _splits(
    converted: Sequence[Converted], share: float, seed: int, on_note: Callable[[str], None]
) -> dict[str, Converted]:
    train, repeated = in_order(converted[0])
    if repeated:
        on_note(
            f"{repeated:,} training images are the same as another, label included: a guarantee is about one image; "
            "where it is there k times, it is a group of k"
        )
    if share:
        train, test = set_aside(train, share, seed)
        return {"train": train, "test": test} if len(test) else {"train": train}
    if len(converted) > 1:
        return {"train": train, "test": in_order(converted[1])[0]}
    return {"train": train}


def _counts(converted: Converted | None, classes: int) -> tuple[int, ...]:
    return () if converted is None else tuple(np.bincount(converted.labels, minlength=classes).tolist())


def _hashes(split: str, converted: Converted) -> Iterator[tuple[str, str]]:
    """(name, SHA-256) of the unpacked IDX files of a split."""
    for name, array in zip(idx_names(split), (converted.images, converted.labels), strict=True):
        digest = hashlib.sha256(idx_header(len(array), images=array.ndim == 3))
        digest.update(array.data)
        yield name, digest.hexdigest()
