"""Object masks on disk: found beside a data set's pictures, read into the frame of the network's input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import cv2
import numpy as np
import torch

from utils.data.listing import list_pictures
from utils.data.mask_levels import ANY_LEVEL, BACKGROUND, GREY, IGNORE, OBJECT, SAMPLE, MaskError, Meaning, understand
from utils.data.transforms import centre_crop


class MaskFiles(NamedTuple):
    """The masks of one picture, each of the picture's aspect ratio.

    Attributes:
        objects: one or more masks, whose union is the object.
        ignore: a mask of the pixels that no score counts, if there is one; the object prevails over it.
    """

    objects: tuple[Path, ...]
    ignore: Path | None = None


class MaskMeanings(NamedTuple):
    """What the levels of a data set's masks mean; a phrase for people as a string.

    Attributes:
        objects: in the masks of objects.
        ignore: in the masks of pixels to ignore, of which what is object counts as set.
        files: number of files of both kinds.
    """

    objects: Meaning
    ignore: Meaning
    files: int

    def __str__(self) -> str:
        of = f"all {self.files}" if self.files <= SAMPLE else f"some of the {self.files:,}"
        others = f"; in the masks to ignore {self.ignore}" if self.ignore != self.objects else ""
        by = "whatever the levels mean" if self.objects == ANY_LEVEL else f"by the levels of {of} files"
        return f"{self.objects}{others} ({by})"


def find_masks(folder: Path, ids: Sequence[str]) -> dict[str, MaskFiles]:
    """Finds the masks `<id without suffix>.png`, or else with another picture's suffix, below `folder`, with one
    listing per class folder.

    Args:
        folder: where the class folders of masks lie.
        ids: image ids such as "001.Black_footed_Albatross/x.jpg".

    Returns:
        Image id -> mask, for the images that have one.

    Raises:
        UserError: a folder cannot be listed.
    """
    wanted = {image_id: PurePosixPath(image_id) for image_id in ids}
    present: dict[PurePosixPath, str] = {}
    for parent in dict.fromkeys(image.parent for image in wanted.values()):
        names = list_pictures(folder / parent) if (folder / parent).is_dir() else []
        for name in sorted(names, key=lambda name: not name.endswith(".png")):
            present.setdefault((parent / name).with_suffix(""), name)
    return {
        image_id: MaskFiles((folder / image.parent / present[image.with_suffix("")],))
        for image_id, image in wanted.items()
        if image.with_suffix("") in present
    }


def understand_masks(masks: Iterable[MaskFiles], any_level: bool = False) -> MaskMeanings:
    """Decides for a data set what the levels of its masks mean; see :func:`utils.data.mask_levels.understand`.

    Args:
        masks: the data set's.
        any_level: whether every level of grey but 0 is object: of CUB's, one annotator's share.

    Raises:
        MaskError: it cannot be told for sure, and not every level is object.
    """
    masks = list(masks)
    objects = {path for files in masks for path in files.objects}
    ignore = {files.ignore for files in masks if files.ignore is not None}
    meaning = _understand(objects, any_level)
    of_ignore = _understand(ignore, any_level) if ignore else meaning
    return MaskMeanings(meaning, of_ignore, len(objects) + len(ignore))


def _understand(paths: set[Path], any_level: bool) -> Meaning:
    try:
        meaning = understand(paths)
    except MaskError:
        if not any_level:
            raise
        return ANY_LEVEL
    return ANY_LEVEL if any_level and meaning == GREY else meaning


def read_mask(
    files: MaskFiles,
    image_size: tuple[int, int] | None,
    resize_size: int,
    crop_size: int,
    meanings: MaskMeanings | None = None,
) -> np.ndarray:
    """Reads a picture's masks into the frame of the network's input (wsolevaluation's `get_mask`).

    Each mask is resized by itself as the picture is (aspect ignored), but to the nearest neighbour, and cropped as the
    picture is.

    Args:
        files: the masks.
        image_size: (width, height) of the picture in original pixels, None where they are not known.
        resize_size: side R of the resized picture.
        crop_size: side S of the centre crop.
        meanings: of :func:`understand_masks` for the data set; for these files alone if None.

    Returns:
        (S, S) uint8: OBJECT where an object mask is set, else IGNORE where the ignore mask is or an object mask says
        so, else BACKGROUND.

    Raises:
        MaskError: a mask cannot be read, has another aspect ratio than the picture or levels of another meaning.
        UsageError: the crop is larger than the resized picture.
    """
    meanings = understand_masks([files]) if meanings is None else meanings
    mask = np.full((resize_size, resize_size), BACKGROUND, dtype=np.uint8)
    if files.ignore is not None:
        mask[_read_resized(files.ignore, meanings.ignore, image_size, resize_size) != BACKGROUND] = IGNORE
    objects = [_read_resized(path, meanings.objects, image_size, resize_size) for path in files.objects]
    for kind in (IGNORE, OBJECT):
        for one in objects:
            mask[one == kind] = kind
    return centre_crop(torch.from_numpy(mask), crop_size).numpy()


def _read_resized(path: Path, meaning: Meaning, image_size: tuple[int, int] | None, resize_size: int) -> np.ndarray:
    mask = meaning.read(path)
    (height, width), (image_width, image_height) = mask.shape, image_size or mask.shape[::-1]
    # Sizes that were rounded to whole pixels differ by half a pixel at each side.
    if 2 * abs(width * image_height - height * image_width) >= max(width + height, image_width + image_height):
        raise MaskError(
            f"the mask {path} has {width}x{height} pixels and its picture {image_width}x{image_height}; save the mask "
            "in the picture's size, or at least in its aspect ratio"
        )
    return cv2.resize(mask, (resize_size, resize_size), interpolation=cv2.INTER_NEAREST)
