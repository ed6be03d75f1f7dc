"""Where localization errors come from, by the definitions of TS-CAM (Gao et al., ICCV 2021) and its code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from utils.localization.boxes import iou

WRONG_CLASS, RIGHT, MULTI_INSTANCE, PART, MORE, OTHER, MISSED = ERROR_TYPES = (
    "wrong class",
    "right",
    "multi-instance",
    "part",
    "more",
    "other",
    "missed",
)


def error_type(is_right_class: bool, predicted: ArrayLike, true_boxes: ArrayLike) -> str:
    """Names what is wrong with a predicted box: the first that holds, in TS-CAM's order.

    - "wrong class": the best class is not the image's;
    - "right": the IoU exceeds 0.5;
    - "multi-instance": the box covers more than 0.3 of each of two or more true boxes;
    - "part": more than 0.5 of the predicted box lies within the true box;
    - "more": the box covers 0.7 or more of the true box;
    - "other".

    The true box is the one with the best IoU. Intersections and areas count both corners, as
    :func:`utils.localization.boxes.iou`.

    Args:
        is_right_class: whether the best predicted class is the image's.
        predicted: (4,) xyxy.
        true_boxes: (n, 4) xyxy in the same pixels, n >= 1, or one box (4,).

    Returns:
        One of `ERROR_TYPES`, never "missed", which is for images without a prediction.

    Raises:
        ValueError: wrong shapes, no true box, or a NaN.
    """
    predicted = np.asarray(predicted, dtype=np.float64)
    true_boxes = np.asarray(np.atleast_2d(true_boxes), dtype=np.float64)
    if predicted.shape != (4,) or true_boxes.ndim != 2 or true_boxes.shape[1] != 4 or len(true_boxes) == 0:
        raise ValueError(
            f"one predicted box and at least one true box are needed, not {predicted.shape}, {true_boxes.shape}"
        )
    if np.isnan(predicted).any() or np.isnan(true_boxes).any():
        raise ValueError(f"boxes must not hold a NaN: {predicted}, {true_boxes}")
    if not is_right_class:
        return WRONG_CLASS
    ious = np.atleast_1d(iou(predicted, true_boxes))
    nearest = ious.argmax()
    if ious[nearest] > 0.5:
        return RIGHT
    covered_of_true, covered_of_predicted = _shares_covered(predicted, true_boxes)
    if (covered_of_true > 0.3).sum() >= 2:
        return MULTI_INSTANCE
    if covered_of_predicted[nearest] > 0.5:
        return PART
    if covered_of_true[nearest] >= 0.7:
        return MORE
    return OTHER


def error_breakdown(error_types: Sequence[str]) -> dict[str, dict[str, float | int] | int]:
    """Counts and shares of the error types of n images.

    Returns:
        For each of `ERROR_TYPES` a dict of `count` and `percent` (of all images); beside them `images`.

    Raises:
        ValueError: there is no image, or an unknown type.
    """
    unknown = sorted({str(name) for name in error_types} - set(ERROR_TYPES))
    if unknown:
        raise ValueError(f"error types must be among {', '.join(ERROR_TYPES)}, not {', '.join(unknown)}")
    images = len(error_types)
    if images == 0:
        raise ValueError("there is no error breakdown without images")
    counts = Counter(error_types)
    return {
        **{name: {"count": counts[name], "percent": 100 * counts[name] / images} for name in ERROR_TYPES},
        "images": images,
    }


def _shares_covered(predicted: np.ndarray, true_boxes: np.ndarray) -> np.ndarray:
    """Intersection over the area of each true box, and over that of the predicted box: (2, n), 0 without area."""
    overlap = np.minimum(predicted[2:], true_boxes[:, 2:]) - np.maximum(predicted[:2], true_boxes[:, :2]) + 1
    intersection = overlap.clip(min=0).prod(axis=1)
    boxes = np.stack([true_boxes, np.broadcast_to(predicted, true_boxes.shape)])
    areas = (boxes[..., 2:] - boxes[..., :2] + 1).clip(min=0).prod(axis=-1)
    return np.divide(intersection, areas, out=np.zeros_like(areas), where=areas > 0)
