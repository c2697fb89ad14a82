"""The report: an evaluation as one HTML page that opens from disk, needs no network and runs no script.

Whatever a manifest says may come from a stranger: all text is escaped, and the page's own policy forbids it to load
or run anything.
"""

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from synthgen.evaluation.charts import dumbbells, histograms
from synthgen.evaluation.memorisation import QUANTILES
from synthgen.evaluation.run import Evaluation, Fidelity
from synthgen.evaluation.utility import Outcome
from synthgen.fashion import CLASS_NAMES, IMAGE_SIDE
from synthgen.files import publish

Pixels = npt.NDArray[np.uint8]

_STYLE_SHEET = Path(__file__).parent / "report.css"
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_GAP = 2  # pixels between images in a row
_STRONG_SHARE = 0.65  # above it a cell of the confusion matrix is dark enough for light letters

_FIDELITY_ROWS = (  # (key, name, how to read it, source)
    ("frechet", "Fréchet distance", "lower is better", "Heusel et al. 2017"),
    ("kernel", "Kernel distance × 1,000", "lower is better", "Bińkowski et al. 2018"),
    ("precision", "Precision", "realistic images; higher is better", "Kynkäänniemi et al. 2019"),
    ("recall", "Recall", "variety of the real covered; higher is better", "Kynkäänniemi et al. 2019"),
    ("density", "Density", "how deep among the real; about 1 is best", "Naeem et al. 2020"),
    ("coverage", "Coverage", "real images with a synthetic one near; higher is better", "Naeem et al. 2020"),
)


def write_report(evaluation: Evaluation, path: Path) -> None:
    """Publish ``render_report`` as a file."""
    page = render_report(evaluation)
    with publish(path) as partial:
        partial.write_text(page, "utf-8")


def summary(evaluation: Evaluation) -> list[str]:
    """The numbers that matter most, as the lines of a small table."""
    found = evaluation.memorisation
    ours, theirs = _figures(evaluation.fidelity, "synthetic"), _figures(evaluation.fidelity, "real")
    rows: list[Sequence[str]] = [("", "this set", "real images", "")]
    rows += [
        (f"test accuracy after training, {u.classifier}", _with_spread(u.synthetic), _with_spread(u.real),
         f"ratio {u.ratio:.3f}") for u in evaluation.utility
    ]  # fmt: skip
    if evaluation.recognition.synthetic:
        right, real = evaluation.recognition.synthetic.mean, evaluation.recognition.real.mean
        rows.append(("labels confirmed by a classifier of real ones", _percent(right), _percent(real), ""))
    rows += [(name, ours[key], theirs[key], reading) for key, name, reading, _ in _FIDELITY_ROWS]
    if evaluation.inception:
        comparison = evaluation.inception
        frechet = [_number(side.frechet, 2) for side in (comparison.synthetic, comparison.real)]
        rows.append(("Fréchet distance in Inception's features", *frechet, "lower is better"))
    near = (found.synthetic.nearer_to_training, found.real.nearer_to_training)
    rows.append(("nearer to training than to test images", *map(_percent, near), "50 % if nothing is memorised"))
    copies = (found.synthetic.near_copies, found.real.near_copies)
    rows.append(("near copies of training images", *(_percent(share, 2) for share in copies), ""))
    if found.repetition:
        rows.append(("near duplicates inside the set", _percent(found.repetition.near_duplicates, 2), "", ""))
    return [f"{name:<48}{a:>16}{b:>16}  {word}".rstrip() for name, a, b, word in rows]


def render_report(evaluation: Evaluation) -> str:
    """The whole page."""
    sections = [
        _samples(evaluation),
        _utility(evaluation),
        _recognition(evaluation),
        _fidelity(evaluation),
        _memorisation(evaluation),
        _privacy(evaluation),
        _facts(evaluation),
    ]
    manifest = evaluation.manifest
    title = f"{manifest.count:,} synthetic images, evaluated"
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in evaluation.notes)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_STYLE_SHEET.read_text('utf-8')}</style>\n</head>\n<body>\n"
        f"<header><h1>{escape(title)}</h1>\n"
        f'<p class="soft">Drawn from checkpoint {escape(manifest.checkpoint.name)} with seed {manifest.seed}, '
        f"measured against {_count(evaluation.real['training_images'])} real training images and "
        f"{_count(evaluation.real['test_images'])} real test images of Fashion-MNIST.</p>\n{notes}</header>\n"
        f"<main>\n{_cards(evaluation)}\n{''.join(sections)}</main>\n"
        "<footer><p>Made by synthgen evaluate. This page is complete in itself: it loads nothing and runs nothing."
        "</p></footer>\n</body>\n</html>\n"
    )


