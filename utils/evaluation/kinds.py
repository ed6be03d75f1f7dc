"""The kinds of maps that are compared, by name."""

from __future__ import annotations

from dataclasses import dataclass

# The threshold of each where neither the user nor a selection gives one; BAS takes the recipe's. 0.2 of the maximum is
# Zhou et al.'s (2016), 0.15 Selvaraju et al.'s (2017). The Gaussian's 0.6 is the square of half of the side.
DEFAULT_THRESHOLDS = {"cam": 0.2, "gradcam": 0.15, "center": 0.6}
KINDS = ("bas", *DEFAULT_THRESHOLDS)  # of `--map` and `--compare`
# Maps that another tool made, read from files (:mod:`utils.evaluation.map_files`); the threshold is a CAM's.
FILES, FILES_THRESHOLD = "files", DEFAULT_THRESHOLDS["cam"]
TITLES = {"bas": "BAS", "cam": "CAM", "gradcam": "Grad-CAM", "center": "centred Gaussian", FILES: "map files"}


@dataclass(frozen=True)
class MapKind:
    """One kind of map.

    Attributes:
        kind: one of `KINDS`, or `FILES`.
        top_k: how many foreground maps are averaged; of `bas` only, None elsewhere.
    """

    kind: str
    top_k: int | None = None

    @property
    def title(self) -> str:
        """For tables: `BAS, k = 80`."""
        return TITLES[self.kind] + (f", k = {self.top_k}" if self.top_k is not None else "")
