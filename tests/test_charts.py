"""Charts as SVG."""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from utils.results.charts import COLOURS, DASHES, draw_chart, draw_histogram, save_charts
from utils.system.errors import UserError

SVG = "{http://www.w3.org/2000/svg}"
CURVE = {
    "title": "Loc <against> $threshold$ & k",
    "x_label": "threshold",
    "y_label": "percent",
    "x": [0, 0.5, 1],
    "series": {"GT-known <Loc>": [0, 100, 50], "Top-1 $Loc$": [10, None, 25]},
    "mark": 0.5,
}
POINT = {"title": "t", "x_label": "k", "x": [3], "series": {"a": [7.5]}}


def group(root: ElementTree.Element, name: str) -> ElementTree.Element:
    return next(element for element in root.iter(f"{SVG}g") if element.get("id") == name)


def points(root: ElementTree.Element, name: str) -> list[tuple[float, ...]]:
    """The corners of a line, in the picture's units."""
    path = group(root, name).find(f"{SVG}path").get("d")
    assert path.count("M") == 1  # in one go
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)]


def ticks(root: ElementTree.Element, axis: str) -> dict[float, float]:
    """Label of each tick -> where it stands, in the picture's units."""
    found = {}
    for number in itertools.count(1):
        try:
            tick = group(root, f"{axis}tick_{number}")
        except StopIteration:
            return found
        label = next(tick.iter(f"{SVG}text")).text
        found[float(label)] = float(next(tick.iter(f"{SVG}use")).get(axis))


def test_points_stand_where_the_ticks_say(tmp_path: Path) -> None:
    """Protects the drawing: points and the mark agree with the axes' labels, gaps are passed over, texts are texts."""
    (path,) = save_charts(tmp_path, "sweep", [CURVE])
    root = ElementTree.parse(path).getroot()
    across, up = ticks(root, "x"), ticks(root, "y")

    def at(x: float, y: float) -> tuple[float, float]:
        return across[0] + (across[1] - across[0]) * x, up[0] + (up[100] - up[0]) * y / 100

    for number, values in enumerate(CURVE["series"].values(), 1):
        expected = [at(x, y) for x, y in zip(CURVE["x"], values, strict=True) if y is not None]
        for corner, wanted in zip(points(root, f"series_{number}"), expected, strict=True):
            assert corner == pytest.approx(wanted, abs=0.01)
    assert [x for x, _ in points(root, "mark")] == pytest.approx([at(CURVE["mark"], 0)[0]] * 2, abs=0.01)
    shown = [element.text for element in root.iter(f"{SVG}text")]
    keys = {"GT-known <Loc>, highest 100 at 0.5", "Top-1 $Loc$, highest 25 at 1"}
    assert {CURVE["title"], "threshold", "percent", *keys, "in force: 0.5"} <= set(shown)


def test_lines_differ_in_colour_and_in_dashes() -> None:
    """Protects colour-blind readers: no two lines share a colour or a dash pattern."""
    series = {str(number): [number, 1] for number in range(len(COLOURS))}
    lines = draw_chart({**POINT, "x": [1, 2], "series": series}).axes[0].get_lines()
    assert len({line.get_color() for line in lines}) == len({line._unscaled_dash_pattern for line in lines}) == 6
    assert len(set(DASHES)) == len(COLOURS)


def test_key_tells_the_first_highest_value() -> None:
    """Protects what is read off a sweep: the highest value and where it is, the first of equal ones."""
    series = {"a": [1, 7.25, 7.25], "b": [None] * 3, "c": [3, None, 1 / 3]}
    (legend,) = draw_chart({**CURVE, "series": series}).legends
    assert [text.get_text() for text in legend.get_texts()] == ["a, highest 7.25 at 0.5", "b", "c, highest 3 at 0"]


def test_histogram_counts_boxes() -> None:
    """Protects the report: bars of a twentieth each with their numbers, 1 in the last one, half is not above half."""
    (axes,) = draw_histogram([0.0, 0.05, 0.5, 0.5, 0.99, 1.0]).axes
    assert [bar.get_height() for bar in axes.patches] == [1, 1, *[0] * 8, 2, *[0] * 8, 2]
    assert [text.get_text() for text in axes.texts if text.get_text()] == ["1", "1", "2", "2"]
    assert axes.get_title(loc="left") == "2 of 6 predicted boxes with IoU above 0.5; median 0.50"


def test_charts_are_numbered_files(tmp_path: Path) -> None:
    """Protects --sweep's files: one SVG a curve, the same bytes each time, a single point seen, nothing left over."""
    paths = save_charts(tmp_path, "vgg_sweep", [CURVE, POINT])
    assert [path.name for path in paths] == ["vgg_sweep_1.svg", "vgg_sweep_2.svg"]
    before = [path.read_bytes() for path in paths]
    root = ElementTree.fromstring(before[1])
    assert root.tag == f"{SVG}svg" and len(list(group(root, "series_1").iter(f"{SVG}use"))) == 1
    save_charts(tmp_path, "vgg_sweep", [CURVE, POINT])
    assert [path.read_bytes() for path in paths] == before
    assert sorted(tmp_path.iterdir()) == paths


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects an old installation: one sentence that names what is missing."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match="matplotlib, which is missing; pip install"):
        save_charts(tmp_path, "sweep", [CURVE])
