"""How the IoUs of a test set are distributed."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from utils.metrics.checks import as_ious

NUM_BINS = 20


def iou_distribution(ious: ArrayLike) -> dict[str, list[float] | list[int] | float | int]:
    """Histogram and mean of the best IoU of each of n images, (n,) in [0, 1].

    Returns:
        `edges` (21 numbers, bins of 0.05, the last one closed), `counts` (20 numbers), `mean`, `images`.

    Raises:
        ValueError: there is no image, another shape, a NaN or an IoU outside [0, 1].
    """
    ious = as_ious(ious, (None,))
    if len(ious) == 0:
        raise ValueError("there is no distribution without images")
    edges = np.arange(NUM_BINS + 1) / NUM_BINS
    counts, _ = np.histogram(ious, bins=edges)
    # Summed exactly: so the mean is the same in whatever order the images come.
    mean = math.fsum(ious.tolist()) / len(ious)
    return {"edges": edges.tolist(), "counts": counts.tolist(), "mean": mean, "images": len(ious)}
