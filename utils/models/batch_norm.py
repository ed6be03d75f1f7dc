"""Batch normalisation: exact in channels-last memory on a CPU, and the statistics of one pass kept for another.

PyTorch adds up a channel's values one after the other in float32 where the memory is channels-last, and in float64
where it is contiguous. Over the 100,000 values of an early layer this loses two to three digits of the statistics and
of the gradients; everything that follows is off by as much. Here the sums are those of :meth:`torch.Tensor.sum`, which
adds in pairs: the rounding stays at the last digits of float32, at some 5 % of a training step's time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

PLACES = (0, 2, 3)  # all dimensions of (B, C, H, W) but the channels


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
            and maps.device.type == "cpu"
            and maps.dtype is self.weight.dtype is torch.float32
            and maps.dim() == 4
            and maps.shape[1] == self.num_features
            and maps.numel() > self.num_features  # of a single value PyTorch says what is wrong
            and not maps.is_contiguous()
            and maps.is_contiguous(memory_format=torch.channels_last)
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
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    mean = maps.mean(PLACES)
    return Statistics(mean, (maps - _along_channels(mean)).square_().mean(PLACES))


class _Normalize(torch.autograd.Function):
    """(B, C, H, W) in channels-last memory -> the same normalised, and the batch's mean and biased variance (C,)."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        count = maps.numel() // maps.shape[1]
        mean = maps.mean(PLACES)
        centred = maps - _along_channels(mean)
        variance = _sum_of_products(centred, centred) / count
        inverse = (variance + eps).rsqrt()
        ctx.save_for_backward(maps, weight, mean, inverse)
        ctx.mark_non_differentiable(mean, variance)
        scaled = centred.mul_(_along_channels(weight * inverse))
        return scaled.add_(_along_channels(bias)), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        maps, weight, mean, inverse = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        count = maps.numel() // maps.shape[1]
        centred = maps - _along_channels(mean)
        of_bias = gradient.sum(PLACES)
        of_weight = _sum_of_products(centred, gradient) * inverse
        if not ctx.needs_input_grad[0]:
            return None, of_weight, of_bias, None
        # weight / std * (gradient - its mean - normalised * the mean of gradient * normalised)
        scale = weight * inverse
        of_maps = centred.mul_(_along_channels(-scale * inverse * of_weight / count))
        of_maps.add_(_along_channels(-scale * of_bias / count)).addcmul_(gradient, _along_channels(scale))
        return of_maps, of_weight, of_bias, None


def _along_channels(values: Tensor) -> Tensor:
    """(C,) -> (C, 1, 1), to meet (B, C, H, W)."""
    return values[:, None, None]


def _sum_of_products(first: Tensor, second: Tensor) -> Tensor:
    """The sum of `first * second` over all places of a channel: two times (B, C, H, W) -> (C,)."""
    return (first * second).sum(PLACES)
