"""The experiment's files: `curves.csv`, a row a picture and mask, from which all else follows, and the summary."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.data.split import Line, parse_number, read_table
from utils.errors import UserError
from utils.exploratory.measure import Curve
from utils.exploratory.summary import STATISTICS
from utils.files import write_text

# Beside a run's weights: where the command leaves what it found, by what was masked.
FOLDERS = {"features": "exploratory", "class_maps": "exploratory_class_maps"}
CURVES_FILE = "curves.csv"
NUMBERS = ("area", "area_of_object", "iou", "entropy", "activation", "background_activation")
HEADING = ("id", "class", "correct", *NUMBERS)
MEND = "measure anew with python -m utils.exploratory"


def write_curves(path: Path, curves: Sequence[Curve]) -> Path:
    """Writes `curves.csv`.

    Its columns: the picture's id and class; whether the network classifies the whole picture correctly (0 or 1); the
    mask's area as a share of the picture and of the object's own; its IoU with the object; the cross-entropy, the true
    class's logit, and that of the background. The rows of a picture follow one another from the empty to the full mask.

    Raises:
        UserError: the file cannot be written.
    """
    rows: list[Sequence[Any]] = []
    for curve in curves:
        columns = curve.areas, curve.relative_areas, curve.ious
        columns += curve.entropy, curve.activation, curve.background_activation
        first = (curve.image_id, curve.class_name, int(curve.is_correct))
        rows += [(*first, *(f"{value:.7g}" for value in row)) for row in zip(*columns, strict=True)]
    return _write_table(path, HEADING, rows)


def read_curves(path: Path) -> tuple[Curve, ...]:
    """Reads what :func:`write_curves` wrote.

    Raises:
        UserError: the file is missing, empty or damaged.
    """
    groups: dict[str, list[tuple[Line, list[str]]]] = {}
    for line, fields in read_table(path, HEADING, MEND):
        groups.setdefault(fields[0], []).append((line, fields))
    if not groups:
        raise UserError(f"{path} holds no curve; {MEND}")
    return tuple(_read_curve(image_id, rows) for image_id, rows in groups.items())


def _read_curve(image_id: str, rows: Sequence[tuple[Line, list[str]]]) -> Curve:
    line, (_, class_name, correct, *_) = rows[0]
    numbers = np.array([[parse_number(text, where) for text in fields[3:]] for where, fields in rows]).T
    areas, _, ious, *values = numbers
    if not ((np.diff(areas) > 0).all() and areas[0] == 0 and areas[-1] == ious.max() == 1):
        raise line.error(
            f"the masks of {image_id} do not grow from the empty one over the object's own to the full one"
        )
    return Curve(image_id, class_name, correct == "1", areas, ious, *values)


def write_summary(folder: Path, summary: Mapping[str, Any], **more: Any) -> list[Path]:
    """Writes `summary.json` and, for spreadsheets, `summary.csv`.

    Args:
        folder: where to.
        summary: of :func:`utils.exploratory.summary.summarize`.
        more: plain values for the JSON file alone.

    Raises:
        UserError: a file cannot be written.
    """
    rows: list[Sequence[Any]] = []
    for figure, measures in _by_figure(summary):
        for measure, value in measures.items():
            # A share of pictures is a mean, too.
            spread = value if isinstance(value, Mapping) else {"mean": value}
            rows.append((figure, measure, *(spread.get(name) for name in STATISTICS)))
    return [
        write_text(folder / "summary.json", json.dumps({**summary, **more}, indent=2) + "\n"),
        _write_table(folder / "summary.csv", ("figure", "measure", *STATISTICS), rows),
    ]


def _by_figure(summary: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "own_area", {"": summary["own_area"]}
    for figure in ("done_at", "before"):
        yield figure, summary[figure]
    for figure in ("correlation", "better", "equal"):
        for scope, measures in summary[figure].items():
            yield f"{figure}_{scope}", measures


def _write_table(path: Path, heading: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([heading, *rows])
    return write_text(path, text.getvalue())
