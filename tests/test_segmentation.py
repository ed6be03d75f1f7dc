"""Segmentation: mean IoU, files of maps and masks, and the commands as users type them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.commands import ROOT, assert_one_sentence, read_json
from tests.voc import SIDE, TRAIN, VAL, VOC, indices, make_voc
from utils.metrics.segmentation import IGNORED, Confusion, SeedScores, seeds
from utils.models.registry import build
from utils.segmentation.__main__ import main as segmentation
from utils.segmentation.store import palette, read_maps, read_mask, save_mask
from utils.system.errors import UserError, run_command


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_voc(tmp_path / "data")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return make_voc(tmp_path_factory.mktemp("voc"))


@pytest.fixture(scope="module")
def net(tmp_path_factory) -> Path:
    """Weights of a random MobileNetV1 for VOC."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("net") / "mobilenet9.pth.tar"
    torch.save(build(VOC.recipe("mobilenet")).state_dict(), path)
    return path


def run(*arguments: object) -> int:
    return run_command(lambda: segmentation(list(map(str, arguments))))


# --- scores


def naive_confusion(maps: np.ndarray, classes: np.ndarray, truth: np.ndarray, threshold: float) -> np.ndarray:
    """IRN's eval_cam, in our words."""
    padded = np.concatenate([np.full((1, *truth.shape), threshold, np.float32), maps])
    predicted = np.pad(classes + 1, (1, 0))[padded.argmax(axis=0)]
    counts = np.zeros((21, 21), dtype=np.int64)
    for true, found in zip(truth.ravel(), predicted.ravel(), strict=True):
        if true != IGNORED:
            counts[true, found] += 1
    return counts


def random_picture(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.RandomState(seed)
    classes = np.sort(random.choice(20, random.randint(1, 4), replace=False))
    maps = random.randint(0, 101, (len(classes), 12, 9)).astype(np.float32) / np.float32(100)  # ties with thresholds
    truth = random.choice([0, IGNORED, *(classes + 1), 7], (12, 9)).astype(np.uint8)
    return maps, classes, truth


def test_all_thresholds_in_one_pass() -> None:
    """Protects seeds: at every threshold the confusion is that of a loop over pixels; ties are background; parts add
    up, in any order."""
    thresholds = tuple(round(0.01 * step, 2) for step in range(100))
    parts = [SeedScores(20, thresholds) for _ in range(2)]
    pictures = [random_picture(seed) for seed in range(6)]
    for number, picture in enumerate(pictures):
        parts[number % 2].update(*picture)
    parts[1].merge(parts[0])
    assert parts[1].images == 6
    for threshold in (0.0, 0.07, 0.29, 0.3, 0.58, 0.99):
        expected = sum(naive_confusion(*picture, threshold) for picture in pictures)
        confusion = parts[1].confusion(threshold)
        assert (confusion.counts == expected).all()
        by_masks = Confusion(20)
        for maps, classes, truth in pictures:
            by_masks.update(seeds(maps, classes, threshold), truth)
        assert (by_masks.counts == expected).all()
        with np.errstate(invalid="ignore"):
            ious = expected.diagonal() / (expected.sum(0) + expected.sum(1) - expected.diagonal())
        assert confusion.summary()["miou"] == pytest.approx(100 * np.nanmean(ious), abs=1e-12)
    curve = parts[1].curve()
    assert parts[1].best_threshold() == thresholds[int(np.argmax(curve))]


def test_pictures_without_classes_are_background() -> None:
    """Protects scores of pictures for which there is no map: all of it is background."""
    scores = SeedScores(20, (0.1, 0.5))
    scores.update(np.zeros((0, 3, 4), np.float32), np.zeros(0, np.int64), np.full((3, 4), 2, np.uint8))
    assert scores.confusion(0.1).counts[2, 0] == 12
    assert not seeds(np.zeros((0, 3, 4), np.float32), np.zeros(0, np.int64), 0.1).any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda maps, classes, truth: (maps, classes, truth[:-1]), "the mask has 9x11 pixels, not 9x12"),
        (lambda maps, classes, truth: (maps, classes, truth * 0 + 21), "the class 21, where 0 to 20"),
        (lambda maps, classes, truth: (maps, classes + 20, truth), "of 20 classes"),
        (lambda maps, classes, truth: (maps * np.float32("nan"), classes, truth), "not finite"),
    ],
    ids=["another size", "a class beyond", "a map of no class", "NaN"],
)
def test_scores_refuse_what_does_not_fit(change, words: str) -> None:
    """Protects counts: what cannot be scored is refused, and nothing of it is counted."""
    scores = SeedScores(20, (0.3,))
    with pytest.raises(ValueError, match=re.escape(words)):
        scores.update(*change(*random_picture(1)))
    assert not scores.counts.any() and scores.images == 0