def _cards(evaluation: Evaluation) -> str:
    """The five numbers to look at first, each beside what it should be compared with."""
    seen, floor = evaluation.fidelity.synthetic, evaluation.fidelity.real
    cards = []
    if evaluation.utility:
        first = evaluation.utility[0]
        text = (
            f"of real test images recognised after training on this set; {_percent(first.real.mean)} after real images"
        )
        cards.append(_card("Useful", _percent(first.synthetic.mean), text, first.synthetic.mean, first.real.mean))
    if evaluation.recognition.synthetic:
        right, real = evaluation.recognition.synthetic.mean, evaluation.recognition.real.mean
        text = f"of its labels agree with a classifier trained on real images; {_percent(real)} on real test images"
        cards.append(_card("Rightly labelled", _percent(right), text, right, real))
    text = f"Fréchet distance to real images, in synthgen’s own features; real test images: {_number(floor.frechet, 2)}"
    cards.append(_card("Alike", _number(seen.frechet, 1), text))
    if seen.balls:
        other = floor.balls.coverage if floor.balls else None
        text = f"of real images have a synthetic one near (coverage); of real test images {_percent(other)}"
        cards.append(_card("Varied", _percent(seen.balls.coverage), text, seen.balls.coverage, other))
    share = evaluation.memorisation.synthetic.nearer_to_training
    text = "nearer to training images than to as many test images; 50 % if nothing was memorised"
    cards.append(_card("New", _percent(share), text, share, 0.5))
    return f'<div class="cards">{"".join(cards)}</div>'


def _card(name: str, figure: str, text: str, share: float | None = None, mark: float | None = None) -> str:
    words, meter = escape(text).replace(" %", "&nbsp;%"), ""
    if share is not None:
        tick = "" if mark is None else f'<u style="left:{100 * mark:.1f}%"></u>'
        meter = f'<div class="meter" aria-hidden="true"><b style="width:{100 * share:.1f}%"></b>{tick}</div>'
    return f'<div class="card"><h2>{name}</h2><p class="figure">{figure}</p>{meter}<p>{words}</p></div>'


def _samples(evaluation: Evaluation) -> str:
    widest = max(len(row) for row in evaluation.pictures.samples.values())
    rows = "".join(
        f"<span>{escape(name)}</span>{_picture(row, f'{len(row)} images: {name}', widest)}"
        for name, row in evaluation.pictures.samples.items()
    )
    return _section("Samples", "Drawn at random from the set, not chosen.", f'<div class="samples">{rows}</div>')


def _utility(evaluation: Evaluation) -> str:
    if not evaluation.utility:
        return ""
    names = ("trained on this set", "trained on as many real images")
    bars = [(u.classifier, u.synthetic.mean, u.real.mean) for u in evaluation.utility]
    best = evaluation.utility[0]
    classes = list(zip(CLASS_NAMES, best.synthetic.per_class, best.real.per_class, strict=True))
    table = _table(
        ("classifier", "this set", "real images", "reached of the ceiling"),
        (
            (u.classifier, _with_spread(u.synthetic), _with_spread(u.real), _percent(u.ratio))
            for u in evaluation.utility
        ),
    )
    return _section(
        "Useful: train on synthetic, test on real",
        "Fixed classifiers, trained once on this set and once on as many real images, both tested on the real test "
        "images. Nothing was trained on those, and no choice was made by them.",
        dumbbells("Accuracy on real test images", bars, names=names)
        + table
        + f"<h3>Class by class, {escape(best.classifier)}</h3>"
        + dumbbells("Accuracy by class", classes, names=names)
        + f"<h3>What is taken for what, {escape(best.classifier)} trained on this set</h3>"
        + _confusion(best.synthetic),
    )


