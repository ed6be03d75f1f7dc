"""What the command lines share: where the data lie, who reads them, where to compute."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.errors import UsageError
from utils.models.registry import ARCHS
from utils.options import NAME, PLACE, SWITCH, Number, option

if TYPE_CHECKING:
    import torch

DEFAULT_WORKERS = min(4, os.cpu_count() or 1)
MOST_WORKERS = 256


@dataclass(frozen=True, kw_only=True)
class Common:
    """What training and evaluation share: where the data lie, who reads them, where to compute."""

    dataset_dir: Path | None = option(
        "a data set of your own under the data set's recipe: wsolevaluation's metadata, or train/ and test/ with a "
        "folder per class",
        PLACE,
        default=None,
        flags=("--dataset-dir", "--dataset_dir"),
        metavar="FOLDER",
    )
    root: Path | None = option(
        "where the data set lies",
        PLACE,
        default=None,
        words="<dataset>/data",
        flags=("--root", "--data"),
        metavar="FOLDER",
    )
    ignore_misfits: bool = option(
        "score a data set whose boxes cannot be those of its pictures (shrunk pictures, shares in place of pixels, "
        "...) all the same",
        SWITCH,
        default=False,
        words="more than some slips end the evaluation",
        flags=("--ignore-misfits", "--ignore_misfits"),
    )
    num_workers: int | None = option(
        "processes that read pictures",
        Number(int, 0, MOST_WORKERS),
        default=None,
        words=f"{DEFAULT_WORKERS}; inference on a CPU, busy anyway: 0",
    )
    device: str | None = option(
        "cpu, cuda, cuda:1, mps, ...", NAME, default=None, words="cuda where there is one, else cpu", metavar="DEVICE"
    )


def add_arch(parser: argparse.ArgumentParser) -> None:
    """Adds `--arch`, and a word for those who start processes by what torchrun has replaced."""
    parser.add_argument("--arch", choices=ARCHS, help="the backbone (default: vgg)")
    parser.add_argument("--local-rank", "--local_rank", nargs="?", action=_NoLocalRank, help=argparse.SUPPRESS)


class _NoLocalRank(argparse.Action):
    """The option that torch.distributed.launch hands to every process."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        parser.error("--local-rank comes from torch.distributed.launch; start the processes with torchrun instead")


def choose_device(name: str | None) -> torch.device:
    """The device called `name`, or the best one there is; of several processes on a machine each gets its own GPU.

    Raises:
        UsageError: there is no such device; says which there are.
    """
    import torch  # here: help needs no PyTorch

    from utils.distributed import is_launched, local_rank

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
