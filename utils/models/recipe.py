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

    Losses: total = cls_weight * cls + frg_weight * frg + bas_weight * bas + area_weight * area (paper section 3.3).
    """

    dataset: str
    arch: str
    num_classes: int

    frg_weight: float  # alpha
    area_weight: float  # beta
    # Where the ratio S_bg / S counts as beyond 1: S_bg >= S (`ge`, CUB's code) or S_bg > S (`gt`, ILSVRC's and IJCV's).
    ratio_compare: str
    ratio_beyond_one: str = "zero"  # there it becomes the constant 0 (`zero`) or 1 (`one`, IJCV), or stays (`keep`)
    cls_weight: float = 1.0
    bas_weight: float = 1.0
    # What trains the generator besides L_ac: `activation` is L_bas; `cross_entropy` see utils/losses.py.
    generator_loss: str = "activation"
    frozen_f2: bool = True  # f2 is constant in the second pass
    # What the frozen f2 normalises a batch by: statistics of the masked features (`masked`, the authors' code) or those
    # of the whole pictures (`whole`).
    frozen_statistics: str = "masked"
    tap: str | None = None  # the layer after which f1 ends; None is the paper's, utils/models/<arch>.py lists them
    final_relu: bool = True  # the class maps end in a ReLU (the CVPR model)
    warmup_epochs: int = 0  # first epochs on L_cls alone; 0 in the paper, the demo uses it
    name: str = "cvpr"  # the paper that it comes from; `ijcv` is the authors' second
    sync_bn: bool = False  # batch statistics over all processes, instead of each one's own as the authors had

    threshold: float = 0.15  # of the normalised foreground map
    top_k: int = 1  # foreground maps that are averaged
    # Draw maps where their cells look, instead of stretching them over the crop; False in the paper's code.
    align_maps: bool = False

    epochs: int = 100
    lr_steps: tuple[int, ...] = (80,)  # epochs at which the rate falls
    lr_decay: float = 0.1  # to this share of itself
    batch_size: int = 32
    lr: float = 0.001
    generator_rate: float = 1.0  # the generator's, as a share of the classifier head's (which is 10 times `lr`)
    max_grad_norm: float = 0.0  # the gradients of a step are scaled down to this norm; 0 leaves them, as the papers do
    momentum: float = 0.9
    weight_decay: float = 5e-4
    resize_size: int = 256
    crop_size: int = 224
    seed: int = 6


def ijcv_recipe(cvpr: Recipe, **own: Any) -> Recipe:
    """The authors' second paper (Zhai et al., IJCV 2023): what changes for every backbone and data set, and `own`.

    The class maps have no final ReLU, and the ratio becomes the constant 1 where S_bg > S. alpha, and whatever `own`
    does not name, is as in the CVPR paper.
    """
    shared = {"name": "ijcv", "final_relu": False, "ratio_compare": "gt", "ratio_beyond_one": "one"}
    return replace(cvpr, **{**shared, **own})


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
