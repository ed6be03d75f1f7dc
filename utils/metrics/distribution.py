"""How the IoUs of a test set are distributed."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from utils.metrics.checks import as_ious

NUM_BINS = 20
FINENESS = 2**40  # the mean keeps IoUs as whole multiples of 2^-40


class IouHistogram:
    """Counts IoUs in bins of 0.05, the last one closed, so that parts of a test set add up exactly.

    Attributes:
        edges: (21,) float64, the bins' edges from 0 to 1.
        counts: (20,) int64, IoUs in each bin.
    """

    def __init__(self) -> None:
        self.edges = np.arange(NUM_BINS + 1) / NUM_BINS
        self.counts = np.zeros(NUM_BINS, dtype=np.int64)
        self._sum = 0  # of whole numbers: sums of floats would depend on how the parts were cut

    def update(self, ious: ArrayLike) -> None:
        """Adds the best IoU of each of n images, (n,) in [0, 1].

        Raises:
            ValueError: another shape, a NaN or an IoU outside [0, 1]; nothing is counted then.
        """
        ious = as_ious(ious, (None,))
        self.counts += np.histogram(ious, bins=self.edges)[0]
        self._sum += sum(np.rint(ious * FINENESS).astype(np.int64).tolist())

    def merge(self, other: IouHistogram) -> None:
        """Adds the counts of another part of the same test set."""
        self.counts += other.counts
        self._sum += other._sum

    def summary(self) -> dict[str, list[float] | list[int] | float | int]:
        """Histogram and mean.

        Returns:
            `edges` (21 numbers), `counts` (20 numbers), `mean` (of IoUs rounded to 2^-40), `images`.

        Raises:
            ValueError: no image was counted.
        """
        images = int(self.counts.sum())
        if images == 0:
            raise ValueError("there is no distribution without images")
        return {
            "edges": self.edges.tolist(),
            "counts": self.counts.tolist(),
            "mean": self._sum / (FINENESS * images),
            "images": images,
        }
