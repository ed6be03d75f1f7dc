"""The experiment's files: `curves.csv`, a row a picture and mask, from which all else follows, and the summary."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.data.split import Line, parse_number, read_table
from utils.errors import UserError
from utils.exploratory.measure import Curve
from utils.exploratory.summary import STATISTICS
from utils.files import file_digest, read_json, write_text
from utils.models.recipe import Recipe

# Beside a run's weights, or in the folder of --save: where the command leaves what it found, by what was masked.
FOLDERS = {"features": "exploratory", "class_maps": "exploratory_class_maps"}
CURVES_FILE, SUMMARY_FILE = "curves.csv", "summary.json"
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
        groups.setdefault(_unescape(fields[0]), []).append((line, fields))
    if not groups:
        raise UserError(f"{path} holds no curve; {MEND}")
    return tuple(_read_curve(image_id, rows) for image_id, rows in groups.items())


def _unescape(name: str) -> str:
    """Undoes what `write_text` makes of the bytes of a file name that are no Unicode."""
    return re.sub(r"\\udc([89a-f][0-9a-f])", lambda found: chr(0xDC00 + int(found[1], 16)), name)


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
        more: plain values for the JSON file alone, among them those of :func:`describe_measurement`.

    Raises:
        UserError: a file cannot be written.
    """
    rows: list[Sequence[Any]] = []
    for group, found in summary.items():
        for number, measures in _by_number(found):
            for measure, value in measures.items():
                # A share of pictures is a mean, too.
                spread = value if isinstance(value, Mapping) else {"mean": value}
                rows.append((group, number, measure, *(spread.get(name) for name in STATISTICS)))
    return [
        write_text(folder / SUMMARY_FILE, json.dumps({**summary, **more}, indent=2) + "\n"),
        _write_table(folder / "summary.csv", ("pictures", "number", "measure", *STATISTICS), rows),
    ]


def _by_number(found: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number in ("own_area", "masks", "masks_within"):
        yield number, {"": found[number]}
    for number in ("done_at", "short", "before"):
        yield number, found[number]
    for number in ("correlation", "better", "equal"):
        for scope, measures in found[number].items():
            yield f"{number}_{scope}", measures


def describe_measurement(
    curves: Path, checkpoint: Path, at: str, recipe: Recipe, pictures: int, masks: int
) -> dict[str, Any]:
    """What `summary.json` says of the measurement, by which :func:`find_curves_of` knows its curves again.

    Args:
        curves: the file of :func:`write_curves`.
        checkpoint: the network's weights.
        at: what was masked, of `PLACES`.
        recipe: the sizes, and how masks were laid on maps.
        pictures: how many with masks were to be measured.
        masks: how many were to be measured of a picture.

    Raises:
        UserError: a file cannot be read.
    """
    try:
        digests = {"curves_sha256": file_digest(curves), "checkpoint_sha256": file_digest(checkpoint)}
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}; {MEND}") from error
    sizes = {"resize_size": recipe.resize_size, "crop_size": recipe.crop_size, "align_maps": recipe.align_maps}
    return {**digests, "at": at, **sizes, "pictures_wanted": pictures, "masks_wanted": masks}


def find_curves_of(
    folder: Path, checkpoint: Path, at: str, recipe: Recipe, least_pictures: int, least_masks: int
) -> tuple[Curve, ...] | str:
    """The curves in a folder, if they are of this network, measured in this way and on enough pictures and masks.

    Args:
        folder: where `python -m utils.exploratory` left its files.
        checkpoint, at, recipe: as for :func:`describe_measurement`.
        least_pictures: with masks, that are wanted (not counted are failures on the way).
        least_masks: of a picture that are wanted.

    Returns:
        The curves, or the reason why there are none, in words that go on after "measured anew, because".

    Raises:
        UserError: the weights cannot be read.
    """
    path, summary = folder / CURVES_FILE, folder / SUMMARY_FILE
    if not path.is_file():
        return f"there is no {path}"
    try:
        record, found = read_json(summary, "is no summary", MEND, lambda content: (content, _wanted(content)))
    except UserError:
        return f"{summary} does not tell what {path.name} was measured on"
    expected = describe_measurement(path, checkpoint, at, recipe, least_pictures, least_masks)
    reasons = {
        "checkpoint_sha256": "were measured on other weights",
        "curves_sha256": f"are not those of {summary.name}",
        "at": f"were measured with masks on {record.get('at')}, not on {at}",
    }
    for name, value in expected.items():
        if name not in ("pictures_wanted", "masks_wanted") and record.get(name) != value:
            reason = reasons.get(name, f"were measured with {name} {record.get(name)}, not {value}")
            return f"the curves of {path} {reason}"
    for what, least in (("pictures", least_pictures), ("masks", least_masks)):
        if found[what] < least:
            return f"the curves of {path} are of {found[what]} {what} only, not of {least}"
    try:
        return read_curves(path)
    except UserError as error:
        return str(error)


def _wanted(record: Mapping[str, Any]) -> dict[str, int]:
    return {"pictures": int(record["pictures_wanted"]), "masks": int(record["masks_wanted"])}


def _write_table(path: Path, heading: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([heading, *rows])
    return write_text(path, text.getvalue())
