"""What every metric of boxes asks of its input: IoUs in [0, 1], nothing NaN."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def as_ious(ious: ArrayLike, shape: tuple[int | None, ...], name: str = "ious") -> np.ndarray:
    """Takes IoUs of a given shape.

    Args:
        ious: in [0, 1].
        shape: the shape they must have; None stands for any length.
        name: what to call them in a message.

    Returns:
        float64 array.

    Raises:
        ValueError: another shape, or an IoU is NaN or lies outside [0, 1].
    """
    ious = np.asarray(ious, dtype=np.float64)
    if len(shape) != ious.ndim or any(n not in (None, m) for n, m in zip(shape, ious.shape, strict=True)):
        wanted = ", ".join("n" if n is None else str(n) for n in shape)
        raise ValueError(f"{name} must have shape ({wanted}), not {ious.shape}")
    if not ((ious >= 0) & (ious <= 1)).all():
        raise ValueError(f"{name} must lie between 0 and 1 and hold no NaN")
    return ious
