"""`python -m Img` as a user runs it: which files it draws from a run, and one sentence where it cannot."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from Img import __main__ as command
from Img.__main__ import FOLDER, NAMES, main
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
from utils.runs.settings import SNAPSHOTS

FILES = {"accuracy.png", "motivation.png", "experiment.png", "result.png", "alignment.png", "result.gif"}


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
    result = shell(ROOT, "-m", "Img", "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert all(file in result.stdout for file in FILES) and all(f"\n{name} " in result.stdout for name in NAMES)
    assert "python train.py --demo && python -m Img --run demo_run" in result.stdout


def test_all_figures_of_a_run(home, tmp_path) -> None:
    """Protects the README: one command draws every figure, says where each is, and they are pictures."""
    result = shell(ROOT, "-m", "Img", "--run", home / "runs", "--save", tmp_path / "new")
    assert (result.returncode, result.stderr) == (0, "")
    assert drawn(tmp_path) == FILES
    for name in FILES:
        assert f"drawn: {tmp_path / 'new' / name}\n" in result.stdout
        assert shades(tmp_path / "new" / name).std() > 10  # no white sheet
    with Image.open(tmp_path / "new" / "result.gif") as animation:
        assert animation.n_frames == 2


def test_network_diagram_is_read_aloud_and_shown_in_pixels() -> None:
    """Protects the README: title and description for screen readers, words as text; the PNG twice as fine, on white."""
    root = ElementTree.parse(FOLDER / "network.svg").getroot()
    title, description = list(root)[:2]
    assert root.get("role") == "img" and root.get("aria-labelledby").split() == [title.get("id"), description.get("id")]
    assert "Background Activation Suppression" in title.text and "background map M_bg" in description.text
    words = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"Training", "Inference", "generator", "frozen", "softmax", "threshold", "no gradient passes"} <= words
    with Image.open(FOLDER / "network.png") as picture:
        assert picture.size == (2 * int(root.get("width")), 2 * int(root.get("height")))
        assert picture.convert("RGB").getpixel((3, 3)) == (255,) * 3


def test_figures_without_a_run(figures, tmp_path, capsys) -> None:
    """Protects who has trained nothing: one figure needs no run; asked for the others, the hint is said."""
    assert figures("--only", "accuracy") == 0
    assert drawn(tmp_path) == {"accuracy.png"}
    capsys.readouterr()
    assert figures("--only", "accuracy", "growth", "result") == 2
    err = capsys.readouterr().err
    assert "growth, result are drawn from a finished run; name it with --run, or give --only accuracy" in err
    assert figures("--only", "poster") == 2 and "poster" in capsys.readouterr().err


def test_demo_results_are_shown(run, figures, tmp_path) -> None:
    """Protects the chart: what the demo measured is drawn beside what was published, and a damaged record is named."""
    assert figures("--only", "accuracy") == 0
    published = (tmp_path / "new" / "accuracy.png").read_bytes()
    assert figures("--only", "accuracy", "--run", run) == 0  # no demo's run
    own = (tmp_path / "new" / "accuracy.png").read_bytes()
    scores = read_json(run / "evaluation.json")["scores"]
    (run / "evaluation.json").unlink()
    assert figures("--only", "accuracy", "--run", run) == 0
    assert (tmp_path / "new" / "accuracy.png").read_bytes() == published != own
    text = str({"thresholds": {"bas": 0.1, "cam": 0.5}, "scores": {"bas": scores, "cam": scores}}).replace("'", '"')
    (run / "results.json").write_text(text.replace("None", "null"))
    assert figures("--only", "accuracy", "--run", run) == 0
    assert (tmp_path / "new" / "accuracy.png").read_bytes() not in (published, own)


def test_column_is_named_after_its_data(run, capsys) -> None:
    """Protects honesty: results carry the name of a published data set where the run saw all of it, and of no other."""
    settings = read_json(run / "settings.json")
    for changes, name in (
        ({}, "CUB, 3 classes"),
        ({"class_names": ["bird"] * 200}, "CUB-200-2011"),
        ({"is_own": True, "root": "/photographs/birds"}, "birds"),
    ):
        (run / "settings.json").write_text(json.dumps(settings | changes))
        ((found, results),) = command.measured_by(command.Source(run, None, torch.device("cpu"))).items()
        assert found == name and list(results["MobileNetV1"]) == ["BAS"]


def test_data_of_other_classes(run, figures, tmp_path, capsys) -> None:
    """Protects against a traceback: with --data of other classes every figure of pictures says so, in one sentence."""
    data = make_cub(tmp_path / "other", PICTURES, 5)
    assert figures("--run", run, "--data", data, "--only", "result", "exploratory", "growth") == 1
    err = capsys.readouterr().err
    assert_one_sentence(err, "was trained on 3 classes, but the data set has 5", "--data")
    assert "exploratory, growth" in err or "result, exploratory, growth not drawn" in err


def test_pictures_that_were_watched(run, figures, tmp_path, capsys) -> None:
    """Protects the animation: training pictures where the run had no test set; else a test set that is damaged now is
    said, and not replaced."""
    settings = read_json(run / "settings.json")
    data = Path(settings["root"])
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    (copy / "bounding_boxes.txt").write_text("1 nothing\n")
    assert figures("--run", run, "--data", copy, "--only", "growth") == 1
    assert_one_sentence(capsys.readouterr().err, "growth not drawn", "bounding_boxes.txt")
    settings["data"]["test"] = None
    (run / "settings.json").write_text(json.dumps(settings))
    source = command.Source(run, None, torch.device("cpu"))
    assert source.watched_split.name == "train"


def test_one_missing_part_does_not_stop_the_others(run, figures, tmp_path, capsys) -> None:
    """Protects a run without snapshots: the rest is drawn, and a sentence tells what is not, and the hint."""
    shutil.rmtree(run / SNAPSHOTS)
    assert figures("--run", run, "--only", "growth", "result", "accuracy") == 1
    assert drawn(tmp_path) == {"accuracy.png", "result.png"}
    err = capsys.readouterr().err
    assert_one_sentence(err, "growth not drawn: ", str(run / SNAPSHOTS), "train the run with --snapshot 6")


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
    (run / SNAPSHOTS / "epoch_000.npz").write_bytes(b"PK")
    assert figures("--run", run, "--only", "growth") == 1
    assert_one_sentence(capsys.readouterr().err, "epoch_000.npz is no snapshot of a run", "delete it")
    shutil.rmtree(home / "data" / "segmentations")
    assert figures("--run", run, "--only", "exploratory") == 1
    assert_one_sentence(capsys.readouterr().err, "no object masks", "segmentations")
