"""`python -m utils.exploratory` as a user runs it, on a tiny run; and its figures."""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.commands import (
    ROOT,
    WHOLE,
    assert_one_sentence,
    call,
    constant_state,
    make_cub,
    read_json,
    save_noise,
    shell,
    write_random_net,
)
from tests.test_masks import save_mask
from utils.exploratory import __main__ as command
from utils.exploratory import summarize, verdict
from utils.exploratory.__main__ import main
from utils.exploratory.measure import Curve

# Masks of the 64 x 64 test pictures, (top, left, bottom, right); the crop is the 48 x 48 pixels from 8 on.
OBJECTS = {
    "001.Class/1.jpg": (20, 20, 40, 44),
    "002.Class/2.jpg": (10, 24, 50, 40),
    "003.Class/3.jpg": (30, 0, 44, 30),
    "001.Class/4.jpg": (0, 0, 6, 64),  # outside the crop
    "002.Class/5.jpg": None,  # without a mask
    "003.Class/6.jpg": (16, 16, 48, 48),
}
MEASURED = [name for name in OBJECTS if name not in ("001.Class/4.jpg", "002.Class/5.jpg")]
FILES = {"curves.csv", "summary.json", "summary.csv", "motivation.png", "experiment.png"}


def save_masks(data: Path) -> None:
    for name, corners in OBJECTS.items():
        if corners is not None:
            mask = np.zeros((64, 64), dtype=bool)
            mask[corners[0] : corners[2], corners[1] : corners[3]] = True
            save_mask((data / "segmentations" / name).with_suffix(".png"), mask)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A run of five classes, with its data; its network is random, its files are those that training leaves."""
    home = tmp_path_factory.mktemp("exploratory")
    pictures = [((int(name[:3]) - 1), False, WHOLE) for name in OBJECTS] + [(0, True, WHOLE)]
    save_masks(make_cub(home / "data", pictures, 5))
    run = home / "run" / "mobilenet"
    run.mkdir(parents=True)
    write_random_net(run / "mobilenet0.pth.tar", 5)
    settings = read_json(run / "settings.json")
    settings["recipe"] |= {"dataset": "CUB", "arch": "mobilenet"}
    settings["root"] = str(home / "data")
    (run / "settings.json").write_text(json.dumps(settings))
    yield home
    shutil.rmtree(home)


def explore(*arguments: object) -> int:
    return call(lambda: main([str(argument) for argument in arguments]))


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def read_curves(path: Path) -> list[Curve]:
    """What a reader of `curves.csv` makes of it."""
    rows, curves = rows_of(path), []
    for image_id in dict.fromkeys(row["id"] for row in rows):
        own = [row for row in rows if row["id"] == image_id]
        names = ("area", "iou", "entropy", "activation", "background_activation")
        numbers = (np.array([float(row[name]) for row in own]) for name in names)
        curves.append(Curve(image_id, own[0]["class"], own[0]["correct"] == "1", *numbers))
    return curves


def test_command_on_a_run(home: Path) -> None:
    """Protects the command in a shell: the files beside the weights, what was passed over, figures from the curves."""
    result = shell(ROOT, "-m", "utils.exploratory", "--run", home / "run", "--masks", "7")
    assert (result.returncode, result.stderr) == (0, "")
    folder = home / "run" / "mobilenet" / "exploratory"
    assert {file.name for file in folder.iterdir()} == FILES
    record = read_json(folder / "summary.json")
    assert (record["every"]["pictures"], record["without_mask"], record["without_object"]) == (4, 1, 1)
    assert (record["pictures_wanted"], record["pictures_of_split"]) == (5, 6)
    assert "pictures without a mask, passed over: 1\n" in result.stdout
    assert "pictures without an object in the crop, passed over: 1\n" in result.stdout
    assert record["verdict"] in result.stdout.splitlines() and str(folder / "experiment.png") in result.stdout

    curves = read_curves(folder / "curves.csv")
    assert [curve.image_id for curve in curves] == MEASURED
    for curve in curves:
        top, left, bottom, right = np.clip(np.array(OBJECTS[curve.image_id]) - 8, 0, 48)
        assert curve.own_area == pytest.approx((bottom - top) * (right - left) / 48**2, rel=1e-6)
        assert 3 <= len(curve.areas) <= 7 and curve.areas[0] == 0 and curve.areas[-1] == 1
        # The background of the empty mask is all of the picture.
        assert curve.background_activation[0] == curve.activation[-1]
    again = summarize(curves)
    assert record["verdict"] == verdict(again)
    for group, name in itertools.product(("correct", "every"), ("entropy", "activation", "background_activation")):
        expected = again[group]["done_at"][name]
        for statistic, value in expected.items():
            found = record[group]["done_at"][name][statistic]
            assert found == (value if value is None else pytest.approx(value, rel=1e-3))
    for name in ("motivation.png", "experiment.png"):
        picture = Image.open(folder / name)
        assert picture.width == 2 * 880 and np.asarray(picture.convert("L")).std() > 20


def test_names_that_are_no_unicode(home: Path, tmp_path: Path) -> None:
    """Protects a finished measurement from a picture's name of other bytes: all files are written, the picture among
    them."""
    name = os.fsdecode(b"\xc8\xeb")
    for label in range(5):
        stem = tmp_path / "data" / "test" / f"bird {label}" / name
        save_noise(stem.with_suffix(".png"), label)
        objects = np.zeros((64, 64), dtype=bool)
        objects[20:40, 20:44] = True
        save_mask(tmp_path / "data" / "masks" / stem.relative_to(tmp_path / "data").with_suffix(".png"), objects)
    run = shutil.copytree(home / "run", tmp_path / "run", ignore=shutil.ignore_patterns("exploratory*"))
    settings = read_json(run / "mobilenet" / "settings.json") | {"root": str(tmp_path / "data"), "is_own": True}
    (run / "mobilenet" / "settings.json").write_text(json.dumps(settings))
    result = shell(ROOT, "-m", "utils.exploratory", "--run", run)
    assert (result.returncode, result.stderr) == (0, "")
    folder = run / "mobilenet" / "exploratory"
    assert {file.name for file in folder.iterdir()} == FILES
    assert read_json(folder / "summary.json")["every"]["pictures"] == 5
    shown = name.encode("utf-8", "backslashreplace").decode()
    assert {row["id"] for row in rows_of(folder / "curves.csv")} == {f"bird {n}/{shown}.png" for n in range(5)}


def test_released_weights_on_the_class_maps(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Protects --checkpoint and --at class_maps: of a linear rest, foreground and background add up to the whole."""
    weights = home / "run" / "mobilenet" / "mobilenet0.pth.tar"
    options = ["--arch", "mobilenet", "--checkpoint", weights, "--data", home / "data", "--device", "cpu"]
    assert explore(*options, "--at", "class_maps", "--save", tmp_path / "out", "--batch_size", 1) == 0
    capsys.readouterr()
    folder = tmp_path / "out" / "exploratory_class_maps"
    assert {file.name for file in folder.iterdir()} == FILES
    for curve in read_curves(folder / "curves.csv"):
        whole = curve.activation[-1]
        assert curve.activation + curve.background_activation == pytest.approx(np.full(len(curve.areas), whole), 1e-4)


