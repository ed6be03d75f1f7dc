"""`BAS_inference.py` and `python -m utils.inference`: figures for a test set, or boxes for pictures of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from utils.data.dataset import Dataset
from utils.inference.arguments import parse_arguments
from utils.runs.common import by_device
from utils.system.errors import UsageError

# Seconds. Processes without --save wait for one another at the end alone, and the slowest one may be far behind.
TIMEOUT = 1800.0


def run(datasets: Dataset | Mapping[str, Dataset], argv: Sequence[str] | None = None) -> None:
    """Evaluates a checkpoint on a data set's test images, or localises the pictures of `--images`.

    `torchrun --nproc_per_node=N BAS_inference.py` shares a test set's pictures out among N processes, one a device, and
    gives the figures and files of a single one.

    Args:
        datasets: whose recipes and layout hold, or those to choose from, by name.
        argv: the command line; `sys.argv` if None.

    Raises:
        UserError: whatever the user can put right.
    """
    command = parse_arguments(datasets, argv)
    settings = command.settings

    # Only now: help and errors of the command line come at once, without PyTorch.
    from utils.inference import pictures, test_set
    from utils.inference.loading import load
    from utils.inference.released import fetch_released
    from utils.system.devices import choose_device, set_numerics
    from utils.system.processes import first_on_each_machine, process_count, process_group

    set_numerics(settings.tf32, settings.deterministic)
    device = choose_device(settings.device)
    settings = replace(
        settings, num_workers=by_device(settings.num_workers, device), scorers=by_device(settings.scorers, device)
    )
    with process_group(device, TIMEOUT):
        if settings.images and process_count() > 1:
            raise UsageError("--images is for a single process; start it with python, not with torchrun")
        checkpoint = settings.checkpoint
        if settings.download:
            with first_on_each_machine():
                checkpoint = fetch_released(command.dataset, command.arch, command.given.get("name"))
        loaded = load(
            command.dataset,
            command.arch,
            checkpoint,
            device=str(device),
            amp=settings.amp,
            protocol=settings.protocol,
            classes=settings.classes,
            **command.given,
        )
        (pictures if settings.images else test_set).run(loaded, settings, command.given)
