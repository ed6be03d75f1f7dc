"""What `BAS_inference.py` leaves on the disk, and what it leaves when something goes wrong on the way."""

from __future__ import annotations

import math
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.commands import BEST, assert_one_sentence, read_json, run_inference
from tests.test_inference_options import FLAT, figures, fill_home, options
from utils.inference import test_set as command
from utils.localization.boxes import crop_boxes_to_image
from utils.results.report.records import read_records
from utils.results.sheet import SIDE


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("outputs")
    fill_home(home)
    yield home
    shutil.rmtree(home)


def test_report_folder_holds_the_figures_and_a_row_a_picture(home, tmp_path, capsys):
    """Protects --save: the same JSON, every cell of images.csv as computed by hand, the page and its data."""
    record = figures(home, "--save", tmp_path / "report", flat=True)
    assert f"look at {tmp_path / 'report' / 'report.html'}" in capsys.readouterr().out
    assert read_json(tmp_path / "report" / "results.json") == record
    rows = list(read_records(tmp_path / "report" / "images.csv"))
    assert [row.label for row in rows] == [30, 30, 30, 90, 7]
    assert [row.id for row in rows] == [f"{row.label + 1:03}.Class/{key}.jpg" for key, row in enumerate(rows, start=1)]
    weights = [math.exp(5 - rank) for rank in range(5)]
    for row, (_, _, box) in zip(rows, FLAT, strict=True):
        assert row.top5 == BEST
        assert row.probabilities == pytest.approx([weight / (sum(weights) + 195) for weight in weights], abs=1e-5)
        assert (row.box, row.size, row.true_boxes) == ((8, 8, 56, 56), (64, 64), (box,))
    # A true box, clipped to the crop, shares all of itself with the predicted 49 x 49 pixels; SMALL has 11 x 11.
    assert [row.iou for row in rows] == pytest.approx([0.5, 1, 1, 1, 11 * 11 / 49**2])
    # Half a box is no hit: nothing of it is outside the predicted one.
    assert [row.error for row in rows] == ["more", "right", "right", "wrong class", "wrong class"]
    assert (tmp_path / "report" / "report.html").is_file() and not (tmp_path / "report.part").exists()
    data = (tmp_path / "report" / "data.js").read_text()
    assert data.startswith("window.REPORT = ") and data.count(".Class/") == 5
    pictures = sorted((tmp_path / "report" / "pictures").rglob("*.jpg"))
    assert len(pictures) == 5 and Image.open(pictures[0]).size[0] > 0


def test_report_counts_an_unreadable_picture(home, tmp_path, capsys):
    """Protects an evaluation with a damaged file in its middle: counted, listed, and a row of its own."""
    data = shutil.copytree(home / "flat_data", tmp_path / "data")
    broken = data / "images" / "031.Class" / "3.jpg"
    broken.write_bytes(b"no picture")
    record = figures(home, "--save", tmp_path / "report", "--batch_size", 2, "--vis", 3, flat=True, data=data)
    assert "1 picture gives no prediction and counts as a miss" in capsys.readouterr().out
    assert (record["scores"]["missed"], record["errors"]["missed"]["count"]) == (1, 1)
    rows = list(read_records(tmp_path / "report" / "images.csv"))
    assert [row.error == "missed" for row in rows] == [False, False, True, False, False]
    assert (rows[2].failure, rows[2].box, rows[2].top5, rows[2].size) == (record["failures"][0], None, (), (0, 0))
    assert str(broken) in rows[2].failure
    assert rows[3].box == (8, 8, 56, 56)
    assert (tmp_path / "report" / "mobilenet_test.png").is_file()


def test_no_picture_can_be_read(home, tmp_path, capsys):
    """Protects a data set of damaged files: all are misses, --vis has nothing to show, and scripts learn that figures
    of nothing are a failure."""
    data = shutil.copytree(home / "flat_data", tmp_path / "data")
    for picture in data.glob("images/*/*.jpg"):
        picture.write_bytes(b"")
    more = ("--sweep", "--vis", 2, "--save", tmp_path / "r", "--json", tmp_path / "figures.json")
    assert run_inference("CUB", *options(home, *more, flat=True, data=data)) == 1
    assert_one_sentence(capsys.readouterr().err, "none of the 5 pictures has a prediction")
    record = read_json(tmp_path / "figures.json")
    assert record["scores"]["missed"] == 5 and record["scores"]["gt_known_loc"]["image_mean"] == 0
    assert not list((tmp_path / "r").glob("*.png"))


