"""Where a backbone's maps look: the layers at which the generator can tap it, and the grids of their cells."""

from __future__ import annotations

from typing import NamedTuple


class Grid(NamedTuple):
    """Where the cells of a spatial map look, along x and y alike: cell i at the input pixel `first + i * stride`."""

    first: float
    stride: int

    def under_same_padding(self) -> Grid:
        """The grid behind 3 x 3 layers of stride 2 that pad as TensorFlow's SAME does, on the right and below alone:
        at each of them a cell looks at one pixel of its input further on."""
        return self._replace(first=self.first + self.stride - 1)


class Offset(NamedTuple):
    """How far from where the layers' geometry says, in input pixels to the right and down, the cells of a map look."""

    x: float = 0.0
    y: float = 0.0


class Placement(NamedTuple):
    """Where a map's cells are drawn: the first one's (x, y) in input pixels, and the pixels from cell to cell."""

    first: tuple[float, float]
    stride: int


class Tap(NamedTuple):
    """A layer after which f1 can end: what its F is like."""

    channels: int  # C
    grid: Grid  # of F's cells
