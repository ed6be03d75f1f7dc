"""The command line of `train.py`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from utils.arguments import (
    DEFAULT_WORKERS,
    CommandParser,
    RaisingParser,
    add_common_options,
    named,
    natural,
    number,
    place,
    positive_int,
)
from utils.data.training import DEFAULT_PREFETCH
from utils.distributed import DEFAULT_TIMEOUT, is_launched
from utils.models.recipe import Recipe
from utils.training.checkpoints import DEFAULT_KEEP, FOLDER
from utils.training.interruption import EXIT_CODE
from utils.training.recipe_arguments import add_recipe_options
from utils.training.settings import PRECISIONS, Engine
from utils.training.snapshots import FOLDER as SNAPSHOTS

DEFAULT_SAVE_EVERY = 1000
MOST_PREFETCH = 64
LONGEST_TIMEOUT = 30 * 86400  # seconds
EXAMPLES = f"""examples:
  python train.py --demo                                  see it work in minutes, no data set needed
  python train.py --arch vgg --root /data --download      fetch CUB-200-2011 and train VGG16 on it
  python train.py --dataset ILSVRC --arch resnet --root /data/ILSVRC2012 --batch_size 64
  python train.py --arch vgg --root /data --resume        go on where the run stopped, whatever stopped it
  torchrun --nproc_per_node=4 train.py --dataset ILSVRC --arch resnet --root /data/ILSVRC2012 --amp bf16
  python train.py --arch vgg --recipe ijcv                the authors' second paper

