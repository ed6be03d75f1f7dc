"""Line charts as SVG."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from utils.charts import draw_chart, nice_ticks, save_charts

CURVE = {
    "title": "Loc <against> threshold & k",
    "x_label": "threshold",
    "y_label": "percent",
    "x": [0, 0.5, 1],
    "series": {"GT-known <Loc>": [0, 100, 50], "Top-1 Loc": [0, 0, 25]},
    "mark": 0.5,
}


def test_points_stand_where_the_ticks_say() -> None:
    """Protects the drawing: every point agrees with the axes' labels, the mark stands at its x, texts are escaped."""
    chart = ElementTree.fromstring(draw_chart(CURVE))
    texts = [
        (element.text, float(element.get("x")), float(element.get("y"))) for element in chart.iter() if element.get("x")
    ]
    ticks = [(float(text), x, y) for text, x, y in texts if re.fullmatch(r"[\d.]+", text)]
    across = {value: x for value, x, y in ticks if y > 280}
    up = {value: y - 4 for value, _, y in ticks if y < 280}
    lines = [element.get("points") for element in chart.iter() if element.tag.endswith("polyline")]
    for values, line in zip(CURVE["series"].values(), lines, strict=True):
        points = [tuple(map(float, point.split(","))) for point in line.split()]
        for x, value, (left, top) in zip(CURVE["x"], values, points, strict=True):
            expected = up[0] + (up[100] - up[0]) * value / 100
            assert left == pytest.approx(across[0] + (across[1] - across[0]) * x, abs=0.2)
            assert top == pytest.approx(expected, abs=0.2)
    shown = [text for text, _, _ in texts]
    assert CURVE["title"] in shown and "GT-known <Loc>" in shown and "in force: 0.5" in shown


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.13, 88.7), (5, 5), (0, 0), (-3, 1e-3), (54, 89)])
def test_ticks_are_round_and_enclose(low: float, high: float) -> None:
    """Protects the axes: evenly spaced ticks of 1, 2 or 5 times a power of ten, with the values between them."""
    ticks = nice_ticks(low, high)
    steps = {round(b - a, 9) for a, b in zip(ticks, ticks[1:], strict=False)}
    assert len(steps) == 1 and ticks[0] <= low + 1e-9 and ticks[-1] >= high - 1e-9 and 2 <= len(ticks) <= 9
    assert f"{steps.pop():e}"[0] in "125"


def test_charts_are_numbered_files(tmp_path: Path) -> None:
    """Protects --sweep's files: one well-formed SVG a curve, one point and no mark among them."""
    paths = save_charts(
        tmp_path, "vgg_sweep", [CURVE, {"title": "t", "x_label": "k", "x": [3], "series": {"a": [7.5]}}]
    )
    assert [path.name for path in paths] == ["vgg_sweep_1.svg", "vgg_sweep_2.svg"]
    for path in paths:
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
