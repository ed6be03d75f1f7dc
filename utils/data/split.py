"""A data set's split, the same for every data set, and how the text files that describe one are read."""

from __future__ import annotations

import csv
import io
import math
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike

from utils.data.listing import describe_folders, list_class_pictures, passed_over_phrase
from utils.data.masks import MaskFiles
from utils.system.errors import UsageError, UserError

SPLITS = ("train", "test")
SPLITS_WITH_VAL = ("train", "val", "test")

# What no right list holds: a class beyond the largest data sets' (ImageNet-21k has 21,841), for each of which the
# network would have a map; a corner beyond any picture; a line longer than any path or row of boxes, in characters.
MOST_CLASSES = 100_000
FARTHEST = 1e6
LONGEST_LINE = 10_000


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
        sizes: image id -> (width, height) of the picture that its boxes were drawn on, where a list tells it.
        positives: (N, K) bool, all labels of pictures that may have several, of which `labels` has the first; None
            where each has one.
        banner: rows at the bottom of every picture that are no part of it and are cut off.

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
    sizes: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    positives: np.ndarray | None = None
    banner: int = 0

    def __post_init__(self) -> None:
        check_split_name(self.name, SPLITS_WITH_VAL)
        if not self.ids:
            raise UserError(f"the {self.name} split is empty ({self.layout}); check that the data set is complete")
        if len(set(self.ids)) < len(self.ids):
            twice = next(name for name, count in Counter(self.ids).items() if count > 1)
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
        positives=None if split.positives is None else split.positives[list(indices)],
    )


def classes_without_pictures(split: Split) -> list[str]:
    """The names of the classes that no picture of a split is labelled with, as of labels that count from 1."""
    seen = np.unique(split.labels) if split.positives is None else np.flatnonzero(split.positives.any(axis=0))
    return [split.class_names[label] for label in np.setdiff1d(np.arange(len(split.class_names)), seen)]


def spread(good: ArrayLike, count: int) -> list[int]:
    """At most `count` positions, evenly over those that are true in `good` (N,)."""
    positions = np.flatnonzero(good)
    return positions[np.linspace(0, len(positions) - 1, min(count, len(positions))).round().astype(int)].tolist()


