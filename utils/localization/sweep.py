"""Boxes of one map at many thresholds, for the price of its distinct masks.

Masks of one map are nested: a higher threshold only takes pixels away. So they are visited from the lowest threshold
to the highest, equal ones once, of several each within its own bounds, and the contours of all of them are measured
together.

Maps are already min-max normalised and upsampled, (H, W) in [0, 1]. Boxes are `xyxy` integers in the map's pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike

from utils.localization.boxes import best_ious

# Bilinear weights that do not add up to exactly 1 in float32 may lift a normalised map this far above 1.
ROUNDING = 1e-5


class ContourBoxes(NamedTuple):
    """Boxes around the contours of one map at T thresholds, in pixels of the map.

    Attributes:
        boxes: (M, 4) int64 xyxy, around every contour, those of one threshold after those of another.
        starts: (T,) int64, where the boxes of each threshold start in `boxes`; every threshold has at least one.
        rows_of_largest: (T,) int64, where in `boxes` that of each threshold's contour of the largest area is.
    """

    boxes: np.ndarray
    starts: np.ndarray
    rows_of_largest: np.ndarray

    @property
    def largest(self) -> np.ndarray:
        """(T, 4) int64 xyxy, around the contour of the largest area at each threshold."""
        return self.boxes[self.rows_of_largest]


class _Contours:
    """The N contours of D distinct masks, and which mask each of T thresholds gives.

    Args:
        contours: N of (n, 1, 2), x, y of the points.
        hierarchies: D of OpenCV's, (1, contours of the mask, 4).
        starts: (D,) the first contour of each mask.
        mask_of_threshold: (T,) 0 to D - 1, or -1 where the mask is empty.
    """

    def __init__(
        self,
        contours: list[np.ndarray],
        hierarchies: list[np.ndarray],
        starts: list[int],
        mask_of_threshold: np.ndarray,
    ) -> None:
        self._hierarchies = hierarchies
        self.starts = np.array(starts, dtype=np.int64)
        self.mask_of_threshold = mask_of_threshold
        self._counts = np.diff(self.starts, append=len(contours))
        self.masks = np.arange(len(starts)).repeat(self._counts)  # (N,) the mask of each, ascending
        sizes = np.array([len(contour) for contour in contours], dtype=np.int64)
        self._first = sizes.cumsum() - sizes
        points = np.concatenate(contours) if contours else np.empty((0, 1, 2), dtype=np.int32)
        self._x, self._y = np.ascontiguousarray(points[:, 0].T)  # int32
        following = np.arange(1, len(points) + 1)
        following[self._first + sizes - 1] = self._first  # the last point is followed by the first
        self._next_x, self._next_y = self._x[following], self._y[following]

    @property
    def boxes(self) -> np.ndarray:
        """(N, 4) left, top, and one past right and bottom."""
        sides = [np.minimum.reduceat(values, self._first) for values in (self._x, self._y)]
        sides += [np.maximum.reduceat(values, self._first) + 1 for values in (self._x, self._y)]
        return np.stack(sides, axis=1, dtype=np.int64)

    @property
    def double_areas(self) -> np.ndarray:
        """(N,) twice the area within the line through the pixels' centres."""
        cross_products = self._x * self._next_y - self._next_x * self._y
        return np.abs(np.add.reduceat(cross_products, self._first, dtype=np.int64))

    @property
    def lengths(self) -> np.ndarray:
        """(N,) pixels along that line; between two points it runs straight or diagonally."""
        steps = np.maximum(np.abs(self._next_x - self._x), np.abs(self._next_y - self._y))
        return np.add.reduceat(steps, self._first, dtype=np.int64)

    @property
    def first_pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """x and y (N,) of the first pixel in reading order, at which OpenCV begins an outer contour."""
        return self._x[self._first], self._y[self._first]

    @property
    def parents(self) -> np.ndarray:
        """(N,) of a hole: the contour around it; -1 for none."""
        in_mask = np.concatenate([np.empty(0, dtype=np.int64), *(rows[0, :, 3] for rows in self._hierarchies)])
        return np.where(in_mask < 0, -1, in_mask + self.starts.repeat(self._counts))


