"""A sheet of pictures: rows of cells with words below them, and above them a key to the colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from utils.results.drawing import INK, lay_over
from utils.system.errors import UserError
from utils.system.files import write_atomically

SIDE, MARGIN, GROUP_GAP = 208, 6, 18  # pixels: of a picture, between two, and between two groups besides
FONT_SIZE = 16  # pixels; a README shows a sheet of six columns at two thirds of its size
SCALE = "the map's colours, from low to high"  # a sign of the key


class Cell(NamedTuple):
    """A picture with words below it."""

    image: np.ndarray  # (side, side, 3) uint8 RGB
    words: tuple[str, ...] = ()  # a line each, cut where it is wider than the picture


class Entry(NamedTuple):
    """What a sign means; without a sign, words alone."""

    words: str
    sign: tuple[int, int, int] | str | None = None  # a box's RGB, or `SCALE`


def draw_sheet(
    rows: Sequence[Sequence[Cell]],
    key: Sequence[Entry],
    side: int = SIDE,
    font_size: int = FONT_SIZE,
    columns: int = 0,
    group: int = 0,
) -> Image.Image:
    """Lays cells out on white.

    Args:
        rows: the cells; a row may be shorter than others.
        key: side by side above the cells, in as many lines as they need.
        side: of each cell's picture, in pixels.
        font_size: in pixels.
        columns: the sheet is at least as wide as so many cells.
        group: a wider gap follows each so many columns; 0 for none.

    Raises:
        UserError: matplotlib, whose font is used, is missing.
    """
    font, line = find_font(font_size), font_size + 4
    columns = max(columns, *map(len, rows))
    lefts = [MARGIN + n * (side + MARGIN) + (n // group * GROUP_GAP if group else 0) for n in range(columns)]
    width = lefts[-1] + side + MARGIN
    places, top = _lay_out_key(key, font, width, line + MARGIN)
    tops = [top]
    for row in rows:
        tops.append(tops[-1] + side + MARGIN + line * max(len(cell.words) for cell in row))
    sheet = Image.new("RGB", (width, tops[-1]), "white")
    draw = ImageDraw.Draw(sheet)
    for entry, (x, y) in zip(key, places, strict=True):
        _draw_entry(sheet, draw, entry, (x, y), font)
    for row, y in zip(rows, tops[:-1], strict=True):
        for cell, x in zip(row, lefts[: len(row)], strict=True):
            sheet.paste(Image.fromarray(cell.image), (x, y))
            for number, words in enumerate(cell.words):
                draw.text((x, y + side + 2 + number * line), fit(words, side, font), INK, font)
    return sheet


def save_sheet(path: Path, rows: Sequence[Sequence[Cell]], key: Sequence[Entry], group: int = 0) -> Path:
    """Draws a sheet and saves it as PNG; returns `path`.

    Raises:
        UserError: matplotlib, whose font is used, is missing, or the file cannot be written.
    """
    return write_atomically(path, draw_sheet(rows, key, group=group).save)


def find_font(size: int) -> ImageFont.FreeTypeFont:
    """The font that matplotlib brings along, as in charts; `size` in pixels."""
    try:
        from matplotlib import get_data_path
    except ImportError as error:
        raise UserError("the font is matplotlib's, which is missing; pip install -r requirements.txt") from error
    return ImageFont.truetype(str(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)


def fit(words: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """The words, cut where they would be wider than so many pixels."""
    if font.getlength(words) <= width:
        return words
    cuts = (f"{words[:end]}…" for end in range(len(words) - 1, -1, -1))
    return next((cut for cut in cuts if font.getlength(cut) <= width), "")


def _sign_width(entry: Entry) -> int:
    return 0 if entry.sign is None else 80 if entry.sign == SCALE else 18


def _lay_out_key(
    key: Sequence[Entry], font: ImageFont.FreeTypeFont, width: int, line: int
) -> tuple[list[tuple[int, int]], int]:
    """Left and top of each entry, and where the last line of them ends."""
    places, x, y = [], MARGIN, MARGIN
    for entry in key:
        taken = _sign_width(entry) + MARGIN + round(font.getlength(entry.words))
        if x > MARGIN and x + taken > width:
            x, y = MARGIN, y + line
        places.append((x, y))
        x += taken + 4 * MARGIN
    return places, y + line


def _draw_entry(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, entry: Entry, at: tuple[int, int], font: ImageFont.FreeTypeFont
) -> None:
    (x, y), sign_width, height = at, _sign_width(entry), round(font.size)
    if entry.sign == SCALE:
        values = np.tile(np.linspace(0, 1, sign_width), (height - 2, 1))
        sheet.paste(Image.fromarray(lay_over(np.full(values.shape, 128, np.uint8), values)), (x, y + 2))
    elif entry.sign is not None:
        draw.rectangle((x, y + 3, x + sign_width - 2, y + height - 1), outline=entry.sign, width=3)
    words = fit(entry.words, sheet.width - x - sign_width - MARGIN, font)
    draw.text((x + sign_width + (MARGIN if sign_width else 0), y), words, INK, font)
