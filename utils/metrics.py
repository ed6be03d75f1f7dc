"""The five scores of weakly supervised object localization, counted without knowing any model.

An image is right in
- `top1_cls`, `top5_cls`: when its class is the best, or among the five best, predictions;
- `gt_known_loc` (GT-known Loc): when the predicted box has an IoU above 0.5 with one of the image's true boxes;
- `top1_loc`, `top5_loc` (Top-1, Top-5 Loc): when both hold.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from utils.boxes import iou

METRICS = ("top1_loc", "top5_loc", "gt_known_loc", "top1_cls", "top5_cls")


def best_iou(pred_box: ArrayLike, true_boxes: ArrayLike) -> float:
    """Largest IoU of a predicted box with the true boxes of its image.

    Args:
        pred_box: (4,) xyxy.
        true_boxes: (n, 4) xyxy in the same pixels, n >= 1, or one box (4,).

    Returns:
        The IoU with the +1 convention of :func:`utils.boxes.iou`.

    Raises:
        ValueError: wrong shapes, or no true box.
    """
    ious = np.atleast_1d(iou(pred_box, true_boxes))
    if ious.ndim != 1 or ious.size == 0:
        raise ValueError(
            f"one predicted box and at least one true box are needed, not {np.shape(pred_box)}, {np.shape(true_boxes)}"
        )
    return float(ious.max())


class LocalizationScores:
    """Counts right images per class and metric, so that parts of a test set add up exactly, in any order.

    Args:
        num_classes: number of classes K of the data set.
        iou_threshold: a box is right where its IoU is strictly greater.

    Attributes:
        images: (K,) int64, images seen of each class, missed ones included.
        missed: (K,) int64, images of each class that gave no prediction.
        correct: (K, 5) int64, right images of each class, one column for each of `METRICS`.
    """

    def __init__(self, num_classes: int, iou_threshold: float = 0.5) -> None:
        self.num_classes = num_classes
        self.iou_threshold = iou_threshold
        self.images = np.zeros(num_classes, dtype=np.int64)
        self.missed = np.zeros(num_classes, dtype=np.int64)
        self.correct = np.zeros((num_classes, len(METRICS)), dtype=np.int64)

    def update(self, labels: ArrayLike, top5: ArrayLike, best_iou: ArrayLike) -> None:
        """Adds images with their predictions.

        Args:
            labels: (n,) true classes, 0 to K - 1.
            top5: (n, k) predicted classes, best first, 1 <= k <= 5 (fewer than 5 only where K < 5).
            best_iou: (n,) IoU of the predicted box with the nearest true box, see :func:`best_iou`.

        Raises:
            ValueError: shapes that do not fit, a label out of range or a NaN; nothing is counted then.
        """
        labels = self._as_labels(labels)
        top5, best_iou = np.asarray(top5), np.asarray(best_iou, dtype=np.float64)
        n, columns = len(labels), min(5, self.num_classes)
        if top5.shape != (n, columns) or best_iou.shape != (n,):
            raise ValueError(
                f"for {n} labels, top5 must have shape {(n, columns)} and best_iou {(n,)}, "
                f"not {top5.shape} and {best_iou.shape}"
            )
        if np.isnan(best_iou).any():
            raise ValueError("best_iou holds a NaN; give images without a prediction to update_missed")
        is_class = top5 == labels[:, None]
        top1_cls, top5_cls, gt_known_loc = is_class[:, 0], is_class.any(axis=1), best_iou > self.iou_threshold
        right = {
            "top1_loc": top1_cls & gt_known_loc,
            "top5_loc": top5_cls & gt_known_loc,
            "gt_known_loc": gt_known_loc,
            "top1_cls": top1_cls,
            "top5_cls": top5_cls,
        }
        np.add.at(self.images, labels, 1)
        np.add.at(self.correct, labels, np.stack([right[metric] for metric in METRICS], axis=1))

    def update_missed(self, labels: ArrayLike) -> None:
        """Adds images that gave no prediction (unreadable, failed): they count as wrong in all metrics.

        Args:
            labels: (n,) true classes, 0 to K - 1.

        Raises:
            ValueError: a label out of range; nothing is counted then.
        """
        labels = self._as_labels(labels)
        np.add.at(self.images, labels, 1)
        np.add.at(self.missed, labels, 1)

    def merge(self, other: LocalizationScores) -> None:
        """Adds the counts of another part of the same test set.

        Raises:
            ValueError: the other part counts other classes or uses another IoU threshold.
        """
        if (self.num_classes, self.iou_threshold) != (other.num_classes, other.iou_threshold):
            raise ValueError(
                f"cannot merge scores of {other.num_classes} classes at IoU {other.iou_threshold} "
                f"into {self.num_classes} classes at IoU {self.iou_threshold}"
            )
        self.images += other.images
        self.missed += other.missed
        self.correct += other.correct

    def summary(self) -> dict[str, dict[str, float] | int]:
        """Scores in percent.

        Returns:
            For each of `METRICS` a dict of `class_mean` (the accuracy of each class, averaged over the classes that
            have images: what the BAS authors print) and `image_mean` (right images over all images); beside them
            `images` and `missed`, the numbers of images counted and of those without a prediction.

        Raises:
            ValueError: no image was counted.
        """
        total = int(self.images.sum())
        if total == 0:
            raise ValueError("there is no score without images")
        has_images = self.images > 0
        class_means = 100 * (self.correct[has_images] / self.images[has_images, None]).mean(axis=0)
        image_means = 100 * self.correct.sum(axis=0) / total
        scores: dict[str, dict[str, float] | int] = {
            metric: {"class_mean": float(class_mean), "image_mean": float(image_mean)}
            for metric, class_mean, image_mean in zip(METRICS, class_means, image_means, strict=True)
        }
        return scores | {"images": total, "missed": int(self.missed.sum())}

    def _as_labels(self, labels: ArrayLike) -> np.ndarray:
        labels = np.asarray(labels)
        if labels.size == 0:
            labels = labels.astype(np.int64)  # an empty list has no integer type of its own
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"labels must be integers of shape (n,), not {labels.dtype} of shape {labels.shape}")
        if ((labels < 0) | (labels >= self.num_classes)).any():
            raise ValueError(f"labels must lie between 0 and {self.num_classes - 1}: {labels}")
        return labels
