"""The paper's exploratory experiment, on a trained network and a test set with object masks.

Each object's mask is eroded until nothing is left and dilated until it covers the picture. Through each of these masks
the network's entropy, activation and background activation are measured. The paper's claim: the entropy has fallen
while the mask covers only a part of the object, the activations go on to its outline.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from CUB.BAS_inference import FOLDER as CUB
from ILSVRC.BAS_inference import FOLDER as ILSVRC
from utils.arguments import DEFAULT_WORKERS, CommandParser, named, number, place, positive_int
from utils.data.masks import understand_masks
from utils.data.split import Split
from utils.errors import UsageError, run_command
from utils.exploratory import (
    Experiment,
    run_experiment,
    save_figures,
    summarize,
    table,
    verdict,
    write_curves,
    write_summary,
)
from utils.exploratory.examples import EXAMPLES
from utils.exploratory.measure import (
    DEFAULT_BATCH_SIZE,
    DEFAULT_MASKS,
    DEFAULT_PICTURES,
    PLACES,
    sample_pictures,
)
from utils.exploratory.records import CURVES_FILE, FOLDERS, describe_measurement
from utils.exploratory.summary import RULE, few_masks
from utils.files import require_writable
from utils.inference.arguments import parse_options
from utils.inference.finished_run import find_run
from utils.inference.loading import Loaded, load
from utils.inference.settings import require_same_classes
from utils.models.registry import ARCHS
from utils.training.provenance import describe_run

ROOT = Path(__file__).resolve().parents[2]
DATASETS = {folder.name: folder for folder in (CUB, ILSVRC)}
DEFAULT_RUN = Path("demo_run")
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
        UserError: whatever the user can mend.
    """
    args = parse_arguments(argv)
    loaded, whole = open_network(args)
    split = choose_pictures(whole, args.images, args.examples)
    folder = (args.save or loaded.checkpoint.path.parent) / FOLDERS[args.at]
    require_writable(folder)
    part = len(split) if len(split) == len(whole) else f"{len(split)} of {len(whole)}"
    print(f"{part} pictures of the {split.name} split ({whole.layout}); masks on {PLACES[args.at]}", flush=True)
    if split.masks:
        print(f"masks: {understand_masks(split.masks.values())}", flush=True)
    begin = time.perf_counter()
    experiment = run_experiment(
        loaded.model,
        split,
        loaded.recipe,
        loaded.device,
        args.at,
        masks=args.masks,
        batch_size=args.batch_size,
        num_workers=0 if loaded.device.type == "cpu" else DEFAULT_WORKERS,
    )
    seconds = time.perf_counter() - begin
    summary = summarize(experiment.curves)
    print(report(experiment, summary, seconds), flush=True)

    curves = write_curves(folder / CURVES_FILE, experiment.curves)
    wanted = len(split) - experiment.without_mask
    record, spreadsheet = write_summary(
        folder,
        summary,
        verdict=verdict(summary),
        rule=RULE,
        checkpoint=loaded.checkpoint.path.name,
        arch=loaded.model.arch,
        tap=loaded.model.tap,
        **describe_measurement(curves, loaded.checkpoint.path, args.at, loaded.recipe, wanted, args.masks),
        pictures_of_split=len(whole),
        without_mask=experiment.without_mask,
        without_object=experiment.without_object,
        failures=experiment.failures,
        seconds=seconds,
        made_with=describe_run(ROOT),
    )
    motivation, picture = save_figures(folder, experiment.curves, split, loaded.recipe, args.examples, args.at)
    print(f"look at {picture} and {motivation.name}; beside them {record.name}, {spreadsheet.name}, {curves.name}")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line; `--help` explains every option."""
    parser = CommandParser(
        prog="python -m utils.exploratory",
        description=__doc__,
        epilog=EPILOG,
    )
    parser.add_argument(
        "--run", type=place, metavar="FOLDER", help=f"of a finished run: {DEFAULT_RUN} (default), CUB/logs/vgg, ..."
    )
    parser.add_argument("--dataset", choices=DATASETS, help="without a run: whose recipe and layout (default: CUB)")
    parser.add_argument("--arch", choices=ARCHS, help="without a run: the backbone")
    parser.add_argument(
        "--checkpoint",
        type=place,
        metavar="FILE",
        help="without a run: released weights (default: the highest epoch in <dataset>/logs/<arch>)",
    )
    parser.add_argument(
        "--data",
        type=place,
        metavar="FOLDER",
        help="the data set (default: the run's, without a run <dataset>/data)",
    )
    parser.add_argument(
        "--at",
        choices=PLACES,
        default="features",
        help="what is masked, "
        + " or ".join(f"{name} ({words})" for name, words in PLACES.items())
        + " (default: %(default)s)",
    )
    parser.add_argument(
        "--masks",
        type=number(int, 3, MOST_MASKS),
        default=DEFAULT_MASKS,
        metavar="N",
        help="masks that are measured for each picture, at most, half of them up to the object's own area, among them "
        "the empty one, the object's own and the full one (default: %(default)s)",
    )
    parser.add_argument(
        "--images",
        type=_count_or_all,
        default=DEFAULT_PICTURES,
        metavar="N",
        help="pictures to measure, spread over those of the test set that have masks, or `all` (default: %(default)s)",
    )
    parser.add_argument(
        "--examples",
        type=named,
        nargs="+",
        default=[],
        metavar="ID",
        help=f"pictures to show, at most {EXAMPLES}, by the ids of curves.csv (default: of {EXAMPLES} classes the "
        "rightly classified pictures whose object has most nearly the median size)",
    )
    parser.add_argument(
        "--batch_size",
        type=positive_int,
        default=DEFAULT_BATCH_SIZE,
        help="pictures in a batch; four times as many masked maps make one (default: %(default)s)",
    )
    parser.add_argument(
        "--device", type=named, metavar="DEVICE", help="cpu, cuda, cuda:1, ... (default: cuda where there is one)"
    )
    parser.add_argument(
        "--save",
        type=place,
        metavar="FOLDER",
        help=f"in which the folder {' or '.join(FOLDERS.values())} is made (default: that of the weights)",
    )
    args = parser.parse_args(argv)
    if args.run and (args.dataset or args.arch or args.checkpoint):
        parser.error("a run knows its data set, backbone and weights; give --run, or --arch with --checkpoint")
    if not args.arch and (args.dataset or args.checkpoint):
        parser.error("--arch is missing: name the backbone of the weights")
    if len(args.examples) > EXAMPLES:
        parser.error(f"--examples names {len(args.examples)} pictures; at most {EXAMPLES} are shown")
    return args


def open_network(args: argparse.Namespace) -> tuple[Loaded, Split]:
    """The network and the test pictures that the arguments name.

    Raises:
        UserError: whatever is missing or damaged.
    """
    if args.arch:
        dataset = DATASETS[args.dataset or "CUB"]
        wanted = {"arch": args.arch, "checkpoint": args.checkpoint, "device": args.device}
        loaded = load(dataset, parse_options(dataset.name, wanted))
        split = dataset.loader.load_split(args.data or dataset.path / "data", "test")
        require_same_classes(loaded.checkpoint, split)
        return loaded, split
    run = find_run(args.run or DEFAULT_RUN)
    dataset = DATASETS[run.dataset]
    return run.load(dataset, args.device), run.load_split(dataset, "test", args.data)


def choose_pictures(split: Split, count: int | None, examples: Sequence[str]) -> Split:
    """The pictures to measure: those of :func:`utils.exploratory.measure.sample_pictures`, the examples among them.

    Raises:
        UsageError: an example is none of the split's pictures, or has no mask.
    """
    for image_id in examples:
        if image_id not in split.ids:
            raise UsageError(
                f"--examples {image_id} is none of the {split.name} pictures; their ids are like {split.ids[0]}"
            )
        if split.masks and image_id not in split.masks:
            raise UsageError(f"--examples {image_id} has no mask ({split.layout}); name another picture")
    return sample_pictures(split, count, examples)


def report(experiment: Experiment, summary: Mapping[str, Any], seconds: float) -> str:
    """What is printed: the measurement, what it passed over, the table and the verdict."""
    every = summary["every"]
    count, within = every["pictures"], every["masks_within"]["median"]
    lines = [
        f"{count} pictures measured in {seconds:.0f} s ({seconds / count:.2f} s each); at the median "
        f"{every['masks']['median']:g} masks of a picture, {within:g} of them strictly within the object"
    ]
    passed_over = {
        "without a mask": experiment.without_mask,
        "without an object in the crop": experiment.without_object,
    }
    lines += [f"pictures {what}, passed over: {number}" for what, number in passed_over.items() if number]
    lines += [f"left out: {failure}" for failure in experiment.failures]
    lines += ["", table(summary)]
    if warning := few_masks(summary):
        lines += [warning]
    return "\n".join([*lines, "", verdict(summary), RULE, ""])


def _count_or_all(text: str) -> int | None:
    return None if text == "all" else positive_int(text)


if __name__ == "__main__":
    sys.exit(run_command(main))
