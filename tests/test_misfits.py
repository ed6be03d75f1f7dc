"""Protects scores from boxes that are not their picture's: found in every layout, counted, and in numbers refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from ILSVRC.DataLoader import load_split
from tests.commands import (
    OWN_TRAINING,
    SIZES,
    make_cub,
    make_ilsvrc,
    read_json,
    run_inference,
    run_training,
    write_random_net,
)
from tests.processes import run_processes
from tests.splits import CPU
from tests.splits import make_split as make_noise
from tests.test_amc import TinyBAS
from tests.test_cub_data import write_lines
from tests.test_evaluation import ask
from utils.data.images import exif_orientation, read_image
from utils.data.split import Split
from utils.evaluation.misfits import AS_STORED, Misfit, MisfitError, find_misfit, require_fit, settle
from utils.evaluation.run import build_loader, evaluate
from utils.evaluation.selection import choose_thresholds
from utils.evaluation.summary import cautions
from utils.results.tables import caution_lines
from utils.system.processes import process_group

SIZE = (200, 100)


@pytest.mark.parametrize(
    ("boxes", "more", "kind"),
    [
        ([(0, 0, 200, 100)], {}, None),
        ([(-8, -4, 208, 104)], {}, None),  # a few pixels past the edge, as in CUB
        ([(20, 10, 60, 40), (1, 1, 3, 3)], {}, None),
        ([(20, 10, 60, 40)], {"listed": (200.0, 100.0)}, None),
        ([(0, 0, 230, 100)], {}, "outside"),
        ([(-40, 0, 50, 50)], {}, "outside"),
        ([(20, 10, 60, 40), (20, 300, 60, 340)], {}, "outside"),
        ([(0.1, 0.2, 0.9, 1.0)], {}, "shares"),
        ([(0, 0, 1, 1)], {}, "shares"),
        ([(5, 5, 5, 5)], {}, "empty"),
        ([(5, 5, 50, 5)], {}, "empty"),
        ([(20, 10, 60, 40)], {"listed": (400, 200)}, "size"),
        ([(20, 10, 60, 40)], {"listed": (100, 200)}, "size"),
        ([(20, 10, 60, 40)], {"listed": (100, 200), "turn": 6}, "upright"),
        ([(20, 10, 60, 180)], {"turn": 6}, "upright"),
        ([(20, 10, 60, 180)], {"turn": 3}, "outside"),
        ([(20, 10, 60, 40)], {"turn": 8}, "turned"),
        ([(20, 10, 60, 40)], {"turn": 3}, "turned"),
        ([(20, 10, 60, 40)], {"turn": 3, "listed": (200, 100)}, "turned"),
        ([(20, 10, 180, 40)], {"turn": 6}, AS_STORED),
        ([(20, 10, 60, 40)], {"turn": 6, "listed": (200, 100)}, AS_STORED),
    ],
)
def test_what_is_wrong_with_one_pictures_boxes(boxes, more, kind):
    """Protects the rule: each way in which boxes miss their picture has its name, and a slip past the edge none."""
    found = find_misfit("x.jpg", SIZE, **{"turn": 1, **more}, boxes=np.array(boxes, dtype=float))
    assert (found and found.kind) == kind
    assert kind in (None, AS_STORED) or found.text.startswith("x.jpg has ")


def test_one_turned_picture_tells_of_the_others():
    """Protects phones' pictures with boxes in the stored pixels: one box that fits no other way speaks for all."""
    turned, upright, stored = Misfit("turned", "a"), Misfit("upright", "b"), Misfit(AS_STORED, "")
    assert settle({1: turned, 0: turned}) == [turned, turned]
    assert settle({1: turned, 0: stored, 5: turned}) == []
    assert settle({1: turned, 0: stored, 5: upright}) == [turned, upright]


