"""Protects the ImageNet initialisation: each source fills the trunk and nothing else, whatever does not fit is refused.

The files have the true keys and shapes, taken from torchvision's models, with values of our own; nothing is downloaded.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision.models
from torch import Tensor, nn

import CUB.Model
import ILSVRC.Model
from tests.test_checkpoints import thin, unset
from utils.data.images import read_image
from utils.data.transforms import evaluation_transform
from utils.models.bas import BAS
from utils.models.pretrained import load_imagenet
from utils.system.errors import UserError

ROOT = Path(__file__).parents[1]
BUILDERS = {
    "vgg": torchvision.models.vgg16,
    "resnet": torchvision.models.resnet50,
    "inception": torchvision.models.inception_v3,
}
# What torchvision's models have and BAS does not: the number of tensors that are no counters, and their parts.
LEFT_OUT = {
    "vgg": "left out 6 of classifier;",
    "resnet": "left out 2 of fc;",
    "inception": "left out 14 of AuxLogits, fc;",
}
WEIGHTS_IN_TRUNK = {"vgg": 26, "mobilenet": 135, "resnet": 265, "inception": 470}


def torchvision_state(arch: str) -> dict[str, Tensor]:
    """The entries of torchvision's file."""
    options = {"init_weights": False} if arch == "inception" else {}
    with torch.device("meta"):
        model = BUILDERS[arch](weights=None, **options)
    return {key: thin(key, list(value.shape)) for key, value in model.state_dict().items()}


def sequential_state() -> dict[str, Tensor]:
    """The authors' MobileNetV1: a bare sequential net, written before batch normalisation counted its batches."""
    channels = [32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]
    shapes: dict[str, list[int]] = {}

    def add(entry: int, layer: int, convolution: list[int]) -> None:
        shapes[f"{entry}.{layer}.weight"] = convolution
        for name in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{entry}.{layer + 1}.{name}"] = [convolution[0]]

    add(0, 0, [32, 3, 3, 3])
    for entry in range(1, len(channels)):
        before, after = channels[entry - 1 : entry + 1]
        add(entry, 0, [before, 1, 3, 3])
        add(entry, 3, [after, before, 1, 1])
    return {key: thin(key, shape) for key, shape in shapes.items()}


def build(models, arch: str) -> tuple[BAS, dict[str, Tensor]]:
    """A model of zeros, and the heads that it has before loading."""
    model = unset("CUB" if models is CUB.Model else "ILSVRC", arch, 3)
    for key, value in model.state_dict().items():
        value.copy_(thin(key, list(value.shape)) if is_head(key) else torch.zeros(()))
    return model, {key: value.clone() for key, value in model.state_dict().items() if is_head(key)}


def is_head(key: str) -> bool:
    return key.startswith(("classifier_cls.", "classifier.", "classifier_loc."))


def assert_loaded(model: BAS, heads: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """The trunk holds the expected values, all of them; heads are as before and counters at zero."""
    trunk = {}
    for key, value in model.state_dict().items():
        if is_head(key):
            assert torch.equal(value, heads[key]), key
        elif key.endswith("num_batches_tracked"):
            assert value == 0
        else:
            trunk[key] = value
    assert trunk.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in trunk.items())


def write(state: object, path: Path) -> str:
    torch.save(state, path)
    return str(path)


# --- torchvision's names


@pytest.mark.parametrize("models", [CUB.Model, ILSVRC.Model], ids=["CUB", "ILSVRC"])
@pytest.mark.parametrize("arch", ["resnet", "inception"])
def test_torchvision_file_by_name(tmp_path, models, arch):
    """ResNet50 and InceptionV3: each entry under its own name, the classifier and the auxiliary head left out."""
    state = torchvision_state(arch)
    model, heads = build(models, arch)
    report = load_imagenet(model, write(state, tmp_path / "x.pth"))
    unused = ("fc.", "AuxLogits.")
    expected = {k: v for k, v in state.items() if not k.startswith(unused) and not k.endswith("num_batches_tracked")}
    assert len(expected) == WEIGHTS_IN_TRUNK[arch]
    assert_loaded(model, heads, expected)
    assert f"{len(expected)} tensors from {tmp_path / 'x.pth'}, by name, {LEFT_OUT[arch]}" in report
    assert report.endswith("both heads start at random")


