"""`motivation.png` and `experiment.png`: masks of growing area, and what the network makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from utils.charts import COLOURS, DASHES, GRID, new_figure, save_figure
from utils.data.split import Split
from utils.exploratory.examples import Example, choose_examples, find_curves, read_example
from utils.exploratory.measure import Curve
from utils.models.recipe import Recipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

INK = "#333333"
FONT_SIZE = 9.5
# Measure -> its label, and which of the colours and dashes of `utils.charts` it has.
LINES = {
    "activation": ("foreground activation", 0),
    "entropy": ("entropy", 1),
    "background_activation": ("background activation", 2),
}
# Those of the left axes, a chart each: their raw values are of different sizes. The right axis is the activation's.
PAIRED = ("entropy", "background_activation")
PICTURE_AXIS = "the mask's share of the picture"
LETTERS = "abc"
SHARPNESS = 2  # dots to a pixel of a README
GRID_POINTS = 101
VEIL = 0.82  # how white the picture is outside the mask


def save_motivation(path: Path, example: Example) -> Path:
    """One picture: three masks above, below them the curves over the mask's share of the whole picture.

    Args:
        path: a PNG or SVG file.
        example: of :func:`utils.exploratory.examples.read_example`.

    Raises:
        UserError: matplotlib is missing, or the file cannot be written.
    """
    figure = new_figure(8, 5.4)
    above, below = figure.subfigures(2, 1, height_ratios=(2.4, 3))
    titles = ("part of the object", "the object", "more than the object")
    for column, (letter, title) in enumerate(zip(LETTERS, titles, strict=True)):
        share = example.curve.areas[example.positions[column]]
        _show_mask(above.add_subplot(1, 3, column + 1), example, column, f"({letter}) {title}, {100 * share:.0f} %")
    charts = [_draw_curve(below.add_subplot(1, 2, number), name, example) for number, name in enumerate(PAIRED, 1)]
    _label(charts, PICTURE_AXIS)
    _add_legend(below, charts)
    return save_figure(path, figure, SHARPNESS)


def save_experiment(path: Path, curves: Sequence[Curve], examples: Sequence[Example]) -> Path:
    """Examples as in :func:`save_motivation`, with axes in common, and below them the mean over all pictures.

    Args:
        path: a PNG or SVG file.
        curves: of all pictures.
        examples: one or more, side by side.

    Raises:
        UserError: matplotlib is missing, or the file cannot be written.
    """
    figure = new_figure(8, 7.6)
    above, below = figure.subfigures(2, 1, height_ratios=(4.6, 3))
    grid = above.add_gridspec(3, 3 * len(examples), height_ratios=(1, 1.7, 1.7))
    for number, example in enumerate(examples):
        for column, letter in enumerate(LETTERS):
            title = f"{example.name} ({letter})" if letter == LETTERS[1] else f"({letter})"
            _show_mask(above.add_subplot(grid[0, 3 * number + column]), example, column, title)
    for row, name in enumerate(PAIRED, 1):
        places = [grid[row, 3 * number : 3 * number + 3] for number in range(len(examples))]
        charts = [
            _draw_curve(above.add_subplot(place), name, example)
            for place, example in zip(places, examples, strict=True)
        ]
        is_last = name == PAIRED[-1]
        _label(charts, PICTURE_AXIS if is_last else "")
        _share_sides(charts)
        for chart in charts:
            chart.left.tick_params(axis="x", labelbottom=is_last)

    shares, means = mean_curves(curves)
    charts = [_draw_mean(below.add_subplot(1, 2, number), name, shares, means) for number, name in enumerate(PAIRED, 1)]
    pictures = "1 picture" if len(curves) == 1 else f"{len(curves)} pictures"
    below.suptitle(
        f"mean of {pictures}, as far as the masks of each can grow; shaded: from quartile to quartile",
        fontsize=FONT_SIZE,
        color=INK,
    )
    _label(charts, "the mask's area as a share of the object's own")
    _add_legend(below, charts)
    return save_figure(path, figure, SHARPNESS)


def save_figures(
    folder: Path,
    curves: Sequence[Curve],
    split: Split,
    recipe: Recipe,
    ids: Sequence[str] = (),
    suffix: str = ".png",
) -> list[Path]:
    """Saves `motivation` and `experiment`.

    Args:
        folder: where to.
        curves: of all pictures, measured or read again by :func:`utils.exploratory.records.read_curves`.
        split: their pictures.
        recipe: the sizes at which they were measured.
        ids: the examples, the first one for `motivation`; those of
            :func:`utils.exploratory.examples.choose_examples` where empty.
        suffix: `.png` or `.svg`.

    Returns:
        The two files.

    Raises:
        UserError: an example was not measured or cannot be read; matplotlib is missing; a file cannot be written.
    """
    chosen = find_curves(curves, ids) if ids else choose_examples(curves)
    examples = [read_example(curve, split, recipe) for curve in chosen]
    return [
        save_motivation(folder / f"motivation{suffix}", examples[0]),
        save_experiment(folder / f"experiment{suffix}", curves, examples),
    ]


def mean_curves(curves: Sequence[Curve]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Mean and quartiles of each measure over pictures, at shares of the object's own area.

    Between two masks a picture's curve is taken as straight. A picture counts as far as its full mask reaches.

    Args:
        curves: at least one.

    Returns:
        (101,) shares from 0 up to where half of the pictures still have values; and measure -> (3, 101): the mean, the
        lower and the upper quartile of the pictures that have a value there.
    """
    # Rounded down, so that a full mask is not missed by the last bit.
    last = np.nextafter(np.quantile([1 / curve.own_area for curve in curves], 0.5, method="lower"), 0)
    shares = np.linspace(0, last, GRID_POINTS)
    found = {}
    for name in LINES:
        values = np.stack(
            [np.interp(shares, curve.relative_areas, getattr(curve, name), right=np.nan) for curve in curves]
        )
        found[name] = np.stack([np.nanmean(values, axis=0), *np.nanquantile(values, (0.25, 0.75), axis=0)])
    return shares, found


