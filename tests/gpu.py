"""What only the device can tell: `python -m tests.gpu` checks and measures a GPU, and prints a table.

Exit code 1 where a check fails; figures without a bound are reported. `--device cpu` runs what a CPU can show; a check
that needs CUDA is listed as not run. Times are medians between two synchronisations, after a warm-up.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import CUB.Model
import ILSVRC.Model
from tests.benchmark_training import CUB_SIZE, make_pictures
from tests.gpu_bench import (
    FEW_CLASSES,
    Bench,
    Finding,
    boxes_of,
    distance,
    gradient_of,
    gradients_of,
    inputs,
    make_trainer,
    pictures,
    recipe_of,
    relative,
    take_step,
    training_batch,
    weights_of,
)
from tests.gpu_speed import measure_compiled, measure_evaluation, measure_loader, measure_memory, measure_training
from tests.reference_weights import PAIRS, batch, fill, golden
from utils.data.dataset import ROOT
from utils.data.training import TrainingBatch
from utils.data.transforms import normalize
from utils.evaluation.kinds import MapKind
from utils.evaluation.run import _Output, build_loader
from utils.evaluation.spec import build_spec
from utils.models.bas import call_frozen, convolve_selected
from utils.models.fold import fold_batch_norm
from utils.models.inception import mean_of_neighbours
from utils.models.losses import background_activation_ratio, bas_losses
from utils.models.registry import ARCHS, build
from utils.runs.provenance import versions
from utils.runs.settings import Engine
from utils.system.devices import choose_device, set_numerics
from utils.system.options import PLACE, CommandParser
from utils.system.processes import process_group
from utils.training.engine import _step
from utils.training.objective import training_pass

DATASETS = {"CUB": CUB.Model, "ILSVRC": ILSVRC.Model}
STEPS = 18  # with more than one look at the figures


def check_golden(bench: Bench) -> Iterator[Finding]:
    """The authors' first step of all eight models, in float32 in both memory layouts, and (reported) with TF32."""
    ways = {"": (False, None)}
    if bench.is_cuda:
        ways |= {", NCHW": (False, False), ", TF32": (True, None)}
    for way, (tf32, channels_last) in ways.items():
        set_numerics(tf32, deterministic=False)
        for dataset, arch in PAIRS if not bench.quick else (("CUB", "mobilenet"),):
            expected, recipe = golden(dataset, arch), DATASETS[dataset].recipe(arch)
            model = fill(build(recipe)).train().place(bench.device, channels_last)
            images, labels = (values.to(bench.device) for values in batch(0, model.num_classes))
            losses = bas_losses(training_pass(model, images, labels, recipe), labels, recipe)
            losses.total.backward()  # type: ignore[no-untyped-call]
            figures = expected["train"][0]
            off = max(relative(getattr(losses, name).item(), figures[name]) for name in ("cls", "frg", "area", "total"))
            norms = {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}
            worst, where = max((relative(norms[name], norm), name) for name, norm in expected["grad_norm"].items())
            title = f"{dataset} {arch}{way}: losses {off:.0e}, gradients {worst:.0e} ({where})"
            # The reference's weights amplify rounding: 5e-2 for InceptionV3 on a CPU.
            yield Finding(title, None if tf32 else off < 1e-4 and worst < 1e-1)
    set_numerics(False, deterministic=False)


def check_operators(bench: Bench) -> Iterator[Finding]:
    """The method's own operators in float32 there, against float64 on the CPU."""
    torch.manual_seed(0)
    features, weight, bias = torch.randn(4, 32, 14, 14), torch.randn(4, 1, 32, 3, 3), torch.randn(4, 1)
    activation, background = torch.rand(64) + 0.1, torch.rand(64)
    norm = torch.nn.Sequential(torch.nn.Conv2d(32, 16, 3), torch.nn.BatchNorm2d(16)).train()
    results: list[list[Tensor]] = []
    for device, dtype in ((torch.device("cpu"), torch.float64), (bench.device, torch.float32)):
        inputs = features.to(device, dtype).requires_grad_()
        selected = convolve_selected(inputs, weight.to(device, dtype), bias.to(device, dtype))
        frozen = call_frozen(copy.deepcopy(norm).to(device, dtype), inputs)
        (gradient,) = torch.autograd.grad(frozen.square().sum() + selected.square().sum(), inputs)
        ratio = background_activation_ratio(activation.to(device, dtype), background.to(device, dtype), "gt")
        pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
        results.append([selected, frozen, gradient, ratio, normalize(pixels.to(device)).to(dtype)])
    for name, found, expected in zip(
        ("selected maps", "frozen f2", "gradient", "ratio", "normalised pixels"), results[1], results[0], strict=True
    ):
        off = distance(found, expected)
        yield Finding(f"{name}: {off:.0e}", off == 0 if name == "normalised pixels" else off < 1e-6)


