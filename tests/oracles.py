"""Slow and literal versions of what the project computes quickly, to compare with."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike


def largest_component_box(mask: ArrayLike) -> np.ndarray | None:
    """Finds the box around the 8-connected component with the most pixels.

    Args:
        mask: (h, w), true or nonzero where the object is.

    Returns:
        (4,) int64 xyxy in the mask's pixels, [x_min, y_min, x_max + 1, y_max + 1]; of components of equal size, the
        one whose first pixel comes first in reading order. None where the mask is empty.

    Raises:
        ValueError: the mask is not 2-D.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"a mask must have shape (h, w), not {mask.shape}")
    mask = mask.astype(bool)
    if not mask.any():
        return None
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    areas[0] = 0  # the background
    is_largest = areas == areas.max()
    component = is_largest.argmax()
    if is_largest.sum() > 1:
        # OpenCV labels 2x2 blocks, so its numbers need not follow the reading order of the first pixels.
        component = labels.flat[is_largest[labels].argmax()]
    left, top, width, height = stats[component, : cv2.CC_STAT_AREA]
    return np.array([left, top, left + width, top + height], dtype=np.int64)
