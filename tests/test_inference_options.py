"""`BAS_inference.py` on a labelled test set, option by option, as a user runs it; figures are known by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import CUB.Model
from tests.commands import (
    BEST,
    NOISE,
    SIZES,
    SMALL,
    WHOLE,
    assert_one_sentence,
    constant_state,
    make_cub,
    printed_scores,
    read_json,
    rounded,
    run_inference,
    write_random_net,
)
from utils.evaluation.maps import centred_gaussian
from utils.evaluation.protocols import PROTOCOLS
from utils.evaluation.spec import build_spec
from utils.results.report.records import read_records
from utils.system.files import file_digest

# Of the 64 x 64 pictures; the crop of 48 is (8, 8, 56, 56). To the authors, a box from 0 to 48 holds 49 x 49 pixels,
# of which (0, 0, 48, 23.5) is exactly half.
HALF = (8, 8, 56, 31.5)
FLAT = [(30, False, HALF), (30, False, WHOLE), (30, False, WHOLE), (90, False, WHOLE), (7, False, SMALL)]


def fill_home(home: Path) -> None:
    """Checkpoints and data sets: a net that sees nothing on hand-made boxes, a net with maps on pictures of noise."""
    make_cub(home / "flat_data", FLAT, 200)
    make_cub(home / "data", NOISE, 5)
    scores = {label: 5.0 - rank for rank, label in enumerate(BEST)}
    torch.save(constant_state("CUB", "mobilenet", scores, 0.0), home / "flat.pth.tar")
    write_random_net(home / "mobilenet0.pth.tar", 5)


def options(home: Path, *more: object, flat: bool = False, data: Path | None = None) -> list[object]:
    checkpoint = home / ("flat.pth.tar" if flat else "mobilenet0.pth.tar")
    data = data or home / ("flat_data" if flat else "data")
    settings = SIZES if flat else [*SIZES[-2:], "--no-tencrop"]
    return ["--arch", "mobilenet", "--data", data, "--checkpoint", checkpoint, *settings, *more]


def figures(home: Path, *more: object, **which: object) -> dict:
    """What the command writes with --json."""
    assert run_inference("CUB", *options(home, *more, "--json", home / "r.json", **which)) == 0
    return read_json(home / "r.json")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("options")
    fill_home(home)
    yield home
    shutil.rmtree(home)


# --- protocols, maps, sweeps


def test_authors_and_ijcv_protocols(home, capsys):
    """Protects --protocol: an IoU of exactly 0.5 is wrong to the CVPR code; the IJCV code's true boxes are smaller."""
    known, right = {}, 3
    for protocol in ("authors", "ijcv"):
        record = figures(home, "--protocol", protocol, "--compare", "bas", flat=True)
        output = capsys.readouterr().out
        assert f"protocol: {protocol}: " in output
        assert (record["protocol"], record["ten_crops"]) == (protocol, True)
        # Classes 30 (three pictures), 90 and 7, by hand.
        expected = {"class_mean": 100 * ((right - 1) / 3 + 1 + 0) / 3, "image_mean": 100 * right / 5}
        assert record["scores"]["gt_known_loc"] == pytest.approx(expected)
        shown = {metric: values[:2] for metric, values in printed_scores(output).items()}
        assert shown == rounded(record["scores"])
        assert (record["published"] is not None) == ("published" in output) == (protocol == "authors")
        known[protocol] = record
    # 48 x 48 pixels of the predicted 49 x 49 are not all of them.
    assert known["authors"]["iou"] != known["ijcv"]["iou"]
    assert known["authors"]["scores"]["top1_cls"] == known["ijcv"]["scores"]["top1_cls"]
    assert known["authors"]["errors"]["right"]["count"] == 2  # the error types are TS-CAM's, strict in any protocol


def literal_wsol_box(score_map: np.ndarray, threshold: float) -> list[int]:
    """wsolevaluation's compute_bboxes_from_scoremaps, for one threshold and the largest contour."""
    picture = (score_map * 255).astype(np.uint8)
    _, binary = cv2.threshold(picture, int(threshold * np.max(picture)), 255, cv2.THRESH_BINARY)
    contours = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[-2]
    x, y, w, h = cv2.boundingRect(max(contours, key=cv2.contourArea))
    return [x, y, min(x + w, picture.shape[1] - 1), min(y + h, picture.shape[0] - 1)]


def test_the_code_for_masks_takes_the_true_class_alone(home: Path) -> None:
    """Protects PxAP on CUB: count_pxap's map is the label's, whatever k the recipe has for boxes, but for a --top_k."""
    asked = ((), ("--protocol", "count_pxap"), ("--protocol", "count_pxap", "--top_k", 3))
    assert [figures(home, *more)["settings"]["top_k"] for more in asked] == [2, 1, 3]
    for_masks = PROTOCOLS["ijcv"].for_masks()  # what --protocol ijcv means where there are masks alone
    assert build_spec(CUB.Model.recipe("vgg"), for_masks).main.top_k == 1


