"""A data set's split, the same for every data set, and how the text files that describe one are read."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from utils.data.images import list_class_pictures, passed_over_phrase
from utils.data.masks import MaskFiles
from utils.errors import UsageError, UserError

SPLITS = ("train", "test")
SPLITS_WITH_VAL = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """The images of one split with what is known of each; made by a data set's `load_split`.

    Attributes:
        name: "train", "val" or "test".
        layout: one phrase that names the recognised file layout, to be printed.
        ids: N unique image ids, e.g. "001.Black_footed_Albatross/x.jpg".
        paths: N picture files.
        labels: (N,) int64, class indices from 0.
        boxes: image id -> (n, 4) float64 `xyxy` in original pixels, for the images that have some.
        class_names: K names; K is the number of classes.
        masks: image id -> mask files, for the images that have some.

    Raises:
        UsageError: another name.
        UserError: there is no image, an id comes twice, or a label is not in [0, K).
    """

    name: str
    layout: str
    ids: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: np.ndarray
    boxes: Mapping[str, np.ndarray]
    class_names: tuple[str, ...]
    masks: Mapping[str, MaskFiles]

    def __post_init__(self) -> None:
        check_split_name(self.name, SPLITS_WITH_VAL)
        if not self.ids:
            raise UserError(f"the {self.name} split is empty ({self.layout}); check that the data set is complete")
        if len(set(self.ids)) < len(self.ids):
            seen: set[str] = set()
            twice = next(name for name in self.ids if name in seen or seen.add(name))
            raise UserError(f"the {self.name} split names {twice} twice ({self.layout}); keep one of the two")
        if not len(self.ids) == len(self.paths) == len(self.labels):
            raise UserError(f"{len(self.ids)} ids, {len(self.paths)} paths, {len(self.labels)} labels: must be equal")
        if self.labels.min() < 0 or self.labels.max() >= len(self.class_names):
            raise UserError(
                f"the {self.name} split has labels from {self.labels.min()} to {self.labels.max()} but "
                f"{len(self.class_names)} classes ({self.layout}); check the list of classes"
            )

    def __len__(self) -> int:
        return len(self.ids)


def take(split: Split, indices: Sequence[int]) -> Split:
    """A part of a split: the images at these positions, in this order."""
    return replace(
        split,
        ids=tuple(split.ids[index] for index in indices),
        paths=tuple(split.paths[index] for index in indices),
        labels=split.labels[list(indices)],
    )


def spread(good: ArrayLike, count: int) -> list[int]:
    """At most `count` positions, evenly over those that are true in `good` (N,)."""
    positions = np.flatnonzero(good)
    return positions[np.linspace(0, len(positions) - 1, min(count, len(positions))).round().astype(int)].tolist()


def split_of_class_folders(name: str, folder: Path, layout: str, class_names: tuple[str, ...] | None = None) -> Split:
    """Makes a split, without boxes, of `<class>/<picture>` below `folder`; ids are these relative paths.

    Args:
        name: see :class:`Split`.
        folder: the folder of class folders.
        layout: see :class:`Split`.
        class_names: all classes in the order of their labels; the sorted class folders where it is None.

    Raises:
        UserError: no class folders, one without a picture, or one that `class_names` lacks.
    """
    passed_over: Counter[str] = Counter()
    pictures = list_class_pictures(folder, passed_over)
    class_names = class_names or tuple(pictures)
    label_of = {group: label for label, group in enumerate(class_names)}
    unknown = [group for group in pictures if group not in label_of]
    if unknown:
        raise UserError(f"the folder {folder / unknown[0]} is none of the {len(class_names)} classes; remove it")
    return Split(
        name=name,
        layout=layout + passed_over_phrase(passed_over),
        ids=tuple(f"{group}/{picture}" for group, members in pictures.items() for picture in members),
        paths=tuple(folder / group / picture for group, members in pictures.items() for picture in members),
        labels=np.repeat([label_of[group] for group in pictures], [len(members) for members in pictures.values()]),
        boxes={},
        class_names=class_names,
        masks={},
    )


def check_split_name(name: str, splits: Sequence[str] = SPLITS) -> None:
    """Raises UsageError unless `name` is one of `splits`."""
    if name not in splits:
        raise UsageError(f"there is no split {name!r}; choose one of {', '.join(splits)}")


class Line(NamedTuple):
    """One line of a text file; `where` ("file, line 3") opens every message about it."""

    where: str
    text: str

    def error(self, problem: str) -> UserError:
        """The error to raise for what is wrong with this line."""
        return UserError(f"{self.where}: {problem}; correct it or get the file anew")


def read_text(path: Path, mend: str) -> str:
    """Reads a UTF-8 text file.

    Args:
        path: the file.
        mend: where to get the file if it is missing, for the message.

    Raises:
        UserError: the file is missing, cannot be read or is no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; {mend}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}; {mend}") from error


