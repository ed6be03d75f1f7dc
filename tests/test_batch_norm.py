"""Batch normalisation in channels-last memory on a CPU: as exact as in PyTorch's own layout, and otherwise the same."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import CUB.Model
from utils.models.bas import call_frozen
from utils.models.batch_norm import ExactBatchNorm2d, use_exact_batch_norm

LAST = torch.channels_last


def far_from_zero(*shape: int) -> Tensor:
    """Maps of mean 2 and spread 0.3, whose variance is lost first where sums are rounded."""
    return torch.randn(shape) * 0.3 + 2


def make_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    return norm


def pass_through(norm: nn.BatchNorm2d, maps: Tensor, gradient: Tensor) -> dict[str, Tensor]:
    """Output, gradients and running statistics of one training step of a copy of the layer, in float64."""
    norm, maps = copy.deepcopy(norm).train(), maps.detach().clone().requires_grad_()
    output = norm(maps)
    output.backward(gradient)
    found = {"output": output, "maps": maps.grad, "weight": norm.weight.grad, "bias": norm.bias.grad}
    found |= {"mean": norm.running_mean, "variance": norm.running_var}
    return {name: value.detach().double() for name, value in found.items()} | {"batches": norm.num_batches_tracked}


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_it_is_as_exact_as_contiguous_memory() -> None:
    """Protects training on a CPU: against float64, no further off than PyTorch's own layout by more than a few times.

    PyTorch's channels-last kernel is 50 times further off here, which shows that the comparison can fail.
    """
    torch.manual_seed(0)
    maps, gradient, norm = far_from_zero(8, 64, 112, 112), torch.randn(8, 64, 112, 112), make_norm(64)
    exact = pass_through(copy.deepcopy(norm).double(), maps.double(), gradient.double())
    contiguous = pass_through(norm, maps, gradient)
    last = [values.contiguous(memory_format=LAST) for values in (maps, gradient)]
    pytorchs = pass_through(norm, *last)
    ours = pass_through(use_exact_batch_norm(norm), *last)
    assert torch.equal(ours["batches"], exact["batches"])
    for name in ("output", "maps", "weight", "bias", "mean", "variance"):
        assert distance(ours[name], exact[name]) < max(4 * distance(contiguous[name], exact[name]), 2e-7), name
    assert distance(pytorchs["output"], exact["output"]) > 20 * distance(ours["output"], exact["output"])


@pytest.mark.parametrize("momentum", [0.1, 0.5])
@pytest.mark.parametrize("size", [(3, 4, 6), (1, 1, 257), (7, 1, 1), (2, 17, 29), (5, 16, 16)])
def test_it_is_batch_normalisation(momentum: float, size: tuple[int, int, int]) -> None:
    """Protects the layer's meaning: all that float64's PyTorch gives, eps, momentum and a frozen weight included.

    The sizes have their places in one group, in groups of one, and in several.
    """
    torch.manual_seed(0)
    batch, *places = size
    maps, gradient = torch.randn(batch, 5, *places), torch.randn(batch, 5, *places)
    norm = make_norm(5)
    norm.eps, norm.momentum = 0.1, momentum
    expected = pass_through(copy.deepcopy(norm).double(), maps.double(), gradient.double())
    use_exact_batch_norm(norm)
    assert norm.applies(maps.contiguous(memory_format=LAST)) == (size != (7, 1, 1))  # whose memory is both
    # The gradient comes in whatever layout the next layer gives.
    found = pass_through(norm, maps.contiguous(memory_format=LAST), gradient)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_constant_weights_and_inputs() -> None:
    """Protects the frozen f2, whose weights are constants, and a first layer, whose input wants no gradient."""
    torch.manual_seed(0)
    maps, norm = torch.randn(3, 5, 4, 6).contiguous(memory_format=LAST), use_exact_batch_norm(make_norm(5)).train()
    expected = torch.autograd.grad(norm(inputs := maps.clone().requires_grad_()).pow(3).sum(), inputs)[0]
    before = copy.deepcopy(norm.state_dict())
    found = torch.autograd.grad(call_frozen(norm, inputs := maps.clone().requires_grad_()).pow(3).sum(), inputs)[0]
    assert torch.equal(found, expected)
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    norm(maps).pow(3).sum().backward()
    assert norm.weight.grad.norm() > 0
    assert maps.grad is None


def test_everything_else_is_pytorchs() -> None:
    """Protects evaluation, contiguous memory, other precisions, layers without weights, and errors: PyTorch's own."""
    torch.manual_seed(0)
    maps = torch.randn(3, 5, 4, 6)
    last = maps.contiguous(memory_format=LAST)
    for norm, values in (
        (make_norm(5).eval(), last),
        (make_norm(5), maps),
        (make_norm(5).double(), last.double()),
        (nn.BatchNorm2d(5, affine=False), last),
        (nn.BatchNorm2d(5, momentum=None), last),
        (nn.BatchNorm2d(5, track_running_stats=False), last),
    ):
        expected = copy.deepcopy(norm)(values)
        assert not use_exact_batch_norm(norm).applies(values)
        assert torch.equal(norm(values), expected)
    norm = use_exact_batch_norm(make_norm(5))
    with pytest.raises(ValueError, match="more than 1 value"):
        norm(torch.randn(1, 5, 1, 1))
    with pytest.raises(ValueError, match="4D"):
        norm(torch.randn(1, 5))


@pytest.mark.parametrize("arch", ["mobilenet", "resnet", "inception"])
def test_placing_a_model_makes_its_norms_exact(arch: str) -> None:
    """Protects what the trainer trains: every norm of a placed model is exact, under the same names and objects."""
    model = CUB.Model.build(arch, num_classes=2)
    keys, parameters = list(model.state_dict()), dict(model.named_parameters())
    model.place(torch.device("cpu"))
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert norms
    assert all(type(layer) is ExactBatchNorm2d for layer in norms)
    assert list(model.state_dict()) == keys
    assert all(parameter is parameters[name] for name, parameter in model.named_parameters())
