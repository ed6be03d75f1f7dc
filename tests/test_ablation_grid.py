"""The grid of ablations, with a training that only writes what a seed and options would have given."""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path

import pytest

import train
from tests.test_demo import run_demo
from utils.demo import ablation
from utils.demo.ablation import Run, main, run_all
from utils.demo.cells import CELLS, TOP_KS
from utils.demo.spreads import Spread, markdown
from utils.metrics import METRICS
from utils.system.errors import UsageError, UserError, run_command
from utils.training.arguments import parse_arguments

# Notes each start; fails where told to; scores follow from the options: BAS 10 x seed + number of options, CAM half.
STAND_IN = """
import json, os, sys, time
from pathlib import Path
arguments = sys.argv[1:]
folder = Path(arguments[arguments.index("--save_path") + 1])
seed = int(arguments[arguments.index("--seed") + 1])
with open(Path(__file__).with_name("started.txt"), "a") as file:
    file.write(json.dumps([os.environ["OMP_NUM_THREADS"], *arguments]) + chr(10))
if "--lr=1" in arguments and seed == 1:
    print("Traceback", file=sys.stderr)
    sys.exit("error: the loss is not finite")
if "--lr=2" in arguments:
    time.sleep(60)
mean = 10 * seed + len(arguments)
def scores(value):
    names = METRICS
    return {"images": 216, **{name: {"image_mean": value + i, "class_mean": -1} for i, name in enumerate(names)}}
results = {"scores": {"bas": scores(mean), "cam": scores(mean / 2), "center": scores(0)}}
if "--top_ks" in arguments:
    results["top_k"] = [{"k": k, "threshold": k / 100, "scores": scores(mean + k)} for k in (1, 2, 4, 8, 12)]
(folder / "results.json").write_text(json.dumps(results))
"""


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the grid, with the stand-in as train.py and no pictures."""
    script = tmp_path / "train.py"
    script.write_text(STAND_IN.replace("= METRICS", f"= {METRICS}"))
    monkeypatch.setattr(ablation, "TRAIN", script)
    monkeypatch.setattr(ablation, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(ablation, "compose", lambda folder: folder.mkdir(parents=True, exist_ok=True))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return tmp_path / "grid"


def started(grid: Path) -> list[list[str]]:
    """Threads and arguments of each training so far."""
    path = grid.with_name("started.txt")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_cells_are_what_they_are_called() -> None:
    """Protects the spec: every cell's options are train.py's own and switch off what its title leaves out."""
    weights, padding = {}, {}
    for cell in CELLS:
        command = parse_arguments("", train.DATASETS, train.DEMO, Run(cell, 3, Path()).options)
        assert command.given["seed"] == 3 and command.settings.top_ks == cell.top_ks
        names = ("cls_weight", "frg_weight", "bas_weight", "area_weight", "generator_loss")
        weights[cell.title] = tuple(command.given.get(name) for name in names)
        assert command.settings.alignments == cell.alignments
        if cell.alignments:
            assert set(weights.pop(cell.title)) == {None}
            padding[cell.title] = command.given["same_padding"], command.given["mask_pooling"]
    assert padding == {
        "both sides, blocks": (False, "blocks"),
        "both sides, aligned": (False, "aligned"),
        "SAME, blocks": (True, "blocks"),
        "SAME, aligned": (True, "aligned"),
    }
    assert weights == {
        "L_cls": (None, 0, 0, 0, None),
        "L_cls + L_frg + L_ac": (None, None, 0, None, None),
        "L_cls + L_bas": (None, 0, None, 0, None),
        "L_cls + L_frg + L_bas + L_ac": (None, None, None, None, None),
        "the same with cross-entropy for L_bas": (None, None, None, None, "cross_entropy"),
    }
    assert [cell.has_generator for cell in CELLS] == [False] + 8 * [True]


def test_table_and_record(grid: Path, capsys: pytest.CaptureFixture) -> None:
    """Protects the figures: means and deviations over the seeds as Python's statistics give, all runs kept as JSON."""
    main(["--save_path", str(grid), "--seeds", "1", "2", "4", "--cells", "cls", "all"])
    table = (grid / "ablation.md").read_text()
    assert table in capsys.readouterr().out and "216 test pictures" in table and "over seeds 1, 2, 4." in table
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    lines = {row[0]: row[1:] for row in rows}
    calls = {Path(call[call.index("--save_path") + 1]).parent.name: len(call) - 1 for call in started(grid)}

    def spread(values: list[float]) -> str:
        return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"

    def over_seeds(name: str, factor: float, more: int) -> str:
        return spread([factor * (10 * seed + calls[name]) + more for seed in (1, 2, 4)])

    assert lines["losses"][0] == "BAS Top-1 Loc" and lines["losses"][-1] == "Top-1 Cls"
    assert lines["L_cls"] == ["–"] * 3 + [over_seeds("cls", 0.5, index) for index in range(4)]
    bas = [over_seeds("all", 1, index) for index in range(3)]
    assert lines["L_cls + L_frg + L_bas + L_ac"] == bas + [over_seeds("all", 0.5, index) for index in range(4)]
    for k in TOP_KS:
        assert lines[str(k)] == [over_seeds("all", 1, k + index) for index in range(3)] + [f"{k / 100:.2f}"]
    record = json.loads((grid / "ablation.json").read_text())
    assert [(run["cell"], run["seed"]) for run in record["runs"]] == [
        (cell, seed) for cell in ("cls", "all") for seed in (1, 2, 4)
    ]
    cams = [one["figures"]["scores"] for run in record["runs"][:3] for one in run["maps"][""] if one["kind"] == "cam"]
    found = [scores["gt_known_loc"]["image_mean"] for scores in cams]
    figures = record["rows"][0]["figures"]["CAM GT-known Loc"]
    assert figures == {"mean": pytest.approx(statistics.mean(found)), "standard_deviation": statistics.stdev(found)}
    assert record["made_with"]["versions"]


