"""All eight models against the numbers that the authors' code gives for the same weights and pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import CUB.Model
import ILSVRC.Model
from tests.reference_weights import PAIRS, batch, fill, golden
from utils.models.bas import BAS, BASOutput
from utils.models.losses import BASLosses, bas_losses
from utils.models.recipe import Recipe
from utils.models.winograd import use_winograd
from utils.runs.settings import Engine
from utils.training.engine import build_trainer
from utils.training.objective import training_pass
from utils.training.optim import build_optimizer

DATASETS = {"CUB": CUB.Model, "ILSVRC": ILSVRC.Model}
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def threads_of_the_reference():
    """The reference was computed with two threads, and their number decides in what order sums are rounded."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def assert_statistics(tensor: torch.Tensor, expected: dict, relative: float) -> None:
    values = tensor.detach().flatten().double()
    assert [len(values)] == expected["shape"]
    # Differences are measured against the tensor's own scale: its mean may lie near 0 by cancellation.
    scale = max(expected["absmax"], 1e-12) * relative
    assert float(values.mean()) == pytest.approx(expected["mean"], abs=scale)
    assert float(values.std()) == pytest.approx(expected["std"], abs=scale)
    assert float(values.abs().max()) == pytest.approx(expected["absmax"], abs=scale)
    assert values[: len(expected["first"])].tolist() == pytest.approx(expected["first"], abs=scale)


@pytest.mark.parametrize(("dataset", "arch"), PAIRS)
def test_evaluation(dataset: str, arch: str) -> None:
    """Logits, fused foreground map and masked logits in eval mode, for each k that the authors use."""
    models = DATASETS[dataset]
    model = fill(models.build(arch)).eval()
    images, labels = batch(0, model.num_classes)
    with torch.no_grad():
        features = model.f1(images)
        class_maps = model.f2(features)
    for name, expected in golden(dataset, arch)["eval"].items():
        top_k = int(name.removeprefix("k="))
        logits, foreground_map = model.localize(images, top_k=top_k, labels=labels)
        with torch.no_grad():
            masked_logits = model.masked_logits(class_maps, foreground_map)
        assert_statistics(logits, expected["logits"], 1e-4)
        assert_statistics(foreground_map, expected["foreground_map"], 1e-4)
        assert_statistics(masked_logits, expected["masked_logits"], 1e-4)


