"""`images.csv`: one row an image with what was predicted for it and how it compares with the truth.

Columns: `id`; `label` and `class`, the true class and its name; `top<k>_label`, `top<k>_class`, `top<k>_probability`
for k = 1 to 5; `x0`, `y0`, `x1`, `y1`, the predicted box in original pixels; `width`, `height` of the picture;
`true_boxes` in original pixels, four numbers each, boxes separated by semicolons; `iou` of the predicted box with the
nearest true box, or, for a picture that has a mask alone, of the map's pixels with the mask's; `error`, the type of
error, "missed" for want of a prediction also where there is no true box; `seconds`; `failure`, a sentence. What does
not exist is an empty cell.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TOP = range(1, 6)
BOX = ("x0", "y0", "x1", "y1")
COLUMNS = (
    *("id", "label", "class"),
    *(f"top{k}_{what}" for k in TOP for what in ("label", "class", "probability")),
    *BOX,
    *("width", "height", "true_boxes", "iou", "error", "seconds", "failure"),
)
# A spreadsheet takes text that begins so for a formula, unless an apostrophe stands before it.
FORMULA = re.compile(r"'*[=+\-@\t\r]")


@dataclass(frozen=True)
class ImageRecord:
    """What an evaluation found for one image."""

    id: str  # unique in the data set
    label: int | None = None  # true class; None for a picture without one
    top5: tuple[int, ...] = ()  # predicted classes, best first, at most five; () where nothing was predicted
    probabilities: tuple[float, ...] = ()  # of `top5`, 0 to 1
    box: tuple[float, ...] | None = None  # predicted, xyxy in original pixels
    true_boxes: tuple[tuple[float, ...], ...] = ()  # xyxy in original pixels, perhaps none
    size: tuple[int, int] = (0, 0)  # (width, height) in original pixels; (0, 0) where the picture could not be read
    iou: float | None = None  # of the predicted box with the nearest true box, or of pixels; None without one of them
    error: str = ""  # one of `utils.metrics.ERROR_TYPES`, or "" where unknown
    seconds: float = 0.0  # the image's share of the time
    failure: str = ""  # a sentence on what went wrong; "" if nothing did


def to_row(record: ImageRecord, class_names: Sequence[str]) -> list[str]:
    """The cells of one row in the order of `COLUMNS`; numbers are exact, except for probabilities and seconds, which
    are rounded to six decimals."""
    row = [_text(record.id), *_class_cells(record.label, class_names)]
    for k in TOP:
        is_given = k <= len(record.top5)
        row += _class_cells(record.top5[k - 1] if is_given else None, class_names)
        row.append(_number(round(float(record.probabilities[k - 1]), 6)) if is_given else "")
    row += [""] * 4 if record.box is None else [_number(value) for value in record.box]
    row += [str(int(side)) for side in record.size]
    row.append("; ".join(" ".join(_number(value) for value in box) for box in record.true_boxes))
    row.append("" if record.iou is None else _number(record.iou))
    return row + [_text(record.error), _number(round(float(record.seconds), 6)), _text(record.failure)]


def from_row(row: dict[str, str]) -> ImageRecord:
    """Undoes :func:`to_row`, from the row's cells by column."""
    top5 = [k for k in TOP if row[f"top{k}_label"]]
    return ImageRecord(
        id=_plain_text(row["id"]),
        label=int(row["label"]) if row["label"] else None,
        top5=tuple(int(row[f"top{k}_label"]) for k in top5),
        probabilities=tuple(float(row[f"top{k}_probability"]) for k in top5),
        box=tuple(float(row[name]) for name in BOX) if row["x0"] else None,
        true_boxes=tuple(tuple(map(float, box.split())) for box in row["true_boxes"].split(";") if box),
        size=(int(row["width"]), int(row["height"])),
        iou=float(row["iou"]) if row["iou"] else None,
        error=_plain_text(row["error"]),
        seconds=float(row["seconds"]),
        failure=_plain_text(row["failure"]),
    )


def read_records(path: str | Path) -> Iterator[ImageRecord]:
    """Reads an `images.csv` row by row; a last row that was cut short, by a full disk or a power cut, is left out.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, encoding="utf-8", newline="") as file:
        yield from (from_row(row) for row in csv.DictReader(file) if row[COLUMNS[-1]] is not None)


def _class_cells(label: int | None, class_names: Sequence[str]) -> list[str]:
    return ["", ""] if label is None else [str(int(label)), _text(class_names[label])]


def _number(value: float) -> str:
    # Exact and short: 12 for 12.0. A float of NumPy has another repr.
    value = float(value)
    return str(int(value)) if value.is_integer() else repr(value)


def _text(text: str) -> str:
    return f"'{text}" if FORMULA.match(text) else text


def _plain_text(text: str) -> str:
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text
