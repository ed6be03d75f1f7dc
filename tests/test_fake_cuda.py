"""The step and the evaluation on CUDA, as far as a machine without one can tell: devices, types, shapes, layouts.

Fake tensors stand for those of a GPU: no arithmetic is done, but an operation that mixes devices or types, asks the
host for a value, or finds the optimiser's fused kernel unusable ends a test. PyTorch's backward pass wants a real
device: here every weight that it would reach is given a gradient instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode

from train import DATASETS
from utils.data import transforms
from utils.data.training import TrainingBatch
from utils.evaluation.kinds import KINDS, MapKind
from utils.evaluation.maps import label_map_extremes, make_maps
from utils.evaluation.run import cut_crops
from utils.evaluation.spec import build_spec
from utils.models import pooling
from utils.models.bas import BAS, rank_classes
from utils.models.recipe import Recipe
from utils.models.registry import ARCHS, build
from utils.runs.settings import Engine
from utils.segmentation.kinds import KINDS as SEGMENTATION_KINDS
from utils.segmentation.maps import make_maps as make_segmentation_maps
from utils.system.devices import choose_device
from utils.training.engine import _step, build_trainer

CUDA = torch.device("cuda", 0)
SIDE, BATCH = 64, 4
# Name -> changes of recipe and engine.
VARIANTS: dict[str, tuple[dict, dict]] = {
    "float32": ({}, {}),
    "bfloat16": ({}, {"amp": "bf16"}),
    "float16": ({}, {"amp": "fp16"}),
    "accumulation": ({}, {"grad_accum": 2}),
    "NCHW": ({}, {"channels_last": False}),
    "second paper": ({"final_relu": False, "name": "ijcv"}, {}),
    "warm-up": ({"warmup_epochs": 1}, {}),
    "cross-entropy": ({"generator_loss": "cross_entropy"}, {}),
    "trainable f2": ({"frozen_f2": False}, {}),
    "aligned masks": ({"mask_pooling": "aligned"}, {}),
    "clipped gradients": ({"max_grad_norm": 1.0}, {}),
}


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorMode]:
    """Tensors are fake, and autocast takes CUDA for being there."""
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *_: True)
    monkeypatch.setattr(torch.Tensor, "backward", reach_weights)
    monkeypatch.setattr(torch.autograd, "grad", lambda output, inputs: (torch.zeros_like(inputs),))  # of Grad-CAM
    monkeypatch.setattr(torch, "_fused_sgd_", take_fused_step)
    for kept in (transforms._constants, pooling.area_weights, pooling.block_weights):
        kept.cache_clear()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode
    for kept in (transforms._constants, pooling.area_weights, pooling.block_weights):
        kept.cache_clear()  # of fakes


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_device_has_its_number(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Protects every command on a GPU: PyTorch's own check of what becomes the current device, which wants a number."""
    number = torch.device(name).index or 0
    there = SimpleNamespace(device=torch.device("cuda", number), item=lambda: 0.0)
    chosen: list[int] = []
    monkeypatch.setattr(torch, "zeros", lambda *_, device: there)
    monkeypatch.setattr(torch._C, "_cuda_setDevice", chosen.append, raising=False)
    assert choose_device(name) == torch.device("cuda", number) and chosen == [number]


def reach_weights(loss: torch.Tensor) -> None:
    """Gives a gradient to every leaf of a loss's graph that wants one."""
    assert loss.grad_fn is not None and loss.dim() == 0
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        # The CUDA kernel of this one is wrong with padding, in channels-last memory.
        assert node.name() != "AvgPool2DBackward0" or not any(node._saved_padding)
        if (leaf := getattr(node, "variable", None)) is not None:
            leaf.grad = torch.zeros_like(leaf)
        waiting += [following for following, _ in node.next_functions if following is not None]


def take_fused_step(*groups: list[torch.Tensor], **settings: object) -> None:
    """What the kernel asks for: weights, gradients and momenta of one device, type and layout each."""
    assert len(groups) == 3
    for parameter, gradient, momentum in zip(*groups, strict=True):
        for other in (gradient, momentum):
            assert (other.device, other.dtype, other.stride()) == (
                parameter.device,
                parameter.dtype,
                parameter.stride(),
            )


def on_cuda(recipe: Recipe, engine: Engine) -> BAS:
    """What `place` gives there; fake parameters cannot be moved, so that they are made there and laid out by hand."""
    with CUDA:
        model = build(recipe)
    model.channels_last = engine.channels_last is not False
    layout = torch.channels_last if model.channels_last else torch.contiguous_format
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return model


# The data sets' models differ in their numbers of classes.
PAIRS = [("CUB", variant) for variant in VARIANTS] + [("ILSVRC", "float32"), ("ILSVRC", "bfloat16")]
PAIRS += [("VOC", variant) for variant in ("float32", "bfloat16", "accumulation", "warm-up")]  # several labels


