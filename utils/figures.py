"""Pictures of results: test images with map, predicted box and true boxes, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from utils.files import write_atomically
from utils.localization import normalize_map, upsample_map

# Colours of Okabe and Ito's palette, told apart by colour-blind readers; the white and dark rims make the lines legible
# on any picture.
TRUE_COLOUR = (0, 158, 115)
PREDICTED_COLOUR = (230, 159, 0)
INK = (32, 32, 32)
CELL = 168
MARGIN = 6
CAPTION = 20


@dataclass(frozen=True)
class Panel:
    """One cell of a sheet: a picture, perhaps under a map, with boxes.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        caption: a few words below.
        spatial_map: (h, w) drawn over the picture where given.
        true_boxes: (n, 4) xyxy in the picture's pixels.
        predicted_box: (4,) xyxy in the picture's pixels, or None.
    """

    image: np.ndarray
    caption: str
    spatial_map: np.ndarray | None
    true_boxes: np.ndarray
    predicted_box: np.ndarray | None


def overlay_map(image: np.ndarray, spatial_map: np.ndarray) -> np.ndarray:
    """Lays a normalised map over a picture: (S, S, 3) uint8 and (h, w) -> (S, S, 3) uint8, dark low, yellow high."""
    strength = upsample_map(normalize_map(spatial_map), image.shape[:2])
    colours = cv2.applyColorMap((255 * strength).round().astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    return (0.45 * image + 0.55 * colours).round().astype(np.uint8)


def draw_box(image: np.ndarray, box: Sequence[float], colour: tuple[int, int, int], width: int = 2) -> None:
    """Draws a box (xyxy in the picture's pixels) in place, with a dark rim."""
    height, breadth = image.shape[:2]
    left, top, right, bottom = (int(round(float(value))) for value in box)
    corner = (max(left, 0), max(top, 0)), (min(right, breadth) - 1, min(bottom, height) - 1)
    cv2.rectangle(image, *corner, INK, width + 2, cv2.LINE_AA)
    cv2.rectangle(image, *corner, colour, width, cv2.LINE_AA)


def _draw_panel(panel: Panel) -> np.ndarray:
    scale = CELL / panel.image.shape[0]
    image = cv2.resize(panel.image, (CELL, CELL), interpolation=cv2.INTER_LINEAR)
    if panel.spatial_map is not None:
        image = overlay_map(image, panel.spatial_map)
    image = np.ascontiguousarray(image)
    for box in panel.true_boxes:
        if box[0] < box[2] and box[1] < box[3]:  # a true box outside the crop comes out inverted
            draw_box(image, box * scale, TRUE_COLOUR)
    if panel.predicted_box is not None:
        draw_box(image, panel.predicted_box * scale, PREDICTED_COLOUR)
    cell = np.full((CELL + CAPTION, CELL, 3), 255, dtype=np.uint8)
    cell[:CELL] = image
    _write(cell, panel.caption, (2, CELL + 14))
    return cell


def _write(image: np.ndarray, text: str, origin: tuple[int, int], colour: tuple[int, int, int] = INK) -> None:
    cv2.putText(image, text, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)


def draw_sheet(rows: Sequence[Sequence[Panel]]) -> np.ndarray:
    """Puts rows of panels on a white sheet with a legend of the two boxes.

    Args:
        rows: the panels; a shorter row ends in white.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    cells = [[_draw_panel(panel) for panel in row] for row in rows]
    height, width = cells[0][0].shape[:2]
    sheet = np.full(
        (28 + len(cells) * (height + MARGIN), MARGIN + len(cells[0]) * (width + MARGIN), 3), 255, dtype=np.uint8
    )
    for number, row in enumerate(cells):
        for column, cell in enumerate(row):
            top, left = 28 + number * (height + MARGIN), MARGIN + column * (width + MARGIN)
            sheet[top : top + height, left : left + width] = cell
    x = MARGIN
    for text, colour in (("true box", TRUE_COLOUR), ("predicted box", PREDICTED_COLOUR)):
        cv2.rectangle(sheet, (x, 8), (x + 18, 20), colour, 3, cv2.LINE_AA)
        _write(sheet, text, (x + 26, 19))
        x += 130
    return sheet


def save_picture(path: str | Path, image: np.ndarray) -> Path:
    """Writes (H, W, 3) uint8 RGB as PNG by write-then-rename."""
    return write_atomically(path, lambda file: Image.fromarray(image).save(file, optimize=True))
