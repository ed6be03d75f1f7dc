"""Protects class folders: labels by the training classes, boxes and masks by name; and which layout it is."""

from __future__ import annotations

import pytest

from tests.test_cub_data import boxes_of
from tests.test_images import save_picture
from tests.test_metadata import make_split
from utils.data import any_folder
from utils.data.image_folder import load_split
from utils.data.masks import MaskFiles
from utils.system.errors import UsageError, UserError

PICTURES = ("train/ant/1.jpg", "train/bee/2.png", "train/cow/3.webp", "test/cow/4.jpg", "test/ant/5.jpg")


def make_folder(folder, pictures=PICTURES):
    for name in pictures:
        save_picture(folder / name)
    return folder


def write_boxes(folder, *rows, heading="id,x0,y0,x1,y1", end="\n"):
    (folder / "boxes.csv").write_text(end.join((heading, *rows, "")), encoding="utf-8", newline="")


def test_labels_are_the_training_classes_ranks(tmp_path):
    """A class without test pictures keeps its label, so that the model's outputs fit."""
    make_folder(tmp_path)
    train, test = load_split(tmp_path, "train"), load_split(tmp_path, "test")
    assert train.class_names == test.class_names == ("ant", "bee", "cow")
    assert (train.ids, train.labels.tolist()) == (("ant/1.jpg", "bee/2.png", "cow/3.webp"), [0, 1, 2])
    assert (test.name, test.ids, test.labels.tolist()) == ("test", ("ant/5.jpg", "cow/4.jpg"), [0, 2])
    assert test.paths == tuple(tmp_path / "test" / name for name in test.ids)
    assert test.boxes == {} and test.masks == {} and "no boxes (there is no boxes.csv)" in test.layout


def test_test_falls_back_to_val(tmp_path):
    """Many data sets have train/ and val/ alone; without train/ the split's own folders are the classes."""
    make_folder(tmp_path, ("val/bee/1.jpg", "val/ant/2.jpg"))
    write_boxes(tmp_path, "val/ant/2.jpg,1,2,3,4", "test/bee/1.jpg,1,2,3,4")
    test, val = load_split(tmp_path, "test"), load_split(tmp_path, "val")
    assert (test.name, val.name) == ("test", "val") and test.paths == val.paths
    assert test.class_names == ("ant", "bee") and str(tmp_path / "val") in test.layout
    assert boxes_of(test) == boxes_of(val) == {"ant/2.jpg": [[1, 2, 3, 4]]}
    with pytest.raises(UserError, match="no folder .*train; see"):
        load_split(tmp_path, "train")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_boxes_by_name(tmp_path, end):
    """Ids with and without their split, several lines an image, quotes, a BOM and Windows' line ends all go."""
    make_folder(tmp_path)
    rows = (
        "test/ant/5.jpg,1,2,30.5,4",
        "ant/5.jpg,1,2,30.5,4",
        '"cow/4.jpg", "-5",0,900,4',
        "",
        "ant/5.jpg,5,6,7,8",
        "train/ant/1.jpg,0,0,1,1",
    )
    write_boxes(tmp_path, *rows, "test/ant/55.jpg,1,2,3,4", heading="\ufeffid,x0,y0,x1,y1", end=end)
    test, train = load_split(tmp_path, "test"), load_split(tmp_path, "train")
    assert boxes_of(test) == {"ant/5.jpg": [[1, 2, 30.5, 4], [5, 6, 7, 8]], "cow/4.jpg": [[-5, 0, 900, 4]]}
    assert boxes_of(train) == {"ant/1.jpg": [[0, 0, 1, 1]]}
    assert "boxes for 2 of 2 images (1 lines of boxes.csv name no picture, the first test/ant/55.jpg)" in test.layout


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("ant/5.jpg,4,2,3,4", r"boxes\.csv, line 2: .*x0 <= x1 and y0 <= y1; correct"),
        ("ant/5.jpg,1,2,3,inf", r"boxes\.csv, line 2: 'inf' is not a finite number; correct"),
        ("ant/5.jpg,1,2,3,", r"boxes\.csv, line 2: '' is not a number; correct"),
        ("ant/5.jpg,1,2,3", r"boxes\.csv, line 2: 4 fields where id, x0, y0, x1, y1 are expected; correct"),
        ("cow/1.jpg,1,2,3,4", r"boxes\.csv, line 2: cow/1\.jpg is a picture in test/ and in train/; write the split"),
        (f"{'x' * 200_000},1,2,3,4", r"boxes\.csv, line 2: field larger than"),
    ],
)
def test_malformed_boxes(tmp_path, row, words):
    """Every malformed line is named by file and number; a name that two splits share must say which it means."""
    make_folder(tmp_path, (*PICTURES, "train/cow/1.jpg", "test/cow/1.jpg"))
    write_boxes(tmp_path, row)
    with pytest.raises(UserError, match=words):
        load_split(tmp_path, "test")


@pytest.mark.parametrize("heading", ["ant/5.jpg,1,2,3,4", "id;x0;y0;x1;y1", "id,x,y,w,h", ""])
def test_wrong_heading(tmp_path, heading):
    """Widths are never taken for corners, nor a first box for a heading."""
    make_folder(tmp_path)
    write_boxes(tmp_path, "ant/5.jpg,1,2,3,4", heading=heading)
    with pytest.raises(UserError, match=r"boxes\.csv, line 1: the heading is not id,x0,y0,x1,y1 but"):
        load_split(tmp_path, "test")


