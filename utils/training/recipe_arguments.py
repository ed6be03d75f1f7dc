"""The options of `train.py` that change a recipe: the authors' numbers, and the questions that the papers ask."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from utils.arguments import (
    named,
    natural,
    non_negative_float,
    positive_float,
    positive_int,
    positive_share,
    seed,
    share,
)
from utils.losses import BEYOND_ONE, COMPARE, FROZEN_STATISTICS, GENERATOR_LOSSES
from utils.models.registry import RECIPES
from utils.models.taps import taps_in_words


class _StoreTuple(argparse.Action):
    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Sequence[int], option: Any = None) -> None:
        setattr(namespace, self.dest, tuple(values))


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """Adds every option that sets a field of :class:`utils.models.recipe.Recipe` for training alone.

    Each is None where it is not given, so that :func:`utils.models.recipe.override` leaves the recipe as it is;
    `--recipe` names the recipe itself, the second argument of `CUB.Model.recipe`.
    """
    _add_numbers(parser)
    _add_ablations(parser)


def _add_numbers(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("recipe", "What is not given is the authors' for the data set and backbone.")
    group.add_argument(
        "--recipe",
        choices=RECIPES,
        help="all of one paper's settings: the first (CVPR 2022), or the second (IJCV 2023: no final ReLU, a ratio "
        "beyond 1 becomes 1, other weights, epochs and thresholds); options given beside it win (default: cvpr)",
    )
    group.add_argument(
        "--adapt_recipe",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="with fewer classes than the paper's, take defaults that suit them (head, warm-up, rates, batch size, "
        "top-k, a threshold chosen on training boxes); they are printed with the reason (default: yes)",
    )
    group.add_argument("--epochs", type=positive_int, help="default: the recipe's, CUB 100 (IJCV 120), ILSVRC 9")
    group.add_argument(
        "--lr_steps",
        type=natural,
        nargs="*",
        action=_StoreTuple,
        metavar="EPOCH",
        help="epochs at which the rate falls (default: CUB 80, ILSVRC 3 6)",
    )
    group.add_argument("--lr_decay", type=positive_share, help="to this share of itself (default: 0.1)")
    group.add_argument("--lr", type=positive_float, help="base rate; biases x2, heads x10 (default: 0.001)")
    group.add_argument(
        "--generator_rate",
        type=positive_float,
        help="the generator's rate as a share of the classifier head's (default: 1, and with fewer "
        "classes than the recipe's in proportion to them: each class's kernel is then trained more often)",
    )
    group.add_argument(
        "--max_grad_norm",
        type=non_negative_float,
        help="scale a step's gradients down to this norm; 0 never does (default: 0; 1 for VGG16, without batch "
        "normalisation, with fewer classes than the recipe's)",
    )
    group.add_argument("--weight_decay", type=non_negative_float, help="default: 0.0005")
    group.add_argument("--momentum", type=share, help="Nesterov momentum (default: 0.9)")
    group.add_argument("--frg_weight", type=non_negative_float, help="alpha, of L_frg (default: the recipe's)")
    group.add_argument("--area_weight", type=non_negative_float, help="beta, of L_ac (default: the recipe's)")
    group.add_argument("--warmup_epochs", type=natural, help="first epochs on L_cls alone (default: 0)")
    group.add_argument("--seed", type=seed, help="default: CUB 6, ILSVRC 2")
    group.add_argument(
        "--sync_bn",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="batch statistics over all processes' pictures (default: each process's own, as the authors had)",
    )


def _add_ablations(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("ablations, each off by default", "One question of the papers each.")
    group.add_argument(
        "--cls_weight", type=non_negative_float, help="of L_cls: what are maps worth without a classifier? (default: 1)"
    )
    group.add_argument(
        "--bas_weight",
        type=non_negative_float,
        help="of L_bas: what does background activation suppression add? 0 leaves its branch out (default: 1)",
    )
    group.add_argument(
        "--generator_loss",
        choices=GENERATOR_LOSSES,
        help="activation is L_bas; cross_entropy puts in its place what older foreground prediction maps minimise, "
        "the cross-entropy of the foreground's features through the same frozen f2: does activation see more of the "
        "object? (default: activation)",
    )
    group.add_argument(
        "--ratio_beyond_one",
        choices=BEYOND_ONE,
        help="what the ratio in L_bas becomes where the background is activated more than the whole: 0, 1, or "
        "itself: does the loss collapse without a constant? (default: zero; IJCV: one, VGG16 zero)",
    )
    group.add_argument(
        "--ratio_compare",
        choices=COMPARE,
        help="whether this holds at equality, too (ge), or not (gt): the authors' programs differ (default: CUB ge, "
        "else gt)",
    )
    group.add_argument(
        "--frozen_f2",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="f2 is constant in the second pass; with --no-frozen_f2 it is trained there as well, with which the "
        "paper says the loss collapses (default: frozen)",
    )
    group.add_argument(
        "--frozen_statistics",
        choices=FROZEN_STATISTICS,
        help="what the frozen f2's batch normalisation takes as constants: the statistics of the masked features, in "
        "which one picture's mask changes what is measured of another, or those of the whole pictures (default: "
        "masked, and with fewer classes than the recipe's whole)",
    )
    group.add_argument(
        "--tap",
        type=named,
        metavar="LAYER",
        help="where the generator sits, how deep features should be: the layer after which f1 ends, "
        f"{taps_in_words()} (default: the one marked *, the paper's)",
    )
    group.add_argument(
        "--final_relu",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="end the class maps in a ReLU, as the CVPR model does, or not, as the IJCV model (default: the recipe's)",
    )
