"""`motivation.png` and `experiment.png`: masks of growing area, and what the network makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.data.class_names import short_name
from utils.data.split import Split
from utils.exploratory.examples import Example, choose_examples, read_example
from utils.exploratory.measure import PLACES, Curve
from utils.models.recipe import Recipe
from utils.results.charts import COLOURS, DARK_INK, DASHES, GRID, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    # The left axis with its measure, and the right one, which is the foreground activation's.
    Chart = tuple[tuple[Axes, str], tuple[Axes, str]]

FONT_SIZE, SMALL = 9.5, 9
# Measure -> its label, and which of the colours and dashes of `utils.results.charts` it has.
LINES = {
    "activation": ("foreground activation", 0),
    "entropy": ("entropy", 1),
    "background_activation": ("background activation", 2),
}
PAIRED = ("entropy", "background_activation")  # a chart each, at its left; at the right is the foreground activation
LETTERS = "abc"
VEIL = 0.82  # how white the picture is outside the mask
PICTURE_AXIS, TYPICAL_AXIS = "the mask's share of the picture", "the area of the mask"
# At 0, 0.5, ... on the axis of `typical_curves`, the quarters between them unnamed.
TYPICAL_TICKS = ("nothing", "half of\nthe object", "the\nobject", "and half\nof the rest", "the whole\npicture")
SHARPNESS = 2  # dots to a pixel of a README
POINTS = 101  # from no mask to the object, and as many from there to the whole picture
LONGEST_NAME = 28  # letters above three masks
GAP = 0.09  # between two charts with names at all their axes, as a share of a chart's width


def build_motivation(example: Example, at: str = "features") -> Figure:
    """One picture: three masks above, below them the curves over the mask's share of the whole picture.

    Args:
        example: of :func:`utils.exploratory.examples.read_example`.
        at: what was masked, of `PLACES`.
    """
    figure = new_figure(8, 5.6)
    above, below = _halves(figure, 2.5, 3)
    above.suptitle(f"masks laid on {PLACES[at]}", **_ink())
    titles = ("part of the object", "the object", "more than the object")
    for column, (letter, title) in enumerate(zip(LETTERS, titles, strict=True)):
        share = example.curve.areas[example.positions[column]]
        _show_mask(above.add_subplot(1, 3, column + 1), example, column, f"({letter}) {title}, {100 * share:.0f} %")
    charts = [_draw_curve(axes, name, example) for axes, name in zip(_pair(below), PAIRED, strict=True)]
    _finish(below, charts, PICTURE_AXIS)
    return figure


def build_experiment(curves: Sequence[Curve], examples: Sequence[Example], at: str = "features") -> Figure:
    """Examples as in :func:`build_motivation`, with axes in common, and below them what is typical of all pictures.

    Args:
        curves: of all pictures.
        examples: one or more, side by side.
        at: what was masked, of `PLACES`.
    """
    figure = new_figure(8, 8)
    above, below = _halves(figure, 4.9, 3.1)
    above.suptitle(f"masks laid on {PLACES[at]}", **_ink())
    grid = above.add_gridspec(4, 3 * len(examples), height_ratios=(0.16, 1, 1.7, 1.7))
    charts = []
    for number, example in enumerate(examples):
        heading = above.add_subplot(grid[0, 3 * number : 3 * number + 3])
        heading.set_axis_off()
        name = short_name(example.curve.class_name, LONGEST_NAME)
        words = heading.text(0.5, 0.5, name, ha="center", va="center", parse_math=False, **_ink())
        words.set_in_layout(False)  # a long one does not make its place wider
        for column, letter in enumerate(LETTERS):
            _show_mask(above.add_subplot(grid[1, 3 * number + column]), example, column, f"({letter})")
        for row, name in enumerate(PAIRED, 2):
            chart = _draw_curve(above.add_subplot(grid[row, 3 * number : 3 * number + 3]), name, example)
            is_last = name == PAIRED[-1]
            _label(chart, PICTURE_AXIS if is_last else "")
            (left, _), (right, _) = chart
            left.tick_params(axis="x", labelbottom=is_last)
            # All have the same limits: ticks and names belong to the outer axes.
            for side in [left] * (number > 0) + [right] * (number < len(examples) - 1):
                side.set_ylabel("")
                side.tick_params(axis="y", length=0, labelleft=False, labelright=False)
            charts.append(chart)
    _share_limits(charts)

    places, typical = typical_curves(curves)
    charts = [_draw_typical(axes, name, places, typical) for axes, name in zip(_pair(below), PAIRED, strict=True)]
    pictures = "1 picture" if len(curves) == 1 else f"all {len(curves)} pictures"
    title = f"{pictures}; thick: the median, shaded: from quartile to quartile, thin: the mean"
    below.suptitle(title, **_ink())
    _finish(below, charts, TYPICAL_AXIS)
    return figure


def save_figures(
    folder: Path, curves: Sequence[Curve], split: Split, recipe: Recipe, ids: Sequence[str] = (), at: str = "features"
) -> list[Path]:
    """Saves `motivation.png` and `experiment.png`; returns the two files.

    Args:
        folder: where to.
        curves: of all pictures.
        split: their pictures.
        recipe: the sizes at which they were measured.
        ids: the examples, the first one for `motivation`; chosen by a rule where empty.
        at: what was masked, of `PLACES`.

    Raises:
        UserError: an example was not measured or cannot be read; matplotlib is missing; a file cannot be written.
    """
    examples = [read_example(curve, split, recipe) for curve in choose_examples(curves, ids)]
    figures = {"motivation": build_motivation(examples[0], at), "experiment": build_experiment(curves, examples, at)}
    return [save_figure(folder / f"{name}.png", figure, SHARPNESS) for name, figure in figures.items()]


def typical_curves(curves: Sequence[Curve]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Median, quartiles and mean of each measure over all pictures, whatever the sizes of their objects.

    The masks' areas are laid on an axis on which objects of all sizes agree: from 0 to 1 the share of the object that
    the mask has reached in area, from 1 to 2 the share of the rest of the picture that it has reached beyond.
    Between two masks a curve is taken as straight; that of an object that fills the picture goes on flat from 1 on.

    Args:
        curves: at least one.

    Returns:
        (201,) places from 0, the empty mask, over 1, the object's own, to 2, the full one; and measure -> (4, 201): the
        median, the lower and the upper quartile, and the mean.
    """
    places = np.linspace(0, 2, 2 * POINTS - 1)
    typical = {}
    for name in LINES:
        values = np.stack([np.interp(places, _place(curve), getattr(curve, name)) for curve in curves])
        typical[name] = np.concatenate([np.quantile(values, (0.5, 0.25, 0.75), axis=0), values.mean(axis=0)[None]])
    return places, typical


