"""Object masks on disk: found beside a data set's pictures, read into the frame of the network's input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import cv2
import numpy as np
import torch

from utils.data.images import ImageError, list_pictures, read_image
from utils.data.transforms import centre_crop
from utils.errors import UserError

BACKGROUND, OBJECT, IGNORE = 0, 1, 255
# Grey level from which a pixel counts as set. CUB's levels 0, 51, ... 255 are shares of annotators: half of them.
SET = 128
# The lowest share of annotators in CUB: what stays below it everywhere are class numbers, not levels of grey.
LOWEST_GREY = 51


class MaskFiles(NamedTuple):
    """The masks of one picture, all of the picture's size.

    Attributes:
        objects: one or more masks, whose union is the object.
        ignore: a mask of the pixels that no score counts, if there is one; the object prevails over it.
    """

    objects: tuple[Path, ...]
    ignore: Path | None = None


class MaskError(UserError):
    """A mask cannot be used; the message names the file, what is wrong with it and the mend."""


def find_masks(folder: Path, ids: Sequence[str]) -> dict[str, MaskFiles]:
    """Finds the masks `<id without suffix>.png` below `folder`, with one listing per class folder.

    Args:
        folder: where the class folders of masks lie.
        ids: image ids such as "001.Black_footed_Albatross/x.jpg".

    Returns:
        Image id -> mask, for the images that have one.

    Raises:
        UserError: a folder cannot be listed.
    """
    wanted = {image_id: PurePosixPath(image_id).with_suffix(".png") for image_id in ids}
    parents = dict.fromkeys(mask.parent for mask in wanted.values())
    present = {parent: set(list_pictures(folder / parent)) for parent in parents if (folder / parent).is_dir()}
    return {
        image_id: MaskFiles((folder / mask,))
        for image_id, mask in wanted.items()
        if mask.name in present.get(mask.parent, ())
    }


def read_mask(files: MaskFiles, image_size: tuple[int, int], resize_size: int, crop_size: int) -> np.ndarray:
    """Reads a picture's masks into the frame of the network's input (wsolevaluation's `get_mask`).

    A pixel is set from a grey level of 128 on, of 255; alpha is dropped, a palette is looked up. The masks are resized
    as the picture is (aspect ignored), but to the nearest neighbour, and cropped as the picture is.

    Args:
        files: the masks.
        image_size: (width, height) of the picture in original pixels.
        resize_size: side R of the resized picture.
        crop_size: side S of the centre crop.

    Returns:
        (S, S) uint8: OBJECT where an object mask is set, else IGNORE where the ignore mask is, else BACKGROUND.

    Raises:
        MaskError: a mask cannot be read, has another size than the picture or holds no levels of grey.
        UsageError: the crop is larger than the resized picture.
    """
    mask = np.zeros(image_size[::-1], dtype=np.uint8)
    if files.ignore is not None:
        mask[_read_set_pixels(files.ignore, image_size)] = IGNORE
    for path in files.objects:
        mask[_read_set_pixels(path, image_size)] = OBJECT
    resized = cv2.resize(mask, (resize_size, resize_size), interpolation=cv2.INTER_NEAREST)
    return centre_crop(torch.from_numpy(resized), crop_size).numpy()


def _read_set_pixels(path: Path, image_size: tuple[int, int]) -> np.ndarray:
    try:
        grey = np.asarray(read_image(path).convert("L"))
    except ImageError as error:
        raise MaskError(str(error).replace("the picture", "the mask", 1)) from error
    if grey.shape != tuple(image_size[::-1]):
        height, width = grey.shape
        raise MaskError(
            f"the mask {path} has {width}x{height} pixels and its picture {image_size[0]}x{image_size[1]}; save the "
            "mask in the picture's size"
        )
    if 0 < grey.max() < LOWEST_GREY:
        raise MaskError(
            f"the mask {path} is {grey.max()} of 255 at its brightest, where an object is {SET} or more; save it in "
            "black and white (0 and 255)"
        )
    return grey >= SET
