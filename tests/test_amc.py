"""The activation map constraint against a naive one: per-sample loop, all K channels, deep-copied f2."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from importlib import import_module

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import CUB.Model
import ILSVRC.Model
from utils.models.bas import BAS, Grid, Tap, call_frozen, convolve_selected
from utils.models.losses import BASLosses, background_activation_ratio, bas_losses
from utils.models.pooling import pool_areas, pool_blocks


class TinyBAS(BAS):
    """A small random net with batch normalisation in both halves, f2 halving the map."""

    arch = "tiny"
    taps = {"stem": Tap(6, Grid(0, 2))}
    paper_tap = "stem"

    def __init__(self, num_classes: int = 5, final_relu: bool = True) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU())
        self.tail = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.add_heads(8, num_classes, "classifier_cls", final_relu)
        # The published head is 1024 wide; a narrow one of the same structure keeps the tests quick.
        self.head[0], self.head[2] = nn.Conv2d(8, 12, 3, padding=1), nn.Conv2d(12, 10, 3, padding=1)
        self.head[4] = nn.Conv2d(10, num_classes, 1)

    def stages(self) -> Iterator[tuple[str, nn.Module]]:
        yield "stem", self.stem
        yield "tail", self.tail


def naive_losses(model: TinyBAS, images: Tensor, labels: Tensor, recipe) -> BASLosses:
    """The paper's section 3.3, read literally, with the ablations of a recipe."""
    features = model.stem(images)
    all_maps = model.classifier_loc(features)
    foreground = torch.stack([all_maps[i, label] for i, label in enumerate(labels.tolist())]).unsqueeze(1)
    class_maps = model.head(model.tail(features))
    logits = F.adaptive_avg_pool2d(class_maps, 1).flatten(1)
    masked = F.adaptive_avg_pool2d(class_maps * F.avg_pool2d(foreground, 2), 1).flatten(1)

    second_tail, second_head = model.tail, model.head
    if recipe.frozen_f2:
        second_tail, second_head = copy.deepcopy(model.tail), copy.deepcopy(model.head)
        for parameter in [*second_tail.parameters(), *second_head.parameters()]:
            parameter.requires_grad_(False)
    if recipe.generator_loss == "cross_entropy":
        seen = second_head(second_tail(features.detach() * foreground)).mean(dim=(2, 3))
        bas = -torch.stack([seen[i].log_softmax(0)[label] for i, label in enumerate(labels)]).mean()
    else:
        background_maps = second_head(second_tail(features.detach() * (1 - foreground)))
        bas = naive_ratios(logits, background_maps, labels, recipe).mean()
    cls = -torch.stack([logits[i].log_softmax(0)[label] for i, label in enumerate(labels)]).mean()
    frg = -torch.stack([masked[i].log_softmax(0)[label] for i, label in enumerate(labels)]).mean()
    area = foreground.mean()
    total = recipe.cls_weight * cls + recipe.frg_weight * frg + recipe.bas_weight * bas + recipe.area_weight * area
    return BASLosses(cls, frg, bas, area, total)


def naive_ratios(logits: Tensor, background_maps: Tensor, labels: Tensor, recipe) -> Tensor:
    """S_bg / S picture by picture."""
    ratios = []
    for i, label in enumerate(labels.tolist()):
        # Negative activations, which only a model without final ReLU has, count as 0.
        whole, background = logits[i, label].detach().clamp(min=0), background_maps[i, label].mean().clamp(min=0)
        more = background >= whole if recipe.ratio_compare == "ge" else background > whole
        if more and recipe.ratio_beyond_one != "keep":
            ratios.append(torch.tensor(1.0 if recipe.ratio_beyond_one == "one" else 0.0).to(background))
        else:
            ratios.append(background / (whole + 1e-8))
    return torch.stack(ratios)


