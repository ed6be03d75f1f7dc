"""Winograd's convolutions against PyTorch's own: values, gradients, and everything that must not notice them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import CUB.Model
from tests.commands import read_json
from tests.test_training_options import data, figures, newest_state, no_drawing, run, tiny  # noqa: F401
from utils.models import winograd
from utils.models.bas import call_frozen
from utils.models.fold import fold_batch_norm
from utils.models.losses import bas_losses
from utils.models.registry import ARCHS
from utils.models.winograd import WinogradConv2d, use_winograd, winograd_conv2d
from utils.runs.settings import Engine
from utils.training.objective import training_pass

LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 3 x 3 convolution of stride 1 counts as wide, every map as large."""
    monkeypatch.setattr(winograd, "MIN_CHANNELS", 1)
    monkeypatch.setattr(winograd, "MIN_TILES", 1)


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(sum(shape)))


def winograd_layers(model: nn.Module) -> list[str]:
    return [name for name, layer in model.named_modules() if isinstance(layer, WinogradConv2d)]


# --- the function


@pytest.mark.parametrize(
    "inputs",
    [
        (draw(0, 3, 4, 4), draw(6, 3, 3, 3)),
        (draw(2, 0, 4, 4), draw(6, 0, 3, 3)),
        (draw(2, 3, 4, 4), draw(6, 2, 3, 3)),
        (draw(2, 3, 4, 4), draw(6, 3, 3, 3), draw(1)),
        (draw(2, 3, 4, 4), draw(6, 3, 3, 3), draw(6).float()),
        (draw(2, 3, 4, 4).int(), draw(6, 3, 3, 3).int()),
        (draw(2, 3, 4, 4).to("meta"), draw(6, 3, 3, 3)),
    ],
)
def test_what_cannot_be_computed_is_refused(inputs: tuple[Tensor, ...]) -> None:
    """Protects against memory that nothing was written to, silent broadcasting and halves that become 0."""
    with pytest.raises(ValueError, match="fit|float32 or float64 on a CPU"):
        winograd_conv2d(*inputs)


