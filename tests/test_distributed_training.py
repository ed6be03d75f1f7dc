"""Training by two and three real processes against one: the same steps, and together they stop, fail and end."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import CUB.Model
from tests.processes import run_processes
from tests.test_amc import TinyBAS
from tests.test_evaluation import CPU, save_picture
from utils.data.split import Split
from utils.data.training import TrainingBatch, build_training_loader
from utils.data.transforms import normalize
from utils.models.bas import BAS
from utils.runs.settings import Engine
from utils.runs.state import find_training_state, fingerprint, require_same_data, restore_training_state
from utils.runs.state_folder import StateFolder
from utils.system.errors import UserError
from utils.system.processes import process_count, process_group, rank
from utils.training.engine import NotFiniteError, Trainer, build_trainer, train_one_epoch
from utils.training.interruption import Interrupted, Interruption
from utils.training.saver import Saver

PICTURES, BATCH = 24, 12  # two steps an epoch, shared out evenly among 1, 2 and 3
RECIPE = replace(
    CUB.Model.recipe("resnet"), num_classes=5, lr=0.01, resize_size=24, crop_size=16, batch_size=BATCH, seed=3
)


class NoNorm(TinyBAS):
    """Without batch normalisation: nothing couples the pictures of a batch, as in VGG16."""

    def __init__(self) -> None:
        super().__init__()
        self.stem[1], self.tail[2] = nn.Identity(), nn.Identity()


class Case(NamedTuple):
    """A run of two epochs."""

    build: Callable[[], BAS] = NoNorm
    recipe: Any = RECIPE
    engine: Engine = Engine()


CASES = {
    "paper": Case(),
    "batch statistics": Case(build=TinyBAS),
    "warm-up first": Case(recipe=replace(RECIPE, warmup_epochs=1)),
    "the classifier alone": Case(recipe=replace(RECIPE, bas_weight=0.0, frg_weight=0.0, area_weight=0.0)),
    "the generator alone": Case(recipe=replace(RECIPE, cls_weight=0.0, frg_weight=0.0)),
    "in parts": Case(engine=Engine(grad_accum=2)),
    "in parts that are not equal": Case(engine=Engine(grad_accum=3)),
    "gradients scaled down": Case(recipe=replace(RECIPE, max_grad_norm=0.01)),
    "half precision": Case(engine=Engine(amp="bf16")),
}


def make_split(folder: Path) -> Split:
    ids = [f"{index:02}.png" for index in range(PICTURES)]
    for index, name in enumerate(ids):
        save_picture(folder / name, index, (30, 26))
    labels = np.random.default_rng(0).integers(0, 5, PICTURES)
    return Split("train", "made by a test", tuple(ids), tuple(folder / i for i in ids), labels, {}, tuple("abcde"), {})


def make_trainer(split: Split, case: Case) -> Trainer:
    torch.manual_seed(1)
    model = case.build().place(CPU)
    nn.init.uniform_(model.head[4].bias, 0.5, 1.0)  # keeps the final ReLU alive
    sizes = (RECIPE.resize_size, RECIPE.crop_size, BATCH // process_count())
    loader = build_training_loader(split, *sizes, num_workers=0, seed=RECIPE.seed, device=CPU)
    return build_trainer(model, loader, split.paths, case.recipe, case.engine, CPU)


class Answer(NamedTuple):
    """What one process has after two epochs."""

    gradients: dict[str, Tensor | None]  # of the first step
    state: dict[str, Tensor]
    figures: list[dict[str, float]]
    indices: list[list[int]]  # pictures of each step


def answer(split: Split, case: Case) -> Answer:
    trainer = make_trainer(split, case)
    gradients: dict[str, Tensor | None] = {}

    def note(*_: Any) -> None:
        if not gradients:
            named = trainer.model.named_parameters()
            gradients.update({name: None if p.grad is None else p.grad.clone() for name, p in named})

    trainer.optimizer.register_step_pre_hook(note)
    indices = []
    trainer.loader.collate_fn = _noting(trainer.loader.collate_fn, indices)
    figures = [train_one_epoch(trainer, show_step=1) for _ in range(2)]
    return Answer(gradients, trainer.model.state_dict(), figures, indices)


def _noting(collate: Callable, indices: list[list[int]]) -> Callable:
    def collated(items: Any) -> TrainingBatch:
        batch = collate(items)
        indices.append(batch.indices.tolist())
        return batch

    return collated


def process(number: int, count: int, folder: Path) -> None:
    split = pickle.loads((folder / "split").read_bytes())
    with process_group(CPU, timeout=60):
        assert (process_count(), rank()) == (count, number)
        answers = {name: answer(split, case) for name, case in CASES.items()}
    (folder / f"{number}_of_{count}").write_bytes(pickle.dumps(answers))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    (folder / "split").write_bytes(pickle.dumps(make_split(folder)))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def answers(folder) -> dict[int, list[dict[str, Answer]]]:
    """Number of processes -> what each of them has."""
    for count in (1, 2, 3):
        run_processes(process, count, folder)
    return {
        count: [pickle.loads((folder / f"{number}_of_{count}").read_bytes()) for number in range(count)]
        for count in (1, 2, 3)
    }


FIGURES = {"cls", "frg", "bas", "area", "total", "accuracy", "lr", "steps"}


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", [name for name in CASES if name not in ("batch statistics", "half precision")])
def test_without_batch_statistics_processes_do_not_matter(answers, name: str, count: int) -> None:
    """Protects the meaning of --batch_size: gradients, weights and figures are those of one process."""
    (alone,) = answers[1]
    for found in answers[count]:
        assert found[name].gradients.keys() == alone[name].gradients.keys()
        for key, expected in alone[name].gradients.items():
            ours = found[name].gradients[key]
            assert (ours is None) == (expected is None), key
            if expected is not None:
                torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6, msg=key)
        for key, expected in alone[name].state.items():
            torch.testing.assert_close(found[name].state[key], expected, rtol=1e-4, atol=1e-6, msg=key)
        for ours, expected in zip(found[name].figures, alone[name].figures, strict=True):
            assert ours.keys() == expected.keys()
            for figure in FIGURES & ours.keys():
                assert ours[figure] == pytest.approx(expected[figure], rel=1e-5), figure
            assert ours.get("dead_maps") == expected.get("dead_maps")


def test_cases_reach_what_they_are_about(answers) -> None:
    """Protects the test above: which parts of the network learn, and which figures there are."""
    (alone,) = answers[1]
    without = {name: {key for key, g in alone[name].gradients.items() if g is None} for name in CASES}
    generator = {"classifier_loc.0.weight", "classifier_loc.0.bias"}
    assert without["paper"] == without["in parts"] == set()
    assert without["warm-up first"] == without["the classifier alone"] == generator
    assert without["the generator alone"] >= {"tail.1.weight", "classifier_cls.0.weight"}
    assert "bas" not in alone["warm-up first"].figures[0] and "bas" in alone["warm-up first"].figures[1]
    assert "bas" not in alone["the classifier alone"].figures[1]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("count", [2, 3])
def test_processes_agree(answers, name: str, count: int) -> None:
    """Protects against drift: after two epochs all parameters are bit for bit the same in every process."""
    first, *others = (found[name] for found in answers[count])
    buffers = {key for key in first.state if "running" in key}
    for other in others:
        assert all(torch.equal(other.state[key], value) for key, value in first.state.items() if key not in buffers)
        assert [{**one, "seconds": 0} for one in other.figures][0]["total" if name != "warm-up first" else "cls"] > 0


@pytest.mark.parametrize("count", [2, 3])
def test_each_global_batch_is_that_of_one_process(answers, count: int) -> None:
    """Protects the order: the processes' n-th batches are together the n-th of one, in another order each epoch."""
    (alone,) = answers[1]
    steps = alone["paper"].indices
    assert len(steps) == 4 and sorted(steps[0] + steps[1]) == sorted(steps[2] + steps[3]) == list(range(PICTURES))
    assert steps[0] + steps[1] != steps[2] + steps[3]
    for step, indices in enumerate(steps):
        shares = [found["paper"].indices[step] for found in answers[count]]
        assert all(len(share) == BATCH // count for share in shares)
        assert sorted(index for share in shares for index in share) == sorted(indices)


def test_batch_statistics_are_each_processes_own(answers, folder) -> None:
    """Protects what the authors had (4 x 32): gradients are the mean of both halves', each with its own statistics.

    The running statistics that count are those of the first half.
    """
    (alone,) = answers[1]
    both = [found["batch statistics"] for found in answers[2]]
    split = pickle.loads((folder / "split").read_bytes())
    halves = []
    for number in range(2):
        trainer = make_trainer(split, CASES["batch statistics"])
        batch = next(iter(_only(trainer, both[number].indices[0])))
        total, *_ = trainer.objective()(normalize(batch.images.to(trainer.device)), batch.labels)
        total.backward()
        halves.append(trainer.model)
    for name, expected in both[0].gradients.items():
        mean = sum(dict(model.named_parameters())[name].grad for model in halves) / 2
        torch.testing.assert_close(expected, mean, rtol=1e-4, atol=1e-6, msg=name)
    whole = alone["batch statistics"].gradients["stem.0.weight"]
    assert not torch.allclose(whole, both[0].gradients["stem.0.weight"], rtol=1e-2)
    assert not torch.equal(both[0].state["stem.1.running_mean"], both[1].state["stem.1.running_mean"])


def _only(trainer: Trainer, indices: list[int]) -> Any:
    images = trainer.loader.dataset
    draws = [draw for batch in trainer.loader.batch_sampler for draw in batch if draw.index in indices]
    order = {index: place for place, index in enumerate(indices)}
    yield trainer.loader.collate_fn(images.__getitems__(sorted(draws, key=lambda draw: order[draw.index])))


def test_half_precision_is_near(answers) -> None:
    """Protects --amp bf16: losses of the first epoch within 2 % of those in float32.

    L_bas within two pictures of the 24: their ratio may cross 1, where it becomes 0.
    """
    (alone,) = answers[1]
    ours, expected = alone["half precision"].figures[0], alone["paper"].figures[0]
    for name in ("cls", "frg", "area"):
        assert ours[name] == pytest.approx(expected[name], rel=0.02)
    assert ours["bas"] == pytest.approx(expected["bas"], abs=2 / PICTURES)
    assert ours["total"] != expected["total"]


# --- together they stop, fail and end


def ending(number: int, count: int, folder: Path) -> None:
    """One process is told to stop; in another run one meets a loss that is not finite; in the last one of them dies."""
    split = pickle.loads((folder / "split").read_bytes())
    found: dict[str, Any] = {}
    with process_group(CPU, timeout=60):
        trainer = make_trainer(split, CASES["batch statistics"])
        states = StateFolder(folder / "states_of_two")
        trainer.loader.batch_sampler.steps = 30  # the epoch repeats its two batches
        trainer.loader.batch_sampler.__class__.__iter__ = _again(trainer.loader.batch_sampler.__class__.__iter__)
        with Interruption() as interruption:
            saver = Saver(trainer, states, fingerprint(split), interruption, every=0)
            if number == 1:
                trainer.optimizer.register_step_post_hook(
                    _at_step(trainer, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
                )
            try:
                train_one_epoch(trainer, after_step=saver.after_step)
            except Interrupted as stop:
                found["stopped"] = (trainer.progress.step, str(stop), stop.exit_code)
        state, path = find_training_state("last", states)
        again = make_trainer(split, CASES["batch statistics"])
        again.progress = restore_training_state(state, again.model, again.optimizer, again.scheduler, again.scaler)
        found["state"] = (path.name, again.progress.step, again.progress.seen)
        equal = [torch.equal(again.model.state_dict()[k], v) for k, v in trainer.model.state_dict().items()]
        found["restored"] = all(equal)

        try:
            require_same_data({"train": fingerprint(split), "test": None if number else fingerprint(split)})
        except UserError as error:
            found["other data"] = str(error)

        trainer = make_trainer(split, CASES["paper"])
        if number == 1:
            trainer.loader.dataset._transform = _poisoned(trainer.loader.dataset._transform)
        try:
            train_one_epoch(trainer, show_step=1)
        except NotFiniteError as error:
            found["not finite"] = error.record
            found["first batch"] = [str(split.paths[i]) for d in trainer.loader.batch_sampler for i in [d[0].index]]
    (folder / f"ending_{number}").write_bytes(pickle.dumps(found))


def _again(iterate: Callable) -> Callable:
    def repeated(sampler: Any) -> Any:
        steps, sampler.steps = sampler.steps, 2
        batches = list(iterate(sampler))
        sampler.steps = steps
        yield from (batches[step % len(batches)] for step in range(steps))

    return repeated


def _at_step(trainer: Trainer, step: int, act: Callable[[], None]) -> Callable:
    def hook(*_: Any) -> None:
        if trainer.progress.step == step:
            act()

    return hook


def _poisoned(transform: Callable) -> Callable:
    return lambda *arguments: transform(*arguments) * float("nan")


def dying(number: int, count: int, folder: Path) -> None:
    split = pickle.loads((folder / "split").read_bytes())
    begin = time.monotonic()
    try:
        with process_group(CPU, timeout=20, hint="go on with --resume"):
            trainer = make_trainer(split, CASES["paper"])
            if number == 1:
                trainer.optimizer.register_step_post_hook(_at_step(trainer, 1, lambda: os._exit(0)))
            train_one_epoch(trainer)
    except UserError as error:
        (folder / f"dying_{number}").write_text(f"{time.monotonic() - begin}\n{error}")


def test_two_processes_stop_and_fail_together(folder) -> None:
    """Protects schedulers' SIGTERM and NaN: a signal to one stops both after the same step, saved; a loss that is not
    finite in one ends both with the same step and the pictures of the one that met it."""
    run_processes(ending, 2, folder)
    found = [pickle.loads((folder / f"ending_{number}").read_bytes()) for number in range(2)]
    steps = {one["stopped"][0] for one in found}
    assert len(steps) == 1 and steps <= {4, 5}  # told in step 3, voted on after it, counted a step later
    assert {one["stopped"][2] for one in found} == {75}
    assert "SIGTERM" in found[1]["stopped"][1] and "another process" in found[0]["stopped"][1]
    assert all("epoch_0000_step_" in one["stopped"][1] and "--resume" in one["stopped"][1] for one in found)
    (step,) = steps
    assert all(one["state"] == (f"epoch_0000_step_{step:08}.pth.tar", step, step * BATCH) for one in found)
    assert all(one["restored"] for one in found)
    assert all("process 1 sees other pictures than process 0 (test was {" in one["other data"] for one in found)
    records = [one["not finite"] for one in found]
    assert records[0] == records[1] and (records[0]["epoch"], records[0]["step"]) == (1, 1)
    assert len(records[0]["files"]) == BATCH // 2
    assert found[1]["first batch"][0] in records[0]["files"] and found[0]["first batch"][0] not in records[0]["files"]
    assert records[0]["losses"]["cls"] == "nan"


def test_a_lost_process_ends_the_others(folder) -> None:
    """Protects against hanging: when one process vanishes, the other ends with a sentence, long before the timeout."""
    run_processes(dying, 2, folder)
    seconds, sentence = (folder / "dying_0").read_text().split("\n", 1)
    assert float(seconds) < 20 and "lost the other 1" in sentence and "--resume" in sentence
    assert not (folder / "dying_1").exists()


def test_gradients_are_scaled_down_together(tmp_path: Path) -> None:
    """Protects --max_grad_norm: the direction of all gradients stays, their common norm becomes the limit, or stays."""
    split = make_split(tmp_path)
    free = answer(split, Case()).gradients
    norm = torch.stack([gradient.norm() for gradient in free.values()]).norm()
    for limit in (0.01, 2 * float(norm)):
        found = answer(split, Case(recipe=replace(RECIPE, max_grad_norm=limit))).gradients
        share = min(1.0, limit / float(norm))
        for name, gradient in free.items():
            torch.testing.assert_close(found[name], gradient * share, rtol=1e-3, atol=1e-9, msg=name)
