"""The diagram of the network."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyArrowPatch
from matplotlib.path import Path as Line
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from utils.errors import UserError
from utils.figures.network import DESCRIPTION, HEIGHT, TITLE, WIDTH, build_network_figure, draw_network

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def figure():
    figure = build_network_figure()
    FigureCanvasAgg(figure).draw()
    return figure


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return draw_network(tmp_path_factory.mktemp("figures") / "new")


def texts(figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_text()]


def arrows(figure) -> list[list[list[float]]]:
    """The corners of each arrow's line, in pixels of the page."""
    patches = [patch for patch in figure.axes[0].patches if isinstance(patch, FancyArrowPatch)]
    return [patch._path_original.vertices.tolist() for patch in patches]


def test_labels_stay_inside_their_boxes(figure) -> None:
    """Protects legibility: no label touches the rim of its box, none is too small, none leaves the page."""
    boxes = {patch.get_gid(): patch.get_window_extent() for patch in figure.axes[0].patches if patch.get_gid()}
    inside = [text for text in texts(figure) if text.get_gid()]
    assert {text.get_gid().removeprefix("in_") for text in inside} < set(boxes) and len(inside) > 30
    for text in inside:
        box, words = boxes[text.get_gid().removeprefix("in_")], text.get_window_extent()
        assert box.padded(-3).contains(*words.min) and box.padded(-3).contains(*words.max), text.get_text()
    for text in texts(figure):
        assert text.get_fontsize() >= 11
        assert Bbox([[0, 0], [WIDTH, HEIGHT]]).padded(-8).containsx(text.get_window_extent().x0), text.get_text()
        assert Bbox([[0, 0], [WIDTH, HEIGHT]]).padded(-8).containsx(text.get_window_extent().x1), text.get_text()


def test_texts_cross_neither_one_another_nor_arrows(figure) -> None:
    """Protects legibility: every word stands on its own."""
    extents = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    for (first, one), (second, other) in itertools.combinations(extents, 2):
        assert not one.overlaps(other), (first, second)
    for arrow in arrows(figure):
        line = Line(arrow).transformed(figure.axes[0].transData)
        for words, extent in extents:
            assert not line.intersects_bbox(extent, filled=False), words


def test_gradients_stop_where_the_method_says(figure) -> None:
    """Protects the message: two bars on F's way to the background and on S's to the ratio, and in the key alone."""
    bars = [line for line in figure.axes[0].lines if line.get_gid() == "stop"]
    centres = {tuple(sum(ends) / 2 for ends in line.get_data()) for line in bars}
    assert len(bars) == len(centres) == 6
    stopped = set()
    for *_, (x0, y0), (x1, y1) in arrows(figure):
        on_line = [(x, y) for x, y in centres if min(x0, x1) <= x <= max(x0, x1) and min(y0, y1) <= y <= max(y0, y1)]
        if on_line:
            assert len(on_line) == 2
            stopped.add((x1, y1))
    by_place = {tuple(text.get_position()): text.get_text() for text in texts(figure)}
    times, over = (next(place for place, words in by_place.items() if words == sign) for sign in "×÷")
    suppress = over[1]  # the row of the background branch
    assert times[1] != suppress  # the first × is that of L_frg, before which nothing stops
    assert stopped == {(456 - 14, suppress), (over[0], suppress - 13)}
    hatched = [patch for patch in figure.axes[0].patches if patch.get_hatch()]
    assert len(hatched) == 2 and by_place[(535, suppress - 8)] == "$f_2$"  # frozen f2 and the key


def test_svg_is_read_aloud_and_shown_in_pixels(saved: list[Path]) -> None:
    """Protects the README: title and description for screen readers, pixels as units, words as text, no raw formula."""
    root = ElementTree.parse(saved[0]).getroot()
    assert root.attrib["width"] == str(WIDTH) and root.attrib["height"] == str(HEIGHT)
    assert root.attrib["role"] == "img" and root.attrib["aria-labelledby"].split() == ["title", "desc"]
    assert [(child.get("id"), child.text) for child in list(root)[:2]] == [("title", TITLE), ("desc", DESCRIPTION)]
    words = {"".join(element.itertext()) for element in root.iter(f"{SVG}text")}
    assert {"Training", "Inference", "generator", "frozen", "softmax", "threshold", "no gradient passes"} <= words
    assert not [word for word in words if "$" in word]


def test_both_files_show_the_same_and_do_so_again(saved: list[Path], tmp_path: Path) -> None:
    """Protects the repository from noise: equal bytes each time; the PNG with the SVG's shape, on white."""
    assert [path.name for path in saved] == ["network.svg", "network.png"]
    assert [path.read_bytes() for path in draw_network(tmp_path)] == [path.read_bytes() for path in saved]
    with Image.open(saved[1]) as picture:
        assert picture.size == (2 * WIDTH, 2 * HEIGHT) and picture.convert("RGB").getpixel((3, 3)) == (255,) * 3


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects users: one sentence for a folder that cannot be made and for a missing matplotlib."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*file/sub/network.svg"):
        draw_network(tmp_path / "file" / "sub")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match="matplotlib, which is missing; pip install"):
        draw_network(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
