"""Batch normalisation: exact in channels-last memory on a CPU, and the statistics of one pass kept for another.

PyTorch adds up a channel's values one after the other in float32 where the memory is channels-last, and in float64
where it is contiguous. Over the 100,000 values of an early layer this loses two to three digits of the statistics and
of the gradients; everything that follows is off by as much. Here a channel's places are dealt out to groups of at most
:data:`GROUP` values, which PyTorch's kernel sums up as if they were channels of their own, and the groups' sums are
added up in pairs: the rounding stays at the last digits of float32, and no pass over the maps is added to PyTorch's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

PLACES = (0, 2, 3)  # all dimensions of (B, C, H, W) but the channels
GROUP = 256  # values that are added up one after the other; more of them cost digits, fewer of them time


class ExactBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose batch statistics are exact in channels-last memory on a CPU, see :meth:`applies`."""

    def applies(self, maps: Tensor) -> bool:
        """Whether this input is normalised here; any other is left to PyTorch, whose result is exact or wanted so.

        Args:
            maps: (B, C, H, W).
        """
        return (
            self.training
            and self.affine
            and self.track_running_stats
            and self.momentum is not None
            and maps.dtype is self.weight.dtype is torch.float32
            and maps.dim() == 4
            and maps.shape[1] == self.num_features
            and maps.numel() > self.num_features  # of a single value PyTorch says what is wrong
            and _sums_in_groups(maps)
            and not torch.compiler.is_compiling()
        )

    def forward(self, input: Tensor) -> Tensor:
        if not self.applies(input):
            return super().forward(input)
        normalized, mean, variance = _Normalize.apply(input, self.weight, self.bias, self.eps)
        count = input.numel() // self.num_features
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        assert self.momentum is not None  # all of it by `applies`
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        return normalized


def use_exact_batch_norm(model: nn.Module) -> nn.Module:
    """Makes every `nn.BatchNorm2d` of a model an :class:`ExactBatchNorm2d`, in place.

    Parameters, buffers, settings and hooks stay the layers' own, so that state dicts and optimisers see no difference.
    Layers of other types, `nn.SyncBatchNorm` among them, stay what they are.

    Args:
        model: whose parts are changed.

    Returns:
        The same model.
    """
    for layer in model.modules():
        if type(layer) is nn.BatchNorm2d:
            layer.__class__ = ExactBatchNorm2d
    return model


class Statistics(NamedTuple):
    """What a layer in training normalised a batch by, as constants."""

    mean: Tensor  # (C,)
    variance: Tensor  # (C,) biased


@contextmanager
def recorded_statistics(modules: Iterable[nn.Module]) -> Iterator[dict[nn.Module, Statistics]]:
    """Within the block, notes the batch statistics of every batch normalisation in training that is passed through.

    Args:
        modules: the layers, or what contains them.

    Returns:
        layer -> what it was passed last.
    """
    found: dict[nn.Module, Statistics] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if layer.training:
            found[layer] = batch_statistics(inputs[0])

    norms = [layer for module in modules for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    hooks = [layer.register_forward_pre_hook(note) for layer in norms]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def batch_statistics(maps: Tensor) -> Statistics:
    """The mean and biased variance of each channel of (B, C, H, W), in float32 at least."""
    if maps.dtype is torch.float32 and _sums_in_groups(maps):
        means, variances = (
            values.view(-1, maps.shape[1])  # (groups, C)
            for values in torch.batch_norm_update_stats(_as_groups(maps), None, None, 0.0)
        )
        mean = means.mean(0)
        return Statistics(mean, variances.mean(0) + (means - mean).square_().mean(0))
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    mean = maps.mean(PLACES)
    return Statistics(mean, (maps - mean[:, None, None]).square_().mean(PLACES))


class _Normalize(torch.autograd.Function):
    """(B, C, H, W) in channels-last memory -> the same normalised, and the batch's mean and biased variance (C,)."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance = batch_statistics(maps)
        ctx.eps = eps
        ctx.save_for_backward(maps, weight, mean, variance)
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(maps, mean, variance, weight, bias, eps=eps), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        maps, weight, mean, variance = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        inverse = (variance + ctx.eps).rsqrt()
        of_centred, of_bias = _gradient_sums(gradient, maps, mean)
        of_weight = of_centred * inverse
        if not ctx.needs_input_grad[0]:
            return None, of_weight, of_bias, None
        # weight / std * (gradient - its mean - normalised * the mean of gradient * normalised); the last two of the
        # three are a normalisation themselves, by weight and bias of their own
        count = maps.numel() // maps.shape[1]
        scale = weight * inverse
        of_maps = F.batch_norm(maps, mean, variance, -scale * of_weight / count, -scale * of_bias / count, eps=ctx.eps)
        return of_maps.addcmul_(gradient, scale[:, None, None]), of_weight, of_bias, None


def _sums_in_groups(maps: Tensor) -> bool:
    """Whether PyTorch would add up these maps (B, C, H, W) value by value, so that their sums need groups."""
    return (
        maps.device.type == "cpu" and not maps.is_contiguous() and maps.is_contiguous(memory_format=torch.channels_last)
    )


def _as_groups(maps: Tensor) -> Tensor:
    """(B, C, H, W) in channels-last memory -> (1, groups * C, places of a group, 1), a view that lies alike.

    Every group has as many places, which is what lets them pass as channels.
    """
    batch, channels, height, width = maps.shape
    places = batch * height * width
    size = max(size for size in range(1, min(GROUP, places) + 1) if places % size == 0)
    return maps.permute(0, 2, 3, 1).view(1, size, 1, places // size * channels).permute(0, 3, 1, 2)


def _gradient_sums(gradient: Tensor, maps: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """The sums over a channel's places of `gradient * (maps - mean)` and of `gradient`: (C,) each."""
    groups = _as_groups(maps)
    means = mean.repeat(groups.shape[1] // len(mean))
    ones = torch.ones_like(means)
    # PyTorch's backward pass of a normalisation by these constants, of which its two sums are asked alone
    _, of_centred, of_bias = torch.ops.aten.native_batch_norm_backward(
        _as_groups(gradient), groups, ones, means, ones, None, None, False, 0.0, [False, True, True]
    )
    return of_centred.view(-1, len(mean)).sum(0), of_bias.view(-1, len(mean)).sum(0)
