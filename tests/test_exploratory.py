"""`python -m utils.exploratory` as a user runs it, on a tiny run; and its figures."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import CUB.DataLoader
import CUB.Model
from tests.commands import (
    ROOT,
    WHOLE,
    assert_one_sentence,
    call,
    constant_state,
    make_cub,
    read_json,
    shell,
    write_random_net,
)
from tests.test_masks import save_mask
from utils.errors import UserError
from utils.exploratory import figures, read_curves, run_experiment, save_figures, summarize, verdict
from utils.exploratory.__main__ import main
from utils.exploratory.examples import choose_examples, read_example
from utils.exploratory.figures import mean_curves
from utils.exploratory.masks import mask_family
from utils.exploratory.measure import Curve
from utils.models.recipe import override

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


def test_command_on_a_run(home: Path) -> None:
    """Protects the command in a shell: the files beside the weights, what was passed over, figures from the curves."""
    result = shell(ROOT, "-m", "utils.exploratory", "--run", home / "run", "--masks", "7")
    assert (result.returncode, result.stderr) == (0, "")
    folder = home / "run" / "mobilenet" / "exploratory"
    assert {file.name for file in folder.iterdir()} == FILES
    record = read_json(folder / "summary.json")
    assert (record["pictures"], record["without_mask"], record["without_object"]) == (4, 1, 1)
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
    for name in ("entropy", "activation", "background_activation"):
        assert record["done_at"][name]["mean"] == pytest.approx(again["done_at"][name]["mean"], rel=1e-3)
    for name in ("motivation.png", "experiment.png"):
        picture = Image.open(folder / name)
        assert picture.width == 2 * 880 and np.asarray(picture.convert("L")).std() > 20


def test_released_weights_on_the_class_maps(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Protects --checkpoint and --at class_maps: of a linear rest, foreground and background add up to the whole."""
    weights = home / "run" / "mobilenet" / "mobilenet0.pth.tar"
    options = ["--arch", "mobilenet", "--checkpoint", weights, "--data", home / "data", "--device", "cpu"]
    assert explore(*options, "--at", "class_maps", "--save", tmp_path / "out", "--batch_size", 1) == 0
    capsys.readouterr()
    assert {file.name for file in (tmp_path / "out").iterdir()} == FILES
    for curve in read_curves(tmp_path / "out" / "curves.csv"):
        whole = curve.activation[-1]
        assert curve.activation + curve.background_activation == pytest.approx(np.full(len(curve.areas), whole), 1e-4)


