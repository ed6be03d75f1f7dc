"""Data sets of one's own, as a user trains and evaluates on them: `--dataset-dir` of both commands."""

from __future__ import annotations

import io
import re
import shlex
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commands import (
    OWN_TRAINING,
    RUN_FILES,
    SIZES,
    assert_one_sentence,
    printed_scores,
    read_json,
    rounded,
    run_files,
    run_inference,
    run_training,
    save_noise,
    write_random_net,
)
from tests.test_cub_data import write_lines
from utils.results.report.records import read_records

CLASSES = ("crow", "jay", "wren")
PICTURES = {"train": 6, "val": 5, "test": 7}
# Of the test pictures; the last two have none. The second reaches past the 64 x 64 picture, the third has two lines.
TEST_BOXES = [(0, 0, 63, 63), (-20, -10, 90, 70), (2, 2, 20, 20), (30, 30, 60, 62), (8, 8, 56, 56)]


def make_pictures(folder: Path, splits: tuple[str, ...]) -> dict[str, list[str]]:
    """`<split>/<class>/<number>.png` of noise: split -> `<class>/<number>.png`."""
    names = {}
    for split in splits:
        names[split] = [f"{CLASSES[number % 3]}/{split}_{number}.png" for number in range(PICTURES[split])]
        for number, name in enumerate(names[split]):
            save_noise(folder / split / name, 100 * splits.index(split) + number)
    return names


def make_image_folder(folder: Path) -> Path:
    """Class folders and boxes.csv."""
    names = make_pictures(folder, ("train", "test"))
    lines = [f"{name},{x0},{y0},{x1},{y1}" for name, (x0, y0, x1, y1) in zip(names["test"], TEST_BOXES, strict=False)]
    write_lines(folder / "boxes.csv", ["id,x0,y0,x1,y1", *lines, f"{names['test'][2]},25,25,60,60"])
    return folder


def make_metadata(folder: Path) -> Path:
    """wsolevaluation's lists for three splits, boxes in two of them, class names in the paths alone."""
    names = make_pictures(folder / "images", ("train", "val", "test"))
    for split, members in names.items():
        ids = [f"{split}/{name}" for name in members]
        (folder / "metadata" / split).mkdir(parents=True)
        write_lines(folder / "metadata" / split / "image_ids.txt", ids)
        labels = [f"{image_id},{number % 3}" for number, image_id in enumerate(ids)]
        write_lines(folder / "metadata" / split / "class_labels.txt", labels)
        if split != "train":
            boxes = [",".join(map(str, box)) for box in TEST_BOXES]
            lines = [f"{image_id},{box}" for image_id, box in zip(ids, boxes, strict=False)]
            write_lines(folder / "metadata" / split / "localization.txt", [*lines, f"{ids[2]},25,25,60,60"])
    return folder


def make_masks(folder: Path, mask: np.ndarray) -> Path:
    """The same with one mask for all pictures of val and test, and no boxes."""
    make_metadata(folder)
    for split in ("val", "test"):
        lists = folder / "metadata" / split
        ids = (lists / "image_ids.txt").read_text().split()
        for image_id in ids:
            path = folder / "masks" / image_id
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(path)
        write_lines(lists / "localization.txt", [f"{image_id},masks/{image_id}," for image_id in ids])
    return folder


