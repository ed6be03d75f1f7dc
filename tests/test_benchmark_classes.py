"""The measurement of training with few classes: its data sets, its commands, and its table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import CUB.DataLoader
from tests.benchmark_classes import ROOT, summarize, table, take_classes
from tests.commands import PICTURES, make_cub, read_json


def test_first_classes(tmp_path: Path) -> None:
    """Protects what is trained on: all pictures of the first classes with their boxes, and nothing of the others."""
    whole = make_cub(tmp_path / "whole", PICTURES, 3)
    some = take_classes(whole, tmp_path / "some", 2)
    for name in ("train", "test"):
        expected, found = (CUB.DataLoader.load_split(root, name) for root in (whole, some))
        kept = [image for image, label in zip(expected.ids, expected.labels, strict=True) if label < 2]
        assert list(found.ids) == kept and set(found.labels.tolist()) == {0, 1}
        assert all((found.boxes[image] == expected.boxes[image]).all() for image in kept)
        assert all(path.is_file() for path in found.paths) and len(found.class_names) == 2


def test_the_command(tmp_path: Path) -> None:
    """Protects the measurement as it is typed: one epoch of tiny pictures, a table, and what is finished stays."""
    make_cub(tmp_path / "whole", PICTURES, 3)
    options = ["--root", tmp_path / "whole", "--classes", 2, "--seeds", 3, "--epochs", 1, "--save_path", tmp_path / "o"]
    options += ["--resize_size", 64, "--crop_size", 48]
    command = [sys.executable, "-m", "tests.benchmark_classes", *map(str, options)]
    first, again = (
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=True) for _ in range(2)
    )
    assert first.stdout.count("+ python") == 2 and "+ python" not in again.stdout
    row = again.stdout.splitlines()[-1]
    assert first.stdout.splitlines()[-1] == row and row.startswith("| 2 | ")
    results = read_json(tmp_path / "o" / "2_3" / "results.json")
    assert results["maps"].keys() == {"BAS, k = 2", "CAM", "centred Gaussian"}
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    for title, cell in zip(("BAS, k = 2", "CAM", "centred Gaussian"), cells[1:4], strict=True):
        assert cell == f"{results['maps'][title]['scores']['gt_known_loc']['class_mean']:.1f}"


def test_spread_over_seeds() -> None:
    """Protects the table's figures: means and standard deviations over seeds, dead classes one by one."""

    def run(loc: float, dead: int) -> dict:
        scores = {metric: {"class_mean": loc} for metric in ("gt_known_loc", "top1_loc", "top1_cls")}
        maps = {name: {"scores": scores} for name in ("BAS, k = 2", "CAM", "centred Gaussian")}
        return {"maps": maps, "scores": scores, "log": {"dead_maps": {"count": dead}}}

    lines = table({2: summarize([run(50.0, 0), run(60.0, 1)])}).splitlines()
    assert lines[2] == f"| 2 | {' | '.join(['55.0 ± 7.1'] * 7)} | 0, 1 |"
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
