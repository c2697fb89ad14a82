"""The report: an evaluation as one HTML page that opens from disk, needs no network and runs no script.

This module computes what the page shows; ``report.html`` lays it out. A manifest may come from a stranger, so all
text is escaped, and the page's own policy forbids it to load or run anything.
"""

import base64
import functools
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from synthgen.errors import EvaluationError
from synthgen.evaluation.charts import dumbbells, histograms
from synthgen.evaluation.fidelity import Comparison, Fidelity
from synthgen.evaluation.memorisation import QUANTILES, Closeness, Memorisation
from synthgen.evaluation.run import Evaluation
from synthgen.evaluation.utility import Outcome, Usefulness
from synthgen.files import publish
from synthgen.model.claims import origin_words
from synthgen.sets.reading import claimed_by
from synthgen.subject import IMAGE_SIDE, Images

if TYPE_CHECKING:
    import jinja2

Rows = list[tuple[str, ...]]  # of a table, cell by cell

_FOLDER = Path(__file__).parent
_GAP = 2  # pixels between images in a row
_CONFUSION_CLASSES = 32  # the table of more would be larger than all the rest of the page
_MEASURES = (  # (name, how to read it, source)
    ("Fréchet distance", "lower is better", "Heusel et al. 2017"),
    ("Kernel distance × 1,000", "lower is better", "Bińkowski et al. 2018"),
    ("Precision", "realistic images; higher is better", "Kynkäänniemi et al. 2019"),
    ("Recall", "variety of the real covered; higher is better", "Kynkäänniemi et al. 2019"),
    ("Density", "how deep among the real; about 1 is best", "Naeem et al. 2020"),
    ("Coverage", "real images with a synthetic one near; higher is better", "Naeem et al. 2020"),
)


class Picture(NamedTuple):
    """A PNG to stand in the page: its bytes in base64, its size on screen in pixels, and what it shows in words."""

    base64: str
    width: int
    height: int
    words: str


def write_report(evaluation: Evaluation, path: Path) -> None:
    """Publish ``render_report`` as a file.

    Raises:
        EvaluationError: Jinja2 is not installed.
    """
    page = render_report(evaluation)
    with publish(path) as partial:
        partial.write_text(page, "utf-8")


def require_jinja() -> None:
    """Find out before the work begins.

    Raises:
        EvaluationError: Jinja2 is not installed.
    """
    _environment()


def summary(evaluation: Evaluation) -> list[str]:
    """The numbers that matter most, as the lines of a small table."""
    recognition, found = evaluation.recognition, evaluation.memorisation
    rows: Rows = [("", "this set", "real images")]
    for u in evaluation.utility:
        name = f"test accuracy after training, {u.classifier}"
        rows.append((name, _with_spread(u.synthetic), _with_spread(u.real), f"ratio {u.ratio:.3f}{_balanced(u)}"))
    if recognition.synthetic:
        agreement = _percent(recognition.synthetic.mean), _percent(recognition.real.mean if recognition.real else None)
        rows.append(("labels confirmed by a classifier of real ones", *agreement))
    rows += [row[:4] for row in _fidelity_rows(evaluation.fidelity)]
    if evaluation.inception:
        _, *frechet = _fidelity_rows(evaluation.inception)[0][:4]
        rows.append(("Fréchet distance in Inception's features", *frechet))
    nearer, _, _, near, exact, *_ = _memorisation_rows(found)
    if found.real:
        rows += [(*nearer, "50 % if nothing is memorised"), ("near copies of training images", *near[1:])]
        if found.repetition:
            rows.append(("near duplicates inside the set", _percent(found.repetition.near_duplicates, 2)))
    else:
        rows.append(("exact copies of training images", *exact[1:]))
        rows.append(("usefulness, near copies", "–", "–", "not to be told: no real test images"))
    return [f"{name:<48}{a:>16} {b:>15}  {word}".rstrip() for name, a, b, word in ((*row, "", "")[:4] for row in rows)]


