"""Evaluates BAS on CUB-200-2011, or draws boxes on your own pictures.

`cd CUB && python BAS_inference.py --arch resnet`; `--help` lists the options. In Python:

    from CUB.BAS_inference import load_localizer
    localize = load_localizer("resnet")
    finding = localize("bird.jpg")  # finding.box, finding.name, finding.full_map()
"""

import sys
from pathlib import Path

# Run as a script, the folder of this file is on the path; the packages lie one level up.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from CUB import DataLoader, Model
from utils.errors import run_command
from utils.inference.command import run
from utils.inference.loading import DatasetFolder, make_load_localizer

FOLDER = DatasetFolder("CUB", Model, DataLoader)
load_localizer = make_load_localizer(FOLDER)

if __name__ == "__main__":
    sys.exit(run_command(lambda: run(FOLDER)))
