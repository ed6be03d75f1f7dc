"""The authors' optimiser and schedule (paper section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import MultiStepLR


def build_optimizer(
    model: nn.Module, lr: float, momentum: float = 0.9, weight_decay: float = 5e-4, fused: bool | None = None
) -> SGD:
    """SGD with Nesterov momentum in four groups: weights, biases at twice the rate, and both heads at ten times these.

    Weight decay holds for every parameter, batch normalisation included.

    Args:
        model: a BAS model; the heads' parameters are those whose names contain `classifier`.
        lr: base rate.
        momentum: Nesterov momentum; 0 gives plain SGD.
        weight_decay: L2 factor.
        fused: whether to take PyTorch's fused kernel; PyTorch's own choice where None.

    Returns:
        The optimiser; groups in the order trunk weights, trunk biases, head weights, head biases.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {
        (is_head, is_bias): [] for is_head in (False, True) for is_bias in (False, True)
    }
    for name, parameter in model.named_parameters():
        groups["classifier" in name, name.endswith("bias")].append(parameter)
    return SGD(
        [
            {"params": parameters, "lr": lr * (10 if is_head else 1) * (2 if is_bias else 1)}
            for (is_head, is_bias), parameters in groups.items()
        ],
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        nesterov=momentum > 0,
        fused=fused,
    )


def build_scheduler(optimizer: SGD, lr_steps: Sequence[int], lr_decay: float = 0.1) -> MultiStepLR:
    """All rates fall to `lr_decay` of themselves at each epoch of `lr_steps`; stepped once an epoch."""
    return MultiStepLR(optimizer, milestones=list(lr_steps), gamma=lr_decay)