def _place(curve: Curve) -> np.ndarray:
    beyond = np.maximum(curve.areas - curve.own_area, 0) / max(1 - curve.own_area, np.finfo(float).tiny)
    return np.minimum(curve.relative_areas, 1) + beyond


def _ink(size: float = FONT_SIZE) -> dict[str, Any]:
    return {"fontsize": size, "color": DARK_INK}


def _halves(figure: Figure, above: float, below: float) -> np.ndarray:
    return figure.subfigures(2, 1, squeeze=False, height_ratios=(above, below))[:, 0]


def _pair(figure: SubFigure) -> list[Axes]:
    """Two places for charts side by side, far enough apart for the names of their neighbouring axes."""
    grid = figure.add_gridspec(1, 2, wspace=GAP)
    return [figure.add_subplot(grid[0, column]) for column in (0, 1)]


def _show_mask(axes: Axes, example: Example, column: int, title: str) -> None:
    """The picture of an example, almost white outside the mask of this column, with the object's outline."""
    outside = ~example.masks[column][..., None]
    veiled = example.image + outside * VEIL * (255.0 - example.image)
    axes.imshow(veiled.round().astype(np.uint8), interpolation="bilinear")
    if not example.masks[1].all():
        axes.contour(example.masks[1], levels=[0.5], colors=[DARK_INK], linewidths=0.9)
    axes.set_title(title, pad=4, parse_math=False, **_ink())
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(GRID)