def test_torchvision_vgg_by_order(tmp_path):
    """VGG16: the k-th convolution of `features` is the k-th of conv1_1 ... conv5_3, weights and biases."""
    state = torchvision_state("vgg")
    model, heads = build(CUB.Model, "vgg")
    report = load_imagenet(model, write(state, tmp_path / "x.pth"))
    # torchvision's positions of the convolutions, between ReLUs and pools.
    positions = {1: (0, 2), 2: (5, 7), 3: (10, 12, 14), 4: (17, 19, 21), 5: (24, 26, 28)}
    names = {
        f"conv{block}_{index}.{kind}": f"features.{position}.{kind}"
        for block, members in positions.items()
        for index, position in enumerate(members, start=1)
        for kind in ("weight", "bias")
    }
    assert_loaded(model, heads, {ours: state[theirs] for ours, theirs in names.items()})
    assert "26 tensors" in report and "renamed in order (features.0.weight -> conv1_1.weight, ...)" in report
    assert LEFT_OUT["vgg"] in report


# --- MobileNetV1


def test_shipped_mobilenet_by_name():
    """The file in this repository fills the whole trunk under our own names."""
    model, heads = build(CUB.Model, "mobilenet")
    report = load_imagenet(model)
    assert "135 tensors" in report and "by name" in report
    shipped = torch.load(ROOT / "utils/weights/mobilenet_v1_imagenet.pth", weights_only=True)
    assert_loaded(model, heads, {k: v.float() for k, v in shipped.items() if not k.endswith("num_batches_tracked")})


def test_shipped_mobilenet_knows_photographs():
    """Trained weights in the right order meet the statistics that they were trained with: seen on six photographs."""
    model = build(CUB.Model, "mobilenet")[0].train()
    load_imagenet(model)
    agreement = {}

    def compare(name: str, module: nn.BatchNorm2d, inputs: Tensor) -> None:
        stored = torch.stack([module.running_mean, inputs.mean(dim=(0, 2, 3))])
        agreement[name] = torch.corrcoef(stored)[0, 1].item()

    for name, module in model.model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
            module.register_forward_hook(lambda module, inputs, _, name=name: compare(name, module, inputs[0]))
    paths = sorted((ROOT / "utils/demo/pictures/animals").glob("*/*.webp"))[::10][:6]
    images = torch.stack([evaluation_transform(128)(read_image(path)) for path in paths])
    with torch.no_grad():
        model.model(images)
    assert len(agreement) == 27
    # The colours of six pictures are no average of ImageNet's; past the first layer the means agree.
    assert min(value for name, value in agreement.items() if name != "0.1") > 0.9


@pytest.mark.parametrize("prefix", ["", "module."])
def test_authors_mobilenet_by_order(tmp_path, prefix):
    """The bare sequential net: entry i, layer j is our model.i.j; the report says that names were changed."""
    state = sequential_state()
    model, heads = build(ILSVRC.Model, "mobilenet")
    report = load_imagenet(model, write({prefix + k: v for k, v in state.items()}, tmp_path / "x.pth"))
    assert_loaded(model, heads, {f"model.{key}": value for key, value in state.items()})
    assert "135 tensors" in report and "renamed in order (0.0.weight -> model.0.0.weight, ...)" in report
    assert "nothing left out" in report


@pytest.mark.parametrize(
    ("key", "shape", "words"),
    [
        ("7.3.weight", [512, 512, 3, 3], r"model\.7\.3\.weight \[512, 512, 3, 3\] instead of \[512, 512, 1, 1\]$"),
        ("12.4.bias", [512], r"model\.12\.4\.bias \[512\] instead of \[1024\]$"),
    ],
)
def test_order_is_checked(tmp_path, key, shape, words):
    """One shape out of line and the whole file is refused: an order that is merely assumed would load nonsense."""
    model, heads = build(CUB.Model, "mobilenet")
    state = {**sequential_state(), key: torch.zeros(shape)}
    with pytest.raises(UserError, match=rf"--pretrained: .*x\.pth does not fit this backbone: other shape: {words}"):
        load_imagenet(model, write(state, tmp_path / "x.pth"))
    assert_untouched(model, heads)


def test_layers_in_another_order(tmp_path):
    """Two layers swapped give shapes that do not follow the trunk's."""
    model, heads = build(CUB.Model, "mobilenet")
    entries = list(sequential_state().items())
    with pytest.raises(UserError, match=r"does not fit this backbone: other shape: model\.0\.0\.weight"):
        load_imagenet(model, write(dict(reversed(entries)), tmp_path / "x.pth"))
    with pytest.raises(UserError, match=r"does not fit this backbone: missing: model\.0\.0\.weight .* unexpected: 0"):
        load_imagenet(model, write(dict(entries[:-1]), tmp_path / "x.pth"))
    assert_untouched(model, heads)


def assert_untouched(model: BAS, heads: dict[str, Tensor]) -> None:
    for key, value in model.state_dict().items():
        assert torch.equal(value, heads[key]) if is_head(key) else not value.any(), key


# --- what other programs wrap around the weights, and the weights of a BAS model