MAKE = {"folders": make_image_folder, "metadata": make_metadata}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One epoch on a data set of either layout: layout -> (its folder, what training printed)."""
    home, runs = tmp_path_factory.mktemp("own"), {}
    for layout, make in MAKE.items():
        data = make(home / f"my {layout}")  # a space in the path
        with redirect_stdout(io.StringIO()) as output:
            assert run_training("--dataset-dir", data, *OWN_TRAINING, "--epochs", 1) == 0
        runs[layout] = data, output.getvalue()
    yield runs
    shutil.rmtree(home)


def evaluate(data: Path, *more: object) -> int:
    return run_inference("CUB", "--arch", "mobilenet", "--dataset-dir", data, "--num_workers", 0, *more)


@pytest.mark.parametrize("layout", MAKE)
def test_training_on_a_data_set_of_ones_own(runs, layout):
    """Protects train.py --dataset-dir: classes, names and the place of the run follow from the data set."""
    data, output = runs[layout]
    run = data / "logs" / "mobilenet"
    assert run_files(run) == RUN_FILES | {"mobilenet0.pth.tar", "states/epoch_0001.pth.tar"}
    settings = read_json(run / "settings.json")
    assert (settings["recipe"]["num_classes"], settings["class_names"]) == (3, list(CLASSES))
    data_settings = settings["data"]
    assert (data_settings["train"]["pictures"], data_settings["test"]["pictures"]) == (6, 7)
    assert f"{data} train: 6 pictures, 3 classes" in output and f"{data} test: 7 pictures" in output
    assert "boxes for 5 of 7 images" in output
    scores = read_json(run / "evaluation.json")["scores"]
    assert (scores["images"], scores["boxed"], scores["missed"]) == (7, 5, 0)
    assert printed_scores(output) == rounded(scores)


@pytest.mark.parametrize("layout", MAKE)
def test_evaluation_repeats_the_trainings(runs, tmp_path, layout):
    """Protects the way from training to evaluation: the printed command, as a shell runs it, gives the same figures."""
    data, output = runs[layout]
    command = re.fullmatch(r"cd CUB && python (BAS_inference.py .*)", output.splitlines()[-1].strip())[1]
    _, *arguments = shlex.split(command)
    assert run_inference("CUB", *arguments, "--num_workers", 0, "--json", tmp_path / "r.json") == 0
    record = read_json(tmp_path / "r.json")
    assert record["scores"] == read_json(data / "logs" / "mobilenet" / "evaluation.json")["scores"]
    assert (record["dataset"], record["published"]) == (str(data), None)


def test_run_is_found_and_its_classes_are_named(runs, tmp_path, capsys):
    """Protects --dataset-dir alone: the run in its logs, its names in the report and for pictures of one's own."""
    data, _ = runs["metadata"]
    assert evaluate(data, "--no-tencrop", "--save", tmp_path / "report") == 0
    output = capsys.readouterr().out
    assert f"checkpoint {data / 'logs' / 'mobilenet' / 'mobilenet0.pth.tar'}" in output
    assert f"{data} test: 7 pictures, 3 classes" in output
    page = (tmp_path / "report" / "report.html").read_text()
    assert f"mobilenet on {data}" in page
    rows = list(read_records(tmp_path / "report" / "images.csv"))
    assert [row.label for row in rows] == [0, 1, 2, 0, 1, 2, 0]
    assert '"classes":["crow","jay","wren"]' in (tmp_path / "report" / "data.js").read_text()
    picture = data / "images" / "test" / "jay" / "test_1.png"
    assert evaluate(data, "--images", picture) == 0
    assert re.search(rf"{re.escape(str(picture))}: (crow|jay|wren) ", capsys.readouterr().out)


def test_pictures_without_boxes_count_in_the_classification_alone(runs, tmp_path):
    """Protects partly boxed test sets: Loc is a share of the boxed pictures, Cls of all; rows have no IoU, no error."""
    data, _ = runs["folders"]
    assert evaluate(data, "--json", tmp_path / "r.json", "--save", tmp_path / "r") == 0
    record, rows = read_json(tmp_path / "r.json"), list(read_records(tmp_path / "r" / "images.csv"))
    by_name = {Path(row.id).name: row for row in rows}
    boxed = [by_name[f"test_{number}.png"] for number in range(5)]
    others = [by_name[f"test_{number}.png"] for number in (5, 6)]
    assert all((row.iou, row.error, row.true_boxes) == (None, "", ()) and row.box for row in others)
    assert boxed[1].true_boxes == ((-20, -10, 90, 70),) and len(boxed[2].true_boxes) == 2
    right = [row.iou > 0.5 for row in boxed]
    assert record["scores"]["gt_known_loc"]["image_mean"] == pytest.approx(100 * sum(right) / 5)
    correct = [row.top5[0] == row.label for row in rows]
    assert record["scores"]["top1_cls"]["image_mean"] == pytest.approx(100 * sum(correct) / 7)
    assert record["errors"]["images"] == record["max_box_acc"]["images"] == record["iou"]["images"] == 5


