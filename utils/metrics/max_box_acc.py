"""MaxBoxAcc and MaxBoxAccV2: box accuracy at the best threshold of the whole test set (wsolevaluation); how the IoUs of
a test set are distributed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

NUM_BINS = 20  # of the distribution of IoUs
MAX_BOX_ACC_IOU = 0.5  # of MaxBoxAcc, whose boxes are those of the largest contour


class MaxBoxAcc:
    """Counts right images at every threshold, so that parts of a test set add up exactly; no image is remembered.

    Args:
        thresholds: (T,) of the score map, T >= 1.
        iou_thresholds: of MaxBoxAccV2; a box is right where its IoU reaches one.

    Attributes:
        images: number of images counted, missed ones included.
        missed: number of images without a prediction.
        correct_largest: (T,) int64, images whose largest contour has an IoU of 0.5 or more.
        correct_any: (len(iou_thresholds), T) int64, images one of whose contours reaches each IoU threshold.

    Raises:
        ValueError: there is no threshold, or one of either kind lies outside [0, 1].
    """

    def __init__(self, thresholds: ArrayLike, iou_thresholds: Sequence[float] = (0.3, 0.5, 0.7)) -> None:
        self.thresholds = np.array(thresholds, dtype=np.float64)
        self.iou_thresholds = tuple(float(iou) for iou in iou_thresholds)
        for kind in (self.thresholds, np.array(self.iou_thresholds)):
            if kind.ndim != 1 or kind.size == 0 or not ((kind >= 0) & (kind <= 1)).all():
                raise ValueError(f"thresholds must be a list of numbers between 0 and 1, not {kind}")
        self.images = 0
        self.missed = 0
        self.correct_largest = np.zeros(len(self.thresholds), dtype=np.int64)
        self.correct_any = np.zeros((len(self.iou_thresholds), len(self.thresholds)), dtype=np.int64)

    def update(self, largest_ious: ArrayLike, best_ious: ArrayLike) -> None:
        """Adds images, with the two arrays that :func:`utils.localization.sweep.best_contour_ious` gives for each.

        Args:
            largest_ious: (n, T) best IoU of the largest contour with a true box.
            best_ious: (n, T) best IoU of any contour with a true box.

        Raises:
            ValueError: shapes that do not fit, a NaN or an IoU outside [0, 1]; nothing is counted then.
        """
        largest_ious = _as_ious(largest_ious, (None, len(self.thresholds)), "largest_ious")
        best_ious = _as_ious(best_ious, largest_ious.shape, "best_ious")
        self.images += len(largest_ious)
        self.correct_largest += (largest_ious >= MAX_BOX_ACC_IOU).sum(axis=0)
        self.correct_any += np.stack([(best_ious >= iou).sum(axis=0) for iou in self.iou_thresholds])

    def update_missed(self, n: int) -> None:
        """Adds n images without a prediction: wrong at every threshold.

        Raises:
            ValueError: n is negative.
        """
        if n < 0:
            raise ValueError(f"the number of missed images must not be negative: {n}")
        self.images += n
        self.missed += n

    def merge(self, other: MaxBoxAcc) -> None:
        """Adds the counts of another part of the same test set.

        Raises:
            ValueError: the other part uses other thresholds.
        """
        if self.iou_thresholds != other.iou_thresholds or not np.array_equal(self.thresholds, other.thresholds):
            raise ValueError("cannot merge MaxBoxAcc counts of different thresholds")
        self.images += other.images
        self.missed += other.missed
        self.correct_largest += other.correct_largest
        self.correct_any += other.correct_any

    def curves(self) -> dict[str, np.ndarray]:
        """Accuracy against threshold, before the maximum is taken.

        Returns:
            `threshold` (T,), `largest` (T,) and `any` (len(iou_thresholds), T), the latter two in percent.

        Raises:
            ValueError: no image was counted.
        """
        if self.images == 0:
            raise ValueError("there is no MaxBoxAcc without images")
        return {
            "threshold": self.thresholds.copy(),
            "largest": 100 * self.correct_largest / self.images,
            "any": 100 * self.correct_any / self.images,
        }

    def summary(self) -> dict:
        """Both scores in percent, each accuracy with the lowest threshold that gives it.

        Returns:
            `max_box_acc`: dict of `value` and `threshold`; `max_box_acc_v2`: dict of `value` (the mean over the IoU
            thresholds) and `at_iou`, a list of dicts `iou`, `value`, `threshold`; `images` and `missed`.

        Raises:
            ValueError: no image was counted.
        """
        curves = self.curves()
        at_iou = [
            {"iou": iou} | self._best(curve) for iou, curve in zip(self.iou_thresholds, curves["any"], strict=True)
        ]
        return {
            "max_box_acc": self._best(curves["largest"]),
            "max_box_acc_v2": {"value": float(np.mean([one["value"] for one in at_iou])), "at_iou": at_iou},
            "images": self.images,
            "missed": self.missed,
        }

    def _best(self, curve: np.ndarray) -> dict[str, float]:
        best = curve.argmax()
        return {"value": float(curve[best]), "threshold": float(self.thresholds[best])}


def iou_distribution(ious: ArrayLike) -> dict[str, list[float] | list[int] | float | int]:
    """Histogram and mean of the best IoU of each of n images, (n,) in [0, 1].

    Returns:
        `edges` (21 numbers, bins of 0.05, the last one closed), `counts` (20 numbers), `mean`, `images`.

    Raises:
        ValueError: there is no image, another shape, a NaN or an IoU outside [0, 1].
    """
    ious = _as_ious(ious, (None,))
    if len(ious) == 0:
        raise ValueError("there is no distribution without images")
    edges = np.arange(NUM_BINS + 1) / NUM_BINS
    counts, _ = np.histogram(ious, bins=edges)
    # Summed exactly: so the mean is the same in whatever order the images come.
    mean = math.fsum(ious.tolist()) / len(ious)
    return {"edges": edges.tolist(), "counts": counts.tolist(), "mean": mean, "images": len(ious)}


def _as_ious(ious: ArrayLike, shape: tuple[int | None, ...], name: str = "ious") -> np.ndarray:
    """IoUs as float64; ValueError unless they have this shape (None: any length) and all lie in [0, 1]."""
    ious = np.asarray(ious, dtype=np.float64)
    if len(shape) != ious.ndim or any(n not in (None, m) for n, m in zip(shape, ious.shape, strict=True)):
        wanted = ", ".join("n" if n is None else str(n) for n in shape)
        raise ValueError(f"{name} must have shape ({wanted}), not {ious.shape}")
    if not ((ious >= 0) & (ious <= 1)).all():
        raise ValueError(f"{name} must lie between 0 and 1 and hold no NaN")
    return ious
