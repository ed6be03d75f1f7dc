"""The pooling of L_frg's foreground mask to the size of the class maps, over blocks or around where they look."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F


def pool_blocks(maps: Tensor, height: int, width: int) -> Tensor:
    """Means over blocks: (B, 1, h, w) -> (B, 1, height, width).

    Where the sizes do not divide, blocks overlap as those of `F.adaptive_avg_pool2d`, whose gradient has no
    deterministic form on CUDA.
    """
    blocks = maps.shape[-2] // height, maps.shape[-1] // width
    if (blocks[0] * height, blocks[1] * width) == maps.shape[-2:]:
        return F.avg_pool2d(maps, blocks)
    return _weigh(maps, *(block_weights(*axis, maps.device) for axis in _axes(maps, height, width)))


def pool_areas(maps: Tensor, height: int, width: int, first: float, ratio: float) -> Tensor:
    """Means over the area around where each cell looks: (B, 1, h, w) -> (B, 1, height, width).

    Args:
        maps: fine cells.
        height, width: of the result.
        first, ratio: as for :func:`area_weights`, the same along both axes.
    """
    return _weigh(maps, *(area_weights(*axis, first, ratio, maps.device) for axis in _axes(maps, height, width)))


def _axes(maps: Tensor, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The numbers of fine and coarse cells, down and across."""
    return (maps.shape[-2], height), (maps.shape[-1], width)


def _weigh(maps: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """(B, 1, h, w), (height, h), (width, w) -> (B, 1, height, width), in the maps' own precision."""
    with torch.autocast(maps.device.type, enabled=False):
        return down.to(maps.dtype) @ maps @ across.to(maps.dtype).T


@lru_cache(maxsize=64)  # made on the device: a copy to it would wait for it
@torch.inference_mode(False)  # a step that trains may get what an evaluation has made
def block_weights(length: int, cells: int, device: torch.device) -> Tensor:
    """(cells, length) weights of the means over cells i * length / cells, rounded down, to the next, rounded up."""
    cell, position = torch.arange(cells, device=device)[:, None], torch.arange(length, device=device)
    # From cell * length / cells, rounded down, to where the next one begins, rounded up; without a division.
    inside = ((position + 1) * cells > cell * length) & (position * cells < (cell + 1) * length)
    return inside / inside.sum(dim=1, keepdim=True)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def area_weights(length: int, cells: int, first: float, ratio: float, device: torch.device) -> Tensor:
    """How much each of `length` fine cells along an axis counts in each coarse one: means over the area around it.

    Args:
        length, cells: fine and coarse cells along the axis.
        first: the position, in fine cells, at which the first coarse one looks.
        ratio: fine cells from coarse cell to coarse cell, and the width of the area.
        device: where to.

    Returns:
        (cells, length) whose rows add up to 1; what lies beyond the map does not count.
    """
    middles = first + ratio * torch.arange(cells, device=device)[:, None]
    positions = torch.arange(length, device=device)
    right = torch.minimum(positions + 0.5, middles + ratio / 2)
    overlap = (right - torch.maximum(positions - 0.5, middles - ratio / 2)).clamp(min=0)
    return overlap / overlap.sum(dim=1, keepdim=True)
