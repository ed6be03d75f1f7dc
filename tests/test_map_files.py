"""Maps as files: another evaluator, written here in wsolevaluation's words, scores ours; ours scores files as maps."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.commands import (
    NOISE,
    ROOT,
    assert_one_sentence,
    make_cub,
    read_json,
    run_inference,
    save_noise,
    write_random_net,
)
from tests.documents import run_python
from tests.test_cub_data import write_lines
from tests.test_masks import save_mask, wsolevaluation_mask
from tests.test_pixel_scores import wsolevaluation_px_ap
from tests.test_protocols import wsolevaluation_box
from utils.evaluation.map_files import path_of_map, read_map, save_map
from utils.localization.boxes import iou
from utils.system.errors import UserError

SIDE = 48


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Seven test pictures with boxes and masks, and a network of hills and valleys."""
    home = tmp_path_factory.mktemp("maps")
    make_cub(home / "data", NOISE, 5)
    for index, (label, _, (x0, y0, x1, y1)) in enumerate(NOISE):
        mask = np.zeros((64, 64), np.uint8)
        mask[y0:y1, x0:x1] = 255
        path = home / "data" / "segmentations" / f"{label + 1:03}.Class" / f"{index + 1}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    write_random_net(home / "net.pth.tar", 5)
    yield home
    shutil.rmtree(home)


def infer(home: Path, *more: object) -> int:
    options = ["--arch", "mobilenet", "--checkpoint", home / "net.pth.tar", "--data", home / "data", "--device", "cpu"]
    return run_inference("CUB", *options, "--num_workers", 0, *more)


