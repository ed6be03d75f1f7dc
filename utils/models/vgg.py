"""VGG16 (Simonyan and Zisserman, 2015) for BAS: F is conv4_3's output, f2 starts with the fourth pooling."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from utils.models.bas import BAS

# Output channels of each convolution, block by block; a 2 x 2 max-pool stands between the blocks.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(BAS, arch="vgg"):
    """13 convolutions `conv1_1` ... `conv5_3`, a ReLU after each; no fully connected layers."""

    def __init__(self, num_classes: int, **heads: Any) -> None:
        super().__init__()
        channels = 3
        for block, widths in enumerate(BLOCKS, start=1):
            for index, width in enumerate(widths, start=1):
                self.add_module(f"conv{block}_{index}", nn.Conv2d(channels, width, 3, padding=1))
                channels = width
        self.pool = nn.MaxPool2d(2)
        self.relu = nn.ReLU(inplace=True)
        self.add_heads(512, num_classes, **heads)
        self.apply(initialize_normal)

    def stages(self) -> Iterator[tuple[str, nn.Module]]:
        for block, widths in enumerate(BLOCKS, start=1):
            if block > 1:
                yield "pool", self.pool
            for index in range(1, len(widths) + 1):
                name = f"conv{block}_{index}"
                yield name, getattr(self, name)
                yield name, self.relu


def initialize_normal(module: nn.Module) -> None:
    """Weights from N(0, 0.02), biases as PyTorch sets them: VGG16's rule in the authors' code."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