def test_threshold_is_chosen_on_val(runs, tmp_path, capsys):
    """Protects the metadata's val split: --select-on val takes its best threshold; train has no boxes."""
    data, _ = runs["metadata"]
    assert evaluate(data, "--select-on", "val", "--json", tmp_path / "r.json") == 0
    output, record = capsys.readouterr().out, read_json(tmp_path / "r.json")
    assert f"on the 5 pictures of val: BAS, k = 3 {record['threshold']:g}\n" in output
    assert record["threshold_from"] == "val split"
    # The same split, called test, swept.
    swapped = shutil.copytree(data / "metadata", tmp_path / "swapped" / "metadata").parent
    shutil.rmtree(swapped / "metadata" / "test")
    (swapped / "metadata" / "val").rename(swapped / "metadata" / "test")
    (swapped / "images").symlink_to(data / "images")
    checkpoint = data / "logs" / "mobilenet" / "mobilenet0.pth.tar"
    assert evaluate(swapped, "--checkpoint", checkpoint, "--sweep", "--json", tmp_path / "s.json") == 0
    assert read_json(tmp_path / "s.json")["sweep"][0]["best_threshold"] == record["threshold"]
    capsys.readouterr()
    assert evaluate(data, "--select-on", "train") == 1
    assert_one_sentence(capsys.readouterr().err, "the train split has neither boxes nor masks to choose a threshold by")


# --- what may be wrong with a data set; no training needed


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    folder = tmp_path_factory.mktemp("net")
    yield write_random_net(folder / "mobilenet0.pth.tar", 3)
    shutil.rmtree(folder)


def test_masks_without_boxes(net, tmp_path, capsys):
    """Protects data sets that have masks alone: PxAP comes first, then classes; no Loc, and what has no use is refused.
    Thresholds are chosen by masks, a sweep shows pixels, each picture has its own IoU."""
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[10:40, 20:50] = 255
    data = make_masks(tmp_path / "data", mask)
    assert evaluate(data, "--checkpoint", net, "--json", tmp_path / "r.json", "--save", tmp_path / "r", "--vis", 2) == 0
    output, record = capsys.readouterr().out, read_json(tmp_path / "r.json")
    assert record["pixels"]["images"] == 7 and 0 < record["pixels"]["px_ap"] < 100
    assert (record["errors"], record["iou"], record["max_box_acc"]) == (None, None, None)
    assert record["scores"]["gt_known_loc"] == {"class_mean": None, "image_mean": None}
    assert "GT-known Loc" not in output and "MaxBoxAcc" not in output
    lines = output.splitlines()
    (px_ap,) = [number for number, line in enumerate(lines) if line.startswith("PxAP")]
    assert lines[px_ap].split() == ["PxAP", f"{record['pixels']['px_ap']:.2f}", "over", "7", "masks"]
    assert lines[px_ap + 1].startswith("pixel IoU") and lines[px_ap + 4].startswith("Top-1 Cls")
    ious = [row.iou for row in read_records(tmp_path / "r" / "images.csv")]
    assert len(ious) == 7 and all(0 <= iou <= 1 for iou in ious)
    report = (tmp_path / "r" / "report.html").read_text()
    assert "IoU of pixels with the mask" in report and '"px_ap":"PxAP"' in (tmp_path / "r" / "data.js").read_text()

    assert evaluate(data, "--checkpoint", net, "--sweep", "--json", tmp_path / "s.json") == 0
    (curve,) = read_json(tmp_path / "s.json")["curves"]
    assert curve["series"].keys() == {"IoU", "precision", "recall"}
    assert max(curve["series"]["IoU"]) == pytest.approx(record["pixels"]["peak_iou"])
    capsys.readouterr()
    assert evaluate(data, "--checkpoint", net, "--sweep", "--top-ks", 1, 2) == 2
    assert_one_sentence(capsys.readouterr().err, "--top-ks compares boxes and the test split has none")

    assert evaluate(data, "--checkpoint", net, "--select-on", "val", "--json", tmp_path / "v.json") == 0
    chosen = read_json(tmp_path / "v.json")
    said = f"highest pixel IoU on the 5 pictures of val: {chosen['map']} {chosen['threshold']:g}\n"
    assert said in capsys.readouterr().out


def test_every_annotators_pixels_count_in_the_protocols_of_masks(net, tmp_path, capsys):
    """Protects PxAP of masks in grey: half of the annotators make an object, or, in the codes for masks, any one."""
    shares = np.zeros((64, 64), dtype=np.uint8)
    for number, level in enumerate(range(51, 256, 51)):
        shares[8 + 4 * number : 56 - 4 * number, 8 + 4 * number : 56 - 4 * number] = level
    data = make_masks(tmp_path / "data", shares)
    found = {}
    for protocol in ("authors", "wsolevaluation", "ijcv"):
        asked = ("--protocol", protocol, "--checkpoint", net, "--map", "center", "--json", tmp_path / "r.json")
        assert evaluate(data, *asked) == 0
        output, record = capsys.readouterr().out, read_json(tmp_path / "r.json")
        found[protocol] = record["pixels"]["px_ap"]
        assert ("128 to 255 object" in output) == (protocol == "authors")
        assert record["protocol"] == ("count_pxap" if protocol == "ijcv" else protocol)
        assert (record["resize_size"] == record["crop_size"]) == (protocol != "authors")
    assert found["authors"] not in (found["ijcv"], found["wsolevaluation"])
    # Levels whose meaning nobody could tell: all of them object there, and on the sheet of pictures, too.
    odd = make_masks(tmp_path / "odd", np.tile(np.array([0, 90, 180], np.uint8), (64, 22))[:, :64])
    asked = ("--protocol", "ijcv", "--checkpoint", net, "--vis", 2, "--save", tmp_path / "report")
    assert evaluate(odd, *asked) == 0
    assert (tmp_path / "report" / "mobilenet_test.png").is_file()