def test_wsolevaluation_protocol_by_its_literal_code(home, tmp_path):
    """Protects --protocol wsolevaluation: no crop, the map resized then normalised, contours, one crop, IoU >= 0.5."""
    gaussian = centred_gaussian(torch.zeros(1, 1, 6, 6))[0, 0].numpy()
    resized = cv2.resize(gaussian, (48, 48), interpolation=cv2.INTER_CUBIC)
    normalised = (resized - resized.min()) / (resized.max() - resized.min())
    x0, y0, x1, y1 = literal_wsol_box(normalised, 0.6)
    side = y1 - y0 + 1
    assert side == x1 - x0 + 1
    # In the 48 pixels of the network: twice the box, one row more, the box. The first two reach past the picture's
    # edge, where this protocol alone does not clip them.
    truths = [(x0, y0, x1, y1 + side), (x0, y0, x1, y1 + side + 1), (x0, y0, x1, y1)]
    assert y1 + side > 48
    # A touch more than in the original pixels: they are scaled by 48 / 64 and cut to whole pixels.
    pictures = [(30, False, tuple(value * 64 / 48 + 0.01 for value in truth)) for truth in truths]
    data = make_cub(tmp_path / "data", pictures, 200)
    past = ["--map", "center", "--ignore-misfits"]
    record = figures(home, "--protocol", "wsolevaluation", *past, "--save", tmp_path / "r", flat=True, data=data)
    assert record["ten_crops"] is False and record["map"] == "centred Gaussian"
    ious = [record.iou for record in read_records(tmp_path / "r" / "images.csv")]
    assert ious == [0.5, side / (2 * side + 1), 1]
    assert record["scores"]["gt_known_loc"]["image_mean"] == pytest.approx(100 * 2 / 3)
    authors = figures(home, *past, flat=True, data=data)
    assert authors["scores"]["gt_known_loc"] != record["scores"]["gt_known_loc"]


PARTS = ("threshold", "scores", "errors", "iou", "edges", "max_box_acc", "pixels")


def test_compare_repeats_each_map_alone(home, capsys):
    """Protects --compare: one table, every row and every figure as of a run with --map alone."""
    record = figures(home, "--compare", "bas", "cam", "gradcam", "center")
    lines = capsys.readouterr().out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("class mean  "))
    rows = lines[start + 1 : start + 5]
    assert record["map"] == "BAS, k = 2" and len(record["maps"]) == 4
    seen = set()
    for kind, (title, together), row in zip(
        ("bas", "cam", "gradcam", "center"), record["maps"].items(), rows, strict=True
    ):
        alone = figures(home, "--map", kind)
        assert alone["map"] == title and {part: together[part] for part in PARTS} == {
            part: alone[part] for part in PARTS
        }
        assert (together["kind"], together["top_k"]) == (kind, 2 if kind == "bas" else None)
        assert row.startswith(f"{title} (threshold {alone['threshold']:g})")
        shown = [float(word) for word in row.split(")")[-1].split()]
        assert shown == [rounded(alone["scores"])[name][0] for name in ("top1_loc", "top5_loc", "gt_known_loc")]
        seen.add(json.dumps(together["iou"]))
    assert len(seen) == 4  # four maps, not one four times
    assert record["maps"]["BAS, k = 2"].items() >= {part: record[part] for part in PARTS}.items()


def test_sweep_repeats_single_runs(home, capsys):
    """Protects --sweep and --top-ks: its rows and curves are what runs with those flags give; its choice is named."""
    record = figures(home, "--sweep", "--top-ks", 1, 3, 50)
    output = capsys.readouterr().out
    assert "chosen on this test set" in output
    rows = {row["map"]: row for row in record["sweep"]}
    assert list(rows) == ["BAS, k = 2", "BAS, k = 1", "BAS, k = 3", "BAS, k = 5"]  # of 50, there are five
    for title, row in rows.items():
        alone = figures(home, "--top_k", row["top_k"])
        best = figures(home, "--top_k", row["top_k"], "--threshold", row["best_threshold"])
        assert (row["threshold"], row["scores"]) == (0.6, alone["scores"])
        assert row["best_scores"] == best["scores"]
        line = next(line for line in output.splitlines() if line.startswith(f"{title} "))
        expected = [row["threshold"], *(rounded(row["scores"])[name][0] for name in ("top1_loc", "gt_known_loc"))]
        expected += [
            row["best_threshold"],
            *(rounded(row["best_scores"])[name][0] for name in ("top1_loc", "gt_known_loc")),
        ]
        assert [float(word) for word in line.removeprefix(title).replace("|", " ").split()] == expected
    by_threshold, by_k = record["curves"]
    assert by_threshold["x"] == [round(step / 100, 2) for step in range(100)] and by_threshold["mark"] == 0.6
    shown = by_threshold["series"]["GT-known Loc"]
    for threshold in (0.45, 0.75):
        alone = figures(home, "--threshold", threshold)
        assert shown[round(threshold * 100)] == alone["scores"]["gt_known_loc"]["class_mean"]
    assert len(set(shown)) > 2
    assert (by_k["x"], by_k["mark"]) == ([1, 2, 3, 5], 2)
    by_title = [rows[f"BAS, k = {k}"]["scores"]["gt_known_loc"]["class_mean"] for k in by_k["x"]]
    assert by_k["series"]["GT-known Loc"] == by_title


