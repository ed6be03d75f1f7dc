"""`python train.py --demo` from composition to table and picture, on very few and very small pictures."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import train
from utils.demo import compose as composing
from utils.demo.compose import compose
from utils.metrics import LOC_METRICS, PIXEL_METRICS
from utils.system.errors import UsageError


def run_demo(folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> dict:
    monkeypatch.setattr(composing, "compose", partial(compose, size=64, train_per_class=2, test_per_class=2))
    sizes = ["--resize_size", "40", "--crop_size", "32", "--epochs", "2", "--warmup_epochs", "1", "--num_workers", "0"]
    # The published heads hold six sevenths of the network's weights; the demo around them is the same.
    train.main(["--demo", "--save_path", str(folder), "--plain_heads", *sizes, *more])
    return json.loads((folder / "results.json").read_text())


def test_demo_ends_with_table_picture_and_next_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Protects the demo: all files in the one named folder, BAS, CAM and centred box compared, safe to run again."""
    results = run_demo(tmp_path / "demo", monkeypatch)
    printed = capsys.readouterr().out
    assert str(tmp_path / "demo") in printed
    assert {"data", "mobilenet", "results.json", "results.png"} == {file.name for file in (tmp_path / "demo").iterdir()}
    assert [*results["maps"]] == ["BAS, k = 8", "CAM", "centred Gaussian"] and results["map"] == "BAS, k = 8"
    for title, figures in results["maps"].items():
        (line,) = [line for line in printed.splitlines() if line.startswith(f"{title} (threshold ")]
        shown = [float(value) for value in line.split(")")[1].split()]
        expected = [figures["scores"][metric]["image_mean"] for metric in LOC_METRICS]
        expected += [figures["pixels"][metric] for metric in PIXEL_METRICS]  # the demo's test pictures have masks
        assert shown == [round(value, 2) for value in expected]
    assert "python train.py --arch vgg --root CUB/data --download" in printed
    assert "python BAS_inference.py --arch vgg" in printed
    # A white sheet would be a picture too.
    assert np.asarray(Image.open(tmp_path / "demo" / "results.png").convert("L")).std() > 20
    assert run_demo(tmp_path / "demo", monkeypatch) == results


def test_chosen_threshold_reaches_inference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects what follows the demo: the settings hold the threshold chosen on training pictures, or the given."""
    chosen = run_demo(tmp_path, monkeypatch)["threshold"]
    settings = json.loads((tmp_path / "mobilenet" / "settings.json").read_text())
    assert settings["recipe"]["threshold"] == chosen
    for more in (["--threshold", "0.37"], ["--resume"]):  # a run that is only resumed keeps what was given
        assert run_demo(tmp_path, monkeypatch, *more)["threshold"] == 0.37
        settings = json.loads((tmp_path / "mobilenet" / "settings.json").read_text())
        assert settings["recipe"]["threshold"] == 0.37 and "threshold_chosen_on" not in settings


@pytest.mark.parametrize("what", ["states", "weights", "snapshots", "settings", "results", "another root"])
def test_demo_clears_only_what_a_demo_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Protects a real run, or a report, in the folder that --save_path names."""
    run = tmp_path / "mobilenet"
    path = {
        "states": run / "states" / "epoch_0003.pth.tar",
        "weights": run / "mobilenet99.pth.tar",
        "snapshots": run / "snapshots" / "epoch_007.npz",
        "results": tmp_path / "results.json",
    }.get(what, run / "settings.json")
    if what == "another root":
        run_demo(tmp_path, monkeypatch)
        path.write_text(path.read_text().replace(str(tmp_path / "data"), "/data/birds"))
    path.parent.mkdir(parents=True, exist_ok=True)
    if what != "another root":
        path.write_text("{}")
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    with pytest.raises(UsageError, match=f"{path} is not the demo's; choose another --save_path"):
        run_demo(tmp_path, monkeypatch)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_demos_share_their_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the ablations: a demo whose pictures are a link to another's knows its own run again."""
    results = run_demo(tmp_path / "one", monkeypatch)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "data").symlink_to(tmp_path / "one" / "data")
    for more in ((), ("--resume", "auto"), ()):
        assert run_demo(tmp_path / "two", monkeypatch, *more)["scores"] == results["scores"]


def test_demo_has_its_own_data() -> None:
    """Protects a data set of one's own: --demo with a data set of one's own is refused instead of ignored."""
    with pytest.raises(SystemExit) as stop:
        train.parse_arguments("", train.DATASETS, train.DEMO, ["--demo", "--root", "somewhere"])
    assert stop.value.code == 2