def test_a_part_of_the_pictures_and_named_examples(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Protects --images and --examples: pictures with masks, spread over the test set, and the named ones; one that
    cannot be shown is told before anything is measured."""
    options = ["--run", home / "run", "--save", tmp_path, "--masks", 3, "--images", 2]
    assert explore(*options) == 0
    assert "2 of 6 pictures of the test split" in capsys.readouterr().out
    path = tmp_path / "exploratory" / "curves.csv"
    assert {row["id"] for row in rows_of(path)} == {MEASURED[0], MEASURED[-1]}
    assert explore(*options, "--examples", "002.Class/2.jpg") == 0
    assert {row["id"] for row in rows_of(path)} == {MEASURED[0], "002.Class/2.jpg", MEASURED[-1]}
    capsys.readouterr()
    for name, words in (("002.Class/5.jpg", "has no mask"), ("gone.jpg", "is none of the test pictures")):
        assert explore(*options, "--examples", name) == 2
        assert_one_sentence(capsys.readouterr().err, f"--examples {name} {words}")
    assert explore(*options, "--examples", "001.Class/4.jpg") == 1  # seen when its mask is read
    assert_one_sentence(capsys.readouterr().err, "--examples 001.Class/4.jpg was not measured", "curves.csv")


def test_both_places_in_one_folder(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Protects --save: what was masked makes a folder of its own, and is said there."""
    for at in ("features", "class_maps"):
        assert explore("--run", home / "run", "--save", tmp_path, "--at", at, "--images", "all") == 0
    capsys.readouterr()
    folders = [tmp_path / "exploratory", tmp_path / "exploratory_class_maps"]
    assert sorted(tmp_path.iterdir()) == folders
    for folder, at in zip(folders, ("features", "class_maps"), strict=True):
        assert {file.name for file in folder.iterdir()} == FILES
        record = read_json(folder / "summary.json")
        assert (record["at"], record["recipe"]["crop_size"], record["every"]["pictures"]) == (at, 48, 4)
        assert record["checkpoint"] == "mobilenet0.pth.tar"


def test_folder_that_cannot_be_written(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Protects hours of measuring: a --save that cannot be is told before."""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(command, "run_experiment", lambda *_, **__: pytest.fail("measured in vain"))
    assert explore("--run", home / "run", "--save", tmp_path / "file") == 1
    assert_one_sentence(capsys.readouterr().err, "nothing can be written", "choose another folder with --save")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--run", "nowhere"], 1, "there is no folder nowhere"),
        (["--run", "x", "--arch", "vgg"], 2, "give --run, or --arch with --checkpoint"),
        (["--checkpoint", "x"], 2, "--arch is missing"),
        (["--masks", "2"], 2, "2 must be at least 3"),
        (["--images", "0"], 2, "0 must be at least 1"),
        (["--images", "some"], 2, "'some' is not a number"),
        (["--at", "pixels"], 2, "invalid choice: 'pixels'"),
        (["--examples", "a", "b", "c", "d"], 2, "--examples names 4 pictures; at most 3"),
        (["--device", "abacus"], 2, "--device abacus is not available"),
    ],
)
def test_wrong_options(home: Path, arguments: list, code: int, words: str, capsys: pytest.CaptureFixture) -> None:
    """Protects the user: a slip of the pen is one sentence with the option, before anything is computed."""
    if arguments[0] == "--device":
        arguments = [*arguments, "--run", home / "run"]
    assert explore(*arguments) == code
    err = capsys.readouterr().err
    assert words in err and "Traceback" not in err


def test_data_without_masks(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Protects the user of a data set without masks, without objects, or of other classes: the sentence says which."""
    data = tmp_path / "data"
    shutil.copytree(home / "data", data)
    options = ["--run", home / "run", "--data", data, "--save", tmp_path / "out"]
    for name in MEASURED:
        save_mask((data / "segmentations" / name).with_suffix(".png"), np.zeros((64, 64), bool))
    assert explore(*options) == 1
    assert_one_sentence(capsys.readouterr().err, "no mask shows an object inside the crop", str(data))
    for name in MEASURED:
        (data / "segmentations" / name).with_suffix(".png").write_bytes(b"no picture")
    assert explore(*options) == 1
    assert_one_sentence(capsys.readouterr().err, "the first: cannot read the mask", "1.png")
    shutil.rmtree(data / "segmentations")
    assert explore(*options) == 1
    assert_one_sentence(capsys.readouterr().err, "has no object masks", "segmentations.tgz")
    make_cub(data, [(0, False, WHOLE), (1, True, WHOLE)], 3)
    assert explore(*options) == 1
    assert_one_sentence(capsys.readouterr().err, "the data set has 3 classes")
    assert not (tmp_path / "out").exists()


def test_damaged_pictures_are_left_out(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Protects a long run: a picture or a mask that cannot be read is a line, not the end."""
    data = tmp_path / "data"
    shutil.copytree(home / "data", data)
    (data / "images" / MEASURED[0]).write_bytes(b"no picture")
    (data / "segmentations" / MEASURED[1]).with_suffix(".png").write_bytes(b"no mask")
    assert explore("--run", home / "run", "--data", data, "--save", tmp_path / "out") == 0
    out = capsys.readouterr().out
    record = read_json(tmp_path / "out" / "exploratory" / "summary.json")
    assert record["every"]["pictures"] == 2 and len(record["failures"]) == 2
    for failure in record["failures"]:
        assert f"left out: {failure}" in out.splitlines()


def test_output_that_is_not_finite(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Protects the figures: logits beyond all numbers are told of, not averaged."""
    torch.save(constant_state("CUB", "mobilenet", {}, 3e38), tmp_path / "huge.pth.tar")
    make_cub(tmp_path / "data", [(0, False, WHOLE), (1, True, WHOLE)], 200)
    save_mask(tmp_path / "data" / "segmentations" / "001.Class" / "1.png", np.eye(64) > 0)
    options = ["--arch", "mobilenet", "--checkpoint", tmp_path / "huge.pth.tar", "--data", tmp_path / "data"]
    assert explore(*options, "--at", "class_maps") == 1
    assert_one_sentence(capsys.readouterr().err, "the model's output is not finite", "1.jpg")