def test_threshold_is_chosen_on_the_training_pictures(home, tmp_path, capsys):
    """Protects --select-on: the choice is the best of a sweep over the training pictures, and is called theirs."""
    swapped = shutil.copytree(home / "data", tmp_path / "swapped")
    flags = [line.split() for line in (swapped / "train_test_split.txt").read_text().splitlines()]
    (swapped / "train_test_split.txt").write_text("".join(f"{key} {1 - int(flag)}\n" for key, flag in flags))
    best = {
        row["map"]: row["best_threshold"]
        for row in figures(home, "--compare", "bas", "cam", "--sweep", data=swapped)["sweep"]
    }
    capsys.readouterr()
    record = figures(home, "--compare", "bas", "cam", "--select-on", "train")
    chosen = {title: record["maps"][title]["threshold"] for title in ("BAS, k = 2", "CAM")}
    assert chosen == {title: best[title] for title in chosen} and chosen["BAS, k = 2"] != 0.6
    printed = ", ".join(f"{title} {threshold:g}" for title, threshold in chosen.items())
    assert f"on the 5 pictures of train: {printed}\n" in capsys.readouterr().out
    assert (record["threshold_from"], record["settings"]["threshold"]) == ("train split", chosen["BAS, k = 2"])
    assert record["scores"] == figures(home, "--threshold", record["threshold"])["scores"]
    assert read_json(home / "r.json")["threshold_from"] == "flag"
    assert figures(home)["threshold_from"] == "settings"


def test_threshold_cannot_be_chosen(home, tmp_path, capsys):
    """Protects --select-on: no boxes to choose by, no such split, a threshold that was given."""
    data = shutil.copytree(home / "data", tmp_path / "data")
    lines = (data / "bounding_boxes.txt").read_text().splitlines(keepends=True)
    (data / "bounding_boxes.txt").write_text("".join(lines[5:]))
    assert run_inference("CUB", *options(home, "--select-on", "train", data=data)) == 1
    assert_one_sentence(
        capsys.readouterr().err, "the train split has neither boxes nor masks to choose a threshold by", "--select-on"
    )
    assert run_inference("CUB", *options(home, "--select-on", "val")) == 2
    assert_one_sentence(capsys.readouterr().err, "there is no split 'val'")
    assert run_inference("CUB", *options(home, "--select-on", "train", "--threshold", "0.5")) == 2
    assert "--select-on chooses the threshold; leave out --threshold" in capsys.readouterr().err


# --- masks


def write_masks(data: Path, size: tuple[int, int] = (64, 64)) -> int:
    """Segmentations of the test pictures: the left half of each; returns how many."""
    names = [line.split()[1] for line in (data / "images.txt").read_text().splitlines()]
    mask = np.zeros(size[::-1], dtype=np.uint8)
    mask[:, : size[0] // 2] = 255
    for name in names:
        path = data / "segmentations" / Path(name).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    return len(names)


def test_pixel_scores_where_there_are_masks(home, tmp_path, capsys):
    """Protects PxAP: a flat map's is the share of foreground; no line without masks; one of another shape is named."""
    assert figures(home, flat=True)["pixels"] is None
    assert "PxAP" not in capsys.readouterr().out
    data = shutil.copytree(home / "flat_data", tmp_path / "data")
    count = write_masks(data)
    record = figures(home, flat=True, data=data)
    assert record["pixels"]["px_ap"] == pytest.approx(50) and record["pixels"]["images"] == count
    assert record["pixels"]["peak_iou"] == pytest.approx(50)
    assert f"PxAP                 50.00   over {count} masks" in capsys.readouterr().out
    odd = data / "segmentations" / "031.Class" / "2.png"
    Image.new("L", (32, 20), 255).save(odd)
    broken = figures(home, "--batch_size", 2, flat=True, data=data)
    assert broken["pixels"]["images"] == count - 1 and broken["pixels"]["px_ap"] == pytest.approx(50)
    assert broken["scores"] == record["scores"]  # its box counts
    (failure,) = broken["failures"]
    output = capsys.readouterr().out
    assert str(odd) in failure and "32x20" in failure and "64x64" in failure
    assert f"1 mask is left out:\n  {failure}" in output and "no prediction" not in output


def test_weights_that_are_not_the_runs(home, tmp_path, capsys):
    """Protects from a flipped bit that loads without a word: the run's settings know the SHA-256 of its weights."""
    weights = shutil.copy(home / "mobilenet0.pth.tar", tmp_path / "mobilenet0.pth.tar")
    settings = read_json(home / "settings.json")
    for digest, is_told in ((file_digest(Path(weights)), False), ("0" * 64, True)):
        (tmp_path / "settings.json").write_text(json.dumps({**settings, "sha256": digest}))
        assert run_inference("CUB", *options(home, "--checkpoint", weights)) == 0
        assert ("is not the file that its run wrote" in capsys.readouterr().err) == is_told
