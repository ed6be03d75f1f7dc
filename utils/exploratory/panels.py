"""What the experiment's figures are made of: a picture under a mask, and charts with two upright axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from utils.charts import COLOURS, DARK_INK, DASHES, GRID
from utils.exploratory.examples import Example

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

FONT_SIZE = 9.5
SMALL = 9
# Measure -> its label, and which of the colours and dashes of `utils.charts` it has.
LINES = {
    "activation": ("foreground activation", 0),
    "entropy": ("entropy", 1),
    "background_activation": ("background activation", 2),
}
# Those of the left axes, a chart each. The right axis is the foreground activation's.
PAIRED = ("entropy", "background_activation")
LETTERS = "abc"
VEIL = 0.82  # how white the picture is outside the mask
# On the axis of `typical_curves`, the quarters between them unnamed.
TYPICAL_TICKS = {
    0: "nothing",
    0.5: "half of\nthe object",
    1: "the\nobject",
    1.5: "and half\nof the rest",
    2: "the whole\npicture",
}
THIN = 0.9  # width of a line that is there beside a thicker one


class Chart(NamedTuple):
    """A chart with two upright axes: of `name` at the left, of the foreground's activation at the right."""

    name: str
    left: Axes
    right: Axes

    @property
    def sides(self) -> tuple[tuple[Axes, str], ...]:
        """Each axis with its measure."""
        return (self.left, self.name), (self.right, "activation")


def show_mask(axes: Axes, example: Example, column: int, title: str) -> None:
    """The picture of an example, almost white outside the mask of this column, with the object's outline."""
    outside = ~example.masks[column][..., None]
    veiled = example.image + outside * VEIL * (255.0 - example.image)
    axes.imshow(veiled.round().astype(np.uint8), interpolation="bilinear")
    if not example.masks[1].all():
        axes.contour(example.masks[1], levels=[0.5], colors=[DARK_INK], linewidths=0.9)
    axes.set_title(title, fontsize=FONT_SIZE, color=DARK_INK, pad=4, parse_math=False)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(GRID)


def write_heading(axes: Axes, words: str) -> None:
    """Words in the middle of an empty place."""
    axes.set_axis_off()
    heading = axes.text(0.5, 0.5, words, fontsize=FONT_SIZE, color=DARK_INK, ha="center", va="center", parse_math=False)
    heading.set_in_layout(False)  # a long one does not make its place wider


def draw_curve(axes: Axes, name: str, example: Example) -> Chart:
    """The curves of one picture over the mask's share of it; the masks that are shown are marked by their letters."""
    curve = example.curve
    chart = _prepare(axes, name, curve.own_area)
    for side, measure in chart.sides:
        side.plot(curve.areas, getattr(curve, measure), **style(measure))
    for letter, position in zip(LETTERS, example.positions, strict=True):
        axes.annotate(
            letter,
            (curve.areas[position], 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            horizontalalignment="center",
            fontsize=SMALL,
            color=DARK_INK,
        )
    axes.set_xlim(0, 1)
    return chart


def draw_typical(axes: Axes, name: str, places: np.ndarray, typical: dict[str, np.ndarray]) -> Chart:
    """Medians (thick), quartiles (shaded) and means (thin) of :func:`utils.exploratory.figures.typical_curves`."""
    chart = _prepare(axes, name, 1)
    for side, measure in chart.sides:
        median, low, high, mean = typical[measure]
        look = style(measure)
        side.fill_between(places, low, high, color=look["color"], alpha=0.16, linewidth=0)
        side.plot(places, mean, **{**look, "linewidth": THIN, "label": "_mean"})
        side.plot(places, median, **look)
    axes.set_xlim(0, 2)
    axes.set_xticks(list(TYPICAL_TICKS), TYPICAL_TICKS.values())
    axes.set_xticks(np.arange(0, 2, 0.25), minor=True)
    return chart


def _prepare(axes: Axes, name: str, own: float) -> Chart:
    """A left and a right axis over light grid lines, and a dashed line at the object's own area."""
    right = axes.twinx()
    for side, spine in ((axes, "left"), (right, "right")):
        side.spines[:].set_visible(False)
        side.spines[["bottom", spine]].set_visible(True)
        side.spines[["bottom", spine]].set_color(GRID)
        side.tick_params(colors=DARK_INK, labelsize=SMALL)
        side.tick_params(axis="y", pad=5)  # the lowest number clear of the last one below
        side.yaxis.get_major_locator().set_params(nbins=5)
    axes.grid(color=GRID, alpha=0.35, linewidth=0.8)
    axes.axvline(own, color=DARK_INK, linestyle=(0, (4, 3)), linewidth=1, label="the object's own area")
    return Chart(name, axes, right)


def style(measure: str) -> dict[str, Any]:
    """How the line of a measure looks, and what it is called."""
    label, number = LINES[measure]
    dashes = DASHES[number]
    line = (0, dashes) if dashes else "solid"
    return {"label": label, "color": COLOURS[number], "linestyle": line, "linewidth": 1.9}


def label_axes(charts: Sequence[Chart], x_label: str) -> None:
    """Names the axes, the upright ones in their lines' colours."""
    for chart in charts:
        chart.left.set_xlabel(x_label, fontsize=FONT_SIZE, color=DARK_INK)
        for side, measure in chart.sides:
            side.set_ylabel(LINES[measure][0], fontsize=FONT_SIZE, color=style(measure)["color"])


def share_limits(charts: Sequence[Chart]) -> None:
    """Gives all entropies the same limits, all activations the same, and both their zero at one height."""
    entropies = [side for chart in charts for side, measure in chart.sides if measure == "entropy"]
    activations = [side for chart in charts for side, measure in chart.sides if measure != "entropy"]
    groups = [sides for sides in (entropies, activations) if sides]
    ranges = []
    for sides in groups:
        lows, highs = zip(*(side.get_ylim() for side in sides), strict=True)
        ranges.append((min(*lows, 0), max(*highs, 0)))
    # The zero stands so high that what lies below it has room on every axis, and what lies above it, too.
    below = max(-low / (high - low) for low, high in ranges)
    above = max(high / (high - low) for low, high in ranges)
    for sides, (low, high) in zip(groups, ranges, strict=True):
        for side in sides:
            side.set_ylim(-below * (high - low), above * (high - low))


def hide_inner_sides(charts: Sequence[Chart]) -> None:
    """Leaves ticks and names to the outer axes of charts side by side, which have the same limits."""
    for inner in [chart.left for chart in charts[1:]] + [chart.right for chart in charts[:-1]]:
        inner.set_ylabel("")
        inner.tick_params(axis="y", length=0, labelleft=False, labelright=False)


def add_legend(figure: SubFigure, charts: Sequence[Chart]) -> None:
    """Names the lines of all charts once, below them."""
    lines = {line.get_label(): line for chart in charts for side, _ in chart.sides for line in side.get_lines()}
    figure.legend(
        handles=[line for label, line in lines.items() if not label.startswith("_")],
        loc="outside lower center",
        ncols=len(lines),
        frameon=False,
        fontsize=FONT_SIZE,
        labelcolor=DARK_INK,
        handlelength=2.8,
        columnspacing=1.5,
    )
