"""`python -m utils.demo.ablation`: the paper's questions, asked on the demo with several seeds.

Every cell of the grid is `python train.py --demo` with some options, once for each seed. What is finished is passed
over, so the command can be interrupted and repeated; it goes on inside the run where it stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.data.dataset import find_datasets
from utils.demo.compose import compose
from utils.demo.dataset import demo_of
from utils.metrics import LOC_METRICS, METRICS
from utils.runs.provenance import describe_run
from utils.system.errors import UsageError, UserError, run_command
from utils.system.files import read_json, write_text
from utils.system.options import PLACE, POSITIVE, SEED, CommandParser, RaisingParser
from utils.system.progress import progress_bar
from utils.training.arguments import parse_arguments as parse_training_options

ROOT = Path(__file__).resolve().parents[2]
DATASETS = find_datasets()
TRAIN = ROOT / "train.py"
DEFAULT_FOLDER = ROOT / "demo_run" / "ablation"
RESULTS, OPTIONS, OUTPUT, ERRORS = "results.json", "options.json", "output.txt", "errors.txt"
TABLE, RECORD = "ablation.md", "ablation.json"
MEAN = "image_mean"
TOP_KS = (1, 2, 4, 8, 12)
OWN_OPTIONS = ("--demo", "--save_path", "--seed", "--resume", "--top_ks")
POLL_SECONDS = 0.2
FAULT = "does not hold the options of a run"
HINT = "delete it, and the run is done again"


@dataclass(frozen=True)
class Cell:
    """One line of the table.

    Attributes:
        name: of its folder.
        title: in the table.
        options: of `train.py`.
        has_generator: whether any of its losses trains the generator; without, its map is noise and is not shown.
        top_ks: of the generator's maps that are compared besides, on the same networks.
    """

    name: str
    title: str
    options: tuple[str, ...] = ()
    has_generator: bool = True
    top_ks: tuple[int, ...] = ()


CELLS = (
    Cell("cls", "L_cls", ("--frg_weight", "0", "--bas_weight", "0", "--area_weight", "0"), has_generator=False),
    Cell("cls_frg_ac", "L_cls + L_frg + L_ac", ("--bas_weight", "0")),
    Cell("cls_bas", "L_cls + L_bas", ("--frg_weight", "0", "--area_weight", "0")),
    Cell("all", "L_cls + L_frg + L_bas + L_ac", top_ks=TOP_KS),
    Cell("cross_entropy", "the same with cross-entropy for L_bas", ("--generator_loss", "cross_entropy")),
)


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
        return ["--demo", "--seed", str(self.seed), *self.cell.options, *top_ks, *self.extra]

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
        write_text(self.folder / OPTIONS, json.dumps(self.options) + "\n")
        with suppress(OSError):  # there already; or a system without links, on which the run composes its own
            (self.folder / "data").symlink_to(Path("..", "..", "data"), target_is_directory=True)
        # No snapshots: nobody looks at those of the grid. Not among the options: runs made before have the same.
        command = [sys.executable, str(TRAIN), "--snapshot", "0", *self.options]
        command += ["--save_path", str(self.folder), "--resume", "auto"]
        with open(self.folder / OUTPUT, "wb") as output, open(self.folder / ERRORS, "wb") as errors:
            # In a session of its own Ctrl-C does not reach it: it is stopped by `run_all`, and once.
            return subprocess.Popen(command, env=environment, stdout=output, stderr=errors, start_new_session=True)

    def results(self) -> Mapping[str, Any]:
        """What `train.py` found.

        Raises:
            UserError: the file is damaged.
        """
        path, fault = self.folder / RESULTS, "holds no results of this run"
        return read_json(path, fault, HINT, lambda content: _require_results(content, self.cell))

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


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over seeds; no deviation of a single one."""

    values: Sequence[float]

    @property
    def mean(self) -> float:
        """Arithmetic mean."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """Standard deviation with n - 1."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        return f"{self.mean:.1f}" + ("" if self.deviation is None else f" ± {self.deviation:.1f}")


