"""What `python train.py --demo` measured: the figures show it beside what was published, and draw boxes by its
thresholds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError
from utils.evaluation.maps import KINDS, TITLES

FILE = "results.json"
METRICS = ("top1_loc", "top5_loc", "gt_known_loc")


@dataclass(frozen=True)
class Measured:
    """The demo's results.

    Attributes:
        thresholds: kind of map, one of :data:`utils.evaluation.maps.KINDS` -> chosen threshold.
        scores: title of the kind (`BAS`) -> `top1_loc`, `top5_loc` and `gt_known_loc`, the means over images in
            percent.
    """

    thresholds: dict[str, float]
    scores: dict[str, dict[str, float]]


def read_measured(run: Path) -> Measured | None:
    """Reads `results.json` in a run's folder or, as the demo leaves it, in the one around it.

    Returns:
        None if there is none: the run is no demo's.

    Raises:
        UserError: the file cannot be read, or is another file of that name.
    """
    path = next((folder / FILE for folder in (run, run.parent) if (folder / FILE).is_file()), None)
    if path is None:
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        kinds = [kind for kind in KINDS if kind in record["scores"]]
        thresholds = {kind: float(record["thresholds"][kind]) for kind in kinds}
        scores = {
            TITLES[kind]: {metric: float(record["scores"][kind][metric]["image_mean"]) for metric in METRICS}
            for kind in kinds
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} does not hold a demo's results ({type(error).__name__}: {error}); move it away or train anew"
        ) from error
    numbers = [*thresholds.values(), *(score / 100 for row in scores.values() for score in row.values())]
    if not {"bas", "cam"} <= set(kinds) or not all(0 <= number < 1.001 for number in numbers):
        raise UserError(
            f"{path} holds no thresholds and scores of BAS and CAM within 0 and 100 %; move it away or train anew"
        )
    return Measured(thresholds, scores)
