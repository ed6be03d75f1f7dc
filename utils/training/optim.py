"""The authors' optimiser and schedule (paper section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import MultiStepLR

from utils.models.bas import BAS


def build_optimizer(
    model: BAS,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    fused: bool | None = None,
    generator_rate: float = 1.0,
) -> SGD:
    """SGD with Nesterov momentum in four groups: weights, biases at twice the rate, and both heads at ten times these.

    Weight decay holds for every parameter, batch normalisation included.

    Args:
        model: tells its heads' parameters.
        lr: base rate.
        momentum: Nesterov momentum; 0 gives plain SGD.
        weight_decay: L2 factor.
        fused: whether to take PyTorch's fused kernel; PyTorch's own choice where None.
        generator_rate: the generator's rate as a share of the classifier head's.

    Returns:
        The optimiser; groups in the order trunk weights, trunk biases, head weights, head biases, and where the
        generator has a rate of its own, which is none of these, its weights, its biases.
    """
    generator = 10 * generator_rate
    groups: dict[float, list[nn.Parameter]] = {factor: [] for part in (1, 10, generator) for factor in (part, 2 * part)}
    of_head, of_generator = (set(map(id, part)) for part in model.head_parameters())
    for name, parameter in model.named_parameters():
        part = generator if id(parameter) in of_generator else 10 if id(parameter) in of_head else 1
        groups[2 * part if name.endswith("bias") else part].append(parameter)
    return SGD(
        [{"params": parameters, "lr": lr * factor} for factor, parameters in groups.items()],
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        nesterov=momentum > 0,
        fused=fused,
    )


def build_scheduler(optimizer: SGD, lr_steps: Sequence[int], lr_decay: float = 0.1) -> MultiStepLR:
    """All rates fall to `lr_decay` of themselves at each epoch of `lr_steps`; stepped once an epoch."""
    return MultiStepLR(optimizer, milestones=list(lr_steps), gamma=lr_decay)
