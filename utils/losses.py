"""The four losses of BAS as pure functions of the model's named outputs (paper section 3.3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.models.bas import BASOutput
from utils.models.recipe import Recipe

EPSILON = 1e-8  # keeps the ratio finite where the activation is 0


class BASLosses(NamedTuple):
    """Scalar losses, means over the batch; `total` is what is minimised."""

    cls: Tensor  # cross-entropy of the whole picture
    frg: Tensor  # foreground region guidance: cross-entropy of the foreground alone
    bas: Tensor  # background activation suppression
    area: Tensor  # area constraint
    total: Tensor


def background_activation_ratio(activation: Tensor, background_activation: Tensor, zero_at_equality: bool) -> Tensor:
    """S_bg / S with S as a constant, and the constant 0 where the background is activated more than the whole.

    Negative activations count as 0, as in the IJCV model; with the CVPR model's final ReLU there are none.

    Args:
        activation: (B,) S.
        background_activation: (B,) S_bg.
        zero_at_equality: whether S_bg = S counts as more (CUB) or not (ILSVRC).

    Returns:
        (B,) with a gradient to S_bg alone.
    """
    activation, background_activation = F.relu(activation), F.relu(background_activation)
    compare = torch.ge if zero_at_equality else torch.gt
    beyond = compare(background_activation, activation)
    ratio = background_activation / (activation.detach() + EPSILON)
    return torch.where(beyond, torch.zeros_like(ratio), ratio)


def bas_losses(output: BASOutput, labels: Tensor, recipe: Recipe) -> BASLosses:
    """The activation map constraint: L_cls + alpha L_frg + L_bas + beta L_ac (paper section 3.3).

    Args:
        output: a training forward pass on B pictures.
        labels: (B,) int64 classes.
        recipe: gives alpha (`frg_weight`), beta (`area_weight`) and the ratio's rule at equality.

    Returns:
        The four losses and their weighted sum, scalars.
    """
    cls = F.cross_entropy(output.logits, labels)
    frg = F.cross_entropy(output.masked_logits, labels)
    bas = background_activation_ratio(
        output.activation, output.background_activation, recipe.zero_ratio_at_equality
    ).mean()
    area = output.foreground_map.mean()
    total = cls + bas + recipe.area_weight * area
    if recipe.frg_weight:  # 0 for VGG16 on CUB: then L_frg is only shown, and nothing flows back through it
        total = total + recipe.frg_weight * frg
    return BASLosses(cls, frg, bas, area, total)
