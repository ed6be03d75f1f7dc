"""Protects the optimiser: who learns at which rate, when the rates fall, and what one step does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import CUB.Model
import ILSVRC.Model
from tests.reference_weights import PAIRS, published_keys
from utils.models.recipe import Recipe
from utils.runs.settings import Engine
from utils.training.engine import Trainer, build_trainer
from utils.training.optim import build_optimizer, build_scheduler

DATASETS = {"CUB": CUB.Model, "ILSVRC": ILSVRC.Model}


class Parts(nn.ModuleDict):
    """A net of named parts that tells its heads' parameters, as a BAS model does."""

    def head_parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        heads = [self[name].parameters() if name in self else () for name in ("classifier_cls", "classifier_loc")]
        return list(heads[0]), list(heads[1])


def expected_rate(name: str, lr: float) -> float:
    """The paper's rule for one parameter, by its published name."""
    is_head = name.startswith(("classifier_cls.", "classifier.", "classifier_loc."))
    return lr * (10 if is_head else 1) * (2 if name.endswith(".bias") else 1)


@pytest.mark.parametrize(("dataset", "arch"), PAIRS)
def test_every_parameter_has_its_rate(dataset: str, arch: str) -> None:
    """Each published parameter once, biases at x2, both heads at x10, decay and Nesterov momentum for all of them."""
    recipe = DATASETS[dataset].recipe(arch)
    with torch.device("meta"):
        model = DATASETS[dataset].build(arch)
    optimizer = build_optimizer(model, recipe.lr, recipe.momentum, recipe.weight_decay)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = [(names[id(parameter)], group["lr"]) for group in optimizer.param_groups for parameter in group["params"]]
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    published = [key.removeprefix("module.") for key in published_keys(dataset, arch) if not key.endswith(buffers)]
    of_model = [key for key in published if "_copy" not in key and not key.startswith("erase_branch")]
    assert sorted(name for name, _ in rates) == sorted(of_model)
    assert dict(rates) == pytest.approx({name: expected_rate(name, 0.001) for name in of_model})
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.001, 0.002, 0.01, 0.02])
    for group in optimizer.param_groups:
        assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.9, 5e-4, True)


def test_groups_by_example() -> None:
    """MobileNetV1 by hand: batch normalisation's weight counts as a weight, its bias as a bias."""
    with torch.device("meta"):
        model = CUB.Model.build("mobilenet", 2)
    named = dict(model.named_parameters())
    groups = build_optimizer(model, lr=1.0).param_groups
    for index, name in enumerate(
        ["model.4.1.weight", "model.4.1.bias", "classifier_loc.0.weight", "classifier_cls.4.bias"]
    ):
        assert any(parameter is named[name] for parameter in groups[index]["params"]), name


@pytest.mark.parametrize("dataset", ["CUB", "ILSVRC"])
def test_schedule(dataset: str) -> None:
    """CUB: 80 epochs at the full rates, then a tenth; ILSVRC: tenths after 3 and after 6 of the 9 epochs."""
    recipe = DATASETS[dataset].recipe("resnet")
    model = Parts({"trunk": nn.Linear(1, 1), "classifier_cls": nn.Linear(1, 1)})
    optimizer = build_optimizer(model, recipe.lr)
    scheduler = build_scheduler(optimizer, recipe.lr_steps, recipe.lr_decay)
    factors = {"CUB": [1.0] * 80 + [0.1] * 20, "ILSVRC": [1.0] * 3 + [0.1] * 3 + [0.01] * 3}[dataset]
    assert len(factors) == recipe.epochs
    for factor in factors:
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([0.001 * factor, 0.002 * factor, 0.01 * factor, 0.02 * factor], rel=1e-9)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("recipe", [CUB.Model.recipe("vgg"), ILSVRC.Model.recipe("vgg")], ids=["CUB", "ILSVRC"])
@pytest.mark.parametrize("fused", [None, True])
def test_two_steps_by_hand(recipe: Recipe, fused: bool | None) -> None:
    """Nesterov's update written out: decay joins the gradient, momentum looks ahead."""
    torch.manual_seed(0)
    model = Parts({"trunk": nn.Linear(3, 2), "classifier_loc": nn.Linear(3, 2)}).double()
    optimizer = build_optimizer(model, recipe.lr, recipe.momentum, recipe.weight_decay, fused)
    values = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    velocity = {name: torch.zeros_like(value) for name, value in values.items()}
    for _ in range(2):
        for name, parameter in model.named_parameters():
            parameter.grad = torch.randn_like(parameter)
            gradient = parameter.grad + 5e-4 * values[name]
            velocity[name] = 0.9 * velocity[name] + gradient
            values[name] = values[name] - expected_rate(name, 0.001) * (gradient + 0.9 * velocity[name])
        optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), values[name], rtol=1e-12, atol=1e-14)


def step_by(trainer: Trainer, gradient: float, names: tuple[str, ...]) -> None:
    trainer.optimizer.zero_grad(set_to_none=True)
    for name in names:
        parameter = trainer.model.get_parameter(name)
        parameter.grad = torch.full_like(parameter, gradient * (trainer.scaler.get_scale() or 1))
    trainer.scaler.step(trainer.optimizer)
    trainer.scaler.update()


def test_parameters_may_join_later() -> None:
    """Protects the warm-up's end: the generator's first step is Nesterov's, beside others that have momenta."""
    recipe = replace(CUB.Model.recipe("vgg"), weight_decay=0.0)
    model = Parts({"classifier_cls": nn.Linear(1, 1), "classifier_loc": nn.Linear(1, 1)})
    trainer = build_trainer(model, None, (), recipe, Engine(), torch.device("cpu"))
    before = model["classifier_loc"].weight.detach().clone()
    step_by(trainer, 1.0, ("classifier_cls.weight",))
    assert torch.equal(model["classifier_loc"].weight, before)
    step_by(trainer, 1.0, ("classifier_cls.weight", "classifier_loc.weight"))
    torch.testing.assert_close(model["classifier_loc"].weight.detach(), before - 0.01 * 1.9)


def test_first_step_of_infinite_gradients() -> None:
    """Protects --amp fp16: a step of infinite gradients is passed over, and the next is as if it had not been."""
    recipe = replace(CUB.Model.recipe("vgg"), weight_decay=0.0)
    model = Parts({"trunk": nn.Linear(3, 2)})
    trainer = build_trainer(model, None, (), recipe, Engine(amp="fp16"), torch.device("cpu"))
    trainer.scaler.scale(torch.ones(1))  # makes its scale
    before = model["trunk"].weight.detach().clone()
    step_by(trainer, float("inf"), ("trunk.weight", "trunk.bias"))
    assert torch.equal(model["trunk"].weight, before) and trainer.scaler.get_scale() == 2.0**15
    (momentum, *_) = (state["momentum_buffer"] for state in trainer.optimizer.state.values())
    assert not momentum.any()
    step_by(trainer, 1.0, ("trunk.weight", "trunk.bias"))
    torch.testing.assert_close(model["trunk"].weight.detach(), before - 0.001 * 1.9)


def test_plain_gradient_descent() -> None:
    """--momentum 0 is allowed: Nesterov's rule, which torch refuses without momentum, is left off."""
    (group, *_) = build_optimizer(Parts({"trunk": nn.Linear(1, 1)}), lr=0.1, momentum=0, weight_decay=0).param_groups
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0, False, 0)