def test_going_on_after_an_interruption(grid: Path, capsys: pytest.CaptureFixture) -> None:
    """Protects hours: finished runs are passed over, unfinished ones resumed, in their own folders, on one data set."""
    command = ["--save_path", str(grid), "--seeds", "0", "1", "--cells", "cls_bas"]
    main(command)
    (grid / "cls_bas" / "seed_1" / "results.json").unlink()
    capsys.readouterr()
    main(command)
    assert capsys.readouterr().out.startswith("1 of 2 runs are there already\n")
    folders = [Path(call[call.index("--save_path") + 1]) for call in started(grid)]
    assert [folder.name for folder in folders] == ["seed_0", "seed_1", "seed_1"]
    assert all(call[call.index("--resume") + 1] == "auto" for call in started(grid))
    assert all((folder / "data").resolve() == grid.resolve() / "data" for folder in folders)
    main(command)
    assert len(started(grid)) == 3


def test_a_failing_run(grid: Path, capsys: pytest.CaptureFixture) -> None:
    """Protects the others: a failed run is named with the last line of its errors, the rest runs and is tabled."""
    command = ["--save_path", str(grid), "--seeds", "0", "1", "--cells", "cls_bas", "all", "--", "--lr=1"]
    assert run_command(lambda: main(command)) == 1
    lines = capsys.readouterr().err.splitlines()
    for cell, line in zip(("all", "cls_bas"), sorted(lines[:2]), strict=True):
        assert line.startswith(f"{cell}, seed 1: error: the loss is not finite (see {grid}")
    assert lines[2:] == ["error: 2 of 4 runs failed, see above; repeat the command to try them again"]
    table = (grid / "ablation.md").read_text()
    assert "one seed, 0." in table and "±" not in table and "with `--lr=1`" in table
    assert run_command(lambda: main(command)) == 1  # tried again
    assert len(started(grid)) == 6


def test_other_options_in_the_same_folder(grid: Path) -> None:
    """Protects truth: runs of other options are never taken for those asked for, and nothing is started."""
    main(["--save_path", str(grid), "--seeds", "0", "--cells", "cls"])
    with pytest.raises(UsageError, match=r"seed_0 was made with other options .*; choose another --save_path"):
        main(["--save_path", str(grid), "--seeds", "1", "0", "--cells", "cls", "--", "--epochs", "4"])
    assert len(started(grid)) == 1


@pytest.mark.parametrize("content", ["null", "{}", '"--demo"', "[1]"])
def test_damaged_options(grid: Path, content: str) -> None:
    """Protects from a choice of another folder where the file alone is damaged."""
    main(["--save_path", str(grid), "--seeds", "0", "--cells", "cls"])
    (grid / "cls" / "seed_0" / "options.json").write_text(content)
    with pytest.raises(UserError, match=r"options\.json does not hold the options of a run .*; delete it"):
        main(["--save_path", str(grid), "--seeds", "0", "--cells", "cls"])


@pytest.mark.parametrize("number", [float("nan"), "x", None])
def test_results_that_are_no_numbers(grid: Path, number: object) -> None:
    """Protects the table from figures that are none: NaN, which JSON of Python takes for a number, among them."""
    main(["--save_path", str(grid), "--seeds", "0", "--cells", "all"])
    path = grid / "all" / "seed_0" / "results.json"
    results = json.loads(path.read_text())
    results["top_k"][0]["scores"]["gt_known_loc"]["image_mean"] = number
    path.write_text(json.dumps(results))
    with pytest.raises(UserError, match=r"results\.json.*k = 1: gt_known_loc is"):
        main(["--save_path", str(grid), "--seeds", "0", "--cells", "all"])


