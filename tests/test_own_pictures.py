"""Boxes for pictures of one's own: `BAS_inference.py --images` and `load_localizer` from Python."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from CUB.BAS_inference import load_localizer
from tests.commands import (
    ROOT,
    assert_one_sentence,
    constant_state,
    read_json,
    run_inference,
    shell,
    write_random_net,
)
from utils.inference import pictures
from utils.results.report.records import read_records
from utils.system.errors import UsageError, UserError

EXIF_ORIENTATION, TURNED = 0x0112, 6  # 6: to be turned by 90 degrees clockwise


def draw_picture(seed: int, size: tuple[int, int] = (90, 60)) -> Image.Image:
    pixels = np.random.RandomState(seed).randint(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A checkpoint of five named classes, and a folder of pictures with a damaged one in its middle."""
    home = tmp_path_factory.mktemp("own")
    write_random_net(home / "mobilenet0.pth.tar", 5)
    (home / "holiday" / "day 2").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "c.png", "day 2/d.png", "day 2/e.bmp")):
        draw_picture(seed, (90 + 7 * seed, 60)).save(home / "holiday" / name)
    (home / "holiday" / "b.jpg").write_bytes(b"no picture")
    (home / "holiday" / "notes.txt").write_text("no picture by its name")
    yield home
    shutil.rmtree(home)


def localize(home: Path, *arguments: object) -> int:
    checkpoint = home / "mobilenet0.pth.tar"
    return run_inference("CUB", "--arch", "mobilenet", "--checkpoint", checkpoint, "--num_workers", 0, *arguments)


def names_of(record: dict) -> list[str]:
    return [Path(picture["path"]).name for picture in record["pictures"]]


# --- the command


def test_folder_file_and_glob(home, tmp_path, capsys):
    """Protects --images: what is named is localised in order, a line each; a damaged picture is a line, not the end."""
    assert localize(home, "--images", home / "holiday", "--batch_size", 2, "--json", tmp_path / "r.json") == 0
    out, err = capsys.readouterr()
    record = read_json(tmp_path / "r.json")
    assert names_of(record) == ["a.png", "b.jpg", "c.png", "d.png", "e.bmp"] and err == ""
    good = [picture for picture in record["pictures"] if "box" in picture]
    (broken,) = (picture for picture in record["pictures"] if "box" not in picture)
    assert Path(broken["path"]).name == "b.jpg" and broken["error"] in out.splitlines()
    for picture, width in zip(good, (90, 97, 104, 111), strict=True):
        assert picture["size"] == [width, 60] and len(picture["top5"]) == 5
        left, top, right, bottom = picture["box"]
        assert 0 <= left < right <= width and 0 <= top < bottom <= 60
        first = picture["top5"][0]
        assert sum(one["probability"] for one in picture["top5"]) == pytest.approx(1, abs=1e-5)
        assert first["probability"] == max(one["probability"] for one in picture["top5"])
        box = " ".join(f"{value:.0f}" for value in picture["box"])
        expected = (
            f"{picture['path']}: bird {first['class']} {100 * first['probability']:.1f} %, box {box} of {width}x60"
        )
        assert expected in out.splitlines() and first["name"] == f"bird {first['class']}"
    assert len({tuple(picture["box"]) for picture in good}) > 2

    patterns = [home / "holiday" / "c.png", home / "holiday" / "**" / "*.[pb][nm][gp]"]
    assert localize(home, "--images", *patterns, "--json", tmp_path / "s.json") == 0
    again = read_json(tmp_path / "s.json")
    assert names_of(again) == ["c.png", "a.png", "d.png", "e.bmp"]
    expected, found = ({picture["path"]: picture for picture in half} for half in (good, again["pictures"]))
    for path, picture in found.items():  # the batches differ, and with them the last digits
        assert picture["box"] == expected[path]["box"]
        assert [one["class"] for one in picture["top5"]] == [one["class"] for one in expected[path]["top5"]]


