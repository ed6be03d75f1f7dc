"""The measurements of `tests/gpu.py`: memory, training, inference, loading."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from tests.benchmark import count_gflop, count_memory
from tests.benchmark_inference import fitted_model, prepare_pictures
from tests.benchmark_processes import evaluation_rate
from tests.benchmark_training import CUB_SIZE, AuthorsStep, loader_rate, make_pictures
from tests.gpu_bench import (
    SIDE,
    Bench,
    Finding,
    inputs,
    make_trainer,
    maps_of,
    pictures,
    recipe_of,
    relative,
    take_step,
    training_batch,
)
from utils.evaluation.spec import build_spec, threshold_grid
from utils.localization.sweep import component_boxes, contour_boxes
from utils.models.checkpoint import save_weights
from utils.models.fold import fold_batch_norm
from utils.runs.settings import Engine
from utils.system.devices import set_numerics
from utils.system.memory import forget_peak_memory, peak_memory_mib
from utils.training.engine import _step

# Whether float32 may round to TF32, and training's --amp.
PRECISIONS = {"float32": (False, "none"), "TF32": (True, "none"), "bf16": (True, "bf16"), "fp16": (True, "fp16")}


def measure_memory(bench: Bench) -> Iterator[Finding]:
    """MiB a picture of a training step, from two sizes of batch, against what the README counts tensor by tensor."""
    bench = replace(bench, quick=False)  # its side is the README's
    for arch in bench.archs:
        for amp in ("none", "bf16"):
            peaks = []
            for size in (16, 48):
                trainer = make_trainer(bench, Engine(amp=amp), size, arch)
                for number in range(2):  # the first one makes what all keep
                    forget_peak_memory(bench.device)
                    take_step(bench, trainer, number, size)
                peaks.append(peak_memory_mib(bench.device) or 0.0)
                del trainer
            counted = count_memory("CUB", arch, SIDE, amp == "bf16")["picture"]
            found = (peaks[1] - peaks[0]) / 32
            title = f"{arch}{'' if amp == 'none' else ', bf16'}: {found:.0f} MiB a picture, counted {counted:.0f}"
            yield Finding(title, relative(found, counted) < 0.15)


def measure_training(bench: Bench) -> Iterator[Finding]:
    """Pictures a second of the step, by backbone and precision, and against the authors' literal step."""
    size = 4 if bench.quick else 32
    for arch in bench.archs:
        rates = {}
        for name, (tf32, amp) in PRECISIONS.items() if bench.is_cuda else [("float32", (False, "none"))]:
            set_numerics(tf32, deterministic=False)
            for layout, channels_last in (("", None), (" NCHW", False)):
                step = our_step(bench, Engine(amp=amp, channels_last=channels_last), size, arch)
                rates[name + layout] = size / bench.seconds(step)
        listed = ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items())
        teraflops = max(rates.values()) * count_gflop("CUB", arch, "train", size=bench.side) / 1000
        yield Finding(f"{arch}: {listed} pictures/s; the fastest is {teraflops:.1f} TFLOP/s")
        for name in ("float32", "TF32") if bench.is_cuda else ("float32",):
            set_numerics(name == "TF32", deterministic=False)
            ratio = rates[name] * bench.seconds(authors_step(bench, size, arch)) / size
            # In exact float32 both sides wait for the same convolutions.
            passed = None if name == "float32" else ratio > 1.15
            yield Finding(f"{arch}, {name}: {ratio:.2f} times the authors' step", passed)
        set_numerics(False, deterministic=False)


def measure_compiled(bench: Bench) -> Iterator[Finding]:
    """What --compile gains in bf16."""
    size = 4 if bench.quick else 32
    set_numerics(True, deterministic=False)
    for arch in bench.archs:
        plain, compiled = (
            bench.seconds(our_step(bench, Engine(amp="bf16", compile=compile), size, arch)) for compile in (False, True)
        )
        yield Finding(f"{arch}: {size / compiled:.0f} pictures/s, {plain / compiled:.2f} times the plain step")
    set_numerics(False, deterministic=False)


def our_step(bench: Bench, engine: Engine, size: int, arch: str) -> Callable[[], object]:
    """A step of the trainer, always on the same batch of bytes on the host."""
    trainer = make_trainer(bench, engine, size, arch)
    one, objective = training_batch(bench, 0, size), trainer.objective()
    return lambda: _step(trainer, objective, one)


def authors_step(bench: Bench, size: int, arch: str) -> Callable[[], None]:
    """A step as the authors take it, on a batch that is on the device already."""
    trainer = make_trainer(bench, Engine(channels_last=False), size, arch)
    authors = AuthorsStep(trainer.model, trainer.recipe, keep_copy=False, constant_copy=False)
    images, labels = (values.to(bench.device) for values in inputs(bench, 0, size))

    def step() -> None:
        trainer.optimizer.zero_grad(set_to_none=True)
        authors(images, labels).total.backward()  # type: ignore[no-untyped-call]
        trainer.optimizer.step()

    return step


def measure_evaluation(bench: Bench) -> Iterator[Finding]:
    """Pictures a second of the network with ten crops, of scoring in one process, and of whole evaluations."""
    pixels, labels = pictures(bench)
    spec = build_spec(recipe_of(bench))
    for arch in bench.archs:
        rates = []
        model = fold_batch_norm(make_trainer(bench, Engine(), arch=arch).model.eval())
        for name in ("float32", "TF32", "fp16") if bench.is_cuda else ("float32",):
            set_numerics(PRECISIONS[name][0], deterministic=False)
            asked = replace(spec, amp=name == "fp16")
            for layout, channels_last in (("", None), (" NCHW", False)):
                model.place(bench.device, channels_last)
                task = partial(maps_of, model, pixels, labels, asked, bench.device, ())
                rates.append(f"{name}{layout} {len(labels) / bench.seconds(task, 3):.0f}")
        yield Finding(f"{arch}, the network: {', '.join(rates)} pictures/s")
    set_numerics(False, deterministic=False)
    score_map = spec.score_map(model, spec.main, np.random.default_rng(0).random((28, 28)).astype(np.float32))
    grid = threshold_grid()
    seconds = bench.seconds(lambda: (component_boxes(score_map, [0.15]), contour_boxes(score_map, grid)))
    yield Finding(f"scoring a noisy map: {1 / seconds:.0f} pictures/s a process")
    if bench.quick:
        return
    with tempfile.TemporaryDirectory() as folder:
        data = prepare_pictures(Path(folder, "data"), 1024)
        for arch in bench.archs:
            checkpoint = save_weights(fitted_model(arch, data, SIDE), Path(folder, f"{arch}99.pth.tar"))
            for options in ((), ("--amp",)):
                rate = evaluation_rate(checkpoint, arch, data, 1, ["--device", bench.device, *options])
                yield Finding(f"{' '.join(('BAS_inference.py --arch', arch, *options))}: {rate:.0f} pictures/s")


def measure_loader(bench: Bench) -> Iterator[Finding]:
    """Pictures of CUB's size a second that the loader's processes read and augment."""
    counts = (2,) if bench.quick else (1, 4, 8)
    with tempfile.TemporaryDirectory() as folder:
        split = make_pictures(Path(folder), CUB_SIZE, 128 if bench.quick else 1024)
        for count in counts:
            yield Finding(f"{loader_rate(split, 32, count)[1]:.0f} pictures/s by {count} processes")
