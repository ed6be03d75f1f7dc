"""`python -m utils.figures` as a user runs it: which files it draws from a run, and one sentence where it cannot."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commands import (
    PICTURES,
    ROOT,
    TRAINING,
    assert_one_sentence,
    call,
    make_cub,
    read_json,
    run_training,
    shell,
)
from utils.exploratory import write_curves
from utils.exploratory.records import CURVES_FILE, FOLDERS
from utils.figures import __main__ as command
from utils.figures.__main__ import NAMES, main
from utils.training.snapshots import FOLDER

FILES = {"network.svg", "network.png", "accuracy.png", "motivation.png", "experiment.png", "result.png", "result.gif"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """CUB with masks and a run on it, of one epoch with two snapshots; its files are large, so they go at the end."""
    home = tmp_path_factory.mktemp("figures")
    data = make_cub(home / "data", PICTURES, 3)
    for picture in sorted((data / "images").glob("*/*.jpg")):
        mask = data / "segmentations" / picture.parent.name / f"{picture.stem}.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        inside = np.zeros((64, 64), np.uint8)
        inside[20:45, 20:40] = 255
        Image.fromarray(inside).save(mask)
    options = ["--root", data, "--save_path", home / "runs", "--epochs", 1, "--snapshot", 2, *TRAINING]
    assert run_training(*options) == 0
    shutil.rmtree(home / "runs" / "mobilenet" / "states")
    yield home
    shutil.rmtree(home)


@pytest.fixture
def run(home, tmp_path) -> Path:
    """A copy of the run that a test may damage; the weights are linked."""
    source, copy = home / "runs" / "mobilenet", tmp_path / "run"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("*.pth.tar"))
    (weights,) = source.glob("*.pth.tar")
    (copy / weights.name).symlink_to(weights)
    return copy


@pytest.fixture
def figures(tmp_path) -> Callable[..., int]:
    def go(*arguments: object) -> int:
        return call(lambda: main(["--save", str(tmp_path / "new"), *map(str, arguments)]))

    return go


def drawn(folder: Path) -> set[str]:
    return {path.name for path in (folder / "new").iterdir()}


def shades(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L")).astype(float)


def test_help_teaches(tmp_path) -> None:
    """Protects the newcomer: every figure with its files, and commands to copy."""
    result = shell(ROOT, "-m", "utils.figures", "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert all(file in result.stdout for file in FILES) and all(f"\n{name} " in result.stdout for name in NAMES)
    assert "python train.py --demo && python -m utils.figures --run demo_run" in result.stdout


def test_all_figures_of_a_run(home, tmp_path) -> None:
    """Protects the README: one command draws every figure, says where each is, and they are pictures."""
    result = shell(ROOT, "-m", "utils.figures", "--run", home / "runs", "--save", tmp_path / "new")
    assert (result.returncode, result.stderr) == (0, "")
    assert drawn(tmp_path) == FILES
    for name in FILES:
        assert f"drawn: {tmp_path / 'new' / name}\n" in result.stdout
        if not name.endswith(".svg"):
            assert shades(tmp_path / "new" / name).std() > 10  # no white sheet
    with Image.open(tmp_path / "new" / "result.gif") as animation:
        assert animation.n_frames == 2


def test_figures_without_a_run(figures, tmp_path, capsys) -> None:
    """Protects who has trained nothing: two figures need no run; asked for the others, the mend is said."""
    assert figures("--only", "network", "accuracy") == 0
    assert drawn(tmp_path) == {"network.svg", "network.png", "accuracy.png"}
    capsys.readouterr()
    assert figures("--only", "accuracy", "growth", "result") == 2
    err = capsys.readouterr().err
    assert "growth, result are drawn from a finished run; name it with --run, or give --only network accuracy" in err
    assert figures("--only", "poster") == 2 and "poster" in capsys.readouterr().err


def test_demo_results_are_shown(run, figures, tmp_path) -> None:
    """Protects the chart: what the demo measured is drawn beside what was published, and a damaged record is named."""
    assert figures("--only", "accuracy") == 0
    published = (tmp_path / "new" / "accuracy.png").read_bytes()
    assert figures("--only", "accuracy", "--run", run) == 0  # no demo's run
    assert (tmp_path / "new" / "accuracy.png").read_bytes() == published
    scores = read_json(run / "evaluation.json")["scores"]
    text = str({"thresholds": {"bas": 0.1, "cam": 0.5}, "scores": {"bas": scores, "cam": scores}}).replace("'", '"')
    (run / "results.json").write_text(text.replace("None", "null"))
    assert figures("--only", "accuracy", "--run", run) == 0
    assert (tmp_path / "new" / "accuracy.png").read_bytes() != published


def test_measured_curves_are_drawn_again(run, figures, tmp_path, monkeypatch, capsys) -> None:
    """Protects hours of measuring: curves in the run are drawn, and measured anew only where the weights are newer."""
    measured = []
    measure = command.run_experiment
    monkeypatch.setattr(command, "run_experiment", lambda *args: measured.append(measure(*args)) or measured[-1])
    assert figures("--run", run, "--only", "exploratory") == 0 and len(measured) == 1
    before = {name: shades(tmp_path / "new" / name) for name in ("motivation.png", "experiment.png")}
    curves = write_curves(run / FOLDERS["features"] / CURVES_FILE, measured[0].curves)
    capsys.readouterr()
    assert figures("--run", run, "--only", "exploratory") == 0 and len(measured) == 1
    assert f"curves of {curves}; delete it to measure" in capsys.readouterr().out
    for name, expected in before.items():  # the file's decimals are fewer
        assert np.abs(shades(tmp_path / "new" / name) - expected).mean() < 1
    os.utime(curves, (0, 0))
    assert figures("--run", run, "--only", "exploratory") == 0 and len(measured) == 2


def test_one_missing_part_does_not_stop_the_others(run, figures, tmp_path, capsys) -> None:
    """Protects a run without snapshots: the rest is drawn, and a sentence tells what is not, and the mend."""
    shutil.rmtree(run / FOLDER)
    assert figures("--run", run, "--only", "growth", "result", "network") == 1
    assert drawn(tmp_path) == {"network.svg", "network.png", "result.png"}
    err = capsys.readouterr().err
    assert_one_sentence(err, "growth not drawn: ", str(run / FOLDER), "train the run with --snapshot 6")


def test_what_can_be_wrong(home, run, figures, tmp_path, capsys) -> None:
    """Protects against a traceback: each wrong folder, file or option is named in one sentence, told once."""
    assert figures("--run", tmp_path / "nowhere") == 1
    assert_one_sentence(capsys.readouterr().err, str(tmp_path / "nowhere"), "give that of a run")
    assert figures("--run", run, "--device", "tpu7") == 2
    assert_one_sentence(capsys.readouterr().err, "--device tpu7")
    (tmp_path / "file").write_text("")
    assert figures("--run", run, "--save", tmp_path / "file") == 1
    assert_one_sentence(capsys.readouterr().err, str(tmp_path / "file"), "--save")
    assert figures("--run", run, "--data", tmp_path / "nothing", "--only", "result", "growth") == 1
    err = capsys.readouterr().err
    assert_one_sentence(err, "result, growth not drawn", "--data")
    assert err.count(str(tmp_path / "nothing")) == 1
    (run / FOLDER / "epoch_000.npz").write_bytes(b"PK")
    assert figures("--run", run, "--only", "growth") == 1
    assert_one_sentence(capsys.readouterr().err, "epoch_000.npz is no snapshot of a run", "delete it")
    shutil.rmtree(home / "data" / "segmentations")
    assert figures("--run", run, "--only", "exploratory") == 1
    assert_one_sentence(capsys.readouterr().err, "no object masks", "segmentations")
