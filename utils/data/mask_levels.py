"""What the levels in a data set's masks mean: which are object, which background, which to be ignored.

Masks are saved as 0 and 255, as 0 and 1, with 255 for pixels to ignore, as numbers of instances, as shares of
annotators, in colours or in the alpha channel, and one level means different things in them. So the levels of the files
are looked at together; what they mean is decided once for a data set, or refused.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from utils.data.images import ImageError, open_picture, with_alpha
from utils.system.errors import UserError

BACKGROUND, OBJECT, IGNORE = 0, 1, 255
SAMPLE = 200  # files of a data set that are looked at, spread over all of them
HINT = "save all masks with 0 for the background and 255 for the object, or with 0, 1, and 255 for pixels to ignore"

# Grey level from which a pixel counts as set. CUB's levels are shares of five annotators: half of them.
SET = 128
SHARES = frozenset(range(0, 256, 51))
# The lowest share: what stays below it everywhere are numbers of objects, not levels of grey.
_LOWEST_GREY = 51
_DARK, _BRIGHT = 16, 240  # what JPEG makes of 0 and 255 stays outside
_COLOUR = 1 << 24  # added to colours, which so differ from all other levels
_TOO_MANY = frozenset({-1})  # levels, for a mask


class MaskError(UserError):
    """A mask cannot be used; the message names the file, what is wrong with it and the hint."""


class Levels(NamedTuple):
    """The levels of one mask.

    Attributes:
        colour: (H, W) whole numbers: levels of grey, numbers of a palette, or colours.
        alpha: (H, W) uint8, None where the file has no alpha channel.
    """

    colour: np.ndarray
    alpha: np.ndarray | None


@dataclass(frozen=True)
class Meaning:
    """What levels mean.

    Attributes:
        background, objects: levels.
        ignored: the level of pixels that no score counts, if there is one.
        in_alpha: whether the levels are those of the alpha channel.
    """

    background: range
    objects: range
    ignored: int | None = None
    in_alpha: bool = False

    def __str__(self) -> str:
        groups = {"background": self.background, "object": self.objects}
        said = [f"{' to '.join(_name(level) for level in _ends(levels))} {what}" for what, levels in groups.items()]
        said += [f"{self.ignored} ignored"] if self.ignored is not None else []
        return ", ".join(said) + (" in the alpha channel" if self.in_alpha else "")

    def read(self, path: Path) -> np.ndarray:
        """Reads a mask: (H, W) uint8 of BACKGROUND, OBJECT and IGNORE.

        Raises:
            MaskError: the file cannot be read, or has levels of no known meaning.
        """
        return self.apply(read_levels(path), path)

    def apply(self, levels: Levels, path: Path) -> np.ndarray:
        """As :meth:`read`, on levels that were read from `path`."""
        values = levels.alpha if self.in_alpha else levels.colour
        if values is None:
            raise MaskError(f"the mask {path} has no alpha channel, where others hold {self}; {HINT}")
        mask = np.full(values.shape, IGNORE, dtype=np.uint8)
        for kind, known in ((BACKGROUND, self.background), (OBJECT, self.objects)):
            mask[(values >= known.start) & (values < known.stop)] = kind
        rest = values[mask == IGNORE]
        if rest.size and (self.ignored is None or (rest != self.ignored).any()):
            raise MaskError(f"the mask {path} holds {_list(np.unique(rest))}, where others hold {self}; {HINT}")
        return mask


WHITE = Meaning(range(1), range(255, 256))
GREY = Meaning(range(SET), range(SET, 256))
ANY_LEVEL = Meaning(range(1), range(1, 256))


def understand(paths: Collection[Path]) -> Meaning:
    """Decides what the levels of a data set's masks mean, from all files or from SAMPLE of them, whatever their order.

    Args:
        paths: the files; those that cannot be read are passed over.

    Returns:
        The meaning that all levels allow:

        - 0 and 255, or 0 and one other level: background and object;
        - 0 and numbers up to 50: background and objects; 255 beside such numbers is ignored;
        - CUB's shares of annotators, and grey levels with few pixels between dark and bright: the object from 128 on;
        - the same of the alpha channel, where colours say nothing.

    Raises:
        MaskError: there is no such meaning, or more than one.
    """
    ordered = sorted(set(paths))
    positions = np.linspace(0, len(ordered) - 1, min(SAMPLE, len(ordered))).round().astype(int)
    return _understand(tuple((path := ordered[index], _time(path)) for index in positions))


def _time(path: Path) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


class _Seen(NamedTuple):
    path: Path
    colour: frozenset[int]
    alpha: frozenset[int]


# Several readers of one data set ask. The times tell a file that was exchanged since.
@lru_cache(maxsize=8)
def _understand(files: tuple[tuple[Path, int], ...]) -> Meaning:
    pixels: dict[str, Counter[int]] = {"colour": Counter(), "alpha": Counter()}
    seen = []
    for path, _ in files:
        with suppress(MaskError):
            levels = read_levels(path)
            seen.append(_Seen(path, _count(levels.colour, pixels["colour"]), _count(levels.alpha, pixels["alpha"])))
    meaning = _decide([one.colour for one in seen], pixels["colour"])
    layered = [one for one in seen if len(one.alpha) > 1]
    if layered and meaning != GREY:
        if meaning is None or all(len(one.colour) == 1 for one in layered):
            meaning = _decide([one.alpha for one in seen if one.alpha], pixels["alpha"])
            meaning = meaning and replace(meaning, in_alpha=True)
        else:
            _require_agreement(meaning, [one.path for one in layered])
    if meaning is None:
        files_with = Counter(level for one in seen for level in one.colour)
        odd = min(seen, key=lambda one: (min(files_with[level] for level in one.colour), -len(one.colour)))
        raise MaskError(
            f"what the masks mean cannot be told from their levels, {_list(sorted(pixels['colour']))}, the rarest of "
            f"them in {odd.path}; {HINT}, or move the masks away to do without"
        )
    return meaning


def _count(values: np.ndarray | None, pixels: Counter[int]) -> frozenset[int]:
    """The levels of a file, whose pixels are added to the others'."""
    if values is None:
        return frozenset()
    if values.dtype == np.uint8:  # several times as fast
        counts = np.bincount(values.ravel())
        levels = np.flatnonzero(counts)
        counts = counts[levels]
    else:
        levels, counts = np.unique(values, return_counts=True)
    if len(levels) > 256:
        levels, counts = np.array([*_TOO_MANY]), np.array([values.size])
    pixels.update(dict(zip(levels.tolist(), counts.tolist(), strict=True)))
    return frozenset(levels.tolist())


