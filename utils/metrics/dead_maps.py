"""Which classes have dead foreground maps: their own map is the same everywhere, on all of their pictures.

The generator ends in a sigmoid, whose gradient is gone near 0 and 1. A class whose kernel was driven there in the first
steps does not return, and no loss tells: the mean of several classes' maps hides it, and so does a mean over pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

EMPTY_BELOW, FULL_ABOVE = 0.02, 0.98


class DeadMaps(NamedTuple):
    """Classes by what became of their map."""

    seen: int  # classes with pictures
    empty: tuple[int, ...]  # nowhere above EMPTY_BELOW
    full: tuple[int, ...]  # nowhere below FULL_ABOVE

    def summary(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Plain values for logs: `count`, `classes` (with pictures), and the names of the `empty` and `full` ones."""
        empty, full = ([class_names[label] for label in labels] for labels in (self.empty, self.full))
        return {"count": len(empty) + len(full), "classes": self.seen, "empty": empty, "full": full}


def map_extremes(maps: Tensor) -> Tensor:
    """The highest and the lowest value of each map: (B, 1, h, w) -> (B, 2) without gradient, on the maps' device."""
    values = maps.detach().flatten(1)
    lowest, highest = values.aminmax(dim=1)
    extremes = values.new_empty(len(values), 2)
    extremes[:, 0], extremes[:, 1] = highest, lowest
    return extremes


def extremes_by_class(labels: np.ndarray, extremes: np.ndarray, num_classes: int) -> np.ndarray:
    """The highest and the lowest value of each class's own map, over all of its pictures.

    What this gives can itself be a part of `extremes`, with the classes as `labels`: so parts are merged.

    Args:
        labels: (N,) class of each row.
        extremes: (N, 2) of :func:`map_extremes` for the label's own map; rows that are not finite are passed over.
        num_classes: K.

    Returns:
        (K, 2); (-inf, inf) for a class without pictures.
    """
    known = np.isfinite(extremes).all(axis=1)
    found = np.tile([-np.inf, np.inf], (num_classes, 1))
    np.maximum.at(found[:, 0], labels[known], extremes[known, 0])
    np.minimum.at(found[:, 1], labels[known], extremes[known, 1])
    return found


def find_dead_maps(by_class: np.ndarray) -> DeadMaps:
    """The classes whose own map is dead; `by_class` (K, 2) is of :func:`extremes_by_class`."""
    highest, lowest = by_class.T
    seen = np.isfinite(highest)
    empty, full = np.flatnonzero(seen & (highest < EMPTY_BELOW)), np.flatnonzero(seen & (lowest > FULL_ABOVE))
    return DeadMaps(int(seen.sum()), tuple(empty.tolist()), tuple(full.tolist()))
