"""`curves.png`: the figures of a run's epochs as small multiples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.results.charts import INK, draw_lines, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 3
PANEL_WIDTH, PANEL_HEIGHT = 3.0, 2.2  # inches


@dataclass(frozen=True)
class Panel:
    """One chart: its title, and the name of each line with the keys that lead to its value in an epoch's entry."""

    title: str
    lines: Mapping[str, tuple[str, ...]]
    factor: float = 1.0
    is_log: bool = False
    is_count: bool = False  # whole numbers from 0


def _single(title: str, key: str, **more: Any) -> Panel:
    return Panel(title, {title: (key,)}, **more)


PANELS = (
    _single("L_cls", "cls"),
    _single("L_frg", "frg"),
    _single("L_bas", "bas"),
    _single("L_ac", "area"),
    Panel("classes with dead maps", {"dead maps": ("dead_maps", "count")}, is_count=True),
    _single("Top-1 Cls in training, %", "accuracy"),
    Panel("pixels of test pictures, %", {"PxAP": ("test", "pixels", "px_ap"), "pixel IoU": ("test", "pixels", "iou")}),
    Panel(
        "test pictures (mean over images), %",
        {
            "GT-known Loc": ("test", "gt_known_loc", "image_mean"),
            "Top-1 Loc": ("test", "top1_loc", "image_mean"),
            "Top-1 Cls": ("test", "top1_cls", "image_mean"),
        },
    ),
    _single("learning rate", "lr", is_log=True),
    _single("pictures a second", "images_per_second"),
    _single("time spent waiting for pictures, %", "data_wait", factor=100),
)


def draw_curves(entries: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Draws a run's epochs: losses by name, accuracy, Loc where it was evaluated, rate, speed and waiting.

    Args:
        entries: of :class:`utils.training.log.RunLog`, one an epoch; lines pass over what an epoch lacks.

    Returns:
        A figure with a panel for whatever has values; None where nothing has.

    Raises:
        UserError: matplotlib is missing.
    """
    epochs = [entry["epoch"] for entry in entries]
    drawn = []
    for panel in PANELS:
        lines = {name: [_value(entry, keys, panel) for entry in entries] for name, keys in panel.lines.items()}
        lines = {name: values for name, values in lines.items() if any(value is not None for value in values)}
        if lines:
            drawn.append((panel, lines))
    if not drawn:
        return None
    rows = math.ceil(len(drawn) / COLUMNS)
    figure = new_figure(COLUMNS * PANEL_WIDTH, rows * PANEL_HEIGHT)
    for number, (panel, lines) in enumerate(drawn, 1):
        axes = figure.add_subplot(rows, COLUMNS, number)
        draw_lines(axes, panel.title, epochs, lines)
        if panel.is_log:
            axes.set_yscale("log")
        if panel.is_count:
            axes.set_ylim(0, max(1.05, axes.get_ylim()[1]))
            axes.locator_params("y", integer=True)
        margin = 0.03 * (epochs[-1] - epochs[0]) or 0.5
        axes.set_xlim(epochs[0] - margin, epochs[-1] + margin)  # the same for all, to be read across
        axes.locator_params("x", integer=True)
        if number > len(drawn) - COLUMNS:
            axes.set_xlabel("epoch", fontsize=9, color=INK)
        if len(lines) > 1:
            axes.legend(fontsize=8, framealpha=0.8, handlelength=2.5)
    return figure


def save_curves(path: Path, entries: Sequence[Mapping[str, Any]]) -> Path | None:
    """Saves :func:`draw_curves` by write-then-rename, if there is anything to draw.

    Raises:
        UserError: matplotlib is missing, or the file cannot be written.
    """
    figure = draw_curves(entries)
    return None if figure is None else save_figure(path, figure)


def _value(entry: Mapping[str, Any], keys: Sequence[str], panel: Panel) -> float | None:
    value: Any = entry
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    if value is None or panel.is_log and value <= 0:
        return None
    return panel.factor * value
