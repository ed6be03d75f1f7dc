"""Trains BAS: `python train.py --arch vgg` for CUB-200-2011, `--dataset ILSVRC`, or `--demo` with no data set at all.

Every default is the recipe of the data set and backbone: CUB/Model/<arch>.py, ILSVRC/Model/<arch>.py, or of another
data set utils/datasets/<dataset>/recipes.py.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from utils.data.dataset import find_datasets
from utils.demo.dataset import demo_of
from utils.system.errors import run_command
from utils.training.arguments import parse_arguments

DATASETS = find_datasets()
DEMO = demo_of(DATASETS)


def main(argv: Sequence[str] | None = None) -> None:
    """From the command line to a trained network: options, device, processes, run."""
    command = parse_arguments(__doc__, DATASETS, DEMO, argv)
    settings = command.settings

    # Only now: help and errors of the command line come at once, without PyTorch.
    from utils.system.devices import choose_device, set_numerics
    from utils.system.processes import process_group
    from utils.training.run import train

    set_numerics(settings.tf32, settings.deterministic)
    device = choose_device(settings.device)
    with process_group(device, settings.timeout, hint="go on with --resume"):
        train(command, device)


if __name__ == "__main__":
    sys.exit(run_command(main))