# --- files


def test_palette_is_vocs() -> None:
    """Protects masks that people look at: the colours of VOC's own files."""
    colours = palette()
    assert colours[[0, 1, 2, 3, 15, 20]].tolist() == [
        *([0, 0, 0], [128, 0, 0], [0, 128, 0]),
        *([128, 128, 0], [192, 128, 128], [0, 64, 128]),
    ]
    assert colours[255].tolist() == [224, 224, 192] and len(np.unique(colours, axis=0)) == 256


@pytest.mark.parametrize("kind", ["palette", "grey", "npy", "npy of int64"])
def test_masks_are_read_as_indices(tmp_path: Path, kind: str) -> None:
    """Protects palette masks, which `convert("L")` would destroy, and arrays and grey pictures of other tools."""
    mask = np.random.RandomState(0).choice([0, 1, 15, 20, IGNORED], (7, 9)).astype(np.uint8)
    path = tmp_path / ("m.npy" if kind.startswith("npy") else "m.png")
    if kind == "palette":
        save_mask(path, mask)
        assert Image.open(path).mode == "P"
    elif kind == "grey":
        Image.fromarray(mask).save(path)
    else:
        np.save(path, mask.astype(np.int64) if "int64" in kind else mask)
    found = read_mask(path, 20)
    assert found.dtype == np.uint8 and (found == mask).all()


@pytest.mark.parametrize(
    ("save", "words"),
    [
        (lambda path: Image.new("RGB", (4, 4), "red").save(path), ("a picture in colours (RGB)",)),
        (lambda path: Image.fromarray(np.full((4, 4), 21, np.uint8)).save(path), ("the class 21", "0 to 20 and 255")),
        (lambda path: path.write_bytes(b"nothing"), ("the mask", "m.png")),
        (lambda path: Image.fromarray(np.zeros((4, 4), np.float32)).save(path, format="TIFF"), ("in colours (F)",)),
    ],
    ids=["colours", "a class beyond 20", "no picture", "fractions"],
)
def test_masks_that_are_none(tmp_path: Path, save, words) -> None:
    """Protects scores from foreign masks: one sentence names the file and what is wrong."""
    save(tmp_path / "m.png")
    with pytest.raises(UserError) as error:
        read_mask(tmp_path / "m.png", 20)
    assert all(word in str(error.value) for word in words), error.value


# --- the commands


