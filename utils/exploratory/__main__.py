"""The paper's exploratory experiment, on a trained network and a test set with object masks.

Each object's mask is eroded until nothing is left and dilated until it covers the picture. Through each of these masks
the network's entropy, activation and background activation are measured. The paper's claim: the entropy has fallen
while the mask covers only a part of the object, the activations go on to its outline.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from utils.data.dataset import find_datasets
from utils.data.masks import understand_masks
from utils.data.split import Split
from utils.evaluation.spec import build_spec
from utils.exploratory import measure, run_experiment, save_figures, summarize, table, verdict
from utils.exploratory.examples import EXAMPLES
from utils.exploratory.measure import PLACES, Experiment, sample_pictures
from utils.exploratory.summary import RULE, write_curves, write_summary
from utils.inference.loading import Loaded, load, require_same_classes
from utils.inference.placing import place_maps
from utils.models.registry import ARCHS
from utils.runs.common import BY_DEVICE, by_device
from utils.runs.finished import find_run
from utils.runs.provenance import describe_run
from utils.system.errors import run_command
from utils.system.files import require_writable
from utils.system.options import NAME, PLACE, POSITIVE, CommandParser, Number

ROOT = Path(__file__).resolve().parents[2]
DATASETS = find_datasets()
DEFAULT_RUN = Path("demo_run")
# Beside a run's weights, or in the folder of --save: where the files go, by what was masked.
FOLDERS = {"features": "exploratory", "class_maps": "exploratory_class_maps"}
MOST_MASKS = 1000  # a family of a picture of 224 pixels has some 90
EPILOG = """examples:
  python train.py --demo && python -m utils.exploratory        the demo's network on the demo's pictures
  python -m utils.exploratory --run CUB/logs/resnet --images all
  python -m utils.exploratory --arch vgg --checkpoint CUB/logs/vgg/vgg99.pth.tar --data /data/CUB --at class_maps
