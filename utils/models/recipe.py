"""A recipe: every number that the authors fix for one backbone on one data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class Published:
    """Localization accuracy in percent that the CVPR paper reports for one backbone on one data set."""

    top1_loc: float
    top5_loc: float
    gt_known_loc: float


@dataclass(frozen=True)
class Recipe:
    """Settings of one backbone on one data set; the defaults are what all of them share (paper section 4.1).

    Losses: total = cls + frg_weight * frg + bas + area_weight * area (paper section 3.3).
    """

    dataset: str
    arch: str
    num_classes: int

    frg_weight: float  # alpha
    area_weight: float  # beta
    # The ratio S_bg / S becomes the constant 0 beyond 1; CUB's code does so at equality as well.
    zero_ratio_at_equality: bool
    final_relu: bool = True  # the class maps end in a ReLU (the CVPR model)
    warmup_epochs: int = 0  # first epochs on L_cls alone; 0 in the paper, the demo uses it

    threshold: float = 0.15  # of the normalised foreground map
    top_k: int = 1  # foreground maps that are averaged
    # Draw maps where their cells look, instead of stretching them over the crop; False in the paper's code.
    align_maps: bool = False

    epochs: int = 100
    lr_steps: tuple[int, ...] = (80,)  # epochs at which the rate falls
    lr_decay: float = 0.1  # to this share of itself
    batch_size: int = 32
    lr: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 5e-4
    resize_size: int = 256
    crop_size: int = 224
    seed: int = 6


def override(recipe: Recipe, given: Mapping[str, Any]) -> Recipe:
    """The recipe with every setting that the user gave; what is None or no setting stays as it is.

    Args:
        recipe: the defaults.
        given: settings by name, such as `vars()` of parsed arguments.

    Returns:
        A new recipe.
    """
    names = {field.name for field in fields(recipe)}
    return replace(recipe, **{name: value for name, value in given.items() if name in names and value is not None})


def explain(recipe: Recipe) -> str:
    """The settings in force, one line."""
    return ", ".join(f"{field.name} {getattr(recipe, field.name)}" for field in fields(recipe))
