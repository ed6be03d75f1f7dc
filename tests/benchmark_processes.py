"""What several processes bring on one machine: `python -m tests.benchmark_processes`.

The commands themselves, on the demo's pictures: training and evaluation by one process that has all cores, and by
`torchrun` with a share of them for each process, in turn. Pictures a second are those that the commands tell, without
their start: of an epoch's steps, and of the pass over the test set. On the cores that one process has already, several
can gain no more than its threads lose. Test pictures are shared out in batches of 8, so that their number is best a
multiple of 8 times the processes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from tests.benchmark_inference import ROOT, fitted_model, prepare_pictures, resize_for
from utils.models.checkpoint import save_weights
from utils.models.registry import ARCHS
from utils.system.options import POSITIVE, SIDE, CommandParser

EPOCHS = 2  # the last one counts
TRAINING_PICTURES = 4  # a class


def run(folder: Path, command: list[object], processes: int) -> None:
    """A command to its end, by so many processes that share the machine's cores; its words are shown if it fails."""
    threads = max(1, (os.cpu_count() or 1) // processes)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    words = [sys.executable, *(launcher if processes > 1 else []), *map(str, command)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    finished = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    if finished.returncode:
        sys.exit(f"the command failed: {' '.join(words)}\n{finished.stdout}{finished.stderr}")


def training_rate(runs: Path, arch: str, data: Path, processes: int, sizes: list[object], batch_size: int) -> float:
    """Pictures a second of the last epoch."""
    options = ["--root", data, "--arch", arch, "--pretrained", "none", "--save_path", runs, "--batch_size", batch_size]
    run(ROOT, ["train.py", *options, "--epochs", EPOCHS, *sizes], processes)
    return json.loads((runs / arch / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])["images_per_second"]


def evaluation_rate(checkpoint: Path, arch: str, data: Path, processes: int, sizes: list[object]) -> float:
    """Test pictures a second."""
    figures = checkpoint.with_suffix(".json")
    options = ["--arch", arch, "--data", data, "--checkpoint", checkpoint, "--json", figures]
    run(ROOT / "CUB", ["BAS_inference.py", *options, *sizes], processes)
    found = json.loads(figures.read_text(encoding="utf-8"))
    return found["scores"]["images"] / found["seconds"]


def compare(arch: str, folder: Path, data: Path, args: argparse.Namespace) -> None:
    """Measures one backbone in turn and prints medians."""
    sizes: list[object] = ["--resize_size", resize_for(args.size), "--crop_size", args.size, "--device", "cpu"]
    checkpoint = save_weights(fitted_model(arch, data, args.size), folder / f"{arch}99.pth.tar")
    rates: dict[str, dict[int, list[float]]] = {"training": {}, "evaluation": {}}
    for number in range(args.repeats):
        for processes in (1, args.processes):
            runs = folder / f"{arch}_{number}_{processes}"
            trained = training_rate(runs, arch, data, processes, sizes, args.batch_size)
            rates["training"].setdefault(processes, []).append(trained)
            evaluated = evaluation_rate(checkpoint, arch, data, processes, sizes)
            rates["evaluation"].setdefault(processes, []).append(evaluated)
    for what, found in rates.items():
        one, several = (median(values) for values in found.values())
        more = f"{several:.2f} by {args.processes}: {several / one:.2f} times"
        print(f"{arch}, {what}: {one:.2f} pictures/s by one process, {more}", flush=True)


def main() -> None:
    """Compares every backbone asked for."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--arch", choices=ARCHS, nargs="+", default=["resnet"])
    parser.add_argument("--processes", type=POSITIVE, default=2, help="beside one (default: %(default)s)")
    parser.add_argument(
        "--batch_size", type=POSITIVE, default=16, help="in training, of all processes (default: %(default)s)"
    )
    parser.add_argument("--images", type=POSITIVE, default=48, help="test pictures (default: %(default)s)")
    parser.add_argument("--size", type=SIDE, default=224, help="side of the crops (default: %(default)s)")
    parser.add_argument("--repeats", type=POSITIVE, default=3, help="rounds (default: %(default)s)")
    args = parser.parse_args()
    if args.processes == 1:
        parser.error("--processes 1 is what is compared with; give 2 or more")
    with tempfile.TemporaryDirectory() as name:
        data = prepare_pictures(Path(name) / "data", args.images, TRAINING_PICTURES)
        for arch in args.arch:
            compare(arch, Path(name), data, args)


if __name__ == "__main__":
    main()