def read_lines(path: Path, mend: str) -> list[Line]:
    """Reads the lines of a text file that are not blank; arguments and errors as :func:`read_text`.

    Raises:
        UserError: moreover, where no line is left.
    """
    numbered = enumerate(read_text(path, mend).split("\n"), start=1)
    name = str(path)  # once: lists may have a million lines
    lines = [Line(f"{name}, line {number}", text.strip()) for number, text in numbered if text.strip()]
    if not lines:
        raise UserError(f"{path} is empty; {mend}")
    return lines


def read_table(path: Path, heading: Sequence[str], mend: str) -> Iterator[tuple[Line, list[str]]]:
    """Reads the rows of a CSV file, blank ones left out, as (where it stands, fields without surrounding spaces).

    Args:
        path: the file, in UTF-8.
        heading: what its first line must be.
        mend: where to get the file, for the messages.

    Raises:
        UserError: as :func:`read_text`, another heading, no CSV, or a row of another number of fields.
    """
    rows = csv.reader(io.StringIO(read_text(path, mend)), skipinitialspace=True)
    try:
        found = [field.strip() for field in next(rows, [])]
        if found != list(heading):
            raise UserError(f"{path}, line 1: the heading is not {','.join(heading)} but {','.join(found)!r}; {mend}")
        for row in rows:
            fields = [field.strip() for field in row]
            line = Line(f"{path}, line {rows.line_num}", ",".join(fields))
            if any(fields):
                if len(fields) != len(heading):
                    raise line.error(f"{len(fields)} fields where {', '.join(heading)} are due")
                yield line, fields
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num}: {error}; {mend}") from error


def parse_boxes(numbers: Sequence[str], line: Line) -> np.ndarray:
    """Turns numbers that follow one another in fours into (n, 4) float64 boxes, n >= 1.

    Args:
        numbers: the written numbers.
        line: where they stand, for the message.

    Raises:
        UserError: a number is malformed, NaN or infinite, or their count is no positive multiple of four.
    """
    if not numbers or len(numbers) % 4:
        raise line.error(f"{len(numbers)} numbers where boxes need a multiple of four")
    return np.array([parse_number(number, line) for number in numbers]).reshape(-1, 4)


def parse_box(numbers: Sequence[str], line: Line) -> np.ndarray:
    """Turns the four written numbers of a box into (1, 4) float64 `xyxy`; it may reach outside its picture.

    Raises:
        UserError: as :func:`parse_boxes`, or the box is inverted; `line` says where it stands.
    """
    boxes = parse_boxes(numbers, line)
    if len(boxes) != 1 or (boxes[:, 2:] < boxes[:, :2]).any():
        raise line.error(f"{line.text!r} has no box x0,y0,x1,y1 with x0 <= x1 and y0 <= y1")
    return boxes


def group_boxes(boxes: Iterable[tuple[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Collects the boxes of each image: (image id, (1, 4)) pairs -> image id -> (n, 4), ids in order of appearance."""
    groups: dict[str, list[np.ndarray]] = {}
    for image_id, box in boxes:
        groups.setdefault(image_id, []).append(box)
    return {image_id: np.concatenate(members) for image_id, members in groups.items()}


def parse_number(text: str, line: Line, kind: type[int] | type[float] = float) -> int | float:
    """Turns a written number into a finite `kind`.

    Raises:
        UserError: it is malformed, NaN or infinite; `line` says where it stands.
    """
    try:
        number = kind(text)
    except ValueError as error:
        raise line.error(f"{text!r} is not {'a whole' if kind is int else 'a'} number") from error
    if not math.isfinite(number):
        raise line.error(f"{text!r} is not a finite number")
    return number