@pytest.mark.parametrize(("dataset", "variant"), PAIRS)
@pytest.mark.parametrize("arch", ARCHS)
def test_training_step(fake_cuda: FakeTensorMode, dataset: str, arch: str, variant: str) -> None:
    """Protects training on CUDA: a whole step of the trainer, bytes to weights, without a value for the host."""
    of_recipe, of_engine = VARIANTS[variant]
    recipe, engine = replace(DATASETS[dataset].recipe(arch), **of_recipe), Engine(**of_engine)
    model = on_cuda(recipe, engine).train()
    trainer = build_trainer(model, None, (), recipe, engine, CUDA)
    batch = TrainingBatch(
        images=torch.empty(BATCH, SIDE, SIDE, 3, dtype=torch.uint8).permute(0, 3, 1, 2),
        labels=torch.empty(BATCH, dtype=torch.int64),
        indices=torch.arange(BATCH),
        replaced=(),
        positives=torch.zeros(BATCH, model.num_classes, dtype=torch.bool) if dataset == "VOC" else None,
    )
    rows = _step(trainer, trainer.objective(), batch)
    assert len(rows) == engine.grad_accum
    shown = {name: value for row in rows for name, value in row.shown.items()}
    assert all(value.device == CUDA and value.dtype is torch.float32 for value in shown.values()), shown
    is_warmup = variant == "warm-up"
    assert ("bas" in shown) != is_warmup
    for name, parameter in model.named_parameters():
        assert parameter.device == CUDA and parameter.dtype is torch.float32, name
        is_left = name.endswith("bias") and not recipe.train_biases
        trained = not is_left and not (is_warmup and name.startswith("classifier_loc"))
        assert (parameter.grad is not None) == trained, name
        assert parameter.grad is None or parameter.grad.device == CUDA


@pytest.mark.parametrize("plain_heads", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_one_layout_throughout(channels_last: bool, plain_heads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects from copies between layouts: the head takes features as the trunk gives them, 1 x 1 kernels too; and the
    layout that a device has by itself.
    """
    recipe = replace(DATASETS["CUB"].recipe("mobilenet"), final_relu=False, plain_heads=plain_heads)
    model = build(recipe).to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = torch.randn(2, 3, SIDE, SIDE).contiguous(memory_format=layout)
    assert model.f2(model.f1(images)).is_contiguous(memory_format=layout)
    monkeypatch.setattr(BAS, "to", lambda *_, **__: None)  # there is no such device
    assert model.place(CUDA).channels_last and not model.place(torch.device("meta")).channels_last


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize(("dataset", "ten_crops"), [("CUB", False), ("CUB", True), ("ILSVRC", True)])
@pytest.mark.parametrize("arch", ARCHS)
def test_evaluation(fake_cuda: FakeTensorMode, dataset: str, arch: str, ten_crops: bool, amp: bool) -> None:
    """Protects evaluation on CUDA: every kind of map, in both precisions."""
    recipe = replace(DATASETS[dataset].recipe(arch), resize_size=SIDE + 8, crop_size=SIDE, top_k=10)
    model = on_cuda(recipe, Engine()).eval()
    spec = build_spec(recipe, kinds=KINDS, ten_crops=ten_crops)
    images = torch.empty(2, SIDE + 8, SIDE + 8, 3, dtype=torch.uint8).permute(0, 3, 1, 2).to(CUDA)
    labels = torch.empty(2, dtype=torch.int64, device=CUDA)
    with torch.autocast("cuda", enabled=amp), torch.no_grad():
        encoding = model.encode_crops(*cut_crops(images, spec))
        maps = make_maps(model, encoding, (*spec.thresholds, MapKind("bas", 1), MapKind("bas", 5)), labels)
        extremes = label_map_extremes(model, encoding, labels, maps)
    best = rank_classes(encoding.logits.float().softmax(dim=-1).mean(dim=1), 5)
    assert encoding.features.dtype is (torch.float16 if amp else torch.float32)
    assert len(maps) == len(KINDS) + 2
    for values in (*maps.values(), extremes, best):
        assert values.device == CUDA and len(values) == 2
    assert maps[MapKind("bas", 1)].dtype is torch.float32


@pytest.mark.parametrize("kind", SEGMENTATION_KINDS)
@pytest.mark.parametrize("arch", ARCHS)
def test_maps_of_segmentation(fake_cuda: FakeTensorMode, arch: str, kind: str) -> None:
    """Protects `python -m utils.segmentation maps` on CUDA: a picture's maps, up to the copy to the host."""
    recipe = DATASETS["VOC"].recipe(arch)
    model = on_cuda(recipe, Engine()).eval()
    picture = Image.new("RGB", (SIDE + 10, SIDE))
    maps = make_segmentation_maps(model, picture, (2, 14), CUDA, kind)
    assert [list(value.shape) for value in maps] == [[2, 16, 19], [2, SIDE, SIDE + 10]]
    assert all(value.device == CUDA and value.dtype is torch.float32 for value in maps)
