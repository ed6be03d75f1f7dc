"""Trains one epoch; evaluation is in `utils.evaluation.run`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from utils.errors import UserError
from utils.losses import bas_losses
from utils.models.bas import BAS
from utils.models.recipe import Recipe
from utils.progress import progress_bar

LOSS_NAMES = ("cls", "frg", "bas", "area")


def to_device(images: Tensor, device: torch.device) -> Tensor:
    """Moves pictures to the device, channels last, without waiting for the copy."""
    return images.to(device, non_blocking=True, memory_format=torch.channels_last)


def train_one_epoch(
    model: BAS,
    loader: DataLoader,
    optimizer: Optimizer,
    recipe: Recipe,
    device: torch.device,
    epoch: int,
    show_step: int = 20,
) -> dict[str, float]:
    """One pass over the training pictures.

    The running figures stay on the device and are read every `show_step` steps only, so that the host never waits for
    the device in between.

    Args:
        model: on `device`.
        loader: gives (images (B, 3, S, S), labels (B,)).
        optimizer: from :func:`utils.optim.build_optimizer`.
        recipe: the losses' weights; its first `warmup_epochs` epochs minimise L_cls alone.
        device: where the model is.
        epoch: counted from 0.
        show_step: steps between two readings of the figures.

    Returns:
        Means over the epoch's pictures: cls, frg, bas, area, total, and accuracy in percent. An epoch of warm-up
        computes neither frg, bas nor area and leaves them out.

    Raises:
        UserError: a loss is NaN or infinite; names the step and the losses.
    """
    model.train()
    step = _warmup_step if epoch < recipe.warmup_epochs else _bas_step
    names = ("cls",) if epoch < recipe.warmup_epochs else (*LOSS_NAMES, "total")
    window = torch.zeros(len(names) + 1, device=device)  # sums since the last reading; no device lacks float32
    totals, seen = np.zeros(len(names) + 1), 0
    bar = progress_bar(loader, f"epoch {epoch + 1}/{recipe.epochs}")
    for index, (images, labels) in enumerate(bar, start=1):
        images, labels = to_device(images, device), labels.to(device, non_blocking=True)
        losses, logits = step(model, images, labels, recipe)
        optimizer.zero_grad(set_to_none=True)
        losses[-1].backward()
        optimizer.step()
        correct = (logits.detach().argmax(dim=1) == labels).sum()
        window += torch.stack([*(loss.detach().float() * len(labels) for loss in losses), correct])
        seen += len(labels)
        if index % show_step == 0 or index == len(loader):
            totals += window.tolist()
            window.zero_()
            figures = _name_figures(names, totals, seen, epoch, index)
            bar.set_postfix({name: f"{value:.3f}" for name, value in figures.items() if name != "total"})
    # The last step's loss was that before its update; what is saved next must not hold what the update broke.
    if not torch.stack([parameter.isfinite().all() for parameter in model.parameters()]).all():
        raise UserError(f"the weights are not finite after epoch {epoch + 1}; try a lower --lr, and --resume")
    return figures


def _bas_step(model: BAS, images: Tensor, labels: Tensor, recipe: Recipe) -> tuple[Sequence[Tensor], Tensor]:
    output = model(images, labels)
    return bas_losses(output, labels, recipe), output.logits


def _warmup_step(model: BAS, images: Tensor, labels: Tensor, recipe: Recipe) -> tuple[Sequence[Tensor], Tensor]:
    logits = model.classify(images)
    return (F.cross_entropy(logits, labels),), logits


def _name_figures(names: Sequence[str], totals: np.ndarray, seen: int, epoch: int, step: int) -> dict[str, float]:
    *losses, correct = totals.tolist()
    figures = {name: value / seen for name, value in zip(names, losses, strict=True)}
    if not all(math.isfinite(value) for value in figures.values()):
        listed = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        raise UserError(
            f"the loss is not finite at epoch {epoch + 1}, step {step} ({listed}); try a lower --lr, and --resume from "
            "the last finished epoch"
        )
    return {**figures, "accuracy": 100 * correct / seen}