def test_data_sets_that_cannot_be_evaluated(net, tmp_path, capsys):
    """Protects users with a slip in their lists: one sentence names the file, the line or the folder, and the hint."""
    data = make_metadata(tmp_path / "data")
    truths, ids = (data / "metadata" / "test" / name for name in ("localization.txt", "image_ids.txt"))
    kept = truths.read_text()

    def refused(*words: str) -> None:
        assert evaluate(data, "--checkpoint", net) == 1
        assert_one_sentence(capsys.readouterr().err, *words)

    truths.write_text(kept.replace("30,30,60,62", "60,30,30,62"))
    refused(f"{truths}, line 4", "60,30,30,62", "x0 <= x1")
    truths.write_text(kept.replace("30,30,60,62", "30,30,nan,62"))
    refused(f"{truths}, line 4", "'nan' is not a finite number")
    truths.unlink()
    refused("the test split has neither boxes nor masks", "nothing to score")
    ids.write_text("\n")
    refused(f"{ids} is empty")
    assert evaluate(tmp_path / "nowhere", "--checkpoint", net) == 1
    assert_one_sentence(capsys.readouterr().err, f"no data set in {tmp_path / 'nowhere'}", "check --dataset-dir")
    empty = make_image_folder(tmp_path / "empty")
    for picture in empty.glob("test/*/*.png"):
        picture.unlink()
    assert evaluate(empty, "--checkpoint", net) == 1
    assert_one_sentence(capsys.readouterr().err, f"{empty / 'test' / 'crow'} holds no picture")


def test_wrong_options(net, tmp_path, capsys):
    """Protects from two data sets at once, and from a checkpoint of another number of classes."""
    data = make_image_folder(tmp_path / "data")
    assert evaluate(data, "--data", data) == 2
    assert "give --dataset-dir or --data, not both" in capsys.readouterr().err
    assert run_training("--dataset-dir", data, "--root", data) == 2
    assert "--dataset-dir names the data set; leave out --root and --download" in capsys.readouterr().err
    assert evaluate(data) == 1
    assert_one_sentence(capsys.readouterr().err, "there is no checkpoint", str(data / "logs"))
    other = write_random_net(tmp_path / "mobilenet0.pth.tar", 5)
    assert evaluate(data, "--checkpoint", other, *SIZES) == 1
    assert_one_sentence(capsys.readouterr().err, "mobilenet for 5 classes", "the data set has 3 classes")


def test_training_without_test_pictures(tmp_path, capsys):
    """Protects data sets of training pictures alone: the run is made and says that nothing evaluates it."""
    data = make_image_folder(tmp_path / "data")
    shutil.rmtree(data / "test")
    assert run_training("--dataset-dir", data, *OWN_TRAINING, "--epochs", 1) == 0
    assert "no evaluation after training: no folder" in capsys.readouterr().out
    assert (data / "logs" / "mobilenet" / "mobilenet0.pth.tar").is_file()
    assert not (data / "logs" / "mobilenet" / "evaluation.json").exists()
    shutil.rmtree(tmp_path / "data")


def test_thresholds_are_not_chosen_on_the_test_pictures(net, tmp_path, capsys):
    """Protects --select-on val where val/ is the test set, for want of a test/: refused instead of called honest."""
    folder = make_image_folder(tmp_path / "birds")
    (folder / "test").rename(folder / "val")
    arguments = ["--arch", "mobilenet", "--dataset-dir", folder, "--checkpoint", net, *SIZES]
    assert run_inference("CUB", *arguments, "--select-on", "val") == 2
    assert_one_sentence(capsys.readouterr().err, "--select-on val would choose on the test pictures", "choose train")
