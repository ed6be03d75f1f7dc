"""How training fares with few classes: the first N classes of CUB-200-2011, several seeds, commands as a user types.

    python -m tests.benchmark_classes --root CUB_200_2011 --classes 2 3 5 10 --seeds 6 7 8

For each number of classes and each seed a data set in CUB's layout is made of links, `train.py` trains on it with
nothing but --arch, --root, --epochs and the seed (and the sizes of pictures, if given), and `BAS_inference.py` compares
BAS, the CAM of the same network and a centred Gaussian, every threshold chosen on the training pictures' boxes. The
table has means over classes in percent, as mean ± standard deviation over the seeds, and the classes whose maps are
dead after the last epoch. What is finished is passed over, so the command can be interrupted and repeated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from utils.demo.spreads import Spread
from utils.models.registry import ARCHS
from utils.system.files import write_text
from utils.system.options import POSITIVE, SEED, SIDE, CommandParser
from utils.training.log import LOG_FILE

ROOT = Path(__file__).resolve().parents[1]
BY_IMAGE = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt")
MAPS = ("bas", "cam", "center")


def take_classes(source: Path, folder: Path, count: int) -> Path:
    """A data set of the first `count` classes, with links to the pictures.

    Args:
        source: CUB-200-2011 as its owners ship it, or some classes of it.
        folder: of the new one.
        count: classes.
    """
    labels = dict(line.split() for line in _lines(source / "image_class_labels.txt"))
    for name in BY_IMAGE:
        kept = [line for line in _lines(source / name) if int(labels[line.split()[0]]) <= count]
        write_text(folder / name, "".join(f"{line}\n" for line in kept))
    classes = [line for line in _lines(source / "classes.txt") if int(line.split()[0]) <= count]
    write_text(folder / "classes.txt", "".join(f"{line}\n" for line in classes))
    (folder / "images").mkdir(exist_ok=True)
    for line in classes:
        link = folder / "images" / line.split()[1]
        if not link.exists():
            link.symlink_to((source / "images" / link.name).resolve(), target_is_directory=True)
    return folder


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def train_and_evaluate(data: Path, run: Path, number: int, args: argparse.Namespace) -> dict[str, Any]:
    """One run: the results of `BAS_inference.py`, and as `log` the last line of the training's log."""
    results, arch = run / "results.json", ["--arch", args.arch]
    sizes = ["--resize_size", str(args.resize_size), "--crop_size", str(args.crop_size)]
    log = run / args.arch / LOG_FILE
    if not results.is_file():
        options = ["--root", str(data), "--save_path", str(run), "--epochs", str(args.epochs), "--seed", str(number)]
        weights = run / args.arch / f"{args.arch}{args.epochs - 1}.pth.tar"
        _run("train.py", *arch, *options, *sizes, "--resume", "auto")
        options = ["--data", str(data), "--checkpoint", str(weights), "--compare", *MAPS, "--select-on", "train"]
        _run("CUB/BAS_inference.py", *arch, *options, "--json", str(results))
    return {**json.loads(results.read_text()), "log": json.loads(_lines(log)[-1])}


def _run(*command: str) -> None:
    print("+ python", *command, flush=True)
    if subprocess.run([sys.executable, *command], cwd=ROOT).returncode:
        sys.exit(f"{command[0]} failed; what it said stands above")


def summarize(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of several seeds: title -> :class:`utils.demo.spreads.Spread`, and the numbers of dead classes."""
    figures = {}
    for metric, title in (("gt_known_loc", "GT-known"), ("top1_loc", "Top-1 Loc")):
        for kind in MAPS:
            names = [next(name for name in run["maps"] if _is_kind(name, kind)) for run in runs]
            values = [run["maps"][name]["scores"][metric]["class_mean"] for run, name in zip(runs, names, strict=True)]
            figures[f"{kind} {title}"] = Spread(values)
    figures["Top-1 Cls"] = Spread([run["scores"]["top1_cls"]["class_mean"] for run in runs])
    return {"figures": figures, "dead": [run["log"]["dead_maps"]["count"] for run in runs]}


def _is_kind(name: str, kind: str) -> bool:
    return name.lower().startswith({"bas": "bas", "cam": "cam", "center": "centred"}[kind])


def table(rows: dict[int, dict[str, Any]]) -> str:
    """Markdown, one line a number of classes."""
    titles = list(next(iter(rows.values()))["figures"])
    lines = [f"| classes | {' | '.join(titles)} | dead classes, by seed |", "|---" * (len(titles) + 2) + "|"]
    for count, row in rows.items():
        cells = [str(count), *(str(spread) for spread in row["figures"].values()), ", ".join(map(str, row["dead"]))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Trains what is missing and prints the table."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="CUB-200-2011 as its owners ship it")
    parser.add_argument("--classes", type=POSITIVE, nargs="+", default=[2, 3, 5, 10], help="default: 2 3 5 10")
    parser.add_argument("--seeds", type=SEED, nargs="+", default=[6, 7, 8], help="default: 6 7 8")
    parser.add_argument("--arch", choices=ARCHS, default="mobilenet", help="default: %(default)s")
    parser.add_argument("--epochs", type=POSITIVE, default=12, help="default: %(default)s")
    parser.add_argument("--resize_size", type=SIDE, default=146, help="default: %(default)s")
    parser.add_argument("--crop_size", type=SIDE, default=128, help="default: %(default)s")
    parser.add_argument("--save_path", type=Path, default=ROOT / "demo_run" / "classes", help="default: %(default)s")
    args = parser.parse_args()
    rows, folder = {}, args.save_path.resolve()
    for count in args.classes:
        data = take_classes(args.root.resolve(), folder / f"data_{count}", count)
        runs = [train_and_evaluate(data, folder / f"{count}_{number}", number, args) for number in args.seeds]
        rows[count] = summarize(runs)
        print(table(rows), flush=True)


if __name__ == "__main__":
    main()
