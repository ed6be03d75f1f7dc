"""What is asked of one pass over a split: rules, sizes, kinds of maps, thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.evaluation.kinds import DEFAULT_THRESHOLDS, FILES, FILES_THRESHOLD, MapKind
from utils.evaluation.protocols import PROTOCOLS, Protocol
from utils.localization.sweep import as_normalized_map
from utils.models.recipe import CALIBRATED, STRETCHED, Recipe
from utils.models.taps import Grid, Offset, Placement

if TYPE_CHECKING:  # processes that score need no PyTorch
    from utils.models.bas import BAS

GRID_STEP = 0.01


def threshold_grid(step: float = GRID_STEP) -> tuple[float, ...]:
    """The thresholds 0, step, ... below 1, each the nearest float to its decimal."""
    return tuple(round(index * step, 6) for index in range(math.ceil(1 / step - 1e-9)))


@dataclass(frozen=True)
class EvaluationSpec:
    """What is asked of one pass over a split.

    Attributes:
        protocol: the rules.
        resize_size, crop_size: of :meth:`Protocol.sizes`.
        ten_crops: class scores from ten crops, or from the one crop that gives the map.
        thresholds: the kinds of maps, each with its threshold in force; the first kind is the main one.
        align: where maps are drawn, of :data:`utils.models.recipe.ALIGNMENTS`.
        offsets: kind of map -> how far from their geometry its cells look, see :mod:`utils.evaluation.calibration`; for
            the alignment `calibrated`, before anything is scored.
        swept: further kinds of maps, of which the boxes alone are scored, at the thresholds of `swept_grid`.
        grid: more thresholds to score; empty where nobody sweeps.
        contour_grid: thresholds of MaxBoxAcc and MaxBoxAccV2; empty leaves them out.
        with_masks: whether PxAP and peak IoU are wanted, where there are masks.
        amp: half precision on CUDA.
        map_folder: of the maps that are read from files; `are_scored` tells whether they are (S, S) in [0, 1] already.
        ignore_misfits: whether to go on where many boxes cannot be of their pictures, see
            :mod:`utils.evaluation.misfits`.
    """

    protocol: Protocol
    resize_size: int
    crop_size: int
    ten_crops: bool
    thresholds: Mapping[MapKind, float]
    align: str = STRETCHED
    offsets: Mapping[str, Offset] = field(default_factory=dict)
    swept: Mapping[MapKind, float] = field(default_factory=dict)
    swept_grid: tuple[float, ...] = ()
    grid: tuple[float, ...] = ()
    contour_grid: tuple[float, ...] = ()
    with_masks: bool = False
    amp: bool = False
    map_folder: Path | None = None
    are_scored: bool = False
    ignore_misfits: bool = False

    def score_map(self, model: BAS, kind: MapKind, spatial_map: np.ndarray) -> np.ndarray:
        """A map of one kind as thresholds see it: (h, w) -> (S, S) in [0, 1]."""
        return self.placed_score_map(kind, spatial_map, self.placement(model, kind))

    def placed_score_map(self, kind: MapKind, spatial_map: np.ndarray, place: Placement | None) -> np.ndarray:
        """The same without the network, from the placement of :meth:`placement`."""
        if kind.kind == FILES and self.are_scored:
            return as_normalized_map(spatial_map)
        return self.protocol.score_map(spatial_map, self.crop_size, place)

    def placement(self, model: BAS, kind: MapKind) -> Placement | None:
        """Where a kind of map is drawn; None stretches it over the crop."""
        grid = grid_of(model, kind) if self.align != STRETCHED else None
        if grid is None:
            return None
        offset = self.offsets[kind.kind] if self.align == CALIBRATED else Offset()
        return Placement((grid.first + offset.x, grid.first + offset.y), grid.stride)

    @property
    def main(self) -> MapKind:
        """The kind of map that the headline figures and the pictures are about."""
        return next(iter(self.thresholds))


def grid_of(model: BAS, kind: MapKind) -> Grid | None:
    """Where the cells of a kind of map look; None for the Gaussian, centred as it is, and for files of others."""
    return {"bas": model.feature_grid, "gradcam": model.feature_grid, "cam": model.class_grid}.get(kind.kind)


def build_spec(
    recipe: Recipe,
    protocol: Protocol = PROTOCOLS["authors"],
    kinds: Sequence[str] = ("bas",),
    ten_crops: bool | None = None,
    threshold: float | None = None,
    top_k: int | None = None,
    **more: Any,
) -> EvaluationSpec:
    """Settles sizes, crops and thresholds from a recipe and a protocol.

    Args:
        recipe: sizes, class count, top-k and the BAS map's threshold.
        protocol: see :mod:`utils.evaluation.protocols`.
        kinds: of :data:`utils.evaluation.kinds.KINDS`, or `FILES`.
        ten_crops: the protocol's rule where None.
        threshold: for all kinds of maps; the recipe's and `DEFAULT_THRESHOLDS` of :mod:`utils.evaluation.kinds` where
            None.
        top_k: k of BAS's map; the protocol's, else the recipe's where None.
        more: further attributes of :class:`EvaluationSpec`.
    """
    top_k = min(top_k or protocol.top_k or recipe.top_k, recipe.num_classes)  # more than all classes are all
    resize_size, crop_size = protocol.sizes(recipe.resize_size, recipe.crop_size)
    defaults = {**DEFAULT_THRESHOLDS, FILES: FILES_THRESHOLD, "bas": recipe.threshold}
    return EvaluationSpec(
        protocol=protocol,
        resize_size=resize_size,
        crop_size=crop_size,
        align=recipe.align_maps,
        ten_crops=protocol.ten_crops if ten_crops is None else ten_crops,
        thresholds={
            MapKind(kind, top_k if kind == "bas" else None): defaults[kind] if threshold is None else threshold
            for kind in kinds
        },
        **more,
    )