def test_views_and_spread_gradients() -> None:
    """Protects inputs in no layout of their own: a slice, a turned kernel, an expanded gradient. And no second one."""
    maps, weight = (
        draw(3, 8, 9, 10)[:2, ::2, 1:, 2:].requires_grad_(),
        draw(6, 4, 3, 3).transpose(2, 3).requires_grad_(),
    )
    found, expected = winograd_conv2d(maps, weight), F.conv2d(maps, weight, padding=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    pairs = zip(*(torch.autograd.grad(y.sum(), (maps, weight)) for y in (found, expected)), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad(winograd_conv2d(maps, weight).square().sum(), maps, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_threads_have_memory_of_their_own() -> None:
    """Protects two threads that compute at once from writing into one another's tiles."""
    inputs = [(draw(2, 16, 24, 24 + n), draw(16, 16, 3, 3)) for n in range(2)]
    expected = [winograd_conv2d(*pair) for pair in inputs]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            found = list(pool.map(lambda pair: winograd_conv2d(*pair), inputs))
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_layers_with_hooks_stay(everywhere) -> None:
    """Protects whatever hangs on a layer: it is not exchanged for one without."""
    layer = nn.Conv2d(2, 2, 3, padding=1)
    layer.register_forward_hook(lambda *_: None)
    assert winograd_layers(use_winograd(nn.Sequential(layer, nn.Conv2d(2, 2, 3, padding=1)))) == ["1"]


@pytest.mark.parametrize("shape", [(2, 5, 6, 8), (3, 4, 7, 9), (1, 3, 1, 1), (1, 2, 2, 5), (5, 3, 3, 4)])
@pytest.mark.parametrize(("piece", "block"), [(winograd.PIECE, winograd.BLOCK), (1, 1), (3, 100)])
def test_equals_the_direct_convolution(monkeypatch, shape: tuple[int, ...], piece: int, block: int) -> None:
    """Protects values and all gradients, to 1e-12 in float64: odd sides, single pixels, any layout, bias, division."""
    monkeypatch.setattr(winograd, "PIECE", piece)
    monkeypatch.setattr(winograd, "BLOCK", block)
    for of_maps, of_weight, has_bias in product(LAYOUTS, LAYOUTS, (True, False)):
        inputs = [draw(*shape).contiguous(memory_format=of_maps), draw(6, shape[1], 3, 3), draw(6)][: 2 + has_bias]
        inputs[1] = inputs[1].contiguous(memory_format=of_weight)
        inputs = [value.requires_grad_() for value in inputs]
        found, expected = winograd_conv2d(*inputs), F.conv2d(*inputs, padding=1)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        assert found.is_contiguous(memory_format=torch.channels_last)
        gradient = draw(*expected.shape)
        pairs = zip(*(torch.autograd.grad(y, inputs, gradient) for y in (found, expected)), strict=True)
        for ours, theirs in pairs:
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
        assert torch.autograd.grad(winograd_conv2d(*inputs), inputs[1], gradient)[0].stride() == inputs[1].stride()


def test_gradients_by_differences() -> None:
    """Protects the gradients against finite differences."""
    inputs = [draw(2, 3, 5, 4).requires_grad_(), draw(4, 3, 3, 3).requires_grad_(), draw(4).requires_grad_()]
    assert torch.autograd.gradcheck(winograd_conv2d, inputs)


def test_rounding() -> None:
    """Protects the claim on rounding: in float32 forward and both gradients lie within 1e-6 of the exact values."""
    maps, weight = draw(8, 256, 14, 14).relu(), draw(256, 256, 3, 3)
    gradient, found, exact = draw(8, 256, 14, 14), [], []
    for values, convolve, dtype in ((found, winograd_conv2d, torch.float32), (exact, direct, torch.float64)):
        inputs = [maps.to(dtype, copy=True).requires_grad_(), weight.to(dtype, copy=True).requires_grad_()]
        result = convolve(*inputs)
        values += [result.detach(), *torch.autograd.grad(result, inputs, gradient.to(dtype))]
    for ours, theirs in zip(found, exact, strict=True):
        assert 1e-8 < float((ours - theirs).norm() / theirs.norm()) < 1e-6


def direct(maps: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(maps, weight, padding=1)


def test_earlier_results_stay() -> None:
    """Protects results from the memory that calls share: a second call of other sizes leaves the first one's alone."""
    first = [draw(2, 3, 6, 6).requires_grad_(), draw(4, 3, 3, 3).requires_grad_()]
    before = winograd_conv2d(*first)
    values, (gradient,) = before.detach().clone(), torch.autograd.grad(before.sum(), first[:1], retain_graph=True)
    kept = gradient.clone()
    second = [draw(3, 5, 7, 9).requires_grad_(), draw(7, 5, 3, 3).requires_grad_()]
    winograd_conv2d(*second).sum().backward()
    assert before.equal(values) and gradient.equal(kept)
    with torch.inference_mode():
        winograd_conv2d(draw(9, 9, 9, 9), draw(9, 9, 3, 3))  # takes more memory, which training then shares
    winograd_conv2d(*second).sum().backward()
    assert winograd_conv2d(*first).equal(values)


def test_only_what_is_asked_for() -> None:
    """Protects memory and time: nothing is kept without gradients, and with frozen kernels no map is."""
    kept = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    maps, weight = draw(2, 3, 4, 4), draw(5, 3, 3, 3)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        assert winograd_conv2d(maps, weight).grad_fn is None and not kept
        winograd_conv2d(maps.requires_grad_(), weight).sum().backward()
        assert kept == [weight.shape] and weight.grad is None
        kept.clear()
        winograd_conv2d(maps.detach(), weight.requires_grad_()).sum().backward()
        assert sorted(kept) == sorted([maps.shape, weight.shape]) and weight.grad is not None


@pytest.mark.parametrize(
    "shapes", [((3, 4, 4), (5, 3, 3, 3)), ((1, 2, 4, 4), (5, 3, 3, 3)), ((1, 3, 4, 4), (5, 3, 5, 5))]
)
def test_shapes_that_do_not_fit(shapes: tuple[tuple[int, ...], ...]) -> None:
    """Protects callers from silent nonsense."""
    with pytest.raises(ValueError, match="do not fit together"):
        winograd_conv2d(*(draw(*shape) for shape in shapes))


def test_other_devices() -> None:
    """Protects callers on other devices."""
    with pytest.raises(ValueError, match="on a CPU"):
        winograd_conv2d(draw(1, 3, 4, 4).to("meta"), draw(5, 3, 3, 3).to("meta"))


# --- the layer


def test_which_layers_fit() -> None:
    """Protects all other convolutions: only wide 3 x 3 ones of stride 1 and padding 1 are replaced."""
    wide = {"in_channels": 256, "out_channels": 256, "kernel_size": 3, "padding": 1}
    others = [{"stride": 2}, {"padding": 0}, {"dilation": 2}, {"groups": 2}, {"kernel_size": 1}, {"in_channels": 128}]
    others += [{"out_channels": 128}, {"padding_mode": "reflect"}, {"padding": "same"}]
    model = nn.Sequential(*(nn.Conv2d(**{**wide, **other}, device="meta") for other in [{}, *others, {"bias": False}]))
    assert winograd_layers(use_winograd(model)) == ["0", str(len(others) + 1)]
    assert model[0].bias is not None and model[-1].bias is None


def test_where_it_applies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects evaluation, half precision, other types, small maps, the compiler: the layer is PyTorch's own there."""
    layer = use_winograd(nn.Sequential(nn.Conv2d(256, 256, 3, padding=1)))[0]
    maps = draw(2, 256, 14, 14, dtype=torch.float32)
    assert layer.applies(maps)
    assert not layer.applies(maps[:1]) and not layer.applies(maps.double()) and not layer.applies(maps.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not layer.applies(maps) and layer(maps).dtype is torch.bfloat16
    assert not layer.eval().applies(maps)
    assert layer(maps).equal(F.conv2d(maps, layer.weight, layer.bias, padding=1))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not layer.train().applies(maps)


def test_frozen_pass(everywhere: None) -> None:
    """Protects L_bas: through frozen layers gradients reach the maps, as they are, and no weight."""
    layer = nn.Conv2d(3, 4, 3, padding=1)
    replaced = use_winograd(nn.Sequential(copy.deepcopy(layer)))[0]
    maps = draw(2, 3, 6, 6, dtype=torch.float32).requires_grad_()
    gradients = []
    for one in (layer, replaced):
        call_frozen(one, maps).square().sum().backward()
        gradients.append(maps.grad)
        maps.grad = None
        assert one.weight.grad is one.bias.grad is None
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


# --- whole networks


@pytest.fixture(scope="module", params=ARCHS)
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[nn.Module, nn.Module]]:
    """A backbone, and its copy in which every fitting layer is replaced."""
    torch.manual_seed(0)
    model = CUB.Model.build(request.param, num_classes=5).place(torch.device("cpu"))
    nn.init.uniform_(model.head[4].bias, 0.5, 1.0)  # keeps the final ReLU alive
    return model, use_winograd(copy.deepcopy(model))


def test_networks_keep_their_parameters(pair: tuple[nn.Module, nn.Module]) -> None:
    """Protects checkpoints and optimisers: the same keys, the same Parameter objects; a second call changes nothing."""
    model, replaced = pair
    assert winograd_layers(replaced.head) == ["0", "2"]
    assert list(replaced.state_dict()) == list(model.state_dict())
    again = copy.deepcopy(model)
    before = [(name, id(parameter)) for name, parameter in again.named_parameters()]
    assert [(name, id(parameter)) for name, parameter in use_winograd(again).named_parameters()] == before
    layers = [id(layer) for layer in again.modules()]
    assert [id(layer) for layer in use_winograd(again).modules()] == layers


def test_evaluation_is_unchanged(pair: tuple[nn.Module, nn.Module]) -> None:
    """Protects every published figure: as it is evaluated, folded or not, the maps' bits are the direct ones."""
    images = draw(2, 3, 64, 64, dtype=torch.float32).contiguous(memory_format=torch.channels_last)
    for prepare in (lambda model: model, fold_batch_norm):
        placed = [prepare(copy.deepcopy(model).eval()).place(torch.device("cpu")) for model in pair]
        results = [model.localize(images, top_k=2) for model in placed]
        for ours, theirs in zip(*results, strict=True):
            assert ours.equal(theirs)


def test_training_step(pair: tuple[nn.Module, nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects training: in float64, where random weights amplify no rounding, all losses and gradients to 1e-9.

    The gradients are compared as one vector.
    """
    asked = []
    monkeypatch.setattr(WinogradConv2d, "applies", lambda layer, maps: asked.append(layer) or True)
    images, labels = draw(3, 3, 64, 64), torch.tensor([0, 4, 2])
    recipe = CUB.Model.recipe(pair[0].arch)
    results = []
    for model in pair:
        model = copy.deepcopy(model).double().train()
        losses = bas_losses(training_pass(model, images, labels, recipe), labels, recipe)
        losses.total.backward()
        gradients = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        results.append((torch.stack(losses).detach(), gradients))
    (expected, theirs), (found, ours) = results
    assert [asked.count(layer) for layer in model.head[:3:2]] == [2, 2]  # by both passes
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert 0 < float((ours - theirs).norm() / theirs.norm()) < 1e-9


# --- the command


@pytest.mark.parametrize(
    ("engine", "uses"),
    [
        (Engine(), True),
        (Engine(winograd=False), False),
        (Engine(amp="bf16"), False),
        (Engine(compile=True), False),
    ],
)
def test_which_runs_use_it(engine: Engine, uses: bool) -> None:
    """Protects --amp, --compile and --no-winograd, and GPUs, from layers that they do not want."""
    assert engine.uses_winograd(torch.device("cpu")) is uses
    assert not engine.uses_winograd(torch.device("cuda"))


def test_runs_with_and_without(everywhere: None, tiny, run) -> None:  # noqa: F811
    """Protects the option: the same losses but for rounding, another rounding indeed, and the run's records tell."""
    tiny()
    ours, theirs = run("with"), run("without", "--no-winograd")
    assert figures(ours) == pytest.approx(figures(theirs), rel=1e-4)
    weights = [newest_state(folder)["model"] for folder in (ours, theirs)]
    assert list(weights[0]) == list(weights[1])
    assert not all(value.equal(weights[1][key]) for key, value in weights[0].items())
    assert [read_json(folder / "settings.json")["engine"]["winograd"] for folder in (ours, theirs)] == [True, False]


@pytest.mark.parametrize("flags", [[], ["--no-winograd"]])
def test_resumed_run_equals_one_at_a_stretch(everywhere: None, tiny, run, flags: list[str]) -> None:  # noqa: F811
    """Protects --resume: without a word about it a run goes on as it began, to the bit."""
    torch.manual_seed(0)  # the tiny net's last layer is drawn before the command seeds
    tiny()
    whole = run("whole", *flags)
    run("halves", "--epochs", 1, *flags)
    halves = newest_state(run("halves", "--resume"))
    for key, value in newest_state(whole)["model"].items():
        assert halves["model"][key].equal(value), key


def test_older_runs_go_on_without(everywhere: None, tiny, run, tmp_path: Path) -> None:  # noqa: F811
    """Protects runs begun before the option was there: they resume as they began, unless told otherwise."""
    tiny()
    state = newest_state(run("older", "--epochs", 1, "--no-winograd"))
    del state["engine"]["winograd"], state["settings"]["same_padding"], state["settings"]["mask_pooling"]
    state["settings"]["align_maps"] = True
    torch.save(state, tmp_path / "older.pth.tar")
    for name, flags, expected in (("as it was", [], False), ("asked for", ["--winograd"], True)):
        folder = run(name, "--resume", tmp_path / "older.pth.tar", *flags)
        assert read_json(folder / "settings.json")["engine"]["winograd"] is expected
