"""What a run measured on its test pictures: the figures show it beside what was published, and draw boxes by its
thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.evaluation.maps import KINDS, TITLES
from utils.files import read_json

DEMO_FILE, FILE = "results.json", "evaluation.json"
METRICS = ("top1_loc", "top5_loc", "gt_known_loc")


@dataclass(frozen=True)
class Measured:
    """A run's results.

    Attributes:
        thresholds: kind of map, one of :data:`utils.evaluation.maps.KINDS` -> threshold that the demo chose; empty for
            another run.
        scores: title of the kind (`BAS`) -> `top1_loc`, `top5_loc` and `gt_known_loc` in percent.
        is_demo: whether it is the demo's.
    """

    thresholds: dict[str, float]
    scores: dict[str, dict[str, float]]
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
    is_demo = path.name == DEMO_FILE
    fault = f"does not hold {'a demo' if is_demo else 'an evaluation'}'s results"
    measured = read_json(path, fault, "move it away or train anew", _read_demo if is_demo else _read_evaluation)
    thresholds, rows = measured.thresholds.values(), measured.scores.values()
    numbers = [*thresholds, *(score / 100 for row in rows for score in row.values())]
    is_whole = not is_demo or {"bas", "cam"} <= measured.thresholds.keys()
    if not is_whole or not all(0 <= number < 1.001 for number in numbers):
        expected = "thresholds and scores of BAS and CAM" if is_demo else "scores"
        raise UserError(f"{path} holds no {expected} within 0 and 100 %; move it away or train anew")
    return measured if measured.scores else None


def _read_demo(record: Mapping[str, Any]) -> Measured:
    kinds = [kind for kind in KINDS if kind in record["scores"]]
    thresholds = {kind: float(record["thresholds"][kind]) for kind in kinds}
    scores = {TITLES[kind]: _read_scores(record["scores"][kind], "image_mean") for kind in kinds}
    return Measured(thresholds, scores, is_demo=True)


def _read_evaluation(record: Mapping[str, Any]) -> Measured:
    scores = record["scores"]
    return Measured({}, {TITLES["bas"]: _read_scores(scores, "class_mean")} if scores["boxed"] else {}, is_demo=False)


def _read_scores(scores: Mapping[str, Any], mean: str) -> dict[str, float]:
    return {metric: float(scores[metric][mean]) for metric in METRICS}
