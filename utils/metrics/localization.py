"""The five scores of weakly supervised object localization, counted without knowing any model.

An image is right in
- `top1_cls`, `top5_cls`: when its class is the best, or among the five best, predictions;
- `gt_known_loc` (GT-known Loc): when the predicted box has an IoU above 0.5 with one of the image's true boxes
  (or, not strictly, of 0.5 or more);
- `top1_loc`, `top5_loc` (Top-1, Top-5 Loc): when both hold.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

# Key -> title, in the order of tables; those of boxes come first.
METRICS = {
    "top1_loc": "Top-1 Loc",
    "top5_loc": "Top-5 Loc",
    "gt_known_loc": "GT-known Loc",
    "top1_cls": "Top-1 Cls",
    "top5_cls": "Top-5 Cls",
}
_COLUMNS = {key: column for column, key in enumerate(METRICS)}
LOC_METRICS = tuple(key for key in METRICS if not key.endswith("cls"))


class LocalizationScores:
    """Counts right images per class and metric.

    Args:
        num_classes: number of classes K of the data set.
        iou_threshold: a box is right where its IoU is greater.
        strict: whether it has to be strictly greater, as in the CVPR paper's code; False lets an equal IoU count, as
            wsolevaluation and the IJCV paper's code do.

    Attributes:
        images: (K,) int64, images seen of each class, missed ones included.
        boxed: (K,) int64, those of them that have true boxes; the Loc scores are shares of these.
        missed: (K,) int64, images of each class that gave no box.
        correct: (K, 5) int64, right images of each class, one column for each of `METRICS`.
    """

    def __init__(self, num_classes: int, iou_threshold: float = 0.5, *, strict: bool = True) -> None:
        self.num_classes = num_classes
        self.iou_threshold = iou_threshold
        self.strict = strict
        self.images = np.zeros(num_classes, dtype=np.int64)
        self.boxed = np.zeros(num_classes, dtype=np.int64)
        self.missed = np.zeros(num_classes, dtype=np.int64)
        self.correct = np.zeros((num_classes, len(METRICS)), dtype=np.int64)

    def update(self, labels: ArrayLike, top5: ArrayLike, best_iou: ArrayLike) -> None:
        """Adds images with their predictions.

        Args:
            labels: (n,) true classes, 0 to K - 1.
            top5: (n, k) predicted classes, best first, 1 <= k <= 5 (fewer than 5 only where K < 5).
            best_iou: (n,) IoU of the predicted box with the nearest true box, see `utils.localization.boxes.best_ious`.

        Raises:
            ValueError: shapes that do not fit, a label out of range or a NaN; nothing is counted then.
        """
        labels, top1_cls, top5_cls = self._compare_classes(labels, top5)
        best_iou = np.asarray(best_iou, dtype=np.float64)
        if best_iou.shape != labels.shape:
            raise ValueError(f"for {len(labels)} labels, best_iou must have shape {labels.shape}, not {best_iou.shape}")
        if np.isnan(best_iou).any():
            raise ValueError("best_iou holds a NaN; give images without a prediction to update_missed")
        gt_known_loc = best_iou > self.iou_threshold if self.strict else best_iou >= self.iou_threshold
        right = {
            "top1_loc": top1_cls & gt_known_loc,
            "top5_loc": top5_cls & gt_known_loc,
            "gt_known_loc": gt_known_loc,
            "top1_cls": top1_cls,
            "top5_cls": top5_cls,
        }
        np.add.at(self.images, labels, 1)
        np.add.at(self.boxed, labels, 1)
        np.add.at(self.correct, labels, np.stack([right[metric] for metric in METRICS], axis=1))

    def update_unboxed(self, labels: ArrayLike, top5: ArrayLike) -> None:
        """Adds images of which no true box is known: they count in the Cls scores and not at all in the Loc scores.

        Args:
            labels, top5: as for :meth:`update`.

        Raises:
            ValueError: as :meth:`update`.
        """
        labels, top1_cls, top5_cls = self._compare_classes(labels, top5)
        np.add.at(self.images, labels, 1)
        np.add.at(self.correct[:, _COLUMNS["top1_cls"]], labels, top1_cls)
        np.add.at(self.correct[:, _COLUMNS["top5_cls"]], labels, top5_cls)

    def update_missed(self, labels: ArrayLike, boxed: bool = True) -> None:
        """Adds images that gave no prediction (unreadable, failed): they count as wrong in all metrics.

        Args:
            labels: (n,) true classes, 0 to K - 1.
            boxed: whether the images have true boxes; otherwise they count in the Cls scores alone.

        Raises:
            ValueError: a label out of range; nothing is counted then.
        """
        labels = self._as_labels(labels)
        np.add.at(self.images, labels, 1)
        np.add.at(self.missed, labels, 1)
        if boxed:
            np.add.at(self.boxed, labels, 1)

    def means(self) -> dict[str, dict[str, float | None]]:
        """Scores in percent.

        Returns:
            For each of `METRICS` a dict of `class_mean` (the accuracy of each class, averaged over the classes that
            have images: what the BAS authors print) and `image_mean` (right images over all images), both None for the
            Loc scores where no image has a true box.

        Raises:
            ValueError: no image was counted.
        """
        if not self.images.any():
            raise ValueError("there is no score without images")
        return {
            metric: _means(correct, self.images if metric.endswith("cls") else self.boxed)
            for metric, correct in zip(METRICS, self.correct.T, strict=True)
        }

    def summary(self) -> dict[str, dict[str, float | None] | int]:
        """The scores of :meth:`means`; beside them `images`, `boxed` and `missed`, the numbers of images counted, of
        those with true boxes and of those without a prediction.

        Raises:
            ValueError: no image was counted.
        """
        counts = {"images": self.images, "boxed": self.boxed, "missed": self.missed}
        return {**self.means(), **{name: int(of_class.sum()) for name, of_class in counts.items()}}

    def _compare_classes(self, labels: ArrayLike, top5: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The labels, and whether each is the best, or among the five best, predictions."""
        labels, top5 = self._as_labels(labels), np.asarray(top5)
        shape = len(labels), min(5, self.num_classes)
        if top5.shape != shape:
            raise ValueError(f"for {len(labels)} labels, top5 must have shape {shape}, not {top5.shape}")
        is_class = top5 == labels[:, None]
        return labels, is_class[:, 0], is_class.any(axis=1)

    def _as_labels(self, labels: ArrayLike) -> np.ndarray:
        labels = np.asarray(labels)
        if labels.size == 0:
            labels = labels.astype(np.int64)  # an empty list has no integer type of its own
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"labels must be integers of shape (n,), not {labels.dtype} of shape {labels.shape}")
        if ((labels < 0) | (labels >= self.num_classes)).any():
            raise ValueError(f"labels must lie between 0 and {self.num_classes - 1}: {labels}")
        return labels


def _means(correct: np.ndarray, images: np.ndarray) -> dict[str, float | None]:
    """Percent of right images from counts by class (K,): the mean over classes that have images, and over images."""
    if not images.any():
        return {"class_mean": None, "image_mean": None}
    seen = images > 0
    return {
        "class_mean": float(100 * (correct[seen] / images[seen]).mean()),
        "image_mean": float(100 * correct.sum() / images.sum()),
    }