def test_exif_rotation_is_honoured(home, tmp_path):
    """Protects photographs of a turned camera: box, map and size are those of the picture as a viewer shows it."""
    upright = draw_picture(5, (60, 90))
    upright.save(tmp_path / "upright.png")
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = TURNED
    stored.save(tmp_path / "turned.png", exif=exif)
    stored.save(tmp_path / "untagged.png")
    names = ("upright", "turned", "untagged")
    paths = [tmp_path / f"{name}.png" for name in names]
    assert localize(home, "--images", *paths, "--json", tmp_path / "r.json", "--save", tmp_path / "r") == 0
    pictures = dict(zip(names, read_json(tmp_path / "r.json")["pictures"], strict=True))
    assert pictures["turned"]["size"] == [60, 90] and pictures["untagged"]["size"] == [90, 60]
    assert pictures["turned"]["box"] == pictures["upright"]["box"] != pictures["untagged"]["box"]
    thumbnails = sorted((tmp_path / "r" / "pictures").rglob("*.jpg"))
    assert thumbnails[0].read_bytes() == thumbnails[1].read_bytes()
    localizer = load_localizer("mobilenet", home / "mobilenet0.pth.tar")
    with Image.open(paths[1]) as turned:
        finding = localizer(turned)
    assert finding.size == (60, 90) and finding.full_map().shape == (90, 60)
    assert finding.box.tolist() == pictures["upright"]["box"]


def test_own_pictures_leave_a_report(home, tmp_path, capsys):
    """Protects --save with --images: rows without truth, the damaged picture among them, drawings, the same figures."""
    folder = home / "holiday"
    assert localize(home, "--images", folder, "--save", tmp_path / "boxes", "--json", tmp_path / "r.json") == 0
    assert f"look at {tmp_path / 'boxes' / 'report.html'}" in capsys.readouterr().out
    record = read_json(tmp_path / "r.json")
    assert read_json(tmp_path / "boxes" / "results.json") == record
    assert record["settings"] == {"map": "BAS, k = 2", "threshold": 0.6}
    rows = list(read_records(tmp_path / "boxes" / "images.csv"))
    assert [row.id for row in rows] == [picture["path"] for picture in record["pictures"]]
    for row, picture in zip(rows, record["pictures"], strict=True):
        assert (row.label, row.true_boxes, row.iou) == (None, (), None)
        if "error" in picture:
            assert (row.failure, row.box, row.size) == (picture["error"], None, (0, 0))
        else:
            assert list(row.box) == picture["box"] and list(row.size) == picture["size"]
            assert row.top5 == tuple(one["class"] for one in picture["top5"])
    assert len(list((tmp_path / "boxes" / "pictures").rglob("*.jpg"))) == 4
    assert "bird 3" in (tmp_path / "boxes" / "data.js").read_text()
    assert localize(home, "--images", folder, "--save", tmp_path / "boxes") == 2
    assert_one_sentence(capsys.readouterr().err, f"{tmp_path / 'boxes'} holds files already")


def test_interrupted_folder_keeps_its_rows(home, tmp_path, capsys, monkeypatch):
    """Protects a folder of any size from Ctrl-C: the rows so far stay in DIR.part, which is named; exit code 130."""
    line, calls = pictures._line, []

    def interrupt(*found: object) -> str:
        calls.append(found)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return line(*found)

    monkeypatch.setattr(pictures, "_line", interrupt)
    assert localize(home, "--images", home / "holiday", "--save", tmp_path / "r") == 130
    assert f"the rows of 3 pictures are kept in {tmp_path / 'r.part'}" in capsys.readouterr().err
    rows = list(read_records(tmp_path / "r.part" / "images.csv"))
    assert [Path(row.id).name for row in rows] == ["a.png", "b.jpg", "c.png"]
    assert (tmp_path / "r.part" / "report.html").is_file() and not (tmp_path / "r").exists()


def test_nothing_to_localise(home, tmp_path, capsys):
    """Protects exit codes: 1 where no picture could be read, with its files written; 2 where nothing matches."""
    broken = home / "holiday" / "b.jpg"
    assert localize(home, "--images", broken, "--json", tmp_path / "r.json", "--save", tmp_path / "r") == 1
    assert_one_sentence(capsys.readouterr().err, "none of the 1 pictures of --images could be read")
    assert names_of(read_json(tmp_path / "r.json")) == ["b.jpg"] and (tmp_path / "r" / "report.html").is_file()
    for pattern in (tmp_path / "*.png", tmp_path / "nowhere", tmp_path / "nowhere.jpg"):
        assert localize(home, "--images", pattern) == 2
        assert_one_sentence(capsys.readouterr().err, f"'{pattern}' is no file and matches no picture")


@pytest.mark.parametrize(
    "more",
    [["--sweep"], ["--compare", "bas", "cam"], ["--select-on", "train"], ["--vis", "3"], ["--data", "somewhere"]],
)
def test_options_of_test_sets_do_not_fit_own_pictures(home, capsys, more):
    """Protects users from options without effect: those that need labels or true boxes are refused."""
    assert localize(home, "--images", home / "holiday", *more) == 2
    assert f"--images has neither labels nor true boxes; leave out {more[0]}" in capsys.readouterr().err


