"""The family of masks of one object: eroded until nothing is left, dilated until the picture is full."""

from __future__ import annotations

from itertools import count

import cv2
import numpy as np
from numpy.typing import ArrayLike

from utils.models.bas import Grid

# The paper's step in the paper's crop: by so many pixels the kernel's side grows from mask to mask.
PAPER_STEP, PAPER_SIDE = 5, 224


def kernel_step(side: int) -> int:
    """By how many pixels the kernel grows from mask to mask in a picture of this side: the paper's 5 at 224, as large
    a part of a smaller or larger picture, at least 2. Else small pictures' objects would be gone after a few masks."""
    return max(2, round(PAPER_STEP * side / PAPER_SIDE))


def mask_family(mask: ArrayLike, step: int = PAPER_STEP) -> np.ndarray:
    """Erodes and dilates a mask by kernels of sn x sn ones, n = 1, 2, ... (the paper's exploratory experiment, s = 5).

    For each n the mask is convolved with ones: a pixel belongs to the dilated mask where the sum exceeds 0, and to the
    eroded one where it is the whole kernel's. Beyond the picture there is no object, so every family ends in an empty
    mask, also that of an object that touches the picture's edge. A kernel of even side has no middle: it reaches one
    pixel farther to the left and up than to the right and down.

    Args:
        mask: (H, W), true or nonzero where the object is, at least in one pixel.
        step: s in pixels, of :func:`kernel_step`, 2 or more (a kernel of one pixel changes nothing).

    Returns:
        (n, H, W) bool, each mask inside the next and smaller than it, from the empty one to the full one.

    Raises:
        ValueError: the mask is not 2-D or is empty, or the step is below 2.
    """
    if step < 2:
        raise ValueError(f"kernels must grow by 2 pixels or more, not by {step}")
    mask = np.asarray(mask).astype(bool)
    if mask.ndim != 2 or not mask.any():
        raise ValueError(f"a mask must have shape (H, W) and hold an object, not shape {mask.shape} or nothing")
    ones = mask.astype(np.float32)
    eroded: list[np.ndarray] = []
    dilated = [mask]
    for n in count(1):
        smaller_done, larger_done = bool(eroded) and not eroded[-1].any(), dilated[-1].all()
        if smaller_done and larger_done:
            break
        # Running sums: as fast for large kernels as for small ones, and exact, being whole numbers below 2 ** 24 in
        # the type of `ones` (-1).
        kernel = (step * n, step * n)
        sums = cv2.boxFilter(ones, -1, kernel, normalize=False, borderType=cv2.BORDER_CONSTANT)
        if not smaller_done:
            eroded.append(sums == kernel[0] * kernel[1])
        if not larger_done:
            dilated.append(sums > 0)
    return np.stack(eroded[::-1] + dilated)


def choose_masks(areas: ArrayLike, own: int, most: int) -> np.ndarray:
    """Picks masks of a family, spread evenly over the areas: half of them up to the object's own, half from there on.

    Args:
        areas: (n,) of the family's masks, strictly growing, in any unit.
        own: which of them is the object's own.
        most: how many to pick at most, 3 or more.

    Returns:
        (m,) ascending positions in the family, 3 <= m <= most, among them the first, `own` and the last; fewer than
        `most` where the family has no masks of the areas in between. (A full object is its own last: then m may be 2.)

    Raises:
        ValueError: `most` is below 3.
    """
    if most < 3:
        raise ValueError(f"at least 3 masks are picked (the empty, the object's own and the full one), not {most}")
    areas = np.asarray(areas, dtype=np.float64)
    within = most // 2 + 1
    wanted = [*np.linspace(areas[0], areas[own], within), *np.linspace(areas[own], areas[-1], most - within + 1)[1:]]
    return np.unique(np.abs(areas - np.array(wanted)[:, None]).argmin(axis=1))


def cell_weights(size: int, cells: int, grid: Grid | None = None) -> np.ndarray:
    """How much each pixel along an axis counts in each cell of a feature map: `weights @ mask @ weights.T` resizes a
    mask by the mean of the area that a cell stands for.

    Args:
        size: pixels along the axis.
        cells: of the feature map along the axis.
        grid: where the cells look: each stands for the `stride` pixels around its own. None stretches the map over
            the picture, as the authors' code does with every map.

    Returns:
        (cells, size) float32 whose rows add up to 1. What a cell sees beyond the picture counts as the outermost pixel.
    """
    stride = size / cells if grid is None else grid.stride
    first = 0 if grid is None else grid.first + (1 - stride) / 2
    left = first + stride * np.arange(cells)[:, None]
    edges = np.array([-np.inf, *range(1, size), np.inf])
    overlap = np.minimum(left + stride, edges[1:]) - np.maximum(left, edges[:-1])
    return (overlap.clip(min=0) / stride).astype(np.float32)
