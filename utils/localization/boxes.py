"""Boxes: intersection over union, and the way between a picture's own pixels and those of its centre crop.

A box is `xyxy`: (x0, y0, x1, y1), left, top, right, bottom. Every function says in which pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def iou(boxes_a: ArrayLike, boxes_b: ArrayLike) -> np.ndarray | np.float64:
    """Intersection over union of every box of one set with every box of another, as the field counts it.

    Both corners count as part of a box: widths and heights are x1 - x0 + 1 and y1 - y0 + 1, for the boxes and for
    their intersection (0 where negative). A box that :func:`scale_boxes_to_crop` turned inside out goes through the
    same formula; where that leaves no union to divide by, the IoU is 0.

    Args:
        boxes_a: (N, 4) xyxy, or one box (4,).
        boxes_b: (M, 4) xyxy in the same pixels, or one box (4,).

    Returns:
        (N, M) float64; a single box drops its axis, so two single boxes give a scalar.

    Raises:
        ValueError: the boxes are neither (4,) nor (N, 4).
    """
    boxes_a, boxes_b = _as_boxes(boxes_a), _as_boxes(boxes_b)
    a, b = np.atleast_2d(boxes_a)[:, None], np.atleast_2d(boxes_b)[None]
    size_of_overlap = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 1
    intersection = size_of_overlap.clip(min=0).prod(axis=-1)
    union = _areas(a) + _areas(b) - intersection
    # Only inverted boxes bring a union of 0 or less, and those share nothing with any box.
    ious = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    return ious[0 if boxes_a.ndim == 1 else slice(None), ..., 0 if boxes_b.ndim == 1 else slice(None)][()]


def scale_boxes_to_crop(boxes: ArrayLike, image_size: ArrayLike, resize_size: int, crop_size: int) -> np.ndarray:
    """Follows boxes through the test-time transform: resize to a square (aspect ignored), then centre crop.

    Left and top are held at 0 or more, right and bottom at `crop_size` or less. A box wholly outside the crop
    therefore comes out inverted (x0 > x1 or y0 > y1), which keeps its IoU with any box in the crop next to 0.

    Args:
        boxes: (N, 4) or (4,) xyxy in the picture's original pixels.
        image_size: (width, height) of the picture in pixels, or (N, 2), one for each box.
        resize_size: side of the resized square in pixels.
        crop_size: side of the centre crop in pixels, at most `resize_size`.

    Returns:
        The boxes' shape, float64 xyxy in pixels of the crop, not rounded.

    Raises:
        ValueError: wrong shapes, an empty picture, or a crop larger than the resized square.
    """
    scaled = _as_boxes(boxes) * resize_size / _widths_and_heights(image_size) - _crop_offset(resize_size, crop_size)
    return np.concatenate([scaled[..., :2].clip(min=0), scaled[..., 2:].clip(max=crop_size)], axis=-1)


def crop_boxes_to_image(boxes: ArrayLike, image_size: ArrayLike, resize_size: int, crop_size: int) -> np.ndarray:
    """Takes boxes found in the centre crop back to the original picture, for drawing; undoes
    :func:`scale_boxes_to_crop` except for its clipping.

    Args:
        boxes: (N, 4) or (4,) xyxy in pixels of the crop.
        image_size, resize_size, crop_size: as in :func:`scale_boxes_to_crop`.

    Returns:
        The boxes' shape, float64 xyxy in the picture's original pixels, not rounded.

    Raises:
        ValueError: as :func:`scale_boxes_to_crop`.
    """
    return (_as_boxes(boxes) + _crop_offset(resize_size, crop_size)) * _widths_and_heights(image_size) / resize_size


def _as_boxes(boxes: ArrayLike) -> np.ndarray:
    boxes = np.asarray(boxes, dtype=np.float64)
    if boxes.ndim not in (1, 2) or boxes.shape[-1] != 4:
        raise ValueError(f"boxes must have shape (4,) or (N, 4), not {boxes.shape}")
    return boxes


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2:] - boxes[..., :2] + 1).prod(axis=-1)


def _widths_and_heights(image_size: ArrayLike) -> np.ndarray:
    size = np.asarray(image_size, dtype=np.float64)
    if size.ndim not in (1, 2) or size.shape[-1] != 2 or not (size > 0).all():
        raise ValueError(f"image_size must be a positive (width, height) or (N, 2), not {image_size!r}")
    return size[..., [0, 1, 0, 1]]


def _crop_offset(resize_size: int, crop_size: int) -> int:
    if not 0 < crop_size <= resize_size:
        raise ValueError(f"crop_size must lie between 1 and resize_size, not {crop_size} of {resize_size}")
    return int(round((resize_size - crop_size) / 2))  # rounds as torchvision's center_crop does


def best_ious(pred_boxes: ArrayLike, true_boxes: ArrayLike) -> np.ndarray:
    """Largest IoU of each of several boxes with the true boxes of one image, with the +1 convention of :func:`iou`.

    Args:
        pred_boxes: (N, 4) xyxy.
        true_boxes: (n, 4) xyxy in the same pixels, n >= 1, or one box (4,).

    Returns:
        (N,) float64.

    Raises:
        ValueError: wrong shapes, or no true box.
    """
    ious = iou(pred_boxes, np.atleast_2d(true_boxes))
    if ious.ndim != 2 or ious.shape[1] == 0:
        raise ValueError(
            f"predicted boxes (N, 4) and at least one true box are needed, "
            f"not {np.shape(pred_boxes)} and {np.shape(true_boxes)}"
        )
    return ious.max(axis=1)
