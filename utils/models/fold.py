"""Faster inference: batch normalisation becomes part of the convolution before it."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TypeVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # what BatchNorm2d and SyncBatchNorm have in common
from torch.nn.utils.fusion import fuse_conv_bn_eval

Model = TypeVar("Model", bound=nn.Module)


def fold_batch_norm(model: Model) -> Model:
    """Makes a copy for inference in which no batch normalisation is left to compute.

    In evaluation mode a batch normalisation only scales and shifts each channel, which the weights and the bias of the
    convolution before it can do. Outputs agree up to rounding, and gradients still flow, as Grad-CAM needs.

    Args:
        model: in evaluation mode; it is left as it was. A BatchNorm2d or SyncBatchNorm belongs to the Conv2d of equal
            channel count right before it among its parent's children, as in all four backbones and torchvision's
            blocks; any other stays as it is.

    Returns:
        The copy, with nn.Identity in place of each norm. Its state dict no longer has the published keys: save the
        original's.

    Raises:
        ValueError: the model, or a part of it, is in training mode, where the norm follows the batch's statistics.
    """
    if any(module.training for module in model.modules()):
        raise ValueError("batch normalisation can only be folded in evaluation mode; call model.eval() first")
    # What is folded is computed anew anyhow; the copy shares it until then.
    layers = [layer for *_, conv, _, norm in _pairs(model) for layer in (conv, norm)]
    shared = {id(values): values for layer in layers for values in (*layer.parameters(), *layer.buffers())}
    folded = copy.deepcopy(model, shared)
    for parent, name, conv, norm_name, norm in _pairs(folded):
        setattr(parent, name, fuse_conv_bn_eval(conv, norm))
        setattr(parent, norm_name, nn.Identity().eval())
    return folded


def _pairs(model: nn.Module) -> list[tuple[nn.Module, str, nn.Conv2d, str, _BatchNorm]]:
    """The convolutions with a normalisation right behind, each with its parent, and their names in it."""
    return [
        (parent, name, conv, norm_name, norm)
        for parent in model.modules()
        for (name, conv), (norm_name, norm) in pairwise(list(parent.named_children()))
        if isinstance(conv, nn.Conv2d) and isinstance(norm, _BatchNorm) and conv.out_channels == norm.num_features
    ]