def as_normalized_map(values: ArrayLike) -> np.ndarray:
    """Takes a map that is normalised already.

    Args:
        values: (H, W) in [0, 1].

    Returns:
        (H, W) float32, or float64 where it came so.

    Raises:
        ValueError: the map is not 2-D or empty, or a value is NaN or lies outside [0, 1].
    """
    values = np.asarray(values)
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float32)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"a map must have shape (H, W) and hold at least one value, not {values.shape}")
    lowest, highest = values.min(), values.max()  # NaN as soon as one value is
    if not (lowest >= 0 and highest <= 1 + ROUNDING):
        raise ValueError(f"a normalised map must lie between 0 and 1, not between {lowest} and {highest}")
    return values


def component_boxes(values: ArrayLike, thresholds: ArrayLike) -> np.ndarray:
    """Draws the box of the largest connected region at every threshold, as the BAS authors' evaluation does at one.

    Args:
        values: (H, W) in [0, 1], normalised and upsampled.
        thresholds: (T,) in [0, 1], in any order; a pixel belongs to the object where its value is strictly greater.

    Returns:
        (T, 4) int64 xyxy in pixels of the map: [x_min, y_min, x_max + 1, y_max + 1] of the 8-connected component of
        `values > threshold` with the most pixels, of several the one whose first pixel comes first in reading order.
        [0, 0, W, H] where nothing exceeds the threshold.

    Raises:
        ValueError: the map is not 2-D or empty, or a value or a threshold is NaN or lies outside [0, 1].
    """
    values = as_normalized_map(values)
    # The thresholds take the map's type, as in `values > float(threshold)`: a float32 0.15 does not exceed 0.15.
    contours = _find_contours(values, _as_thresholds(thresholds).astype(values.dtype), cv2.RETR_CCOMP)
    parents, double_areas, lengths = contours.parents, contours.double_areas, contours.lengths
    is_hole = parents >= 0
    # Pick's theorem counts the pixels on and within an outer contour, and those strictly within a hole's.
    pixels = np.where(is_hole, 0, (double_areas + lengths) // 2 + 1)
    hole_pixels = (double_areas - lengths) // 2 + 1
    np.subtract.at(pixels, parents[is_hole], hole_pixels[is_hole])
    x, y = contours.first_pixels
    largest = np.lexsort((x, y, -pixels, contours.masks))[contours.starts]
    height, width = values.shape
    return np.vstack([contours.boxes[largest], [0, 0, width, height]])[contours.mask_of_threshold]


def contour_boxes(values: ArrayLike, thresholds: ArrayLike) -> ContourBoxes:
    """Draws the boxes of all contours at every threshold, as wsolevaluation does.

    The map becomes an 8-bit picture, so there are at most 256 masks, however many thresholds are asked for: pixels
    above `int(threshold * maximum)`. Contours are OpenCV's, those of holes among them (`RETR_TREE`).

    Args:
        values: (H, W) in [0, 1], normalised and upsampled.
        thresholds: (T,) in [0, 1], in any order, as shares of the map's maximum.

    Returns:
        :class:`ContourBoxes` with boxes [x, y, min(x + w, W - 1), min(y + h, H - 1)] and, of contours of equal area,
        OpenCV's first as the largest. [0, 0, 0, 0] where a threshold leaves no contour.

    Raises:
        ValueError: as :func:`component_boxes`.
    """
    values, thresholds = as_normalized_map(values), _as_thresholds(thresholds)
    image = (values * 255).astype(np.uint8)
    # Equal masks have one level: the brightest grey of the picture that they leave out.
    histogram = cv2.calcHist([image], [0], None, [256], [0, 256]).ravel()
    greys = np.where(histogram > 0, np.arange(256, dtype=np.uint8), 0)
    levels = np.maximum.accumulate(greys)[(thresholds * float(greys.max())).astype(np.uint8)]
    contours = _find_contours(image, levels, cv2.RETR_TREE, are_distinct=True)
    height, width = image.shape
    boxes = np.minimum(contours.boxes, (width, height, width - 1, height - 1))
    largest = np.lexsort((-contours.double_areas, contours.masks))[contours.starts]  # stable: OpenCV's order
    no_contour = np.zeros((1, 4), dtype=np.int64)
    # Mask by mask, the empty one last, where the masks of thresholds look for it.
    ends = np.array([*contours.starts.tolist(), len(boxes), len(boxes) + 1])
    first, counts = ends[:-1][contours.mask_of_threshold], np.diff(ends)[contours.mask_of_threshold]
    starts = counts.cumsum() - counts
    rows = np.arange(counts.sum()) + (first - starts).repeat(counts)
    return ContourBoxes(
        boxes=np.vstack([boxes, no_contour])[rows],
        starts=starts,
        rows_of_largest=np.append(largest, len(boxes))[contours.mask_of_threshold] - first + starts,
    )


def best_contour_ious(contours: ContourBoxes, true_boxes: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Compares the boxes of :func:`contour_boxes` with the true boxes of the image.

    Args:
        contours: of T thresholds.
        true_boxes: (n, 4) xyxy in pixels of the map, n >= 1, or one box (4,).

    Returns:
        The best IoU at each threshold, twice (T,) float64: of the largest contour (for MaxBoxAcc) and of any contour
        (for MaxBoxAccV2).

    Raises:
        ValueError: wrong shapes, or no true box.
    """
    ious = best_ious(contours.boxes, true_boxes)
    if len(ious) == 0:
        return ious, ious
    return ious[contours.rows_of_largest], np.maximum.reduceat(ious, contours.starts)


def _find_contours(values: np.ndarray, thresholds: np.ndarray, mode: int, are_distinct: bool = False) -> _Contours:
    """Finds the contours of `values > threshold`; map and thresholds have the same type.

    `are_distinct` says that no two thresholds give the same mask.
    """
    levels, level_of_threshold = np.unique(thresholds, return_inverse=True)
    mask_of_level = np.full(len(levels), -1)
    levels = levels[levels < values.max()]
    if len(levels) == 1:  # finding bounds takes longer than they save
        rows, columns = ([[0, side]] for side in values.shape)
    else:  # not by cv2.boundingRect(mask): OpenCV 4.8 gets some masks wrong
        rows, columns = (_bounds(values.max(axis=axis), levels) for axis in (1, 0))
    contours: list[np.ndarray] = []
    hierarchies, starts = [], []
    pixels = -1
    for number, (level, (left, right), (top, bottom)) in enumerate(zip(levels, columns, rows, strict=True)):
        mask = (values[top:bottom, left:right] > level).view(np.uint8)
        pixels_before, pixels = pixels, -1 if are_distinct else cv2.countNonZero(mask)
        if are_distinct or pixels != pixels_before:  # otherwise no value lies between this level and the one before
            found, hierarchy = cv2.findContours(mask, mode, cv2.CHAIN_APPROX_SIMPLE, offset=(left, top))
            starts.append(len(contours))
            contours += found
            hierarchies.append(hierarchy)
        mask_of_level[number] = len(starts) - 1
    return _Contours(contours, hierarchies, starts, mask_of_level[level_of_threshold])


def _bounds(maxima: np.ndarray, levels: np.ndarray) -> list[list[int]]:
    """The first and one past the last of the rows or columns, of these maxima, that reach above each level."""
    above = maxima[:, None] > levels
    return np.stack([above.argmax(axis=0), len(maxima) - above[::-1].argmax(axis=0)], axis=1).tolist()


def _as_thresholds(thresholds: ArrayLike) -> np.ndarray:
    thresholds = np.asarray(thresholds, dtype=np.float64)
    if thresholds.ndim != 1 or not ((thresholds >= 0) & (thresholds <= 1)).all():
        raise ValueError(f"thresholds must have shape (T,) and lie between 0 and 1, not {thresholds}")
    return thresholds