@pytest.mark.parametrize(("misfits", "count", "is_slip"), [(0, 0, 1), (1, 2, 1), (1, 1, 0), (2, 6, 0), (5, 100, 1)])
def test_slips_are_let_through(misfits, count, is_slip):
    """Protects large sets with a few slips, and a small one with a single slip, from being refused."""
    found = [Misfit("shares", f"{number}.jpg") for number in range(misfits)]
    if is_slip:
        return require_fit(found, count, count, "test")
    words = "of the test split cannot be theirs .*probably the boxes are shares.*; --ignore-misfits scores"
    with pytest.raises(MisfitError, match=rf"boxes of {misfits} of the {count} pictures .*{words}"):
        require_fit(found, count, count, "test")
    return None


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_orientation_is_told_with_the_picture(tmp_path, suffix):
    """Protects the check of turned pictures: the tag survives the reading; a damaged one counts as none."""
    for orientation in (1, 3, 6, 77):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        path = tmp_path / f"{orientation}.{suffix}"
        Image.new("RGB", (40, 30)).save(path, exif=exif)
        assert exif_orientation(read_image(path)) == (orientation if orientation < 9 else 1)
    Image.new("RGB", (40, 30)).save(tmp_path / f"x.{suffix}", exif=b"Exif\0\0no tags at all")
    assert exif_orientation(read_image(tmp_path / f"x.{suffix}")) == 1


# --- an evaluation


def make_split(folder: Path, misfits: int, count: int = 24) -> Split:
    """Noise pictures with good boxes, but for the last `misfits`, whose boxes lie outside."""
    ids = [f"{index}.png" for index in range(count)]
    boxes = {name: np.array([[4.0, 5, 30, 25]]) for name in ids}
    boxes |= {name: np.array([[400.0, 5, 430, 25]]) for name in ids[count - misfits :]}
    return make_noise(folder, count, name="test", boxes=boxes)


def score(split: Split, **more):
    torch.manual_seed(5)
    spec = ask(("center",), **more)
    return evaluate(TinyBAS(final_relu=False), build_loader(split, spec, 4, 0, CPU), split, spec, CPU)


def test_a_few_misfits_stand_beside_the_score(tmp_path):
    """Protects readers of a score: how many boxes are not their pictures', and which, in JSON and on the screen."""
    told = cautions(score(make_split(tmp_path, 1)), "abc")
    first = f"{tmp_path / '23.png'} has 86x53 pixels and a box 400,5,430,25"
    assert told["misfits"] == {
        "count": 1,
        "percent": pytest.approx(100 / 24),
        "kinds": {"outside": 1},
        "first": [first],
    }
    assert caution_lines(told)[0] == f"boxes that cannot be their picture's: 1 (4.2 %): {first}"
    good = cautions(score(make_split(tmp_path, 0)), "abc")
    assert good["misfits"]["count"] == 0 and not any("cannot be" in line for line in caution_lines(good))


def test_many_misfits_end_the_evaluation_early(tmp_path):
    """Protects from an hour's evaluation in vain: as soon as it is certain, and not for thresholds either."""
    split = make_split(tmp_path, 24)
    with pytest.raises(MisfitError, match="boxes of 4 of the 4 pictures that were read of the test split"):
        score(split)
    with pytest.raises(MisfitError, match=r"/0\.png has .*/1\.png has .*/2\.png has .*; and 1 more"):
        choose_thresholds(TinyBAS(final_relu=False), split, ask(("center",)), CPU, 4, 0)
    assert cautions(score(split, ignore_misfits=True), "abc")["misfits"]["count"] == 24


def test_thresholds_are_chosen_with_a_word(tmp_path, capsys):
    """Protects --select-on: a few misfits among the pictures that choose are told, many can be ignored by option."""
    split = make_split(tmp_path, 1)
    choose_thresholds(TinyBAS(final_relu=False), split, ask(("center",)), CPU, 4, 0)
    assert "boxes that cannot be their picture's: 1 (4.2 %)" in capsys.readouterr().out
    split = make_split(tmp_path, 12)
    choose_thresholds(TinyBAS(final_relu=False), split, ask(("center",), ignore_misfits=True), CPU, 4, 0)
    assert "boxes that cannot be their picture's: 12 (50.0 %)" in capsys.readouterr().out


def test_unreadable_pictures_are_not_compared(tmp_path):
    """Protects the count: a picture without a size fits nothing and misfits nothing."""
    split = make_split(tmp_path, 1, 2)
    split.paths[0].write_bytes(b"no picture")
    with pytest.raises(MisfitError, match="boxes of 1 of the 1 pictures"):
        score(split)
    split.paths[1].write_bytes(b"no picture")
    assert score(split).misfits == []


def in_one_process(number: int, count: int, folder: Path) -> None:
    with process_group(CPU, timeout=60):
        told = cautions(score(make_split(folder / str(number), 1)), "abc")["misfits"]
        with pytest.raises(MisfitError) as caught:
            score(make_split(folder / str(number), 3))
        assert told["count"] == 1 and caught.value.is_shared
        assert "boxes of 3 of the 24 pictures" in str(caught.value)