def test_a_part_of_the_pictures_and_named_examples(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Protects --images and --examples: pictures with masks, spread over the test set; the named ones are shown."""
    options = ["--run", home / "run", "--save", tmp_path, "--masks", 3]
    assert explore(*options, "--images", 2, "--examples", "003.Class/6.jpg") == 0
    assert {row["id"] for row in rows_of(tmp_path / "curves.csv")} == {MEASURED[0], MEASURED[-1]}
    capsys.readouterr()
    assert explore(*options, "--images", 2, "--examples", "002.Class/2.jpg") == 2
    assert_one_sentence(capsys.readouterr().err, "--examples 002.Class/2.jpg is not among the 2 pictures of --images")
    assert explore(*options, "--examples", "002.Class/5.jpg") == 1
    assert_one_sentence(capsys.readouterr().err, "--examples 002.Class/5.jpg was not measured", "curves.csv")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--run", "nowhere"], 1, "there is no folder nowhere"),
        (["--run", "x", "--arch", "vgg"], 2, "give --run, or --arch with --checkpoint"),
        (["--checkpoint", "x"], 2, "--arch is missing"),
        (["--masks", "2"], 2, "2 must be at least 3"),
        (["--at", "pixels"], 2, "invalid choice: 'pixels'"),
        (["--examples", "a", "b", "c", "d"], 2, "--examples names 4 pictures; at most 3"),
        (["--device", "abacus"], 2, "--device abacus is not to be had"),
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
    record = read_json(tmp_path / "out" / "summary.json")
    assert record["pictures"] == 2 and len(record["failures"]) == 2
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


# --- figures


def straight(name: str, class_name: str, own: float, correct: bool = True) -> Curve:
    """Entropy 2 - area, activation 10 x area, background activation 10 - 10 x area, through three masks."""
    areas = np.array([0, own, 1])
    return Curve(name, class_name, correct, areas, np.array([0, 1, own]), 2 - areas, 10 * areas, 10 - 10 * areas)


def test_examples_are_chosen_by_a_rule() -> None:
    """Protects from cherries: correct, of different classes, of median size; others only where there are too few."""
    curves = [
        straight("big", "cow", 0.9),
        straight("median", "hen", 0.3, correct=False),
        straight("near", "cow", 0.32),
        straight("nearer", "cow", 0.29),
        straight("far", "pig", 0.1),
    ]
    assert [curve.image_id for curve in choose_examples(curves)] == ["nearer", "far", "median"]
    assert [curve.image_id for curve in choose_examples(curves, 1)] == ["nearer"]


def test_mean_and_quartiles_of_those_that_reach_so_far() -> None:
    """Protects the mean curve: interpolated at shares of the object's own area, up to half of the pictures' ends."""
    curves = [straight(str(own), "hen", own) for own in (0.5, 0.25, 0.2, 0.1)]  # they end at 2, 4, 5 and 10
    shares, found = mean_curves(curves)
    assert shares[0] == 0 and shares[-1] == pytest.approx(4)
    for number, share in enumerate(shares):
        activations = [10 * share * own for own in (0.5, 0.25, 0.2, 0.1) if share <= 1 / own]
        assert found["activation"][0, number] == pytest.approx(np.mean(activations))
        assert found["activation"][1:, number] == pytest.approx(np.percentile(activations, [25, 75]))
        assert found["entropy"][0, number] == pytest.approx(2 - np.mean(activations) / 10)
    assert mean_curves([straight("full", "hen", 0.999)])[1]["activation"][0, -1] == pytest.approx(10)


def test_what_is_drawn(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the figures: the shown masks, raw values on the named axes, the object's own share dashed."""
    split = CUB.DataLoader.load_split(home / "data", "test")
    recipe = override(CUB.Model.recipe("mobilenet"), {"resize_size": 64, "crop_size": 48})
    curve = next(curve for curve in measured(split, recipe) if curve.image_id == MEASURED[1])
    example = read_example(curve, split, recipe)
    mask = example.masks[1]
    assert mask.sum() == 40 * 16 and mask[2:42, 16:32].all()
    family = mask_family(mask)
    assert all(any((one == member).all() for member in family) for one in example.masks)
    assert example.masks.mean(axis=(1, 2)) == pytest.approx(curve.areas[list(example.positions)])
    assert (np.diff(example.positions) > 0).all()

    saved = {}
    monkeypatch.setattr(figures, "save_figure", lambda path, figure, *_: saved.setdefault(path.name, figure))
    save_figures(tmp_path, [curve], split, recipe)
    assert saved.keys() == {"motivation.png", "experiment.png"}
    for figure in saved.values():
        axes = {one.get_ylabel(): one for one in figure.axes if one.get_ylabel()}
        assert axes.keys() == {"entropy", "background activation", "foreground activation"}
        for label, one in axes.items():
            (line,) = (line for line in one.get_lines() if line.get_label() == label)
            values = getattr(curve, "activation" if label.startswith("fore") else label.replace(" ", "_"))
            if figure is saved["motivation.png"]:
                assert (line.get_xdata() == curve.areas).all() and (line.get_ydata() == values).all()
                assert one.get_yaxis().get_ticks_position() == ("right" if label.startswith("fore") else "left")
    dashed = [line for one in saved["motivation.png"].axes for line in one.get_lines() if "own" in line.get_label()]
    assert [set(line.get_xdata()) for line in dashed] == [{curve.own_area}] * 2


def measured(split, recipe) -> tuple[Curve, ...]:
    torch.manual_seed(0)
    model = CUB.Model.build("mobilenet", 5, final_relu=False)
    return run_experiment(model, split, recipe, torch.device("cpu"), "class_maps").curves


def test_examples_that_are_not_what_was_measured(home: Path) -> None:
    """Protects redrawing from an older file: another mask, or no such picture, is told."""
    split = CUB.DataLoader.load_split(home / "data", "test")
    recipe = override(CUB.Model.recipe("mobilenet"), {"resize_size": 64, "crop_size": 48})
    with pytest.raises(UserError, match="the mask of 001.Class/1.jpg is not the one that was measured"):
        read_example(straight(MEASURED[0], "hen", 0.5), split, recipe)
    with pytest.raises(UserError, match="has no picture gone.jpg with a mask"):
        read_example(straight("gone.jpg", "hen", 0.5), split, recipe)
