"""Annotations in PASCAL VOC's XML, as VOC, ImageNet and Stanford Dogs ship them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from utils.data.split import Line, parse_boxes, parse_number, read_bytes

CORNERS = ("xmin", "ymin", "xmax", "ymax")
SIDES = ("width", "height")


class Annotation(NamedTuple):
    """What a file tells of its picture."""

    names: tuple[str, ...]  # of n objects, n >= 1
    boxes: np.ndarray  # (n, 4) float64 xyxy as they are written
    size: tuple[float, float] | None  # (width, height) of the picture, where it is told


def read_voc_xml(path: Path, hint: str) -> Annotation:
    """Reads an annotation.

    Args:
        path: the file, whatever its suffix.
        hint: where to get it, for the messages.

    Raises:
        UserError: no readable XML, no object, or one that lacks its name or a corner.
    """
    file = Line(str(path), "")
    try:
        root = ElementTree.fromstring(read_bytes(path, hint))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise file.error(f"no well-formed XML ({error})") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]  # without a namespace
    objects = root.findall("object")
    if not objects:
        raise file.error("it describes no object")
    numbers = [thing.findtext(f"bndbox/{corner}", "").strip() for thing in objects for corner in CORNERS]
    names = tuple(thing.findtext("name", "").strip() for thing in objects)
    if not all(names) or not all(numbers):
        raise file.error(f"an object lacks its name or a corner of its bndbox ({', '.join(CORNERS)})")
    # Some tools leave the size out, or at 0.
    width, height = (parse_number(root.findtext(f"size/{side}", "").strip() or "0", file) for side in SIDES)
    return Annotation(names, parse_boxes(numbers, file), (width, height) if width and height else None)
