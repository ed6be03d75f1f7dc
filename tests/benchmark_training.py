"""Speed and memory of training against the authors' way: `python -m tests.benchmark_training` from the root.

Step: the same weights and pictures on both sides; losses and gradients must agree, or the benchmark fails. Each side
lives in a process of its own, and they step in turn, so that what else the machine does hits all of them.

The authors' way is re-implemented literally:
- f2 for the masked branch is a deep copy made at every step (CUB), or a kept copy whose weights are overwritten with
  f2's at every step (ILSVRC, where the authors keep it in the model);
- `copy.deepcopy` keeps `requires_grad`, so the backward pass computes the copy's weight gradients, which nobody reads.
  Taken as it stands that is the authors' step ("authors"). A second ratio is against the same step with the copy's
  `requires_grad` switched off ("constant copy"), for those who would not count it;
- the generator computes all K foreground maps; the label's map, S, S_bg and the ratio are picked in loops over samples;
- L_frg takes part whatever its weight is, 0 included;
- contiguous (NCHW) memory, and the C library's own handling of freed memory.
Ours is the step that `train.py` takes by default on a CPU, Winograd's algorithm for wide convolutions included.
The optimiser is the same on both sides. The kept copy has no part in it.

Loader: pictures per second of the training loader alone, to be held against those of the step, and what JPEG decoding
at reduced scale (PIL's draft mode) would change: pixels after the resize differ, so it stays out.

Times are the machine's own. Processor seconds are less disturbed by other work than the clock's.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from tests.benchmark import DATASETS, training_step
from utils.data.split import Split
from utils.data.training import build_training_loader
from utils.demo.compose import pictures_folder
from utils.models.bas import BAS
from utils.models.losses import BASLosses
from utils.models.recipe import Recipe
from utils.models.registry import ARCHS
from utils.system.memory import peak_memory_mib, reuse_freed_memory
from utils.system.options import NATURAL, POSITIVE, SIDE, CommandParser
from utils.training.optim import build_optimizer

SIDES = ("authors", "constant copy", "ours")
CUB_SIZE = (500, 375)  # width and height of most of CUB's pictures
LARGE_SIZE = (1500, 1125)
# Relative. At random weights gradients amplify rounding: float32 lies 1 to 2 % from float64 (contiguous memory) and up
# to 6 % (channels last, where PyTorch's batch normalisation on the CPU sums in float32 and not in float64).
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-3, 0.15
RESIZE, CROP = 256, 224


# --- the authors' way


class AuthorsStep:
    """The losses of a training step as the authors compute them; see the module's docstring.

    Args:
        model: any BAS model; its layers are used, none of its branches.
        recipe: the losses' weights and the ratio's rule.
        keep_copy: overwrite the weights of one copy of f2 (ILSVRC) instead of copying f2 anew at every step (CUB).
        constant_copy: switch off the copy's `requires_grad`.
    """

    def __init__(self, model: BAS, recipe: Recipe, keep_copy: bool, constant_copy: bool) -> None:
        self._model, self._recipe, self._constant_copy = model, recipe, constant_copy
        self._f2 = nn.Sequential(*model.f2_stages(), model.head)
        self._kept = self._copy() if keep_copy else None

    def _copy(self) -> nn.Module:
        return copy.deepcopy(self._f2).requires_grad_(not self._constant_copy)

    def _fresh_copy(self) -> nn.Module:
        if self._kept is None:
            return self._copy()
        self._kept.load_state_dict(self._f2.state_dict())
        self._kept.zero_grad()
        return self._kept

    def __call__(self, images: Tensor, labels: Tensor) -> BASLosses:
        """(B, 3, S, S) pictures and (B,) labels -> the four losses and their weighted sum."""
        features = self._model.f1(images)
        all_maps = self._model.classifier_loc(features)
        foreground = torch.zeros(len(images), 1, *all_maps.shape[2:], dtype=images.dtype, device=images.device)
        for i in range(len(images)):
            foreground[i, 0] = all_maps[i, labels[i]]
        class_maps = self._f2(features)
        logits = class_maps.mean(dim=(2, 3))
        masked_logits = (class_maps * F.avg_pool2d(foreground, 2, ceil_mode=True)).mean(dim=(2, 3))
        background_logits = self._fresh_copy()(features.detach() * (1 - foreground)).mean(dim=(2, 3))

        ratios = torch.zeros(len(images), dtype=images.dtype, device=images.device)
        for i in range(len(images)):
            whole, background = logits[i, labels[i]].detach(), background_logits[i, labels[i]]
            beyond = background >= whole if self._recipe.ratio_compare == "ge" else background > whole
            if not beyond:
                ratios[i] = background / (whole + 1e-8)
        cls, frg = F.cross_entropy(logits, labels), F.cross_entropy(masked_logits, labels)
        bas, area = ratios.mean(), foreground.mean()
        total = cls + self._recipe.frg_weight * frg + bas + self._recipe.area_weight * area
        return BASLosses(cls, frg, bas, area, total)


# --- one side, in a process of its own


def build_step(way: str, dataset: str, arch: str, batch_size: int, size: int) -> tuple[BAS, Callable[[], BASLosses]]:
    """One side's model and its training step; the same weights and pictures whatever the side.

    Args:
        way: one of SIDES.
        dataset: `CUB` or `ILSVRC`.
        arch: backbone.
        batch_size: pictures.
        size: their side in pixels.

    Returns:
        The model in training mode; a function that takes one step with the optimiser and gives the losses before it.
    """
    torch.manual_seed(0)
    models = DATASETS[dataset]
    model, recipe = models.build(arch).train(), models.recipe(arch)
    nn.init.uniform_(model.head[4].bias, 0.0, 0.3)  # away from 0, where the final ReLU would hide differences
    images, labels = torch.randn(batch_size, 3, size, size), torch.randint(0, model.num_classes, (batch_size,))
    if way == "ours":
        return model, training_step(model.place(images.device), recipe, images, labels)
    authors = AuthorsStep(model, recipe, keep_copy=dataset == "ILSVRC", constant_copy=way == "constant copy")
    optimizer = build_optimizer(model, recipe.lr, recipe.momentum, recipe.weight_decay)

    def step() -> BASLosses:
        losses = authors(images, labels)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        optimizer.step()
        return losses

    return model, step


def serve_steps(way: str, args: argparse.Namespace) -> None:
    """Takes a first step and saves what it gave, then one step a line of stdin; a JSON line answers each."""
    if way == "ours":
        reuse_freed_memory()
    torch.set_num_threads(args.threads)
    model, step = build_step(way, args.dataset[0], args.arch[0], args.batch_size, args.size)
    losses = step()._asdict()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    torch.save({"losses": {name: loss.item() for name, loss in losses.items()}, "gradients": gradients}, args.result)
    del losses, gradients
    print(json.dumps({}), flush=True)
    for _ in sys.stdin:
        clock, processor = time.perf_counter(), time.process_time()
        step()
        times = {"seconds": time.perf_counter() - clock, "processor": time.process_time() - processor}
        print(json.dumps({**times, "mebibytes": peak_memory_mib(torch.device("cpu"))}), flush=True)


@contextmanager
def serving(way: str, dataset: str, arch: str, result: Path, args: argparse.Namespace) -> Iterator[subprocess.Popen]:
    """A process of :func:`serve_steps`, ended on leaving."""
    command = [sys.executable, "-m", "tests.benchmark_training", "--one", way, "--result", str(result)]
    command += ["--dataset", dataset, "--arch", arch, "--batch_size", str(args.batch_size), "--size", str(args.size)]
    command += ["--threads", str(args.threads)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait()


def answer(process: subprocess.Popen) -> dict[str, float]:
    """The next JSON line of a serving process; ends this one where there is none."""
    line = process.stdout.readline()
    if not line:
        sys.exit("a side of the benchmark ended before its time; what it said stands above")
    return json.loads(line)


# --- the comparison of steps


def compare_steps(dataset: str, arch: str, args: argparse.Namespace) -> bool:
    """Times the sides in turn and prints a row; returns whether losses and gradients agree."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        results = {way: Path(folder) / f"{way}.pt" for way in SIDES}
        processes = {}
        for way in SIDES:
            processes[way] = stack.enter_context(serving(way, dataset, arch, results[way], args))
            answer(processes[way])  # the first step: not timed
        differences = [relative_differences(results["ours"], results[way]) for way in SIDES[:2]]
        figures: dict[str, list[dict[str, float]]] = {way: [] for way in SIDES}
        for _ in range(args.repeats):
            for way, process in processes.items():
                print("step", file=process.stdin, flush=True)
                figures[way].append(answer(process))
    middle = {
        way: {name: median(step[name] for step in steps) for name in ("seconds", "processor", "mebibytes")}
        for way, steps in figures.items()
    }
    loss, gradient = (max(values) for values in zip(*differences, strict=True))
    agree = loss < LOSS_TOLERANCE and gradient < GRADIENT_TOLERANCE
    ours = middle["ours"]
    row = "".join(f"{middle[way]['seconds'] / args.batch_size:15.3f}" for way in SIDES)
    for way in SIDES[:2]:
        row += f"{middle[way]['seconds'] / ours['seconds']:9.2f}{middle[way]['processor'] / ours['processor']:7.2f}"
    row += "".join(f"{middle[way]['mebibytes']:15.0f}" for way in SIDES)
    row += f"{loss:10.0e}{gradient:10.0e}" + ("" if agree else "  DIFFERENT")
    print(f"{dataset + ' ' + arch:18}{row}", flush=True)
    return agree


