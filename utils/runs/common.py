"""What the command lines share: where the data lie, who reads them, where to compute."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.models.registry import ARCHS
from utils.system.options import FLAG, NAME, Number, option, place, switch

if TYPE_CHECKING:
    import torch


def _default_workers() -> int:
    """A share of the machine's cores, for each of the processes that torchrun has started on it."""
    processes = os.environ.get("LOCAL_WORLD_SIZE", "")
    # Those that this process may use: a scheduler's share, where there is one.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = cores // max(int(processes) if processes.isdecimal() else 1, 1)
    return min(8, max(share, 1))


DEFAULT_WORKERS = _default_workers()
MOST_WORKERS = 256
BY_DEVICE = -1  # `num_workers` of an evaluation and `scorers` until the device is known


@dataclass(frozen=True, kw_only=True)
class Common:
    """What training and evaluation share: where the data lie, who reads them, where to compute."""

    dataset_dir: Path | None = place(
        "a data set of your own under the data set's recipe: wsolevaluation's metadata, or train/ and test/ with a "
        "folder per class",
        flags=("--dataset-dir",),
        metavar="FOLDER",
    )
    root: Path | None = place(
        "where the data set lies", words="<dataset>/data", flags=("--root", "--data"), metavar="FOLDER"
    )
    ignore_misfits: bool = switch(
        "score a data set whose boxes cannot be those of its pictures (shrunk pictures, shares in place of pixels, "
        "...) all the same",
        words="more than some slips end the evaluation",
        flags=("--ignore-misfits",),
    )
    num_workers: int = option(
        "processes that read pictures",
        Number(int, 0, MOST_WORKERS),
        default=DEFAULT_WORKERS,
        words=f"{DEFAULT_WORKERS}; inference on a CPU, busy anyway: 0",
    )
    scorers: int = option(
        "processes that score an evaluation's maps beside the main one; the figures are the same",
        Number(int, 0, MOST_WORKERS),
        default=BY_DEVICE,
        words=f"{DEFAULT_WORKERS}; on a CPU, busy anyway, 0: the main process scores",
    )
    device: str | None = option(
        "cpu, cuda, cuda:1, mps, ...", NAME, default=None, words="cuda where there is one, else cpu", metavar="DEVICE"
    )
    tf32: bool | None = option(
        "TensorFloat-32 on NVIDIA GPUs", FLAG, default=None, words="PyTorch's own, convolutions yes, matrix products no"
    )
    deterministic: bool = switch(
        "on CUDA: the same bits from the same run on the same device, by kernels that may be slower; on a CPU they are "
        "the same anyway"
    )


def by_device(count: int, device: torch.device) -> int:
    """A number of processes that was asked for, or the default on a device: none on a CPU, which is busy anyway."""
    if count != BY_DEVICE:
        return count
    return 0 if device.type == "cpu" else DEFAULT_WORKERS


def add_arch(parser: argparse.ArgumentParser) -> None:
    """Adds `--arch`, and a word for those who start processes by what torchrun has replaced."""
    parser.add_argument("--arch", choices=ARCHS, help="the backbone (default: vgg)")
    parser.add_argument("--local-rank", nargs="?", action=_NoLocalRank, help=argparse.SUPPRESS)


class _NoLocalRank(argparse.Action):
    """The option that torch.distributed.launch hands to every process."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        parser.error("--local-rank comes from torch.distributed.launch; start the processes with torchrun instead")