def render_report(evaluation: Evaluation) -> str:
    """The whole page.

    Raises:
        EvaluationError: Jinja2 is not installed.
    """
    samples, pairs = evaluation.pictures.samples, evaluation.pictures.pairs
    names = evaluation.manifest.subject.class_names
    first = next(iter(evaluation.utility), None)
    widest = max(len(row) for row in samples.values())
    return (
        _environment()
        .get_template("report.html")
        .render(
            evaluation=evaluation,
            notice=evaluation.notice("it shows training images, beside those of the set that are most like them"),
            origin=origin_words(evaluation.manifest.checkpoint.sha256),
            claimed_by=claimed_by(evaluation.manifest),
            style=(_FOLDER / "report.css").read_text("utf-8"),
            samples=[(name, _picture(row, f"{len(row)} images: {name}", widest)) for name, row in samples.items()],
            utility_bars=[(u.classifier, u.synthetic.mean, u.real.mean) for u in evaluation.utility],
            utility_rows=_utility_rows(evaluation.utility),
            class_names=names,
            class_chart=functools.partial(_class_chart, names),
            confusion=_confusion_rows(names, first.synthetic) if first and len(names) <= _CONFUSION_CLASSES else [],
            taken_for=list(zip(names, map(_thousands, evaluation.recognition.taken_for), strict=True)),
            distance_chart=_distance_chart(evaluation.memorisation),
            memorisation_rows=_memorisation_rows(evaluation.memorisation),
            copies=_pair_pictures("synthetic, training", pairs.synthetic, pairs.training, pairs.training_rms),
            alike=_pair_pictures("both synthetic", pairs.one, pairs.other, pairs.set_rms),
            facts=_facts(evaluation),
        )
    )


def _environment() -> "jinja2.Environment":
    try:
        import jinja2
    except ImportError as error:
        raise EvaluationError(
            "the report needs Jinja2: pip install 'synthgen[evaluate]', or evaluate without --report"
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "number": _number, "thousands": _thousands}
    environment.filters |= {"fidelity_rows": _fidelity_rows}
    environment.globals |= {"dumbbells": dumbbells}
    return environment


def _class_chart(
    class_names: Sequence[str], title: str, ours: Outcome, real: Outcome | None, names: tuple[str, str]
) -> str:
    ceiling = real.per_class if real else (None,) * len(class_names)
    return dumbbells(title, list(zip(class_names, ours.per_class, ceiling, strict=True)), names=names)


def _distance_chart(found: Memorisation) -> str:
    """Nothing without test images, to which all distances are compared."""
    ours = found.synthetic
    if not (found.histogram_edges and ours.part_histogram and ours.test_histogram):
        return ""
    return histograms(
        "Distances of this set's images to the nearest training image and to the nearest test image",
        found.histogram_edges,
        ours.part_histogram,
        ours.test_histogram,
        names=("to the nearest of as many training images", "to the nearest test image"),
        axis="distance: root-mean-square difference a pixel, in grey levels",
    )


def _confusion_rows(class_names: Sequence[str], outcome: Outcome) -> list[tuple[str, list[float]]]:
    """Of each class the shares of its test images that are taken for each class."""
    return [
        (name, [count / (sum(counts) or 1) for count in counts])
        for name, counts in zip(class_names, outcome.confusion, strict=True)
    ]


def _utility_rows(utility: Sequence[Usefulness]) -> Rows:
    """(classifier, this set, real images, share of the ceiling), and balanced accuracies where classes are uneven."""
    return [
        (
            u.classifier,
            _with_spread(u.synthetic),
            _with_spread(u.real),
            _percent(u.ratio),
            *filter(None, [_balanced(u).removeprefix(", balanced ")]),
        )
        for u in utility
    ]


def _balanced(found: Usefulness) -> str:
    """The balanced accuracies, as the end of a line; nothing for even classes, where accuracy is the same."""
    ours, real = found.synthetic.balanced, found.real.balanced
    return "" if ours is None or real is None else f", balanced {_percent(ours)} and {_percent(real)}"


def _fidelity_rows(fidelity: Fidelity) -> Rows:
    """(measure, this set, real test images, how to read it, source)."""
    ours, real = _figures(fidelity.synthetic), _figures(fidelity.real)
    return [(name, a, b, *words) for (name, *words), a, b in zip(_MEASURES, ours, real, strict=True)]