def print_head() -> None:
    """The two lines above the rows of :func:`compare_steps`."""
    groups = ("seconds per picture", 45), ("authors /", 16), ("constant /", 16), ("peak MiB", 45), ("differences", 20)
    print(f"{'':18}" + "".join(f"{title:>{width}}" for title, width in groups))
    ways = "".join(f"{way:>15}" for way in SIDES)
    print(f"{'':18}{ways}" + f"{'clock':>9}{'CPU':>7}" * 2 + f"{ways}{'losses':>10}{'gradients':>10}")


def relative_differences(ours: Path, theirs: Path) -> tuple[float, float]:
    """How far two first steps are apart: the largest relative difference of a loss, and that of the gradients.

    The gradients are compared as one vector, by its norm; test_benchmark_training.py holds every parameter's to 1e-6 in
    float64.

    Args:
        ours, theirs: files of :func:`serve_steps`.
    """
    first, second = (torch.load(path) for path in (ours, theirs))
    loss = max(abs(first["losses"][name] - value) / max(abs(value), 1e-12) for name, value in second["losses"].items())
    if first["gradients"].keys() != second["gradients"].keys():
        return loss, math.inf
    pairs = [(first["gradients"][name], gradient) for name, gradient in second["gradients"].items()]
    apart = math.hypot(*(float((a - b).norm()) for a, b in pairs))
    return loss, apart / math.hypot(*(float(b.norm()) for _, b in pairs))


