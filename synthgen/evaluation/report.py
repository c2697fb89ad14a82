"""The report: an evaluation as one HTML page that opens from disk, needs no network and runs no script.

This module computes what the page shows; ``report.html`` lays it out. A manifest may come from a stranger, so all
text is escaped, and the page's own policy forbids it to load or run anything.
"""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from synthgen.errors import EvaluationError
from synthgen.evaluation.charts import dumbbells, histograms
from synthgen.evaluation.fidelity import Comparison, Fidelity
from synthgen.evaluation.memorisation import QUANTILES, Memorisation
from synthgen.evaluation.run import Evaluation
from synthgen.evaluation.utility import Outcome
from synthgen.fashion import CLASS_NAMES, IMAGE_SIDE, Images
from synthgen.files import publish
from synthgen.model.claims import origin_words
from synthgen.sets.reading import claimed_by

if TYPE_CHECKING:
    import jinja2

Rows = list[tuple[str, ...]]  # of a table, cell by cell

_FOLDER = Path(__file__).parent
_GAP = 2  # pixels between images in a row
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
        rows.append((name, _with_spread(u.synthetic), _with_spread(u.real), f"ratio {u.ratio:.3f}"))
    if recognition.synthetic:
        agreement = _percent(recognition.synthetic.mean), _percent(recognition.real.mean)
        rows.append(("labels confirmed by a classifier of real ones", *agreement))
    rows += [row[:4] for row in _fidelity_rows(evaluation.fidelity)]
    if evaluation.inception:
        _, *frechet = _fidelity_rows(evaluation.inception)[0][:4]
        rows.append(("Fréchet distance in Inception's features", *frechet))
    sides = (found.synthetic, found.real)
    rows += [
        (*_memorisation_rows(found)[0], "50 % if nothing is memorised"),
        ("near copies of training images", *(_percent(side.near_copies, 2) for side in sides)),
    ]
    if found.repetition:
        rows.append(("near duplicates inside the set", _percent(found.repetition.near_duplicates, 2)))
    return [f"{name:<48}{a:>16}{b:>16}  {word}".rstrip() for name, a, b, word in ((*row, "", "")[:4] for row in rows)]


def render_report(evaluation: Evaluation) -> str:
    """The whole page.

    Raises:
        EvaluationError: Jinja2 is not installed.
    """
    samples, pairs = evaluation.pictures.samples, evaluation.pictures.pairs
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
            utility_rows=[
                (u.classifier, _with_spread(u.synthetic), _with_spread(u.real), _percent(u.ratio))
                for u in evaluation.utility
            ],
            taken_for=list(zip(CLASS_NAMES, map(_thousands, evaluation.recognition.taken_for), strict=True)),
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
    environment.filters |= {"fidelity_rows": _fidelity_rows, "confusion_rows": _confusion_rows}
    environment.globals |= {"dumbbells": dumbbells, "class_chart": _class_chart, "class_names": CLASS_NAMES}
    return environment


def _class_chart(title: str, ours: Outcome, real: Outcome, names: tuple[str, str]) -> str:
    return dumbbells(title, list(zip(CLASS_NAMES, ours.per_class, real.per_class, strict=True)), names=names)


def _distance_chart(found: Memorisation) -> str:
    return histograms(
        "Distances of this set's images to the nearest training image and to the nearest test image",
        found.histogram_edges,
        found.synthetic.part_histogram,
        found.synthetic.test_histogram,
        names=("to the nearest of as many training images", "to the nearest test image"),
        axis="distance: root-mean-square difference a pixel, in grey levels",
    )


def _confusion_rows(outcome: Outcome) -> list[tuple[str, list[float]]]:
    """Of each class the shares of its test images that are taken for each class."""
    return [
        (name, [count / (sum(counts) or 1) for count in counts])
        for name, counts in zip(CLASS_NAMES, outcome.confusion, strict=True)
    ]


def _fidelity_rows(fidelity: Fidelity) -> Rows:
    """(measure, this set, real test images, how to read it, source)."""
    ours, real = _figures(fidelity.synthetic), _figures(fidelity.real)
    return [(name, a, b, *words) for (name, *words), a, b in zip(_MEASURES, ours, real, strict=True)]


def _figures(seen: Comparison) -> tuple[str, ...]:
    """The figures of one side, in the order of ``_MEASURES``."""
    kernel, manifolds, balls = seen.kernel, seen.manifolds, seen.balls
    return (
        _number(seen.frechet, 2),
        "–" if kernel is None else f"{1000 * kernel.mean:.2f} ± {1000 * kernel.spread:.2f}",
        *(_number(share, 3) for share in (*(manifolds or (None, None)), *(balls or (None, None)))),
    )


def _memorisation_rows(found: Memorisation) -> Rows:
    """(what was measured, this set, real test images)."""
    ours, real, median = found.synthetic, found.real, QUANTILES.index(0.5)
    sides = (ours, real)
    rows: Rows = [
        ("nearer to training than to test images", *(_percent(side.nearer_to_training) for side in sides)),
        ("median distance to training over test images", *(_number(side.ratio, 3) for side in sides)),
        ("median distance to all training images", *(_number(side.training_quantiles[median], 1) for side in sides)),
        (f"near copies (nearer than {found.near:.1f})", *(_percent(side.near_copies, 2) for side in sides)),
        ("exact copies", *(_thousands(side.exact_copies) for side in sides)),
    ]
    if found.repetition:
        rows += [
            ("near duplicates inside the set", _percent(found.repetition.near_duplicates, 2), "–"),
            ("exact duplicates inside the set", _thousands(found.repetition.exact_duplicates), "–"),
        ]
    return rows


def _facts(evaluation: Evaluation) -> list[tuple[str, str]]:
    m, real = evaluation.manifest, evaluation.real
    counts = ", ".join(f"{n} {c:,}" for n, c in zip(CLASS_NAMES, m.class_counts, strict=False))
    return [
        ("images", f"{m.start:,} to {m.start + m.count - 1:,} of seed {m.seed}, {m.format}, split {m.split}"),
        ("labels", f"{m.labels}{': ' if counts else ''}{counts}"),
        ("digest", m.digest),
        ("checkpoint", f"{m.checkpoint.name} {m.checkpoint.sha256} ({origin_words(m.checkpoint.sha256)})"),
        ("made with", ", ".join(f"{name} {version}" for name, version in m.made_with.items())),
        ("verified", "every file hash and every digest is what the manifest says"),
        ("yardstick", f"reference classifier {real['reference_sha256']}"),
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