def test_processes_find_the_same(tmp_path):
    """Protects sharded evaluations: every process counts all misfits, ends with the same sentence, and none waits."""
    for number in range(2):
        (tmp_path / str(number)).mkdir()
    run_processes(in_one_process, 2, tmp_path)


# --- the commands, in every layout


PICTURES = [(0, True, (0, 0, 63, 63)), (1, True, (0, 0, 63, 63)), (2, True, (0, 0, 63, 63))] * 2
PICTURES += [(label, False, (6, 8, 58, 60 - 4 * label)) for label in (0, 1, 2, 0)]


def make_own(root: Path) -> Path:
    """Class folders of the same pictures."""
    make_cub(root / "cub", PICTURES, 3)
    lines = ["id,x0,y0,x1,y1"]
    for number, (label, is_train, box) in enumerate(PICTURES, start=1):
        path = root / ("train" if is_train else "test") / f"c{label}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / "cub" / "images" / f"{label + 1:03}.Class" / f"{number}.jpg", path)
        lines.append(f"{path.relative_to(root)},{','.join(map(str, box))}")
    shutil.rmtree(root / "cub")
    write_lines(root / "boxes.csv", lines)
    return root


def make_metadata(root: Path) -> Path:
    """wsolevaluation's lists of the same pictures, with their sizes."""
    make_own(root)
    (root / "boxes.csv").unlink()
    for split, wanted in (("train", True), ("test", False)):
        rows = [(n, label, box) for n, (label, is_train, box) in enumerate(PICTURES, start=1) if is_train is wanted]
        ids = [f"{split}/c{label}/{number}.png" for number, label, _ in rows]
        write_lines(root / split / "image_ids.txt", ids)
        write_lines(root / split / "class_labels.txt", [f"{i},{row[1]}" for i, row in zip(ids, rows, strict=True)])
        lines = [f"{i},{','.join(map(str, row[2]))}" for i, row in zip(ids, rows, strict=True)]
        write_lines(root / split / "localization.txt", lines)
        write_lines(root / split / "image_sizes.txt", [f"{image_id},64,64" for image_id in ids])
    return root


def make_xml(root: Path, size: str = "<size><width>64</width><height>64</height></size>") -> Path:
    """ILSVRC's XML in place of Kaggle's CSV."""
    make_ilsvrc(root, PICTURES, 3)
    (root / "LOC_val_solution.csv").unlink()
    (root / "Annotations" / "val").mkdir(parents=True)
    for number, (label, is_train, box) in enumerate(PICTURES):
        if not is_train:
            corners = "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>".format(*box)
            thing = f"<object><name>n{label:08}</name><bndbox>{corners}</bndbox></object>"
            text = f"<annotation>{size}{thing}</annotation>"
            (root / "Annotations" / "val" / f"picture_{number}.xml").write_text(text)
    return root


def make_gt(root: Path) -> Path:
    """The authors' val_gt.txt in place of Kaggle's CSV."""
    make_ilsvrc(root, PICTURES, 3)
    (root / "LOC_val_solution.csv").unlink()
    rows = [(n, label, box) for n, (label, is_train, box) in enumerate(PICTURES) if not is_train]
    lines = [rf"n{label:08}\\picture_{n}.JPEG 64 64 ; {' '.join(map(str, box))}" for n, label, box in rows]
    write_lines(root / "val_gt.txt", lines)
    return root


# layout: (maker, data set's command, its option, folder of the test pictures, whether a list tells their sizes)
LAYOUTS = {
    "class folders": (make_own, "CUB", "--dataset-dir", "test", False),
    "metadata": (make_metadata, "CUB", "--dataset-dir", "test", True),
    "CUB": (lambda root: make_cub(root, PICTURES, 3), "CUB", "--data", "images", False),
    "ILSVRC, CSV": (lambda root: make_ilsvrc(root, PICTURES, 3), "ILSVRC", "--data", "val", False),
    "ILSVRC, XML": (make_xml, "ILSVRC", "--data", "val", True),
    "ILSVRC, XML without sizes": (lambda root: make_xml(root, ""), "ILSVRC", "--data", "val", False),
    "ILSVRC, val_gt.txt": (make_gt, "ILSVRC", "--data", "val", True),
}


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    folder = tmp_path_factory.mktemp("net")
    yield write_random_net(folder / "mobilenet0.pth.tar", 3)
    shutil.rmtree(folder)