def _confusion(outcome: Outcome) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in CLASS_NAMES)
    rows = []
    for name, counts in zip(CLASS_NAMES, outcome.confusion, strict=True):
        total = sum(counts) or 1
        cells = "".join(_cell(count / total) for count in counts)
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    return (
        '<div class="wide"><table class="confusion"><caption>Percent of the real test images of a class (row) that '
        f"are taken for a class (column).</caption><thead><tr><td></td>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(share: float) -> str:
    strong = ' class="strong"' if share > _STRONG_SHARE else ""
    shown = f"{100 * share:.0f}" if share >= 0.005 else "·" if share else ""
    return f'<td{strong} style="background:rgb(var(--synthetic-rgb) / {share:.3f})">{shown}</td>'


def _recognition(evaluation: Evaluation) -> str:
    recognition = evaluation.recognition
    if recognition.synthetic is None:
        rows = zip(CLASS_NAMES, map(_count, recognition.taken_for), strict=True)
        return _section(
            "What is on the images",
            "The set bears no labels. This is what a classifier trained on real images takes them for.",
            _table(("class", "images"), rows),
        )
    rows_ = list(zip(CLASS_NAMES, recognition.synthetic.per_class, recognition.real.per_class, strict=True))
    return _section(
        "Rightly labelled: train on real, test on synthetic",
        "How often a classifier trained on real images agrees with the labels of this set, and with those of real test "
        "images. More than on real images means that these are easier than real ones.",
        dumbbells("Agreement by class", rows_, names=("this set", "real test images")),
    )


def _fidelity(evaluation: Evaluation) -> str:
    body = _fidelity_table(evaluation.fidelity)
    if evaluation.inception:
        body += "<h3>In Inception’s features</h3>" + f'<p class="soft">{escape(evaluation.inception.statement)}</p>'
        body += _fidelity_table(evaluation.inception)
    return _section("Alike and varied", evaluation.fidelity.statement, body)


def _fidelity_table(fidelity: Fidelity) -> str:
    ours, floor = _figures(fidelity, "synthetic"), _figures(fidelity, "real")
    head = ("measure", "this set", "real test images", "how to read it", "source")
    rows = ((name, ours[key], floor[key], reading, source) for key, name, reading, source in _FIDELITY_ROWS)
    counts = f"{fidelity.synthetic.vectors:,} images of the set and {fidelity.real.vectors:,} real test images"
    return _table(head, rows, caption=f"{counts}, each against real training images.", text_from=3)


def _figures(fidelity: Fidelity, side: str) -> dict[str, str]:
    seen = fidelity.synthetic if side == "synthetic" else fidelity.real
    kernel = "–" if seen.kernel is None else f"{1000 * seen.kernel.mean:.2f} ± {1000 * seen.kernel.spread:.2f}"
    return {
        "frechet": _number(seen.frechet, 2),
        "kernel": kernel,
        "precision": _number(seen.manifolds and seen.manifolds.precision, 3),
        "recall": _number(seen.manifolds and seen.manifolds.recall, 3),
        "density": _number(seen.balls and seen.balls.density, 3),
        "coverage": _number(seen.balls and seen.balls.coverage, 3),
    }


def _memorisation(evaluation: Evaluation) -> str:
    found, pairs = evaluation.memorisation, evaluation.pictures.pairs
    ours, floor = found.synthetic, found.real
    chart = histograms(
        "Distances of this set's images to the nearest training image and to the nearest test image",
        found.histogram_edges,
        ours.part_histogram,
        ours.test_histogram,
        names=("to the nearest of as many training images", "to the nearest test image"),
        axis="distance: root-mean-square difference a pixel, in grey levels",
    )
    rows = [
        (
            "nearer to training than to test images",
            _percent(ours.nearer_to_training),
            _percent(floor.nearer_to_training),
        ),
        ("median distance to training over test images", _number(ours.ratio, 3), _number(floor.ratio, 3)),
        ("median distance to all training images", _median(ours.training_quantiles), _median(floor.training_quantiles)),
        (f"near copies (nearer than {found.near:.1f})", _percent(ours.near_copies, 2), _percent(floor.near_copies, 2)),
        ("exact copies", _count(ours.exact_copies), _count(floor.exact_copies)),
    ]
    if found.repetition:
        rows += [
            ("near duplicates inside the set", _percent(found.repetition.near_duplicates, 2), "–"),
            ("exact duplicates inside the set", _count(found.repetition.exact_duplicates), "–"),
        ]
    caption = f"{ours.images:,} images of the set and {floor.images:,} real test images, by pixels, exact."
    return _section(
        "New: are training images copied?",
        "A generator that has learnt clothes, and not these very clothes, draws images as far from training images as "
        "from test images that it never saw: the two shapes agree. This tests for copying; it is no privacy guarantee.",
        chart
        + _table(("", "this set", "real test images"), rows, caption=caption)
        + _pairs(
            "The images nearest to a training image",
            "synthetic, training",
            zip(pairs.synthetic, pairs.training, pairs.training_rms, strict=True),
        )
        + _pairs(
            "The images of the set nearest to each other",
            "both synthetic",
            zip(pairs.one, pairs.other, pairs.set_rms, strict=True),
        ),
    )


def _pairs(title: str, sides: str, pairs: Iterable[tuple[Pixels, Pixels, float]]) -> str:
    figures = "".join(
        f"<figure>{_picture(np.stack([left, right]), f'Pair {i}: {sides}, {distance:.1f} apart')}"
        f"<figcaption>{distance:.1f} apart</figcaption></figure>"
        for i, (left, right, distance) in enumerate(pairs, 1)
    )
    if not figures:
        return ""
    return f'<h3>{title}</h3><p class="soft">Left and right: {sides}.</p><div class="pairs">{figures}</div>'


def _privacy(evaluation: Evaluation) -> str:
    statement = evaluation.manifest.privacy
    return _section(
        "Privacy",
        "What the set’s manifest claims, word for word:",
        f"<blockquote>{escape(statement.sentence)}</blockquote>"
        + _facts_list([("guarantee", statement.guarantee), *statement.facts()]),
    )


def _facts(evaluation: Evaluation) -> str:
    m, real = evaluation.manifest, evaluation.real
    counts = ", ".join(f"{n} {c:,}" for n, c in zip(CLASS_NAMES, m.class_counts, strict=False))
    facts = [
        ("images", f"{m.start:,} to {m.start + m.count - 1:,} of seed {m.seed}, {m.format}, split {m.split}"),
        ("labels", f"{m.labels}{': ' if counts else ''}{counts}"),
        ("digest", m.digest),
        ("checkpoint", f"{m.checkpoint.name} {m.checkpoint.sha256}"),
        ("made with", ", ".join(f"{name} {version}" for name, version in m.made_with.items())),
        ("verified", "every file hash and every digest is what the manifest says"),
        ("yardstick", f"reference classifier {real['reference_sha256']}"),
        ("effort", f"{'quick' if evaluation.quick else 'full'}, seeds: {evaluation.seeds}"),
        ("seconds", ", ".join(f"{part} {seconds:.0f}" for part, seconds in evaluation.seconds.items())),
    ]
    return _section(
        "Facts", "From the manifest, which was checked first, and from this evaluation.", _facts_list(facts)
    )


def _section(title: str, introduction: str, body: str) -> str:
    return f'<section><h2>{escape(title)}</h2><p class="soft">{escape(introduction)}</p>{body}</section>\n'


def _facts_list(facts: Iterable[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<dt>{escape(k)}</dt><dd>{escape(v)}</dd>' for k, v in facts)}</dl>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str = "", text_from: int = 99) -> str:
    """A table whose first column heads its rows; columns from ``text_from`` on hold words, the others numbers."""

    kinds = [' class="text"' if i >= text_from else "" for i in range(len(head))]

    def cells(row: Sequence[str]) -> Iterator[str]:
        for i, value in enumerate(row):
            yield f'<th scope="row">{escape(value)}</th>' if i == 0 else f"<td{kinds[i]}>{escape(value)}</td>"

    titles = "".join(
        f'<th scope="col"{kind}>{escape(title)}</th>' if title else "<td></td>"
        for title, kind in zip(head, kinds, strict=True)
    )
    body = "".join(f"<tr>{''.join(cells(row))}</tr>" for row in rows)
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="wide"><table>{above}<thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def _picture(images: Pixels, words: str, columns: int | None = None) -> str:
    """Images (N, 28, 28) side by side as an inline PNG, with clear gaps; ``columns`` wide where there are fewer."""
    columns = columns or len(images)
    rows = -(-len(images) // columns)
    grid = np.zeros((rows * (IMAGE_SIDE + _GAP) - _GAP, columns * (IMAGE_SIDE + _GAP) - _GAP, 2), np.uint8)
    for i, image in enumerate(images):
        top, left = (n * (IMAGE_SIDE + _GAP) for n in divmod(i, columns))
        grid[top : top + IMAGE_SIDE, left : left + IMAGE_SIDE] = np.stack([image, np.full_like(image, 255)], -1)
    stream = io.BytesIO()
    Image.fromarray(grid, "LA").save(stream, "PNG")
    data = base64.b64encode(stream.getvalue()).decode()
    size = f'width="{2 * grid.shape[1]}" height="{2 * grid.shape[0]}"'
    return f'<img src="data:image/png;base64,{data}" {size} alt="{escape(words)}">'


def _with_spread(outcome: Outcome) -> str:
    spread = f" ± {100 * outcome.spread:.1f}" if len(outcome.accuracies) > 1 else ""
    return f"{_percent(outcome.mean)}{spread}"


def _median(quantiles: Sequence[float]) -> str:
    return f"{quantiles[QUANTILES.index(0.5)]:.1f}"


def _percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _count(value: int) -> str:
    return f"{value:,}"
