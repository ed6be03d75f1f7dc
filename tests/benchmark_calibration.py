"""How well a network's calibration is known, by how many pictures: `python -m tests.benchmark_calibration --run RUN`.

For a finished run's BAS and CAM maps: the offsets by growing numbers of training pictures; what is found when the
pictures are moved by a known number of pixels before the network sees them (the difference has to be that number); and,
as a cross-check by other means, how far from its layers' geometry the gradients of a cell lie in the picture. Gradients
say which pixels *can* move a cell, not which of them did in pictures, so that both need not agree to the pixel.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from utils.data.dataset import find_datasets
from utils.data.evaluation import read_pictures
from utils.data.split import Split, spread
from utils.data.transforms import centre_crop
from utils.evaluation.calibration import Calibration, calibrate, kinds_to_calibrate
from utils.evaluation.kinds import MapKind
from utils.evaluation.maps import grid_of
from utils.evaluation.spec import EvaluationSpec, build_spec
from utils.inference.loading import Loaded, load
from utils.models.bas import BAS, rank_classes, select_class
from utils.models.taps import Offset
from utils.runs.finished import find_run
from utils.system.errors import run_command
from utils.system.options import NATURAL, PLACE, POSITIVE, CommandParser

MOVED = ((0, 0), (4, 0), (0, -3), (-5, 6))  # pixels to the right and down


@contextmanager
def moved_input(model: BAS, right: int, down: int) -> Iterator[None]:
    """A block in which the network sees its pictures moved."""
    f1 = model.f1
    model.f1 = lambda images: f1(images.roll((down, right), dims=(2, 3)))  # type: ignore[method-assign]
    try:
        yield
    finally:
        model.f1 = f1  # type: ignore[method-assign]


def gradient_centre(loaded: Loaded, split: Split, spec: EvaluationSpec, kind: MapKind, pictures: int) -> Offset:
    """Where the energy of the gradients of the middle cells lies, as an offset from the layers' geometry."""
    model, grid = loaded.model, grid_of(loaded.model, kind)
    assert grid is not None  # only such kinds are asked for
    found = []
    for index in spread(np.ones(len(split)), pictures):
        batch = read_pictures(split, [int(index)], spec.resize_size)
        crop = centre_crop(batch.images, spec.crop_size).to(loaded.device).requires_grad_()
        features = model.f1(crop)
        class_maps = model.f2(features)
        classes = rank_classes(class_maps.mean(dim=(2, 3)), kind.top_k or 1)
        maps = model.foreground_maps(features, classes).mean(dim=1) if kind.kind == "bas" else None
        maps = select_class(class_maps, classes[:, 0])[:, 0] if maps is None else maps
        middle = maps.shape[-1] // 2
        for row, column in ((middle, middle), (middle - 1, middle), (middle, middle - 1), (middle - 1, middle - 1)):
            (gradient,) = torch.autograd.grad(maps[0, row, column], crop, retain_graph=True)
            energy = gradient.square().sum(dim=(0, 1))
            places = torch.arange(spec.crop_size, device=loaded.device)
            x, y = ((energy.sum(dim=axis) * places).sum() / energy.sum() for axis in (0, 1))
            found.append((float(x) - grid.first - column * grid.stride, float(y) - grid.first - row * grid.stride))
    return Offset(*np.mean(found, axis=0).tolist())


def show(what: str, one: Calibration) -> None:
    """Prints a line."""
    (x, y), (error_x, error_y) = one.offset, one.error
    print(f"  {what:32} {x:6.2f} ± {error_x:.2f} {y:6.2f} ± {error_y:.2f}   agreement {one.agreement:.3f}", flush=True)


def main() -> None:
    """Measures and prints."""
    parser = CommandParser(prog="python -m tests.benchmark_calibration", description=__doc__)
    parser.add_argument("--run", type=PLACE, default=Path("demo_run"), help="a finished run (default: demo_run)")
    parser.add_argument("--data", type=PLACE, help="its data set, if it lies elsewhere by now")
    parser.add_argument("--pictures", type=POSITIVE, nargs="+", default=[12, 25, 50, 100, 200], help="numbers of them")
    parser.add_argument("--gradients", type=NATURAL, default=8, help="pictures whose gradients are looked at; 0: none")
    args = parser.parse_args()
    run = find_run(args.run, find_datasets())
    loaded, split = load(run.dataset, run.arch, run.weights), run.load_split("train", args.data)
    spec = build_spec(loaded.recipe, kinds=("bas", "cam"), ten_crops=False)
    reading = loaded.device, 16, 0
    for kind in kinds_to_calibrate(loaded.model, spec):
        print(f"{kind.title}: offset in x and y, pixels of a crop of {spec.crop_size}")
        for count in args.pictures:
            found = calibrate(loaded.model, split, spec, [kind], *reading, pictures=count)
            show(f"{count} pictures", found[kind])
        for right, down in MOVED:
            with moved_input(loaded.model, right, down):
                found = calibrate(loaded.model, split, spec, [kind], *reading, pictures=max(args.pictures))
            show(f"pictures moved by {right}, {down}", found[kind])
        if args.gradients:
            x, y = gradient_centre(loaded, split, spec, kind, args.gradients)
            print(f"  {'gradients (a cross-check)':32} {x:6.2f}        {y:6.2f}")


if __name__ == "__main__":
    sys.exit(run_command(main))