def change_pictures(folder: Path, change) -> None:
    for path in [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".txt"]:
        with Image.open(path) as image:
            picture, options = change(image.convert("RGB"))
        picture.save(path, format="PNG", **options)


def shrink(image):
    return image.resize((16, 16)), {}


def turn(image):
    """As a camera held upright stores it: turned, with the tag that turns it back. Its square side tells nothing."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return image.transpose(Image.Transpose.ROTATE_90), {"exif": exif}


@pytest.mark.parametrize(
    ("change", "reason"), [(shrink, "the pictures were shrunk"), (turn, "the files store the pictures turned")]
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_pictures_that_were_changed_since(net, tmp_path, capsys, layout, change, reason):
    """Protects every layout from pictures shrunk or turned under boxes that stayed; the option goes on and says so."""
    make, dataset, option, folder, has_sizes = LAYOUTS[layout]
    verb = "cannot" if change is shrink else "may not"
    data = make(tmp_path / "data")
    options = ["--arch", "mobilenet", option, data, "--checkpoint", net, "--map", "center", "--no-tencrop", *SIZES]
    assert run_inference(dataset, *options, "--json", tmp_path / "good.json") == 0
    assert read_json(tmp_path / "good.json")["cautions"]["misfits"]["count"] == 0
    capsys.readouterr()
    change_pictures(data / folder, change)
    assert run_inference(dataset, *options, "--json", tmp_path / "bad.json") == 1
    _, _, error = capsys.readouterr().err.rpartition("error: ")  # after the progress bar
    assert f"of the 4 pictures that were read of the test split {verb} be theirs" in error and error.count("\n") == 1
    assert "; --ignore-misfits scores them all the same" in error
    assert f"probably {reason}" in error
    assert ("a listed size of 64x64" in error) == (has_sizes and change is shrink)
    assert not (tmp_path / "bad.json").exists()
    assert run_inference(dataset, *options, "--ignore-misfits", "--json", tmp_path / "bad.json") == 0
    assert read_json(tmp_path / "bad.json")["cautions"]["misfits"]["count"] == 4
    assert f"boxes that {verb} be their picture's: 4 (100.0 %): " in capsys.readouterr().out


def test_training_ends_with_its_weights_and_goes_on(tmp_path, capsys):
    """Protects train.py: a test set of other sizes costs no weights, and --resume with the option ends the run."""
    data = make_own(tmp_path / "data")
    change_pictures(data / "test", shrink)
    options = ["--dataset-dir", data, *OWN_TRAINING, "--epochs", 1]
    assert run_training(*options) == 1
    assert "probably the pictures were shrunk" in capsys.readouterr().err
    run = data / "logs" / "mobilenet"
    assert (run / "mobilenet0.pth.tar").is_file() and not (run / "evaluation.json").exists()
    assert run_training(*options, "--resume", "--ignore-misfits") == 0
    output = capsys.readouterr().out
    assert "boxes that cannot be their picture's: 4 (100.0 %)" in output
    assert output.rstrip().endswith("--ignore-misfits")  # the command that repeats the evaluation
    assert read_json(run / "evaluation.json")["cautions"]["misfits"]["kinds"] == {"outside": 4}
    shutil.rmtree(tmp_path / "data")


def test_sizes_that_nobody_filled_in(tmp_path):
    """Protects XML whose size is 0 or missing, as some tools leave it: it tells nothing, and is no misfit."""
    for number, size in enumerate(("", "<size/>", "<size><width>0</width><height>0</height></size>")):
        assert load_split(make_xml(tmp_path / str(number), size), "test").sizes == {}


def test_option_belongs_to_labelled_sets(net, capsys):
    """Protects from an option that would be ignored."""
    assert run_inference("CUB", "--arch", "mobilenet", "--images", net, "--ignore-misfits") == 2
    assert "leave out --ignore-misfits" in capsys.readouterr().err


def test_evaluations_of_turned_pictures_with_proof(tmp_path):
    """Protects pictures turned by a tag whose boxes are in the stored pixels, as documented: scored as ever."""
    split = make_split(tmp_path, 0, 4)
    for path in split.paths:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        Image.new("RGB", (80, 40)).save(path, exif=exif)
    with pytest.raises(MisfitError, match="has the EXIF orientation 6"):
        score(split)
    boxes = {**split.boxes, split.ids[2]: np.array([[4.0, 5, 70, 25]])}
    assert score(replace(split, boxes=boxes)).misfits == []
