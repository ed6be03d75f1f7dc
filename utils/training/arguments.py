"""The command line of `train.py`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from utils.data.dataset import Dataset, defaults_in_words, own_dataset
from utils.models import recipe
from utils.models.recipe import Recipe
from utils.models.registry import taps_in_words
from utils.runs import settings
from utils.runs.common import add_arch
from utils.runs.settings import EXIT_CODE, Engine, RunSettings
from utils.system.options import CommandParser, add_options, given, settle

EXAMPLES = f"""examples:
  python train.py --demo                                  see it work in minutes, no data set needed
  python train.py --arch vgg --root /data --download      fetch CUB-200-2011 and train VGG16 on it
  python train.py --dataset ILSVRC --arch resnet --root /data/ILSVRC2012 --batch_size 64
  python train.py --arch vgg --root /data --resume        go on where the run stopped, whatever stopped it
  torchrun --nproc_per_node=4 train.py --dataset ILSVRC --arch resnet --root /data/ILSVRC2012 --amp bf16
  python train.py --arch vgg --recipe ijcv                the authors' second paper

taps (--tap): {taps_in_words()}

exit codes: 0 done, 1 failure, 2 wrong usage, {EXIT_CODE} stopped by Ctrl-C or SIGTERM with everything saved,
130 ended by a second Ctrl-C"""


@dataclass(frozen=True)
class TrainingCommand:
    """What `train.py` was asked for.

    Attributes:
        dataset: with the recipes.
        arch: the backbone, None where it was not given.
        given: the settings of the recipe that were given.
        engine: those of the engine that were given.
        settings: all others.
    """

    dataset: Dataset
    arch: str | None
    given: Mapping[str, Any]
    engine: Mapping[str, Any]
    settings: RunSettings


def parse_arguments(
    description: str | None,
    datasets: Mapping[str, Dataset],
    demo: Dataset,
    argv: Sequence[str] | None = None,
    parser_class: type[CommandParser] = CommandParser,
) -> TrainingCommand:
    """Reads the command line; `--help` explains every option.

    Args:
        description: what the command is for.
        datasets: for `--dataset`, by name; the first one is the default.
        demo: the data set of `--demo`.
        argv: the arguments; `sys.argv` if None.
        parser_class: what parses, and so how errors are told.
    """
    parser = parser_class(description=description, epilog=EXAMPLES)
    default = next(iter(datasets))
    parser.add_argument("--dataset", choices=tuple(datasets), help=f"default: {default}")
    add_arch(parser)
    parser.add_argument("--demo", action="store_true", help="compose a small set of real photographs and train on it")
    parser.add_argument("--gpu", type=recipe.NATURAL, metavar="N", help="the same as --device cuda:N")
    groups = {**recipe.GROUPS, **settings.GROUPS}
    add_options(parser, RunSettings, groups=groups)
    add_options(parser, Recipe, groups=groups, words=defaults_in_words(datasets.values()))
    add_options(parser, Engine, groups=groups)
    args = parser.parse_args(argv)
    _check(parser, args, datasets[args.dataset or default], default)
    if args.gpu is not None:
        args.device = f"cuda:{args.gpu}"
    dataset = demo if args.demo else datasets[args.dataset or default]
    if args.dataset_dir:
        dataset = own_dataset(dataset, args.dataset_dir)
    run = settle(RunSettings(), given(RunSettings, args))
    of_recipe = {name: value for name, value in given(Recipe, args).items() if name not in ("dataset", "arch")}
    return TrainingCommand(dataset, args.arch, of_recipe, given(Engine, args), run)


def settle_engine(changes: Mapping[str, Any], stored: Mapping[str, Any]) -> Engine:
    """The defaults, under the settings of the run to resume, under what the user gave."""
    if stored:
        stored = {"winograd": False, **stored}  # runs older than the option went without
    names = {field.name for field in fields(Engine)}
    return settle(settle(Engine(), {name: stored[name] for name in names & stored.keys()}), changes)


def _is_launched() -> bool:
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace, dataset: Dataset, default: str) -> None:
    """Ends the command where options contradict each other."""
    if args.gpu is not None and args.device is not None:
        parser.error("give --gpu or --device, not both")
    if args.gpu is not None and _is_launched():
        parser.error("--gpu puts all processes onto one GPU; leave it out, and each takes its own")
    elsewhere = args.dataset not in (None, default) or args.root or args.dataset_dir or args.download
    if args.demo and (elsewhere or args.eval_every):
        left_out = "--dataset, --root, --dataset-dir, --download and --eval_every"
        parser.error(f"--demo composes its own data set; leave out {left_out}")
    if args.alignments and not args.demo:
        parser.error("--alignments belongs to --demo; BAS_inference.py --align_maps draws a data set's maps in one way")
    if args.top_ks and not args.demo:
        parser.error("--top_ks belongs to --demo; BAS_inference.py --sweep compares them on a data set")
    if args.dataset_dir and (args.root or args.download):
        parser.error("--dataset-dir names the data set; leave out --root and --download")
    if args.resume not in (None, "auto") and args.pretrained not in (None, "auto"):
        parser.error("--resume takes the weights of the run; leave out --pretrained")
    if args.lr_steps and args.poly_steps:
        parser.error("give --lr_steps, falls at epochs, or --poly_steps, a fall at every step, not both")
    if args.lr_steps and len(set(args.lr_steps)) < len(args.lr_steps):
        parser.error("--lr_steps names an epoch twice")
    if args.download and _is_launched():
        parser.error("--download is for one process, and the others would not wait so long; fetch the data set first")
    if args.download and not dataset.can_download:
        parser.error(f"--download cannot fetch {dataset.title}; {dataset.how_to_get}")