def test_masks_by_name(tmp_path):
    """A mask lies below masks/, with or without the split, and that with the split goes first."""
    make_folder(tmp_path)
    for name in ("ant/5.png", "test/ant/5.png", "cow/4.png", "ant/6.png"):
        save_picture(tmp_path / "masks" / name)
    split = load_split(tmp_path, "test")
    assert split.masks == {
        "ant/5.jpg": MaskFiles((tmp_path / "masks/test/ant/5.png",)),
        "cow/4.jpg": MaskFiles((tmp_path / "masks/cow/4.png",)),
    }
    assert "masks for 2 of 2 images" in split.layout


def test_bad_folders(tmp_path):
    """An unknown class, an empty class, no folder at all and no such split each have their sentence."""
    make_folder(tmp_path)
    with pytest.raises(UserError, match="no folder .*val; see"):
        load_split(tmp_path, "val")
    with pytest.raises(UsageError, match="no split 'valid'; choose one of train, val, test"):
        load_split(tmp_path, "valid")
    save_picture(tmp_path / "test" / "owl" / "1.jpg")
    with pytest.raises(UserError, match="the folder .*owl is none of the 3 classes; remove it"):
        load_split(tmp_path, "test")
    (tmp_path / "train" / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no picture"):
        load_split(tmp_path, "train")


# --- whichever layout it is


def test_the_layout_is_recognised(tmp_path):
    """Metadata goes before class folders, also where its pictures lie in such; the split says which it was."""
    make_folder(tmp_path / "a")
    assert "class folders in" in any_folder.load_split(tmp_path / "a", "test").layout
    for lists in ("", "metadata"):
        folder = make_split(tmp_path / f"b{lists}", "test", ("ant/5.jpg",), (0,), pictures="test", lists=lists)
        assert "wsolevaluation's metadata" in any_folder.load_split(folder, "test").layout
    with pytest.raises(UsageError, match="no split 'valid'"):
        any_folder.load_split(tmp_path / "a", "valid")


@pytest.mark.parametrize("name", [".", "nowhere"])
def test_no_data_set_at_all(tmp_path, name):
    """An empty or missing folder says what was looked for."""
    with pytest.raises(
        UserError,
        match=r"no data set in .*image_ids\.txt of .* metadata/\{train,val,test\}.*class folders in .*; check",
    ):
        any_folder.load_split(tmp_path / name, "test")


def test_masks_of_namesakes_need_their_split(tmp_path):
    """A mask that could be another split's picture's is not taken; masks/<split>/ says whose it is."""
    make_folder(tmp_path, ("train/ant/1.jpg", "test/ant/1.png", "test/ant/2.png"))
    for name in ("ant/1.png", "ant/2.png"):
        save_picture(tmp_path / "masks" / name)
    assert list(load_split(tmp_path, "test").masks) == ["ant/2.png"] and load_split(tmp_path, "train").masks == {}
    save_picture(tmp_path / "masks/test/ant/1.png")
    assert list(load_split(tmp_path, "test").masks) == ["ant/2.png", "ant/1.png"]
    assert load_split(tmp_path, "train").masks == {}


@pytest.mark.parametrize("spelling", ["./test/{}", "test//{}", "./{}", "{folder}/test/{}"])
def test_other_spellings_of_an_id(tmp_path, spelling):
    """Protects boxes whose id is written as another tool writes paths: they belong to the picture it names, or are
    counted."""
    make_folder(tmp_path)
    write_boxes(tmp_path, *(f"{spelling.format(name, folder=tmp_path)},1,2,3,4" for name in ("cow/4.jpg", "cow/9.jpg")))
    test = load_split(tmp_path, "test")
    assert boxes_of(test) == {"cow/4.jpg": [[1, 2, 3, 4]]}
    assert "(1 lines of boxes.csv name no picture, the first " in test.layout


def test_what_lies_beside_the_class_folders(tmp_path):
    """Protects from pictures and archives that are passed over without a word."""
    make_folder(tmp_path)
    save_picture(tmp_path / "train" / "loose.jpg")
    (tmp_path / "train" / "n03.tar").write_bytes(b"")
    assert load_split(tmp_path, "train").layout.split(", no boxes")[0].endswith(", passed over 1 .jpg, 1 .tar")
    (tmp_path / "other" / "train").mkdir(parents=True)
    (tmp_path / "other" / "train" / "n03.tar").write_bytes(b"")
    with pytest.raises(UserError, match="holds no class folders, passed over 1 .tar; put"):
        load_split(tmp_path / "other", "train")


def test_masks_that_match_nothing(tmp_path):
    """Protects who named masks otherwise: their folder is there, so it is said that none is used, and how they are
    looked for."""
    make_folder(tmp_path)
    assert ", masks" not in load_split(tmp_path, "test").layout
    save_picture(tmp_path / "masks" / "5_mask.png")
    layout = load_split(tmp_path, "test").layout
    assert "masks for 0 of 2 images (looked for files such as masks/test/ant/5.png)" in layout


def test_masks_of_a_namesake_with_another_suffix(tmp_path):
    """Protects a mask without its split's name from the picture of another split, however its suffix is written."""
    make_folder(tmp_path, ("train/ant/0.JPG", "test/ant/0.jpg", "test/ant/1.jpg"))
    for number in (0, 1):
        save_picture(tmp_path / "masks" / "ant" / f"{number}.png")
    assert load_split(tmp_path, "test").masks.keys() == {"ant/1.jpg"}
