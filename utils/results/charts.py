"""Charts of sweeps, runs and reports, by matplotlib: without a display, told apart by colour-blind readers."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.system.errors import UserError
from utils.system.files import write_atomically, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind readers; each line has a dash pattern of its own as well.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
# Lengths of dash and gap, in line widths.
DASHES = ("", (3.5, 1.5), (1, 1.5), (4.5, 1.5, 1, 1.5), (2, 2), (0.5, 2))
INK, GRID = "#666666", "#999999"  # legible on a light and on a dark page
DARK_INK = "#222222"  # of what has a white ground of its own
WIDTH, HEIGHT, LEGEND_LINE = 5.8, 3.5, 0.22  # inches
DOTS_PER_INCH = 110
BINS = 20


def new_figure(width: float, height: float) -> Figure:
    """An empty figure that belongs to no window and to no list of open figures.

    Args:
        width, height: in inches, of 110 dots in pixel files.

    Raises:
        UserError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure  # here, because it takes half a second and few commands draw
    except ImportError as error:
        raise UserError("charts are drawn by matplotlib, which is missing; pip install -r requirements.txt") from error
    return Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")


def draw_lines(axes: Axes, title: str, x: Sequence[float], series: Mapping[str, Sequence[float | None]]) -> None:
    """Draws lines over light grid lines.

    Args:
        axes: an empty place in a figure.
        title: above it; taken literally, as all texts are.
        x: n ascending numbers.
        series: name -> n values; a line passes over those that are None. Their ids are series_1 and so on.
    """
    _prepare(axes, title)
    for number, (name, values) in enumerate(series.items()):
        dashes = DASHES[number % len(DASHES)]
        points = [(a, b) for a, b in zip(x, values, strict=True) if b is not None]
        marker = "o" if len(points) <= 30 else ""  # one point alone makes no line
        look: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)], "linewidth": 1.8}
        look |= {"linestyle": (0, dashes) if dashes else "solid", "marker": marker, "markersize": 3}
        look |= {"label": name, "gid": f"series_{number + 1}"}
        axes.plot(*np.array(points, dtype=float).reshape(-1, 2).T, **look)


def _prepare(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10, loc="left", color=INK, parse_math=False)
    axes.tick_params(which="both", colors=INK, labelsize=9)
    axes.set_axisbelow(True)
    axes.grid(color=GRID, alpha=0.35, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)


def draw_chart(curve: Mapping[str, Any]) -> Figure:
    """Draws one chart, whose key says where each line is highest.

    Args:
        curve: `title`, `x_label`, `x` (n ascending numbers), `series` (name -> n values, percent), and perhaps
            `y_label` and `mark`, an x to be marked by an upright line.

    Raises:
        UserError: matplotlib is missing.
    """
    figure = new_figure(WIDTH, HEIGHT + LEGEND_LINE * len(curve["series"]))
    axes = figure.add_subplot()
    x, series = curve["x"], curve["series"]
    draw_lines(axes, curve["title"], x, {_name_highest(name, y, x): y for name, y in series.items()})
    axes.set_xlabel(curve["x_label"], color=INK, parse_math=False)
    axes.set_ylabel(curve.get("y_label", ""), color=INK, parse_math=False)
    mark = curve.get("mark")
    if mark is not None:
        axes.axvline(mark, color=INK, linestyle=(0, (3, 3)), linewidth=1, gid="mark")
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.1 * (high - low))  # room for the words above the lines
        low, high = axes.get_xlim()
        is_right = mark > (low + high) / 2
        shift, side = ((-5, -4), "right") if is_right else ((5, -4), "left")
        place: dict[str, Any] = {"xytext": shift, "xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        axes.annotate(f"in force: {mark:g}", (mark, 1), ha=side, va="top", fontsize=9, color=INK, **place)
    look: dict[str, Any] = {"frameon": False, "fontsize": 9, "labelcolor": INK, "handlelength": 3}
    legend = figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", **look)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _name_highest(name: str, values: Sequence[float | None], x: Sequence[float]) -> str:
    """A line's name with its highest value, the first of several, and where that is."""
    known = [(value, -place) for place, value in enumerate(values) if value is not None]
    if not known:
        return name
    value, place = max(known)
    return f"{name}, highest {value:.5g} at {x[-place]:.5g}"


def draw_histogram(ious: Sequence[float], of_pixels: bool = False) -> Figure:
    """Draws how many predicted boxes have which IoU with the nearest true box.

    Args:
        ious: n numbers in [0, 1], n >= 1.
        of_pixels: whether they are those of maps with masks.

    Raises:
        UserError: matplotlib is missing.
    """
    figure = new_figure(WIDTH, HEIGHT)
    axes = figure.add_subplot()
    right = f"{sum(value > 0.5 for value in ious):,} of {len(ious):,}"
    what = "maps" if of_pixels else "predicted boxes"
    _prepare(axes, f"{right} {what} with IoU above 0.5; median {np.median(ious):.2f}")
    counts, edges = np.histogram(ious, BINS, (0, 1))
    bars = axes.bar(edges[:-1] + 0.5 / BINS, counts, 0.92 / BINS, color=COLOURS[5])
    axes.bar_label(bars, [str(count) if count else "" for count in counts], fontsize=7, color=INK, padding=1)
    axes.axvline(0.5, color=INK, linestyle=(0, (3, 3)), linewidth=1)
    axes.set_xlabel("IoU of pixels with the mask" if of_pixels else "IoU with the nearest true box", color=INK)
    axes.set_ylabel("pictures", color=INK)
    return figure


def save_figure(path: Path, figure: Figure, sharpness: float = 1) -> Path:
    """Saves a figure, by write-then-rename, in the format of the file's suffix.

    SVG has texts as text and no background, for light and dark pages; pixels are on white.

    Args:
        path: the file.
        figure: what to draw.
        sharpness: how many times as fine as its own are the dots of a pixel file.

    Raises:
        UserError: the file cannot be written.
    """
    if path.suffix == ".svg":
        return write_text(path, to_svg(figure, path.stem))
    dots = sharpness * figure.dpi
    return write_atomically(path, lambda temporary: figure.savefig(temporary, facecolor="white", dpi=dots))


def to_svg(figure: Figure, name: str) -> str:
    """A figure as SVG, with texts as text and no background; the same characters for the same figure and name."""
    from matplotlib import rc_context

    text = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return text.getvalue()


def inline_svg(figure: Figure, name: str) -> str:
    """A figure as an element of an HTML page, with ids that begin with `name` and are no other figure's there."""
    svg = to_svg(figure, name)
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}_", svg)


def save_charts(folder: Path, stem: str, curves: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Saves each curve as `<folder>/<stem>_<n>.svg`, n from 1.

    Raises:
        UserError: matplotlib is missing, or a file cannot be written.
    """
    return [save_figure(folder / f"{stem}_{number}.svg", draw_chart(curve)) for number, curve in enumerate(curves, 1)]
