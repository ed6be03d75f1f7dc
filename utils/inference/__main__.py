"""`python -m utils.inference --dataset NAME`: what `BAS_inference.py` does in a data set's folder, for all of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from utils.data.dataset import find_datasets
from utils.inference.command import run
from utils.system.errors import run_command


def main(argv: Sequence[str] | None = None) -> None:
    """See :func:`utils.inference.command.run`."""
    run(find_datasets(), argv)


if __name__ == "__main__":
    sys.exit(run_command(main))