def _decide(files: Sequence[frozenset[int]], pixels: Counter[int]) -> Meaning | None:
    """The meaning of the levels of some files and of their numbers of pixels, if it is a sure one."""
    known = frozenset().union(*files)
    if known <= {0, 255}:
        return WHITE
    if known <= SHARES and (max(known) >= SET or 0 not in known):
        return GREY
    numbers = known - {0, 255}
    if min(known) < 0 or (0 not in known and known != {1}) or known < SHARES:
        return None
    if known == {0} | numbers and len(numbers) == 1 or known == {1}:
        (level,) = numbers
        return Meaning(range(1), range(level, level + 1))
    if max(numbers) < _LOWEST_GREY:
        objects = range(min(numbers), max(numbers) + 1) if len(numbers) == 1 else range(1, _LOWEST_GREY)
        if 255 not in known:
            return Meaning(range(1), objects)
        # Where no file has both, some may be saved as 0 and 1 and others as 0 and 255.
        return (
            Meaning(range(1), objects, ignored=255) if any(255 in file and file & numbers for file in files) else None
        )
    middle = {level for level in known if _DARK <= level < _BRIGHT}
    between = sum(pixels[level] for level in middle)
    bright = sum(pixels[level] for level in known if _BRIGHT <= level <= 255)
    has_few_between = len(middle) != 1 and bright > 0 and 2 * between <= bright
    has_shares = known >= SHARES and len(known) <= 2 * len(SHARES)
    return GREY if max(known) <= 255 and (has_few_between or has_shares) else None


def _require_agreement(meaning: Meaning, paths: Sequence[Path]) -> None:
    for path in paths:
        levels = read_levels(path)
        if levels.alpha is not None and ((meaning.apply(levels, path) == OBJECT) != (levels.alpha >= SET)).any():
            raise MaskError(f"the mask {path} shows one object in its colours and another one in its alpha; {HINT}")


def read_levels(path: Path) -> Levels:
    """Reads the levels of a mask, as they were meant when it was saved.

    A grey palette is looked up; in one of colours with black for 0 (PASCAL VOC's) the numbers count; grey levels of 16
    bits that are 8 bits spread over 16 become these; other colours are numbers from 2 ** 24 on, with 0 for black.

    Raises:
        MaskError: the file cannot be read, holds several pictures or fractions.
    """
    try:
        with open_picture(path) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                raise ValueError(f"it holds {frames} pictures where one is expected")
            layer = None if image.mode.startswith(("I", "F")) else with_alpha(image)
            return Levels(_colour_levels(image), None if layer is None else np.asarray(layer.getchannel("A")))
    except ImageError as error:
        raise MaskError(str(error).replace("the picture", "the mask", 1)) from error


def _colour_levels(image: Image.Image) -> np.ndarray:
    if image.mode == "P":
        entries, indices = np.array(image.getpalette("RGB")).reshape(-1, 3), np.asarray(image)
        is_numbered = not _is_grey(entries) and not entries[0].any()
        return indices if is_numbered else _to_levels(entries[indices])
    if image.mode == "1":
        return np.where(np.asarray(image), 255, 0).astype(np.uint8)
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        if values.dtype.kind == "f" and (values != np.rint(values)).any():
            raise ValueError("its levels are fractions")
        return _without_spread(values.astype(np.int64))
    if image.mode == "La":
        image = image.convert("LA")
    return np.asarray(image.convert("L")) if image.mode in ("L", "LA") else _to_levels(np.asarray(image.convert("RGB")))


def _is_grey(colours: np.ndarray) -> bool:
    return bool((colours == colours[..., :1]).all())


def _to_levels(colours: np.ndarray) -> np.ndarray:
    """(H, W, 3) -> (H, W), the levels of grey where all colours are."""
    if _is_grey(colours):
        return colours[..., 0]
    numbers = colours.astype(np.int64) @ (1 << 16, 1 << 8, 1)
    return numbers + _COLOUR * (numbers > 0)


def _without_spread(values: np.ndarray) -> np.ndarray:
    """Levels of 16 bits as the 8 bits that they were made of; 65535 beside small numbers as 255."""
    if values.max() > 255:
        for step in (257, 256):
            if not (values % step).any():
                return values // step
        if values[values != 0xFFFF].max() < 255:
            return np.where(values == 0xFFFF, 255, values)
    return values


def _ends(levels: range) -> tuple[int, ...]:
    return (levels[0],) if len(levels) == 1 else (levels[0], levels[-1])


def _name(level: int) -> str:
    return f"#{level - _COLOUR:06x}" if level >= _COLOUR else str(level)


def _list(levels: Sequence[int] | np.ndarray, most: int = 8) -> str:
    if min(levels) < 0:
        return "more than 256 in a file"
    return ", ".join(map(_name, levels[:most])) + (f" and {len(levels) - most} more" if len(levels) > most else "")
