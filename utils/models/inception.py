"""InceptionV3 (Szegedy et al., 2016) for BAS: Mixed_6a keeps its stride at 1, so F, Mixed_6e's output, is 28 x 28."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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


class BasicConv2d(nn.Sequential):
    """A convolution that keeps the size unless it strides, batch normalisation, ReLU: what all blocks are made of."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        padding: int | None = None,
    ) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        pads = (height // 2, width // 2) if padding is None else (padding, padding)
        self.conv = nn.Conv2d(in_channels, out_channels, (height, width), stride, pads, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)
        self.relu = nn.ReLU(inplace=True)


class InceptionA(nn.Module):
    """Branches of 1 x 1, 5 x 5 and two 3 x 3."""

    def __init__(self, in_channels: int, pool_features: int) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(in_channels, 64)
        self.branch5x5_1 = BasicConv2d(in_channels, 48)
        self.branch5x5_2 = BasicConv2d(48, 64, 5)
        self.branch3x3dbl_1 = BasicConv2d(in_channels, 64)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3)
        self.branch_pool = BasicConv2d(in_channels, pool_features)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 224 + pool_features, H, W)."""
        single = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(mean_of_neighbours(x))], dim=1)


class InceptionB(nn.Module):
    """Mixed_6a: branches of one 3 x 3 and of two, and a pool; their strides of 2 are 1 here."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.branch3x3 = BasicConv2d(in_channels, 384, 3)
        self.branch3x3dbl_1 = BasicConv2d(in_channels, 64)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 480 + C, H, W)."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, stride=1, padding=1)], dim=1)


class InceptionC(nn.Module):
    """Branches of 1 x 1, and of one 7 x 7 and two, each as 1 x 7 and 7 x 1."""

    def __init__(self, in_channels: int, channels_7x7: int) -> None:
        super().__init__()
        width = channels_7x7
        self.branch1x1 = BasicConv2d(in_channels, 192)
        self.branch7x7_1 = BasicConv2d(in_channels, width)
        self.branch7x7_2 = BasicConv2d(width, width, (1, 7))
        self.branch7x7_3 = BasicConv2d(width, 192, (7, 1))
        self.branch7x7dbl_1 = BasicConv2d(in_channels, width)
        self.branch7x7dbl_2 = BasicConv2d(width, width, (7, 1))
        self.branch7x7dbl_3 = BasicConv2d(width, width, (1, 7))
        self.branch7x7dbl_4 = BasicConv2d(width, width, (7, 1))
        self.branch7x7dbl_5 = BasicConv2d(width, 192, (1, 7))
        self.branch_pool = BasicConv2d(in_channels, 192)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 768, H, W)."""
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(mean_of_neighbours(x))], dim=1)


class InceptionD(nn.Module):
    """Mixed_7a: branches of one 3 x 3 and of a 7 x 7 before it, and a pool, all of stride 2: 28 -> 14."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.branch3x3_1 = BasicConv2d(in_channels, 192)
        self.branch3x3_2 = BasicConv2d(192, 320, 3, stride=2)
        self.branch7x7x3_1 = BasicConv2d(in_channels, 192)
        self.branch7x7x3_2 = BasicConv2d(192, 192, (1, 7))
        self.branch7x7x3_3 = BasicConv2d(192, 192, (7, 1))
        self.branch7x7x3_4 = BasicConv2d(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 512 + C, H / 2, W / 2)."""
        single = self.branch3x3_2(self.branch3x3_1(x))
        triple = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([single, triple, F.max_pool2d(x, 3, stride=2, padding=1)], dim=1)


class InceptionE(nn.Module):
    """Branches of 1 x 1, and of one 3 x 3 and two; the last of each is parted into 1 x 3 and 3 x 1."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(in_channels, 320)
        self.branch3x3_1 = BasicConv2d(in_channels, 384)
        self.branch3x3_2a = BasicConv2d(384, 384, (1, 3))
        self.branch3x3_2b = BasicConv2d(384, 384, (3, 1))
        self.branch3x3dbl_1 = BasicConv2d(in_channels, 448)
        self.branch3x3dbl_2 = BasicConv2d(448, 384, 3)
        self.branch3x3dbl_3a = BasicConv2d(384, 384, (1, 3))
        self.branch3x3dbl_3b = BasicConv2d(384, 384, (3, 1))
        self.branch_pool = BasicConv2d(in_channels, 192)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 2048, H, W)."""
        single, double = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        singles = self.branch3x3_2a(single), self.branch3x3_2b(single)
        doubles = self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)
        pooled = self.branch_pool(mean_of_neighbours(x))
        return torch.cat([self.branch1x1(x), *singles, *doubles, pooled], dim=1)


class InceptionV3(BAS, arch="inception"):
    """torchvision's layers and their names without the auxiliary head; paddings and strides as in the authors' code."""

    LAYERS = (
        *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "pool"),
        *("Conv2d_3b_1x1", "Conv2d_4a_3x3", "pool"),
        *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
        *("Mixed_7a", "Mixed_7b", "Mixed_7c"),
    )

    def __init__(self, num_classes: int, **heads: Any) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, 3, padding=0)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, 3)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, 3, padding=0)
        self.Mixed_5b = InceptionA(192, pool_features=32)
        self.Mixed_5c = InceptionA(256, pool_features=64)
        self.Mixed_5d = InceptionA(288, pool_features=64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, channels_7x7=128)
        self.Mixed_6c = InceptionC(768, channels_7x7=160)
        self.Mixed_6d = InceptionC(768, channels_7x7=160)
        self.Mixed_6e = InceptionC(768, channels_7x7=192)
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280)
        self.Mixed_7c = InceptionE(2048)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
        self.add_heads(2048, num_classes, **heads)
        self.apply(initialize_xavier)
