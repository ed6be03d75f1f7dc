"""Protects what one sees: maps over pictures, boxes and their words, sheets of them."""

import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from utils.results.drawing import PREDICTED_COLOUR, TRUE_COLOUR, draw_boxes, overlay_map
from utils.results.sheet import GROUP_GAP, MARGIN, SCALE, Cell, Entry, draw_sheet, find_font, fit
from utils.system.errors import UserError


def test_overlay_covers_the_map_region_alone():
    """Protects the overlay's place: a peak of the map lights up its share of the region, the rest stays the picture."""
    picture = np.random.default_rng(0).integers(0, 256, (128, 256, 3), dtype=np.uint8)
    peak = np.zeros((4, 4))
    peak[0, 3] = 1
    shown = overlay_map(picture, peak, share=0.5)
    outside = np.ones((128, 256), bool)
    outside[32:96, 64:192] = False
    assert (shown[outside] == picture[outside]).all()
    brightness = cv2.resize(shown[32:96, 64:192].sum(axis=-1).astype(np.float64), (4, 4), interpolation=cv2.INTER_AREA)
    assert np.unravel_index(brightness.argmax(), (4, 4)) == (0, 3)


def test_overlay_is_brighter_where_the_map_is_higher():
    """Protects colour-blind readers: on white as on black, brightness alone orders the map."""
    for level in (0, 255):
        shown = overlay_map(np.full((8, 256, 3), level, np.uint8), np.tile(np.linspace(0, 1, 256), (8, 1)))
        brightness = shown[4].astype(np.float64) @ [0.2126, 0.7152, 0.0722]
        steps = np.diff(brightness[::16])
        assert (steps > 0).all() and brightness[-1] - brightness[0] > 90


@pytest.mark.parametrize("level", [0, 128, 255])
def test_boxes_stand_out_on_any_picture(level):
    """Protects legibility: each box's line has a light and a dark neighbour, on black, grey and white."""
    picture = np.full((200, 200, 3), level, np.uint8)
    draw_boxes(picture, [(20, 40, 120, 160)], (60.0, 30.0, 180.0, 150.0))
    for colour, row, left in ((TRUE_COLOUR, 100, 20), (PREDICTED_COLOUR, 100, 60)):
        line = picture[row, left - 4 : left + 5]
        assert (line == colour).all(axis=-1).any() and line.max() == 255 and line.max(axis=-1).min() <= 34


def test_boxes_carry_their_words():
    """Protects readers who tell no colours apart: each box has a plate with ink on it."""
    picture = np.full((200, 200, 3), 255, np.uint8)
    draw_boxes(picture, [(20, 40, 120, 160)], (60, 30, 180, 150))
    for colour, plate in ((TRUE_COLOUR, picture[27:40, 22:45]), (PREDICTED_COLOUR, picture[150:163, 150:178])):
        assert (plate == colour).all(axis=-1).mean() > 0.3 and (plate.max(axis=-1) < 60).mean() > 0.05


def make_cell(level: int, *words: str) -> Cell:
    return Cell(np.full((48, 48, 3), level, np.uint8), words)


def inked(sheet: Image.Image) -> np.ndarray:
    """Where a sheet is dark."""
    return np.asarray(sheet).max(axis=2) < 128


def test_sheet_lays_cells_out_in_rows():
    """Protects every sheet: pictures whole and in their order, words below their own picture, cut to its width."""
    rows = [[make_cell(180, "W" * 40, "second"), make_cell(190)], [make_cell(200, "one")]]
    sheet = draw_sheet(rows, [Entry("key")], side=48, font_size=14)
    array, top, line = np.asarray(sheet), 2 * MARGIN + 18, 18
    below = top + 48 + MARGIN + 2 * line
    assert sheet.size == (MARGIN + 2 * (48 + MARGIN), below + 48 + MARGIN + line)
    for y, column, level in ((top, 0, 180), (top, 1, 190), (below, 0, 200)):
        x = MARGIN + column * (48 + MARGIN)
        assert (array[y : y + 48, x : x + 48] == level).all()
    words = inked(sheet)[top + 48 : below]
    assert words[:line, MARGIN : MARGIN + 48].any() and words[line:, MARGIN : MARGIN + 48].any()
    assert not words[:, MARGIN + 48 :].any()
    assert (array[below:, 2 * MARGIN + 48 :] == 255).all()  # a shorter row ends in white


def test_sheet_leaves_room_between_groups_and_for_columns():
    """Protects the reader: groups stand apart, and few pictures do not make a narrow sheet."""
    cells = [make_cell(200)] * 4
    plain, grouped, wide = (
        draw_sheet([row], [], side=48, **more)
        for row, more in ((cells, {}), (cells, {"group": 2}), (cells[:1], {"columns": 9}))
    )
    assert grouped.width == plain.width + GROUP_GAP and wide.width == MARGIN + 9 * (48 + MARGIN)
    middle = np.asarray(grouped)[-30, 2 * (48 + MARGIN) :][: MARGIN + GROUP_GAP]
    assert (middle == 255).all()


@pytest.mark.parametrize("columns", [2, 6, 20])
def test_key_is_whole_at_any_width(columns: int):
    """Protects the key: signs and words stay on the sheet and above the pictures, in as many lines as they need."""
    entries = [Entry("true box", TRUE_COLOUR), Entry("map, low to high", SCALE), Entry("words alone"), Entry("more")]
    sheet = draw_sheet([[make_cell(255)] * columns], entries, side=48, font_size=14)
    lines = {2: 4, 6: 2, 20: 1}[columns]
    assert sheet.height == MARGIN + lines * (18 + MARGIN) + 48 + MARGIN
    ink = inked(sheet)
    assert not ink[-48 - MARGIN :].any() and not ink[:, -2:].any()
    assert (np.asarray(sheet) == TRUE_COLOUR).all(axis=2).sum() > 50


@pytest.mark.parametrize(("width", "expected"), [(1000, "a long name"), (60, "a long…"), (14, "…"), (5, "")])
def test_words_are_cut_to_a_width(width: int, expected: str):
    """Protects captions: they end in an ellipsis where there is no room."""
    font = find_font(14)
    assert fit("a long name", width, font) == expected and font.getlength(expected) <= width


def test_without_matplotlib(monkeypatch):
    """Protects an old installation: one sentence that names what is missing."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match="matplotlib's, which is missing; pip install"):
        draw_sheet([[make_cell(1)]], [])
