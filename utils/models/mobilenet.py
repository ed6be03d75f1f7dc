"""MobileNetV1 (Howard et al., 2017) for BAS: the fifth stage keeps 28 x 28, so F is the twelfth entry's output."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from utils.models.bas import BAS, initialize_xavier

# (output channels, stride) of the depthwise-separable blocks after the stem. ImageNet's net has stride 2 at the first
# block of 512 channels; BAS has 1.
BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
)


def _stem(out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, out_channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def _depthwise_separable(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, stride=stride, padding=1, groups=in_channels, bias=False),
        nn.BatchNorm2d(in_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class MobileNetV1(BAS, arch="mobilenet"):
    """A sequential net `model.0` ... `model.13` of a stem and 13 depthwise-separable blocks.

    Args:
        num_classes: K.
        heads: settings of the heads, see :meth:`BAS.add_heads`.
    """

    def __init__(self, num_classes: int, **heads: Any) -> None:
        super().__init__()
        self.model = nn.Sequential(_stem(32))
        channels = 32
        for width, stride in BLOCKS:
            self.model.append(_depthwise_separable(channels, width, stride))
            channels = width
        self.add_heads(1024, num_classes, **heads)
        self.apply(initialize_xavier)

    def stages(self) -> Iterator[tuple[str, nn.Module]]:
        for index, block in enumerate(self.model):
            yield f"model.{index}", block