@pytest.mark.parametrize(
    ("wrap", "words"),
    [
        (lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}, "best_acc1": torch.tensor(70.0)},
         "(its 'state_dict', names without 'module.')"),
        (lambda state: {"model": state, "epoch": 3}, "(its 'model')"),
        (lambda state: {f"_orig_mod.{k}": v for k, v in state.items()}, "(names without '_orig_mod.')"),
    ],
)  # fmt: skip
def test_wrapped_imagenet_weights(tmp_path, wrap, words):
    """Protects weights as training scripts save them: all arrive, and the line tells what was taken off."""
    state = torchvision_state("resnet")
    model, heads = build(CUB.Model, "resnet")
    report = load_imagenet(model, write(wrap(state), tmp_path / "x.pth"))
    expected = {k: v for k, v in state.items() if not k.startswith("fc.") and not k.endswith("num_batches_tracked")}
    assert_loaded(model, heads, expected)
    assert f"265 tensors from {tmp_path / 'x.pth'} {words}, by name, left out 2 of fc;" in report


def bas_state(models, arch: str, num_classes: int, tap: str | None = None) -> dict[str, Tensor]:
    """The entries of a trained BAS model, each value unlike what a new model has there."""
    with torch.device("meta"):
        model = models.build(arch, num_classes, True, tap)
    return {key: thin(f"trained {key}", list(value.shape)) for key, value in model.state_dict().items()}


def is_trained(model: BAS, start: str) -> bool:
    """Whether all entries whose names begin so are those of the file; none of them may be, but no part of them."""
    entries = {key: value for key, value in model.state_dict().items() if key.startswith(start)}
    same = {torch.equal(value, thin(f"trained {key}", list(value.shape))) for key, value in entries.items()}
    assert entries and len(same) == 1
    return same.pop()


@pytest.mark.parametrize("wrap", [dict, lambda s: {"model": s, "best_thr": 0.3}, lambda s: {"state_dict": s, "e": 1}])
@pytest.mark.parametrize(
    ("num_classes", "tap", "kept", "words"),
    [
        (3, None, {"classifier_cls", "classifier_loc"}, "; kept: classifier head, generator"),
        (3, "model.5", {"classifier_cls"}, "; kept: classifier head; at random, for the shapes differ: generator"),
        (200, None, set(), "; at random, for the shapes differ: classifier head, generator"),
    ],
)
def test_bas_model_to_go_on_from(tmp_path, num_classes, tap, kept, words, wrap):
    """Protects fine-tuning: the trunk arrives, a head where it fits, whole or not at all; the line says which."""
    model, heads = build(CUB.Model, "mobilenet")
    path = tmp_path / "x.pth"
    report = load_imagenet(model, write(wrap(bas_state(CUB.Model, "mobilenet", num_classes, tap)), path))
    assert is_trained(model, "model.0.0.") and is_trained(model, "model.13.3.")
    for head in ("classifier_cls", "classifier_loc"):
        assert is_trained(model, head) == (head in kept)
        if head not in kept:
            assert all(torch.equal(model.state_dict()[key], heads[key]) for key in heads if key.startswith(head))
    assert report.startswith(f"BAS weights: 135 tensors of the trunk from {path}") and words in report
    assert f"mobilenet for {num_classes} classes" in report


def test_released_file_of_the_other_data_set(tmp_path):
    """Protects from ILSVRC's to CUB's InceptionV3, whose head has another name: stale copies go, the head is kept."""
    state = {f"module.{key}": value for key, value in bas_state(ILSVRC.Model, "inception", 3).items()}
    state["module.Mixed_7a_copy.x"] = torch.full((1,), float("nan"))
    model, _ = build(CUB.Model, "inception")
    report = load_imagenet(model, write(state, tmp_path / "x.pth"))
    assert report.endswith("; kept: classifier head, generator")
    ours = model.state_dict()
    for key, value in bas_state(ILSVRC.Model, "inception", 3).items():
        if key.startswith("classifier_cls."):
            assert torch.equal(ours[key.replace("classifier_cls.", "classifier.")], value)


@pytest.mark.parametrize(
    ("arch", "change", "words"),
    [
        ("vgg", {}, r"x\.pth holds vgg for 3 classes, not mobilenet; give --arch vgg or another file"),
        ("mobilenet", {"model.3.1.more": torch.zeros(1)}, r"does not fit this backbone: unexpected: model\.3\.1\.more"),
        ("mobilenet", {"model.3.1.bias": torch.full((128,), float("inf"))}, r"infinite weights in model\.3\.1\.bias"),
        ("mobilenet", {"model.3.1.bias": torch.zeros(7)}, r"model\.3\.1\.bias \[7\] instead of \[128\]"),
    ],
)
def test_bas_model_that_does_not_fit(tmp_path, arch, change, words):
    """Protects the training: another backbone, or a trunk that is not whole, is one sentence, and nothing is loaded."""
    model, heads = build(CUB.Model, "mobilenet")
    with pytest.raises(UserError, match=words):
        load_imagenet(model, write({**bas_state(CUB.Model, arch, 3), **change}, tmp_path / "x.pth"))
    assert_untouched(model, heads)


