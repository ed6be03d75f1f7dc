"""Thumbnails of the gallery: the picture with its boxes on the left, under its map on the right, in one JPEG file."""

from __future__ import annotations

import cv2
import numpy as np

from utils.results.drawing import PREDICTED_COLOUR, TRUE_COLOUR, draw_boxes, draw_outline, overlay_map
from utils.results.report.records import ImageRecord

LONGEST_SIDE = 240
SHORTEST_SIDE = 32  # of extreme panoramas, which would vanish otherwise
GAP = 4
JPEG_QUALITY = 85


def draw_thumbnail(
    record: ImageRecord,
    picture: np.ndarray,
    spatial_map: np.ndarray | None,
    map_share: float,
    longest_side: int = LONGEST_SIDE,
    outlines: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Draws one image's thumbnail.

    Args:
        record: the boxes and the original size, whose aspect ratio the thumbnail takes up again.
        picture: (H, W, 3) uint8 RGB, the whole picture at any size and aspect.
        spatial_map: (h, w) of the centred part of the picture, any range of values; None leaves the right half out.
        map_share: the share of the picture's width and height that the map covers: crop size / resize size.
        longest_side: of each half, in pixels.
        outlines: (h, w) bool each, the true mask's object and the map's where it reaches the threshold, to be drawn
            instead of boxes; None draws boxes.

    Returns:
        (H, W, 3) uint8 RGB, each half with a longest side of `longest_side` pixels.
    """
    original = record.size if min(record.size) > 0 else picture.shape[1::-1]
    width, height = (max(SHORTEST_SIDE, round(longest_side * side / max(original))) for side in original)
    shrunk = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)  # AREA takes five times as long
    halves = [shrunk] if spatial_map is None else [shrunk, overlay_map(shrunk, spatial_map, map_share)]
    scale = np.array([width, height] * 2) / np.array([*original, *original])
    if outlines is None:
        predicted = None if record.box is None else np.asarray(record.box) * scale
        draw_boxes(shrunk, [np.asarray(box) * scale for box in record.true_boxes], predicted)
    else:
        for region, colour in zip(outlines, (TRUE_COLOUR, PREDICTED_COLOUR), strict=True):
            draw_outline(shrunk, region, colour, map_share)
    return cv2.hconcat([halves[0], np.full((height, GAP, 3), 255, np.uint8), halves[1]]) if halves[1:] else shrunk


def encode_jpeg(image: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB as the bytes of a JPEG file."""
    encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return encoded[1].tobytes()
