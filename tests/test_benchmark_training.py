"""The authors' training step that the benchmark times: the same numbers as ours, and a comparison that can fail."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.benchmark import DATASETS
from tests.benchmark_training import (
    CUB_SIZE,
    AuthorsStep,
    make_pictures,
    reduced_scale_differences,
    relative_differences,
)
from tests.reference_weights import PAIRS
from utils.models.losses import BASLosses, bas_losses
from utils.training.objective import training_pass


@pytest.mark.parametrize(
    ("dataset", "arch", "constant_copy"),
    [*((*pair, False) for pair in PAIRS), ("CUB", "mobilenet", True), ("ILSVRC", "mobilenet", True)],
)
def test_both_ways_give_the_same_numbers(dataset: str, arch: str, constant_copy: bool) -> None:
    """Protects the benchmark from timing two different things: all losses, gradients and running statistics agree.

    In float64, on three small pictures of five classes; two steps, because the copy of f2 must follow f2's weights.
    """
    torch.manual_seed(0)
    model = DATASETS[dataset].build(arch, num_classes=5)
    # The published head is 1024 wide; a narrow one of the same structure keeps the test quick.
    model.head[0] = nn.Conv2d(model.head[0].in_channels, 16, 3, padding=1)
    model.head[2], model.head[4] = nn.Conv2d(16, 12, 3, padding=1), nn.Conv2d(12, 5, 1)
    model = model.double().train()
    nn.init.uniform_(model.head[4].bias, 0.0, 0.3)
    recipe, theirs = DATASETS[dataset].recipe(arch), copy.deepcopy(model)
    authors = AuthorsStep(theirs, recipe, keep_copy=dataset == "ILSVRC", constant_copy=constant_copy)
    labels = torch.tensor([4, 0, 4])
    for _ in range(2):
        images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
        output = training_pass(model, images, labels, recipe)
        losses, expected = bas_losses(output, labels, recipe), authors(images, labels)
        for name in BASLosses._fields:
            torch.testing.assert_close(getattr(losses, name), getattr(expected, name), rtol=1e-9, atol=1e-12, msg=name)
        for one, total in ((model, losses.total), (theirs, expected.total)):
            one.zero_grad()
            total.backward()
            with torch.no_grad():
                for parameter in one.parameters():
                    parameter -= 1e-4 * parameter.grad
        for (name, ours), other in zip(model.named_parameters(), theirs.parameters(), strict=True):
            scale = float(other.grad.abs().max())
            torch.testing.assert_close(ours.grad, other.grad, rtol=1e-6, atol=1e-7 * scale + 1e-12, msg=name)
    for (name, ours), other in zip(model.named_buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-12, msg=name)


def test_differences_are_noticed(tmp_path: Path) -> None:
    """Protects the benchmark's verdict: relative differences by hand, and a gradient that one side lacks."""

    def save(name: str, loss: float, **gradients: list[float]) -> Path:
        tensors = {key: torch.tensor(values) for key, values in gradients.items()}
        torch.save({"losses": {"cls": 2.0, "bas": loss}, "gradients": tensors}, tmp_path / name)
        return tmp_path / name

    first, second = save("first", 0.55, a=[3.0, 0.0], b=[4.5]), save("second", 0.5, a=[3.0, 0.0], b=[4.0])
    assert relative_differences(first, first) == (0, 0)
    assert relative_differences(first, second) == pytest.approx((0.1, 0.1))
    assert relative_differences(save("third", 0.5, a=[3.0, 0.0]), second)[1] == float("inf")


def test_reduced_scale_decoding_is_not_identical(tmp_path: Path) -> None:
    """Protects the decision to decode JPEGs in full: at half scale pixels differ, and CUB's sizes cannot be reduced."""
    (tmp_path / "large").mkdir()
    mean, largest = reduced_scale_differences(make_pictures(tmp_path / "large", (600, 520), 4).paths, 256)
    assert mean > 0.3 and largest > 10
    # The shorter side would fall below 256.
    assert reduced_scale_differences(make_pictures(tmp_path, CUB_SIZE, 4).paths, 256) == (0, 0)


def test_command() -> None:
    """Protects the command: sides in processes of their own, a row with ratios and agreeing figures, loader rates."""
    command = "-m tests.benchmark_training --dataset CUB --arch mobilenet --batch_size 2 --size 64 --repeats 1"
    options = "--threads 1 --pictures 8 --num_workers 0 1"
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, *command.split(), *options.split()], cwd=root, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("CUB mobilenet"))
    figures = [float(value) for value in row.split()[2:]]
    assert len(figures) == 12 and all(value >= 0 for value in figures)
    assert done.stdout.count("pictures/s") == 4 and "differ by 0.00" in done.stdout
