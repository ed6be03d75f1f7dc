"""A recipe: every number that the authors fix for one backbone on one data set, and how each is given as an option."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from utils.system.options import (
    FACTOR,
    FLAG,
    NAME,
    NATURAL,
    POSITIVE,
    POSITIVE_FACTOR,
    POSITIVE_SHARE,
    SEED,
    SHARE,
    SIDE,
    Choice,
    Several,
    option,
)

PAPERS = ("cvpr", "ijcv")
COMPARE = ("ge", "gt")  # PyTorch's names
# Where the background is activated more than the whole; None keeps the ratio.
BEYOND_ONE = {"zero": 0.0, "one": 1.0, "keep": None}
FROZEN_STATISTICS = ("masked", "whole")
GENERATOR_LOSSES = ("activation", "cross_entropy")
MASK_POOLINGS = ("blocks", "aligned")
ALIGNMENTS = STRETCHED, GEOMETRIC, CALIBRATED = "stretched", "geometric", "calibrated"

# Titles of the options in help, and what is said of them there.
RECIPE, ABLATIONS = "recipe", "ablations, each off by default"
SEGMENTATION = "what the second paper's segmentation (VOC) has otherwise"
GROUPS = {
    RECIPE: "What is not given is the authors' for the data set and backbone.",
    ABLATIONS: "One question of the papers each.",
    SEGMENTATION: "For the other data sets all of it is off.",
}
RESIZES = BILINEAR, BICUBIC = "bilinear", "bicubic"


@dataclass(frozen=True)
class Published:
    """Localization accuracy in percent that a paper, or its authors' README, reports of a backbone on a data set."""

    top1_loc: float
    top5_loc: float
    gt_known_loc: float