def check_layers(bench: Bench) -> Iterator[Finding]:
    """Every convolution and pooling of the backbones in float32, in both memory layouts, forwards and backwards, on the
    shapes that it gets in training, against the same in float64."""
    functions: list[nn.Module] = [nn.MaxPool2d(3, 1, 1), Mean()]  # InceptionV3 calls them as such
    for arch in bench.archs:
        model = build(recipe_of(bench, arch)).train().place(bench.device)
        seen: dict[str, tuple[nn.Module, torch.Size]] = {}

        def note(layer, inputs, _, seen=seen) -> None:
            seen.setdefault(f"{layer} {tuple(inputs[0].shape)}", (layer, inputs[0].shape))

        for layer in model.modules():
            if isinstance(layer, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
                layer.register_forward_hook(note)
        model.f2(model.f1(inputs(bench, 0, 4)[0].to(bench.device)))
        if arch == "inception":
            seen |= {str(function): (function, torch.Size((4, 288, 28, 28))) for function in functions}
        for name, layout in (("NCHW", torch.contiguous_format), ("channels last", torch.channels_last)):
            worst, where = max(
                (layer_error(copy.deepcopy(layer), shape, layout, bench.device), key)
                for key, (layer, shape) in seen.items()
            )
            yield Finding(f"{arch}, {name}: {worst:.0e} ({where})", worst < 1e-4)
    if "inception" in bench.archs:
        off = layer_error(nn.AvgPool2d(3, 1, 1), torch.Size((4, 288, 28, 28)), torch.channels_last, bench.device)
        yield Finding(f"PyTorch's own padded mean, channels last: {off:.0e}")


class Mean(nn.Module):
    """InceptionV3's mean as a layer."""

    def forward(self, maps: Tensor) -> Tensor:
        return mean_of_neighbours(maps)


def layer_error(layer: nn.Module, shape: torch.Size, layout: torch.memory_format, device: torch.device) -> float:
    """How far a layer's output and gradients in float32 are from those in float64, the largest of them, relative."""
    torch.manual_seed(0)
    layer._forward_hooks.clear()
    values, results = torch.randn(shape, device=device), []
    for dtype in (torch.float64, torch.float32):
        own = copy.deepcopy(layer).to(device, dtype)
        maps = values.to(dtype)
        if dtype is torch.float32:
            own, maps = own.to(memory_format=layout), maps.contiguous(memory_format=layout)  # type: ignore[call-overload]
        maps.requires_grad_()
        out = own(maps)
        weights = torch.linspace(-1, 1, out.numel(), device=device, dtype=torch.float64).view(out.shape).to(dtype)
        wanted = [maps, *own.parameters()]
        results.append([out, *torch.autograd.grad((out * weights).sum(), wanted)])
    return max(distance(found, expected) for expected, found in zip(*results, strict=True))


def check_repetition(bench: Bench) -> Iterator[Finding]:
    """The same steps twice, and once interrupted by a copy of the state: the same bits, with --deterministic."""
    set_numerics(False, deterministic=True)
    try:
        ends = []
        for interrupted in (False, False, True):
            trainer = make_trainer(bench, Engine(), arch="resnet", **FEW_CLASSES)  # which pools
            for number in range(4):
                if interrupted and number == 2:
                    state = copy.deepcopy((trainer.model.state_dict(), trainer.optimizer.state_dict()))
                    trainer = make_trainer(bench, Engine(), arch="resnet", **FEW_CLASSES)
                    trainer.model.load_state_dict(state[0])
                    trainer.optimizer.load_state_dict(state[1])
                take_step(bench, trainer, number)
            ends.append(weights_of(trainer))
        yield Finding("run to run", bool(torch.equal(ends[0], ends[1])))
        yield Finding("resumed", bool(torch.equal(ends[0], ends[2])))
    finally:
        torch.use_deterministic_algorithms(False)


def check_layouts(bench: Bench) -> Iterator[Finding]:
    """Memory layouts and the compiled step against the plain one's losses, and accumulation against the whole batch's
    gradients; the compiled step is compiled once."""
    expected = take_step(bench, make_trainer(bench, Engine(channels_last=False)), 0)
    found = take_step(bench, make_trainer(bench, Engine(channels_last=True)), 0)
    off = max(relative(found[key].item(), expected[key].item()) for key in expected)
    yield Finding(f"channels last: {off:.0e}", off < 1e-4)
    ends = []
    for parts in (1, 2):  # of VGG16, in which no picture sees another
        trainer = make_trainer(bench, Engine(grad_accum=parts), arch="vgg", final_relu=False)  # behind it L_bas is 0
        _step(trainer, trainer.objective(), training_batch(bench, 0))
        ends.append(gradients_of(trainer.model))
    yield Finding(f"accumulated: {distance(*ends):.0e}", distance(*ends) < 1e-4)
    if not bench.is_cuda:
        return
    trainer = make_trainer(bench, Engine(compile=True))
    found = take_step(bench, trainer, 0)
    off = max(relative(found[key].item(), expected[key].item()) for key in expected)
    yield Finding(f"compiled: {off:.0e}", off < 1e-4)
    with torch.compiler.set_stance("fail_on_recompile"):  # raises
        for number in range(1, 4):
            take_step(bench, trainer, number)
    yield Finding("compiled: not again in three more steps", True)


def check_precisions(bench: Bench) -> Iterator[Finding]:
    """Half precision against float32: losses and the gradient's direction on a network that was trained a little.

    L_bas is a ratio of two small means, and may be much further off than they are: reported, without a bound.
    """
    trainer = make_trainer(bench, Engine(), **FEW_CLASSES)
    for number in range(3 if bench.quick else 50):
        take_step(bench, trainer, number)
    exact = gradient_of(bench, trainer, Engine())
    for amp, loss_bound, cosine_bound in (("bf16", 2e-2, 0.95), ("fp16", 2e-3, 0.995)):
        if amp == "fp16" and not bench.is_cuda:
            continue
        losses, gradient = gradient_of(bench, trainer, Engine(amp=amp))
        cosine = float(torch.nn.functional.cosine_similarity(exact[1], gradient, dim=0))
        off = {name: relative(losses[name].item(), exact[0][name].item()) for name in ("cls", "frg", "area", "bas")}
        is_close = max(value for name, value in off.items() if name != "bas") < loss_bound and cosine > cosine_bound
        listed = ", ".join(f"{name} {value:.0e}" for name, value in off.items())
        # A few pictures and steps have a gradient that is all rounding.
        yield Finding(f"{amp}: {listed}, gradients' cosine {cosine:.4f}", None if bench.quick else is_close)


def check_evaluation(bench: Bench) -> Iterator[Finding]:
    """Boxes on the device against the CPU's, one by one against batches, folded against not, plain against swept; of
    three of ten classes, so that it matters which come first."""
    trainer = make_trainer(bench, Engine(), **FEW_CLASSES)
    for number in range(4 if bench.quick else 20):
        take_step(bench, trainer, number)
    model = trainer.model.eval()
    spec = build_spec(replace(recipe_of(bench), top_k=3), ten_crops=False)
    pixels, labels = pictures(bench)
    expected = boxes_of(model, pixels, labels, spec, bench.device)
    others: dict[str, np.ndarray] = {
        "one by one": np.concatenate(
            [boxes_of(model, pixels[[row]], labels[[row]], spec, bench.device) for row in range(len(labels))]
        ),
        "folded": boxes_of(fold_batch_norm(model), pixels, labels, spec, bench.device),
        "swept with other k": boxes_of(model, pixels, labels, spec, bench.device, (MapKind("bas", 2),)),
    }
    if bench.is_cuda:
        on_cpu = copy.deepcopy(model).place(torch.device("cpu"))
        others["on the CPU"] = boxes_of(on_cpu, pixels, labels, spec, torch.device("cpu"))
    for name, found in others.items():
        share = float((found == expected).all(axis=1).mean())
        # One pixel at the threshold, rounded otherwise, moves a box.
        bound = 1 if name == "swept with other k" else 0.95
        yield Finding(f"{name}: {100 * share:.1f} % of boxes equal", share >= bound)


def check_waiting(bench: Bench) -> Iterator[Finding]:
    """No step waits for the device: PyTorch raises where one would."""
    trainer = make_trainer(bench, Engine())
    take_step(bench, trainer, 0)  # constants travel once
    batches = [training_batch(bench, number) for number in range(STEPS)]
    objective = trainer.objective()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for one in batches:
            _step(trainer, objective, one)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    yield Finding(f"{STEPS} steps without a wait", True)
    model, spec = trainer.model.eval(), build_spec(recipe_of(bench), kinds=("bas", "cam"))
    with tempfile.TemporaryDirectory() as folder:
        split = make_pictures(Path(folder), CUB_SIZE, 16)
        batches = list(build_loader(split, spec, 8, 2, bench.device))
    _Output(model, batches[0], spec, bench.device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        _Output(model, batches[1], spec, bench.device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    yield Finding("an evaluation's batch is launched without a wait", True)


def check_pinned(bench: Bench) -> Iterator[Finding]:
    """Batches whose pinned memory is handed out anew, and overwritten, as soon as a step is launched: the same weights
    as with a wait after every step."""
    ends = []
    set_numerics(False, deterministic=True)
    try:
        for waits in (True, False):
            trainer = make_trainer(bench, Engine(), **FEW_CLASSES)
            for number in range(20 if bench.quick else 200):
                one = training_batch(bench, number % 8)
                _step(trainer, trainer.objective(), one)
                if waits:
                    bench.wait()
                shape = one.images.shape
                del one
                torch.empty(shape, dtype=torch.uint8).pin_memory().fill_(255)
            ends.append(weights_of(trainer))
    finally:
        torch.use_deterministic_algorithms(False)
    yield Finding("overwritten pinned batches", bool(torch.equal(*ends)))


def check_processes(bench: Bench) -> Iterator[Finding]:
    """The step of several processes against that of one: VGG16, in which no picture sees another; and with synchronised
    batch statistics, which need two cards, MobileNetV1."""
    cards = torch.cuda.device_count() if bench.is_cuda else 2
    plan = [("vgg", count) for count in sorted({1, cards})] + [("mobilenet", cards)]
    for arch, count in plan:
        if arch == "mobilenet" and (cards < 2 or not bench.is_cuda):
            yield Finding("sync_bn: not run, it needs two cards")
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "gradients.pt")
            torch.multiprocessing.spawn(step_of_process, (count, bench, arch, path), nprocs=count)
            found = torch.load(path, weights_only=True)
        trainer = make_trainer(bench, Engine(), arch=arch, final_relu=False)
        take_step(bench, trainer, 0)
        off = distance(found, gradients_of(trainer.model))
        yield Finding(f"{arch}, {count} processes: gradients {off:.0e}", off < 1e-4)


def step_of_process(rank: int, count: int, bench: Bench, arch: str, path: Path) -> None:
    """One process of :func:`check_processes`: a step on its share of a batch; the first one saves the gradients."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29431"}
    torch.set_num_threads(1)
    device = choose_device("cuda" if bench.is_cuda else "cpu")
    set_numerics(False, deterministic=False)
    with process_group(device):
        own = replace(bench, device=device)
        trainer = make_trainer(own, Engine(), arch=arch, sync_bn=arch == "mobilenet", final_relu=False)
        whole = training_batch(own, 0)
        share = [values.chunk(count)[rank] for values in whole[:3]]
        objective = trainer.objective()
        if count == 1:  # of which `prepare` makes no distributed module
            objective = DistributedDataParallel(objective)
        _step(trainer, objective, TrainingBatch(*share, ()))
        if rank == 0:
            torch.save(gradients_of(trainer.model), path)


def check_resume(bench: Bench) -> Iterator[Finding]:
    """The command itself with --deterministic, stopped by SIGTERM and resumed: the weights of the run that was not."""
    ends = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("whole", "stopped"):
            command = [sys.executable, "train.py", "--demo", "--epochs", "3", "--deterministic", "--show_step", "1"]
            command += ["--device", str(bench.device), "--save_path", str(Path(folder, name))]
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
            run = Path(folder, name, "mobilenet")
            while name == "stopped" and process.poll() is None and not list(run.glob("states/epoch_*")):
                time.sleep(0.05)
            if name == "stopped":
                process.terminate()
                yield Finding(f"stopped with exit code {process.wait()}", process.returncode == 75)
                process = subprocess.Popen([*command, "--resume"], cwd=ROOT, stdout=subprocess.DEVNULL)
            if process.wait():
                raise RuntimeError(f"{' '.join(command)} ended with exit code {process.returncode}")
            (weights,) = run.glob("*.pth.tar")
            ends.append(torch.load(weights, weights_only=True))
    yield Finding("the resumed command", all(torch.equal(value, ends[1][key]) for key, value in ends[0].items()))


def check_demo(bench: Bench) -> Iterator[Finding]:
    """The demo as a user starts it, in every precision: GT-known Loc within four points of the CPU's."""
    expected = 93.1  # Img/README.md
    kinds = {"float32": ("--no-tf32",), "TF32": ("--tf32",), "bf16": ("--amp", "bf16"), "fp16": ("--amp", "fp16")}
    kinds["compiled"] = ("--compile",)
    for name, options in list(kinds.items())[: 2 if bench.quick else None]:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "train.py", "--demo", "--save_path", folder, "--device", str(bench.device)]
            begin = time.perf_counter()
            subprocess.run([*command, *options], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - begin
            scores = json.loads(Path(folder, "results.json").read_text())["scores"]
        found = scores["gt_known_loc"]["image_mean"]
        yield Finding(f"{name}: GT-known Loc {found:.1f} in {seconds:.0f} s", abs(found - expected) <= 4)


CHECKS: dict[str, tuple[Callable[[Bench], Iterator[Finding]], bool]] = {  # and whether it needs CUDA
    "the authors' numbers": (check_golden, False),
    "operators against float64": (check_operators, False),
    "layers in both layouts": (check_layers, False),
    "repeated and resumed": (check_repetition, False),
    "layouts": (check_layouts, False),
    "half precision": (check_precisions, False),
    "evaluation": (check_evaluation, False),
    "no wait in a step": (check_waiting, True),
    "pinned batches": (check_pinned, True),
    "several processes": (check_processes, False),
    "the command resumed": (check_resume, True),
    "the demo": (check_demo, True),
    "memory": (measure_memory, True),
    "training": (measure_training, False),
    "training, compiled": (measure_compiled, True),
    "inference": (measure_evaluation, False),
    "loader": (measure_loader, False),
}


def tell(title: str, finding: Finding) -> dict[str, Any]:
    """Prints a row of the table; the row for its file."""
    word = {True: "ok", False: "FAILED", None: ""}[finding.passed]
    print(f"{title:28} {word:7}{finding.figure}", flush=True)
    return {"check": title, **finding._asdict()}


def main() -> None:
    parser = CommandParser(description=__doc__)
    parser.add_argument("--device", help="cuda, cuda:1, cpu (default: cuda where there is one)")
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--only", nargs="+", choices=CHECKS, metavar="CHECK", help=f"of: {'; '.join(CHECKS)}")
    parser.add_argument(
        "--arch", nargs="+", choices=ARCHS, help="whose layers, speed and memory are measured (default: all)"
    )
    parser.add_argument("--json", type=PLACE, metavar="FILE", help="save the table there")
    args = parser.parse_args()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as --deterministic has it, before CUDA starts
    bench = Bench(choose_device(args.device), args.quick, args.arch or (("mobilenet",) if args.quick else ARCHS))
    name = torch.cuda.get_device_name(bench.device) if bench.is_cuda else "CPU"
    print(f"{name}, PyTorch {torch.__version__}")
    rows: list[dict[str, Any]] = []
    for title, (check, needs_cuda) in CHECKS.items():
        if args.only and title not in args.only:
            continue
        begin = time.perf_counter()
        set_numerics(False, deterministic=False)
        if needs_cuda and not bench.is_cuda:
            rows.append(tell(title, Finding("not run: it needs CUDA")))
        else:
            try:
                rows.extend(tell(title, finding) for finding in check(bench))  # as they come: it may be stopped
            except (Exception, SystemExit) as error:  # of one check; the others have their own to tell
                words = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                rows.append(tell(title, Finding(words, False)))
        print(f"{title:28}        {time.perf_counter() - begin:.0f} s", flush=True)
    if args.json:
        content = {"device": name, "versions": versions(bench.device), "rows": rows}
        Path(args.json).write_text(json.dumps(content, indent=2) + "\n")
    sys.exit(int(any(row["passed"] is False for row in rows)))


if __name__ == "__main__":
    main()
