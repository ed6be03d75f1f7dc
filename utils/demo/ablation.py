"""`python -m utils.demo.ablation`: the paper's questions, asked on the demo with several seeds.

Every cell of the grid is `python train.py --demo` with some options, once for each seed. What is finished is passed
over, so the command can be interrupted and repeated; it goes on inside the run where it stopped.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.data.dataset import find_datasets
from utils.demo.cells import CELLS, Cell
from utils.demo.compose import compose
from utils.demo.dataset import demo_of
from utils.demo.spreads import markdown, read_results, summarize
from utils.evaluation.summary import RecordedMap, first_of_kind
from utils.runs.provenance import describe_run
from utils.system.errors import UsageError, UserError, run_command
from utils.system.files import read_json, write_json, write_text
from utils.system.options import PLACE, POSITIVE, SEED, CommandParser, RaisingParser, name_of
from utils.system.progress import progress_bar
from utils.training.arguments import parse_arguments as parse_training_options

ROOT = Path(__file__).resolve().parents[2]
DATASETS = find_datasets()
TRAIN = ROOT / "train.py"
DEFAULT_FOLDER = ROOT / "demo_run" / "ablation"
RESULTS, OPTIONS, OUTPUT, ERRORS = "results.json", "options.json", "output.txt", "errors.txt"
TABLE, RECORD = "ablation.md", "ablation.json"
OWN_OPTIONS = ("demo", "save_path", "seed", "resume", "top_ks", "alignments")
POLL_SECONDS = 0.2
FAULT = "does not hold the options of a run"
HINT = "delete it, and the run is done again"


@dataclass(frozen=True)
class Run:
    """One training of one cell."""

    cell: Cell
    seed: int
    folder: Path
    extra: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """For messages."""
        return f"{self.cell.name}, seed {self.seed}"

    @property
    def options(self) -> list[str]:
        """What makes the run what it is, for `train.py`."""
        top_ks = ["--top_ks", *map(str, self.cell.top_ks)] if self.cell.top_ks else []
        alignments = ["--alignments", *self.cell.alignments] if self.cell.alignments else []
        return ["--demo", "--seed", str(self.seed), *self.cell.options, *top_ks, *alignments, *self.extra]

    def is_finished(self) -> bool:
        """Whether its results are there.

        Raises:
            UsageError: its folder holds a run with other options.
        """
        path = self.folder / OPTIONS
        if path.is_file() and (before := read_json(path, FAULT, HINT, _require_words)) != self.options:
            raise UsageError(f"{self.folder} was made with other options ({before}); choose another --save_path")
        return (self.folder / RESULTS).is_file()

    def start(self, environment: Mapping[str, str]) -> subprocess.Popen:
        """Starts `train.py`, or goes on where it stopped; what it prints goes to files in its folder."""
        write_json(self.folder / OPTIONS, self.options)
        with suppress(OSError):  # there already; or a system without links, on which the run composes its own
            (self.folder / "data").symlink_to(Path("..", "..", "data"), target_is_directory=True)
        # No snapshots: nobody looks at those of the grid. Not among the options: runs made before have the same.
        command = [sys.executable, str(TRAIN), "--snapshot", "0", *self.options]
        command += ["--save_path", str(self.folder), "--resume", "auto"]
        with open(self.folder / OUTPUT, "wb") as output, open(self.folder / ERRORS, "wb") as errors:
            # In a session of its own Ctrl-C does not reach it: it is stopped by `run_all`, and once.
            return subprocess.Popen(command, env=environment, stdout=output, stderr=errors, start_new_session=True)

    def results(self) -> dict[str, list[RecordedMap]]:
        """What `train.py` found: alignment -> the kinds of maps so drawn; the recipe's alignment first.

        Raises:
            UserError: the file is damaged.
        """
        path, fault = self.folder / RESULTS, "holds no results of this run"
        return read_json(path, fault, HINT, lambda content: read_results(content, self.cell))

    def reason(self, exit_code: int) -> str:
        """Why it failed: the last line of its standard error."""
        lines = (self.folder / ERRORS).read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {exit_code}, and no word")


def run_all(runs: Sequence[Run], jobs: int) -> list[str]:
    """Trains what is not finished yet.

    Args:
        runs: in the order in which they are started.
        jobs: how many at a time; they share out the processors, unless OMP_NUM_THREADS says how many each takes.

    Returns:
        A sentence for each run that failed.
    """
    waiting = [run for run in runs if not run.is_finished()]
    if len(waiting) < len(runs):
        print(f"{len(runs) - len(waiting)} of {len(runs)} runs are there already")
    threads = max(1, (os.cpu_count() or 1) // jobs)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    running: dict[Run, tuple[subprocess.Popen, float]] = {}
    failures = []
    with progress_bar(runs, "runs") as bar:
        bar.update(len(runs) - len(waiting))
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    run = waiting.pop(0)
                    running[run] = run.start(environment), time.perf_counter()
                time.sleep(POLL_SECONDS)
                for run, (process, begin) in list(running.items()):
                    if process.poll() is None:
                        continue
                    del running[run]
                    bar.update()
                    if process.returncode == 0 and run.is_finished():
                        bar.write(f"{run.title}: done in {time.perf_counter() - begin:.0f} s")
                    else:
                        failures.append(f"{run.title}: {run.reason(process.returncode)}")
                        bar.write(f"{failures[-1]} (see {run.folder / ERRORS})", file=sys.stderr)
        finally:
            for process, _ in running.values():
                process.terminate()  # it saves its state
            for process, _ in running.values():
                process.wait()
    return failures


def _require_words(content: Any) -> list[str]:
    if not (isinstance(content, list) and all(isinstance(word, str) for word in content)):
        raise ValueError("it is no list of words")
    return content


def save_tables(folder: Path, runs: Sequence[Run], extra: Sequence[str]) -> Path | None:
    """Writes `ablation.md` and, with every run, `ablation.json`; None if no run is finished."""
    finished = {run: run.results() for run in runs if run.is_finished()}
    if not finished:
        return None
    by_cell: dict[Cell, dict[int, dict[str, list[RecordedMap]]]] = {}
    for run, drawn in finished.items():
        by_cell.setdefault(run.cell, {})[run.seed] = drawn
    rows = summarize(by_cell)
    own = next(iter(next(iter(finished.values())).values()))
    images = first_of_kind(own, "cam").scores["images"]
    record = {
        "made_with": describe_run(ROOT),
        "rows": [{**row, "figures": {name: one.record() for name, one in row["figures"].items()}} for row in rows],
        "runs": [
            {
                "cell": run.cell.name,
                "seed": run.seed,
                "options": run.options,
                "maps": {how: [one._asdict() for one in maps] for how, maps in drawn.items()},
            }
            for run, drawn in finished.items()
        ],
    }
    write_json(folder / RECORD, record)
    return write_text(folder / TABLE, markdown(rows, images, extra))


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; `--help` explains every option."""
    parser = CommandParser(
        prog="python -m utils.demo.ablation",
        usage="%(prog)s [options] [-- OPTION ...]",
        description=__doc__,
        epilog="example, quick and rough:\n  python -m utils.demo.ablation --seeds 0 1 --cells all cls -- --epochs 4",
    )
    parser.add_argument("--save_path", type=PLACE, default=DEFAULT_FOLDER, help="default: %(default)s")
    parser.add_argument("--seeds", type=SEED, nargs="+", default=[0, 1, 2], metavar="N", help="default: 0 1 2")
    usual = [cell.name for cell in CELLS if not cell.alignments]
    lines = "which lines (default: those of losses; the others compare where maps are drawn)"
    parser.add_argument("--cells", choices=[cell.name for cell in CELLS], nargs="+", default=usual, help=lines)
    parser.add_argument("--jobs", type=POSITIVE, default=1, help="runs at a time (default: %(default)s)")
    parser.add_argument("extra", nargs="*", metavar="-- OPTION", help="options of train.py for every run")
    args = parser.parse_args(argv)
    own = [option for option in args.extra if option.startswith("--") and name_of(option) in OWN_OPTIONS]
    if own:
        parser.error(f"{own[0]} is set for every run by the grid; leave it out")
    try:  # what no run would take ends the command here, not every run
        parse_training_options("", DATASETS, demo_of(DATASETS), ["--demo", *args.extra], RaisingParser)
    except UsageError as error:
        parser.error(f"train.py does not take the options behind --: {error}")
    return args


def main(argv: list[str] | None = None) -> None:
    """Arguments, runs, tables."""
    args = parse_arguments(argv)
    folder = args.save_path.resolve()
    seeds = list(dict.fromkeys(args.seeds))
    runs = [
        Run(cell, seed, folder / cell.name / f"seed_{seed}", tuple(args.extra))
        for cell in CELLS
        if cell.name in args.cells
        for seed in seeds
    ]
    unfinished = [run for run in runs if not run.is_finished()]  # all are checked before the first one starts
    if unfinished:
        compose(folder / "data")
    failures = run_all(runs, args.jobs)
    table = save_tables(folder, runs, args.extra)
    if table is not None:
        print(f"\n{table.read_text(encoding='utf-8')}\nsaved in {table} and, with every run, {table.with_name(RECORD)}")
    if failures:
        raise UserError(f"{len(failures)} of {len(runs)} runs failed, see above; repeat the command to try them again")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops the runs as Ctrl-C does
    sys.exit(run_command(main))
