"""What a run measured on its test pictures: the figures show it beside what was published, and draw boxes by its
thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from utils.evaluation.kinds import KINDS, TITLES
from utils.evaluation.summary import first_of_kind, recorded_maps
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
    is_demo = path.name == DEMO_FILE
    what = "a demo" if is_demo else "an evaluation"
    read = partial(_read_record, is_demo=is_demo)
    measured = read_json(path, f"does not hold {what}'s results", "move it away or train anew", read)
    return measured if measured.scores else None


def _read_record(record: Mapping[str, Any], is_demo: bool) -> Measured:
    maps = recorded_maps(record)
    if not is_demo:
        scores = first_of_kind(maps, "bas").scores
        return Measured({}, {TITLES["bas"]: _read_scores(scores, "class_mean")} if scores["boxed"] else {}, is_demo)
    kinds = {"bas", "cam", *(one.kind for one in maps)}
    first = {kind: first_of_kind(maps, kind) for kind in KINDS if kind in kinds}
    thresholds = {kind: float(one.figures["threshold"]) for kind, one in first.items()}
    _require_share(*thresholds.values())
    return Measured(
        thresholds, {TITLES[kind]: _read_scores(one.scores, "image_mean") for kind, one in first.items()}, is_demo
    )


def _read_scores(scores: Mapping[str, Any], mean: str) -> dict[str, float]:
    found = {metric: float(scores[metric][mean]) for metric in METRICS}
    _require_share(*(score / 100 for score in found.values()))
    return found


def _require_share(*numbers: float) -> None:
    if not all(0 <= number < 1.001 for number in numbers):
        raise ValueError("a threshold or score is not within 0 and 100 %")