@pytest.mark.parametrize("recipe", [CUB.Model.recipe("resnet"), ILSVRC.Model.recipe("vgg")], ids=["CUB", "ILSVRC"])
@pytest.mark.parametrize("final_relu", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_the_naive_constraint(recipe, final_relu: bool, training: bool, seed: int) -> None:
    """Values of all losses, gradients of all parameters, and running statistics, in float64."""
    torch.manual_seed(seed)
    model = TinyBAS(final_relu=final_relu).double().train(training)
    # The class maps' biases keep the logits away from 0, where the final ReLU would hide errors.
    nn.init.uniform_(model.head[4].bias, 0.0, 0.3)
    naive = copy.deepcopy(model)
    images, labels = torch.randn(7, 3, 16, 24, dtype=torch.float64), torch.randint(0, 5, (7,))

    losses = bas_losses(model(images, labels), labels, recipe)
    expected = naive_losses(naive, images, labels, recipe)
    for name in BASLosses._fields:
        torch.testing.assert_close(getattr(losses, name), getattr(expected, name), rtol=1e-10, atol=1e-12)

    losses.total.backward()
    expected.total.backward()
    for (name, ours), theirs in zip(model.named_parameters(), naive.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-12, msg=name)
    for ours, theirs in zip(model.buffers(), naive.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_bas_loss_spares_the_classifier() -> None:
    """L_bas trains the generator (and f1 only through it): nothing of f2 and the classifier head moves."""
    torch.manual_seed(0)
    model = TinyBAS()
    nn.init.uniform_(model.head[4].bias, 0.5, 1.0)
    labels = torch.randint(0, 5, (6,))
    bas_losses(model(torch.randn(6, 3, 16, 16), labels), labels, CUB.Model.recipe("vgg")).bas.backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {"classifier_loc.0.weight", "classifier_loc.0.bias"} <= reached
    assert not {name for name in reached if name.startswith(("tail", "classifier_cls"))}


def test_ratio_beyond_one_is_a_constant() -> None:
    """S_bg above S gives a constant without gradient; at equality the rules differ; below, the gradient is 1 / S."""
    activation = torch.tensor([2.0, 2.0, 2.0, 0.0], requires_grad=True)
    background = torch.tensor([1.0, 2.0, 3.0, 0.0], requires_grad=True)
    for compare, beyond_one, expected, slopes in (
        ("ge", "zero", [0.5, 0, 0, 0], [0.5, 0, 0]),
        ("gt", "zero", [0.5, 1, 0, 0], [0.5, 0.5, 0]),
        ("ge", "one", [0.5, 1, 1, 1], [0.5, 0, 0]),
        ("gt", "one", [0.5, 1, 1, 0], [0.5, 0.5, 0]),
        ("ge", "keep", [0.5, 1, 1.5, 0], [0.5, 0.5, 0.5]),
    ):
        ratio = background_activation_ratio(activation, background, compare, beyond_one)
        assert ratio.tolist() == pytest.approx(expected)
        (gradient,) = torch.autograd.grad(ratio.sum(), background)
        assert gradient[:3].tolist() == pytest.approx(slopes)
        assert not torch.autograd.grad(
            background_activation_ratio(activation, background, compare, beyond_one).sum(),
            activation,
            allow_unused=True,
        )[0]
    for wrong in (("lt", "zero"), ("ge", "two")):
        with pytest.raises(ValueError, match="must be one of"):
            background_activation_ratio(activation, background, *wrong)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("height", "width", "size"), [(28, 28, 3), (7, 12, 3), (5, 4, 1), (1, 1, 3)])
def test_selected_channels_equal_the_full_convolution(height: int, width: int, size: int, memory_format) -> None:
    """Values and all gradients of choosing channels before the convolution and after it."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(10, 9, size, padding=size // 2).double()
    features = torch.randn(4, 10, height, width, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    classes = torch.randint(0, 9, (4, 3))  # repeated classes: their gradients add up
    weights = torch.randn(4, 3, height, width, dtype=torch.float64)

    selected = convolve_selected(features, convolution.weight[classes], convolution.bias[classes])
    full = convolution(features)[torch.arange(4)[:, None], classes]
    torch.testing.assert_close(selected, full, rtol=1e-12, atol=1e-12)
    inputs = [features, convolution.weight, convolution.bias]
    for ours, theirs in zip(
        torch.autograd.grad((selected * weights).sum(), inputs),
        torch.autograd.grad((full * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_frozen_call_leaves_the_module_alone() -> None:
    """No weight gradient, no moved running statistics, the same output as the module itself."""
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).train()
    before = copy.deepcopy(module.state_dict())
    inputs = torch.randn(4, 2, 6, 6, requires_grad=True)
    output = call_frozen(module, inputs)
    output.square().sum().backward()
    assert inputs.grad.abs().sum() > 0
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name
    torch.testing.assert_close(module(inputs), output)


def test_top_k_fusion() -> None:
    """k = 1 takes the label's map or the predicted class's; 1 < k < K the best classes' mean; k >= K all classes."""
    torch.manual_seed(1)
    model = TinyBAS(final_relu=False).eval()
    images, labels = torch.randn(3, 3, 16, 16), torch.tensor([4, 0, 2])
    with torch.no_grad():
        maps = model.classifier_loc(model.stem(images))
    logits, predicted = model.localize(images, top_k=1)
    rows = torch.arange(3)
    torch.testing.assert_close(predicted[:, 0], maps[rows, logits.argmax(1)])
    torch.testing.assert_close(model.localize(images, top_k=1, labels=labels)[1][:, 0], maps[rows, labels])
    best = logits.topk(3).indices
    expected = torch.stack([maps[i, best[i]].mean(0) for i in range(3)])
    # Labels never enter the fusion of several classes.
    torch.testing.assert_close(model.localize(images, top_k=3, labels=labels)[1][:, 0], expected)
    for top_k in (5, 200):
        torch.testing.assert_close(model.localize(images, top_k=top_k)[1][:, 0], maps.mean(1))
    ties = torch.zeros(len(images), 5)  # behind a final ReLU that is shut
    ties[:, 3] = 1
    features = model.f1(images)
    for top_k, classes in ((1, [3]), (2, [3, 0]), (4, [3, 0, 1, 2])):
        expected = maps[:, classes].mean(1, keepdim=True)
        for largest in (top_k, 4, 5):
            fused = model.fuse_each_top_k(features, ties, (top_k, largest))[top_k]
            torch.testing.assert_close(fused, expected)
        torch.testing.assert_close(model.fuse_top_k(features, ties, top_k), expected)


def test_ten_crops_in_one_pass_equal_separate_passes() -> None:
    """Scores of each crop and the map of the chosen one."""
    torch.manual_seed(2)
    model = TinyBAS().eval()
    crops, labels = torch.randn(2, 10, 3, 16, 16), torch.tensor([1, 3])
    encoding = model.encode_crops(crops, map_crop=4)
    for index in range(10):
        logits, foreground_map = model.localize(crops[:, index], top_k=2)
        torch.testing.assert_close(encoding.logits[:, index], logits)
        if index == 4:
            fused = model.fuse_top_k(encoding.features, encoding.scores, 2, labels)
            torch.testing.assert_close(fused, foreground_map)
            torch.testing.assert_close(encoding.class_maps, model.f2(model.f1(crops[:, index])))


@pytest.mark.parametrize("arch", ["vgg", "mobilenet", "resnet", "inception"])
def test_other_sizes_and_class_counts(arch: str) -> None:
    """Nothing is tied to 224 pixels, 28 x 28 or 200 classes; channels-last gives the same numbers."""
    torch.manual_seed(0)
    model = CUB.Model.build(arch, num_classes=7).eval()
    images, labels = torch.randn(2, 3, 96, 128), torch.tensor([6, 0])
    with torch.no_grad():
        output = model(images, labels)
        assert output.logits.shape == output.masked_logits.shape == (2, 7)
        assert output.foreground_map.shape[-2:] == model.f1(images).shape[-2:]
        model.to(memory_format=torch.channels_last)
        again = model(images.contiguous(memory_format=torch.channels_last), labels)
    for name in output._fields:
        torch.testing.assert_close(getattr(again, name), getattr(output, name), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("models", [CUB.Model, ILSVRC.Model], ids=["CUB", "ILSVRC"])
@pytest.mark.parametrize("arch", ["vgg", "mobilenet", "resnet", "inception"])
def test_stage_tables_tell_the_truth(models, arch: str) -> None:
    """The shapes that a backbone file lists are those of its layers."""
    shapes = {}
    backbone = import_module(f"{models.__name__}.{arch}")
    model = models.build(arch).eval()

    def remember(name: str):
        return lambda module, inputs, output: shapes.__setitem__(name, tuple(output.shape[1:]))

    for name in backbone.STAGES:
        model.get_submodule(name).register_forward_hook(remember(name))
    model.localize(torch.zeros(1, 3, 224, 224), top_k=model.num_classes)
    assert shapes == backbone.STAGES


def test_one_pictures_mask_does_not_reach_anothers_background() -> None:
    """Protects `frozen_statistics="whole"`: S_bg of a picture follows from its own mask, and is S without one.

    With the authors' `masked` another picture's mask changes it, through the batch's statistics.
    """
    torch.manual_seed(0)
    model = TinyBAS(final_relu=False).double().train()
    images, labels = torch.randn(4, 3, 32, 32, dtype=torch.float64), torch.tensor([0, 1, 2, 3])

    def background_activations(ways: str, bias: float) -> torch.Tensor:
        net = copy.deepcopy(model)
        with torch.no_grad():
            net.classifier_loc[0].bias[3] += bias  # the last picture's map, and no other
        output = net(images, labels, frozen_statistics=ways)
        reference = copy.deepcopy(model)
        reference(images, labels)
        for (name, ours), theirs in zip(net.named_buffers(), reference.buffers(), strict=True):
            assert torch.equal(ours, theirs), name  # the second pass leaves the running statistics
        assert all(layer.training for layer in net.modules())
        return output.background_activation.detach()

    before, after = (background_activations("whole", bias) for bias in (0.0, 30.0))
    assert torch.equal(after[:3], before[:3]) and not torch.isclose(after[3], before[3])
    before, after = (background_activations("masked", bias) for bias in (0.0, 30.0))
    assert not torch.isclose(after[:3], before[:3]).any()

    with torch.no_grad():
        model.classifier_loc[0].bias.fill_(-1e4)  # no foreground at all
    output = model(images, labels, frozen_statistics="whole")
    torch.testing.assert_close(output.background_activation, output.activation, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("side", "cells"), [(28, 28), (28, 14), (28, 7), (9, 4), (27, 13)])
def test_masks_are_pooled_by_blocks(side: int, cells: int) -> None:
    """Protects L_frg's mask: the same means and gradients, to the bit where sizes divide, as by the pooling that
    has no deterministic gradient on CUDA."""
    torch.manual_seed(0)
    maps, gradient = torch.rand(2, 1, side, side, requires_grad=True), torch.rand(2, 1, cells, cells)
    ours, theirs = pool_blocks(maps, cells, cells), F.adaptive_avg_pool2d(maps, (cells, cells))
    gradients = [torch.autograd.grad(pooled, maps, gradient)[0] for pooled in (ours, theirs)]
    if side % cells:  # sums in another order
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
        torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-7)
    else:
        assert torch.equal(ours, theirs) and torch.equal(*gradients)
    with torch.no_grad():
        maps.add_(1)  # nothing of a map is kept
    torch.testing.assert_close(pool_blocks(maps, cells, cells), theirs + 1, rtol=1e-6, atol=0)


def test_masks_are_pooled_in_float32() -> None:
    """Protects half precision: the pooled mask is float32's, whichever pooling."""
    torch.manual_seed(0)
    maps = torch.rand(2, 1, 9, 9)
    for pool in (lambda: pool_blocks(maps, 4, 4), lambda: pool_areas(maps, 5, 5, 0.0, 2.0)):
        with torch.autocast("cpu", torch.bfloat16):
            found = pool()
        assert torch.equal(found, pool())


@pytest.mark.parametrize("given", [{"branch": "backgruond"}, {"frozen_statistics": "hole"}, {"mask_pooling": "block"}])
def test_misspelt_ablations_are_refused(given: dict[str, str]) -> None:
    """Protects ablations in Python: a name that is none would run another one without a word, as would k < 1."""
    model, images = TinyBAS(), torch.zeros(2, 3, 32, 32)
    with pytest.raises(ValueError, match=f"'{next(iter(given.values()))}' is none of"):
        model(images, torch.tensor([0, 1]), **given)
    with pytest.raises(ValueError, match="top_k must be at least 1, not -1"):
        model.localize(images, top_k=-1)
