"""The command line of `BAS_inference.py`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.data.dataset import Dataset, own_dataset
from utils.evaluation.kinds import DEFAULT_THRESHOLDS, FILES, KINDS
from utils.evaluation.protocols import PROTOCOLS
from utils.models.recipe import Recipe, marked
from utils.models.registry import taps_in_words
from utils.runs.common import BY_DEVICE, Common, add_arch
from utils.system.options import (
    FLAG,
    NAME,
    NATURAL,
    POSITIVE,
    Choice,
    CommandParser,
    Number,
    Several,
    add_options,
    given,
    option,
    place,
    settle,
    switch,
)

# Options that speak of a labelled test set; with pictures of one's own they would be ignored.
_OF_TESTS = ("compare", "sweep", "top_ks", "select_on", "vis", "map_files", "save_maps", "ignore_misfits", "scorers")
_EXAMPLES = {
    "--data /data/pictures": "the paper's figures, and more",
    "--compare bas cam center": "methods in one table, one pass",
    "--sweep --select-on train": "curves; an honest threshold",
    "--save report": "a page to look at, a row an image",
    "--images holiday/ --save boxes": "pictures of your own",
    "--download": "the authors' released network",
}
QUESTIONS, FILES_GROUP = "what is asked", "input and output"
_USUAL = ", ".join(f"{kind} {value:g}" for kind, value in DEFAULT_THRESHOLDS.items())


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings(Common):
    """What `BAS_inference.py` is asked, besides the settings of the recipe that evaluate a checkpoint."""

    checkpoint: Path | None = place(
        "the weights", words="the highest epoch in logs/<arch>/, the released name", metavar="FILE"
    )
    download: bool = switch(
        "fetch the authors' released file of the recipe from Google Drive, unless it is there, and evaluate it"
    )
    batch_size: int = option("pictures in a batch, of ten crops each", POSITIVE, default=8)
    tencrop: bool | None = option(
        "class scores from ten crops, or from the one crop of the map", FLAG, default=None, words="the protocol's, ten"
    )
    amp: bool = switch("compute in half precision (float16), on CUDA")

    protocol: str | None = option(
        "; ".join(protocol.title for protocol in PROTOCOLS.values()),
        Choice(PROTOCOLS),
        default=None,
        words="the paper's that has the data set: authors for CUB and ILSVRC, else ijcv",
        group=QUESTIONS,
    )
    map: str | None = option(
        "bas, the generator's map; or, through the same evaluator, the same network's class activation map, its "
        f"Grad-CAM, or a centred Gaussian (thresholds where none is given or selected: {_USUAL})",
        Choice(KINDS),
        default=None,
        words="bas",
        group=QUESTIONS,
    )
    compare: tuple[str, ...] = option(
        "several kinds of maps in one pass", Several(Choice(KINDS)), default=(), group=QUESTIONS, metavar="MAP"
    )
    sweep: bool = switch("all thresholds from 0 to 0.99 and several top-k, in the same pass", group=QUESTIONS)
    top_ks: tuple[int, ...] = option(
        "top-k values of --sweep", Several(POSITIVE), default=(), group=QUESTIONS, flags=("--top-ks",), metavar="K"
    )
    select_on: str | None = option(
        "choose each map's threshold on this split's boxes, or masks, before the test set is looked at",
        Choice(("train", "val")),
        default=None,
        group=QUESTIONS,
        flags=("--select-on",),
    )
    max_box_acc_step: float = option(
        "between the thresholds of MaxBoxAcc; wsolevaluation's own is 0.001",
        Number(float, 0.001, 0.1),
        default=0.01,
        group=QUESTIONS,
        flags=("--max-box-acc-step",),
        metavar="STEP",
    )

    images: tuple[str, ...] = option(
        "pictures of your own: files, folders, patterns; no labels needed",
        Several(NAME),
        default=(),
        group=FILES_GROUP,
        metavar="PATH",
    )
    map_files: Path | None = place(
        "score maps of another tool, <FOLDER>/<image id>.npy of any size, as wsolevaluation lays them out: alone, or "
        "beside those of --map or --compare; they are maps of the square that the protocol looks at",
        group=FILES_GROUP,
        flags=("--map-files",),
        metavar="FOLDER",
    )
    classes: Path | None = place("names of the classes, one a line", group=FILES_GROUP, metavar="FILE")
    json: Path | None = place("save the figures and the settings there", group=FILES_GROUP, metavar="FILE")
    save: Path | None = place(
        "a new folder for report.html, images.csv, results.json, pictures", group=FILES_GROUP, metavar="FOLDER"
    )
    save_maps: Path | None = place(
        "save each picture's main map as it is scored, (S, S) in [0, 1], as <FOLDER>/<image id>.npy",
        group=FILES_GROUP,
        flags=("--save-maps",),
        metavar="FOLDER",
    )
    vis: int = option(
        "N test pictures with maps and boxes on one sheet (a PNG)",
        NATURAL,
        default=0,
        words="",
        group=FILES_GROUP,
        metavar="N",
    )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of maps that are asked for, the main one first."""
        named = self.compare or ((self.map,) if self.map else ())
        files = (FILES,) if self.map_files else ()
        return (*named, *files) or ("bas",)


