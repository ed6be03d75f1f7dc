"""Where the generator taps a backbone: shapes, the same network behind every tap, gradients, and inference."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import CUB.Model
import ILSVRC.Model
from tests.commands import SIZES, WHOLE, assert_one_sentence, make_cub, read_json, run_inference
from tests.reference_weights import draw
from utils.models.bas import BAS
from utils.models.losses import bas_losses
from utils.models.registry import taps_in_words
from utils.system.errors import UsageError
from utils.training.objective import training_pass

# tap -> F's (channels, side) for pictures of 224 pixels; the paper's first.
TAPS = {
    "vgg": {"conv4_3": (512, 28), "conv3_3": (256, 56), "conv5_3": (512, 14)},
    "mobilenet": {"model.11": (512, 28), "model.3": (128, 56), "model.5": (256, 28), "model.13": (1024, 14)},
    "resnet": {"layer3": (1024, 28), "layer1": (256, 56), "layer2": (512, 28), "layer4": (2048, 14)},
    "inception": {"Mixed_6e": (768, 28), "Mixed_5d": (288, 28), "Mixed_7c": (2048, 14)},
}
ALL = [(arch, tap) for arch, taps in TAPS.items() for tap in taps]
RECIPE = CUB.Model.recipe("resnet")


@pytest.mark.parametrize("models", [CUB.Model, ILSVRC.Model], ids=["CUB", "ILSVRC"])
@pytest.mark.parametrize(("arch", "tap"), ALL)
def test_shapes_and_names(models, arch: str, tap: str) -> None:
    """Protects the table of taps and the checkpoints: F's shape at 224 pixels, names that stay."""
    with torch.device("meta"):
        paper, model = models.build(arch), models.build(arch, None, True, tap)
        features = model.f1(torch.zeros(1, 3, 224, 224))
        class_maps = model.f2(features)
        maps = model.classifier_loc(features)
    channels, side = TAPS[arch][tap]
    assert features.shape == (1, channels, side, side) and maps.shape == (1, model.num_classes, side, side)
    assert class_maps.shape == (1, model.num_classes, 14, 14)
    assert (paper.tap, model.tap) == (next(iter(TAPS[arch])), tap) and set(model.taps) == set(TAPS[arch])
    before, after = ({key: value.shape for key, value in net.state_dict().items()} for net in (paper, model))
    assert list(before) == list(after)
    differing = {key for key in before if before[key] != after[key]}
    assert differing == (set() if channels == TAPS[arch][paper.tap][0] else {"classifier_loc.0.weight"})


def make_net(arch: str, tap: str) -> BAS:
    torch.manual_seed(0)
    model = CUB.Model.build(arch, 3, False, tap).double()
    model.head[0], model.head[2] = (  # as deep as the published head, and quick
        torch.nn.Conv2d(model.head[0].in_channels, 6, 3, padding=1).double(),
        torch.nn.Conv2d(6, 6, 3, padding=1).double(),
    )
    model.head[4] = torch.nn.Conv2d(6, 3, 1).double()
    torch.nn.init.uniform_(model.head[4].bias, 0.5, 1.0)
    return model


@pytest.mark.parametrize(("arch", "tap"), ALL)
def test_pass_agrees_with_the_layers_one_by_one(arch: str, tap: str) -> None:
    """Protects every tap: values, gradients and running statistics of a literal pass through the published layers."""
    model = make_net(arch, tap)
    naive, second = copy.deepcopy(model), copy.deepcopy(model).requires_grad_(False)
    images, labels = torch.randn(3, 3, 48, 48, dtype=torch.float64), torch.tensor([0, 2, 1])
    recipe = replace(RECIPE, frg_weight=0.5, area_weight=0.5)
    losses = bas_losses(training_pass(model, images, labels, recipe), labels, recipe)
    losses.total.backward()

    before, after = split_literally(naive, tap), split_literally(second, tap)
    features = run(before[0], images)
    foreground = naive.classifier_loc(features)[torch.arange(3), labels][:, None]
    class_maps = naive.head(run(before[1], features))
    background_maps = second.head(run(after[1], features.detach() * (1 - foreground)))
    factor = features.shape[-1] // class_maps.shape[-1]
    masked = class_maps * F.avg_pool2d(foreground, factor)
    whole = class_maps.mean(dim=(2, 3))[torch.arange(3), labels].detach().clamp(min=0)
    background = background_maps.mean(dim=(2, 3))[torch.arange(3), labels].clamp(min=0)
    bas = torch.where(background >= whole, torch.zeros_like(whole), background / (whole + 1e-8)).mean()
    cls, frg = (F.cross_entropy(maps.mean(dim=(2, 3)), labels) for maps in (class_maps, masked))
    area = foreground.mean()
    expected = (cls, frg, bas, area, cls + 0.5 * frg + bas + 0.5 * area)
    expected[-1].backward()
    for name, ours, theirs in zip(losses._fields, losses, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12, msg=name)
    for (name, ours), theirs in zip(model.named_parameters(), naive.parameters(), strict=True):
        scale = theirs.grad.abs().max().item()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-8 * max(scale, 1e-3), msg=name)
    for ours, theirs in zip(model.buffers(), naive.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def split_literally(model: BAS, tap: str) -> tuple[list, list]:
    """The layers up to the tap and after it, written down from the papers' tables."""
    if model.arch == "vgg":
        names = [f"conv{b}_{i}" for b, n in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, n + 1)]
        layers = {
            name: [*([model.pool] if name.endswith("_1") and name != "conv1_1" else []), getattr(model, name), F.relu]
            for name in names
        }
    elif model.arch == "mobilenet":
        layers = {f"model.{index}": [model.model[index]] for index in range(14)}
    elif model.arch == "resnet":
        layers = {name: [getattr(model, name)] for name in ("layer1", "layer2", "layer3", "layer4")}
        layers["layer1"] = [model.conv1, model.bn1, F.relu, model.maxpool, *layers["layer1"]]
        layers["layer4"] = [torch.nn.MaxPool2d(2), *layers["layer4"]]
    else:
        layers = {name: [child] for name, child in model.named_children() if name.startswith(("Conv2d", "Mixed"))}
        for name in ("Conv2d_3b_1x1", "Mixed_5b"):
            layers[name] = [torch.nn.MaxPool2d(3, 2, 1, ceil_mode=True), *layers[name]]
    end = list(layers).index(tap) + 1
    halves = list(layers.values())[:end], list(layers.values())[end:]
    return tuple([layer for group in half for layer in group] for half in halves)


