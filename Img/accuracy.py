"""The chart of published results, BAS beside CAM, with what a run measured apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.data.class_names import short_name
from utils.data.dataset import Dataset
from utils.metrics import METRICS
from utils.models.registry import BACKBONES
from utils.results.charts import COLOURS, GRID, new_figure, save_figure
from utils.results.charts import DARK_INK as INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Backbone -> method (`CAM`, `BAS`, or one of them) -> metric (`top1_loc`, `gt_known_loc`) -> percent.
Results = Mapping[str, Mapping[str, Mapping[str, float]]]

SHOWN = ("top1_loc", "gt_known_loc")
# Solid and hatched: told apart in grey as well.
BARS: dict[str, dict[str, Any]] = {
    "CAM": {"facecolor": "white", "edgecolor": COLOURS[1], "hatch": "////"},
    "BAS": {"facecolor": COLOURS[0], "edgecolor": COLOURS[0]},
}
WIDTH, HEIGHT, PIXELS_PER_INCH = 8.8, 4.9, 100  # inches, as a README shows them
SHADE = "#f0f0f0"  # the ground of what was measured
SHARPNESS = 2  # dots to a pixel of a README
BAR = 0.38  # of the distance between backbones
LONGEST_NAME = 14  # of a data set


def collect_published(datasets: Iterable[Dataset]) -> dict[str, Results]:
    """The CVPR paper's figures, as far as there are: data set -> :data:`Results`."""
    collected: dict[str, Results] = {}
    for dataset in datasets:
        of_arch = {}
        for arch in dataset.archs:
            published, cam = dataset.published(arch), dataset.published_cam(arch)
            if published is not None and cam is not None:
                of_arch[BACKBONES[arch].title] = {"CAM": asdict(cam), "BAS": asdict(published)}
        if of_arch:
            collected[dataset.title] = of_arch
    return collected


def draw_accuracy(path: Path, published: Mapping[str, Results], measured: Mapping[str, Results] | None = None) -> Path:
    """Draws Top-1 Loc and GT-known Loc as bars, CAM beside BAS, a column of charts for each data set; returns `path`.

    Args:
        path: the picture to write, 880 pixels wide in a README.
        published: data set -> what the paper reports, see :func:`collect_published`.
        measured: the same of one's own, on grey, right of the published column of the same data set or at the end;
            none where None.

    Raises:
        UserError: matplotlib is missing, or the file cannot be written.
    """
    figure = build_accuracy_figure(published, measured or {})
    return save_figure(path, figure, SHARPNESS)


def build_accuracy_figure(published: Mapping[str, Results], measured: Mapping[str, Results]) -> Figure:
    """The chart, not saved yet; arguments and errors as for :func:`draw_accuracy`."""
    columns = []
    for name in dict.fromkeys([*published, *measured]):
        columns += [(name, published[name], False)] if name in published else []
        columns += [(name, measured[name], True)] if name in measured else []
    figure = new_figure(WIDTH, HEIGHT)
    figure.set_dpi(PIXELS_PER_INCH)
    widths = [len(results) + 0.6 for _, results, _ in columns]
    places = figure.subplots(len(SHOWN), len(columns), sharey=True, squeeze=False, width_ratios=widths)
    for column, (name, results, is_measured) in enumerate(columns):
        for axes, metric in zip(places[:, column], SHOWN, strict=True):
            _draw_bars(axes, results, metric)
            if is_measured:
                axes.set_facecolor(SHADE)
        title = f"{short_name(name, LONGEST_NAME)}\n{'measured here' if is_measured else 'published'}"
        places[0, column].set_title(title, fontsize=10, color=INK, parse_math=False)
    for axes, metric in zip(places[:, 0], SHOWN, strict=True):
        axes.set_ylabel(f"{METRICS[metric]}, percent", fontsize=10, color=INK)
    handles, labels = places[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False, fontsize=10, labelcolor=INK)
    return figure


def _draw_bars(axes: Axes, results: Results, metric: str) -> None:
    """One metric's bars with their values above; the axis begins at 0."""
    methods = [method for method in BARS if any(method in of_backbone for of_backbone in results.values())]
    for number, method in enumerate(methods):
        shift = (number - (len(methods) - 1) / 2) * (BAR + 0.04)
        known = {place: one[method][metric] for place, one in enumerate(results.values()) if method in one}
        values = list(known.values())
        bars = axes.bar([place + shift for place in known], values, BAR, label=method, linewidth=1, **BARS[method])
        axes.bar_label(bars, [_round(value) for value in values], fontsize=8.5, padding=1, color=INK)
    axes.set(xlim=(-0.6, len(results) - 0.4), ylim=(0, 108))
    axes.set_xticks(range(len(results)), results, fontsize=9, color=INK)
    axes.set_yticks(range(0, 101, 25))
    axes.tick_params(axis="y", labelsize=8.5, labelcolor=INK, color=GRID, length=0)
    axes.tick_params(axis="x", length=0)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=GRID, alpha=0.35, linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)


def _round(percent: float) -> str:
    """One decimal, halves up as people round: 77.25 becomes 77.3."""
    return str(Decimal(str(percent)).quantize(Decimal("0.1"), ROUND_HALF_UP))