def split_of_class_folders(name: str, folder: Path, layout: str, class_names: tuple[str, ...] | None = None) -> Split:
    """Makes a split, without boxes, of `<class>/.../<picture>` below `folder`; ids are these relative paths.

    A class without a picture cannot be learnt, but be missing from a test: its folder is refused in "train" alone.

    Args:
        name: see :class:`Split`.
        folder: the folder of class folders.
        layout: see :class:`Split`.
        class_names: all classes in the order of their labels; the sorted class folders where it is None.

    Raises:
        UserError: no class folders, one without a picture (but for "train", all of them), or one that `class_names`
            lacks.
    """
    passed_over: Counter[str] = Counter()
    pictures = list_class_pictures(folder, passed_over, may_be_empty=name != "train")
    class_names = class_names or tuple(pictures)
    label_of = {group: label for label, group in enumerate(class_names)}
    unknown = [group for group in pictures if group not in label_of]
    if unknown:
        raise UserError(f"the folder {folder / unknown[0]} is none of the {len(class_names)} classes; remove it")
    return Split(
        name=name,
        layout=layout + describe_folders(pictures) + passed_over_phrase(passed_over),
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
        return UserError(f"{self.where}: {shorten(problem)}; correct it or get the file anew")


def shorten(text: str, most: int = 400) -> str:
    """What a message quotes of a file, which may be anything, at a length that can be read."""
    return text if len(text) <= most else f"{text[: most - 100]} ... {text[-100:]}"


def read_bytes(path: Path, hint: str) -> bytes:
    """Reads a file that describes a data set; every such file is opened here.

    Args:
        path: the file.
        hint: where to get the file if it is missing, for the message.

    Raises:
        UserError: the file is missing, cannot be read or is none: a folder, or a FIFO or a device, which may never end.
    """
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            raise UserError(f"{path} is {'a folder' if stat.S_ISDIR(mode) else 'a device or a pipe'}, no file; {hint}")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; {hint}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; {hint}") from error


def read_text(path: Path, hint: str) -> str:
    """Reads a UTF-8 text file, with any system's line ends; arguments and errors as :func:`read_bytes`.

    Raises:
        UserError: moreover, where the file is no UTF-8 text.
    """
    try:
        text = read_bytes(path, hint).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        is_utf16 = error.object.startswith((b"\xff\xfe", b"\xfe\xff"))
        found = "it is UTF-16" if is_utf16 else f"line {number} is no UTF-8 ({error.reason})"
        raise UserError(f"cannot read {path}: {found}; save it as UTF-8 text, or {hint}") from error
    nul = text.find("\0")
    if nul >= 0:
        number = text.count("\n", 0, nul) + 1
        raise UserError(f"cannot read {path}: line {number} holds a NUL, so it is no UTF-8 text; {hint}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path, hint: str) -> list[Line]:
    """Reads the lines of a text file that are not blank; arguments and errors as :func:`read_text`.

    Raises:
        UserError: moreover, where no line is left, or one is longer than LONGEST_LINE.
    """
    numbered = enumerate(read_text(path, hint).split("\n"), start=1)
    name = str(path)  # once: lists may have a million lines
    lines = [Line(f"{name}, line {number}", text.strip()) for number, text in numbered if text.strip()]
    if not lines:
        raise UserError(f"{path} is empty; {hint}")
    longest = max(lines, key=lambda line: len(line.text))
    if len(longest.text) > LONGEST_LINE:
        raise longest.error(f"{len(longest.text)} characters, where {LONGEST_LINE} are the most")
    return lines


def read_table(path: Path, heading: Sequence[str], hint: str) -> Iterator[tuple[Line, list[str]]]:
    """Reads the rows of a CSV file, blank ones left out, as (where it stands, fields without surrounding spaces).

    Args:
        path: the file, in UTF-8.
        heading: what its first line must be.
        hint: where to get the file, for the messages.

    Raises:
        UserError: as :func:`read_text`, another heading, no CSV, or a row of another number of fields.
    """
    rows = csv.reader(io.StringIO(read_text(path, hint)), skipinitialspace=True)
    try:
        found = [field.strip() for field in next(rows, [])]
        if found != list(heading):
            shown = shorten(repr(",".join(found)))
            raise UserError(f"{path}, line 1: the heading is not {','.join(heading)} but {shown}; {hint}")
        for row in rows:
            fields = [field.strip() for field in row]
            line = Line(f"{path}, line {rows.line_num}", ",".join(fields))
            if any(fields):
                if len(fields) != len(heading):
                    raise line.error(f"{len(fields)} fields where {', '.join(heading)} are expected")
                yield line, fields
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num}: {error}; {hint}") from error


def parse_boxes(numbers: Sequence[str], line: Line, strict: bool = False, widths: bool = False) -> np.ndarray:
    """Turns numbers that follow one another in fours into boxes; every reader's boxes are parsed here.

    Args:
        numbers: the written numbers.
        line: where they stand, for the message.
        strict: whether a box must have an area, as one of a single pixel, x0 = x1, has not.
        widths: whether a box is written as x, y, width, height and not as two corners.

    Returns:
        (n, 4) float64 `xyxy`, n >= 1; they may reach outside their picture.

    Raises:
        UserError: a number is malformed, NaN, infinite or beyond FARTHEST, their count is no positive multiple of
            four, or a box is inverted.
    """
    if not numbers or len(numbers) % 4:
        raise line.error(f"{len(numbers)} numbers where boxes need a multiple of four")
    boxes = np.array([_parse_coordinate(number, line) for number in numbers]).reshape(-1, 4)
    if widths:
        boxes[:, 2:] += boxes[:, :2]
    starts, ends = boxes[:, :2], boxes[:, 2:]
    inverted = (ends <= starts if strict else ends < starts).any(axis=1)
    if inverted.any():
        first, sign = 4 * int(inverted.argmax()), "<" if strict else "<="
        corners = f"x0,y0,x1,y1 with x0 {sign} x1 and y0 {sign} y1"
        due = f"x,y,w,h with {'positive w and h' if strict else 'w and h of 0 or more'}" if widths else corners
        raise line.error(f"{','.join(numbers[first : first + 4])!r} is no box {due}")
    return boxes


def parse_box(numbers: Sequence[str], line: Line, strict: bool = False, widths: bool = False) -> np.ndarray:
    """Turns the written numbers of one box into (1, 4) float64 `xyxy`; arguments and errors as :func:`parse_boxes`.

    Raises:
        UserError: moreover, for several boxes.
    """
    boxes = parse_boxes(numbers, line, strict, widths)
    if len(boxes) != 1:
        raise line.error(f"{len(numbers)} numbers are no box {'x,y,w,h' if widths else 'x0,y0,x1,y1'}")
    return boxes


def parse_one_based_box(numbers: Sequence[str], line: Line) -> np.ndarray:
    """As :func:`parse_box`, of corners that count pixels from 1 and both belong to the box, as MATLAB's tools have it:
    `1 1 10 10` is the box of ten pixels from the picture's edge, (0, 0, 10, 10)."""
    return parse_box(numbers, line) - (1, 1, 0, 0)


def _parse_coordinate(text: str, line: Line) -> float:
    number = parse_number(text, line)
    if abs(number) > FARTHEST:
        raise line.error(f"{text!r} lies beyond any picture's edge")
    return number


def group_boxes(boxes: Iterable[tuple[str, np.ndarray]], once: bool = False) -> dict[str, np.ndarray]:
    """Collects the boxes of each image: (image id, (1, 4)) pairs -> image id -> (n, 4), ids in order of appearance.

    With `once`, a box that is listed twice is one object, not two; the published lists are taken as they are.
    """
    groups: dict[str, list[np.ndarray]] = {}
    seen: set[tuple[str, tuple[float, ...]]] = set()
    for image_id, box in boxes:
        if once:
            one = image_id, tuple(box.ravel().tolist())
            if one in seen:
                continue
            seen.add(one)
        groups.setdefault(image_id, []).append(box)
    return {image_id: np.concatenate(members) for image_id, members in groups.items()}


def parse_label(text: str, line: Line) -> int:
    """Turns a written class index into a number in [0, MOST_CLASSES).

    Raises:
        UserError: it is malformed, negative or beyond any data set's classes; `line` says where it stands.
    """
    label = parse_number(text, line, int)
    if label < 0:
        raise line.error(f"the label is {label}, but labels count from 0")
    if label >= MOST_CLASSES:
        raise line.error(f"the label is {label}, but more than {MOST_CLASSES:,} classes are not provided for")
    return label


def parse_one_based_label(text: str, line: Line) -> int:
    """As :func:`parse_label`, of classes that count from 1, written as a whole number or, by MATLAB, as 3.0."""
    number = parse_number(text, line)
    if not number.is_integer() or number < 1:
        raise line.error(f"the class is {text}, where whole numbers from 1 are expected")
    return parse_label(str(int(number) - 1), line)


@overload
def parse_number(text: str, line: Line, kind: type[int]) -> int: ...
@overload
def parse_number(text: str, line: Line, kind: type[float] = ...) -> float: ...
def parse_number(text: str, line: Line, kind: type[float] = float) -> float:
    """Turns a number, written in ASCII, into a finite `kind`.

    Raises:
        UserError: it is malformed, NaN or infinite, or has more digits than a float; `line` says where it stands.
    """
    try:
        if "_" in text or not text.isascii():  # which Python would take
            raise ValueError(text)
        number = kind(text)
    except ValueError as error:
        raise line.error(f"{text!r} is not {'a whole' if kind is int else 'a'} number") from error
    try:
        is_finite = math.isfinite(number)
    except OverflowError:
        is_finite = False
    if not is_finite:
        raise line.error(f"{text!r} is not a finite number")
    return number