def test_from_network_to_scores(home: Path, net: Path, tmp_path: Path, capsys) -> None:
    """Protects the three commands: maps of each picture's own classes, seeds at the best threshold of these pictures,
    the same score for the saved seeds; IRN's dictionaries beside; what was made is not made again."""
    maps, saved = tmp_path / "maps", tmp_path / "seeds"
    made = ("maps", "--root", home, "--arch", "mobilenet", "--checkpoint", net, "--maps", maps, "--npy")
    assert run(*made) == 0
    assert re.search(r"^4 pictures in .* a second.*; maps in ", capsys.readouterr().out, re.MULTILINE)
    for image_id in TRAIN:
        found = read_maps(maps, image_id)
        assert found.keys.tolist() == indices(image_id)
        assert found.high_res.shape == (len(found.keys), SIDE[1], SIDE[0]) and found.cam.shape[1:] == (10, 13)
        assert found.high_res.max() == pytest.approx(1, abs=1e-4) and (found.high_res >= 0).all()
        content = np.load(maps / f"{image_id}.npy", allow_pickle=True).item()
        assert torch.equal(content["keys"], torch.tensor(indices(image_id))) and content["keys"].dtype == torch.int64
        assert torch.equal(content["cam"], torch.from_numpy(found.cam))
        assert (content["high_res"] == found.high_res).all()
    before = {path: path.stat().st_mtime_ns for path in maps.glob("*.np[yz]")}
    (maps / f"{TRAIN[2]}.npz").unlink()
    assert run("seeds", "--root", home, "--maps", maps) == 1
    assert_one_sentence(capsys.readouterr().err, f"has no maps of {TRAIN[2]}, as of 1 of 4 pictures", "goes on where")
    assert run(*made) == 0
    assert "1 pictures in " in capsys.readouterr().out
    kept = [path for path in before if TRAIN[2] not in path.name]
    assert all(path.stat().st_mtime_ns == before[path] for path in kept) and len(kept) == 6

    assert run("seeds", "--root", home, "--maps", maps, "--save", saved) == 0
    output, results = capsys.readouterr().out, read_json(saved / "results.json")
    assert "seeds of BAS, threshold" in output and "the best on these very pictures" in output
    assert results["miou"] == pytest.approx(max(results["curve"]["miou"]))
    assert results["threshold"] == results["curve"]["thresholds"][int(np.argmax(results["curve"]["miou"]))]
    assert re.search(rf"^mean +{results['miou']:.2f}$", output, re.MULTILINE) and "aeroplane" in output
    assert (saved / "sheet.png").is_file() and (saved / "curve.svg").is_file()
    assert Image.open(saved / f"{TRAIN[0]}.png").mode == "P"
    assert run("evaluate", "--root", home, "--masks", saved, "--save", tmp_path / "again") == 0
    again = read_json(tmp_path / "again" / "results.json")
    assert (again["miou"], again["ious"]) == (results["miou"], results["ious"])


def test_threshold_of_another_list(home: Path, net: Path, tmp_path: Path, capsys) -> None:
    """Protects honest scores: the threshold is chosen on train and applied to val, or given; and says so."""
    maps = tmp_path / "maps"
    for name in ("train", "val"):
        made = ("--root", home, "--list", name, "--arch", "mobilenet", "--checkpoint", net, "--maps", maps)
        assert run("maps", *made, "--map", "fused") == 0
    asked = ("seeds", "--root", home, "--maps", maps)
    assert run(*asked, "--save", tmp_path / "t", "--vis", 0) == 0
    threshold = read_json(tmp_path / "t" / "results.json")["threshold"]
    assert run(*asked, "--list", "val", "--select-on", "train", "--save", tmp_path / "v") == 0
    results = read_json(tmp_path / "v" / "results.json")
    assert (results["threshold"], results["threshold_from"]) == (threshold, "the best on train")
    assert "seeds of BAS and CAM" in capsys.readouterr().out
    assert run(*asked, "--list", "val", "--threshold", threshold, "--save", tmp_path / "g") == 0
    given = read_json(tmp_path / "g" / "results.json")
    assert (given["miou"], given["threshold_from"]) == (results["miou"], "given")
    # The folder is of these maps: others do not mix with them.
    assert run("maps", "--root", home, "--arch", "mobilenet", "--checkpoint", net, "--maps", maps, "--map", "cam") == 2
    assert_one_sentence(capsys.readouterr().err, "holds maps of map 'fused', not 'cam'", "name another --maps folder")


def test_wrong_inputs_of_the_commands(home: Path, net: Path, tmp_path: Path, capsys) -> None:
    """Protects users of the commands: one sentence each, exit code 2 for usage and 1 for files."""

    def refused(code: int, *words: str, options: tuple = ()) -> None:
        assert run(*options) == code
        assert_one_sentence(capsys.readouterr().err, *words)

    maps, masks = tmp_path / "maps", tmp_path / "masks"
    at = ("--root", home)
    refused(2, "no list is called 'test'", options=("seeds", *at, "--list", "test", "--maps", maps))
    refused(1, "has no maps of 2007_000032, as of 4 of 4", options=("seeds", *at, "--maps", maps))
    refused(1, "has no 2007_000032.png or .npy, as for 4 of 4", options=("evaluate", *at, "--masks", masks))
    refused(1, "no PASCAL VOC in", options=("evaluate", "--root", tmp_path, "--masks", masks))
    cam = (
        "maps",
        *at,
        "--arch",
        "mobilenet",
        "--checkpoint",
        net,
        "--maps",
        maps,
        "--map",
        "cam",
        "--cam-weights",
        net,
    )
    refused(1, "--cam-weights", "is not a ResNet50 for 20 classes", options=cam)
    masks.mkdir()
    for image_id in TRAIN:
        save_mask(masks / f"{image_id}.png", np.zeros((3, 3), np.uint8))
    refused(1, "2007_000032.png", "50x40 pixels, not 3x3", options=("evaluate", *at, "--masks", masks))
    maps.mkdir(exist_ok=True)
    for image_id in TRAIN:
        (maps / f"{image_id}.npz").write_bytes(b"nothing")
    refused(1, "2007_000032.npz is no file of maps", options=("seeds", *at, "--maps", maps))
    for arguments in (("maps", "--cam-weights", net), ("seeds", "--select-on", "val", "--threshold", 0.3)):
        with pytest.raises(SystemExit, match="2"):
            segmentation(list(map(str, arguments)))
        assert "error: " in capsys.readouterr().err


