"""From a map to a box, and the arithmetic of boxes; arrays in, arrays out."""

from utils.localization.maps import map_to_box, normalize_map, place_map, upsample_map

__all__ = ["map_to_box", "normalize_map", "place_map", "upsample_map"]
