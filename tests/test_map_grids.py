"""Where maps look: the grids that the backbones state, and maps drawn on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import CUB.Model
from utils.evaluation.kinds import MapKind
from utils.evaluation.protocols import PROTOCOLS
from utils.evaluation.spec import grid_of
from utils.localization.maps import place_map, upsample_map
from utils.models.registry import build
from utils.models.same_padding import use_same_padding
from utils.models.taps import Grid
from utils.system.errors import UsageError


def make_linear(model: nn.Module) -> None:
    """Uniform kernels, no non-linearity, norms as identities: gradients then weigh the receptive field alone."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1.0)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.ReLU | nn.BatchNorm2d):
                setattr(parent, name, nn.Identity())
            elif isinstance(child, nn.MaxPool2d):
                pool = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode, False)
                setattr(parent, name, pool)


def mean_pool(x: torch.Tensor, size: int, stride: int, padding: int = 0) -> torch.Tensor:
    return F.avg_pool2d(x, size, stride, padding, count_include_pad=False)


@pytest.mark.parametrize("arch", ["vgg", "mobilenet", "mobilenet, SAME padding", "resnet", "inception"])
def test_grids_are_the_centres_of_receptive_fields(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects aligned maps: first pixel and stride of every tap are those of the layers, by gradients."""
    arch, _, padding = arch.partition(", ")
    recipe = replace(CUB.Model.recipe(arch), num_classes=2, final_relu=False, same_padding=bool(padding))
    model = build(recipe).double().eval()
    make_linear(model)
    monkeypatch.setattr(F, "relu", lambda x, inplace=False: x)
    monkeypatch.setattr(
        F, "max_pool2d", lambda x, kernel_size, stride, padding=0: mean_pool(x, kernel_size, stride, padding)
    )
    # Wide enough that the receptive field of a middle cell ends inside; one row of cells is enough.
    images = torch.zeros(1, 3, 32, 1600, dtype=torch.float64, requires_grad=True)
    maps, last = {}, images
    for name, stage in model.stages():
        maps[name] = last = stage(last)
    moved = Grid.under_same_padding if padding else lambda grid: grid
    grids = {name: moved(tap.grid) for name, tap in model.taps.items()}
    assert model.feature_grid == grids[model.paper_tap]
    for values, grid in ((last, model.class_grid), *((maps[name], grid) for name, grid in grids.items())):
        middle = values.shape[-1] // 2
        for column in (middle, middle + 1):
            cell = values[0, :, values.shape[2] // 2, column].sum()
            (gradient,) = torch.autograd.grad(cell, images, retain_graph=True)
            weight = gradient.abs().sum(dim=(0, 1, 2))
            assert weight[0] == weight[-1] == 0
            centre = float((weight * torch.arange(1600)).sum() / weight.sum())
            assert centre == pytest.approx(grid.first + column * grid.stride, abs=1e-6)


@pytest.mark.parametrize("length", [7, 8, 48])
@pytest.mark.parametrize("groups", [1, 4])
def test_same_padding_is_tensorflows(length: int, groups: int) -> None:
    """Protects SAME padding against the documented rule: as many outputs as strides fit, the odd pixel at the end."""
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=groups, bias=False), nn.Conv2d(8, 8, 3, padding=1)
    )
    keys = list(plain.state_dict())
    images, weight = torch.randn(2, 4, length, length), plain[0].weight
    use_same_padding(plain)
    assert list(plain.state_dict()) == keys and plain[0].weight is weight and type(plain[1]) is nn.Conv2d
    outputs = -(-length // 2)
    needed = 2 * (outputs - 1) + 3 - length
    wide = torch.zeros(2, 4, length + needed, length + needed)
    before = needed // 2
    wide[:, :, before : before + length, before : before + length] = images
    expected = torch.stack(
        [
            F.conv2d(wide[:, :, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3], weight, groups=groups)[:, :, 0, 0]
            for y in range(outputs)
            for x in range(outputs)
        ],
        dim=-1,
    ).unflatten(-1, (outputs, outputs))
    torch.testing.assert_close(plain[0](images), expected)


@pytest.mark.parametrize("arch", ["vgg", "resnet", "inception"])
def test_same_padding_is_for_tensorflows_weights(arch: str) -> None:
    """Protects from a setting that would do harm: torchvision's weights were trained with padding on both sides."""
    with pytest.raises(UsageError, match=rf"{arch}'s weights were not trained with SAME padding; leave --same_padding"):
        build(replace(CUB.Model.recipe(arch), num_classes=2, same_padding=True))


AROUND = {"mobilenet": [0.25, 0.5, 0.25], "inception": [0.25, 0.5, 0.25], "vgg": [0, 0.5, 0.5], "resnet": [0, 0.5, 0.5]}


@pytest.mark.parametrize("arch", AROUND)
def test_aligned_pooling_looks_where_the_class_maps_look(arch: str) -> None:
    """Protects L_frg's aligned mask, against sums by hand; VGG16's and ResNet50's blocks are right as they are."""
    model = CUB.Model.build(arch, 2, False).double()
    mask = torch.rand(1, 1, 12, 12, dtype=torch.float64)
    maps = torch.rand(1, 2, 6, 6, dtype=torch.float64)
    expected = torch.zeros(6, 6, dtype=torch.float64)
    for y in range(6):
        for x in range(6):
            weights = torch.zeros(12, 12, dtype=torch.float64)
            for dy, by in enumerate(AROUND[arch], start=2 * y - 1):
                for dx, bx in enumerate(AROUND[arch], start=2 * x - 1):
                    if dy >= 0 and dx >= 0:
                        weights[dy, dx] = by * bx
            expected[y, x] = (weights * mask[0, 0]).sum() / weights.sum()
    found = model.masked_logits(maps, mask, "aligned")
    torch.testing.assert_close(found, (maps * expected).mean(dim=(2, 3)))
    if arch in ("vgg", "resnet"):
        torch.testing.assert_close(found, model.masked_logits(maps, mask))


def test_place_map_by_hand() -> None:
    """Protects the drawing: values stand at their pixels, lines between them, the ends go on."""
    placed = place_map([[0.0, 4.0, 2.0], [0.0, 4.0, 2.0]], 12, first=1, stride=4)
    assert placed.shape == (12, 12) and placed.dtype == np.float32
    assert (placed == placed[0]).all()
    assert placed[0].tolist() == [0, 0, 1, 2, 3, 4, 3.5, 3, 2.5, 2, 2, 2]


@pytest.mark.parametrize("shape", [(28, 28), (14, 14), (5, 7)])
def test_place_map_is_bilinear_sampling(shape: tuple[int, int]) -> None:
    """Protects the drawing on random maps: half-pixel grids give OpenCV's upsampling, others a slow interpolation."""
    rng = np.random.default_rng(0)
    values, size = rng.random(shape, dtype=np.float32), 70
    if shape[0] == shape[1]:
        stride = size / shape[0]
        np.testing.assert_allclose(
            place_map(values, size, stride / 2 - 0.5, stride), upsample_map(values, size), atol=1e-5
        )
    for first, stride in ((0, 8), (6, 8), (3.5, 4)):
        placed = place_map(values, size, first, stride)
        for y, x in rng.integers(0, size, (60, 2)):
            rows, columns = ((p - first) / stride for p in (y, x))
            rows, columns = np.clip(rows, 0, shape[0] - 1), np.clip(columns, 0, shape[1] - 1)
            top, left = min(int(rows), shape[0] - 2), min(int(columns), shape[1] - 2)
            a, b = rows - top, columns - left
            expected = (1 - a) * ((1 - b) * values[top, left] + b * values[top, left + 1])
            expected += a * ((1 - b) * values[top + 1, left] + b * values[top + 1, left + 1])
            assert placed[y, x] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_protocols_draw_aligned_maps(protocol) -> None:
    """Protects --align_maps: a spot that the net sees at a pixel is drawn there, and only if asked."""
    model = CUB.Model.build("mobilenet", 2)
    spot = np.zeros((28, 28), np.float32)
    spot[10, 12] = 1
    grid = grid_of(model, MapKind("bas", 1))
    aligned, stretched = protocol.score_map(spot, 224, grid), protocol.score_map(spot, 224)
    assert np.unravel_index(aligned.argmax(), aligned.shape) == (80, 96)
    left, top, right, bottom = protocol.boxes(aligned, (0.5,))[0]
    assert ((left + right - 1) / 2, (top + bottom - 1) / 2) == pytest.approx((96, 80), abs=0.5)
    left, top, right, bottom = protocol.boxes(stretched, (0.5,))[0]
    assert ((left + right - 1) / 2, (top + bottom - 1) / 2) == pytest.approx((99.5, 83.5), abs=0.5)
    assert grid_of(model, MapKind("center")) is None
