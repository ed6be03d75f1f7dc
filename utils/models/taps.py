"""Where a backbone's maps look: the layers at which the generator can tap it, and the grids of their cells."""

from __future__ import annotations

from typing import NamedTuple


class Grid(NamedTuple):
    """Where the cells of a spatial map look, along x and y alike: cell i at the input pixel `first + i * stride`."""

    first: float
    stride: int


class Tap(NamedTuple):
    """A layer after which f1 can end: what its F is like."""

    channels: int  # C
    grid: Grid  # of F's cells