def test_outputs_that_cannot_be_written_end_the_command_first(home, tmp_path, capsys, monkeypatch):
    """Protects an hour's evaluation: a folder in use, a file as parent, a folder for a file are found before it."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("the evaluation began")

    monkeypatch.setattr(command, "evaluate", fail)
    monkeypatch.setattr(command, "choose_thresholds", fail)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    file = tmp_path / "full" / "notes.txt"
    for more in ([], ["--select-on", "train"]):
        assert run_inference("CUB", *options(home, "--save", tmp_path / "full", *more)) == 2
        assert_one_sentence(capsys.readouterr().err, f"{tmp_path / 'full'} holds files already", "name a new folder")
        assert run_inference("CUB", *options(home, "--save", file / "report", *more)) == 2
        assert_one_sentence(capsys.readouterr().err, f"cannot write a report to {file / 'report'}", "choose another")
    assert run_inference("CUB", *options(home, "--json", tmp_path)) == 2
    assert f"--json {tmp_path} is a folder; name a file" in capsys.readouterr().err
    assert run_inference("CUB", *options(home, "--json", file / "r.json")) == 2
    assert f"--json {file / 'r.json'} cannot be written below {file}" in capsys.readouterr().err
    for one, other in (("--json", "--save"), ("--save", "--save-maps")):
        assert run_inference("CUB", *options(home, one, tmp_path / "new", other, f"{tmp_path}/full/../new")) == 2
        assert "write different things; give each a place of its own" in capsys.readouterr().err
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)  # root may write everywhere
    assert run_inference("CUB", *options(home, "--json", file)) == 2
    assert f"--json {file} may not be written" in capsys.readouterr().err
    assert file.read_text() == "mine" and len(list(tmp_path.rglob("*"))) == 2


def test_interrupted_evaluation_keeps_its_rows(home, tmp_path, capsys, monkeypatch):
    """Protects what was computed before Ctrl-C: the rows stay in DIR.part, which is named; exit code 130."""
    whole = tmp_path / "whole"
    figures(home, "--save", whole, "--batch_size", 2)
    describe, calls = command.describe, []

    def interrupt(*seen: object) -> tuple:
        calls.append(seen)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return describe(*seen)

    monkeypatch.setattr(command, "describe", interrupt)
    capsys.readouterr()
    assert run_inference("CUB", *options(home, "--save", tmp_path / "r", "--batch_size", 2)) == 130
    err = capsys.readouterr().err
    assert f"the rows of 3 pictures are kept in {tmp_path / 'r.part'}" in err and "interrupted" in err
    assert not (tmp_path / "r").exists() and (tmp_path / "r.part" / "report.html").is_file()
    kept, expected = (list(read_records(folder / "images.csv")) for folder in (tmp_path / "r.part", whole))
    assert [(row.id, row.box, row.iou) for row in kept] == [(row.id, row.box, row.iou) for row in expected[:3]]
    assert run_inference("CUB", *options(home, "--save", tmp_path / "r")) == 2
    assert_one_sentence(capsys.readouterr().err, str(tmp_path / "r.part"), "move it away or delete it")


def test_contact_sheet(home, capsys):
    """Protects --vis: a PNG of as many pictures as asked for, of all where there are fewer; not blank."""
    sizes = []
    for count in (2, 100):
        figures(home, "--vis", count, "--compare", "bas", "center")
        path = home / "mobilenet_test.png"
        assert f"look at {path}" in capsys.readouterr().out
        with Image.open(path) as sheet:
            assert sheet.format == "PNG"
            pixels = np.asarray(sheet)
        # Below the legend: pictures, maps, boxes and words.
        assert len(np.unique(pixels[30:].reshape(-1, 3), axis=0)) > 100
        sizes.append(pixels.shape[0])
    more_rows = -(-7 // 2) - 1  # two groups of picture and two maps in a row, under one key
    row, rest = divmod(sizes[1] - sizes[0], more_rows)
    assert rest == 0 and row > SIDE and sizes[0] > row


def test_predicted_boxes_are_drawn_where_the_records_say(home, tmp_path):
    """Protects images.csv: the box of a map with hills, in original pixels, is the crop's box taken back."""
    record = figures(home, "--save", tmp_path / "r")
    rows = list(read_records(tmp_path / "r" / "images.csv"))
    assert len({row.box for row in rows}) > 3
    for row in rows:
        crop_box = np.array(row.box) - 8
        assert (crop_box == crop_box.round()).all() and crop_box.min() >= 0 and crop_box.max() <= 48
        assert tuple(crop_boxes_to_image(crop_box, (64, 64), 64, 48)) == row.box
    shares = [row.error for row in rows]
    assert {name: one["count"] for name, one in record["errors"].items() if name != "images" and one["count"]} == {
        name: shares.count(name) for name in set(shares)
    }
