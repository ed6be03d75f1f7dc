"""InceptionV3 (Szegedy et al., 2016) for BAS: Mixed_6a keeps its stride at 1, so F, Mixed_6e's output, is 28 x 28."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import inception
from torchvision.models.inception import BasicConv2d, InceptionB, InceptionD

from utils.models.bas import BAS, initialize_xavier


class _MeanOfNeighbours(torch.autograd.Function):
    """See :func:`mean_of_neighbours`: a linear map that is its own adjoint, so that its gradient is the same mean."""

    @staticmethod
    def forward(maps: Tensor) -> Tensor:
        return F.avg_pool2d(maps, 3, stride=1, padding=1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # type: ignore[override]
        return mean_of_neighbours(gradients[0])


def mean_of_neighbours(maps: Tensor) -> Tensor:
    """The mean over 3 x 3 cells with zeros around, `F.avg_pool2d(maps, 3, stride=1, padding=1)`: (B, C, H, W) -> same.

    PyTorch's own backward pass with padding is wrong for channels-last maps on CUDA (2.11: off by 0.2 of its norm).
    """
    return _MeanOfNeighbours.apply(maps)  # type: ignore[no-untyped-call, no-any-return]


class InceptionA(inception.InceptionA):
    """torchvision's, with :func:`mean_of_neighbours`."""

    def _forward(self, x: Tensor) -> list[Tensor]:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        pooled = self.branch_pool(mean_of_neighbours(x))
        return [self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), double, pooled]


class InceptionC(inception.InceptionC):
    """torchvision's, with :func:`mean_of_neighbours`."""

    def _forward(self, x: Tensor) -> list[Tensor]:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return [self.branch1x1(x), single, double, self.branch_pool(mean_of_neighbours(x))]


class InceptionE(inception.InceptionE):
    """torchvision's, with :func:`mean_of_neighbours`."""

    def _forward(self, x: Tensor) -> list[Tensor]:
        single, double = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        singles = self.branch3x3_2a(single), self.branch3x3_2b(single)
        doubles = self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)
        return [self.branch1x1(x), *singles, *doubles, self.branch_pool(mean_of_neighbours(x))]


class Mixed6a(InceptionB):
    """torchvision's grid reduction with stride 1 and padding 1 in its strided convolutions and its pool."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels)
        self.branch3x3 = BasicConv2d(in_channels, 384, kernel_size=3, padding=1)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, stride=1, padding=1)], dim=1)


class Mixed7a(InceptionD):
    """torchvision's grid reduction with padding 1 on its stride-2 convolutions and its pool: 28 -> 14."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels)
        self.branch3x3_2 = BasicConv2d(192, 320, kernel_size=3, stride=2, padding=1)
        self.branch7x7x3_4 = BasicConv2d(192, 192, kernel_size=3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch3x3_2(self.branch3x3_1(x))
        triple = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([single, triple, F.max_pool2d(x, 3, stride=2, padding=1)], dim=1)


class InceptionV3(BAS, arch="inception"):
    """torchvision's InceptionV3 layers without the auxiliary head; paddings and strides as in the authors' code."""

    LAYERS = (
        *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "pool"),
        *("Conv2d_3b_1x1", "Conv2d_4a_3x3", "pool"),
        *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
        *("Mixed_7a", "Mixed_7b", "Mixed_7c"),
    )

    def __init__(self, num_classes: int, **heads: Any) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, kernel_size=3, stride=2, padding=1)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, kernel_size=3)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, kernel_size=3, padding=1)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, kernel_size=1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, kernel_size=3)
        self.Mixed_5b = InceptionA(192, pool_features=32)
        self.Mixed_5c = InceptionA(256, pool_features=64)
        self.Mixed_5d = InceptionA(288, pool_features=64)
        self.Mixed_6a = Mixed6a(288)
        self.Mixed_6b = InceptionC(768, channels_7x7=128)
        self.Mixed_6c = InceptionC(768, channels_7x7=160)
        self.Mixed_6d = InceptionC(768, channels_7x7=160)
        self.Mixed_6e = InceptionC(768, channels_7x7=192)
        self.Mixed_7a = Mixed7a(768)
        self.Mixed_7b = InceptionE(1280)
        self.Mixed_7c = InceptionE(2048)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
        self.add_heads(2048, num_classes, **heads)
        self.apply(initialize_xavier)