# --- the loader


def make_pictures(folder: Path, size: tuple[int, int], count: int) -> Split:
    """JPEG files of one size, made of the demo's photographs of places, as a split of two classes."""
    sources = sorted((pictures_folder() / "backgrounds").iterdir())
    paths = []
    for index in range(count):
        paths.append(folder / f"{index}.jpg")
        with Image.open(sources[index % len(sources)]) as picture:
            picture.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(paths[-1], quality=92)
    labels = np.arange(count) % 2
    return Split("train", "benchmark", tuple(map(str, range(count))), tuple(paths), labels, {}, ("even", "odd"), {})


def loader_rate(split: Split, batch_size: int, num_workers: int) -> tuple[float, float]:
    """Pictures per second of the training loader alone: (from its start, after the first batch).

    The second leaves out the start of the worker processes, which an epoch of a real data set does not notice.
    """
    loader = build_training_loader(split, RESIZE, CROP, batch_size, num_workers, 0, torch.device("cpu"))
    begin = time.perf_counter()
    arrivals = [time.perf_counter() for _ in loader]
    rest = len(split) - batch_size
    return len(split) / (arrivals[-1] - begin), rest / (arrivals[-1] - arrivals[0])


def reduced_scale_differences(paths: Sequence[Path], resize: int) -> tuple[float, float]:
    """What decoding JPEGs at reduced scale changes after the resize: mean and largest difference, of 255.

    Args:
        paths: JPEG files.
        resize: side of the resized picture; PIL's draft mode keeps every reduced side at least as long.
    """
    differences = []
    for path in paths:
        pixels = []
        for draft in (False, True):
            with Image.open(path) as picture:
                if draft:
                    picture.draft("RGB", (resize, resize))
                small = picture.convert("RGB").resize((resize, resize), Image.Resampling.BILINEAR)
            pixels.append(np.asarray(small, dtype=np.int16))
        differences.append(np.abs(pixels[0] - pixels[1]))
    return float(np.mean(differences)), float(np.max(differences))


