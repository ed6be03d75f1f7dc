"""The four losses of BAS as pure functions of the model's named outputs (paper section 3.3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.models.bas import BASOutput
from utils.models.recipe import BEYOND_ONE, COMPARE, Recipe

EPSILON = 1e-8  # keeps the ratio finite where the activation is 0


class BASLosses(NamedTuple):
    """Scalar losses, means over the batch; `total` is what is minimised. None: not computed, nobody needs it."""

    cls: Tensor  # cross-entropy of the whole picture; of several labels L_mcls
    frg: Tensor | None  # foreground region guidance: cross-entropy of the foreground alone
    bas: Tensor | None  # background activation suppression, or what an ablation puts in its place
    area: Tensor | None  # area constraint
    total: Tensor


def background_activation_ratio(
    activation: Tensor, background_activation: Tensor, compare: str, beyond_one: str = "zero"
) -> Tensor:
    """S_bg / S with S as a constant, and a constant where the background is activated more than the whole.

    Negative activations count as 0, as in the IJCV model; with the CVPR model's final ReLU there are none.

    Args:
        activation: (B,) S.
        background_activation: (B,) S_bg.
        compare: whether S_bg = S counts as more, `ge` (CUB), or not, `gt` (ILSVRC, IJCV).
        beyond_one: that constant: `zero` (CVPR), `one` (IJCV), or `keep`, none: the ratio and its gradient stay.

    Returns:
        (B,) with a gradient to S_bg alone.

    Raises:
        ValueError: no such `compare` or `beyond_one`.
    """
    if compare not in COMPARE or beyond_one not in BEYOND_ONE:
        raise ValueError(f"{compare!r} must be one of {(*COMPARE,)}, and {beyond_one!r} one of {(*BEYOND_ONE,)}")
    activation, background_activation = F.relu(activation), F.relu(background_activation)
    ratio = background_activation / (activation.detach() + EPSILON)
    constant = BEYOND_ONE[beyond_one]
    if constant is None:
        return ratio
    # After the ReLU: where both are negative a comparison before it could differ, but there is no gradient either way.
    beyond = getattr(torch, compare)(background_activation, activation)
    return torch.where(beyond, torch.full_like(ratio, constant), ratio)


def multi_label_loss(logits: Tensor, positives: Tensor) -> Tensor:
    """L_mcls (IJCV paper, equation 9): for each label, the cross-entropy of it against all classes that are no labels
    of the picture; the sum over its labels, the mean over pictures.

    Args:
        logits: (B, K).
        positives: (B, K) bool, each picture's labels.
    """
    lowest = torch.finfo(logits.dtype).min  # and not -inf, whose gradient is NaN where all classes are labels
    negatives = logits.masked_fill(positives, lowest).logsumexp(dim=1, keepdim=True)
    return (F.softplus(negatives - logits) * positives).sum(dim=1).mean()


def generator_loss(output: BASOutput, labels: Tensor, recipe: Recipe) -> Tensor | None:
    """What trains the generator besides L_ac and L_frg; None where its branch was not computed.

    `activation` is the paper's L_bas, the mean of S_bg / S. `cross_entropy` is the objective of the older methods that
    learn a foreground prediction map, which the paper argues against: CE(GAP(f2(F.detach() * M_fg)), y), through the
    same frozen f2. The area constraint is beside either.
    """
    if recipe.generator_loss == "cross_entropy":
        return None if output.foreground_logits is None else F.cross_entropy(output.foreground_logits, labels)
    if output.background_activation is None:
        return None
    return background_activation_ratio(
        output.activation, output.background_activation, recipe.ratio_compare, recipe.ratio_beyond_one
    ).mean()


def bas_losses(output: BASOutput, labels: Tensor, recipe: Recipe, positives: Tensor | None = None) -> BASLosses:
    """The activation map constraint: L_cls + alpha L_frg + L_bas + beta L_ac (paper section 3.3).

    Args:
        output: of :func:`utils.training.objective.training_pass` on B pictures with the same recipe.
        labels: (B,) int64 classes; of pictures of several classes, the one whose map is trained.
        positives: (B, K) bool, all labels of such pictures; None where each has one.
        recipe: gives the weights, among them alpha (`frg_weight`) and beta (`area_weight`), and the rules of L_bas.

    Returns:
        The four losses and their weighted sum, scalars. A loss of weight 0 is shown where its branch is there anyway,
        as L_frg of VGG16 on CUB, and nothing flows back through it.

    Raises:
        ValueError: a loss has a weight but no branch in `output`, or none has a weight.
    """
    cls = F.cross_entropy(output.logits, labels) if positives is None else multi_label_loss(output.logits, positives)
    frg = None if output.masked_logits is None else F.cross_entropy(output.masked_logits, labels)
    bas = generator_loss(output, labels, recipe)
    area = None if output.foreground_map is None else output.foreground_map.mean()
    weighted = [
        (recipe.cls_weight, cls),
        (recipe.bas_weight, bas),
        (recipe.area_weight, area),
        (recipe.frg_weight, frg),
    ]
    counted = [weight * loss for weight, loss in weighted if weight and loss is not None]
    if not counted or len(counted) < sum(weight != 0 for weight, _ in weighted):
        raise ValueError("no loss has a weight, or the output lacks a branch that the recipe's losses need")
    return BASLosses(cls, frg, bas, area, sum(counted[1:], start=counted[0]))
