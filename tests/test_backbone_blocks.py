"""The blocks of InceptionV3 and ResNet50: torchvision's values and gradients, without PyTorch's backward pass of the
padded mean."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import inception as theirs
from torchvision.models import resnet as their_resnet

from utils.models import inception as ours
from utils.models.resnet import Bottleneck


def _their_first_bottleneck() -> nn.Module:
    projection = nn.Sequential(their_resnet.conv1x1(16, 32, stride=2), nn.BatchNorm2d(32))
    return their_resnet.Bottleneck(16, 8, 2, projection)


BLOCKS = {
    "InceptionA": (lambda: theirs.InceptionA(16, 8), lambda: ours.InceptionA(16, 8)),
    "InceptionC": (lambda: theirs.InceptionC(16, 8), lambda: ours.InceptionC(16, 8)),
    "InceptionE": (lambda: theirs.InceptionE(16), lambda: ours.InceptionE(16)),
    "Bottleneck": (lambda: their_resnet.Bottleneck(16, 4), lambda: Bottleneck(16, 4)),
    "first Bottleneck": (_their_first_bottleneck, lambda: Bottleneck(16, 8, stride=2, is_first=True)),
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_mean_has_the_gradient_of_pytorchs(layout: torch.memory_format) -> None:
    """Protects what the gradient's own formula says: PyTorch's on a CPU, borders too, and twice differentiable."""
    maps = torch.randn(2, 3, 5, 4, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    weights = torch.randn(2, 3, 5, 4, dtype=torch.float64).contiguous(memory_format=layout)
    found, expected = ours.mean_of_neighbours(maps), F.avg_pool2d(maps, 3, stride=1, padding=1)
    assert torch.equal(found, expected)
    ours_back, theirs_back = (torch.autograd.grad((out * weights).sum(), maps)[0] for out in (found, expected))
    torch.testing.assert_close(ours_back, theirs_back, rtol=0, atol=1e-15)
    assert ours_back.is_contiguous(memory_format=layout)
    assert torch.autograd.gradgradcheck(ours.mean_of_neighbours, maps)


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_are_torchvisions(name: str) -> None:
    """Protects the branches and their order: equal outputs, and gradients of every weight, with equal weights."""
    torch.manual_seed(0)
    pair = [make().double() for make in BLOCKS[name]]
    pair[1].load_state_dict(pair[0].state_dict())
    images = torch.randn(2, 16, 6, 6, dtype=torch.float64)
    outs = [block(images) for block in pair]
    assert torch.equal(*outs)
    weights = torch.randn_like(outs[0])
    gradients = [
        torch.autograd.grad((out * weights).sum(), block.parameters()) for out, block in zip(outs, pair, strict=True)
    ]
    for expected, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
