"""A data set's split, the same for every data set, and how the text files that describe one are read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.data.images import list_class_pictures
from utils.errors import UsageError, UserError

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Split:
    """The images of one split with what is known of each; made by a data set's `load_split`.

    Attributes:
        name: "train" or "test".
        layout: one phrase that names the recognised file layout, to be printed.
        ids: N unique image ids, e.g. "001.Black_footed_Albatross/x.jpg".
        paths: N picture files.
        labels: (N,) int64, class indices from 0.
        boxes: image id -> (n, 4) float64 `xyxy` in original pixels; training may lack some or all.
        class_names: K names; K is the number of classes.
        masks: image id -> mask file, for the images that have one.

    Raises:
        UsageError: the name is neither "train" nor "test".
        UserError: there is no image, an id comes twice, or a label is not in [0, K).
    """

    name: str
    layout: str
    ids: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: np.ndarray
    boxes: Mapping[str, np.ndarray]
    class_names: tuple[str, ...]
    masks: Mapping[str, Path]

    def __post_init__(self) -> None:
        check_split_name(self.name)
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


def training_split_of_class_folders(folder: Path, layout: str, class_names: tuple[str, ...] | None = None) -> Split:
    """Makes the training split of `<class>/<picture>` below `folder`; ids are these relative paths.

    Args:
        folder: the folder of class folders.
        layout: see :class:`Split`.
        class_names: all classes in the order of their labels; the sorted class folders where it is None.

    Raises:
        UserError: no class folders, one without a picture, or one that `class_names` lacks.
    """
    pictures = list_class_pictures(folder)
    class_names = class_names or tuple(pictures)
    label_of = {name: label for label, name in enumerate(class_names)}
    unknown = [name for name in pictures if name not in label_of]
    if unknown:
        raise UserError(f"the folder {folder / unknown[0]} is none of the {len(class_names)} classes; remove it")
    return Split(
        name="train",
        layout=layout,
        ids=tuple(f"{name}/{picture}" for name, members in pictures.items() for picture in members),
        paths=tuple(folder / name / picture for name, members in pictures.items() for picture in members),
        labels=np.repeat([label_of[name] for name in pictures], [len(members) for members in pictures.values()]),
        boxes={},
        class_names=class_names,
        masks={},
    )


def check_split_name(name: str) -> None:
    """Raises UsageError unless `name` is "train" or "test"."""
    if name not in SPLITS:
        raise UsageError(f"there is no split {name!r}; choose one of {', '.join(SPLITS)}")


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
    lines = [Line(f"{path}, line {number}", text.strip()) for number, text in numbered if text.strip()]
    if not lines:
        raise UserError(f"{path} is empty; {mend}")
    return lines


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
