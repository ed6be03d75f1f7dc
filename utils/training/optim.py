"""The authors' optimiser and schedule (paper section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR, MultiStepLR

from utils.models.bas import BAS

POLY_POWER = 0.9


def build_optimizer(
    model: BAS,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    fused: bool | None = None,
    generator_rate: float = 1.0,
    nesterov: bool = True,
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
        nesterov: Nesterov's momentum, or the plain one.

    Returns:
        The optimiser, of the parameters that need a gradient; groups, as far as they have some, in the order trunk
        weights, trunk biases, head weights, head biases, and where the generator has a rate of its own, which is none
        of these, its weights, its biases.
    """
    generator = 10 * generator_rate
    groups: dict[float, list[nn.Parameter]] = {factor: [] for part in (1, 10, generator) for factor in (part, 2 * part)}
    of_head, of_generator = (set(map(id, part)) for part in model.head_parameters())
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = generator if id(parameter) in of_generator else 10 if id(parameter) in of_head else 1
        groups[2 * part if name.endswith("bias") else part].append(parameter)
    return SGD(
        [{"params": parameters, "lr": lr * factor} for factor, parameters in groups.items() if parameters],
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        nesterov=nesterov and momentum > 0,
        fused=fused,
    )


def build_scheduler(
    optimizer: SGD, lr_steps: Sequence[int], lr_decay: float = 0.1, poly_steps: int = 0
) -> MultiStepLR | LambdaLR:
    """All rates fall to `lr_decay` of themselves at each epoch of `lr_steps`, stepped once an epoch; or, with
    `poly_steps`, as (1 - step / poly_steps) ** POLY_POWER, stepped once a step, and stay from the last of these on."""
    if poly_steps:
        return LambdaLR(optimizer, lambda step: (1 - min(step, poly_steps - 1) / poly_steps) ** POLY_POWER)
    return MultiStepLR(optimizer, milestones=list(lr_steps), gamma=lr_decay)