def dense_foreground_maps(self: BAS, features: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """The authors' way: all K channels, then the chosen ones."""
    return self.classifier_loc(features)[torch.arange(len(features))[:, None], classes]


def training_step(
    model: BAS, recipe: Recipe, seed: int, engine: Engine | None = None, labels: torch.Tensor | None = None
) -> tuple[BASOutput, BASLosses]:
    """Losses and gradients of a batch; with an engine, the pictures as its runs lay them out; with labels, these."""
    images, drawn = batch(seed, model.num_classes)
    images, labels = images.to(next(model.parameters()).dtype), drawn if labels is None else labels
    if engine is not None:
        layout = torch.channels_last if model.channels_last else torch.contiguous_format
        images = images.contiguous(memory_format=layout)
    output = training_pass(model, images, labels, recipe)
    losses = bas_losses(output, labels, recipe)
    model.zero_grad()
    losses.total.backward()
    return output, losses


def assert_first_step(
    output: BASOutput, losses: BASLosses, area_weight: float, figures: dict, activations: float = 1e-4
) -> None:
    assert losses.cls.item() == pytest.approx(figures["cls"], rel=1e-4)
    assert losses.frg.item() == pytest.approx(figures["frg"], rel=1e-4)
    assert (losses.bas + area_weight * losses.area).item() == pytest.approx(figures["bas_plus_area"], rel=1e-4)
    assert losses.total.item() == pytest.approx(figures["total"], rel=1e-4)
    assert losses.area.item() == pytest.approx(figures["area"], rel=1e-4)
    assert output.activation.tolist() == pytest.approx(figures["activation"], rel=activations)
    assert output.background_activation.tolist() == pytest.approx(figures["background_activation"], rel=activations)


def rounds_alike(output: BASOutput, losses: BASLosses, figures: dict) -> bool:
    """Whether a first step's sums ran in the order of the reference's."""
    found = [losses.total.item(), losses.cls.item(), losses.frg.item()]
    found += output.activation.tolist() + output.background_activation.tolist()
    reference = [figures["total"], figures["cls"], figures["frg"]]
    return found == pytest.approx(reference + figures["activation"] + figures["background_activation"], rel=1e-6)


def assert_gradient_norms(model: BAS, expected: dict[str, float], relative: float) -> None:
    norms = {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}
    assert norms == pytest.approx(expected, rel=relative)


@pytest.mark.parametrize(
    ("dataset", "arch", "engine"),
    # The layout is the backbone's, whichever data set it is for: once.
    [(*pair, None) for pair in PAIRS] + [(*pair, Engine()) for pair in PAIRS if pair[0] == "CUB"],
    ids=lambda value: value if isinstance(value, str) else "as train.py lays it out" if value else "bare",
)
def test_training_steps(dataset: str, arch: str, engine: Engine | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step's losses, activations and every parameter's gradient norm, the optimiser's groups and rates, and,
    once for each model, the state after three steps.

    Once the bare model, whose sums run in the order of the authors', and once network, pictures and optimiser as
    `train.py` makes and lays them out. Other sums round otherwise: from float64 the authors' own figures lie up to
    1.6e-4 in the activations of the first step and 1.3e-2 in the total of the second (InceptionV3), which is what the
    bounds of the latter allow for.

    The reference weights amplify rounding: the float32 reference gradients lie up to 1e-2 from those in float64. To be
    held to 1e-4 the sum must run in the order of the authors' code, so the bare generator computes all K channels in
    the first step; that the selected channels give the same gradients is shown in test_amc.py. Where the processor's
    kernels round in another order than those of the reference (processors without AVX-512 do; then losses and
    activations do not all agree to the last digits), only bounds of the size of the distances from float64 can hold a
    float32 run, as for the network that `train.py` lays out: on an AMD EPYC the norms of the gradients of ILSVRC's
    InceptionV3 are off by up to 4.9e-2, on an NVIDIA H100 by 5e-2.

    Bounds after three steps: two roundings of the same code (contiguous and channels-last) were measured against the
    reference. In each of the sixteen runs three quarters of the entries had changed by what the reference says to
    within 0.5 % of that change, and nine tenths of the norms agreed to 1e-3; the rest, biases and scales of a few
    early layers, follow gradients that rounding alone turns round. The bounds are about twice these figures.
    """
    expected, recipe = golden(dataset, arch), DATASETS[dataset].recipe(arch)
    model = fill(DATASETS[dataset].build(arch)).train()
    start = state_norms(model)
    if engine is None:
        optimizer = build_optimizer(model, recipe.lr, recipe.momentum, recipe.weight_decay)
    else:
        use_winograd(model.place(CPU, engine.channels_last))
        optimizer = build_trainer(model, None, (), recipe, engine, CPU).optimizer
    assert [len(group["params"]) for group in optimizer.param_groups] == expected["optimizer_groups"]["sizes"]
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(expected["optimizer_groups"]["lrs"])

    for step, figures in enumerate(expected["train"]):
        with monkeypatch.context() as patch:
            if engine is None and step == 0:
                patch.setattr(BAS, "foreground_maps", dense_foreground_maps)
            output, losses = training_step(model, recipe, step, engine)
        if step == 0:
            same_rounding = engine is None and rounds_alike(output, losses, figures)
            assert_first_step(output, losses, recipe.area_weight, figures, activations=1e-4 if same_rounding else 5e-4)
            assert_gradient_norms(model, expected["grad_norm"], 1e-4 if same_rounding else 1e-1)
        bounds = (1e-4, 1e-3, 5e-2) if same_rounding else (1e-4, 3e-2, 1e-1)
        assert losses.total.item() == pytest.approx(figures["total"], rel=bounds[step])
        if engine is None and dataset == "CUB":
            return  # CUB's three steps are compared as `train.py` lays them out
        optimizer.step()

    norms, reference = state_norms(model), expected["param_norm_after_3"]
    assert norms.keys() == reference.keys()
    differences = {name: abs(norms[name] - reference[name]) for name in reference}
    relative = [differences[name] / max(reference[name], 1e-9) for name in reference]
    changes = {name: abs(start[name] - reference[name]) for name in reference}
    moved = [differences[name] / changes[name] for name in reference if changes[name] > 1e-3 * reference[name]]
    assert len(moved) > 10
    assert np.quantile(relative, 0.5) < 1e-4
    assert np.quantile(relative, 0.9) < 2e-3
    assert np.quantile(moved, 0.75) < 1e-2


def state_norms(model: BAS) -> dict[str, float]:
    return {name: value.double().norm().item() for name, value in model.state_dict().items()}
