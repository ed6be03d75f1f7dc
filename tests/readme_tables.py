"""Compares a finished demo with the figures of Img/README.md: `python -m tests.readme_tables demo_run`.

That README has mean ± standard deviation over seeds. One run, of any seed and number of threads, is to lie within three
standard deviations of the mean and three points (one picture of the demo's 216 is half a point); of the twelve classes'
maps one may be dead, which rounding alone brings about in a run now and then.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from utils.evaluation.summary import first_of_kind, recorded_maps
from utils.metrics import LOC_METRICS
from utils.system.errors import UserError, run_command
from utils.system.options import PLACE, CommandParser

README = Path(__file__).resolve().parents[1] / "Img" / "README.md"
DEMO_TABLE = "Measured on the demo (`python train.py --demo"
MEAN = "image_mean"
DEVIATIONS, POINTS = 3, 3.0
MOST_DEAD = 1
LEAST = 83.0  # GT-known Loc of BAS, whatever the table says
ROWS = {"bas": "BAS", "cam": "CAM", "center": "centred Gaussian"}


def read_table(text: str, beginning: str) -> dict[str, list[tuple[float, float]]]:
    """The first table after a text: the beginning of each row -> mean and standard deviation of each cell.

    Raises:
        UserError: there is no such text, or no table of means and standard deviations after it.
    """
    _, found, rest = text.partition(beginning)
    rows = re.findall(r"^\| ([^|]+) \|((?: [\d.]+ ± [\d.]+ \|)+)$", rest, re.MULTILINE) if found else []
    if not rows:
        raise UserError(f"Img/README.md has no table of means and standard deviations after {beginning!r}")
    return {
        title: [(float(mean), float(spread)) for mean, spread in re.findall(r"([\d.]+) ± ([\d.]+)", cells)]
        for title, cells in rows
    }


def differences(folder: Path, text: str) -> list[str]:
    """What of a finished demo is not as the README says, a line each.

    Args:
        folder: of the demo.
        text: the README's.
    """
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    maps, table, told = recorded_maps(results), read_table(text, DEMO_TABLE), []
    for kind, beginning in ROWS.items():
        (cells,) = [cells for title, cells in table.items() if title.startswith(beginning)]
        one = first_of_kind(maps, kind)
        values = {metric: one.scores[metric][MEAN] for metric in LOC_METRICS}
        values["max_box_acc_v2"] = one.figures["max_box_acc"]["max_box_acc_v2"]["value"]
        values["px_ap"] = one.figures["pixels"]["px_ap"]
        if kind == "bas" and values["gt_known_loc"] <= LEAST:
            told.append(f"BAS gt_known_loc is {values['gt_known_loc']:.1f}, not above {LEAST:.0f}")
        for (metric, value), (mean, spread) in zip(values.items(), cells, strict=True):
            print(f"{beginning:18} {metric:14} README {mean:5.1f} ± {spread:.1f}, now {value:.1f}")
            if abs(value - mean) > DEVIATIONS * spread + POINTS:
                told.append(f"{beginning} {metric} is {value:.1f}, the README's {mean:.1f} ± {spread:.1f}")
    dead = results["cautions"]["dead_maps"]
    if dead["count"] > MOST_DEAD:
        told.append(f"{dead['count']} classes have dead maps ({', '.join(dead['empty'] + dead['full'])})")
    return told


def main() -> None:
    """Reads the folder's name from the command line."""
    parser = CommandParser(prog="python -m tests.readme_tables", usage="%(prog)s FOLDER", description=__doc__)
    parser.add_argument("folder", type=PLACE, help="of a finished demo, such as demo_run")
    told = differences(parser.parse_args().folder, README.read_text(encoding="utf-8"))
    if told:
        raise UserError("; ".join(told))
    print("as the README says")


if __name__ == "__main__":
    sys.exit(run_command(main))
