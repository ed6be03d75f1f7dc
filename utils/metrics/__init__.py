"""Scores of weakly supervised object localization: arrays in, figures out, no model.

Every scorer counts in whole numbers; where it has a `merge`, the parts of a test set, counted anywhere and merged in
any order, give exactly the figures of the whole.
"""

from utils.metrics.breakdown import ERROR_TYPES, MISSED, error_breakdown, error_type
from utils.metrics.dead_maps import DeadMaps, extremes_by_class, find_dead_maps, map_extremes
from utils.metrics.localization import LOC_METRICS, METRICS, LocalizationScores
from utils.metrics.max_box_acc import MaxBoxAcc, iou_distribution
from utils.metrics.pixels import PIXEL_METRICS, PixelScores, pixel_iou

__all__ = [
    "ERROR_TYPES",
    "LOC_METRICS",
    "METRICS",
    "MISSED",
    "PIXEL_METRICS",
    "DeadMaps",
    "LocalizationScores",
    "MaxBoxAcc",
    "PixelScores",
    "error_breakdown",
    "error_type",
    "extremes_by_class",
    "find_dead_maps",
    "iou_distribution",
    "map_extremes",
    "pixel_iou",
]