def measure_loader(args: argparse.Namespace) -> None:
    """Prints the loader's rates by number of workers, and what reduced-scale decoding would change."""
    for size in (CUB_SIZE, LARGE_SIZE):
        with tempfile.TemporaryDirectory() as folder:
            split = make_pictures(Path(folder), size, args.pictures)
            print(f"\ntraining loader alone, {args.pictures} JPEGs of {size[0]} x {size[1]}, batch {args.batch_size}")
            for num_workers in args.num_workers:
                whole, running = loader_rate(split, args.batch_size, num_workers)
                print(
                    f"{num_workers:4} workers{running:8.0f} pictures/s ({whole:.0f} with the workers' start)",
                    flush=True,
                )
            mean, largest = reduced_scale_differences(split.paths[:32], RESIZE)
            print(f"decoded at reduced scale, then {RESIZE} px: differ by {mean:.2f} of 255, at most {largest:.0f}")


def main() -> None:
    """Compares every data set and backbone asked for, then measures the loader; exit code 1 where figures differ."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--dataset", choices=DATASETS, nargs="+", default=list(DATASETS))
    parser.add_argument("--arch", choices=ARCHS, nargs="+", default=list(ARCHS))
    parser.add_argument("--batch_size", type=POSITIVE, default=8, help="pictures in a batch (default: %(default)s)")
    parser.add_argument("--size", type=SIDE, default=224, help="side of the crops (default: %(default)s)")
    parser.add_argument("--repeats", type=POSITIVE, default=3, help="timed steps of a side (default: %(default)s)")
    parser.add_argument("--threads", type=POSITIVE, default=os.cpu_count(), help="of a side (default: all cores)")
    parser.add_argument("--part", choices=("step", "loader"), nargs="+", default=["step", "loader"])
    parser.add_argument("--pictures", type=POSITIVE, default=256, help="of the loader (default: %(default)s)")
    parser.add_argument("--num_workers", type=NATURAL, nargs="+", default=[0, 1, 2, 4], help="of the loader")
    parser.add_argument("--one", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        serve_steps(args.one, args)
        return
    agree = True
    if "step" in args.part:
        print(f"batch {args.batch_size}, {args.size} px, {args.threads} threads, torch {torch.__version__}")
        print_head()
        rows = [compare_steps(dataset, arch, args) for dataset in args.dataset for arch in args.arch]
        agree = all(rows)
    if "loader" in args.part:
        measure_loader(args)
    sys.exit(0 if agree else 1)


if __name__ == "__main__":
    main()