# --- what must not load


@pytest.mark.parametrize(
    ("arch", "other", "words"),
    [
        ("resnet", "vgg", r"missing: conv1\.weight \[64, 3, 7, 7\].* unexpected: features\.0\.weight \[64, 3, 3, 3\]"),
        ("inception", "resnet", r"missing: Conv2d_1a_3x3\.conv\.weight .* unexpected: conv1\.weight \[64, 3, 7, 7\]"),
        ("vgg", "inception", r"missing: conv1_1\.weight .* unexpected: Conv2d_1a_3x3\.conv\.weight \[32, 3, 3, 3\]"),
        ("mobilenet", "vgg", r"missing: model\.0\.0\.weight .* and 131 more; unexpected: features\.0\.weight"),
    ],
)
def test_file_of_another_backbone(tmp_path, arch, other, words):
    """The first keys that differ are named, how many more there are is counted, and the model stays as it was."""
    model, heads = build(CUB.Model, arch)
    with pytest.raises(UserError, match=rf"--pretrained: .*x\.pth does not fit this backbone: {words}"):
        load_imagenet(model, write(torchvision_state(other), tmp_path / "x.pth"))
    assert_untouched(model, heads)


def test_imagenet_weights_that_are_not_finite(tmp_path):
    """A NaN is named before it ruins a training."""
    state = sequential_state()
    state["5.1.bias"] = torch.full((256,), float("nan"))
    with pytest.raises(UserError, match=r"--pretrained: .*x\.pth holds NaN or infinite weights in model\.5\.1\.bias"):
        load_imagenet(build(CUB.Model, "mobilenet")[0], write(state, tmp_path / "x.pth"))
    for value, words in ((torch.zeros(256, dtype=torch.int32), "int32"), (torch.zeros(256, device="meta"), "without")):
        state["5.1.bias"] = value
        with pytest.raises(UserError, match=rf"--pretrained: .*x\.pth holds .*{words}.* in model\.5\.1\.bias"):
            load_imagenet(build(CUB.Model, "mobilenet")[0], write(state, tmp_path / "x.pth"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, r"there is no .*x\.pth"),
        (b"<html>", r"x\.pth is a web page"),
        (b"", r"x\.pth cannot be read"),
    ],
)
def test_unreadable_file(tmp_path, content, words):
    """Missing, a web page, empty: the same sentences as for checkpoints."""
    if content is not None:
        (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(UserError, match=words):
        load_imagenet(build(CUB.Model, "mobilenet")[0], str(tmp_path / "x.pth"))
    with pytest.raises(UserError, match=r"--pretrained .*list\.pth: it holds no state dict"):
        load_imagenet(build(CUB.Model, "mobilenet")[0], write([1, 2], tmp_path / "list.pth"))


# --- torchvision's download


@pytest.mark.parametrize(
    ("arch", "name"),
    [("vgg", "vgg16-397923af.pth"), ("resnet", "resnet50-0676ba61.pth"), ("inception", "inception_v3_google-0cc3c7bd")],
)
def test_no_network(tmp_path, monkeypatch, arch, name):
    """Without network, one sentence: what was asked for, why it failed, and both ways on."""
    asked = []

    def fail(url, *_, **__):
        asked.append(url)
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    model, heads = build(CUB.Model, arch)
    with pytest.raises(UserError) as caught:
        load_imagenet(model)
    assert len(asked) == 1 and name in asked[0]
    words = (
        rf"the ImageNet weights {re.escape(asked[0])} are not available \(.*not known.*\); .*--pretrained FILE.*none"
    )
    assert re.fullmatch(f"{words}.*", str(caught.value))
    assert_untouched(model, heads)


@pytest.mark.parametrize("content", [b"", b"half a legacy file", b"PK\x03\x04 half a zip"])
def test_damaged_file_in_torchs_cache(tmp_path, monkeypatch, content):
    """What an earlier run left in torch's cache may be no checkpoint: a sentence that names the weights, too."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / "resnet50-0676ba61.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(content)
    with pytest.raises(UserError, match=r"the ImageNet weights .*resnet50-0676ba61\.pth .*--pretrained FILE"):
        load_imagenet(build(CUB.Model, "resnet")[0])


def test_none_starts_from_random_values():
    """`none` reads nothing and says so."""
    model, heads = build(CUB.Model, "resnet")
    assert "none" in load_imagenet(model, "none")
    assert_untouched(model, heads)
