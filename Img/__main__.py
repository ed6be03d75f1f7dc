"""Redraws the README's figures from a finished run, such as the demo's: `python -m Img --run demo_run`.

NAME          files                            shows
accuracy      accuracy.png                     published results of CAM and BAS, and those of the run
exploratory   motivation.png, experiment.png   masks of growing area and what the network says to them: the paper's
                                               argument, on the test pictures that have masks
result        result.png                       test pictures with maps and boxes of CAM and of BAS
alignment     alignment.png                    the same maps drawn in the three places of --align_maps
growth        result.gif                       how foreground maps grow over the epochs of a run with --snapshot
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from Img.accuracy import Results, collect_published, draw_accuracy
from Img.alignment import draw_alignment
from Img.growth import FRAMES, draw_growth
from Img.measured import Measured, read_measured
from Img.results import draw_results
from utils.data.dataset import find_datasets
from utils.data.split import Split
from utils.evaluation.spec import build_spec
from utils.exploratory import run_experiment, save_figures
from utils.exploratory.measure import sample_pictures
from utils.inference.loading import Loaded, load
from utils.inference.placing import place_maps
from utils.models.registry import BACKBONES
from utils.runs.finished import find_run
from utils.system.devices import choose_device
from utils.system.errors import UserError, run_command
from utils.system.files import require_writable
from utils.system.options import NAME, PLACE, POSITIVE, CommandParser

FOLDER = Path(__file__).resolve().parent
DATASETS = find_datasets()
WITHOUT_RUN = "accuracy"
NAMES = (WITHOUT_RUN, "exploratory", "result", "alignment", "growth")
EXAMPLES = """examples:
  python train.py --demo && python -m Img --run demo_run    train the demo, then draw everything
  python -m Img --only accuracy                             what needs no run
  python -m Img --run CUB/logs/vgg --data /data/CUB --save figures"""


class Source:
    """A finished run, whose network, results and pictures are read when a figure asks for them.

    Args:
        folder: the run's.
        root: its data set's folder, if it lies elsewhere by now.
        device: where the network is to be.

    Raises:
        UserError: there is no run in the folder, or a damaged one.
    """

    def __init__(self, folder: Path, root: Path | None, device: torch.device) -> None:
        self.run = find_run(folder, DATASETS)
        self._root, self._device = root, device

    @cached_property
    def loaded(self) -> Loaded:
        return load(self.run.dataset, self.run.arch, self.run.weights, device=str(self._device))

    @cached_property
    def measured(self) -> Measured | None:
        return read_measured(self.run.folder)

    @cached_property
    def test_split(self) -> Split:
        return self.run.load_split("test", self._root)

    @cached_property
    def watched_split(self) -> Split:
        """The pictures of the snapshots: those of the test, or of the training where there was no test."""
        return self.test_split if self.run.has_test else self.run.load_split("train", self._root)


def main(argv: Sequence[str] | None = None) -> None:
    """Draws what was asked for, one figure after the other; one that cannot be drawn does not stop the others.

    Raises:
        UserError: a figure cannot be drawn.
    """
    args = parse_arguments(argv)
    require_writable(args.save)
    source = Source(args.run, args.data, choose_device(args.device)) if args.run else None
    failures: dict[str, list[str]] = {}  # what is missing -> the figures that miss it
    for name in args.only:
        try:
            for path in draw(name, args.save, source, args.frames):
                print(f"drawn: {path}", flush=True)
        except UserError as error:
            failures.setdefault(str(error), []).append(name)
    if failures:
        raise UserError("; ".join(f"{', '.join(names)} not drawn: {reason}" for reason, names in failures.items()))


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line; `--help` explains every option."""
    parser = CommandParser(prog="python -m Img", description=__doc__, epilog=EXAMPLES)
    add = parser.add_argument
    folder: dict[str, Any] = {"type": PLACE, "metavar": "FOLDER"}
    add("--run", **folder, help="of a finished run: demo_run, CUB/logs/vgg, ...")
    add("--data", **folder, help="the run's data set, if it lies elsewhere by now (default: there)")
    add("--save", **folder, default=FOLDER, help="where to (default: the repository's Img)")
    names = f"of {', '.join(NAMES)} (default: all)"
    add("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=names)
    frames = "of result.gif, at most (default: %(default)s)"
    add("--frames", type=POSITIVE, default=FRAMES, metavar="N", help=frames)
    add("--device", type=NAME, metavar="DEVICE", help="cpu, cuda, cuda:1, ... (default: cuda where there is one)")
    args = parser.parse_args(argv)
    asking = [name for name in args.only if name != WITHOUT_RUN]
    if asking and args.run is None:
        parser.error(
            f"{', '.join(asking)} are drawn from a finished run; name it with --run, or give --only {WITHOUT_RUN}"
        )
    return args


def draw(name: str, folder: Path, source: Source | None, frames: int) -> list[Path]:
    """Draws one of the `NAMES` into a folder, from a run (`WITHOUT_RUN` needs none), an animation of at most `frames`;
    returns the files. UserError where something is missing or damaged, or a file cannot be written.
    """
    if name == "accuracy":
        return [draw_accuracy(folder / "accuracy.png", collect_published(DATASETS.values()), measured_by(source))]
    assert source is not None  # the options say so
    if name == "result":
        thresholds = source.measured.thresholds if source.measured else None
        return [draw_results(folder / "result.png", source.loaded, source.test_split, thresholds)]
    if name == "alignment":
        return [draw_alignment(folder / "alignment.png", source.loaded, source.test_split)]
    if name == "growth":
        run = source.run.folder
        return [draw_growth(folder / "result.gif", run, source.loaded, source.watched_split, frames=frames)]
    loaded, split = source.loaded, sample_pictures(source.test_split)
    spec = place_maps(loaded, build_spec(loaded.recipe))
    place = spec.placement(loaded.model, spec.main)
    experiment = run_experiment(loaded.model, split, loaded.recipe, loaded.device, place=place)
    print(*(f"left out: {failure}\n" for failure in experiment.failures), sep="", end="")
    return save_figures(folder, experiment.curves, split, loaded.recipe)


def measured_by(source: Source | None) -> dict[str, Results]:
    """The run's results as :func:`draw_accuracy` takes them, under the name of its data set; empty without any."""
    if source is None or source.measured is None:
        return {}
    run = source.run
    if source.measured.is_demo:
        name = "demo"
    elif run.dataset.is_own:
        name = run.dataset.folder.name
    else:
        is_whole = run.dataset.num_classes == run.num_classes
        name = run.dataset.title if is_whole else f"{run.dataset.name}, {run.num_classes} classes"
    return {name: {BACKBONES[run.arch].title: source.measured.scores}}


if __name__ == "__main__":
    sys.exit(run_command(main))
