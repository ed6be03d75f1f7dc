"""`python BAS_inference.py`: figures for a test set, or boxes for pictures of one's own."""

from __future__ import annotations

from utils.arguments import choose_device
from utils.distributed import process_count, process_group
from utils.errors import UsageError
from utils.inference import dataset, pictures
from utils.inference.arguments import parse_arguments
from utils.inference.loading import DatasetFolder, load

# Seconds. Processes without --save wait for one another at the end alone, and the slowest one may be far behind.
TIMEOUT = 1800.0


def run(folder: DatasetFolder, argv: list[str] | None = None) -> None:
    """Evaluates a checkpoint on a data set's test images, or localises the pictures of `--images`.

    `torchrun --nproc_per_node=N BAS_inference.py` shares a test set's pictures out among N processes, one a device, and
    gives the figures and files of a single one.

    Args:
        folder: the data set whose recipes and layout hold.
        argv: the command line; `sys.argv` if None.

    Raises:
        UserError: whatever the user can mend.
    """
    args = parse_arguments(folder.name, argv)
    with process_group(choose_device(args.device), TIMEOUT):
        if not args.images:
            dataset.run(folder, load(folder, args), args)
        elif process_count() == 1:
            pictures.run(load(folder, args), args)
        else:
            raise UsageError("--images is for a single process; start it with python, not with torchrun")
