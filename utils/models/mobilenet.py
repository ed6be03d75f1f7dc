"""MobileNetV1 (Howard et al., 2017) for BAS: the fifth stage keeps 28 x 28, so F is the twelfth entry's output."""

from __future__ import annotations

from typing import Any

from torch import nn

from utils.models.bas import BAS, initialize_xavier

# (output channels, stride) of the depthwise-separable blocks after the stem. ImageNet's net has stride 2 at the first
# block of 512 channels; BAS has 1.
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), *[(512, 1)] * 6, (1024, 2), (1024, 1))


def _convolution(in_channels: int, out_channels: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]


class MobileNetV1(BAS, arch="mobilenet"):
    """A sequential net `model.0` ... `model.13` of a stem and 13 depthwise-separable blocks."""

    LAYERS = tuple(f"model.{index}" for index in range(1 + len(BLOCKS)))

    def __init__(self, num_classes: int, **heads: Any) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Sequential(*_convolution(3, 32, 3, stride=2)))
        channels = 32
        for width, stride in BLOCKS:
            depthwise = _convolution(channels, channels, 3, stride, groups=channels)
            self.model.append(nn.Sequential(*depthwise, *_convolution(channels, width, 1)))
            channels = width
        self.add_heads(1024, num_classes, **heads)
        self.apply(initialize_xavier)