def summarize(finished: Mapping[Run, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each cell, and for each k of those that compare several.

    Args:
        finished: the results of each run.

    Returns:
        A list of `cell`, `k` (None for the cell itself), `seeds` and `figures`: title -> :class:`Spread` in percent,
        means over images. A cell's figures are `BAS <metric>` (not where no loss trains the generator),
        `CAM <metric>` and `Top-1 Cls`; those of a k `<metric>` and `threshold`.
    """
    cells: dict[Cell, dict[int, Mapping[str, Any]]] = {}
    for run, results in finished.items():
        cells.setdefault(run.cell, {})[run.seed] = results
    rows: list[dict[str, Any]] = []
    for cell, found in cells.items():
        scores = [results["scores"] for results in found.values()]
        kinds = ("bas", "cam") if cell.has_generator else ("cam",)
        figures = {
            f"{kind.upper()} {METRICS[metric]}": Spread([one[kind][metric][MEAN] for one in scores])
            for kind in kinds
            for metric in LOC_METRICS
        }
        figures[METRICS["top1_cls"]] = Spread([one["cam"]["top1_cls"][MEAN] for one in scores])
        rows.append({"cell": cell.name, "k": None, "seeds": [*found], "figures": figures})
        for k in cell.top_ks:
            fused = [one for results in found.values() for one in results["top_k"] if one["k"] == k]
            figures = {
                METRICS[metric]: Spread([one["scores"][metric][MEAN] for one in fused]) for metric in LOC_METRICS
            }
            figures["threshold"] = Spread([one["threshold"] for one in fused])
            rows.append({"cell": cell.name, "k": k, "seeds": [*found], "figures": figures})
    return rows


def markdown(rows: Sequence[Mapping[str, Any]], images: int, extra: Sequence[str] = ()) -> str:
    """The rows of :func:`summarize` as two tables, with what they were measured on.

    Args:
        rows: at least one.
        images: test pictures of the demo.
        extra: options that all runs had.
    """
    titles = {cell.name: cell.title for cell in CELLS}
    most = max((row["seeds"] for row in rows), key=len)
    seeds = f"seeds {', '.join(map(str, most))}" if len(most) > 1 else f"one seed, {most[0]}"
    spread = "mean ± standard deviation (n - 1) over " if len(most) > 1 else ""
    with_options = f" with `{' '.join(extra)}`" if extra else ""
    lines = [
        f"Measured on the demo by `python -m utils.demo.ablation`: `python train.py --demo`{with_options}, {images} "
        f"test pictures, centre crop, percent of images, {spread}{seeds}. Every threshold was chosen on the training "
        "pictures and their boxes.",
        "",
    ]
    columns = [f"{kind} {METRICS[metric]}" for kind in ("BAS", "CAM") for metric in LOC_METRICS] + [METRICS["top1_cls"]]
    body = {titles[row["cell"]] + _fewer_seeds(row, most): row["figures"] for row in rows if row["k"] is None}
    lines += _table("losses", columns, body)
    fused = {f"{row['k']}{_fewer_seeds(row, most)}": row["figures"] for row in rows if row["k"] is not None}
    if fused:
        words = "The networks with all four losses, the maps of the k most probable classes averaged"
        lines += ["", f"{words} (k = 1: the map of the true class):", ""]
        lines += _table("k", [METRICS[metric] for metric in LOC_METRICS] + ["threshold"], fused)
    return "\n".join(lines) + "\n"


def _table(head: str, columns: Sequence[str], body: Mapping[str, Mapping[str, Spread]]) -> list[str]:
    def cell(name: str, spread: Spread | None) -> str:
        if spread is None:
            return "–"
        if name != "threshold":
            return str(spread)
        return " to ".join(f"{value:.2f}" for value in sorted({min(spread.values), max(spread.values)}))

    rows = [[head, *columns], ["---"] + ["---:"] * len(columns)]
    rows += [[title, *(cell(name, figures.get(name)) for name in columns)] for title, figures in body.items()]
    return [f"| {' | '.join(row)} |" for row in rows]


def _fewer_seeds(row: Mapping[str, Any], most: Sequence[int]) -> str:
    """Whether a row has not all seeds (yet)."""
    return "" if row["seeds"] == most else f" (seeds {', '.join(map(str, row['seeds']))} alone)"


def _require_words(content: Any) -> list[str]:
    if not (isinstance(content, list) and all(isinstance(word, str) for word in content)):
        raise ValueError("it is no list of words")
    return content


def _require_results(content: Mapping[str, Any], cell: Cell) -> Mapping[str, Any]:
    """The results as they are; stumbles where one of the figures of :func:`summarize` is missing or no number."""
    scores = content["scores"]
    kinds = ("bas", "cam") if cell.has_generator else ("cam",)
    named = {kind: scores[kind] for kind in kinds}
    named |= {f"k = {one['k']}": one["scores"] for one in (content["top_k"] if cell.top_ks else ())}
    lacking = [k for k in cell.top_ks if f"k = {k}" not in named]
    if lacking:
        raise ValueError(f"k = {lacking[0]} is missing")
    numbers = {f"{name}: {metric}": found[metric][MEAN] for name, found in named.items() for metric in LOC_METRICS}
    numbers |= {"Top-1 Cls": scores["cam"]["top1_cls"][MEAN], "images": scores["cam"]["images"]}
    numbers |= {f"threshold of k = {one['k']}": one["threshold"] for one in (content["top_k"] if cell.top_ks else ())}
    wrong = [name for name, n in numbers.items() if type(n) not in (int, float) or not math.isfinite(n)]
    if wrong:
        raise ValueError(f"{wrong[0]} is {numbers[wrong[0]]!r}")
    return content


def save_tables(folder: Path, runs: Sequence[Run], extra: Sequence[str]) -> Path | None:
    """Writes `ablation.md` and, with every run, `ablation.json`; None if no run is finished."""
    finished = {run: run.results() for run in runs if run.is_finished()}
    if not finished:
        return None
    rows = summarize(finished)
    images = next(iter(finished.values()))["scores"]["cam"]["images"]
    record = {
        "made_with": describe_run(ROOT),
        "rows": [
            {
                **row,
                "figures": {
                    name: {"mean": spread.mean, "standard_deviation": spread.deviation}
                    for name, spread in row["figures"].items()
                },
            }
            for row in rows
        ],
        "runs": [
            {"cell": run.cell.name, "seed": run.seed, "options": run.options, "results": results}
            for run, results in finished.items()
        ],
    }
    write_text(folder / RECORD, json.dumps(record, indent=1) + "\n")
    return write_text(folder / TABLE, markdown(rows, images, extra))


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; `--help` explains every option."""
    parser = CommandParser(
        prog="python -m utils.demo.ablation",
        description=__doc__,
        epilog="example, quick and rough:\n  python -m utils.demo.ablation --seeds 0 1 --cells all cls -- --epochs 4",
    )
    parser.add_argument("--save_path", type=PLACE, default=DEFAULT_FOLDER, help="default: %(default)s")
    parser.add_argument("--seeds", type=SEED, nargs="+", default=[0, 1, 2], metavar="N", help="default: 0 1 2")
    names = [cell.name for cell in CELLS]
    parser.add_argument("--cells", choices=names, nargs="+", default=names, help="which lines (default: all of them)")
    parser.add_argument("--jobs", type=POSITIVE, default=1, help="runs at a time (default: %(default)s)")
    parser.add_argument("extra", nargs="*", metavar="-- OPTION", help="options of train.py for every run")
    args = parser.parse_args(argv)
    own = [option for option in args.extra if option.split("=")[0] in OWN_OPTIONS]
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
