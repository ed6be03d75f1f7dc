"""Pictures to show: which ones, and three masks of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from utils.data.class_names import short_name
from utils.data.evaluation import read_pictures
from utils.data.masks import OBJECT
from utils.data.split import Split
from utils.data.transforms import centre_crop, denormalize
from utils.errors import UserError
from utils.exploratory.masks import kernel_step, mask_family
from utils.exploratory.measure import Curve
from utils.models.recipe import Recipe

EXAMPLES = 3
SHOWN = (0.5, 1.0, 2.0)  # areas of the masks that are shown, as shares of the object's own
LONGEST_NAME = 28  # letters of a caption


@dataclass(frozen=True)
class Example:
    """A picture to be shown.

    Attributes:
        curve: what was measured on it.
        image: (S, S, 3) uint8 RGB, the crop that the network saw.
        masks: (3, S, S) bool: a part of the object, the object, more than the object.
        positions: where these masks stand in the curve.
    """

    curve: Curve
    image: np.ndarray
    masks: np.ndarray
    positions: tuple[int, ...]

    @property
    def name(self) -> str:
        """The class, short enough to stand above the three masks."""
        name = short_name(self.curve.class_name)
        return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def choose_examples(curves: Sequence[Curve], count: int = EXAMPLES) -> list[Curve]:
    """The pictures that are shown, by a rule: the network classifies them correctly, no two are of one class, and the
    object's share of the picture is as near to the median of all pictures as can be.

    Args:
        curves: of all pictures, at least one.
        count: how many are wanted.

    Returns:
        At most `count`, the nearest to the median first. Where too few are classified correctly, others follow.
    """
    median = np.median([curve.own_area for curve in curves])
    chosen: dict[str, Curve] = {}
    for curve in sorted(curves, key=lambda curve: (not curve.is_correct, abs(curve.own_area - median))):
        chosen.setdefault(curve.class_name, curve)
    return list(chosen.values())[:count]


def find_curves(curves: Iterable[Curve], ids: Sequence[str]) -> list[Curve]:
    """The curves of these pictures; UserError where one of them was not measured."""
    by_id = {curve.image_id: curve for curve in curves}
    missing = [image_id for image_id in ids if image_id not in by_id]
    if missing:
        raise UserError(f"--examples {missing[0]} was not measured; choose among the ids in curves.csv")
    return [by_id[image_id] for image_id in ids]


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
    mask = batch.masks[0].numpy() == OBJECT
    positions = tuple(int(np.abs(curve.relative_areas - area).argmin()) for area in SHOWN)
    family = mask_family(mask, kernel_step(len(mask)))
    areas = family.mean(axis=(1, 2))
    masks = np.stack([family[np.abs(areas - curve.areas[position]).argmin()] for position in positions])
    image = denormalize(centre_crop(batch.images, recipe.crop_size))[0]
    return Example(curve, image, masks, positions)
