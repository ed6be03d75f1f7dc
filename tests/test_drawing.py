"""Protects what one sees: maps over pictures, boxes and their words, sheets of them."""

import cv2
import numpy as np
import pytest

from utils.drawing import PREDICTED_COLOUR, TRUE_COLOUR, Panel, draw_boxes, draw_sheet, overlay_map


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


def test_sheet_draws_boxes_as_thumbnails_do():
    """Protects the one way of drawing: a sheet's cell shows the boxes and words that `draw_boxes` draws."""
    image = np.full((168, 168, 3), 90, np.uint8)
    panel = Panel(image, "caption", None, np.array([[20.0, 30.0, 100.0, 120.0]]), np.array([30, 40, 140, 150]))
    sheet = draw_sheet([[panel, panel], [panel]])
    expected = image.copy()
    draw_boxes(expected, panel.true_boxes, panel.predicted_box)
    assert (sheet[28 : 28 + 168, 6 : 6 + 168] == expected).all() and (expected != image).any()