class Chart(NamedTuple):
    """A chart with two upright axes: of entropy or background activation, and of the foreground's activation."""

    name: str
    left: Axes
    right: Axes


def _show_mask(axes: Axes, example: Example, column: int, title: str) -> None:
    """The picture, almost white outside the mask, with the object's outline."""
    outside = ~example.masks[column][..., None]
    veiled = example.image + outside * VEIL * (255.0 - example.image)
    axes.imshow(veiled.round().astype(np.uint8), interpolation="bilinear")
    if not example.masks[1].all():
        axes.contour(example.masks[1], levels=[0.5], colors=[INK], linewidths=0.9)
    axes.set_title(title, fontsize=FONT_SIZE, color=INK, pad=4, parse_math=False)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(GRID)


def _draw_curve(axes: Axes, name: str, example: Example) -> Chart:
    """The curves of one picture over the mask's share of it; the masks that are shown are marked by their letters."""
    curve = example.curve
    chart = _prepare(axes, name, curve.own_area)
    for side, measure in ((chart.left, name), (chart.right, "activation")):
        side.plot(curve.areas, getattr(curve, measure), **_style(measure))
    for letter, position in zip(LETTERS, example.positions, strict=True):
        axes.annotate(
            letter,
            (curve.areas[position], 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            horizontalalignment="center",
            fontsize=9,
            color=INK,
        )
    axes.set_xlim(0, 1)
    return chart


def _draw_mean(axes: Axes, name: str, shares: np.ndarray, means: Mapping[str, np.ndarray]) -> Chart:
    chart = _prepare(axes, name, 1)
    for side, measure in ((chart.left, name), (chart.right, "activation")):
        mean, low, high = means[measure]
        side.fill_between(shares, low, high, color=_style(measure)["color"], alpha=0.16, linewidth=0)
        side.plot(shares, mean, **_style(measure))
    axes.set_xlim(0, shares[-1])
    return chart


def _prepare(axes: Axes, name: str, own: float) -> Chart:
    """A left and a right axis over light grid lines, and a dashed line at the object's own area."""
    right = axes.twinx()
    for side, spine in ((axes, "left"), (right, "right")):
        side.spines[:].set_visible(False)
        side.spines[["bottom", spine]].set_visible(True)
        side.spines[["bottom", spine]].set_color(GRID)
        side.tick_params(colors=INK, labelsize=9)
        side.yaxis.get_major_locator().set_params(nbins=5)
    axes.grid(color=GRID, alpha=0.35, linewidth=0.8)
    axes.axvline(own, color=INK, linestyle=(0, (4, 3)), linewidth=1, label="the object's own area")
    return Chart(name, axes, right)


def _style(measure: str) -> dict[str, Any]:
    label, number = LINES[measure]
    dashes = DASHES[number]
    line = (0, dashes) if dashes else "solid"
    return {"label": label, "color": COLOURS[number], "linestyle": line, "linewidth": 1.9}


def _label(charts: Sequence[Chart], x_label: str) -> None:
    """Names the axes, the upright ones in their lines' colours."""
    for chart in charts:
        chart.left.set_xlabel(x_label, fontsize=FONT_SIZE, color=INK)
        for side, measure in ((chart.left, chart.name), (chart.right, "activation")):
            side.set_ylabel(LINES[measure][0], fontsize=FONT_SIZE, color=_style(measure)["color"])


def _share_sides(charts: Sequence[Chart]) -> None:
    """Gives charts side by side the same ranges, with ticks and names at the outer axes alone."""
    for sides in ([chart.left for chart in charts], [chart.right for chart in charts]):
        lows, highs = zip(*(side.get_ylim() for side in sides), strict=True)
        for side in sides:
            side.set_ylim(min(lows), max(highs))
    for inner in [chart.left for chart in charts[1:]] + [chart.right for chart in charts[:-1]]:
        inner.set_ylabel("")
        inner.tick_params(axis="y", length=0, labelleft=False, labelright=False)


def _add_legend(figure: SubFigure, charts: Sequence[Chart]) -> None:
    lines = {line.get_label(): line for chart in charts for side in chart[1:] for line in side.get_lines()}
    figure.legend(
        handles=lines.values(),
        loc="outside lower center",
        ncols=len(lines),
        frameon=False,
        fontsize=FONT_SIZE,
        labelcolor=INK,
        handlelength=2.8,
        columnspacing=1.5,
    )
