"""What the checks and the measurements of `tests/gpu.py` share: where and how much, trainers, pictures, distances."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import CUB.Model
from utils.data.images import read_image
from utils.data.training import TrainingBatch
from utils.data.transforms import normalize, resize, stack_pixels
from utils.demo.compose import pictures_folder
from utils.evaluation.kinds import MapKind
from utils.evaluation.maps import make_maps
from utils.evaluation.run import cut_crops
from utils.evaluation.spec import EvaluationSpec
from utils.models.bas import BAS
from utils.models.pretrained import load_imagenet
from utils.models.recipe import Recipe
from utils.models.registry import build
from utils.runs.settings import Engine
from utils.training.engine import Trainer, _step, build_trainer

SIDE = 224
# The settings of few classes: under the paper's, ten classes' maps and scores die, and gradients with them.
FEW_CLASSES: dict[str, Any] = {"final_relu": False, "frozen_statistics": "whole", "generator_rate": 0.05}


class Finding(NamedTuple):
    """One row of the table."""

    figure: str
    passed: bool | None = None  # None: reported


@dataclass(frozen=True)
class Bench:
    """Where and how much is checked."""

    device: torch.device
    quick: bool
    archs: Sequence[str]  # whose layers, speed and memory are measured

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def pictures(self) -> int:
        """Of a batch where its size does not matter to the check."""
        return 4 if self.quick else 16

    @property
    def side(self) -> int:
        """Of pictures where size does not matter to the check."""
        return 64 if self.quick else SIDE

    def seconds(self, task: Callable[[], object], repeats: int = 5) -> float:
        """The median time of a task, the device's work included."""
        times = []
        for number in range(repeats + 2):
            self.wait()
            begin = time.perf_counter()
            task()
            self.wait()
            times.append(time.perf_counter() - begin)
            if number == 1:
                times.clear()  # a warm-up
        return median(times)

    def wait(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize(self.device)


def relative(found: float, expected: float) -> float:
    return abs(found - expected) / max(abs(expected), 1e-12)


def distance(found: Tensor, expected: Tensor) -> float:
    """Relative, in float64 on the CPU."""
    found, expected = (values.detach().double().cpu() for values in (found, expected))
    return float((found - expected).norm() / expected.norm().clamp(min=1e-30))


def recipe_of(bench: Bench, arch: str = "mobilenet") -> Recipe:
    return replace(
        CUB.Model.recipe(arch), num_classes=10, top_k=10, crop_size=bench.side, resize_size=bench.side * 8 // 7
    )


def make_trainer(
    bench: Bench,
    engine: Engine,
    size: int | None = None,
    arch: str = "mobilenet",
    **changes: Any,
) -> Trainer:
    """A trainer of ten classes; MobileNetV1 starts from the shipped weights, all others at random."""
    torch.manual_seed(0)
    recipe = replace(recipe_of(bench, arch), batch_size=size or bench.pictures, **changes)
    model = build(recipe)
    load_imagenet(model, "auto" if arch == "mobilenet" else "none")
    no_loader: Any = None
    return build_trainer(
        model.place(bench.device, engine.channels_last).train(), no_loader, (), recipe, engine, bench.device
    )


def training_batch(bench: Bench, number: int, size: int | None = None) -> TrainingBatch:
    """Crops of the shipped photographs of places."""
    size = size or bench.pictures
    paths = sorted((pictures_folder() / "backgrounds").iterdir())
    chosen = [paths[(number * size + row) % len(paths)] for row in range(size)]
    pixels = stack_pixels([photograph(path, bench.side) for path in chosen])
    labels = torch.arange(size) % 10
    if bench.is_cuda:  # as the loader does
        pixels, labels = pixels.pin_memory(), labels.pin_memory()
    return TrainingBatch(pixels, labels, torch.arange(size), ())


@cache
def photograph(path: Path, side: int) -> Tensor:
    return resize(read_image(path), side)


def inputs(bench: Bench, number: int, size: int | None = None) -> tuple[Tensor, Tensor]:
    one = training_batch(bench, number, size)
    return normalize(one.images), one.labels


def take_step(bench: Bench, trainer: Trainer, number: int, size: int | None = None) -> dict[str, Tensor]:
    """A step of the trainer; its figures."""
    (row,) = _step(trainer, trainer.objective(), training_batch(bench, number, size))
    return row.shown


def weights_of(trainer: Trainer) -> Tensor:
    """All weights as one vector, on the CPU."""
    return torch.cat([p.detach().flatten().cpu() for p in trainer.model.parameters()])


def gradients_of(model: BAS) -> Tensor:
    """The gradients of all weights as one vector, on the CPU."""
    return torch.cat([p.grad.flatten().double().cpu() for p in model.parameters() if p.grad is not None])


def gradient_of(bench: Bench, trained: Trainer, engine: Engine) -> tuple[dict[str, Tensor], Tensor]:
    """The losses of a batch and the gradient of all weights as one vector."""
    model, recipe = copy.deepcopy(trained.model).train(), trained.recipe
    trainer = build_trainer(model, None, (), recipe, engine, bench.device)  # type: ignore[arg-type]
    images, labels = (values.to(bench.device) for values in inputs(bench, 0))
    total, losses, _ = trainer.objective()(images, labels)
    scale = 1024 if engine.amp == "fp16" else 1  # training's begins at 65536 and falls where gradients overflow
    (scale * total).backward()
    return losses, gradients_of(trainer.model) / scale


def pictures(bench: Bench) -> tuple[Tensor, Tensor]:
    paths = sorted((pictures_folder() / "animals").glob("*/*.webp"))[: 8 if bench.quick else 64]
    side = recipe_of(bench).resize_size
    return stack_pixels([resize(read_image(path), side) for path in paths]), torch.arange(len(paths)) % 10


@torch.no_grad()
def maps_of(
    model: BAS, pixels: Tensor, labels: Tensor, spec: EvaluationSpec, device: torch.device, more: Sequence[MapKind]
) -> np.ndarray:
    """(n, h, w) of the spec's main kind of map."""
    with torch.autocast(device.type, enabled=spec.amp):
        encoding = model.encode_crops(*cut_crops(pixels.to(device), spec))
        maps = make_maps(model, encoding, (spec.main, *more), labels.to(device))
    return maps[spec.main][:, 0].float().cpu().numpy()


def boxes_of(
    model: BAS,
    pixels: Tensor,
    labels: Tensor,
    spec: EvaluationSpec,
    device: torch.device,
    more: Sequence[MapKind] = (),
) -> np.ndarray:
    """(n, 4) at the threshold in force."""
    maps = maps_of(model, pixels, labels, spec, device, more)
    threshold = spec.thresholds[spec.main]
    return np.stack([spec.protocol.boxes(spec.score_map(model, spec.main, one), (threshold,))[0] for one in maps])
