"""Mean IoU of segmentation: confusion counts of pixels, of one mask a picture or of maps at all thresholds at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

IGNORED = 255


class Confusion:
    """Counts of pixels by true and predicted class, 0 the background.

    Args:
        num_classes: K, without the background.

    Attributes:
        counts: (K + 1, K + 1) int64, rows true, columns predicted.
        images: number of images counted.
    """

    def __init__(self, num_classes: int) -> None:
        self.counts = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
        self.images = 0

    def update(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        """Adds one image.

        Args:
            predicted: (H, W) class indices, 0 to K.
            truth: the same; pixels of IGNORED are left out.

        Raises:
            ValueError: shapes that differ, or a class beyond K; nothing is counted then.
        """
        size = len(self.counts)
        known = _check(truth, size, predicted.shape)
        if predicted.min(initial=0) < 0 or predicted[known].max(initial=0) >= size:
            raise ValueError(f"a mask has the class {predicted[known].max()}, where 0 to {size - 1} are expected")
        cells = truth[known].astype(np.int64) * size + predicted[known]
        self.counts += np.bincount(cells, minlength=size * size).reshape(size, size)
        self.images += 1

    def summary(self) -> dict[str, Any]:
        """`miou`, the mean over the classes that there are, `ious` by class (None where there is none), both in
        percent, and `images`.

        Raises:
            ValueError: no pixel was counted.
        """
        if not self.counts.any():
            raise ValueError("there is no mean IoU without a pixel")
        right = self.counts.diagonal()
        union = self.counts.sum(axis=0) + self.counts.sum(axis=1) - right
        ious = 100 * np.divide(right, union, out=np.full(len(right), np.nan), where=union > 0)
        listed = [None if np.isnan(value) else float(value) for value in ious]
        return {"miou": float(np.nanmean(ious)), "ious": listed, "images": self.images}


class SeedScores:
    """Counts for all thresholds at once: a pixel is background unless the best of its classes' maps exceeds it.

    So the label of a pixel is the argmax over (threshold, maps), the first of equals winning, as in IRN's programs.

    Args:
        num_classes: K, without the background.
        thresholds: T, ascending, in [0, 1].

    Attributes:
        counts: (K + 1, K + 1, T + 1) int64: pixels by true class, by best class (0 where the picture has none), and by
            the number of thresholds that its map exceeds.
        images: number of images counted.
    """

    def __init__(self, num_classes: int, thresholds: Sequence[float]) -> None:
        self.num_classes = num_classes
        self.thresholds = tuple(thresholds)
        self._edges = np.asarray(thresholds, dtype=np.float32)  # the maps' own precision, in which they are compared
        self.counts = np.zeros((num_classes + 1, num_classes + 1, len(self.thresholds) + 1), dtype=np.int64)
        self.images = 0

    def update(self, maps: np.ndarray, classes: np.ndarray, truth: np.ndarray) -> None:
        """Adds one image.

        Args:
            maps: (n, H, W) float32, one map a class that the picture has, normalised.
            classes: (n,) from 0.
            truth: (H, W) class indices, 0 the background; pixels of IGNORED are left out.

        Raises:
            ValueError: shapes that differ, a class beyond K, or a NaN; nothing is counted then.
        """
        known = _check(truth, self.num_classes + 1, maps.shape[1:])
        if len(classes) != len(maps) or (len(classes) and not 0 <= min(classes) <= max(classes) < self.num_classes):
            raise ValueError(f"classes {list(classes)} for {len(maps)} maps, of {self.num_classes} classes")
        if not np.isfinite(maps).all():
            raise ValueError("a map is not finite")
        best, exceeded = best_class(maps, classes), np.zeros(truth.shape, dtype=np.int64)
        if len(maps):
            exceeded = np.searchsorted(self._edges, maps.max(axis=0), side="left")
        cells = (truth.astype(np.int64) * (self.num_classes + 1) + best) * (len(self.thresholds) + 1) + exceeded
        self.counts += np.bincount(cells[known], minlength=self.counts.size).reshape(self.counts.shape)
        self.images += 1

    def merge(self, other: SeedScores) -> None:
        """Adds the counts of another part of the same data set; ValueError if it has other thresholds."""
        if self.thresholds != other.thresholds:
            raise ValueError("cannot merge counts of other thresholds")
        self.counts += other.counts
        self.images += other.images

    def confusion(self, threshold: float) -> Confusion:
        """The counts at one of the thresholds."""
        place = self.thresholds.index(threshold)
        found = Confusion(self.num_classes)
        found.counts = self.counts[:, :, place + 1 :].sum(axis=2)
        found.counts[:, 0] += self.counts[:, :, : place + 1].sum(axis=(1, 2))
        found.images = self.images
        return found

    def curve(self) -> list[float]:
        """Mean IoU in percent at each threshold; ValueError if no pixel was counted."""
        return [self.confusion(threshold).summary()["miou"] for threshold in self.thresholds]

    def best_threshold(self) -> float:
        """The lowest threshold with the highest mean IoU."""
        return self.thresholds[int(np.argmax(self.curve()))]


def best_class(maps: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """(n, H, W) and (n,) from 0 -> (H, W) int64, the class of the highest map, counted from 1; 0 where n is 0."""
    if not len(maps):
        return np.zeros(maps.shape[1:], dtype=np.int64)
    return np.asarray(classes, dtype=np.int64)[maps.argmax(axis=0)] + 1


def seeds(maps: np.ndarray, classes: np.ndarray, threshold: float) -> np.ndarray:
    """The label of each pixel: (n, H, W), (n,) -> (H, W) uint8, 0 the background."""
    found = best_class(maps, classes)
    if len(maps):
        found = np.where(maps.max(axis=0) > np.float32(threshold), found, 0)
    return found.astype(np.uint8)


def _check(truth: np.ndarray, classes: int, shape: Sequence[int]) -> np.ndarray:
    """(H, W) bool, the pixels that count; ValueError for a truth that cannot be."""
    if tuple(truth.shape) != tuple(shape):
        raise ValueError(f"the mask has {truth.shape[1]}x{truth.shape[0]} pixels, not {shape[1]}x{shape[0]}")
    known = truth != IGNORED
    if truth[known].max(initial=0) >= classes:
        raise ValueError(f"the mask has the class {truth[known].max()}, where 0 to {classes - 1} are expected")
    return known
