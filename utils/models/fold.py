"""Faster inference: batch normalisation becomes part of the convolution before it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
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
    folded = copy.deepcopy(model)
    for parent, (name, convolution), (norm_name, norm) in list(_normalized_convolutions(folded)):
        setattr(parent, name, fuse_conv_bn_eval(convolution, norm))
        setattr(parent, norm_name, nn.Identity().eval())
    return folded


def _normalized_convolutions(
    model: nn.Module,
) -> Iterator[tuple[nn.Module, tuple[str, nn.Conv2d], tuple[str, _BatchNorm]]]:
    """Yields (parent, the convolution, its norm), the two with their names."""
    for parent in model.modules():
        children = list(parent.named_children())
        for (name, module), (next_name, following) in zip(children, children[1:], strict=False):
            if (
                isinstance(module, nn.Conv2d)
                and isinstance(following, _BatchNorm)
                and module.out_channels == following.num_features
            ):
                yield parent, (name, module), (next_name, following)
