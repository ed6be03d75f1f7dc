"""Names of classes for people: read from a list, and as captions show them."""

from __future__ import annotations

import re
from pathlib import Path

from utils.data.split import read_lines


def read_class_names(
    path: Path, hint: str = "write one name a line there, in the order of the labels"
) -> tuple[str, ...]:
    """Reads a list of class names in the order of the labels.

    Args:
        path: a text file of one name a line, or of `number name` in every line, counted from 0 or 1; blank lines are
            ignored.
        hint: where to get the file if it is missing, for the message.

    Returns:
        The names, without numbers.

    Raises:
        UserError: the file is missing, no text or empty, or its numbers do not count up one by one.
    """
    lines = read_lines(Path(path), hint)
    # As text, since a number may have more digits than Python converts.
    numbered = [match for line in lines if (match := re.fullmatch(r"0*([0-9]+)\s+(.+)", line.text))]
    # Names may begin with a number themselves.
    if len(numbered) < len(lines) or numbered[0][1] not in ("0", "1"):
        return tuple(line.text for line in lines)
    first = int(numbered[0][1])
    for expected, (match, line) in enumerate(zip(numbered, lines, strict=True), start=first):
        if match[1] != str(expected):
            raise line.error(f"the class number is {match[1]} where {expected} is expected")
    return tuple(match[2] for match in numbered)


def short_name(class_name: str, longest: int = 1000) -> str:
    """A class's name as a caption shows it: without the number that CUB puts before it, blanks for underscores, and cut
    to `longest` letters."""
    name = re.sub(r"^\d+\.", "", class_name).replace("_", " ")
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
