"""Boxes that are not of the picture they are given with: found where both meet, and no score is made of many of them.

Boxes of a picture that was shrunk since, shares where pixels are expected, or boxes drawn on the picture as a viewer
turns it give a score like any other, and a wrong one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from utils.system.errors import UserError

# Beyond the edge, annotators' boxes reach by a few pixels: CUB has 36 such.
SLACK_PIXELS, SLACK_SHARE = 5, 0.05
# The share of pictures that may be slips; more are a mistake with the whole data set.
MOST_MISFITS = 0.05
SHOWN = 3
OPTION = "--ignore-misfits"

# What was probably done, by the kind of misfit, with a hint.
REASONS = {
    "size": "the pictures were shrunk, or otherwise resized, after their list was made: scale the boxes too, or take "
    "the original pictures",
    "outside": "the pictures were shrunk and the boxes were not, or the boxes are other pictures': scale the boxes, or "
    "take the original pictures",
    "shares": "the boxes are shares of width and height: multiply them by these, pixels are expected",
    "empty": "the boxes are points or lines: write both corners",
    "upright": "the boxes were drawn on the upright picture, but the file stores it turned, with an EXIF tag: save the "
    "pictures upright, or turn the boxes",
    "turned": "the files store the pictures turned, with an EXIF tag, and nothing tells whether the boxes were drawn "
    "on the upright picture or, as they are read, on the stored pixels: save the pictures upright, with such boxes",
}
AS_STORED = "as stored"  # no misfit: a picture that shows that the boxes of turned ones are in the stored pixels


class Misfit(NamedTuple):
    """What is wrong with the boxes of one picture."""

    kind: str  # of REASONS, or AS_STORED
    text: str  # names the picture


class MisfitError(UserError):
    """Too many pictures have boxes that cannot be theirs; all processes of an evaluation find the same."""

    is_shared = True


def find_misfit(
    path: object, size: tuple[int, int], turn: int, boxes: np.ndarray, listed: tuple[float, float] | None = None
) -> Misfit | None:
    """Looks whether boxes can be of the picture they are given with.

    Args:
        path: of the picture, for the message.
        size: (width, height) of the picture as stored, in pixels.
        turn: its EXIF orientation, 1 to 8; 1 is upright.
        boxes: (n, 4) `xyxy` in original pixels.
        listed: (width, height) of the picture that they were drawn on, where it is known.

    Returns:
        None where all is well or nothing is to be said.
    """
    stored, turned = f"{path} has {size[0]}x{size[1]} pixels", f"{path} has the EXIF orientation {turn}"
    upright = size[::-1] if turn > 4 else size
    if listed is not None and listed != size:
        kind = "upright" if listed == upright else "size"
        return Misfit(kind, f"{stored} and a listed size of {listed[0]:g}x{listed[1]:g}")
    checks = {
        "empty": (boxes[:, 2:] <= boxes[:, :2]).any(axis=1),
        "shares": (np.abs(boxes) <= 1).all(axis=1) & (max(size) > 2),
        "outside": _reach_outside(boxes, size),
    }
    for kind, wrong in checks.items():
        if wrong.any():
            if kind == "outside" and upright != size and not _reach_outside(boxes, upright).any():
                kind = "upright"
            box = ",".join(f"{number:g}" for number in boxes[int(wrong.argmax())])
            return Misfit(kind, f"{stored} and a box {box}")
    if turn == 1:
        return None
    if upright != size and (listed is not None or _reach_outside(boxes, upright).any()):
        return Misfit(AS_STORED, "")
    return Misfit("turned", turned)


def _reach_outside(boxes: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """(n, 4) -> (n,) bool."""
    slack = np.maximum(SLACK_PIXELS, SLACK_SHARE * np.asarray(size))
    return np.any((boxes[:, :2] < -slack) | (boxes[:, 2:] > np.asarray(size) + slack), axis=1)


def settle(found: Mapping[int, Misfit]) -> list[Misfit]:
    """What counts of all that was found in a split, by position: one picture's boxes tell the frame of the others."""
    kinds = {misfit.kind for misfit in found.values()}
    passed_over = {AS_STORED, "turned"} if AS_STORED in kinds and "upright" not in kinds else {AS_STORED}
    return [found[index] for index in sorted(found) if found[index].kind not in passed_over]


def require_fit(misfits: Sequence[Misfit], checked: int, count: int, split: str) -> None:
    """MisfitError if the misfits are more than slips.

    A single one is a slip in any split that has another picture.

    Args:
        misfits: of :func:`settle`.
        checked: pictures that were compared with their boxes so far.
        count: pictures with boxes that there are.
        split: its name, for the message.
    """
    if not misfits or (len(misfits) <= max(1, MOST_MISFITS * count) and len(misfits) < count):
        return
    kinds = [misfit.kind for misfit in misfits]
    reason = REASONS[max(REASONS, key=kinds.count)]
    verb = "may not" if set(kinds) == {"turned"} else "cannot"
    more = f"; and {len(misfits) - SHOWN} more" if len(misfits) > SHOWN else ""
    raise MisfitError(
        f"the boxes of {len(misfits)} of the {checked} pictures that were read of the {split} split {verb} be theirs "
        f"({'; '.join(misfit.text for misfit in misfits[:SHOWN])}{more}); probably {reason}; {OPTION} scores them all "
        "the same"
    )
