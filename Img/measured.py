"""What a run measured on its test pictures: the figures show it beside what was published, and draw boxes by its
thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from utils.evaluation.kinds import KINDS, TITLES
from utils.system.files import read_json

DEMO_FILE, FILE = "results.json", "evaluation.json"
METRICS = ("top1_loc", "top5_loc", "gt_known_loc")


class Measured(NamedTuple):
    """A run's results."""

    # Kind of map, of `utils.evaluation.kinds.KINDS` -> threshold that the demo chose; empty for another run.
    thresholds: dict[str, float]
    scores: dict[str, dict[str, float]]  # title of the kind (`BAS`) -> metric -> percent
    is_demo: bool


def read_measured(run: Path) -> Measured | None:
    """Reads what training left: the demo's `results.json`, in the run's folder or, as the demo leaves it, in the one
    around it; else `evaluation.json` in the run's folder, which knows BAS alone.

    The demo's scores are means over images, as it prints them, those of another run means over classes, as the authors
    print them.

    Returns:
        None if there is neither, or the test pictures have no boxes.

    Raises:
        UserError: the file cannot be read, or is another file of that name.
    """
    paths = (run / DEMO_FILE, run.parent / DEMO_FILE, run / FILE)
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return None
    what, read = ("a demo", _read_demo) if path.name == DEMO_FILE else ("an evaluation", _read_evaluation)
    measured = read_json(path, f"does not hold {what}'s results", "move it away or train anew", read)
    return measured if measured.scores else None


def _read_demo(record: Mapping[str, Any]) -> Measured:
    kinds = {"bas", "cam", *record["scores"]}
    thresholds = {kind: float(record["thresholds"][kind]) for kind in KINDS if kind in kinds}
    _require_share(*thresholds.values())
    scores = {TITLES[kind]: _read_scores(record["scores"][kind], "image_mean") for kind in thresholds}
    return Measured(thresholds, scores, is_demo=True)


def _read_evaluation(record: Mapping[str, Any]) -> Measured:
    scores = record["scores"]
    return Measured({}, {TITLES["bas"]: _read_scores(scores, "class_mean")} if scores["boxed"] else {}, is_demo=False)


def _read_scores(scores: Mapping[str, Any], mean: str) -> dict[str, float]:
    found = {metric: float(scores[metric][mean]) for metric in METRICS}
    _require_share(*(score / 100 for score in found.values()))
    return found


def _require_share(*numbers: float) -> None:
    if not all(0 <= number < 1.001 for number in numbers):
        raise ValueError("a threshold or score is not within 0 and 100 %")
