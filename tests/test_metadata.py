"""Protects wsolevaluation's metadata format: boxes, masks and classes by image id, whatever lies where."""

from __future__ import annotations

import shutil

import pytest

from tests.test_cub_data import boxes_of, edit, write_lines
from tests.test_images import save_picture
from utils.data import any_folder
from utils.data.masks import MaskFiles
from utils.data.metadata import load_split
from utils.system.errors import UsageError, UserError

TEST_IDS = ("wren/a.jpg", "gull/b.jpg", "wren/c.jpg")


def make_split(folder, name, ids, labels, truths=None, pictures="", lists=""):
    """Pictures below folder/pictures, lists in folder/lists/name."""
    for image_id in ids:
        save_picture(folder / pictures / image_id)
    here = folder / lists / name
    here.mkdir(parents=True, exist_ok=True)
    write_lines(here / "image_ids.txt", ids)
    labelled = [f"{image_id},{label}" for image_id, label in zip(ids, labels, strict=True)]
    write_lines(here / "class_labels.txt", reversed(labelled))
    write_lines(here / "image_sizes.txt", [f"{image_id},40,30" for image_id in ids])
    if truths is not None:
        write_lines(here / "localization.txt", truths)
    return folder


def make_boxes(folder, **places):
    truths = ["gull/b.jpg,-3.5,2,50,31", "wren/a.jpg,1,2,3,4", "owl/x.jpg,1,2,3,4", "wren/a.jpg,5,6,5,6"]
    return make_split(folder, "test", TEST_IDS, (0, 1, 0), truths, **places)


EXPECTED_BOXES = {"gull/b.jpg": [[-3.5, 2, 50, 31]], "wren/a.jpg": [[1, 2, 3, 4], [5, 6, 5, 6]]}


@pytest.mark.parametrize("lists", ["", "metadata"])
@pytest.mark.parametrize("pictures", ["", "images", "test"])
def test_boxes_by_image(tmp_path, lists, pictures):
    """Boxes, several an image and beyond its edge, go to the image of that id; those without are counted."""
    split = load_split(make_boxes(tmp_path, lists=lists, pictures=pictures), "test")
    assert (split.name, split.ids, split.labels.tolist()) == ("test", TEST_IDS, [0, 1, 0])
    assert split.paths == tuple(tmp_path / pictures / image_id for image_id in TEST_IDS)
    assert boxes_of(split) == EXPECTED_BOXES and split.masks == {}
    assert split.class_names == ("wren", "gull") and split.labels.dtype == "int64"
    assert f"pictures in {tmp_path / pictures}," in split.layout and "boxes for 2 of 3 images" in split.layout


def test_pictures_elsewhere(tmp_path):
    """The lists and the pictures may live apart."""
    make_boxes(tmp_path / "lists", pictures="../elsewhere")
    with pytest.raises(UserError, match=r"the picture wren/a\.jpg.* is in none of .*lists/images.*; put the pictures"):
        load_split(tmp_path / "lists", "test")
    split = load_split(tmp_path / "lists", "test", tmp_path / "elsewhere")
    assert split.paths[0] == tmp_path / "elsewhere" / "wren" / "a.jpg"


def test_splits_share_their_classes(tmp_path):
    """The class count is that of all splits, so that a model trained on one fits the others."""
    make_boxes(tmp_path)
    make_split(tmp_path, "train", ("owl/t.jpg", "wren/t.jpg", "gull/t.jpg"), (2, 0, 1))
    make_split(tmp_path, "val", ("gull/v.jpg",), (1,), ["gull/v.jpg,0,0,9,9"])
    splits = {name: load_split(tmp_path, name) for name in ("train", "val", "test")}
    assert {split.class_names for split in splits.values()} == {("wren", "gull", "owl")}
    assert (splits["val"].name, boxes_of(splits["val"])) == ("val", {"gull/v.jpg": [[0, 0, 9, 9]]})
    assert splits["train"].boxes == {} and "no boxes and no masks" in splits["train"].layout


@pytest.mark.parametrize(
    ("ids", "labels", "names"),
    [
        (("train/n01/a.jpg", "train/n02/b.jpg", "train/n01/c.jpg"), (0, 1, 0), ("n01", "n02")),
        (("dog/x/a.jpg", "cat/x/b.jpg", "dog/y/c.jpg"), (1, 0, 1), ("cat", "dog")),
        (("test/a.jpg", "test/b.jpg"), (0, 1), ("0", "1")),
        (("a.jpg", "b.jpg"), (0, 2), ("0", "1", "2")),
        (("dog/a.jpg", "owl/b.jpg"), (0, 2), ("dog", "1", "owl")),
        (("dog/a.jpg", "cat/b.jpg", "cat/c.jpg"), (0, 1, 0), ("0", "1")),
    ],
)
def test_class_names_from_folders(tmp_path, ids, labels, names):
    """A folder names a class only where each class has its own; else the label's number is the name."""
    assert load_split(make_split(tmp_path, "test", ids, labels), "test").class_names == names


