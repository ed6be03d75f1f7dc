"""How well a network's calibration is known, by how many pictures: `python -m tests.benchmark_calibration --run RUN`.

For a finished run's BAS and CAM maps: the offsets by growing numbers of training pictures; how far from the truth they
are when the network sees its pictures moved by a known number of pixels; and, as a cross-check by other means, how far
from its layers' geometry the gradients of a cell lie in the picture. Gradients say which pixels *can* move a cell, not
which of them did in pictures, so that both need not agree to the pixel.

`--arch ARCH --data FOLDER` takes a backbone as it starts, with ImageNet's weights and random heads, and its Grad-CAM.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.data.dataset import find_datasets
from utils.data.evaluation import read_pictures
from utils.data.split import Split, spread
from utils.data.transforms import centre_crop, normalize
from utils.evaluation.calibration import Calibration, calibrate, kinds_to_calibrate
from utils.evaluation.kinds import MapKind
from utils.evaluation.spec import EvaluationSpec, build_spec, grid_of
from utils.inference.loading import load
from utils.models.bas import BAS, rank_classes, select_class
from utils.models.pretrained import load_imagenet
from utils.models.registry import ARCHS, build
from utils.models.taps import Offset
from utils.runs.finished import find_run
from utils.system.devices import choose_device
from utils.system.errors import run_command
from utils.system.options import NAME, NATURAL, PLACE, POSITIVE, CommandParser

DEVICE = choose_device(None)
READING = DEVICE, 16, 0  # device, batch size, workers
MOVED = ((4, 0), (0, -3), (-5, 6), (-6, -2))  # pixels to the right and down
MOST = 6


@contextmanager
def moved_input(model: BAS, right: int, down: int) -> Iterator[None]:
    """A block in which the network sees its pictures moved: a window of crops that are wider by MOST on every side."""
    f1 = model.f1

    def of_window(images: Tensor) -> Tensor:
        lengths = zip((down, right), images.shape[2:], strict=True)
        rows, columns = (slice(MOST - by, length - MOST - by) for by, length in lengths)
        return f1(images[:, :, rows, columns])

    model.f1 = of_window  # type: ignore[method-assign]
    try:
        yield
    finally:
        model.f1 = f1  # type: ignore[method-assign]


def gradient_centre(model: BAS, split: Split, spec: EvaluationSpec, kind: MapKind, pictures: int) -> Offset:
    """Where the energy of the gradients of the middle cells lies, as an offset from the layers' geometry."""
    grid = grid_of(model, kind)
    assert grid is not None  # only such kinds are asked for
    found = []
    for index in spread(np.ones(len(split)), pictures):
        batch = read_pictures(split, [int(index)], spec.resize_size)
        crop = normalize(centre_crop(batch.images, spec.crop_size).to(DEVICE)).requires_grad_()
        features = model.f1(crop)
        class_maps = model.f2(features)
        classes = rank_classes(class_maps.mean(dim=(2, 3)), kind.top_k or 1)
        maps = model.foreground_maps(features, classes).mean(dim=1) if kind.kind == "bas" else None
        maps = select_class(class_maps, classes[:, 0])[:, 0] if maps is None else maps
        middle = maps.shape[-1] // 2
        for row, column in ((middle, middle), (middle - 1, middle), (middle, middle - 1), (middle - 1, middle - 1)):
            (gradient,) = torch.autograd.grad(maps[0, row, column], crop, retain_graph=True)
            energy = gradient.square().sum(dim=(0, 1))
            places = torch.arange(spec.crop_size, device=DEVICE)
            x, y = ((energy.sum(dim=axis) * places).sum() / energy.sum() for axis in (0, 1))
            found.append((float(x) - grid.first - column * grid.stride, float(y) - grid.first - row * grid.stride))
    return Offset(*np.mean(found, axis=0).tolist())


def show(what: str, one: Calibration) -> None:
    """Prints a line."""
    (x, y), (error_x, error_y) = one.offset, one.error
    print(f"  {what:32} {x:6.2f} ± {error_x:.2f} {y:6.2f} ± {error_y:.2f}   agreement {one.agreement:.3f}", flush=True)


def show_moved(model: BAS, split: Split, spec: EvaluationSpec, kind: MapKind, pictures: int) -> None:
    """Prints by how much moved pictures are found moved, and the largest error."""
    wide, places, wrong = replace(spec, crop_size=spec.crop_size + 2 * MOST), [], []
    for move in ((0, 0), *MOVED):
        with moved_input(model, *move):
            places.append(calibrate(model, split, wide, [kind], *READING, pictures=pictures)[kind].offset)
        found = np.subtract(places[0], places[-1])
        wrong.append(np.abs(found - move))
        if any(move):
            print(
                f"  pictures moved by {move[0]:2}, {move[1]:2}: found moved by {found[0]:5.2f}, {found[1]:5.2f}",
                flush=True,
            )
    x, y = np.max(wrong, axis=0)
    print(f"  wrong by at most {x:.2f} across, {y:.2f} down")


def main() -> None:
    """Measures and prints."""
    parser = CommandParser(prog="python -m tests.benchmark_calibration", description=__doc__)
    parser.add_argument("--run", type=PLACE, default=Path("demo_run"), help="a finished run (default: demo_run)")
    parser.add_argument("--arch", choices=ARCHS, help="instead of a run: a backbone as it starts")
    parser.add_argument("--pretrained", type=NAME, default="auto", help="its weights, as for train.py (default: auto)")
    parser.add_argument("--data", type=PLACE, help="the data set (default: the run's; for --arch in CUB's layout)")
    parser.add_argument("--pictures", type=POSITIVE, nargs="+", default=[12, 25, 50, 100, 200], help="numbers of them")
    parser.add_argument("--gradients", type=NATURAL, default=8, help="pictures whose gradients are looked at; 0: none")
    args = parser.parse_args()
    datasets = find_datasets()
    if args.arch:
        dataset = datasets["CUB"]
        split = dataset.load_split(args.data or dataset.root, "train")
        recipe, kinds = replace(dataset.recipe(args.arch), num_classes=len(split.class_names)), ("gradcam",)
        torch.manual_seed(recipe.seed)  # of the heads
        model = build(replace(recipe, final_relu=False))
        print(load_imagenet(model, args.pretrained))
        model = model.eval().place(DEVICE)
    else:
        run = find_run(args.run, datasets)
        loaded, split = load(run.dataset, run.arch, run.weights), run.load_split("train", args.data)
        model, recipe, kinds = loaded.model, loaded.recipe, ("bas", "cam")
    spec = build_spec(recipe, kinds=kinds, ten_crops=False)
    for kind in kinds_to_calibrate(model, spec):
        print(f"{kind.title}: offset in x and y, pixels of a crop of {spec.crop_size}")
        for count in args.pictures:
            found = calibrate(model, split, spec, [kind], *READING, pictures=count)
            show(f"{count} pictures", found[kind])
        show_moved(model, split, spec, kind, max(args.pictures))
        if args.gradients and kind.kind != "gradcam":
            x, y = gradient_centre(model, split, spec, kind, args.gradients)
            print(f"  {'gradients (a cross-check)':32} {x:6.2f}        {y:6.2f}")


if __name__ == "__main__":
    sys.exit(run_command(main))
