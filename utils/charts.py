"""Line charts as SVG text: no plotting library, legible in any browser, on a light or a dark page."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.files import write_text

# Okabe and Ito's colours, told apart by colour-blind readers; each line has a dash pattern of its own as well.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 4", "1 4")
WIDTH, HEIGHT = 560, 320
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 36, 48
LEGEND_LINE = 18


def draw_chart(curve: Mapping[str, Any]) -> str:
    """Draws one chart.

    Args:
        curve: `title`, `x_label`, `x` (n ascending numbers), `series` (name -> n values, percent), and perhaps
            `y_label` and `mark`, an x to be marked by an upright line.

    Returns:
        An `<svg>` element of its own.
    """
    x, series = list(curve["x"]), {str(name): list(values) for name, values in curve["series"].items()}
    ticks_x, ticks_y = nice_ticks(min(x), max(x)), nice_ticks(*_limits(series.values()))
    low_x, high_x = min(x[0], ticks_x[0]), max(x[-1], ticks_x[-1])
    low_y, high_y = ticks_y[0], ticks_y[-1]
    height = HEIGHT + LEGEND_LINE * len(series)
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT

    def at(a: float, b: float) -> tuple[float, float]:
        across = (a - low_x) / ((high_x - low_x) or 1)
        up = (b - low_y) / ((high_y - low_y) or 1)
        return LEFT + across * (right - LEFT), bottom - up * (bottom - TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12" fill="#666" role="img">',
        f"<title>{html.escape(curve['title'])}</title>",
        _text(LEFT, 20, curve["title"], 'font-size="14" font-weight="bold"'),
        _text((LEFT + right) / 2, HEIGHT - 10, curve["x_label"], 'text-anchor="middle"'),
    ]
    if curve.get("y_label"):
        middle = (TOP + bottom) / 2
        rotated = f'text-anchor="middle" transform="rotate(-90 14 {middle:g})"'
        parts.append(_text(14, middle, curve["y_label"], rotated))
    for value in ticks_y:
        _, y = at(low_x, value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#999" stroke-opacity=".35"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{value:g}", 'text-anchor="end"'))
    for value in ticks_x:
        across, _ = at(value, low_y)
        parts.append(f'<path d="M{across:.1f} {bottom}v5" stroke="#999"/>')
        parts.append(_text(across, bottom + 18, f"{value:g}", 'text-anchor="middle"'))
    if curve.get("mark") is not None:
        across, _ = at(curve["mark"], low_y)
        parts.append(f'<path d="M{across:.1f} {TOP}V{bottom}" stroke="#666" stroke-dasharray="3 3"/>')
        anchor = "end" if across > (LEFT + right) / 2 else "start"
        shift = -5 if anchor == "end" else 5
        parts.append(_text(across + shift, TOP + 10, f"in force: {curve['mark']:g}", f'text-anchor="{anchor}"'))
    for number, (name, values) in enumerate(series.items()):
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
        line = f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in (at(*pair) for pair in zip(x, values, strict=True)))
        parts.append(f'<polyline points="{points}" {line}/>')
        y = HEIGHT + LEGEND_LINE * number + 2
        parts.append(f'<path d="M{LEFT} {y}h28" {line}/>')
        parts.append(_text(LEFT + 36, y + 4, name))
    return "\n".join([*parts, "</svg>"])


def save_charts(folder: Path, stem: str, curves: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Saves each curve as `<folder>/<stem>_<n>.svg`, n from 1."""
    return [
        write_text(folder / f"{stem}_{number}.svg", draw_chart(curve) + "\n") for number, curve in enumerate(curves, 1)
    ]


def nice_ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers that enclose [low, high], about as many as asked for."""
    span = high - low or 1.0
    power = 10 ** math.floor(math.log10(span / about))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= about)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, max(last, first + 1) + 1)]


def _limits(series: Sequence[Sequence[float]]) -> tuple[float, float]:
    values = [value for one in series for value in one]
    return min(values), max(values)


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{html.escape(text)}</text>'
