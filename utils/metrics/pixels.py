"""PxAP and peak pixel IoU: score maps against masks, pixel by pixel (wsolevaluation)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from utils.localization.sweep import as_normalized_map

BACKGROUND, FOREGROUND, IGNORED = 0, 1, 255
STEP = 0.001  # between thresholds, wsolevaluation's
# Key -> title, as `METRICS`: of the summary, and `iou`, that of the threshold in force.
PIXEL_METRICS = {"px_ap": "PxAP", "iou": "pixel IoU", "peak_iou": "peak pixel IoU"}


class PixelScores:
    """Counts the pixels of a test set by their score, so that parts add up exactly; no image is remembered.

    Bins are [0, step), [step, 2 step), ... [1 - step, 1), [1, 2) and [2, 3], as wsolevaluation's.

    Args:
        step: distance of the thresholds; 1 must be a multiple of it.

    Attributes:
        images: number of images counted.
        edges: (bins + 1,) float64, the bins' edges.
        background, foreground: (bins,) int64, pixels of each kind by score; ignored pixels are not counted.
        missed: pixels of objects in images without a map, which are found at no threshold.

    Raises:
        ValueError: 1 is no multiple of the step.
    """

    def __init__(self, step: float = STEP) -> None:
        num_steps = round(1 / step) if 0 < step <= 1 else 0
        if not abs(num_steps * step - 1) < 1e-9:
            raise ValueError(f"step must divide 1 into equal parts, not {step}")
        self.step = step
        self.images = 0
        self.edges = np.append(step * np.arange(num_steps), [1.0, 2.0, 3.0])
        self.background = np.zeros(num_steps + 2, dtype=np.int64)
        self.foreground = np.zeros(num_steps + 2, dtype=np.int64)
        self.missed = 0

    @property
    def marks_objects(self) -> bool:
        """Whether any mask so far marks an object, without which there are no scores."""
        return bool(self.foreground.any()) or self.missed > 0

    def update(self, values: ArrayLike, mask: ArrayLike) -> None:
        """Adds one image.

        Args:
            values: (H, W) score map in [0, 1], normalised and upsampled to the mask's size.
            mask: (H, W) uint8 or bool, 1 on the object, 0 beside it, 255 where a pixel is to be ignored.

        Raises:
            ValueError: shapes or values that do not fit, or a NaN; nothing is counted then.
        """
        values, mask = as_normalized_map(values), np.asarray(mask)
        if mask.dtype == bool:
            mask = mask.view(np.uint8)
        if mask.dtype != np.uint8 or mask.shape != values.shape:
            raise ValueError(
                f"a mask must be uint8 of the map's shape {values.shape}, not {mask.dtype} of shape {mask.shape}"
            )
        if ((mask > FOREGROUND) & (mask != IGNORED)).any():
            raise ValueError(f"a mask must hold {BACKGROUND}, {FOREGROUND} and {IGNORED} only, not {np.unique(mask)}")
        kinds = np.minimum(mask, 2)  # background, foreground, ignored
        num_bins = len(self.foreground)
        counts = np.bincount((kinds * np.int64(num_bins) + self._bins(values)).ravel(), minlength=3 * num_bins)
        self.background += counts[:num_bins]
        self.foreground += counts[num_bins : 2 * num_bins]
        self.images += 1

    def update_missed(self, mask: ArrayLike) -> None:
        """Adds one image that has no map; one of ignored pixels alone counts for nothing.

        Args:
            mask: of :meth:`update`.
        """
        mask = np.asarray(mask)
        self.images += int((mask != IGNORED).any())
        self.missed += int((mask == FOREGROUND).sum())

    def merge(self, other: PixelScores) -> None:
        """Adds the counts of another part of the same test set.

        Raises:
            ValueError: the other part uses another step.
        """
        if self.step != other.step:
            raise ValueError(f"cannot merge pixel scores in steps of {other.step} into steps of {self.step}")
        self.images += other.images
        self.missed += other.missed
        self.background += other.background
        self.foreground += other.foreground

    def curves(self) -> dict[str, np.ndarray]:
        """Scores of all pixels together at every threshold: a pixel is positive where its score reaches it.

        Returns:
            `threshold` (bins,) ascending, 0 to 2, and in percent, (bins,) each, `precision` (0 where no pixel is
            positive), `recall` and `iou`.

        Raises:
            ValueError: no foreground pixel was counted.
        """
        num_foreground = self.foreground.sum() + self.missed
        if num_foreground == 0:
            raise ValueError("there are no pixel scores without foreground pixels: no mask marks an object")
        true_positives = self.foreground[::-1].cumsum()[::-1]
        positives = true_positives + self.background[::-1].cumsum()[::-1]
        precision = np.divide(true_positives, positives, out=np.zeros(len(positives)), where=positives > 0)
        union = num_foreground + positives - true_positives
        return {
            "threshold": self.edges[:-1].copy(),
            "precision": 100 * precision,
            "recall": 100 * true_positives / num_foreground,
            "iou": 100 * true_positives / union,
        }

    def iou_at(self, threshold: float) -> float:
        """The IoU in percent of mask and map where the map reaches a threshold, rounded up to a bin's edge.

        Raises:
            ValueError: no foreground pixel was counted.
        """
        curves = self.curves()
        return float(curves["iou"][np.searchsorted(self.edges[:-1], threshold - self.step / 1000)])

    def summary(self) -> dict[str, float | int]:
        """Scores in percent over the pixels of all images together.

        Returns:
            `px_ap`: area under the precision-recall curve, summed as wsolevaluation does; `peak_iou`: the best IoU of
            mask and thresholded map; `peak_iou_threshold`: the lowest threshold that gives it; `images`.

        Raises:
            ValueError: no foreground pixel was counted.
        """
        curves = self.curves()
        precision, recall = curves["precision"], curves["recall"]
        peak = curves["iou"].argmax()
        return {
            # No score reaches 2, so the sum leaves out nothing when it starts at the next threshold below.
            "px_ap": float((precision[:-1] * -np.diff(recall)).sum() / 100),
            "peak_iou": float(curves["iou"][peak]),
            "peak_iou_threshold": float(curves["threshold"][peak]),
            "images": self.images,
        }

    def best_threshold(self) -> float:
        """The lowest threshold below 1 with the highest IoU; ValueError as :meth:`curves`."""
        curves = self.curves()
        below = curves["threshold"] < 1
        return float(curves["threshold"][below][curves["iou"][below].argmax()])

    def _bins(self, values: np.ndarray) -> np.ndarray:
        """Finds each value's bin, exactly as a search among the edges would."""
        # A hundredth of a bin outweighs rounding, so the guess is the bin or, just below its edge, the one after.
        guess = np.multiply(values, 1 / self.step, dtype=np.float64)
        guess += 0.01
        bins = guess.astype(np.intp)
        bins -= values < self.edges[bins]
        return bins


def reaches(score_map: ArrayLike, threshold: float) -> np.ndarray:
    """Where a map reaches a threshold, as :class:`PixelScores` counts it: 0.7 is its bin's edge, 700 * 0.001, which is
    a little more, and levels are compared in float64.

    Args:
        score_map: (H, W) in [0, 1].
        threshold: of the map.

    Returns:
        (H, W) bool.
    """
    edge = round(threshold / STEP) * STEP
    return np.asarray(score_map, dtype=np.float64) >= (edge if abs(edge - threshold) < STEP / 1000 else threshold)


def pixel_iou(score_map: ArrayLike, threshold: float, mask: ArrayLike) -> float | None:
    """The IoU of one image's mask with its map where that reaches a threshold, 0 to 1.

    Args:
        score_map: (H, W) in [0, 1].
        threshold: of the map.
        mask: (H, W), see :meth:`PixelScores.update`.

    Returns:
        None where both are empty.
    """
    mask = np.asarray(mask)
    found = reaches(score_map, threshold) & (mask != IGNORED)
    truth = mask == FOREGROUND
    union = np.count_nonzero(found | truth)
    return np.count_nonzero(found & truth) / union if union else None
