"""`motivation.png` and `experiment.png`: masks of growing area, and what the network makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.charts import DARK_INK, new_figure, save_figure
from utils.data.split import Split
from utils.exploratory.examples import Example, choose_examples, find_curves, read_example
from utils.exploratory.measure import PLACES, Curve
from utils.exploratory.panels import (
    FONT_SIZE,
    LETTERS,
    LINES,
    PAIRED,
    add_legend,
    draw_curve,
    draw_typical,
    hide_inner_sides,
    label_axes,
    share_limits,
    show_mask,
    write_heading,
)
from utils.models.recipe import Recipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

PICTURE_AXIS = "the mask's share of the picture"
TYPICAL_AXIS = "the area of the mask"
SHARPNESS = 2  # dots to a pixel of a README
POINTS = 101  # from no mask to the object, and as many from there to the whole picture
GAP = 0.09  # between two charts with names at all their axes, as a share of a chart's width


def build_motivation(example: Example, at: str = "features") -> Figure:
    """One picture: three masks above, below them the curves over the mask's share of the whole picture.

    Args:
        example: of :func:`utils.exploratory.examples.read_example`.
        at: what was masked, of `PLACES`.

    Raises:
        UserError: matplotlib is missing.
    """
    figure = new_figure(8, 5.6)
    above, below = figure.subfigures(2, 1, height_ratios=(2.5, 3))
    _entitle(above, f"masks laid on {PLACES[at]}")
    titles = ("part of the object", "the object", "more than the object")
    for column, (letter, title) in enumerate(zip(LETTERS, titles, strict=True)):
        share = example.curve.areas[example.positions[column]]
        show_mask(above.add_subplot(1, 3, column + 1), example, column, f"({letter}) {title}, {100 * share:.0f} %")
    charts = [draw_curve(axes, name, example) for axes, name in zip(_pair(below), PAIRED, strict=True)]
    share_limits(charts)
    label_axes(charts, PICTURE_AXIS)
    add_legend(below, charts)
    return figure


def build_experiment(curves: Sequence[Curve], examples: Sequence[Example], at: str = "features") -> Figure:
    """Examples as in :func:`build_motivation`, with axes in common, and below them what is typical of all pictures.

    Args:
        curves: of all pictures.
        examples: one or more, side by side.
        at: what was masked, of `PLACES`.

    Raises:
        UserError: matplotlib is missing.
    """
    figure = new_figure(8, 8)
    above, below = figure.subfigures(2, 1, height_ratios=(4.9, 3.1))
    _entitle(above, f"masks laid on {PLACES[at]}")
    grid = above.add_gridspec(4, 3 * len(examples), height_ratios=(0.16, 1, 1.7, 1.7))
    for number, example in enumerate(examples):
        write_heading(above.add_subplot(grid[0, 3 * number : 3 * number + 3]), example.name)
        for column, letter in enumerate(LETTERS):
            show_mask(above.add_subplot(grid[1, 3 * number + column]), example, column, f"({letter})")
    rows = []
    for row, name in enumerate(PAIRED, 2):
        places = [above.add_subplot(grid[row, 3 * number : 3 * number + 3]) for number in range(len(examples))]
        rows.append([draw_curve(place, name, example) for place, example in zip(places, examples, strict=True)])
        is_last = name == PAIRED[-1]
        label_axes(rows[-1], PICTURE_AXIS if is_last else "")
        hide_inner_sides(rows[-1])
        for chart in rows[-1]:
            chart.left.tick_params(axis="x", labelbottom=is_last)
    share_limits(sum(rows, []))

    places, typical = typical_curves(curves)
    charts = [draw_typical(axes, name, places, typical) for axes, name in zip(_pair(below), PAIRED, strict=True)]
    share_limits(charts)
    pictures = "1 picture" if len(curves) == 1 else f"all {len(curves)} pictures"
    _entitle(below, f"{pictures}; thick: the median, shaded: from quartile to quartile, thin: the mean")
    label_axes(charts, TYPICAL_AXIS)
    add_legend(below, charts)
    return figure


def save_figures(
    folder: Path,
    curves: Sequence[Curve],
    split: Split,
    recipe: Recipe,
    ids: Sequence[str] = (),
    at: str = "features",
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
        at: what was masked, of `PLACES`.
        suffix: `.png` or `.svg`.

    Returns:
        The two files.

    Raises:
        UserError: an example was not measured or cannot be read; matplotlib is missing; a file cannot be written.
    """
    chosen = find_curves(curves, ids) if ids else choose_examples(curves)
    examples = [read_example(curve, split, recipe) for curve in chosen]
    figures = {"motivation": build_motivation(examples[0], at), "experiment": build_experiment(curves, examples, at)}
    return [save_figure(folder / f"{name}{suffix}", figure, SHARPNESS) for name, figure in figures.items()]


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
        values = np.stack([np.interp(places, _places(curve), getattr(curve, name)) for curve in curves])
        typical[name] = np.concatenate([np.quantile(values, (0.5, 0.25, 0.75), axis=0), values.mean(axis=0)[None]])
    return places, typical


def _places(curve: Curve) -> np.ndarray:
    own = curve.own_area
    beyond = np.maximum(curve.areas - own, 0) / max(1 - own, np.finfo(float).tiny)
    return np.minimum(curve.relative_areas, 1) + beyond


def _pair(figure: SubFigure) -> list[Axes]:
    """Two places for charts side by side, far enough apart for the names of their neighbouring axes."""
    grid = figure.add_gridspec(1, 2, wspace=GAP)
    return [figure.add_subplot(place) for place in grid]


def _entitle(figure: SubFigure, words: str) -> None:
    figure.suptitle(words, fontsize=FONT_SIZE, color=DARK_INK)
