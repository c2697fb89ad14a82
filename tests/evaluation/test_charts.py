import xml.etree.ElementTree as ET

import pytest

from synthgen.evaluation.charts import dumbbells, histograms

SVG = "{http://www.w3.org/2000/svg}"


def parse(chart: str) -> ET.Element:
    """The chart as XML, which it is: a browser forgives, this does not."""
    return ET.fromstring(f'<div xmlns="http://www.w3.org/2000/svg">{chart}</div>')


def test_dots_stand_where_their_shares_are():
    root = parse(dumbbells("t", [("a", 0.0, 1.0), ("b", 0.5, None), ("c", None, None)], names=("this", "that")))
    rings = [float(c.get("cx")) for c in root.iter(f"{SVG}circle") if c.get("class") == "real"]
    dots = [float(c.get("cx")) for c in root.iter(f"{SVG}circle") if c.get("class") == "synthetic"]
    assert len(rings) == 1
    assert len(dots) == 2
    assert dots[1] == pytest.approx((dots[0] + rings[0]) / 2)
    values = [t.text for t in root.iter(f"{SVG}text") if t.get("class") == "value"]
    assert values == ["0.0 / 100.0", "50.0 / –", "– / –"]


def test_a_chart_can_be_read_aloud_and_labels_are_escaped():
    chart = dumbbells('<b>"title"', [("<script>", 0.25, 0.5)], names=("this", "<i>"))
    spoken = next(parse(chart).iter(f"{SVG}svg")).get("aria-label")
    assert spoken == '<b>"title": this and <i>. <script> 25.0% and 50.0%'
    assert "<script>" not in chart
    assert "<i>" not in chart


@pytest.mark.parametrize("top", [0.7, 1.0, 45.0, 999.0])
def test_histograms_keep_inside_their_frame(top: float):
    root = parse(histograms("t", [0, top / 2, top], [0.2, 0.8], [1.0, 0.0], names=("one", "two"), axis="distance <x>"))
    _, _, width, height = map(float, next(root.iter(f"{SVG}svg")).get("viewBox").split())
    for path in root.iter(f"{SVG}path"):
        points = [tuple(map(float, point[1:].split(","))) for point in path.get("d").split()]
        assert all(0 <= x <= width and 0 <= y <= height for x, y in points)
    ticks = [t.text for t in root.iter(f"{SVG}text")]
    assert "0" in ticks
    assert 3 <= len(ticks) - 1 <= 11


def test_empty_histograms_are_flat():
    assert parse(histograms("t", [0, 1, 2], [0, 0], [0, 0], names=("one", "two"), axis="x")) is not None