@dataclass(frozen=True)
class PublishedPixels:
    """The same for a data set of masks, in percent."""

    peak_iou: float
    px_ap: float


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of one backbone on one data set; the defaults are what all of them share (paper section 4.1).

    Losses: total = cls_weight * cls + frg_weight * frg + bas_weight * bas + area_weight * area (paper section 3.3).

    Metadata of a field: `option`, see :mod:`utils.system.options`; `of_heads`, where the model's heads are built with
    it; `evaluates`, where a checkpoint is evaluated with it; `may_change`, where a run may go on with another value.
    """

    dataset: str
    arch: str
    num_classes: int
    name: str = option(
        "all of one paper's settings: the first (CVPR 2022), or the second (IJCV 2023: no final ReLU, "
        "other weights, epochs, thresholds and ratios beyond 1); options given beside it win",
        Choice(PAPERS),
        default="cvpr",
        flags=("--recipe",),
        group=RECIPE,
        evaluates=True,
    )
    head_name: str = field(default="classifier_cls", metadata={"of_heads": True})  # in the released checkpoint

    epochs: int = option("passes over the training pictures", POSITIVE, default=100, group=RECIPE, may_change=True)
    lr_steps: tuple[int, ...] = option(
        "epochs at which the rate falls", Several(NATURAL, 0), default=(80,), group=RECIPE, metavar="EPOCH"
    )
    lr_decay: float = option("to this share of itself", POSITIVE_SHARE, default=0.1, group=RECIPE)
    lr: float = option("base rate; biases x2, heads x10", POSITIVE_FACTOR, default=0.001, group=RECIPE)
    generator_rate: float = option(
        "the generator's rate as a share of the classifier head's; with fewer classes than the recipe's in proportion "
        "to them, for each class's kernel is then trained more often",
        POSITIVE_FACTOR,
        default=1.0,
        group=RECIPE,
    )
    max_grad_norm: float = option(
        "scale a step's gradients down to this norm; 0 never does; 1 for VGG16, without batch normalisation, with "
        "fewer classes than the recipe's",
        FACTOR,
        default=0.0,
        group=RECIPE,
    )
    weight_decay: float = option("L2 factor", FACTOR, default=5e-4, group=RECIPE)
    momentum: float = option("Nesterov momentum", SHARE, default=0.9, group=RECIPE)
    frg_weight: float = option("alpha, of L_frg", FACTOR, group=RECIPE)
    area_weight: float = option("beta, of L_ac", FACTOR, group=RECIPE)
    warmup_epochs: int = option("first epochs on L_cls alone", NATURAL, default=0, group=RECIPE)
    batch_size: int = option("pictures in a batch, of all processes together", POSITIVE, default=32, group=RECIPE)
    seed: int = option("of order, crops and random weights", SEED, default=6, group=RECIPE)
    sync_bn: bool = option(
        "batch statistics over all processes' pictures, or each process's own", FLAG, default=False, group=RECIPE
    )

    cls_weight: float = option(
        "of L_cls: what are maps worth without a classifier?", FACTOR, default=1.0, group=ABLATIONS
    )
    bas_weight: float = option(
        "of L_bas: what does background activation suppression add? 0 leaves its branch out",
        FACTOR,
        default=1.0,
        group=ABLATIONS,
    )
    generator_loss: str = option(
        "activation is L_bas; cross_entropy puts in its place what older foreground prediction maps minimise, the "
        "cross-entropy of the foreground's features through the same frozen f2: does activation see more of the "
        "object?",
        Choice(GENERATOR_LOSSES),
        default="activation",
        group=ABLATIONS,
    )
    ratio_beyond_one: str = option(
        "what the ratio in L_bas becomes where the background is activated more than the whole: 0, 1, or itself: does "
        "the loss collapse without a constant?",
        Choice(BEYOND_ONE),
        default="zero",
        group=ABLATIONS,
    )
    ratio_compare: str = option(
        "whether this holds at equality, too (ge), or not (gt): the authors' programs differ",
        Choice(COMPARE),
        group=ABLATIONS,
    )
    frozen_f2: bool = option(
        "f2 is constant in the second pass; with --no-frozen_f2 it is trained there as well, with which the paper says "
        "the loss collapses",
        FLAG,
        default=True,
        group=ABLATIONS,
    )
    frozen_statistics: str = option(
        "what the frozen f2's batch normalisation takes as constants: the statistics of the masked features, in which "
        "one picture's mask changes what is measured of another, or those of the whole pictures, as with fewer classes "
        "than the recipe's",
        Choice(FROZEN_STATISTICS),
        default="masked",
        group=ABLATIONS,
    )
    mask_pooling: str = option(
        "how L_frg brings the foreground map to the class maps' size: the mean of blocks of 2 x 2 cells, as the papers "
        "do, or of the area around where each cell of the class maps looks; VGG16's and ResNet50's are the same",
        Choice(MASK_POOLINGS),
        default="blocks",
        group=ABLATIONS,
    )
    same_padding: bool = option(
        "pad layers of stride 2 on the right and below alone, as TensorFlow's SAME does, by which the weights that "
        "MobileNetV1 starts from were trained",
        FLAG,
        default=False,
        group=ABLATIONS,
        of_heads=True,
        evaluates=True,
    )
    tap: str | None = option(
        "where the generator sits, how deep features should be: the layer after which f1 ends",
        NAME,
        default=None,
        words="the paper's",
        group=ABLATIONS,
        metavar="LAYER",
        of_heads=True,
        evaluates=True,
    )
    final_relu: bool = option(
        "end the class maps in a ReLU, as the CVPR model does, or not, as the IJCV model",
        FLAG,
        default=True,
        group=ABLATIONS,
        of_heads=True,
        evaluates=True,
    )

    coarse_features: bool = option(
        "F at 1/16 of the picture, as large as the class maps, and not at 1/8 (ResNet50 alone: its third stage halves "
        "the maps, and nothing is pooled before the fourth)",
        FLAG,
        default=False,
        group=SEGMENTATION,
        of_heads=True,
        evaluates=True,
    )
    plain_heads: bool = option(
        "the classifier head is one 1 x 1 convolution, and neither head has biases",
        FLAG,
        default=False,
        group=SEGMENTATION,
        of_heads=True,
        evaluates=True,
    )
    constant_maps_in_frg: bool = option(
        "L_frg trains the generator alone: the class maps are constants in it", FLAG, default=False, group=SEGMENTATION
    )
    nesterov: bool = option("Nesterov's momentum, or the plain one", FLAG, default=True, group=SEGMENTATION)
    train_biases: bool = option(
        "train biases, those of batch normalisation included, or leave them as they start",
        FLAG,
        default=True,
        group=SEGMENTATION,
    )
    poly_steps: int = option(
        "let the rate fall at every step, as (1 - step / N) ** 0.9, instead of at --lr_steps; 0 does not",
        NATURAL,
        default=0,
        group=SEGMENTATION,
        metavar="N",
    )
    drop_last: bool = option(
        "leave out an epoch's last batch where it is not full", FLAG, default=False, group=SEGMENTATION
    )
    resize: str = option("how training pictures are resized", Choice(RESIZES), default=BILINEAR, group=SEGMENTATION)

    threshold: float = option("of the normalised map, in [0, 1]", SHARE, default=0.15, evaluates=True, may_change=True)
    top_k: int = option("foreground maps to average", POSITIVE, default=1, evaluates=True, may_change=True)
    align_maps: str = option(
        "where maps are drawn: stretched over the crop, as the authors do; where their cells look by the layers' "
        "geometry (geometric, or --align_maps alone); or where they are found to look, by comparing the maps of "
        "training pictures and of their mirror images (calibrated)",
        Choice(ALIGNMENTS, bare=GEOMETRIC, off=STRETCHED),
        default=STRETCHED,
        evaluates=True,
        may_change=True,
        metavar="HOW",
    )
    resize_size: int = option("pictures are resized to this square", SIDE, default=256, evaluates=True)
    crop_size: int = option("side of the crops that the net sees", SIDE, default=224, evaluates=True)

    def __post_init__(self) -> None:
        if isinstance(self.align_maps, bool):  # from Python
            object.__setattr__(self, "align_maps", GEOMETRIC if self.align_maps else STRETCHED)


def as_of_today(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run, perhaps one of an older version: what it could not choose yet is as it was then."""
    settings = {"same_padding": False, "mask_pooling": "blocks", **stored}
    if isinstance(settings.get("align_maps"), bool):
        settings["align_maps"] = GEOMETRIC if settings["align_maps"] else STRETCHED
    return settings


def marked(mark: str) -> tuple[str, ...]:
    """The names of the recipe's settings with a mark in their metadata: `of_heads`, `evaluates` or `may_change`."""
    return tuple(one.name for one in fields(Recipe) if one.metadata.get(mark))


def ijcv_recipe(cvpr: Recipe, **own: Any) -> Recipe:
    """The authors' second paper (Zhai et al., IJCV 2023): what changes for every backbone and data set, and `own`.

    The class maps have no final ReLU, and the ratio becomes the constant 1 where S_bg > S. alpha, and whatever `own`
    does not name, is as in the CVPR paper.
    """
    shared = {"name": "ijcv", "final_relu": False, "ratio_compare": "gt", "ratio_beyond_one": "one"}
    return replace(cvpr, **{**shared, **own})


def explain(recipe: Recipe) -> str:
    """The settings in force, one line."""
    return ", ".join(f"{one.name} {getattr(recipe, one.name)}" for one in fields(recipe))
