"""InceptionV3's own blocks: torchvision's values and gradients, without PyTorch's backward pass of the padded mean."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torchvision.models import inception as theirs

from utils.models import inception as ours

BLOCKS = {"InceptionA": (16, 8), "InceptionC": (16, 8), "InceptionE": (16,)}


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
    pair = [getattr(module, name)(*BLOCKS[name]).double() for module in (theirs, ours)]
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
