"""Pictures to show: which ones, and three masks of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.data.evaluation import read_pictures
from utils.data.masks import OBJECT
from utils.data.split import Split
from utils.data.transforms import as_image, centre_crop
from utils.exploratory.masks import kernel_step, mask_family
from utils.exploratory.measure import Curve
from utils.models.recipe import Recipe
from utils.system.errors import UserError

EXAMPLES = 3
SHOWN = (0.5, 1.0, 2.0)  # areas of the masks that are shown, as shares of the object's own


@dataclass(frozen=True)
class Example:
    """A picture to be shown."""

    curve: Curve  # what was measured on it
    image: np.ndarray  # (S, S, 3) uint8 RGB, the crop that the network saw
    masks: np.ndarray  # (3, S, S) bool: a part of the object, the object, more than the object
    positions: tuple[int, ...]  # where these masks stand in the curve


def choose_examples(curves: Sequence[Curve], ids: Sequence[str] = (), count: int = EXAMPLES) -> list[Curve]:
    """The pictures that are shown: those of `ids`, or without any, by a rule: the network classifies them correctly, no
    two are of one class, and the object's share of the picture is as near to the median of all pictures as can be.

    Args:
        curves: of all pictures, at least one.
        ids: of `--examples`.
        count: how many are wanted of the rule.

    Returns:
        At most `count`, the nearest to the median first. Where too few are classified correctly, others follow.

    Raises:
        UserError: one of `ids` was not measured.
    """
    if ids:
        by_id = {curve.image_id: curve for curve in curves}
        if missing := [image_id for image_id in ids if image_id not in by_id]:
            raise UserError(f"--examples {missing[0]} was not measured; choose among the ids in curves.csv")
        return [by_id[image_id] for image_id in ids]
    median = np.median([curve.own_area for curve in curves])
    chosen: dict[str, Curve] = {}
    for curve in sorted(curves, key=lambda curve: (not curve.is_correct, abs(curve.own_area - median))):
        chosen.setdefault(curve.class_name, curve)
    return list(chosen.values())[:count]


def read_example(curve: Curve, split: Split, recipe: Recipe) -> Example:
    """Reads the picture of a curve again, and three of its masks: of about half, of all and of twice the object's area.

    Args:
        curve: of a picture of the split.
        split: pictures and masks.
        recipe: the sizes at which the curve was measured.

    Raises:
        UserError: the picture or its mask cannot be read any more.
    """
    batch = read_pictures(split, [split.ids.index(curve.image_id)], recipe.resize_size, recipe.crop_size, True)
    assert batch.masks is not None  # asked for
    mask = batch.masks[0].numpy() == OBJECT
    positions = tuple(int(np.abs(curve.relative_areas - area).argmin()) for area in SHOWN)
    family = mask_family(mask, kernel_step(len(mask)))
    areas = family.mean(axis=(1, 2))
    masks = np.stack([family[np.abs(areas - curve.areas[position]).argmin()] for position in positions])
    image = as_image(centre_crop(batch.images, recipe.crop_size))[0]
    return Example(curve, image, masks, positions)
