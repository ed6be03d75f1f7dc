"""From map to box: normalise, upsample, threshold, keep the largest connected component, take its box.

Arrays in, arrays out. Boxes are `xyxy` integers in pixels of the upsampled map, that is, of the network's input crop;
right and bottom are one past the last pixel of the component.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import ArrayLike

from utils.localization.sweep import component_boxes

if TYPE_CHECKING:
    import torch


def map_to_box(foreground_map: ArrayLike | torch.Tensor, threshold: float, size: int | tuple[int, int]) -> np.ndarray:
    """Draws the box of the largest connected region in which a map exceeds a threshold.

    The map is normalised to [0, 1] before it is upsampled, so the threshold means the same at every output size.

    Args:
        foreground_map: (h, w), any range of values; leading axes of length 1 do not matter.
        threshold: in [0, 1]; a pixel belongs to the object where its normalised value is strictly greater.
        size: side of the upsampled square, or (height, width), in pixels.

    Returns:
        (4,) int64 xyxy in pixels of the upsampled map: [x_min, y_min, x_max + 1, y_max + 1] of the component with the
        most pixels. [0, 0, width, height] where nothing exceeds the threshold, the map is constant, or it holds a
        NaN or an infinity.

    Raises:
        ValueError: the map is empty or not 2-D, the threshold lies outside [0, 1] or the size is not positive.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must lie between 0 and 1, not {threshold}")
    values = _as_float_array(foreground_map)
    while values.ndim > 2 and len(values) == 1:  # one picture's map as the model returns it, (1, h, w)
        values = values[0]
    return component_boxes(upsample_map(normalize_map(values), size), [threshold])[0]


def normalize_map(spatial_map: ArrayLike | torch.Tensor, epsilon: float = 0.0) -> np.ndarray:
    """Stretches a map linearly so that its minimum becomes 0 and its maximum 1 (min-max normalisation).

    Args:
        spatial_map: (h, w), any range of values.
        epsilon: added to the difference of maximum and minimum before the map is divided by it.

    Returns:
        (h, w) float32 or float64 in [0, 1]; zeros where the map is constant or holds a NaN or an infinity.

    Raises:
        ValueError: the map is empty or not 2-D.
    """
    values = _as_map(spatial_map)
    lowest, highest = values.min(), values.max()
    with np.errstate(over="ignore", invalid="ignore"):
        span = highest - lowest  # NaN or infinite as soon as one value is
    if not 0 < span < np.inf:
        return np.zeros_like(values)
    return (values - lowest) / (span + values.dtype.type(epsilon))


def upsample_map(
    spatial_map: ArrayLike | torch.Tensor,
    size: int | tuple[int, int],
    interpolation: int = cv2.INTER_LINEAR,
    dtype: type[np.floating] = np.float32,
) -> np.ndarray:
    """Resizes a map, pixel centres at half positions (as `align_corners=False`).

    Args:
        spatial_map: (h, w).
        size: side of the resized square, or (height, width), in pixels.
        interpolation: OpenCV's constant; bilinear unless told otherwise.
        dtype: in which it is computed, np.float32 or np.float64.

    Returns:
        (height, width) of `dtype`.

    Raises:
        ValueError: the map is empty or not 2-D, or the size is not positive.
    """
    height, width = (size, size) if isinstance(size, int | np.integer) else size
    if min(height, width) < 1:
        raise ValueError(f"size must be positive, not {size}")
    values = _as_map(spatial_map).astype(dtype, copy=False)
    return cv2.resize(values, (int(width), int(height)), interpolation=interpolation)


def place_map(
    spatial_map: ArrayLike | torch.Tensor, size: int, first: float | tuple[float, float], stride: float
) -> np.ndarray:
    """Upsamples a map bilinearly with its cells where they look in the picture, not stretched over it.

    Convolutions of stride 2 with odd kernels and padding look at every other pixel from the first on. Half-pixel
    upsampling takes each cell for the middle of its square of pixels, and so draws a map of stride 8 up to 3.5 pixels
    to the right of, and below, what it saw.

    Args:
        spatial_map: (h, w).
        size: side of the square picture in pixels.
        first: the pixel at which the first cell looks, as (x, y), or one number for both.
        stride: pixels from cell to cell.

    Returns:
        (size, size) float32; beyond the outermost cells the map goes on as it ends there.

    Raises:
        ValueError: the map is empty or not 2-D.
    """
    values = _as_map(spatial_map).astype(np.float32, copy=False)
    x, y = first if isinstance(first, tuple) else (first, first)
    down, across = (
        _interpolation_matrix(length, size, start, stride) for length, start in zip(values.shape, (y, x), strict=True)
    )
    return down @ values @ across.T


@lru_cache(maxsize=64)
def _interpolation_matrix(length: int, size: int, first: float, stride: float) -> np.ndarray:
    """(size, length) weights of linear interpolation between cells at first, first + stride, ..."""
    positions = ((np.arange(size) - first) / stride).clip(0, length - 1)
    return np.maximum(0, 1 - np.abs(positions[:, None] - np.arange(length))).astype(np.float32)


def _as_map(values: ArrayLike | torch.Tensor) -> np.ndarray:
    values = _as_float_array(values)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"a map must have shape (h, w) and hold at least one value, not {values.shape}")
    return values


def _as_float_array(values: ArrayLike | torch.Tensor) -> np.ndarray:
    if hasattr(values, "detach"):  # a tensor, of half precision perhaps, which NumPy may lack
        values = values.detach().cpu()
        values = (values if values.element_size() > 4 else values.float()).numpy()
    values = np.asarray(values)
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float32)