def test_class_names_by_file_by_run_or_by_number(home, tmp_path, capsys):
    """Protects the printed names: --classes wins, then the run's own, else numbers; a wrong count is refused."""
    picture, names = home / "holiday" / "a.png", tmp_path / "names.txt"
    names.write_text("wren\nrobin\njay\ncrow\nswift\n")
    shown = {}
    bare = tmp_path / "bare.pth.tar"
    (tmp_path / "bare.pth.tar").symlink_to(home / "mobilenet0.pth.tar")
    own = {"own": ["--classes", names], "run": [], "numbers": ["--checkpoint", bare, "--no-final_relu"]}
    for title, more in own.items():
        assert localize(home, "--images", picture, "--json", tmp_path / "r.json", *more) == 0
        (found,) = read_json(tmp_path / "r.json")["pictures"]
        shown[title] = [one["name"] for one in sorted(found["top5"], key=lambda one: one["class"])]
        assert f": {found['top5'][0]['name']} " in capsys.readouterr().out
    assert shown["own"] == ["wren", "robin", "jay", "crow", "swift"]
    assert shown["run"] == [f"bird {index}" for index in range(5)]
    assert shown["numbers"] == [f"class {index}" for index in range(5)]
    names.write_text("wren\nrobin\n")
    assert localize(home, "--images", picture, "--classes", names) == 2
    assert_one_sentence(capsys.readouterr().err, f"--classes {names} has 2 names", "has 5 classes")


def test_shipped_class_names(tmp_path, capsys):
    """Protects released checkpoints: the birds are called by the names that are shipped."""
    torch.save(constant_state("CUB", "mobilenet", {1: 3.0}, 0.0), tmp_path / "released.pth.tar")
    draw_picture(1).save(tmp_path / "p.png")
    arguments = ["--checkpoint", tmp_path / "released.pth.tar", "--images", tmp_path / "p.png"]
    assert localize(tmp_path, *arguments, "--resize_size", 64, "--crop_size", 48) == 0
    # Flat: the box is the crop, 48 of 64 pixels, in a picture of 90 x 60. exp(3) / (exp(3) + 199) = 9.2 %.
    assert f"{tmp_path / 'p.png'}: Laysan Albatross 9.2 %, box 11 8 79 52 of 90x60" in capsys.readouterr().out


def test_outputs_that_are_not_finite(tmp_path, capsys):
    """Protects against a net that overflows: a line a picture and exit code 1, no NaN in the JSON file."""
    state = constant_state("CUB", "mobilenet", {}, 0.0)
    last = next(key for key in state if key.endswith("classifier_cls.4.bias"))
    state[last] = torch.full((200,), 3e38)
    first = next(key for key in state if key.endswith("classifier_cls.2.bias"))
    state[first] = torch.full(state[first].shape, 3e38)
    state[last.replace("bias", "weight")] = torch.ones(()).expand(state[last.replace("bias", "weight")].shape)
    torch.save(state, tmp_path / "wild.pth.tar")
    draw_picture(1).save(tmp_path / "p.png")
    arguments = ["--checkpoint", tmp_path / "wild.pth.tar", "--images", tmp_path / "p.png"]
    arguments += ["--resize_size", 64, "--crop_size", 48, "--json", tmp_path / "r.json"]
    assert localize(tmp_path, *arguments) == 1
    out, err = capsys.readouterr()
    assert_one_sentence(err, "none of the 1 pictures")
    assert f"{tmp_path / 'p.png'}: the model's output is not finite" in out
    assert "NaN" not in (tmp_path / "r.json").read_text()
    localizer = load_localizer("mobilenet", tmp_path / "wild.pth.tar", resize_size=64, crop_size=48)
    with pytest.raises(UserError, match="not finite"):
        localizer(draw_picture(1))