def test_class_names_from_a_list(tmp_path):
    """classes.txt names the classes, also those without pictures, but never too few."""
    make_boxes(tmp_path)
    write_lines(tmp_path / "classes.txt", ["1 Winter Wren", "2 Gull", "3 Owl"])
    assert load_split(tmp_path, "test").class_names == ("Winter Wren", "Gull", "Owl")
    write_lines(tmp_path / "classes.txt", ["Winter Wren"])
    with pytest.raises(UserError, match=r"classes\.txt names 1 classes, but labels go up to 1; add"):
        load_split(tmp_path, "test")


# --- masks


MASK_LINES = ("wren/a.jpg,m/a0.png,m/ai.png", "wren/a.jpg,m/a1.png,", "gull/b.jpg,m/b.png", "owl/x.jpg,m/x.png,")


@pytest.mark.parametrize("place", ["", "images", "test"])
def test_masks_by_image(tmp_path, place):
    """Several masks of an image unite, the ignore mask belongs to the image; there are no boxes then."""
    make_split(tmp_path, "test", TEST_IDS, (0, 1, 0), MASK_LINES)
    root = tmp_path / place
    save_picture(root / "m" / "a1.png")
    split = load_split(tmp_path, "test")
    assert split.masks == {
        "wren/a.jpg": MaskFiles((root / "m/a0.png", root / "m/a1.png"), root / "m/ai.png"),
        "gull/b.jpg": MaskFiles((root / "m/b.png",), None),
    }
    assert split.boxes == {} and "no boxes, masks for 2 of 3 images" in split.layout


def test_masks_that_are_not_there(tmp_path):
    """Classes can be scored without the masks' archive, and the missing masks are said."""
    split = load_split(make_split(tmp_path, "test", TEST_IDS, (0, 1, 0), MASK_LINES), "test")
    assert split.masks == {} and "no masks: m/a0.png and the others of localization.txt are in none of" in split.layout


def test_a_box_twice_is_one_object(tmp_path):
    """Protects the breakdown of errors: a line that comes twice makes no second instance."""
    truths = ["gull/b.jpg,1,2,3,4", "wren/a.jpg,1,2,3,4", "wren/a.jpg,5,6,5,6", "wren/a.jpg,1,2,3,4.0"]
    split = load_split(make_split(tmp_path, "test", TEST_IDS, (0, 1, 0), truths), "test")
    assert boxes_of(split) == {"gull/b.jpg": [[1, 2, 3, 4]], "wren/a.jpg": [[1, 2, 3, 4], [5, 6, 5, 6]]}


def test_lists_that_do_not_belong_together(tmp_path):
    """Protects from a list that was cut short, or is another data set's: what the other lists know more is said."""
    make_boxes(tmp_path)
    assert "class_labels.txt" not in load_split(tmp_path, "test").layout
    write_lines(tmp_path / "test" / "image_ids.txt", TEST_IDS[:2])
    assert "class_labels.txt has labels of 1 images that image_ids.txt" in load_split(tmp_path, "test").layout
    write_lines(tmp_path / "test" / "localization.txt", ["owl/x.jpg,1,2,3,4", "these are notes"])
    split = load_split(tmp_path, "test")
    assert split.boxes == {} and "localization.txt has 2 lines, none of them of an image of" in split.layout
    (tmp_path / "test" / "image_ids.txt").unlink()
    for load in (load_split, any_folder.load_split):
        with pytest.raises(UserError, match=r"test/image_ids\.txt"):
            load(tmp_path, "test")


def test_test_split_without_truths(tmp_path):
    """Classification alone can be scored."""
    split = load_split(make_split(tmp_path, "test", TEST_IDS, (0, 1, 0)), "test")
    assert (split.boxes, split.masks) == ({}, {}) and "there is no localization.txt" in split.layout