def test_nothing_is_overwritten(data: Path, net: Path, tmp_path: Path, capsys) -> None:
    """Protects files that others made: seeds and scores go into new folders, true masks are never replaced."""
    folder = data / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    maps, saved = tmp_path / "maps", tmp_path / "seeds"
    made = ("maps", "--root", data, "--arch", "mobilenet", "--checkpoint", net, "--maps", maps, "--scales", 1)
    assert run(*made) == 0
    asked = ("seeds", "--root", data, "--maps", maps, "--vis", 2)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert run(*asked, "--save", folder) == 2
    assert_one_sentence(capsys.readouterr().err, "2007_000032.png is there already; name a new folder with --save")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert run(*asked, "--save", saved) == 0
    capsys.readouterr()
    assert run("evaluate", "--root", data, "--masks", saved, "--save", saved) == 2
    assert_one_sentence(capsys.readouterr().err, "results.json is there already")
    # A network that was trained anew makes maps anew, whatever its file is called.
    torch.manual_seed(1)
    anew = tmp_path / "anew" / net.name
    anew.parent.mkdir()
    torch.save(build(VOC.recipe("mobilenet")).state_dict(), anew)
    assert run(*made[:6], anew, *made[7:]) == 2
    assert_one_sentence(capsys.readouterr().err, "holds maps of checkpoint_sha256", "name another --maps folder")
    copied = shutil.copy(net, tmp_path / "anew" / "same.pth.tar")
    assert run(*made[:6], copied, *made[7:]) == 0


def test_masks_that_are_unsure_count_as_background(home: Path, tmp_path: Path, capsys) -> None:
    """Protects `evaluate` for masks with 255 in them, as IRN's labels have: background, and said."""
    for image_id in TRAIN:
        truth = read_mask(home / "VOCdevkit" / "VOC2012" / "SegmentationClass" / f"{image_id}.png", 20)
        save_mask(tmp_path / f"{image_id}.png", np.where(truth == 0, IGNORED, truth).astype(np.uint8))
    assert run("evaluate", "--root", home, "--masks", tmp_path, "--save", tmp_path / "r", "--vis", 0) == 0
    output, results = capsys.readouterr().out, read_json(tmp_path / "r" / "results.json")
    assert results["miou"] == pytest.approx(100) and results["unsure_pixels"] > 1000
    assert f"{results['unsure_pixels']} pixels of the masks are 255, unsure, and count as background" in output


def test_lists_without_masks(data: Path, net: Path, tmp_path: Path, capsys) -> None:
    """Protects who has no truth of a list: it cannot choose the threshold, but seeds are cut all the same."""
    for image_id in VAL:
        (data / "VOCdevkit" / "VOC2012" / "SegmentationClass" / f"{image_id}.png").unlink()
    maps = tmp_path / "maps"
    for name in ("train", "val"):
        made = ("--root", data, "--list", name, "--arch", "mobilenet", "--checkpoint", net, "--maps", maps)
        assert run("maps", *made, "--scales", 1) == 0
    capsys.readouterr()
    asked = ("seeds", "--root", data, "--maps", maps)
    for more in (("--select-on", "val"), ("--list", "val", "--select-on", "val"), ("--list", "val")):
        assert run(*asked, *more) == 2
        assert_one_sentence(capsys.readouterr().err, "no picture of val has a mask to choose the threshold by")
    assert run(*asked, "--list", "val", "--threshold", 0.3, "--save", tmp_path / "seeds") == 0
    assert sorted(path.stem for path in (tmp_path / "seeds").glob("2008*.png")) == list(VAL)
    assert run("evaluate", "--root", data, "--list", "val", "--masks", tmp_path / "seeds") == 1
    assert_one_sentence(capsys.readouterr().err, "no picture of val has a mask to compare with")


