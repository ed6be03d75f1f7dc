"""Evaluates BAS on CUB-200-2011, or draws boxes on your own pictures.

`cd CUB && python BAS_inference.py --arch resnet`; `--help` lists the options. In Python:

    from CUB.BAS_inference import load_localizer
    localize = load_localizer("resnet")
    finding = localize("bird.jpg")  # finding.box, finding.name, finding.full_map()
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Run as a script, the folder of this file is on the path; the packages lie one level up.
if sys.path[0] != (home := str(Path(__file__).resolve().parents[1])):
    sys.path.insert(0, home)

from CUB import DATASET
from utils.inference.command import run
from utils.system.errors import run_command

if TYPE_CHECKING:
    from utils.inference.localizer import Localizer


def load_localizer(arch: str, checkpoint: str | Path | None = None, **options: Any) -> Localizer:
    """See :func:`utils.inference.localizer.load_localizer`."""
    from utils.inference import localizer  # here: help needs no PyTorch

    return localizer.load_localizer(DATASET, arch, checkpoint, **options)


if __name__ == "__main__":
    sys.exit(run_command(lambda: run(DATASET)))