def test_files_of_other_kinds_are_counted(home, tmp_path, capsys):
    """Protects albums: pictures in formats that are not read are counted in a line, a FIFO holds nothing up."""
    draw_picture(1).save(tmp_path / "a.jfif", format="JPEG")
    os.mkfifo(tmp_path / "b.png")
    for name in ("c.heic", "d.HEIC", "e.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert localize(home, "--images", tmp_path, "--json", tmp_path / "r.json") == 0
    out, err = capsys.readouterr()
    assert "2 pictures of --images, passed over 2 .heic, 1 .txt\n" in out and err == ""
    assert names_of(read_json(tmp_path / "r.json")) == ["a.jfif", "b.png"]
    assert f"cannot read the picture {tmp_path / 'b.png'}: it is a FIFO, a socket or a device" in out


def test_names_that_are_no_unicode(home, tmp_path):
    """Protects finished work from a name of other bytes, in a shell of any locale: line, JSON file and report."""
    name = os.fsdecode(b"\xc8\xeb.png")
    (tmp_path / "album").mkdir()
    draw_picture(1).save(tmp_path / "album" / name)
    options = ["--arch", "mobilenet", "--checkpoint", home / "mobilenet0.pth.tar", "--images", tmp_path / "album"]
    outputs = ["--json", tmp_path / "r.json", "--save", tmp_path / "r"]
    result = shell(ROOT / "CUB", "BAS_inference.py", *options, *outputs)
    assert (result.returncode, result.stderr) == (0, "")
    assert "album/\\udcc8\\udceb.png: bird" in result.stdout
    assert read_json(tmp_path / "r.json")["pictures"] == read_json(tmp_path / "r" / "results.json")["pictures"]
    (row,) = read_records(tmp_path / "r" / "images.csv")
    assert row.id.endswith("\\udcc8\\udceb.png") and (tmp_path / "r" / "report.html").is_file()


# --- Python


def test_three_lines_of_python(home, tmp_path, capsys):
    """Protects load_localizer: the box, names and probabilities of the command for the same picture; map in range."""
    path = home / "holiday" / "day 2" / "d.png"
    assert localize(home, "--images", path, "--json", tmp_path / "r.json", "--threshold", 0.4, "--top_k", 3) == 0
    (expected,) = read_json(tmp_path / "r.json")["pictures"]

    localizer = load_localizer("mobilenet", home / "mobilenet0.pth.tar", threshold=0.4, top_k=3)
    finding = localizer(Image.open(path))

    assert json.loads(json.dumps(finding.record())) == {name: expected[name] for name in ("size", "box", "top5")}
    assert (finding.name, finding.probability) == (expected["top5"][0]["name"], expected["top5"][0]["probability"])
    full = finding.full_map()
    assert full.shape == (60, 104) and full.dtype == np.float32
    assert full.min() == 0 and 0.9 < full.max() <= 1
    # The crop is 48 of 64 pixels: an eighth of the picture at each side was not looked at.
    assert (full[:7] == 0).all() and (full[-7:] == 0).all() and (full[:, :13] == 0).all() and (full[:, -13:] == 0).all()
    assert finding.region.tolist() == [13, 7.5, 91, 52.5]
    # The box lies around what exceeds the threshold (to a pixel: the map was resized on the way).
    rows, columns = np.nonzero(full > 0.4)
    left, top, right, bottom = finding.box
    assert left >= columns.min() - 2 and right <= columns.max() + 3
    assert top >= rows.min() - 2 and bottom <= rows.max() + 3
    other = load_localizer("mobilenet", str(home / "mobilenet0.pth.tar"), map="center")(Image.open(path))
    assert other.box.tolist() != finding.box.tolist()
    whole = load_localizer("mobilenet", home / "mobilenet0.pth.tar", protocol="wsolevaluation")(Image.open(path))
    assert whole.region.tolist() == [0, 0, 104, 60] and whole.full_map().max() > 0.9
    assert other.box[0] + other.box[2] == pytest.approx(104) and other.box[1] + other.box[3] == pytest.approx(60)


def test_pictures_of_any_mode(home):
    """Protects the conversion: alpha lets white through, grey stays grey, 16 bits are scaled; floats are refused."""
    localizer = load_localizer("mobilenet", home / "mobilenet0.pth.tar")
    picture = draw_picture(3)
    transparent = picture.copy()
    transparent.putalpha(Image.fromarray(np.tile(np.arange(90, dtype=np.uint8), (60, 1))))
    on_white = Image.new("RGB", picture.size, "white")
    on_white.paste(transparent, mask=transparent)
    grey = picture.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 256 + 77)
    assert (transparent.mode, deep.mode) == ("RGBA", "I;16")
    plain, of_grey = localizer(picture), localizer(grey.convert("RGB"))
    assert plain.box.tolist() != of_grey.box.tolist()
    for given, expected in ((transparent, localizer(on_white)), (grey, of_grey), (deep, of_grey)):
        finding = localizer(given)
        assert finding.record() == expected.record()
        assert (finding.score_map == expected.score_map).all()
    with pytest.raises(UserError, match="floating-point"):
        localizer(Image.fromarray(np.zeros((9, 9), dtype=np.float32)))


