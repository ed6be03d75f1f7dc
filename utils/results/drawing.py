"""Maps and boxes drawn over pictures."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import ArrayLike
from PIL import ImageColor

from utils.localization.maps import normalize_map, upsample_map
from utils.results.charts import DARK_INK

# Colours of Okabe and Ito's palette, told apart by colour-blind readers; the white and dark rims make the lines legible
# on any picture.
TRUE_COLOUR = (0, 158, 115)
PREDICTED_COLOUR = (230, 159, 0)
INK = ImageColor.getrgb(DARK_INK)
PAPER = (255, 255, 255)
MAP_OPACITY = 0.6
FONT = cv2.FONT_HERSHEY_SIMPLEX
TAG_SCALE = 0.4


def overlay_map(image: np.ndarray, spatial_map: np.ndarray, share: float = 1.0) -> np.ndarray:
    """Lays a normalised map over a picture, dark low and yellow high; below the map the picture is grey, so that no
    colour of its own mixes with the map's.

    Args:
        image: (H, W, 3) uint8 RGB.
        spatial_map: (h, w), any range of values.
        share: of the picture's width and height that the map covers, centred, in (0, 1]: crop size / resize size.

    Returns:
        (H, W, 3) uint8 RGB; outside the map's region as `image`.
    """
    height, width = image.shape[:2]
    top, left = round(height * (1 - share) / 2), round(width * (1 - share) / 2)
    region = np.s_[top : height - top, left : width - left]
    grey = cv2.cvtColor(image[region], cv2.COLOR_RGB2GRAY)
    shown = image.copy()
    shown[region] = lay_over(grey, upsample_map(normalize_map(spatial_map), grey.shape))
    return shown


def lay_over(grey: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Colours a grey picture by a map of its size: dark where the map is 0, yellow where it is 1.

    Args:
        grey: (H, W) uint8.
        strength: (H, W) in [0, 1].

    Returns:
        (H, W, 3) uint8 RGB, contiguous.
    """
    colours = cv2.applyColorMap(cv2.convertScaleAbs(strength, alpha=255), cv2.COLORMAP_INFERNO)
    blend = cv2.addWeighted(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), 1 - MAP_OPACITY, colours, MAP_OPACITY, 0)
    return np.ascontiguousarray(blend[..., ::-1])


def draw_boxes(image: np.ndarray, true_boxes: Iterable[ArrayLike], predicted_box: ArrayLike | None) -> None:
    """Draws an image's true boxes (green, "true") and its predicted box (orange, "pred") in place.

    Args:
        image: (H, W, 3) uint8 RGB, contiguous.
        true_boxes: n boxes xyxy in the picture's pixels, n >= 0.
        predicted_box: xyxy in the picture's pixels, or None.
    """
    true = [draw_box(image, box, TRUE_COLOUR) for box in true_boxes]
    predicted = None if predicted_box is None else draw_box(image, predicted_box, PREDICTED_COLOUR)
    for corners in filter(None, true):  # last of all, so that no line crosses a word
        _draw_tag(image, "true", TRUE_COLOUR, corners[:2], below=False)
    if predicted is not None:
        _draw_tag(image, "pred", PREDICTED_COLOUR, predicted[2:], below=True)


def draw_box(
    image: np.ndarray, box: ArrayLike, colour: tuple[int, int, int], width: int = 2
) -> tuple[int, int, int, int] | None:
    """Draws a box in place, with a white and a dark rim; what shows nothing inside the picture (inverted, outside, not
    finite) is not drawn.

    Args:
        image: (H, W, 3) uint8 RGB, contiguous.
        box: xyxy in the picture's pixels, right and bottom one past the last pixel.
        colour: RGB.
        width: of the coloured line in pixels, without its rims.

    Returns:
        Where the line runs: left, top, right, bottom in the picture's pixels; None if nothing was drawn.
    """
    limits = np.array(image.shape[1::-1] * 2)
    corners = np.asarray(box, dtype=np.float64)
    if not np.isfinite(corners).all():
        return None
    inside = corners.round().clip(0, limits)
    if (inside[2:] <= inside[:2]).any():
        return None
    # A line along the picture's edge stays visible with its rims.
    left, top, right, bottom = (inside - [0, 0, 1, 1]).clip(2, limits - 3).astype(int).tolist()
    for line, thickness in ((INK, width + 4), (PAPER, width + 2), (colour, width)):
        cv2.rectangle(image, (left, top), (right, bottom), line, thickness)
    return left, top, right, bottom


def draw_outline(image: np.ndarray, region: np.ndarray, colour: tuple[int, int, int], share: float = 1.0) -> None:
    """Draws the outline of a region in place, with a dark rim.

    Args:
        image: (H, W, 3) uint8 RGB, contiguous.
        region: (h, w) bool, of the centred part of the picture.
        colour: RGB.
        share: of the picture's width and height that the region's frame covers, as for :func:`overlay_map`.
    """
    height, width = image.shape[:2]
    top, left = round(height * (1 - share) / 2), round(width * (1 - share) / 2)
    frame = width - 2 * left, height - 2 * top
    shown = cv2.resize(region.astype(np.uint8), frame, interpolation=cv2.INTER_NEAREST)
    contours = cv2.findContours(shown, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE, offset=(left, top))[0]
    for line, thickness in ((INK, 4), (PAPER, 3), (colour, 2)):
        cv2.drawContours(image, contours, -1, line, thickness)


def _draw_tag(image: np.ndarray, text: str, colour: tuple[int, int, int], corner: tuple[int, int], below: bool) -> None:
    """A word on a plate of the box's colour, outside the box where the picture has room, else inside."""
    height, width = image.shape[:2]
    tag_width, tag_height = cv2.getTextSize(text, FONT, TAG_SCALE, 1)[0][0] + 6, 14
    left = corner[0] - tag_width if below else corner[0]
    top = corner[1] if below else corner[1] - tag_height
    left = max(0, min(left, width - tag_width - 1))
    if not 0 <= top < height - tag_height:
        top = corner[1] - tag_height if below else corner[1]
    cv2.rectangle(image, (left, top), (left + tag_width, top + tag_height), colour, cv2.FILLED)
    cv2.rectangle(image, (left, top), (left + tag_width, top + tag_height), INK, 1)
    cv2.putText(image, text, (left + 3, top + 10), FONT, TAG_SCALE, INK, 1, cv2.LINE_AA)
