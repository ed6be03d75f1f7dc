"""Scores of weakly supervised object localization: arrays in, figures out, no model.

Every scorer counts in whole numbers, so the parts of a test set, counted anywhere and merged in any order, give
exactly the figures of the whole.
"""

from utils.metrics.breakdown import ERROR_TYPES, MISSED, ErrorBreakdown, error_type
from utils.metrics.dead_maps import DeadMaps, extremes_by_class, find_dead_maps, map_extremes
from utils.metrics.distribution import IouHistogram
from utils.metrics.localization import LOC_METRICS, METRICS, LocalizationScores
from utils.metrics.max_box_acc import MaxBoxAcc
from utils.metrics.pixels import PixelScores

__all__ = [
    "ERROR_TYPES",
    "LOC_METRICS",
    "METRICS",
    "MISSED",
    "DeadMaps",
    "ErrorBreakdown",
    "IouHistogram",
    "LocalizationScores",
    "MaxBoxAcc",
    "PixelScores",
    "error_type",
    "extremes_by_class",
    "find_dead_maps",
    "map_extremes",
]