def test_whatever_python_users_have(home):
    """Protects notebooks: a path, an array of colours or of grey and a PIL picture give the same finding; a tensor or
    floats are told what is wanted."""
    localizer = load_localizer("mobilenet", home / "mobilenet0.pth.tar")
    path = home / "holiday" / "a.png"
    picture = Image.open(path)
    expected, of_grey = localizer(picture).record(), localizer(picture.convert("L")).record()
    array = np.asarray(picture)
    for given in (
        path,
        str(path),
        array,
        array[:, ::-1][:, ::-1],
        np.dstack([array, np.full(array.shape[:2], 255, "u1")]),
    ):
        assert localizer(given).record() == expected
    assert localizer(np.asarray(picture.convert("L"))).record() == of_grey != expected
    strange = {
        "torch.Tensor of torch.float32 with shape (3, 64, 64)": torch.zeros(3, 64, 64),
        "numpy.ndarray of float64 with shape (9, 9, 3)": np.zeros((9, 9, 3)),
        "numpy.ndarray of uint8 with shape (3, 9, 9)": np.zeros((3, 9, 9), np.uint8),
        "numpy.ndarray of uint8 with shape (0, 9, 3)": np.zeros((0, 9, 3), np.uint8),
        "not list": [path],
        "not bytes": b"x.jpg",
        "not NoneType": None,
    }
    for words, given in strange.items():
        with pytest.raises(TypeError) as caught:
            localizer(given)
        assert words in str(caught.value) and "a NumPy array of uint8" in str(caught.value)
    with pytest.raises(UserError, match=r"cannot read the picture nowhere\.jpg: there is no such file"):
        localizer("nowhere.jpg")
    with pytest.raises(UserError, match=r"cannot read the picture .*b\.jpg: the file is empty or no known kind"):
        localizer(home / "holiday" / "b.jpg")


def test_wrong_options_of_load_localizer(home, tmp_path):
    """Protects Python users: what the command refuses is refused here, as an exception that says what would do."""
    checkpoint = home / "mobilenet0.pth.tar"
    cases = {
        "no option 'treshold'; choose among": {"treshold": 0.2},
        "no option 'sweep'": {"sweep": True},  # of a test set
        "argument --threshold: 3 must be at least 0 and at most 1": {"threshold": 3},
        "argument --map: invalid choice: 'heat'": {"map": "heat"},
        "argument --protocol: invalid choice: 'mine'": {"protocol": "mine"},
        "argument --top_k: 0 must be at least 1": {"top_k": 0},
        "argument --top_k: 2.0 must be a whole number": {"top_k": 2.0},
        "argument --threshold: '0.3' must be a number": {"threshold": "0.3"},
        "argument --recipe: invalid choice: 'bas'": {"recipe": "bas"},
        "no option 'name'; recipe='ijcv'": {"name": "ijcv"},
        "--amp computes in half precision on CUDA": {"amp": True, "device": "cpu"},
    }
    for words, given in cases.items():
        with pytest.raises(UsageError) as caught:
            load_localizer("mobilenet", checkpoint, **given)
        assert words in str(caught.value)
    with pytest.raises(UsageError, match="no backbone is called 'alexnet'; choose one of vgg"):
        load_localizer("alexnet", checkpoint)
    with pytest.raises(UserError, match="holds mobilenet for 5 classes.*, not vgg; give --arch mobilenet"):
        load_localizer("vgg", checkpoint)
    with pytest.raises(UserError, match="nowhere.pth.tar"):
        load_localizer("mobilenet", tmp_path / "nowhere.pth.tar")
    numbers = load_localizer("mobilenet", checkpoint, threshold=np.float64(0.3), top_k=np.int64(3))
    assert [(kind.top_k, value) for kind, value in numbers.spec.thresholds.items()] == [(3, 0.3)]
    defaults = load_localizer("mobilenet", checkpoint, threshold=None, amp=False, tencrop=False)
    assert (defaults.spec.ten_crops, defaults.spec.thresholds) == (False, {defaults.spec.main: 0.6})


def test_findings_and_what_is_kept(home):
    """Protects notebooks: findings compare by identity, keep no batch alive, a device may be PyTorch's own object, and
    a localizer's weights are in memory once."""
    localize = load_localizer("mobilenet", home / "mobilenet0.pth.tar", device=torch.device("cpu"))
    paths = sorted((home / "holiday").glob("[ac].png"))
    findings = [localize(np.random.RandomState(seed).randint(0, 256, (40, 50, 3), np.uint8)) for seed in range(2)]
    findings += [found for _, found in localize.localize_files(paths)]
    assert findings[0] == findings[0] != findings[1] and len(set(findings)) == len(findings) == 4
    for finding in findings:
        assert finding.seen.untyped_storage().nbytes() == finding.seen.numel()
