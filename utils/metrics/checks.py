"""What every metric asks of its input: maps in [0, 1], IoUs in [0, 1], nothing NaN."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

# Bilinear weights that do not add up to exactly 1 in float32 may lift a normalised map this far above 1.
ROUNDING = 1e-5


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
