"""Charts as inline SVG, by hand: no script and no font; colours come from the style sheet by class.

Labels and titles are escaped here, so the page may insert a chart as it is.
"""

import math
from collections.abc import Sequence
from html import escape

_WIDTH = 1_000  # units of every chart; the page scales it
_LABEL_CHARACTERS = 20
_LABEL_WIDTH, _VALUE_WIDTH, _ROW_HEIGHT = 170, 130, 28


def dumbbells(
    title: str, rows: Sequence[tuple[str, float | None, float | None]], *, names: tuple[str, str], low: float = 0.0
) -> str:
    """One line for each row, with a filled dot and a ring at two shares and a bar between them.

    Args:
        title: for screen readers.
        rows: (label, share of the filled dot, share of the ring), shares from 0 to 1; None draws none.
        names: what the filled dot and the ring stand for.
        low: the share at the left end; the right end is 1.
    """
    right = _WIDTH - _VALUE_WIDTH
    height = _ROW_HEIGHT * len(rows) + 30

    def across(share: float) -> float:
        return _LABEL_WIDTH + (max(share, low) - low) / (1 - low) * (right - _LABEL_WIDTH)

    parts = []
    for tick in _ticks(low):
        x = across(tick)
        parts.append(f'<line class="rule" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height - 22}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{height - 6}" text-anchor="middle">{tick:.0%}</text>')
    for i, (label, share, ceiling) in enumerate(rows):
        y = 20 + i * _ROW_HEIGHT
        parts.append(f'<text x="{_LABEL_WIDTH - 12}" y="{y + 5}" text-anchor="end">{escape(_short(label))}</text>')
        if share is not None and ceiling is not None:
            ends = f'x1="{across(share):.1f}" x2="{across(ceiling):.1f}"'
            parts.append(f'<line class="gap" {ends} y1="{y}" y2="{y}"/>')
        if ceiling is not None:
            parts.append(f'<circle class="real" cx="{across(ceiling):.1f}" cy="{y}" r="6"/>')
        if share is not None:
            parts.append(f'<circle class="synthetic" cx="{across(share):.1f}" cy="{y}" r="6"/>')
        values = " / ".join("–" if v is None else f"{100 * v:.1f}" for v in (share, ceiling))
        parts.append(f'<text class="value" x="{_WIDTH}" y="{y + 5}" text-anchor="end">{values}</text>')
    spoken = "; ".join(f"{label} {_spoken(a)} and {_spoken(b)}" for label, a, b in rows)
    return _svg(f"{title}: {names[0]} and {names[1]}. {spoken}", height, parts) + _legend(names)


def histograms(
    title: str,
    edges: Sequence[float],
    filled: Sequence[float],
    outlined: Sequence[float],
    *,
    names: tuple[str, str],
    axis: str,
) -> str:
    """Two distributions over the same bins, one as an area and one as a line.

    Args:
        title: for screen readers.
        edges: of the bins, one more than there are bins, from 0 upwards.
        filled, outlined: the share in each bin.
        names: what the area and the line stand for.
        axis: what is measured from left to right.
    """
    height, base, top = 240, 196, 12
    peak = max(*filled, *outlined, 1e-9)

    def staircase(shares: Sequence[float]) -> str:
        steps = [f"M0,{base}"]
        for i, share in enumerate(shares):
            y = base - share / peak * (base - top)
            steps.append(f"L{_WIDTH * i / len(shares):.1f},{y:.1f} L{_WIDTH * (i + 1) / len(shares):.1f},{y:.1f}")
        return " ".join([*steps, f"L{_WIDTH},{base}"])

    parts = [
        f'<path class="synthetic area" d="{staircase(filled)}"/>',
        f'<path class="real outline" d="{staircase(outlined)}"/>',
        f'<line class="axis" x1="0" x2="{_WIDTH}" y1="{base}" y2="{base}"/>',
    ]
    step = _nice_step(edges[-1])
    for k in range(int(edges[-1] / step) + 1):
        x = _WIDTH * k * step / edges[-1]
        anchor = "start" if k == 0 else "middle" if x < _WIDTH - 12 else "end"
        parts.append(f'<text class="tick" x="{x:.1f}" y="{base + 17}" text-anchor="{anchor}">{k * step:g}</text>')
    parts.append(f'<text class="tick" x="{_WIDTH / 2}" y="{height - 6}" text-anchor="middle">{escape(axis)}</text>')
    return _svg(title, height, parts) + _legend(names)


def _svg(title: str, height: int, parts: Sequence[str]) -> str:
    spoken = escape(title)
    picture = f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{spoken}">{"".join(parts)}</svg>'
    return f'<div class="wide">{picture}</div>'


def _legend(names: tuple[str, str]) -> str:
    entries = (("synthetic", names[0]), ("real", names[1]))
    keys = "".join(f'<span><i class="key {kind}"></i>{escape(name)}</span>' for kind, name in entries)
    return f'<p class="legend">{keys}</p>'


def _short(label: str) -> str:
    """A label that fits beside a chart."""
    return label if len(label) <= _LABEL_CHARACTERS else f"{label[: _LABEL_CHARACTERS - 1]}…"


def _spoken(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.1%}"


def _ticks(low: float) -> list[float]:
    step = 0.25 if low < 0.5 else 0.1
    return [round(1 - k * step, 2) for k in range(int((1 - low) / step + 1e-9) + 1)][::-1]


def _nice_step(span: float) -> float:
    """A round number of which four to ten fit into ``span``."""
    power: float = 10.0 ** math.floor(math.log10(span))
    return next(power * part for part in (0.1, 0.2, 0.5, 1.0) if span / (power * part) <= 10)
