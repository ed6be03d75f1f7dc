"""`python -m utils.segmentation maps`, `seeds`, `evaluate`: from a network to segments and their mean IoU."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from utils.data.dataset import find_datasets
from utils.segmentation.arguments import MapSettings, MaskSettings, parse_arguments
from utils.system.errors import run_command


def main(argv: Sequence[str] | None = None) -> None:
    """From the command line to maps, seeds or figures.

    Raises:
        UserError: whatever the user can put right.
    """
    datasets = {name: dataset for name, dataset in find_datasets().items() if dataset.segments}
    dataset, settings = parse_arguments(datasets, argv)

    # Only now: help and errors of the command line come at once, without PyTorch.
    if isinstance(settings, MapSettings):
        from utils.segmentation.making import make_all
        from utils.system.devices import choose_device

        make_all(dataset, settings, choose_device(settings.device))
        return
    from utils.segmentation.scoring import score_masks, score_seeds

    if isinstance(settings, MaskSettings):
        score_masks(dataset, settings)
    else:
        score_seeds(dataset, settings)


if __name__ == "__main__":
    sys.exit(run_command(main))
