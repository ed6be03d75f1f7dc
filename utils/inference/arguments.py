"""The options of `python BAS_inference.py`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any

from utils.arguments import (
    CommandParser,
    RaisingParser,
    add_common_options,
    named,
    natural,
    number,
    place,
    positive_int,
)
from utils.data.split import SPLITS_WITH_VAL
from utils.errors import UsageError
from utils.evaluation.maps import DEFAULT_THRESHOLDS, FILES, KINDS
from utils.evaluation.protocols import PROTOCOLS
from utils.inference.settings import SETTINGS_FILE
from utils.models.registry import RECIPES
from utils.models.taps import taps_in_words

DEFAULT_BATCH_SIZE = 8
# Options that speak of a labelled test set; with pictures of one's own they would be ignored.
_OF_TEST_SETS = ("compare", "sweep", "top_ks", "select_on", "vis", "map_files", "save_maps", "ignore_misfits")
# Options that make sense for `load_localizer`, which is given one picture at a time and writes no files.
LOCALIZER_OPTIONS = (
    *("arch", "checkpoint", "dataset_dir", "classes", "device", "amp"),
    *("map", "protocol", "tencrop", "threshold", "top_k", "align_maps", "resize_size", "crop_size"),
    *("recipe", "final_relu", "tap"),
)


def parse_options(dataset: str, options: Mapping[str, Any]) -> argparse.Namespace:
    """Reads options given in Python as if they stood on the command line, so that the same values are right and wrong.

    Args:
        dataset: `CUB` or `ILSVRC`.
        options: values by name, of :data:`LOCALIZER_OPTIONS`; None leaves one to its default.

    Raises:
        UsageError: an option of another name, or a value that the command would refuse.
    """
    unknown = sorted(set(options) - set(LOCALIZER_OPTIONS))
    if unknown:
        raise UsageError(f"there is no option {unknown[0]!r}; choose among {', '.join(LOCALIZER_OPTIONS)}")
    defaults = parse_arguments(dataset, [])
    argv = []
    for name, value in options.items():
        if isinstance(value, bool):
            argv += [f"--{'' if value else 'no-'}{name}"] * (value != getattr(defaults, name))
        elif value is not None:
            argv.append(f"--{name}={value}")
    return parse_arguments(dataset, argv, RaisingParser)


def parse_arguments(
    dataset: str, argv: list[str] | None = None, parser_class: type[CommandParser] = CommandParser
) -> argparse.Namespace:
    """Reads the command line; `--help` explains every option."""
    parser = parser_class(
        description=f"Evaluates a BAS checkpoint on {dataset}, or draws boxes on pictures of your own (--images).",
        epilog="examples:\n"
        f"  python BAS_inference.py --arch resnet --data /data/{dataset:18} the paper's figures, and more\n"
        "  python BAS_inference.py --arch resnet --compare bas cam center          methods in one table, one pass\n"
        "  python BAS_inference.py --arch resnet --sweep --select-on train         curves; an honest threshold\n"
        "  python BAS_inference.py --arch resnet --save report                     a page to look at, a row an image\n"
        "  python BAS_inference.py --arch resnet --images holiday/ --save boxes    pictures of your own\n"
        f"Settings that are not given come from the run's {SETTINGS_FILE} beside the checkpoint, else from the recipe.",
    )
    add_common_options(parser, batch_size_default=f"{DEFAULT_BATCH_SIZE}, of ten crops each")
    parser.set_defaults(arch="vgg")
    parser.add_argument(
        "--checkpoint",
        type=place,
        metavar="FILE",
        help="default: the highest epoch in logs/<arch>/, the released name",
    )
    parser.add_argument(
        "--tencrop",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="class scores from ten crops, or from the one crop of the map (default: the protocol's, ten)",
    )
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        help="the paper whose threshold, top-k and head hold where neither an option nor the run's settings say "
        "otherwise (default: ijcv for a file of the IJCV release, else cvpr)",
    )
    parser.add_argument(
        "--tap",
        type=named,
        metavar="LAYER",
        help="where the generator sits in the network, if the run trained it elsewhere than the paper and its "
        f"settings are lost: {taps_in_words()} (default: the run's, else the one marked *)",
    )
    parser.add_argument(
        "--final_relu",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether the class maps end in a ReLU: CVPR models do, IJCV models do not (default: by the file)",
    )
    parser.add_argument("--amp", action="store_true", help="compute in half precision, on CUDA")
    _add_questions(parser)
    _add_outputs(parser)
    args = parser.parse_args(argv)
    _check(parser, args)
    if args.map_files and not (args.map or args.compare):
        args.map = FILES
    args.map = args.map or "bas"
    return args


def _add_questions(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is asked")
    group.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="authors",
        help="; ".join(protocol.title for protocol in PROTOCOLS.values()) + " (default: %(default)s)",
    )
    usual = ", ".join(f"{kind} {value:g}" for kind, value in DEFAULT_THRESHOLDS.items() if value is not None)
    group.add_argument(
        "--map",
        choices=KINDS,
        help="bas, the generator's map, is the default; or, through the same evaluator, the same network's class "
        f"activation map, its Grad-CAM, or a centred Gaussian (thresholds where none is given or selected: {usual})",
    )
    group.add_argument("--compare", choices=KINDS, nargs="+", metavar="MAP", help="several kinds of maps in one pass")
    group.add_argument(
        "--sweep", action="store_true", help="all thresholds from 0 to 0.99 and several top-k, in the same pass"
    )
    group.add_argument(
        "--top-ks", "--top_ks", type=positive_int, nargs="+", metavar="K", help="top-k values of --sweep"
    )
    group.add_argument(
        "--select-on",
        "--select_on",
        choices=[name for name in SPLITS_WITH_VAL if name != "test"],
        help="choose each map's threshold on this split's boxes before the test set is looked at",
    )
    group.add_argument(
        "--max-box-acc-step",
        "--max_box_acc_step",
        type=number(float, 0.001, 0.1),
        default=0.01,
        metavar="STEP",
        help="between the thresholds of MaxBoxAcc; wsolevaluation's own is 0.001 (default: %(default)s)",
    )


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("input and output")
    group.add_argument(
        "--dataset-dir",
        "--dataset_dir",
        type=place,
        metavar="FOLDER",
        help="a data set of your own: wsolevaluation's metadata, or train/ and test/ with a folder per class",
    )
    group.add_argument(
        "--images",
        type=named,
        nargs="+",
        metavar="PATH",
        help="pictures of your own: files, folders, patterns; no labels needed",
    )
    group.add_argument(
        "--map-files",
        "--map_files",
        type=place,
        metavar="FOLDER",
        help="score maps of another tool, <FOLDER>/<image id>.npy of any size, as wsolevaluation lays them out: alone, "
        "or beside those of --map or --compare; they are maps of the square that the protocol looks at",
    )
    group.add_argument("--classes", type=place, metavar="FILE", help="names of the classes, one a line")
    group.add_argument("--json", type=place, metavar="FILE", help="save the figures and the settings there")
    group.add_argument(
        "--save",
        type=place,
        metavar="FOLDER",
        help="a new folder for report.html, images.csv, results.json, pictures",
    )
    group.add_argument(
        "--save-maps",
        "--save_maps",
        type=place,
        metavar="FOLDER",
        help="save each picture's map of the label as it is scored, (S, S) in [0, 1], as <FOLDER>/<image id>.npy",
    )
    group.add_argument(
        "--vis", type=natural, default=0, metavar="N", help="N test pictures with maps and boxes on one sheet (a PNG)"
    )


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.json and args.json.is_dir():
        parser.error(f"--json {args.json} is a folder; name a file")
    if args.json:  # an hour's evaluation is not lost to a slip of the pen
        above = next(folder for folder in args.json.absolute().parents if os.path.exists(folder))
        if args.json.is_file() and not os.access(args.json, os.W_OK):
            parser.error(f"--json {args.json} may not be written; choose another place")
        if not (above.is_dir() and os.access(above, os.W_OK)):
            parser.error(f"--json {args.json} cannot be written below {above}; choose another place")
    if args.dataset_dir and args.root:
        parser.error("give --dataset-dir or --data, not both")
    if args.images:
        ignored = [name for name in _OF_TEST_SETS if getattr(args, name)]
        if ignored or args.root:
            option = ignored[0].replace("_", "-") if ignored else "data"
            parser.error(f"--images has neither labels nor true boxes; leave out --{option}")
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
