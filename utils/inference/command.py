"""`python BAS_inference.py`: figures for a test set, or boxes for pictures of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from utils.data.dataset import Dataset
from utils.inference.arguments import parse_arguments
from utils.runs.common import by_device
from utils.system.errors import UsageError

# Seconds. Processes without --save wait for one another at the end alone, and the slowest one may be far behind.
TIMEOUT = 1800.0


def run(dataset: Dataset, argv: Sequence[str] | None = None) -> None:
    """Evaluates a checkpoint on a data set's test images, or localises the pictures of `--images`.

    `torchrun --nproc_per_node=N BAS_inference.py` shares a test set's pictures out among N processes, one a device, and
    gives the figures and files of a single one.

    Args:
        dataset: whose recipes and layout hold.
        argv: the command line; `sys.argv` if None.

    Raises:
        UserError: whatever the user can put right.
    """
    command = parse_arguments(dataset, argv)
    settings = command.settings

    # Only now: help and errors of the command line come at once, without PyTorch.
    from utils.inference import pictures, test_set
    from utils.inference.loading import load
    from utils.system.devices import choose_device, set_numerics
    from utils.system.processes import process_count, process_group

    set_numerics(settings.tf32, settings.deterministic)
    device = choose_device(settings.device)
    settings = replace(
        settings, num_workers=by_device(settings.num_workers, device), scorers=by_device(settings.scorers, device)
    )
    with process_group(device, TIMEOUT):
        if settings.images and process_count() > 1:
            raise UsageError("--images is for a single process; start it with python, not with torchrun")
        loaded = load(
            command.dataset,
            command.arch,
            settings.checkpoint,
            device=str(device),
            amp=settings.amp,
            protocol=settings.protocol,
            classes=settings.classes,
            **command.given,
        )
        (pictures if settings.images else test_set).run(loaded, settings, command.given)
