"""The family of an object's masks, against the convolution that the paper describes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from utils.exploratory.masks import cell_weights, choose_masks, kernel_step, mask_family
from utils.models.bas import Grid


def blob(height: int, width: int, seed: int) -> np.ndarray:
    """An object of a few rectangles, some of which touch the picture's edges."""
    random = np.random.RandomState(seed)
    mask = np.zeros((height, width), dtype=bool)
    for _ in range(3):
        top, left = random.randint(0, height - 6), random.randint(0, width - 6)
        mask[top : top + random.randint(3, height // 2), left : left + random.randint(3, width // 2)] = True
    return mask


def convolved(mask: np.ndarray, side: int) -> np.ndarray:
    """How much of the object lies below a kernel of ones around each pixel; an even one reaches farther left and up."""
    before, after = side // 2, side - 1 - side // 2
    padded = F.pad(torch.from_numpy(mask).double()[None, None], (before, after, before, after))
    return F.conv2d(padded, torch.ones(1, 1, side, side, dtype=torch.float64))[0, 0].numpy()


@pytest.mark.parametrize(("height", "width", "step"), [(36, 36, 5), (31, 24, 5), (17, 16, 2), (16, 17, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_family_is_the_naive_convolution(height: int, width: int, step: int, seed: int) -> None:
    """Protects the masks: odd and even kernels and the picture's edges, by convolution and by OpenCV's morphology."""
    mask = blob(height, width, seed)
    family = mask_family(mask, step)
    own = next(n for n, one in enumerate(family) if (one == mask).all())
    for n in range(1, len(family)):
        side = step * n
        sums, kernel = convolved(mask, side), np.ones((side, side), np.uint8)
        border = {"borderType": cv2.BORDER_CONSTANT, "borderValue": 0}
        for position, expected, morphology in (
            (own - n, sums == side**2, cv2.erode),
            (own + n, sums > 0, cv2.dilate),
        ):
            if 0 <= position < len(family):
                assert (family[position] == expected).all()
                assert (morphology(mask.astype(np.uint8), kernel, **border) == expected).all()
    assert not family[0].any() and family[1].any() and family[-1].all() and not family[-2].all()
    assert (np.diff(family.sum(axis=(1, 2))) > 0).all() and (family[:-1] <= family[1:]).all()


def test_families_of_extreme_objects() -> None:
    """Protects the ends: a full object still erodes to nothing, a single pixel still grows over the picture."""
    family = mask_family(np.ones((20, 30)))
    assert [int(one.sum()) for one in family] == [0, 1 * 11, 6 * 16, 11 * 21, 16 * 26, 600]
    pixel = np.zeros((12, 12), dtype=np.uint8)
    pixel[0, 11] = 1
    family = mask_family(pixel)
    # Kernels of 5, 10, ... reach 2, 4, 7, 9, 12 pixels back to the left, and 2, 5, 7, 10, 12 down.
    assert [int(one.sum()) for one in family] == [0, 1, 3 * 3, 5 * 6, 8 * 8, 10 * 11, 12 * 12]


def test_kernels_grow_with_the_picture() -> None:
    """Protects small pictures: the paper's step at the paper's crop, as large a part of others, never one pixel."""
    assert [kernel_step(side) for side in (224, 96, 448, 112, 48, 16)] == [5, 2, 10, 2, 2, 2]
    mask = np.zeros((96, 96), dtype=bool)
    mask[30:60, 30:60] = True
    within = [len([one for one in mask_family(mask, step) if 0 < one.sum() < 900]) for step in (5, kernel_step(96))]
    assert within == [6, 15]  # of sides 25, 20, ..., 5, 1 and 28, 26, ..., 2, 1


@pytest.mark.parametrize("mask", [np.zeros((5, 5)), np.ones((2, 5, 5)), np.ones(5)])
def test_no_object_no_family(mask: np.ndarray) -> None:
    """Protects callers: an empty mask, or none at all, has no family; kernels of one pixel make none."""
    with pytest.raises(ValueError, match="hold an object"):
        mask_family(mask)
    with pytest.raises(ValueError, match="not by 1"):
        mask_family(np.eye(5), 1)


def test_chosen_masks_are_spread_over_areas() -> None:
    """Protects --masks: half of them up to the object's own area, evenly; the ends and the object are always there."""
    areas = np.arange(101) / 100
    assert choose_masks(areas, 20, 3).tolist() == [0, 20, 100]
    assert choose_masks(areas, 20, 8).tolist() == [0, 5, 10, 15, 20, 47, 73, 100]
    assert choose_masks(areas, 20, 9).tolist() == [0, 5, 10, 15, 20, 40, 60, 80, 100]
    assert choose_masks([0, 1, 2, 50, 100], 2, 24).tolist() == [0, 1, 2, 3, 4]
    assert choose_masks([0, 40, 100], 2, 24).tolist() == [0, 1, 2]  # a full object
    for seed in range(20):
        areas = np.unique(np.random.RandomState(seed).rand(40).round(3))
        own = seed % (len(areas) - 2) + 1
        chosen = choose_masks(areas, own, 11)
        assert {0, own, len(areas) - 1} <= set(chosen.tolist()) and len(chosen) <= 11 and (np.diff(chosen) > 0).all()
    with pytest.raises(ValueError, match="at least 3 masks"):
        choose_masks(areas, 1, 2)


@pytest.mark.parametrize(("size", "cells"), [(48, 6), (50, 7), (9, 9), (7, 3)])
def test_stretched_cells_average_their_areas(size: int, cells: int) -> None:
    """Protects the resized mask: a cell is the mean of the area that it covers, fractions of pixels included."""
    weights = cell_weights(size, cells)
    fine = np.repeat(np.eye(size), cells, axis=1).reshape(size, cells, size).mean(axis=2)  # pixels cut into pieces
    assert weights == pytest.approx(fine.T, abs=1e-6)
    mask = torch.rand(1, 1, size, size)
    if size % cells == 0:
        expected = F.avg_pool2d(mask, size // cells)[0, 0]
        torch.testing.assert_close(torch.from_numpy(weights) @ mask[0, 0] @ torch.from_numpy(weights).T, expected)


def test_aligned_cells_average_around_where_they_look() -> None:
    """Protects aligned maps: a cell's area has its pixel in the middle; beyond the picture the edge goes on."""
    halves = [[0.75, 0.25, 0, 0, 0, 0], [0, 0.25, 0.5, 0.25, 0, 0], [0, 0, 0, 0.25, 0.5, 0.25]]
    assert cell_weights(6, 3, Grid(0, 2)) == pytest.approx(np.array(halves))
    thirds = [[1 / 3, 1 / 3, 1 / 3, 0, 0], [0, 0, 0, 1 / 3, 2 / 3]]
    assert cell_weights(5, 2, Grid(1, 3)) == pytest.approx(np.array(thirds))
    far = cell_weights(4, 3, Grid(-5.5, 8))  # the first and the last cell see nothing but what lies beyond
    assert far[0].tolist() == [1, 0, 0, 0] and far[2].tolist() == [0, 0, 0, 1]