def test_several_processes_share_the_pictures(home: Path, net: Path, tmp_path: Path) -> None:
    """Protects torchrun: every picture's maps, once, as one process makes them; the first one tells of all."""
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    made = ["--root", home, "--arch", "mobilenet", "--checkpoint", net, "--scales", 1, "--device", "cpu"]
    assert run("maps", *made, "--maps", alone) == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
    command = [*launch, "utils.segmentation", "maps", *made, "--maps", shared]
    result = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("4 pictures in ") == result.stdout.count("labels from") == 1
    for image_id in TRAIN:
        for one, other in zip(read_maps(alone, image_id), read_maps(shared, image_id), strict=True):
            assert np.allclose(one, other, atol=1e-5)


def test_unreadable_picture_is_named_at_the_end(data: Path, net: Path, tmp_path: Path, capsys) -> None:
    """Protects hours of maps from one bad file: all others are made, and the exit code says that one is missing."""
    path = data / "VOCdevkit" / "VOC2012" / "JPEGImages" / f"{TRAIN[1]}.jpg"
    path.write_bytes(path.read_bytes()[:50])
    made = ("maps", "--root", data, "--arch", "mobilenet", "--checkpoint", net, "--maps", tmp_path / "maps")
    assert run(*made) == 1
    assert_one_sentence(capsys.readouterr().err, "1 pictures have no maps; the first", str(path))
    assert len(list((tmp_path / "maps").glob("*.npz"))) == 3


def test_authors_file_loads(tmp_path: Path, home: Path, capsys) -> None:
    """Protects the released segmentation network: a bare state dict whose keys all begin with `module.`."""
    state = build(VOC.recipe("resnet")).state_dict()
    keys = json.loads((Path(__file__).parent / "reference" / "golden_ijcv" / "VOC_resnet50_bas.json").read_text())
    assert list(state) == list(keys["param_norm_after_1"])
    path = tmp_path / "epoch_10.pth.tar"
    torch.save({f"module.{key}": value for key, value in state.items()}, path)
    made = ("maps", "--root", home, "--list", "val", "--checkpoint", path, "--maps", tmp_path / "maps")
    assert run(*made, "--scales", 1) == 0
    assert "resnet for 20 classes" in capsys.readouterr().out
    assert read_maps(tmp_path / "maps", VAL[0]).keys.tolist() == indices(VAL[0])


def test_palettes_that_were_numbered_anew(tmp_path: Path) -> None:
    """Protects masks from tools that keep the colours that are used alone: their numbers are other classes. A palette
    that says nothing about classes is passed over."""
    mask = np.zeros((6, 6), dtype=np.uint8)
    mask[2:4, 2:4], mask[5] = 15, IGNORED
    save_mask(tmp_path / "whole.png", mask)
    assert (read_mask(tmp_path / "whole.png", 20) == mask).all()
    Image.open(tmp_path / "whole.png").convert("RGB").quantize(colors=3).save(tmp_path / "few.png")
    with pytest.raises(
        UserError, match=r"few.png shows its number \d in the colour of class (15|255): .* save the class"
    ):
        read_mask(tmp_path / "few.png", 20)
    for name, colours in (("black", [0] * 768), ("grey", [level for level in range(256) for _ in range(3)])):
        image = Image.fromarray(mask, mode="P")
        image.putpalette(colours)
        image.save(tmp_path / f"{name}.png")
        assert (read_mask(tmp_path / f"{name}.png", 20) == mask).all()
    Image.open(tmp_path / "whole.png").convert("RGB").save(tmp_path / "colours.png")
    with pytest.raises(
        UserError, match=r"^the mask \S+colours.png is a picture in colours \(RGB\); save class indices"
    ):
        read_mask(tmp_path / "colours.png", 20)