def run(layers: list, x: torch.Tensor) -> torch.Tensor:
    for layer in layers:
        x = layer(x)
    return x


@pytest.mark.parametrize(("factor", "side"), [(1, 4), (2, 4), (4, 3)])
def test_masked_scores_for_any_size_of_the_map(factor: int, side: int) -> None:
    """Protects L_frg: each cell of A is weighed by the mean of M_fg over the cells above it, cell by cell."""
    torch.manual_seed(0)
    class_maps = torch.randn(2, 3, side, side, dtype=torch.float64)
    foreground = torch.rand(2, 1, side * factor, side * factor, dtype=torch.float64)
    scores = CUB.Model.build("mobilenet", 3).masked_logits(class_maps, foreground)
    for b in range(2):
        for k in range(3):
            cells = [
                class_maps[b, k, y, x]
                * foreground[b, 0, y * factor : (y + 1) * factor, x * factor : (x + 1) * factor].mean()
                for y in range(side)
                for x in range(side)
            ]
            assert scores[b, k].item() == pytest.approx(sum(cells).item() / side**2, rel=1e-12)


def test_unknown_taps_list_the_choices() -> None:
    """Protects --tap: the error names the backbone's own taps, --help all of them with the paper's marked."""
    for arch, taps in TAPS.items():
        with pytest.raises(UsageError, match=f"{arch} has no tap 'conv9'; choose one of ") as error:
            CUB.Model.build(arch, tap="conv9")
        listed = str(error.value).split("choose one of ")[1].split(", ")
        assert set(listed) == set(taps)
        paper = next(iter(taps))
        assert f"{arch}: {', '.join(tap + '*' * (tap == paper) for tap in listed)}" in taps_in_words()


def test_inference_uses_the_tap_of_the_run(tmp_path, capsys) -> None:
    """Protects evaluation: the tap comes from --tap or the run's settings; a misfit is one sentence."""
    data = make_cub(tmp_path / "data", [(3, False, WHOLE)], 5)
    with torch.device("meta"):
        shapes = CUB.Model.build("mobilenet", 5, False, "model.5").state_dict()
    path = tmp_path / "mobilenet0.pth.tar"
    torch.save({key: draw(key, tuple(value.shape)) for key, value in shapes.items()}, path)
    options = ["--arch", "mobilenet", "--data", data, "--checkpoint", path, "--no-tencrop", *SIZES]
    options += ["--json", tmp_path / "r.json"]

    def evaluate(*more: str) -> tuple[str, list]:
        assert run_inference("CUB", *options, *more) == 0
        record = read_json(tmp_path / "r.json")
        return record["settings"]["tap"], record["iou"]

    by_flag = evaluate("--tap", "model.5")
    assert by_flag[0] == "model.5"
    capsys.readouterr()
    assert run_inference("CUB", *options) == 1
    assert_one_sentence(capsys.readouterr().err, str(path), "256 channels", "model.11", "give --tap model.5")
    assert run_inference("CUB", *options, "--tap", "layer3") == 2
    assert_one_sentence(capsys.readouterr().err, "model.3, model.5, model.11, model.13")
    (tmp_path / "settings.json").write_text(json.dumps({"weights": path.name, "recipe": {"tap": "model.5"}}))
    assert evaluate() == by_flag
    assert run_inference("CUB", *options, "--tap", "model.13") == 1
    assert_one_sentence(capsys.readouterr().err, "256 channels", "1024 at its tap model.13", "give --tap model.5")
