"""What the command lines share: argument types with clear errors, common options, the choice of a device."""

from __future__ import annotations

import argparse
import errno
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch

from utils.distributed import is_launched, local_rank
from utils.errors import UsageError
from utils.models.registry import ARCHS

MOST = 10**9  # of whatever is counted and has no narrower limit: an answer, and no way to exhaust the machine
LARGEST_FACTOR = 1e6  # of rates and weights: with larger ones float32 soon holds nothing that is finite
LARGEST_SIDE = 4096  # pixels; a picture of this side takes 200 MB


class CommandParser(argparse.ArgumentParser):
    """What all commands' parsers have in common: help as it is written, and every option by its whole name alone.

    (An abbreviation would change its meaning with the next option that begins like it.)
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)


class RaisingParser(CommandParser):
    """A parser whose errors are a :class:`UsageError`, for options that do not come from this command line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


class _NoLocalRank(argparse.Action):
    """The option that torch.distributed.launch hands to every process."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        parser.error("--local-rank comes from torch.distributed.launch; start the processes with torchrun instead")


def number(kind: type, low: float, high: float = float("inf"), open_low: bool = False) -> Callable[[str], float]:
    """An argparse type: a number of `kind` in [low, high], or in (low, high] where `open_low`."""

    def parse(text: str) -> float:
        shown = _shown(text)
        try:
            value = kind(text)
            is_finite = math.isfinite(value)
        except (ValueError, OverflowError):
            raise argparse.ArgumentTypeError(f"{shown!r} is not a number of the wanted kind") from None
        if not (is_finite and low <= value <= high) or (open_low and value == low):
            bound = f"greater than {low}" if open_low else f"at least {low}"
            limit = f" and at most {high}" if high != float("inf") else ""
            raise argparse.ArgumentTypeError(f"{shown} must be {bound}{limit}")
        return value

    return parse


def named(text: str) -> str:
    """An argparse type: a name that is not empty, as an unset variable of a shell would give it, nor one that no file
    could have, nor that of a link which leads to itself."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError("an empty name is none; leave the option out, or name something")
    try:
        os.stat(text)
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            fault = "is too long for a name" if error.errno == errno.ENAMETOOLONG else "is a link that leads to itself"
            raise argparse.ArgumentTypeError(f"{_shown(text)!r} {fault}") from None
    return text


def place(text: str) -> Path:
    """An argparse type: a file or folder. (Python takes an empty name for the folder that the command is run in.)"""
    return Path(named(text))


def _shown(text: str, most: int = 40) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


positive_int = number(int, 1, MOST)
natural = number(int, 0, MOST)
# Below 16 pixels nothing is left of the picture behind five halvings.
side = number(int, 16, LARGEST_SIDE)
seed = number(int, 0, 2**63 - 1)
positive_float = number(float, 0, LARGEST_FACTOR, open_low=True)
non_negative_float = number(float, 0, LARGEST_FACTOR)
share = number(float, 0, 1)
positive_share = number(float, 0, 1, open_low=True)
MOST_WORKERS = 256
workers = number(int, 0, MOST_WORKERS)
DEFAULT_WORKERS = min(4, os.cpu_count() or 1)


def add_common_options(parser: argparse.ArgumentParser, batch_size_default: str) -> None:
    """Adds the options that training and inference share; `batch_size_default` says in words what holds otherwise."""
    parser.add_argument("--arch", choices=ARCHS, help="the backbone")
    parser.add_argument(
        "--root", "--data", type=place, metavar="FOLDER", help="where the data set lies (default: <dataset>/data)"
    )
    parser.add_argument("--batch_size", type=positive_int, help=f"pictures in a batch (default: {batch_size_default})")
    parser.add_argument("--resize_size", type=side, help="pictures are resized to this square (default: 256)")
    parser.add_argument("--crop_size", type=side, help="side of the crops that the net sees (default: 224)")
    parser.add_argument("--threshold", type=share, help="of the normalised map, in [0, 1] (default: the recipe's)")
    parser.add_argument("--top_k", type=positive_int, help="foreground maps to average (default: the recipe's)")
    parser.add_argument(
        "--align_maps",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="draw maps where their cells look, not stretched over the crop as the authors do (default: stretched)",
    )
    parser.add_argument(
        "--ignore-misfits",
        "--ignore_misfits",
        action="store_true",
        help="score a data set whose boxes cannot be those of its pictures (shrunk pictures, shares in place of "
        "pixels, ...) all the same (default: more than some slips end the evaluation)",
    )
    parser.add_argument(
        "--num_workers",
        type=workers,
        help=f"processes that read pictures (default: {DEFAULT_WORKERS}; inference on a CPU, busy anyway: 0)",
    )
    parser.add_argument(
        "--device",
        type=named,
        metavar="DEVICE",
        help="cpu, cuda, cuda:1, mps, ... (default: cuda where there is one, else cpu)",
    )
    parser.add_argument("--local-rank", "--local_rank", nargs="?", action=_NoLocalRank, help=argparse.SUPPRESS)


def choose_device(name: str | None) -> torch.device:
    """The device called `name`, or the best one there is; of several processes on a machine each gets its own GPU.

    Raises:
        UsageError: there is no such device; says which there are.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and is_launched():
        name = f"cuda:{local_rank()}"
    elif name.startswith("cuda:") and is_launched():
        raise UsageError(f"--device {name} would put all processes onto one GPU; give --device cuda, or leave it out")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # reading back unmasks devices that compute nothing
    except (RuntimeError, AssertionError, ImportError, NotImplementedError, AttributeError) as error:
        cuda = torch.cuda.device_count()
        there_are = "cpu" + (f", cuda:0 to cuda:{cuda - 1}" if cuda else "")
        raise UsageError(f"--device {name} is not to be had on this machine; there are: {there_are}") from error
    return device
