"""Protects --resume from states that are none: whatever part is of another kind is one sentence that names the file."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.test_amc import TinyBAS
from utils.models.recipe import Recipe
from utils.runs.settings import Engine
from utils.runs.state import (
    Progress,
    random_state,
    read_training_state,
    require_same_run,
    restore_training_state,
    training_state,
)
from utils.system.errors import UserError
from utils.training.optim import build_optimizer, build_scheduler

RECIPE = Recipe(
    dataset="CUB", arch="mobilenet", num_classes=5, frg_weight=0.5, area_weight=1.5, ratio_compare="ge", lr_steps=(2, 4)
)
DATA = {"pictures": 64, "classes": 5, "digest": "0123456789abcdef"}
CPU = torch.device("cpu")


def parts(fp16: bool = False) -> tuple:
    """A network with its optimiser, schedule and scaler, as a run builds them."""
    torch.manual_seed(0)
    model = TinyBAS()
    optimizer = build_optimizer(model, RECIPE.lr)
    for parameter in model.parameters():
        optimizer.state[parameter]["momentum_buffer"] = torch.full_like(parameter, 0.5)
    scheduler = build_scheduler(optimizer, RECIPE.lr_steps)
    return model, optimizer, scheduler, torch.amp.GradScaler("cpu", enabled=fp16)


def make_state(fp16: bool = False, epochs: int = 3) -> dict[str, Any]:
    """A state after some epochs and a step of the next."""
    model, optimizer, scheduler, scaler = parts(fp16)
    for _ in range(epochs):
        optimizer.step()
        scheduler.step()
    extremes = [[0.9, 0.1]] * 4 + [[float("-inf"), float("inf")]]
    progress = Progress(epochs, 1, {"cls": -2.5, "accuracy": 0.25}, 32, 1.5, 0.5, 0, extremes)
    return training_state(
        model, optimizer, scheduler, scaler, progress, [random_state(CPU)], RECIPE, Engine(amp="bf16"), DATA
    )


def resume(content: object, path: Path) -> tuple[Progress, tuple]:
    """As a run does it."""
    torch.save(content, path)
    state = read_training_state(path)
    require_same_run(state, RECIPE, Engine(amp="bf16"), DATA)
    new = parts(bool(state["scaler"]))
    return restore_training_state(state, *new, name=path), new


@pytest.mark.parametrize("fp16", [False, True])
def test_a_good_state_comes_back(tmp_path: Path, fp16: bool) -> None:
    """Protects what is right: weights, momenta, rates, schedule, scaler, progress and random numbers, as they were."""
    content = make_state(fp16)
    content["random"] = [random_state(CPU)]
    expected = torch.rand(3), np.random.rand(3).tolist()
    progress, (model, optimizer, scheduler, scaler) = resume(content, tmp_path / "x.pth.tar")
    assert torch.equal(torch.rand(3), expected[0]) and np.random.rand(3).tolist() == expected[1]
    assert progress == Progress(**content["progress"])
    assert all(torch.equal(value, content["model"][key]) for key, value in model.state_dict().items())
    assert scheduler.state_dict() == content["scheduler"] and scaler.state_dict() == content["scaler"]
    ours, theirs = optimizer.state_dict(), content["optimizer"]
    assert ours["param_groups"] == theirs["param_groups"]
    for number, values in theirs["state"].items():
        assert torch.equal(ours["state"][number]["momentum_buffer"], values["momentum_buffer"])


def at(*place: Any, value: Any) -> Callable[[dict], None]:
    """A change of one place of a state."""

    def change(content: dict) -> None:
        for name in place[:-1]:
            content = content[name]
        content[place[-1]] = value

    return change


WEIGHT, GROUP = "classifier_cls.0.weight", ("optimizer", "param_groups", 0)
NAN, INFINITE, HUGE = float("nan"), float("inf"), torch.zeros(1).expand(2**33)
MOMENTUM = ("optimizer", "state", 0, "momentum_buffer")
WRONG: dict[str, tuple[Callable[[dict], None], str]] = {
    **{
        f"{part} is {value!r}": (at(part, value=value), part)
        for part in ("model", "optimizer", "scheduler", "scaler", "progress", "random", "settings", "engine", "data")
        for value in (None, "abc", 3, torch.zeros(2))
    },
    **{
        f"progress: {name} {value!r}": (at("progress", name, value=value), f"{name} in progress")
        for name in ("epoch", "step", "seen", "seconds", "waited", "replaced")
        for value in ("3", -1, NAN, INFINITE, None, [1], True, 10**400 if name == "seconds" else -(10**400))
    },
    "progress: sums a list": (at("progress", "sums", value=[1]), "sums in progress"),
    "progress: sums of words": (at("progress", "sums", value={"cls": "2"}), "sums in progress"),
    "progress: sums not finite": (at("progress", "sums", "cls", value=NAN), "sums in progress"),
    "progress: sums too large": (at("progress", "sums", "cls", value=10**400), "sums in progress"),
    "progress: no sums": (at("progress", "sums", value={}), "1 steps over 32 pictures"),
    "progress: nothing seen": (at("progress", "seen", value=0), "1 steps over 0 pictures"),
    "progress: too many steps": (at("progress", "step", value=99), "99 steps of an epoch that is shorter"),
    "progress: extremes ragged": (at("progress", "extremes", value=[[0.5, 0.5], [0.5]]), "extremes"),
    "progress: extremes words": (at("progress", "extremes", value=[["a", "b"]]), "extremes in progress"),
    "progress: extremes of other classes": (at("progress", "extremes", value=[[0.9, 0.1]]), "extremes"),
    "progress: something else": (at("progress", "speed", value=3), "'speed' in progress"),
    "settings: a word": (at("settings", "lr", value="0.001"), "'0.001' as lr in settings"),
    "settings: a flag": (at("settings", "final_relu", value=1), "1 as final_relu in settings"),
    "settings: steps": (at("settings", "lr_steps", value=("2",)), "lr_steps in settings"),
    "settings: not finite": (at("settings", "momentum", value=NAN), "nan as momentum in settings"),
    "engine: a number": (at("engine", "amp", value=16), "16 as amp in engine"),
    "data: a tensor": (at("data", "digest", value=torch.zeros(2)), "digest in data"),
    "weights not finite": (at("model", WEIGHT, value=torch.tensor([NAN])), f"NaN or infinite weights in {WEIGHT}"),
    "weights complex": (at("model", WEIGHT, value=torch.zeros(1, dtype=torch.cfloat)), f"complex64 .* in {WEIGHT}"),
    "weights expanded": (at("model", WEIGHT, value=HUGE), f"in {WEIGHT}|up to {WEIGHT}"),
    "weights no tensor": (at("model", WEIGHT, value=3), "more than tensors in model"),
    "weights of another shape": (at("model", WEIGHT, value=torch.zeros(2)), "does not fit the network: other shape: "),
    "weights missing": (lambda content: content["model"].popitem(), "does not fit the network: missing: "),
    "weights with more": (at("model", "more", value=torch.zeros(1)), r"network: unexpected: more \[1\]"),
    "momentum not finite": (lambda content: content["optimizer"]["state"][0]["momentum_buffer"].fill_(NAN), "momentum"),
    "momentum sparse": (at(*MOMENTUM, value=torch.eye(2).to_sparse()), "sparse.* in the momentum of parameter 0"),
    "momentum no tensor": (at(*MOMENTUM, value="x"), "'x' as momentum of parameter 0"),
    "momentum of another shape": (at(*MOMENTUM, value=torch.zeros(7)), r"a momentum of \[7\] for weights of"),
    "momentum of nothing": (at("optimizer", "state", 10**6, value={"momentum_buffer": torch.zeros(1)}), "restored"),
    "momentum missing": (
        lambda content: content["optimizer"]["state"].pop(0),
        r"the momenta of 1 of \d+ parameters are",
    ),
    "momentum of no value": (at(*MOMENTUM, value=None), r"the momenta of 1 of \d+ parameters are missing"),
    "no momenta": (
        lambda content: content["optimizer"]["state"].clear(),
        r"the momenta of (\d+) of \1 parameters are missing",
    ),
    "momenta a list": (at("optimizer", "state", value=[]), "no state and param_groups in optimizer"),
    "another optimiser": (at("optimizer", "state", 0, value={"exp_avg": torch.zeros(1)}), "of parameter 0"),
    "fewer groups": (lambda content: content["optimizer"]["param_groups"].pop(), "cannot be restored"),
    "a rate that is a word": (at(*GROUP, "lr", value="x"), "'x' as lr in optimizer"),
    "a rate that is negative": (at(*GROUP, "lr", value=-1.0), "-1.0 as lr in optimizer"),
    "a rate that is not finite": (at(*GROUP, "weight_decay", value=NAN), "nan as weight_decay in optimizer"),
    "another epoch of the schedule": (at("scheduler", "last_epoch", value=1), "1 as last_epoch in scheduler"),
    "the schedule's method": (at("scheduler", value={"step": 5}), "None as last_epoch in scheduler"),
    "a scale that is not finite": (at("scaler", value={"scale": INFINITE}), "inf as scale in scaler"),
    "random states of numbers": (at("random", value=[5]), "cannot be restored"),
    "random states of Python": (at("random", 0, "python", value=(3, [1, 2], None)), "cannot be restored"),
    "random states of NumPy": (at("random", 0, "numpy", value=("MT19937", 3, 3, 0, 0.0)), "cannot be restored"),
    "random states of torch": (at("random", 0, "torch", value=torch.zeros(3)), "cannot be restored"),
}


@pytest.fixture(scope="module")
def state() -> dict[str, Any]:
    return make_state()


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_part_is_named(tmp_path: Path, state: dict, case: str) -> None:
    """Protects from tracebacks hours later, and from going on with nonsense."""
    change, words = WRONG[case]
    content = copy.deepcopy(state)
    change(content)
    path = tmp_path / "x.pth.tar"
    with pytest.raises(UserError, match=words) as caught:
        resume(content, path)
    sentence = str(caught.value)
    assert sentence.startswith("--resume: ") and "\n" not in sentence and len(sentence) < 600
    assert "give another state, or none for the newest" in sentence


@pytest.mark.parametrize("name", ["dampening", "nesterov", "maximize", "foreach", "fused", "differentiable"])
@pytest.mark.parametrize("value", [None, "x", 10**30])
def test_what_follows_from_the_recipe_is_not_taken(tmp_path: Path, state: dict, name: str, value: object) -> None:
    """Protects the step: the optimiser's options are those of its recipe, whatever the file says, or leaves out."""
    content = copy.deepcopy(state)
    for group in content["optimizer"]["param_groups"]:
        group[name] = value
        if value is None:
            del group[name]
    _, (model, optimizer, *_) = resume(content, tmp_path / "x.pth.tar")
    assert {group[name] for group in optimizer.param_groups} == {parts()[1].param_groups[0][name]}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precision(tmp_path: Path, state: dict, kind: torch.dtype) -> None:
    """Protects states that were made smaller or larger: their numbers are converted."""
    content = copy.deepcopy(state)
    content["model"] = {
        key: value.to(kind) if value.is_floating_point() else value for key, value in content["model"].items()
    }
    _, (model, *_) = resume(content, tmp_path / "x.pth.tar")
    assert all(torch.equal(value, content["model"][key].to(value.dtype)) for key, value in model.state_dict().items())