How long it takes: with MobileNetV1 and 32 masks, one processor core needs 0.7 seconds for a picture of 96 pixels, as
the demo's are, and 4 seconds for one of 224. --at class_maps takes less than a tenth of that: f2 sees each picture
once."""


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, writes and prints the numbers, and draws the curves.

    Raises:
        UserError: a file, an option or the data do not allow it.
    """
    args = parse_arguments(argv)
    loaded, whole = open_network(args)
    split = sample_pictures(whole, args.images, args.examples)
    folder = (args.save or loaded.checkpoint.path.parent) / FOLDERS[args.at]
    require_writable(folder)
    part = len(split) if len(split) == len(whole) else f"{len(split)} of {len(whole)}"
    print(f"{part} pictures of the {split.name} split ({whole.layout}); masks on {PLACES[args.at]}", flush=True)
    if split.masks:
        print(f"masks: {understand_masks(split.masks.values())}", flush=True)
    recipe, workers = loaded.recipe, by_device(BY_DEVICE, loaded.device)
    begin = time.perf_counter()
    spec = place_maps(loaded, build_spec(recipe, kinds=(measure.KINDS[args.at],)), args.data)
    how = args.at, spec.placement(loaded.model, spec.main), args.masks, args.batch_size, workers
    experiment = run_experiment(loaded.model, split, recipe, loaded.device, *how)
    seconds = time.perf_counter() - begin
    summary = summarize(experiment.curves)
    print(f"{len(experiment.curves)} pictures measured in {seconds:.0f} s", *passed_over(experiment), sep="\n")
    print("", table(summary), "", verdict(summary), RULE, "", sep="\n", flush=True)

    files = [write_curves(folder / "curves.csv", experiment.curves)]
    files += write_summary(
        folder,
        summary,
        verdict=verdict(summary),
        checkpoint=loaded.checkpoint.path.name,
        tap=loaded.model.tap,
        at=args.at,
        recipe=asdict(recipe),
        masks_wanted=args.masks,
        pictures_wanted=len(split) - experiment.without_mask,
        pictures_of_split=len(whole),
        without_mask=experiment.without_mask,
        without_object=experiment.without_object,
        failures=experiment.failures,
        seconds=seconds,
        made_with=describe_run(ROOT),
    )
    files += save_figures(folder, experiment.curves, split, recipe, args.examples, args.at)
    print("look at", *files)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line; `--help` explains every option."""
    parser = CommandParser(prog="python -m utils.exploratory", description=__doc__, epilog=EPILOG)
    add = parser.add_argument
    folder: dict[str, Any] = {"type": PLACE, "metavar": "FOLDER"}
    add("--run", **folder, help=f"of a finished run: {DEFAULT_RUN} (default), CUB/logs/vgg, ...")
    add("--dataset", choices=DATASETS, help=f"without a run: whose recipe and layout (default: {next(iter(DATASETS))})")
    add("--arch", choices=ARCHS, help="without a run: the backbone")
    weights = "without a run: released weights (default: the highest epoch in <dataset>/logs/<arch>)"
    add("--checkpoint", type=PLACE, metavar="FILE", help=weights)
    add("--data", **folder, help="the data set (default: the run's, without a run <dataset>/data)")
    places = " or ".join(f"{name} ({words})" for name, words in PLACES.items())
    add("--at", choices=PLACES, default="features", help=f"what is masked, {places} (default: %(default)s)")
    masks = (
        "masks that are measured for each picture, at most, half of them up to the object's own area, among them the "
    )
    masks += "empty one, the object's own and the full one (default: %(default)s)"
    add("--masks", type=Number(int, 3, MOST_MASKS), default=measure.DEFAULT_MASKS, metavar="N", help=masks)
    images = "pictures to measure, spread over those of the test set that have masks, or `all` (default: %(default)s)"
    add("--images", type=_count_or_all, default=measure.DEFAULT_PICTURES, metavar="N", help=images)
    examples = f"pictures to show, at most {EXAMPLES}, by the ids of curves.csv (default: of {EXAMPLES} classes the "
    examples += "rightly classified pictures whose object has most nearly the median size)"
    add("--examples", type=NAME, nargs="+", default=[], metavar="ID", help=examples)
    batch = "pictures in a batch; four times as many masked maps make one (default: %(default)s)"
    add("--batch_size", type=POSITIVE, default=measure.DEFAULT_BATCH_SIZE, help=batch)
    add("--device", type=NAME, metavar="DEVICE", help="cpu, cuda, cuda:1, ... (default: cuda where there is one)")
    made = f"in which the folder {' or '.join(FOLDERS.values())} is made (default: that of the weights)"
    add("--save", **folder, help=made)
    args = parser.parse_args(argv)
    if args.run and (args.dataset or args.arch or args.checkpoint):
        parser.error("a run knows its data set, backbone and weights; give --run, or --arch with --checkpoint")
    if not args.arch and (args.dataset or args.checkpoint):
        parser.error("--arch is missing: name the backbone of the weights")
    if len(args.examples) > EXAMPLES:
        parser.error(f"--examples names {len(args.examples)} pictures; at most {EXAMPLES} are shown")
    return args


def open_network(args: argparse.Namespace) -> tuple[Loaded, Split]:
    """The network and the test pictures that the arguments name; UserError where something is missing or damaged."""
    if args.arch:
        dataset = DATASETS[args.dataset or next(iter(DATASETS))]
        loaded = load(dataset, args.arch, args.checkpoint, device=args.device)
        split = dataset.load_split(args.data or dataset.root, "test")
        require_same_classes(loaded, split)
        return loaded, split
    run = find_run(args.run or DEFAULT_RUN, DATASETS)
    loaded = load(run.dataset, run.arch, run.weights, device=args.device)
    return loaded, run.load_split("test", args.data)


def passed_over(experiment: Experiment) -> list[str]:
    """A line for each kind of picture, and for each picture, that was not measured."""
    counts = {"a mask": experiment.without_mask, "an object in the crop": experiment.without_object}
    lines = [f"pictures without {what}, passed over: {number}" for what, number in counts.items() if number]
    return lines + [f"left out: {failure}" for failure in experiment.failures]


def _count_or_all(text: str) -> int | None:
    return None if text == "all" else int(POSITIVE(text))


if __name__ == "__main__":
    sys.exit(run_command(main))