def _draw_curve(axes: Axes, name: str, example: Example) -> Chart:
    """The curves of one picture over the mask's share of it; the masks that are shown are marked by their letters."""
    curve = example.curve
    chart = _new_chart(axes, name, curve.own_area)
    for side, measure in chart:
        side.plot(curve.areas, getattr(curve, measure), **_style(measure))
    for letter, position in zip(LETTERS, example.positions, strict=True):
        at: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "xytext": (0, 2), "textcoords": "offset points"}
        axes.annotate(letter, (curve.areas[position], 1), ha="center", **at, **_ink(SMALL))
    axes.set_xlim(0, 1)
    return chart


def _draw_typical(axes: Axes, name: str, places: np.ndarray, typical: dict[str, np.ndarray]) -> Chart:
    """Medians (thick), quartiles (shaded) and means (thin) of :func:`typical_curves`."""
    chart = _new_chart(axes, name, 1)
    for side, measure in chart:
        median, low, high, mean = typical[measure]
        look = _style(measure)
        side.fill_between(places, low, high, color=look["color"], alpha=0.16, linewidth=0)
        side.plot(places, mean, **{**look, "linewidth": 0.9, "label": "_mean"})
        side.plot(places, median, **look)
    axes.set_xlim(0, 2)
    axes.set_xticks(np.arange(0, 2.5, 0.5), TYPICAL_TICKS)
    axes.set_xticks(np.arange(0, 2, 0.25), minor=True)
    return chart


def _new_chart(axes: Axes, name: str, own: float) -> Chart:
    """A left and a right axis over light grid lines, and a dashed line at the object's own area."""
    right = axes.twinx()
    for side, spine in ((axes, "left"), (right, "right")):
        side.spines[:].set_visible(False)
        side.spines[["bottom", spine]].set(visible=True, color=GRID)
        side.tick_params(colors=DARK_INK, labelsize=SMALL)
        side.tick_params(axis="y", pad=5)  # the lowest number clear of the last one below
        side.locator_params(axis="y", nbins=5)
    axes.grid(color=GRID, alpha=0.35, linewidth=0.8)
    axes.axvline(own, color=DARK_INK, linestyle=(0, (4, 3)), linewidth=1, label="the object's own area")
    return (axes, name), (right, "activation")  # type: ignore[return-value]  # by matplotlib 3.8's stubs no Axes


def _style(measure: str) -> dict[str, Any]:
    """How the line of a measure looks, and what it is called."""
    label, number = LINES[measure]
    line = (0, DASHES[number]) if DASHES[number] else "solid"
    return {"label": label, "color": COLOURS[number], "linestyle": line, "linewidth": 1.9}


def _label(chart: Chart, x_label: str) -> None:
    """Names the axes, the upright ones in their lines' colours."""
    chart[0][0].set_xlabel(x_label, **_ink())
    for side, measure in chart:
        side.set_ylabel(LINES[measure][0], fontsize=FONT_SIZE, color=_style(measure)["color"])


def _share_limits(charts: Sequence[Chart]) -> None:
    """Gives all entropies the same limits, all activations the same, and both their zero at one height."""
    sides = [one for chart in charts for one in chart]
    groups = [[side for side, measure in sides if (measure == "entropy") == wanted] for wanted in (True, False)]
    ranges = []
    for group in groups:
        lows, highs = zip(*(side.get_ylim() for side in group), strict=True)
        ranges.append((min(*lows, 0), max(*highs, 0)))
    # The zero stands so high that what lies below it has room on every axis, and what lies above it, too.
    below = max(-low / (high - low) for low, high in ranges)
    above = max(high / (high - low) for low, high in ranges)
    for group, (low, high) in zip(groups, ranges, strict=True):
        for side in group:
            side.set_ylim(-below * (high - low), above * (high - low))


def _finish(figure: SubFigure, charts: Sequence[Chart], x_label: str) -> None:
    """Gives charts common limits and names, and names the lines of all of them once, below them."""
    _share_limits(charts)
    for chart in charts:
        _label(chart, x_label)
    lines = {line.get_label(): line for chart in charts for side, _ in chart for line in side.get_lines()}
    lines.pop("_mean", None)
    look = {"frameon": False, "fontsize": FONT_SIZE, "labelcolor": DARK_INK, "handlelength": 2.8, "columnspacing": 1.5}
    figure.legend(handles=[*lines.values()], loc="outside lower center", ncols=len(lines), **look)
