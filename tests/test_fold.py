"""Folding batch normalisation into convolutions changes the speed of inference, not what it finds."""

from __future__ import annotations

import copy
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import CUB.Model
from tests.reference_weights import fill
from utils.models.bas import BAS
from utils.models.fold import fold_batch_norm
from utils.models.registry import ARCHS

NORMS = {"vgg": 0, "mobilenet": 27, "resnet": 53, "inception": 94}


def count(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in model.modules())


def assert_same(found: Tensor, expected: Tensor) -> None:
    assert expected.std() > 0
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.detach().abs().max()))


class Pair(NamedTuple):
    model: BAS
    before: dict[str, Tensor]  # the model's state dict before it was folded
    folded: BAS


@pytest.fixture(scope="module", params=ARCHS)
def pair(request: pytest.FixtureRequest) -> Pair:
    """A model with random weights and running statistics, and its folded copy."""
    model = fill(CUB.Model.build(request.param, num_classes=7, final_relu=False)).eval()
    return Pair(model, copy.deepcopy(model.state_dict()), fold_batch_norm(model))


def test_every_norm_is_folded(pair: Pair) -> None:
    """Protects the rule that pairs a norm with its convolution, on every backbone."""
    model, _, folded = pair
    norms = count(model, nn.BatchNorm2d)
    assert norms == NORMS[model.arch]
    assert count(folded, nn.BatchNorm2d) == 0
    assert count(folded, nn.Identity) - count(model, nn.Identity) == norms
    assert count(folded, nn.Conv2d) == count(model, nn.Conv2d)
    assert not any(module.training for module in folded.modules())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_outputs_stay(pair: Pair, memory_format: torch.memory_format) -> None:
    """Protects scores and maps: all that inference returns, in either memory layout."""
    model, _, folded = pair
    torch.manual_seed(0)
    crops, labels = torch.randn(2, 2, 3, 64, 64), torch.tensor([6, 0])
    laid_out = copy.deepcopy(folded).to(memory_format=memory_format)
    expected, found = (net.encode_crops(crops, map_crop=1) for net in (model, laid_out))
    for name in expected._fields:
        assert_same(getattr(found, name), getattr(expected, name))
    for top_k in (1, 3):
        maps = [
            net.fuse_top_k(one.features, one.scores, top_k, labels)
            for net, one in ((model, expected), (laid_out, found))
        ]
        assert_same(*reversed(maps))
    with torch.no_grad():
        assert_same(laid_out.classify(crops[:, 0]), model.classify(crops[:, 0]))


def test_gradients_reach_the_features(pair: Pair) -> None:
    """Protects Grad-CAM on the folded model: the same gradient of a logit with respect to F."""
    # In double precision: rounding would move single units across a ReLU's 0.
    model = copy.deepcopy(pair.model).double()
    torch.manual_seed(1)
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    gradients = []
    for net in (model, fold_batch_norm(model)):
        features = net.f1(images)
        gradients += torch.autograd.grad(net.f2(features).mean(dim=(2, 3))[0, 4], features)
    assert gradients[0].norm() > 0
    assert (gradients[1] - gradients[0]).norm() < 1e-9 * gradients[0].norm()


def test_the_original_is_untouched(pair: Pair) -> None:
    """Protects the published state dict, and the original from later changes to its copy."""
    after = pair.model.state_dict()
    assert list(after) == list(pair.before)
    assert all(torch.equal(after[key], value) for key, value in pair.before.items())
    own = {value.data_ptr() for value in after.values()}
    assert own.isdisjoint(value.data_ptr() for value in pair.folded.state_dict().values())


def test_training_mode_is_refused() -> None:
    """Protects training: neither a whole model nor a part that still follows the batch's statistics is folded."""
    model = CUB.Model.build("mobilenet", num_classes=2)
    with pytest.raises(ValueError, match="evaluation mode"):
        fold_batch_norm(model)
    model.eval().model[3].train()
    with pytest.raises(ValueError, match="evaluation mode"):
        fold_batch_norm(model)


def test_foreign_norms_stay() -> None:
    """Protects what no convolution feeds: a first norm, one behind an activation, one of other channels."""
    net = nn.Sequential(
        nn.BatchNorm2d(3),
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 8, 1),
        nn.PixelShuffle(2),
        nn.BatchNorm2d(2),
        nn.Conv2d(2, 5, 3, bias=False),
        nn.BatchNorm2d(5, affine=False),
    )
    net = fill(net).eval()
    folded = fold_batch_norm(net)
    assert [isinstance(layer, nn.BatchNorm2d) for layer in folded] == [True] + [False] * 2 + [True] + [False] * 2 + [
        True,
        False,
        False,
    ]
    images = torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        assert_same(folded(images), net(images))
