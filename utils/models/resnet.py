"""ResNet50 (He et al., 2016) for BAS: layer3 keeps stride 8, so F is 28 x 28; a max-pool precedes layer4.

Or, for segmentation, F and A are at 1/16: layer3 has its stride of 2 and there is no pool.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from utils.models.bas import BAS, initialize_xavier
from utils.models.taps import Grid, Tap


class Bottleneck(nn.Module):
    """A 3 x 3 convolution between two of 1 x 1 that narrow and widen, and what goes past them; the stride sits on the
    3 x 3 one.

    Args:
        in_channels: C.
        width: channels of the 3 x 3 convolution; four times as many come out.
        stride: of the block.
        is_first: whether what goes past is projected by a convolution of 1 x 1, as in a stage's first block.
    """

    def __init__(self, in_channels: int, width: int, stride: int = 1, is_first: bool = False) -> None:
        super().__init__()
        out_channels = 4 * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if is_first:
            projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4 * width, H / stride, W / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


def _stage(in_channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(in_channels, width, stride, is_first=True)
    return nn.Sequential(first, *(Bottleneck(4 * width, width) for _ in range(blocks - 1)))


class ResNet50(BAS, arch="resnet"):
    """torchvision's ResNet50 layers with stride 1 in layer3 and layer4; the stride sits on the 3 x 3 convolution.

    Args:
        num_classes: K.
        coarse_features: whether F is at 1/16 of the picture and not at 1/8.
        heads: settings of the heads, see :meth:`BAS.add_heads`.
    """

    LAYERS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "pool", "layer4")

    def __init__(self, num_classes: int, coarse_features: bool = False, **heads: Any) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(64, 64, blocks=3, stride=1)
        self.layer2 = _stage(256, 128, blocks=4, stride=2)
        self.layer3 = _stage(512, 256, blocks=6, stride=2 if coarse_features else 1)
        self.pool = nn.Identity() if coarse_features else nn.MaxPool2d(2)
        self.layer4 = _stage(1024, 512, blocks=3, stride=1)
        if coarse_features:
            self.class_grid = Grid(0, 16)
            self.taps = {**self.taps, "layer3": Tap(1024, Grid(0, 16)), "layer4": Tap(2048, Grid(0, 16))}
        self.add_heads(2048, num_classes, **heads)
        self.apply(initialize_xavier)
