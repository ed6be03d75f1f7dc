"""The shapes that diagrams are made of. It imports matplotlib, so import it where something is drawn."""

from __future__ import annotations

from typing import Any

from matplotlib import rc_context
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse, FancyArrowPatch, FancyBboxPatch, Polygon
from matplotlib.path import Path
from matplotlib.text import Text

from utils.charts import DARK_INK as INK

Point = tuple[float, float]

PAPER = "#ffffff"
HATCH, STOP = "#9ccbe8", "#b84a00"
# Kind of box -> its colour and its rim's; `frozen` is hatched besides.
FILLS = {
    "plain": (PAPER, INK),
    "network": ("#ddecf6", "#0072b2"),
    "generator": ("#daf1e9", "#007a5a"),
    "frozen": (PAPER, "#0072b2"),
    "loss": ("#fce8dc", "#b84a00"),
}
SYMBOL, SIGN, WORD, NOTE = 15, 19, 13, 11.5  # sizes of type in pixels
LINE = 1.5


def _size(words: str) -> float:
    return SYMBOL if "$" in words else WORD


class Symbols(Text):
    """Text with formulas. In an SVG it becomes shapes: without the font, browsers would pull formulas apart."""

    def draw(self, renderer: RendererBase) -> None:
        with rc_context({"svg.fonttype": "path"}):
            super().draw(renderer)


class Diagram:
    """A white page in pixels, x to the right and y downwards; positions are centres unless said otherwise.

    Args:
        figure: of :func:`utils.charts.new_page`, so that sizes of type are pixels, too.
        size: width and height.
    """

    def __init__(self, figure: Figure, size: Point) -> None:
        width, height = size
        self._axes = figure.add_axes((0, 0, 1, 1))
        self._axes.set(xlim=(0, width), ylim=(height, 0))
        self._axes.axis("off")
        self.rectangle((width / 2, height / 2), size, PAPER, "none")

    def text(self, at: Point, words: str, size: float = WORD, align: str = "center", **more: Any) -> None:
        """Words, or a formula where there is a dollar sign; `at` is the middle of the line in height."""
        kind = Symbols if "$" in words else Text
        self._axes.add_artist(kind(*at, words, fontsize=size, ha=align, va="center_baseline", color=INK, **more))

    def note(self, at: Point, words: str, align: str = "center") -> None:
        """Smaller words beside a line."""
        self.text(at, words, NOTE, align)

    def rectangle(self, at: Point, size: Point, fill: str, rim: str = INK, rounding: float = 0, **more: Any) -> None:
        (x, y), (width, height) = at, size
        style, corner = f"round,pad=0,rounding_size={rounding}", (x - width / 2, y - height / 2)
        self._axes.add_patch(FancyBboxPatch(corner, width, height, style, fc=fill, ec=rim, lw=LINE, **more))

    def box(
        self, at: Point, size: Point, label: str = "", note: str = "", kind: str = "plain", is_even: bool = False
    ) -> None:
        """A step: its name and perhaps a line below, in smaller type unless the two are even.

        The texts' `gid` is the rim's with `in_` before it.
        """
        (x, y), (width, height), (fill, rim) = at, size, FILLS[kind]
        gid = f"box_{x:g}_{y:g}"
        if kind == "frozen":
            self.rectangle(at, size, fill, HATCH, 5, hatch="///")
            self.rectangle(at, (width - 16, height - 10), fill, "none", 3)
        dashes = (0, (4, 2)) if kind == "frozen" else "solid"
        self.rectangle(at, size, "none" if kind == "frozen" else fill, rim, 5, linestyle=dashes, gid=gid)
        if label:
            self.text((x, y - 8 if note else y), label, _size(label), gid=f"in_{gid}")
        if note:
            self.text((x, y + 10), note, _size(note) if is_even else NOTE, gid=f"in_{gid}")

    def operator(self, at: Point, sign: str) -> None:
        """A sign of arithmetic in a circle."""
        self._axes.add_patch(Circle(at, 13, facecolor=PAPER, edgecolor=INK, linewidth=LINE))
        self.text(at, sign, SIGN)

    def dot(self, at: Point) -> None:
        """Where a line parts."""
        self._axes.add_patch(Circle(at, 3.2, color=INK))

    def rule(self, start: Point, end: Point, colour: str = INK, width: float = LINE, **more: Any) -> None:
        self._axes.plot(*zip(start, end, strict=True), color=colour, linewidth=width, solid_capstyle="butt", **more)

    def arrow(self, *points: Point) -> None:
        """A line through the points with a head at the last."""
        head = "-|>,head_length=0.45,head_width=0.22"
        line = {"color": INK, "linewidth": LINE, "joinstyle": "miter", "capstyle": "butt", "shrinkA": 0, "shrinkB": 0}
        self._axes.add_patch(FancyArrowPatch(path=Path(points), arrowstyle=head, mutation_scale=16, **line))

    def stop(self, at: Point, is_upright: bool = False) -> None:
        """Two bars across a line, upright or level, through which no gradient passes."""
        x, y = at
        for shift in (-2.5, 2.5):
            ends = ((x - 8, y + shift), (x + 8, y + shift)) if is_upright else ((x + shift, y - 8), (x + shift, y + 8))
            self.rule(*ends, STOP, 2, gid="stop")

    def bird(self, at: Point, ground: str, ink: str, side: float = 48) -> None:
        """A picture of a bird, or the map of one."""
        (x, y), scale = at, side / 44

        def place(*corners: Point) -> list[Point]:
            return [(x + scale * right, y + scale * down) for right, down in corners]

        self.rectangle(at, (side, side), ground, INK)
        for shape in (
            Ellipse(*place((-1, 4)), 22 * scale, 15 * scale),  # body
            Circle(*place((9, -5)), 5 * scale),  # head
            Polygon(place((12, -7), (18.5, -4), (12, -2.5))),  # beak
            Polygon(place((-8, 0), (-18, -2), (-16, 7), (-7, 8))),  # tail
        ):
            shape.set(facecolor=ink, edgecolor="none")
            self._axes.add_patch(shape)