# --- what is wrong


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("localization.txt", ",1,2,3,4", ",4,2,3,4", r"localization\.txt, line 2: .*x0 <= x1 and y0 <= y1; correct"),
        ("localization.txt", ",1,2,3,4", ",1,5,3,4", r"localization\.txt, line 2: .*x0 <= x1 and y0 <= y1; correct"),
        ("localization.txt", ",1,2,3,4", ",1,2,nan,4", r"localization\.txt, line 2: 'nan' is not a finite number"),
        ("localization.txt", ",1,2,3,4", ",one,2,3,4", r"localization\.txt, line 2: 'one' is not a number; correct"),
        ("localization.txt", ",-3.5,2,50,31", ",one,2,3,4", r"localization\.txt, line 1: 'one' is not a number"),
        ("localization.txt", ",1,2,3,4", ",1,2,3", r"localization\.txt, line 2: 3 numbers where"),
        ("localization.txt", ",1,2,3,4", ",1,2,3,4,1,2,3,4", r"localization\.txt, line 2: .*no box x0,y0,x1,y1"),
        ("class_labels.txt", "wren/c.jpg,0", "wren/c.jpg,x", r"labels\.txt, line 1: 'x' is not a whole number"),
        ("class_labels.txt", "wren/c.jpg,0", "wren/c.jpg,-1", r"labels\.txt, line 1: the label is -1.*from 0; correct"),
        ("class_labels.txt", "wren/c.jpg,0", "wren/c.jpg", r"labels\.txt, line 1: 'wren/c\.jpg' is not id,label"),
        (
            "class_labels.txt",
            "wren/c.jpg",
            "wren/z.jpg",
            r"labels\.txt has no label for wren/c\.jpg, as for 1 of the 3",
        ),
        (
            "class_labels.txt",
            "wren/c.jpg,0",
            "gull/b.jpg,0",
            r"labels\.txt, line 2: the label of gull/b\.jpg is 1, but 0",
        ),
        ("image_ids.txt", "wren/c.jpg", "wren/a.jpg", r"image_ids.txt names wren/a\.jpg twice"),
    ],
)
def test_malformed_lists(tmp_path, name, old, new, words):
    """Every malformed line is named by file and number, with the hint."""
    make_boxes(tmp_path)
    edit(tmp_path / "test" / name, old, new)
    with pytest.raises(UserError, match=words):
        load_split(tmp_path, "test")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("wren/a.jpg,m/a2.png,m/other.png", r"line 5: wren/a\.jpg has a second ignore mask, m/other\.png, after m/ai"),
        ("wren/c.jpg,,", r"line 5: 'wren/c\.jpg,,' is not id,mask,ignore; correct"),
        ("wren/c.jpg,1,2,3,4", r"line 5: .* is not id,mask,ignore; correct"),
    ],
)
def test_malformed_mask_lists(tmp_path, line, words):
    """A list of masks is one throughout."""
    make_split(tmp_path, "test", TEST_IDS, (0, 1, 0), (*MASK_LINES, line))
    with pytest.raises(UserError, match=rf"localization\.txt, {words}"):
        load_split(tmp_path, "test")


def test_missing_files_and_splits(tmp_path):
    """A missing picture, list or split is named; a word that is no split is wrong usage."""
    make_boxes(tmp_path)
    with pytest.raises(UserError, match=r"no train split in .*train/image_ids\.txt and metadata/train/image_ids\.txt"):
        load_split(tmp_path, "train")
    with pytest.raises(UsageError, match="no split 'valid'; choose one of train, val, test"):
        load_split(tmp_path, "valid")
    (tmp_path / "wren" / "c.jpg").unlink()
    with pytest.raises(UserError, match=r"wren/c\.jpg is missing: 1 of the 3 pictures that .*image_ids\.txt"):
        load_split(tmp_path, "test")
    (tmp_path / "test" / "class_labels.txt").unlink()
    with pytest.raises(UserError, match=r"class_labels\.txt is missing; wsolevaluation's metadata format"):
        load_split(tmp_path, "test")
    shutil.rmtree(tmp_path / "test")
    with pytest.raises(UserError, match="no test split in"):
        load_split(tmp_path, "test")


def test_names_with_commas(tmp_path):
    """Protects the boxes and masks of pictures with a comma in their name, which CSV without quotes leaves open."""
    ids = ("wren/a,b.jpg", "gull/c.jpg")
    make_split(tmp_path / "boxes", "test", ids, (0, 1), ["wren/a,b.jpg,1,2,3,4", "gull/c.jpg,5,6,7,8"])
    assert boxes_of(load_split(tmp_path / "boxes", "test")) == {ids[0]: [[1, 2, 3, 4]], ids[1]: [[5, 6, 7, 8]]}
    save_picture(tmp_path / "masks" / "m.png")
    make_split(tmp_path / "masks", "test", ids, (0, 1), ["wren/a,b.jpg,m.png,", "gull/c.jpg,m.png,m.png"])
    masks = load_split(tmp_path / "masks", "test").masks
    path = tmp_path / "masks" / "m.png"
    assert masks == {ids[0]: MaskFiles((path,), None), ids[1]: MaskFiles((path,), path)}


def test_lines_of_no_image_are_counted(tmp_path):
    """Protects from boxes that are lost without a word, as of ids that are spelt otherwise."""
    layout = load_split(make_boxes(tmp_path), "test").layout
    assert (
        "boxes for 2 of 3 images (1 lines of localization.txt name none of image_ids.txt, the first owl/x.jpg)"
        in layout
    )