@dataclass(frozen=True)
class InferenceCommand:
    """What `BAS_inference.py` was asked for.

    Attributes:
        dataset: with recipes, reader and published results.
        arch: the backbone.
        given: settings of the recipe that were given.
        settings: all others.
    """

    dataset: Dataset
    arch: str
    given: Mapping[str, Any]
    settings: EvaluationSettings


def parse_arguments(
    datasets: Dataset | Mapping[str, Dataset],
    argv: Sequence[str] | None = None,
    parser_class: type[CommandParser] = CommandParser,
) -> InferenceCommand:
    """Reads the command line; `--help` explains every option.

    Args:
        datasets: the data set, or those to choose from by `--dataset`, by name; the first one is the default.
        argv: the arguments; `sys.argv` if None.
        parser_class: what parses, and so how errors are told.
    """
    choices = {datasets.name: datasets} if isinstance(datasets, Dataset) else datasets
    default, program = next(iter(choices)), "python BAS_inference.py"
    if len(choices) > 1:
        program = f"python -m utils.inference --dataset {list(choices)[-1]}"
    parser = parser_class(
        prog="python -m utils.inference" if len(choices) > 1 else None,
        description="Evaluates a BAS checkpoint on "
        f"{default if len(choices) == 1 else 'a data set'}, or draws boxes on pictures of your own (--images).",
        epilog="examples:\n"
        + "".join(f"  {program} --arch resnet {options:39} {what}\n" for options, what in _EXAMPLES.items())
        + f"\ntaps (--tap): {taps_in_words()}\n"
        "Settings that are not given come from the run's settings.json beside the checkpoint, else from the recipe.",
    )
    if len(choices) > 1:
        parser.add_argument("--dataset", choices=tuple(choices), help=f"default: {default}")
    add_arch(parser)
    add_options(parser, EvaluationSettings)
    add_options(parser, Recipe, marked("evaluates"), words=_of_checkpoint)
    args = parser.parse_args(argv)
    _check(parser, args)
    dataset = choices[getattr(args, "dataset", None) or default]
    if args.dataset_dir:
        dataset = own_dataset(dataset, args.dataset_dir)
    settings = settle(EvaluationSettings(num_workers=BY_DEVICE), given(EvaluationSettings, args))
    of_recipe = {name: getattr(args, name) for name in marked("evaluates") if getattr(args, name) is not None}
    return InferenceCommand(dataset, args.arch or dataset.default_arch, of_recipe, settings)


def _of_checkpoint(name: str) -> str:
    """The default of a recipe's setting in words."""
    words = {"name": "ijcv for a file of the IJCV release, else cvpr", "final_relu": "by the file"}
    return words.get(name, "the run's, else the recipe's")


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.json and args.json.is_dir():
        parser.error(f"--json {args.json} is a folder; name a file")
    if args.json:  # an hour's evaluation is not lost to a slip of the pen
        above = next(folder for folder in args.json.absolute().parents if os.path.exists(folder))
        if args.json.is_file() and not os.access(args.json, os.W_OK):
            parser.error(f"--json {args.json} may not be written; choose another place")
        if not (above.is_dir() and os.access(above, os.W_OK)):
            parser.error(f"--json {args.json} cannot be written below {above}; choose another place")
    places = [os.path.realpath(place) for place in (args.json, args.save, args.save_maps) if place]
    if len(set(places)) < len(places):
        parser.error("--json, --save and --save-maps write different things; give each a place of its own")
    if args.dataset_dir and args.root:
        parser.error("give --dataset-dir or --data, not both")
    if args.download and args.checkpoint:
        parser.error("--download fetches a checkpoint; leave out --checkpoint")
    if args.download and args.dataset_dir:
        parser.error("--download fetches a network for the data set's own classes; leave out --dataset-dir")
    if args.images:
        ignored = [name for name in _OF_TESTS if getattr(args, name)]
        if ignored or args.root:
            name = ignored[0].replace("_", "-") if ignored else "data"
            parser.error(f"--images has neither labels nor true boxes; leave out --{name}")
    if args.compare:
        if len(set(args.compare)) < len(args.compare):
            parser.error("--compare names a map twice")
        if args.map is not None:
            parser.error("give --map or --compare, not both")
    if args.map_files and not args.map_files.is_dir():
        parser.error(f"--map-files {args.map_files} is no folder; name one with <image id>.npy for each picture")
    if args.map_files and args.vis:
        parser.error("--vis draws the network's own maps; leave it or --map-files out")
    if args.select_on and args.threshold is not None:
        parser.error("--select-on chooses the threshold; leave out --threshold")
    if args.top_ks and not (args.sweep and "bas" in (args.compare or [args.map or "bas"])):
        parser.error("--top-ks belongs to --sweep of the map bas; give both, or leave it out")
