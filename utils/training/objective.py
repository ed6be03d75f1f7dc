"""What one pass of training computes: network and losses as one module, for several processes and for the compiler."""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from utils.metrics import map_extremes
from utils.models.bas import BAS, BASOutput
from utils.models.losses import bas_losses, multi_label_loss
from utils.models.recipe import Recipe
from utils.runs.settings import PRECISIONS, Engine
from utils.system.processes import process_count


def training_pass(model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe) -> BASOutput:
    """The forward pass that a recipe's losses need, with no branch that none of them reads.

    Args:
        model: a :class:`utils.models.bas.BAS`, or what passes a call on to one (DistributedDataParallel, compiled).
        images: (B, 3, H, W) normalised pictures.
        labels: (B,) int64 classes.
        recipe: the losses' weights and kinds.

    Returns:
        What :func:`utils.models.losses.bas_losses` takes. Without a weight on L_frg, L_bas and L_ac there is no
        foreground map; without one on L_bas, no second pass through f2.
    """
    branch = "foreground" if recipe.generator_loss == "cross_entropy" else "background"
    return model(
        images,
        labels,
        use_generator=bool(recipe.frg_weight or recipe.bas_weight or recipe.area_weight),
        branch=branch if recipe.bas_weight else None,
        freeze_f2=recipe.frozen_f2,
        frozen_statistics=recipe.frozen_statistics,
        mask_pooling=recipe.mask_pooling,
        constant_maps_in_frg=recipe.constant_maps_in_frg,
    )


class Objective(nn.Module):
    """From pictures and labels to what is minimised and what is shown.

    Args:
        model: the network.
        recipe: the losses' weights and rules.
        warmup: minimise L_cls alone; the generator then has no part in it, and needs no gradient from here on, until an
            objective without warm-up is made.
        amp: see :class:`utils.runs.settings.Engine`.
    """

    def __init__(self, model: BAS, recipe: Recipe, warmup: bool = False, amp: str = "none") -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.warmup = warmup
        self.dtype = getattr(torch, PRECISIONS[amp])
        for name, parameter in model.classifier_loc.named_parameters():
            parameter.requires_grad_(not warmup and (recipe.train_biases or not name.endswith("bias")))

    def forward(
        self, images: Tensor, labels: Tensor, positives: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
        """One pass.

        Args:
            images: (B, 3, S, S) normalised.
            labels: (B,) int64.
            positives: (B, K) bool, see :func:`utils.models.losses.bas_losses`.

        Returns:
            The scalar to minimise, and scalars to show, without gradient: the losses by name as far as they are
            computed, `total` (not in a warm-up) and `accuracy`, the share of right answers; and (B, 2) the highest
            and the lowest value of each foreground map, None where there are none.
        """
        extremes = None
        with torch.autocast(images.device.type, self.dtype, enabled=self.dtype is not torch.float32):
            if self.warmup:
                logits = self.model.classify(images)
                total = F.cross_entropy(logits, labels) if positives is None else multi_label_loss(logits, positives)
                losses = {"cls": total}
            else:
                output = training_pass(self.model, images, labels, self.recipe)
                logits = output.logits
                losses = bas_losses(output, labels, self.recipe, positives)._asdict()
                total = losses["total"]
                if output.foreground_map is not None:
                    extremes = map_extremes(output.foreground_map)
        shown = {name: loss.detach() for name, loss in losses.items() if loss is not None}
        best = logits.detach().argmax(dim=1)
        is_right = best == labels if positives is None else positives.gather(1, best[:, None])
        shown["accuracy"] = is_right.float().mean()
        return total, shown, extremes


# The older name warns in new PyTorch, and the newer one is unknown to old.
_NEW_NAME = "forward_sync_buffers" in signature(DistributedDataParallel).parameters
_OWN_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if _NEW_NAME else "broadcast_buffers": False}


def prepare(objective: Objective, engine: Engine) -> nn.Module:
    """The objective for this run: averaging gradients over its processes, compiled if wanted.

    Args:
        objective: its network is on its device.
        engine: whether to compile.

    Returns:
        A module with the objective's call.
    """
    module: nn.Module = objective
    if process_count() > 1:
        module = DistributedDataParallel(
            objective,
            # Running statistics are each process's own, the first one's are kept: what the authors' DataParallel did.
            **_OWN_BUFFERS,
            gradient_as_bucket_view=True,
            find_unused_parameters=_leaves_parameters_out(objective),
        )
    if engine.compile:
        module.compile()
    return module


def _leaves_parameters_out(objective: Objective) -> bool:
    """Whether some parameters get no gradient, which DistributedDataParallel must be told; no paper recipe does so."""
    recipe = objective.recipe
    no_generator = not (recipe.frg_weight or recipe.bas_weight or recipe.area_weight)
    no_classifier = not (recipe.cls_weight or (recipe.frg_weight and not recipe.constant_maps_in_frg))
    return not objective.warmup and (no_generator or no_classifier)
