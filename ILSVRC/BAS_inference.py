"""Evaluates BAS on ILSVRC: `cd ILSVRC && python BAS_inference.py --arch resnet`; see `--help`."""

import sys
from pathlib import Path

# Run as a script, the folder of this file is on the path; the packages lie one level up.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ILSVRC import Model
from ILSVRC.DataLoader import load_split
from utils.errors import run_command
from utils.inference import run

if __name__ == "__main__":
    sys.exit(run_command(lambda: run("ILSVRC", Model, load_split)))
