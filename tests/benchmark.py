"""FLOPs, time and memory of each backbone: `python -m tests.benchmark` from the repository's root.

FLOPs are exact counts (torch's FlopCounterMode; a multiplication and an addition are two). Times are the machine's own
and good for ratios within one run only. Peak memory is that of a process that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import CUB.Model
import ILSVRC.Model
from utils.data.transforms import CENTRE_CROP
from utils.models.bas import BAS
from utils.models.losses import BASLosses, bas_losses
from utils.models.recipe import Recipe
from utils.models.registry import ARCHS
from utils.models.winograd import use_winograd
from utils.system.memory import peak_memory_mib, reuse_freed_memory
from utils.system.options import POSITIVE, CommandParser
from utils.training.objective import training_pass
from utils.training.optim import build_optimizer

DATASETS = {"CUB": CUB.Model, "ILSVRC": ILSVRC.Model}
CROPS = 10


def measure(dataset: str, arch: str, mode: str, batch_size: int, size: int, repeats: int) -> dict[str, float]:
    """Counts and times one training step, or the inference of a batch with ten crops.

    Args:
        dataset: `CUB` or `ILSVRC`.
        arch: backbone.
        mode: `train` or `inference`.
        batch_size: pictures.
        size: side of the crops in pixels.
        repeats: timed runs after one that is not counted.

    Returns:
        gflop and seconds per picture, peak memory of this process in MiB.
    """
    torch.manual_seed(0)
    run = _build(dataset, arch, mode, batch_size, size)
    run()
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    seconds = (time.perf_counter() - start) / repeats
    return {
        "gflop": count_gflop(dataset, arch, mode, batch_size, size),
        "seconds": seconds / batch_size,
        "mebibytes": peak_memory_mib(torch.device("cpu")),
    }


def count_gflop(dataset: str, arch: str, mode: str, batch_size: int = 2, size: int = 224) -> float:
    """GFLOP per picture; arguments as for :func:`measure`. Counted on shapes alone, nothing is computed."""
    with torch.device("meta"):
        run = _build(dataset, arch, mode, batch_size, size)
        with FlopCounterMode(display=False) as counter:
            run()
    return counter.get_total_flops() / batch_size / 1e9


def count_memory(dataset: str, arch: str, size: int = 224, amp: bool = False) -> dict[str, float]:
    """What a training step must hold at once, counted tensor by tensor.

    Args:
        dataset, arch, size: as for :func:`measure`.
        amp: under bf16 autocast.

    Returns:
        `fixed`, MiB of weights, gradients and momenta; `picture`, MiB that the forward pass of one picture keeps for
        the backward pass. A library's workspace and its cache come on top.
    """
    models = DATASETS[dataset]
    recipe, model = models.recipe(arch), models.build(arch).place(torch.device("cpu")).train()
    weights = sum(parameter.nbytes for parameter in model.parameters())
    own = {value.untyped_storage().data_ptr() for value in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}  # by address; holding the tensors keeps addresses from being used again

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    def count(pictures: int) -> int:
        kept.clear()
        images = torch.randn(pictures, 3, size, size).contiguous(memory_format=torch.channels_last)
        labels = torch.arange(pictures)
        noting = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with noting, torch.autocast("cpu", torch.bfloat16, enabled=amp):
            losses = bas_losses(training_pass(model, images, labels, recipe), labels, recipe)
        bytes_kept = sum(tensor.untyped_storage().nbytes() for at, tensor in kept.items() if at not in own)
        del losses
        return bytes_kept

    return {"fixed": 3 * weights / 2**20, "picture": (count(2) - count(1)) / 2**20}


def _build(dataset: str, arch: str, mode: str, batch_size: int, size: int) -> Callable[[], object]:
    models = DATASETS[dataset]
    model = models.build(arch).place(torch.empty(0).device)
    if mode == "inference":
        return _inference(model, models.recipe(arch), batch_size, size)
    images, labels = torch.randn(batch_size, 3, size, size), torch.randint(0, model.num_classes, (batch_size,))
    return training_step(model.train(), models.recipe(arch), images, labels)


def training_step(model: BAS, recipe: Recipe, images: Tensor, labels: Tensor) -> Callable[[], BASLosses]:
    """A function that takes one training step as `train.py` does, always on the same batch, and gives its losses.

    Args:
        model: placed and in training mode.
        recipe: the losses' weights and the optimiser's settings.
        images: (B, 3, S, S).
        labels: (B,).
    """
    images = images.contiguous(memory_format=torch.channels_last)
    use_winograd(model)  # as train.py does by default; counts on shapes and inference do not notice
    fused = images.device.type == "cpu" or None  # as utils.training.engine takes it; counts on shapes know no kernels
    optimizer = build_optimizer(model, recipe.lr, recipe.momentum, recipe.weight_decay, fused)

    def step() -> BASLosses:
        optimizer.zero_grad(set_to_none=True)
        losses = bas_losses(training_pass(model, images, labels, recipe), labels, recipe)
        losses.total.backward()
        optimizer.step()
        return losses

    return step


def _inference(model, recipe, batch_size: int, size: int) -> Callable[[], None]:
    crops = torch.randn(batch_size, CROPS, 3, size, size)
    labels = torch.randint(0, model.num_classes, (batch_size,))
    model.eval()

    @torch.no_grad()
    def forward() -> None:
        encoding = model.encode_crops(crops, CENTRE_CROP)
        model.fuse_top_k(encoding.features, encoding.scores, recipe.top_k, labels)

    return forward


def main() -> None:
    """Measures every data set and backbone, each in a process of its own, and prints a table."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--dataset", choices=DATASETS, nargs="*", default=list(DATASETS))
    parser.add_argument("--arch", choices=ARCHS, nargs="*", default=list(ARCHS))
    parser.add_argument("--batch_size", type=POSITIVE, default=2, help="pictures in a batch (default: 2)")
    parser.add_argument("--size", type=POSITIVE, default=224, help="side of the crops (default: 224)")
    parser.add_argument("--repeats", type=POSITIVE, default=3, help="timed runs (default: 3)")
    parser.add_argument(
        "--fresh_memory", action="store_true", help="return freed memory to the system, to see what reusing it saves"
    )
    parser.add_argument("--counts", action="store_true", help="only what is counted, not timed: FLOPs and memory")
    parser.add_argument("--one", metavar="MODE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.counts:
        print_counts(args.dataset, args.arch, args.size)
        return
    if args.one:
        if not args.fresh_memory:
            reuse_freed_memory()
        print(json.dumps(measure(args.dataset[0], args.arch[0], args.one, args.batch_size, args.size, args.repeats)))
        return
    print(f"batch {args.batch_size}, {args.size} px, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'':18}{'training step, per picture':>32}{'inference, ten crops, per picture':>38}")
    print(f"{'':18}{'GFLOP':>12}{'s':>8}{'peak MiB':>12}{'GFLOP':>18}{'s':>8}{'peak MiB':>12}")
    for dataset in args.dataset:
        for arch in args.arch:
            train, inference = (_in_own_process(dataset, arch, mode, args) for mode in ("train", "inference"))
            row = "".join(
                f"{figures['gflop']:{width}.1f}{figures['seconds']:8.2f}{figures['mebibytes']:12.0f}"
                for figures, width in ((train, 12), (inference, 18))
            )
            print(f"{dataset + ' ' + arch:18}{row}", flush=True)


def print_counts(datasets: Sequence[str], archs: Sequence[str], size: int) -> None:
    """Prints what a training step needs, as a Markdown table."""
    print("| | | GFLOP a picture | fixed MiB | MiB a picture | MiB a picture, `--amp` |\n|---|---|---|---|---|---|")
    for dataset in datasets:
        for arch in archs:
            gflop = count_gflop(dataset, arch, "train", size=size)
            memory, half = (count_memory(dataset, arch, size, amp) for amp in (False, True))
            figures = (gflop, memory["fixed"], memory["picture"], half["picture"])
            print(f"| {dataset} | {arch} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |", flush=True)


def _in_own_process(dataset: str, arch: str, mode: str, args: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmark", "--one", mode, "--dataset", dataset, "--arch", arch]
    command += ["--fresh_memory"] * args.fresh_memory
    command += ["--batch_size", str(args.batch_size), "--size", str(args.size), "--repeats", str(args.repeats)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