@pytest.mark.parametrize("content", ["{", "[]", '{"scores": {}}', '{"top_k": []}'])
def test_damaged_results(grid: Path, content: str) -> None:
    """Protects the table: a damaged result is named with the hint."""
    main(["--save_path", str(grid), "--seeds", "0", "--cells", "all"])
    (grid / "all" / "seed_0" / "results.json").write_text(content)
    with pytest.raises(UserError, match=r"results\.json.*delete it, and the run is done again"):
        main(["--save_path", str(grid), "--seeds", "0", "--cells", "all"])


@pytest.mark.parametrize(("jobs", "given"), [(1, None), (2, None), (2, "5")])
def test_processors_are_shared_out(grid: Path, monkeypatch: pytest.MonkeyPatch, jobs: int, given: str | None) -> None:
    """Protects the machine: runs at a time share its processors, unless the user says how many each takes."""
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    runs = [Run(CELLS[0], seed, grid / str(seed)) for seed in (0, 1, 2)]
    assert run_all(runs, jobs) == []
    assert {call[0] for call in started(grid)} == {given or str(6 // jobs)}
    assert sorted(call[call.index("--seed") + 1] for call in started(grid)) == ["0", "1", "2"]
    assert {parse_arguments("", train.DATASETS, train.DEMO, call[1:]).settings.snapshot for call in started(grid)} == {
        0
    }  # nobody looks at them


def test_interrupting_stops_the_runs(grid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the machine: Ctrl-C ends the training that is running, starts no more, and leaves no table."""
    processes, start = [], Run.start

    def started_run(run: Run, environment: dict) -> object:
        processes.append(start(run, environment))
        return processes[-1]

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "start", started_run)
    monkeypatch.setattr(ablation.time, "sleep", interrupt)
    begin = time.monotonic()
    assert run_command(lambda: main(["--save_path", str(grid), "--cells", "cls", "--", "--lr=2"])) == 130
    assert len(processes) == 1 and processes[0].poll() is not None
    assert time.monotonic() - begin < 30 and not (grid / "ablation.md").exists()


def test_rows_with_fewer_seeds_say_so() -> None:
    """Protects the reader: a mean over fewer seeds than the others is marked, and one value has no deviation."""
    columns = ("CAM Top-1 Loc", "CAM Top-5 Loc", "CAM GT-known Loc", "Top-1 Cls")
    rows = [
        {"cell": "cls", "k": None, "drawn": None, "seeds": [0], "figures": {name: Spread([50.04]) for name in columns}},
        {
            "cell": "all",
            "k": None,
            "drawn": None,
            "seeds": [0, 1],
            "figures": {name: Spread([50, 52]) for name in columns},
        },
    ]
    lines = markdown(rows, 9).splitlines()
    assert "over seeds 0, 1." in lines[0]
    assert lines[4] == "| L_cls (seeds 0 alone) | – | – | – | 50.0 | 50.0 | 50.0 | 50.0 |"
    assert lines[5].endswith("| 51.0 ± 1.4 | 51.0 ± 1.4 | 51.0 ± 1.4 | 51.0 ± 1.4 |")


@pytest.mark.parametrize("option", ["--seed", "--save_path=x", "--resume"])
def test_options_of_the_grid_itself(option: str, capsys: pytest.CaptureFixture) -> None:
    """Protects the grid: what it sets for each run cannot be given for all."""
    with pytest.raises(SystemExit) as stop:
        main(["--", option])
    assert stop.value.code == 2 and f"{option} is set for every run" in capsys.readouterr().err


def test_the_demo_compares_several_k(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the table of k: each k's threshold and scores are those of a demo with that k in force."""
    options = ("--generator_rate", "1", "--align_maps")
    compared = run_demo(tmp_path, monkeypatch, "--top_ks", "3", "1", "40", *options)["maps"]
    # The recipe's k, and there are 12 classes.
    assert [*compared] == ["BAS, k = 8", "CAM", "centred Gaussian", "BAS, k = 3", "BAS, k = 1", "BAS, k = 12"]
    alone = run_demo(tmp_path, monkeypatch, "--resume", "--top_k", "3", "--align_maps")
    assert [*alone["maps"]] == ["BAS, k = 3", "CAM", "centred Gaussian"] and alone["map"] == "BAS, k = 3"
    for part in ("kind", "top_k", "threshold", "scores", "max_box_acc"):  # PxAP has the last digits of the sums
        assert compared["BAS, k = 3"][part] == alone["maps"]["BAS, k = 3"][part]
    assert compared["BAS, k = 1"]["pixels"] != compared["BAS, k = 3"]["pixels"]


def test_what_runs_the_trainings() -> None:
    """Protects the command: the trainings are those of this repository."""
    assert ablation.TRAIN.samefile(Path(__file__).parents[1] / "train.py")
