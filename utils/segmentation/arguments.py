"""The command line of `python -m utils.segmentation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.data.dataset import Dataset
from utils.models.registry import ARCHS
from utils.segmentation.kinds import KINDS, SCALES
from utils.system.options import (
    NAME,
    NATURAL,
    PLACE,
    SHARE,
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

MAKE, SCORE, PICTURES = "what is made", "what is scored", "pictures and files"
PROG = "python -m utils.segmentation"
DESCRIPTION = "From a network to segments: maps, seeds, mean IoU. A command's --help has its options."
EXAMPLES = """examples:
  python train.py --dataset VOC --arch resnet --root /data/VOCdevkit
  python -m utils.segmentation maps --root /data/VOCdevkit --list train --maps maps
  python -m utils.segmentation seeds --root /data/VOCdevkit --list train --maps maps --save seeds
  python -m utils.segmentation evaluate --root /data/VOCdevkit --list val --masks my_masks"""


@dataclass(frozen=True, kw_only=True)
class Common:
    """What the three commands share."""

    root: Path | None = place(
        "where the data set lies", words="<dataset>/data", flags=("--root", "--data"), metavar="FOLDER", group=PICTURES
    )
    of_list: str = option(
        "its pictures: train (1,464), train_aug (10,582) or val (1,449)",
        NAME,
        default="train",
        flags=("--list",),
        metavar="LIST",
        group=PICTURES,
    )


@dataclass(frozen=True, kw_only=True)
class MapSettings(Common):
    """What `maps` is asked."""

    arch: str = option("the backbone", Choice(ARCHS), default="resnet", group=MAKE)
    checkpoint: Path | None = place(
        "the weights: a run's, or the authors' released ones",
        words="the highest epoch in logs/<arch>",
        group=MAKE,
        metavar="FILE",
    )
    download: bool = switch(
        "fetch the authors' released file from Google Drive, unless it is there, and use it", group=MAKE
    )
    map: str = option(
        "bas, the generator's maps; cam, the class maps; fused, both, each brought to a highest value of 1 and added",
        Choice(KINDS),
        default="bas",
        group=MAKE,
    )
    cam_weights: Path | None = place(
        "another network for the class maps, as IRN's res50_cam.pth.pth",
        words="the same network",
        flags=("--cam-weights",),
        group=MAKE,
        metavar="FILE",
    )
    scales: tuple[float, ...] = option(
        "of the picture; each with its mirror image", Several(Number(float, 0.1, 4)), default=SCALES, group=MAKE
    )
    device: str | None = option(
        "cpu, cuda, cuda:1, mps, ...", NAME, default=None, words="cuda where there is one, else cpu", group=MAKE
    )
    maps: Path = option(
        "where <id>.npz go; those that are there stay", PLACE, default=Path("maps"), group=PICTURES, metavar="FOLDER"
    )
    npy: bool = switch("beside each the dictionary <id>.npy that IRN's programs read", group=PICTURES)


@dataclass(frozen=True, kw_only=True)
class SeedSettings(Common):
    """What `seeds` is asked."""

    maps: Path = option("of `maps`", PLACE, default=Path("maps"), group=PICTURES, metavar="FOLDER")
    threshold: float | None = option(
        "of the background", SHARE, default=None, words="the best on --select-on", group=SCORE
    )
    select_on: str | None = option(
        "the list on whose masks the threshold is chosen; maps of its pictures must be in --maps, too",
        NAME,
        default=None,
        words="--list itself, as the authors do",
        flags=("--select-on",),
        group=SCORE,
        metavar="LIST",
    )
    save: Path | None = place(
        "where the seeds go as <id>.png with VOC's palette, with results.json, the curve and a sheet",
        group=PICTURES,
        metavar="FOLDER",
    )
    vis: int = option("pictures on the sheet", NATURAL, default=16, group=PICTURES, metavar="N")


@dataclass(frozen=True, kw_only=True)
class MaskSettings(Common):
    """What `evaluate` is asked."""

    masks: Path = option(
        "<id>.png, of indices with or without a palette, or <id>.npy",
        PLACE,
        default=Path("seeds"),
        group=SCORE,
        metavar="FOLDER",
    )
    save: Path | None = place("where results.json and a sheet go", group=PICTURES, metavar="FOLDER")
    vis: int = option("pictures on the sheet", NATURAL, default=16, group=PICTURES, metavar="N")


COMMANDS = {
    "maps": (MapSettings, "makes maps of the classes that each picture has, from several scales and mirror images"),
    "seeds": (
        SeedSettings,
        "cuts seeds out of maps, finds the threshold with the highest mean IoU, scores and saves them",
    ),
    "evaluate": (MaskSettings, "scores masks of any origin by their mean IoU"),
}


def parse_arguments(
    datasets: Mapping[str, Dataset], argv: Sequence[str] | None = None
) -> tuple[Dataset, MapSettings | SeedSettings | MaskSettings]:
    """Reads the command line; `--help` explains every option.

    Args:
        datasets: for `--dataset`, by name; the first one is the default.
        argv: the arguments; `sys.argv` if None.

    Returns:
        The data set, and the settings of the command that was named.
    """
    usage = f"%(prog)s {{{','.join(COMMANDS)}}} [options]"
    parser = CommandParser(prog=PROG, usage=usage, description=DESCRIPTION, epilog=EXAMPLES)
    commands = parser.add_subparsers(
        prog=PROG, dest="command", required=True, metavar="COMMAND", parser_class=CommandParser
    )
    default = next(iter(datasets))
    for name, (settings, words) in COMMANDS.items():
        one = commands.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}.")
        one.add_argument("--dataset", choices=tuple(datasets), default=default, help=f"default: {default}")
        add_options(one, settings)
    args = parser.parse_args(argv)
    settings, _ = COMMANDS[args.command]
    chosen = settle(settings(), given(settings, args))
    if args.command == "maps" and args.download and args.checkpoint:
        parser.error("--download fetches a checkpoint; leave out --checkpoint")
    if args.command == "maps" and args.cam_weights and chosen.map == "bas":
        parser.error("--cam-weights has no part in --map bas; give --map cam or fused")
    if args.command == "seeds" and args.select_on and args.threshold is not None:
        parser.error("--select-on chooses the threshold; leave out --threshold")
    return datasets[args.dataset], chosen