def _figures(seen: Comparison | None) -> tuple[str, ...]:
    """The figures of one side, in the order of ``_MEASURES``."""
    if seen is None:
        return ("–",) * len(_MEASURES)
    kernel, manifolds, balls = seen.kernel, seen.manifolds, seen.balls
    return (
        _number(seen.frechet, 2),
        "–" if kernel is None else f"{1000 * kernel.mean:.2f} ± {1000 * kernel.spread:.2f}",
        *(_number(share, 3) for share in (*(manifolds or (None, None)), *(balls or (None, None)))),
    )


def _memorisation_rows(found: Memorisation) -> Rows:
    """(what was measured, this set, real test images)."""
    names = (
        "nearer to training than to test images",
        "median distance to training over test images",
        "median distance to all training images",
        "near copies" if found.near is None else f"near copies (nearer than {found.near:.1f})",
        "exact copies",
    )
    rows: Rows = list(zip(names, _closeness_figures(found.synthetic), _closeness_figures(found.real), strict=True))
    if found.repetition:
        rows += [
            ("near duplicates inside the set", _percent(found.repetition.near_duplicates, 2), "–"),
            ("exact duplicates inside the set", _thousands(found.repetition.exact_duplicates), "–"),
        ]
    return rows


def _closeness_figures(side: Closeness | None) -> tuple[str, ...]:
    """The figures of one side, in the order of the first rows."""
    if side is None:
        return ("–",) * 5
    return (
        _percent(side.nearer_to_training),
        _number(side.ratio, 3),
        _number(side.training_quantiles[QUANTILES.index(0.5)], 1),
        _percent(side.near_copies, 2),
        _thousands(side.exact_copies),
    )


def _facts(evaluation: Evaluation) -> list[tuple[str, str]]:
    m, real = evaluation.manifest, evaluation.real
    counts = ", ".join(f"{n} {c:,}" for n, c in zip(m.subject.class_names, m.class_counts, strict=False))
    return [
        ("images", f"{m.start:,} to {m.start + m.count - 1:,} of seed {m.seed}, {m.format}, split {m.split}"),
        ("labels", f"{m.labels}{': ' if counts else ''}{counts}"),
        ("digest", m.digest),
        ("checkpoint", f"{m.checkpoint.name} {m.checkpoint.sha256} ({origin_words(m.checkpoint.sha256)})"),
        ("made with", ", ".join(f"{name} {version}" for name, version in m.made_with.items())),
        ("verified", "every file hash and every digest is what the manifest says"),
        ("yardstick", f"reference classifier {real.get('reference_sha256') or 'trained on the real images'}"),
        ("effort", f"{'quick' if evaluation.quick else 'full'}, seeds: {evaluation.seeds}"),
        ("seconds", ", ".join(f"{part} {seconds:.0f}" for part, seconds in evaluation.seconds.items())),
    ]


def _pair_pictures(sides: str, left: Images, right: Images, distances: Sequence[float]) -> list[tuple[Picture, str]]:
    """Each pair side by side, and how far apart it is."""
    return [
        (_picture(np.stack(pair), f"Pair {i}: {sides}, {distance:.1f} apart"), f"{distance:.1f}")
        for i, (*pair, distance) in enumerate(zip(left, right, distances, strict=True), 1)
    ]


def _picture(images: Images, words: str, columns: int | None = None) -> Picture:
    """Images (N, 28, 28) side by side with transparent gaps; ``columns`` wide where there are fewer."""
    columns = columns or len(images)
    rows = -(-len(images) // columns)
    grid = np.zeros((rows * (IMAGE_SIDE + _GAP) - _GAP, columns * (IMAGE_SIDE + _GAP) - _GAP, 2), np.uint8)
    for i, image in enumerate(images):
        top, left = (n * (IMAGE_SIDE + _GAP) for n in divmod(i, columns))
        grid[top : top + IMAGE_SIDE, left : left + IMAGE_SIDE] = np.stack([image, np.full_like(image, 255)], -1)
    stream = io.BytesIO()
    Image.fromarray(grid, "LA").save(stream, "PNG")
    return Picture(base64.b64encode(stream.getvalue()).decode(), 2 * grid.shape[1], 2 * grid.shape[0], words)


def _with_spread(outcome: Outcome) -> str:
    spread = f" ± {100 * outcome.spread:.1f}" if len(outcome.accuracies) > 1 else ""
    return f"{_percent(outcome.mean)}{spread}"


def _percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _thousands(value: int) -> str:
    return f"{value:,}"