def wsolevaluation_scores(folder: Path) -> dict[str, float]:
    """What wsolevaluation's box and mask evaluators make of files, in percent."""
    thresholds = np.arange(0, 1, 0.01)
    correct, images = {percent: np.zeros(len(thresholds)) for percent in (30, 50, 70)}, []
    tests = [(number, label, box) for number, (label, is_train, box) in enumerate(NOISE, start=1) if not is_train]
    for number, label, (x0, y0, x1, y1) in tests:
        cam = np.load(folder / f"{label + 1:03}.Class" / f"{number}.jpg.npy")
        resized = cv2.resize(cam, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        resized = resized - resized.min()
        resized = resized / resized.max()
        scale = SIDE / 64
        truth = np.array([int(x0 * scale), int(y0 * scale), int(x1 * scale), int(y1 * scale)])
        ious = np.array([iou(wsolevaluation_box(resized, threshold), truth) for threshold in thresholds])
        for percent, counts in correct.items():
            counts += ious >= percent / 100
        mask = np.zeros((64, 64), np.uint8)
        mask[y0:y1, x0:x1] = 1
        images.append((resized, cv2.resize(mask, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)))
    best = {percent: 100 * counts.max() / len(tests) for percent, counts in correct.items()}
    return {"max_box_acc": best[50], "px_ap": wsolevaluation_px_ap(images, 0.001)}


def wsolevaluation_mask_score(folder: Path, maps: Path, side: int) -> float:
    """What its mask evaluator makes of files and of metadata's masks, in percent; read as it reads them."""
    masks: dict[str, list[str]] = {}
    ignored: dict[str, str] = {}
    for line in next(folder.glob("**/test/localization.txt")).read_text().splitlines():
        image_id, mask, ignore = line.split(",")
        masks.setdefault(image_id, []).append(mask)
        ignored.setdefault(image_id, ignore)
    images = []
    for image_id, names in masks.items():
        objects = [np.float32(Image.open(folder / name)) for name in names]
        ignore = np.float32(Image.open(folder / ignored[image_id])) if ignored[image_id] else np.zeros((1, 1))
        cam = np.load(maps / f"{image_id}.npy").astype(np.float64)
        resized = cv2.resize(cam, (side, side), interpolation=cv2.INTER_CUBIC)
        resized = resized - resized.min()
        images.append((resized / resized.max(), wsolevaluation_mask(objects, ignore, side)))
    return wsolevaluation_px_ap(images, 0.001)


def test_masks_of_other_sizes_and_ignored_regions(home, tmp_path) -> None:
    """Protects PxAP of data as OpenImages30k's: several masks a picture, each of a size of its own, ignored regions,
    maps of any size and range; scored as wsolevaluation's mask evaluator scores them."""
    data, maps, draw = tmp_path / "data", tmp_path / "maps", np.random.default_rng(0)
    lines = []
    for number, (width, height) in enumerate([(300, 200), (200, 300), (128, 128), (500, 334), (64, 48), (224, 224)]):
        image_id = f"class/{number}.jpg"
        save_noise(data / "images" / image_id, number)
        with Image.open(data / "images" / image_id) as noise:
            noise.resize((width, height)).save(data / "images" / image_id)
        for part in range(1 + number % 3):
            scale = (1, 0.5, 3)[(number + part) % 3]
            grown = cv2.resize(draw.random((5, 5)), (int(width * scale), int(height * scale)))
            save_mask(data / "masks" / f"{number}_{part}.png", grown > 0.55)
            ignore = f"masks/{number}_ignore.png" if part == 0 and number != 2 else ""
            lines.append(f"{image_id},masks/{number}_{part}.png,{ignore}")
        save_mask(data / "masks" / f"{number}_ignore.png", cv2.resize(draw.random((4, 4)), (width, height)) > 0.6)
        path = path_of_map(maps, image_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = cv2.GaussianBlur(draw.normal(size=(7 * (number + 1), 28)), (0, 0), 1 + number)
        np.save(path, (100 * noise - 3).astype((np.float32, np.float64)[number % 2]))
    (data / "test").mkdir()
    ids = sorted({line.split(",")[0] for line in lines})
    write_lines(data / "test" / "image_ids.txt", ids)
    write_lines(data / "test" / "class_labels.txt", [f"{image_id},{number % 5}" for number, image_id in enumerate(ids)])
    write_lines(data / "test" / "localization.txt", lines)
    for side in (224, 48):
        options = [
            "--arch",
            "mobilenet",
            "--checkpoint",
            home / "net.pth.tar",
            "--dataset-dir",
            data,
            "--map-files",
            maps,
        ]
        options += ["--protocol", "wsolevaluation", "--resize_size", side, "--crop_size", side, "--num_workers", 0]
        assert run_inference("CUB", *options, "--device", "cpu", "--json", tmp_path / "ours") == 0
        ours = read_json(tmp_path / "ours")["pixels"]
        assert ours["images"] == len(ids)
        assert ours["px_ap"] == pytest.approx(wsolevaluation_mask_score(data, maps, side), abs=1e-9) != 0


def test_both_ways(home, tmp_path, capsys) -> None:
    """Protects --save-maps and --map-files: the same figures there, here, and here again from the files."""
    maps = tmp_path / "maps"
    sizes = ("--resize_size", SIDE, "--crop_size", SIDE)
    assert infer(home, "--protocol", "wsolevaluation", *sizes, "--save-maps", maps, "--json", tmp_path / "ours") == 0
    assert f"saved in {maps}" in capsys.readouterr().out
    ours, theirs = read_json(tmp_path / "ours"), wsolevaluation_scores(maps)
    assert ours["max_box_acc"]["max_box_acc"]["value"] == theirs["max_box_acc"] > 0
    assert ours["pixels"]["px_ap"] == pytest.approx(theirs["px_ap"], abs=1e-9)

    again = ("--protocol", "wsolevaluation", *sizes, "--threshold", ours["settings"]["threshold"])
    assert infer(home, *again, "--map-files", maps, "--json", tmp_path / "files") == 0
    assert "for 7 of 7 pictures" in capsys.readouterr().out
    files = read_json(tmp_path / "files")
    assert files["map"] == "map files"
    for name in ("scores", "errors", "iou", "max_box_acc", "pixels"):
        assert files[name] == ours[name], name

    assert infer(home, *again, "--compare", "bas", "center", "--map-files", maps, "--json", tmp_path / "three") == 0
    three = read_json(tmp_path / "three")["maps"]
    assert len(three) == 3 and three["map files"]["max_box_acc"] == ours["max_box_acc"]


def test_arrays_without_a_network(capsys) -> None:
    """Protects the documented lines from arrays to scores: run as they stand, they give wsolevaluation's figures."""
    draw = np.random.default_rng(0)
    pictures = []
    for index in range(5):
        mask = np.zeros((224, 224), np.uint8)
        mask[40 : 150 + 5 * index, 30:200] = 1
        spatial_map = cv2.GaussianBlur(cv2.resize(mask.astype(np.float32), (14, 14)) + draw.random((14, 14)), (0, 0), 1)
        pictures.append((spatial_map, [[30, 40, 200, 150 + 5 * index]], (224, 224), mask))
    names = run_python(ROOT / "utils" / "evaluation" / "README.md", {"pictures": pictures})
    ious, images = np.zeros((100, 5)), []
    for index, (spatial_map, boxes, _, mask) in enumerate(pictures):
        resized = cv2.resize(spatial_map.astype(np.float64), (224, 224), interpolation=cv2.INTER_CUBIC)
        resized = (resized - resized.min()) / (resized - resized.min()).max()
        images.append((resized, mask))
        ious[:, index] = [iou(wsolevaluation_box(resized, threshold), boxes[0]) for threshold in np.arange(100) / 100]
    found = names["boxes"].summary(), names["pixels"].summary()
    assert found[0]["max_box_acc"]["value"] == 100 * (ious >= 0.5).mean(axis=1).max() > 0
    assert found[1]["px_ap"] == pytest.approx(wsolevaluation_px_ap(images, 0.001), abs=1e-9)
    assert str(found[0]) in capsys.readouterr().out


@pytest.mark.parametrize("protocol", ["authors", "ijcv"])
@pytest.mark.parametrize("align", ["--align_maps", "--align_maps=calibrated", "--no-align_maps"])
def test_maps_are_those_that_are_scored(home, tmp_path, capsys, protocol: str, align: str) -> None:
    """Protects saved maps under every protocol, drawn aligned or not: read again, they give the same figures."""
    common = ("--protocol", protocol, "--threshold", 0.5)
    assert infer(home, *common, align, "--save-maps", tmp_path / "maps", "--json", tmp_path / "ours") == 0
    assert infer(home, *common, align, "--map-files", tmp_path / "maps", "--json", tmp_path / "files") == 0
    ours, files = read_json(tmp_path / "ours"), read_json(tmp_path / "files")
    for name in ("scores", "errors", "iou", "max_box_acc", "pixels"):
        assert files[name] == ours[name], name
    assert infer(home, "--protocol", "wsolevaluation", "--map-files", tmp_path / "maps") == 1
    assert_one_sentence(capsys.readouterr().err, f"were scored with protocol {protocol}, resize_size 64")


def test_files_that_are_no_maps(home, tmp_path, capsys) -> None:
    """Protects scores of files: each that is missing or no map counts as a miss and is named, and none is unpickled."""
    maps = tmp_path / "maps"
    names = [
        f"{label + 1:03}.Class/{number}.jpg"
        for number, (label, is_train, _) in enumerate(NOISE, start=1)
        if not is_train
    ]
    bad = [None, np.zeros(5), np.full((4, 4), np.nan), np.array([["a"]]), np.array([[{}]], dtype=object)]
    for name, content in zip(names, [*bad, np.eye(7), np.eye(5, dtype=np.uint8)], strict=True):
        path = path_of_map(maps, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            np.save(path, content, allow_pickle=True)
    assert infer(home, "--map-files", maps, "--json", tmp_path / "files") == 0
    record, printed = read_json(tmp_path / "files"), capsys.readouterr().out
    assert "for 6 of 7 pictures" in printed and record["scores"]["missed"] == 5
    reasons = ("there is no map", "shape (5,)", "holds NaN", "<U1", "allow_pickle=False")
    assert all(reason in failure for reason, failure in zip(reasons, record["failures"], strict=True))
    (maps / "empty").mkdir()
    assert infer(home, "--map-files", maps / "empty") == 1
    assert_one_sentence(capsys.readouterr().err, "there is no map of the 7 pictures", names[0])
    for wrong in (["--map-files", tmp_path / "nowhere"], ["--map-files", maps, "--vis", 3]):
        assert infer(home, *wrong) == 2


def test_ids_do_not_lead_out(tmp_path) -> None:
    """Protects other folders from ids of foreign lists."""
    for image_id in ("../../bird", "/etc/bird"):
        with pytest.raises(UserError, match="leads out of"):
            save_map(tmp_path, image_id, np.zeros((2, 2)))
    save_map(tmp_path / ".." / tmp_path.name, "a/b.c", np.eye(2))
    assert read_map(tmp_path, "a/b.c").tolist() == np.eye(2).tolist()


def test_maps_of_the_test_set_do_not_choose_for_another(tmp_path, capsys) -> None:
    """Protects --select-on: pictures of another split that have the test pictures' ids would be scored by the test
    pictures' maps; a split that is the test set by way of a link is none of its own; what was not chosen is not called
    chosen."""
    data = tmp_path / "data"
    rows = ["id,x0,y0,x1,y1"]
    for split, names in (("train", "ab"), ("val", "ab"), ("test", "bc")):
        for seed, name in enumerate(names):
            save_noise(data / split / "c0" / f"{name}.png", seed)
            rows.append(f"{split}/c0/{name}.png,8,8,50,50")
    write_lines(data / "boxes.csv", rows)
    write_random_net(tmp_path / "net.pth.tar", 1)
    maps = tmp_path / "maps" / "c0"
    maps.mkdir(parents=True)
    for name in "bc":
        np.save(maps / f"{name}.png.npy", np.random.default_rng(0).random((7, 7)))
    common = [
        "--arch",
        "mobilenet",
        "--checkpoint",
        tmp_path / "net.pth.tar",
        "--dataset-dir",
        data,
        "--num_workers",
        0,
    ]
    common += ["--device", "cpu", "--json", tmp_path / "r.json", "--no-tencrop", "--map-files", tmp_path / "maps"]
    assert run_inference("CUB", *common, "--select-on", "val") == 2
    assert_one_sentence(capsys.readouterr().err, "c0/b.png is a picture there and in the test set")
    shutil.rmtree(data / "val")
    (data / "val").symlink_to("test")
    assert run_inference("CUB", *common, "--select-on", "val") == 2
    assert_one_sentence(capsys.readouterr().err, "--select-on val would choose on the test pictures themselves")
    (data / "train" / "c0" / "b.png").rename(data / "train" / "c0" / "d.png")
    (data / "boxes.csv").write_text((data / "boxes.csv").read_text().replace("train/c0/b", "train/c0/d"))
    assert run_inference("CUB", *common, "--select-on", "train") == 0
    record = read_json(tmp_path / "r.json")
    assert (record["threshold_from"], record["settings"]["threshold"]) == ("default", 0.2)