exit codes: 0 done, 1 failure, 2 wrong usage, {EXIT_CODE} stopped by Ctrl-C or SIGTERM with everything saved,
130 ended by a second Ctrl-C"""


def parse_arguments(
    description: str,
    datasets: Iterable[str],
    argv: list[str] | None = None,
    parser_class: type[CommandParser] = CommandParser,
) -> argparse.Namespace:
    """Reads the command line; `--help` explains every option.

    Args:
        description: what the command is for.
        datasets: names for `--dataset`.
        argv: the arguments; `sys.argv` if None.
        parser_class: what parses, and so how errors are told.
    """
    parser = parser_class(description=description, epilog=EXAMPLES)
    parser.add_argument("--dataset", choices=datasets, default="CUB", help="default: %(default)s")
    add_common_options(parser, batch_size_default="the recipe's, CUB 32, ILSVRC 128; of all processes together")
    parser.add_argument("--demo", action="store_true", help="compose a small set of real photographs and train on it")
    parser.add_argument(
        "--top_ks",
        type=positive_int,
        nargs="+",
        metavar="K",
        help="with --demo: compare the maps of these k as well",
    )
    parser.add_argument(
        "--dataset-dir",
        "--dataset_dir",
        type=place,
        metavar="FOLDER",
        help="a data set of your own, under --dataset's recipe: wsolevaluation's metadata, or train/ and test/ with a "
        "folder per class",
    )
    parser.add_argument("--download", action="store_true", help="fetch CUB-200-2011 into --root first")
    parser.add_argument(
        "--pretrained",
        type=named,
        default="auto",
        metavar="auto|none|FILE",
        help="weights to start from: ImageNet's, by torchvision (MobileNetV1: the shipped ones), none, or a local file "
        "of them or of a BAS model, whose heads are kept where they fit (default: auto)",
    )
    parser.add_argument("--show_step", type=positive_int, default=20, help="steps between two readings of the losses")
    parser.add_argument(
        "--eval_every", type=natural, default=0, help="evaluate every N epochs (default: after the last only)"
    )
    parser.add_argument(
        "--snapshot",
        type=natural,
        metavar="N",
        help="save the foreground maps of N test pictures, or training pictures where there is no test set, before the "
        f"first epoch and after each in <run>/{SNAPSHOTS}/, for python -m utils.figures; --resume goes on with those "
        "of the run, and 0 ends them (default: 0, --demo 6)",
    )
    parser.add_argument("--gpu", type=natural, metavar="N", help="the same as --device cuda:N")
    parser.add_argument(
        "--save_path",
        type=place,
        help="runs go to <save_path>/<arch>/ (default: logs in the data set's folder, <dataset> or --dataset-dir)",
    )
    add_recipe_options(parser)
    _add_survival_options(parser)
    _add_engine_options(parser)
    args = parser.parse_args(argv)
    _check(parser, args)
    if args.gpu is not None:
        args.device = f"cuda:{args.gpu}"
    if args.num_workers is None:
        args.num_workers = DEFAULT_WORKERS
    return args


def settle_engine(args: argparse.Namespace, stored: Mapping[str, Any]) -> Engine:
    """The defaults, under the settings of the run to resume, under what the user gave."""
    if stored:
        stored = {"winograd": False, **stored}  # runs older than the option went without
    names = [field.name for field in fields(Engine)]
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    return replace(Engine(), **{**{name: stored[name] for name in names if name in stored}, **given})


def require_possible(recipe: Recipe, engine: Engine, datasets: Iterable[str]) -> None:
    """Checks settings that come from a file as if they stood on the command line.

    Args:
        recipe, engine: the settings, of the right types.
        datasets: as for :func:`parse_arguments`.

    Raises:
        UsageError: the command line would refuse one of them; names it and its range.
    """
    settings = {"recipe" if name == "name" else name: value for name, value in asdict(recipe).items()}
    del settings["num_classes"]  # of the data, and no option
    argv = []
    for name, value in {**settings, **asdict(engine)}.items():
        if isinstance(value, bool):
            argv.append(f"--{'' if value else 'no-'}{name}")
        elif isinstance(value, tuple):
            argv += [f"--{name}", *map(str, value)]
        elif value is not None:
            argv.append(f"--{name}={value}")
    parse_arguments("", datasets, argv, RaisingParser)


def _add_survival_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "interruptions", f"A run saves its state after every epoch in <run>/{FOLDER}/, with length and checksum."
    )
    group.add_argument(
        "--resume",
        type=named,
        nargs="?",
        const="last",
        metavar="auto|FILE",
        help="go on from the run's newest intact state, or from FILE; auto: begin if there is none yet",
    )
    group.add_argument(
        "--save_every_steps",
        type=natural,
        default=DEFAULT_SAVE_EVERY,
        metavar="N",
        help="save within epochs, too, every N steps; 0: at their ends only (default: %(default)s)",
    )
    group.add_argument(
        "--keep",
        type=positive_int,
        default=DEFAULT_KEEP,
        metavar="N",
        help="how many of the newest states to keep, besides the one of the best GT-known Loc (default: %(default)s)",
    )
    group.add_argument(
        "--skip_bad_images",
        action=argparse.BooleanOptionalAction,
        help="put the next picture in the place of one that cannot be read, and say so (default: stop)",
    )


def _add_engine_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "speed and scale", "torchrun --nproc_per_node=N train.py ... trains on N devices; --batch_size is shared out."
    )
    group.add_argument(
        "--grad_accum",
        type=positive_int,
        metavar="N",
        help="pass each process's batch through the network in N parts; less memory, and batch statistics of the parts "
        "(default: 1)",
    )
    group.add_argument(
        "--amp",
        nargs="?",
        const="bf16",
        choices=PRECISIONS,
        help="convolutions in half precision; losses, pooling and sigmoid stay in float32 (default: none; bare: bf16)",
    )
    group.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="translate the training step with torch.compile"
    )
    group.add_argument(
        "--winograd",
        action=argparse.BooleanOptionalAction,
        help="on a CPU, without --amp and --compile: train wide 3 x 3 convolutions by Winograd's algorithm, with "
        "2.25 times fewer multiplications; results are the same but for rounding, some 4e-7 of their size instead of "
        "2e-7 (default: yes)",
    )
    group.add_argument(
        "--channels_last",
        action=argparse.BooleanOptionalAction,
        help="memory layout of the trunk (default: channels last)",
    )
    group.add_argument(
        "--tf32",
        action=argparse.BooleanOptionalAction,
        help="TensorFloat-32 on NVIDIA GPUs (default: PyTorch's own, convolutions yes, matrix products no)",
    )
    group.add_argument(
        "--prefetch",
        type=number(int, 1, MOST_PREFETCH),
        default=DEFAULT_PREFETCH,
        metavar="N",
        help="batches that each reading process keeps ready (default: %(default)s)",
    )
    group.add_argument(
        "--timeout",
        type=number(float, 0, LONGEST_TIMEOUT, open_low=True),
        default=DEFAULT_TIMEOUT,
        metavar="SECONDS",
        help="how long a process waits for the others before it gives up (default: %(default)g)",
    )


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the command where options contradict each other."""
    if args.gpu is not None and args.device is not None:
        parser.error("give --gpu or --device, not both")
    if args.gpu is not None and is_launched():
        parser.error("--gpu puts all processes onto one GPU; leave it out, and each takes its own")
    if args.demo and (args.dataset != "CUB" or args.root or args.dataset_dir or args.download or args.eval_every):
        left_out = "--dataset, --root, --dataset-dir, --download and --eval_every"
        parser.error(f"--demo composes its own data set; leave out {left_out}")
    if args.top_ks and not args.demo:
        parser.error("--top_ks belongs to --demo; BAS_inference.py --sweep compares them on a data set")
    if args.dataset_dir and (args.root or args.download):
        parser.error("--dataset-dir names the data set; leave out --root and --download")
    if args.resume not in (None, "auto") and args.pretrained != "auto":
        parser.error("--resume takes the weights of the run; leave out --pretrained")
    if args.lr_steps and len(set(args.lr_steps)) < len(args.lr_steps):
        parser.error("--lr_steps names an epoch twice")
    if args.download and is_launched():
        parser.error("--download is for one process, and the others would not wait so long; fetch the data set first")
    if args.download and args.dataset != "CUB":
        parser.error("--download fetches CUB-200-2011 alone; ILSVRC needs an account at https://www.image-net.org/")
