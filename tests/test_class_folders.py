"""Protects class folders: read as torchvision's ImageFolder reads them, without what systems put among the pictures."""

from __future__ import annotations

import os

import pytest
from torchvision.datasets import ImageFolder

import CUB.DataLoader
import ILSVRC.DataLoader
from tests.commands import OWN_TRAINING, make_ilsvrc, run_training, save_noise
from tests.test_cub_data import make_authors, write_lines
from tests.test_ilsvrc_data import WNIDS, make_authors_lists, make_csv, make_train, make_val
from tests.test_images import save_picture
from utils.data import any_folder
from utils.data.images import PICTURE_SUFFIXES
from utils.data.listing import find_pictures, list_class_pictures
from utils.system.errors import UserError

NAMES = (
    "cat/2.jpg",
    "cat/10.jpg",
    "cat/a/x.jpg",
    "cat/a-b/x.jpg",
    "cat/a/c/y.PNG",
    "cat/a.jpg",
    "dog/images/d_0.JPEG",
    "dog/images/d_1.JPEG",
    "Eel/x.webp",
)


def listed(folder, **more):
    return [f"{name}/{picture}" for name, members in list_class_pictures(folder, **more).items() for picture in members]


def test_sub_folders_are_read_as_torchvision_reads_them(tmp_path):
    """Protects nested data sets (half of a class a folder deeper, Tiny-ImageNet's images/): all pictures, in order."""
    for name in NAMES:
        save_picture(tmp_path / "train" / name)
    (tmp_path / "train/dog/dog_boxes.txt").write_text("no picture")
    (tmp_path / "store/deep").mkdir(parents=True)
    save_picture(tmp_path / "store/deep/z.jpg")
    (tmp_path / "train/cat/linked").symlink_to(tmp_path / "store")
    (tmp_path / "train/fox").symlink_to(tmp_path / "store")
    oracle = ImageFolder(str(tmp_path / "train"), is_valid_file=lambda name: name.lower().endswith(PICTURE_SUFFIXES))
    split = any_folder.load_split(tmp_path, "train")
    assert [str(path) for path in split.paths] == [path for path, _ in oracle.samples]
    assert split.labels.tolist() == oracle.targets and list(split.class_names) == oracle.classes
    assert [str(tmp_path / "train" / image_id) for image_id in split.ids] == [path for path, _ in oracle.samples]
    assert ", 7 pictures in sub-folders of their class" in split.layout


def test_links_in_a_circle(tmp_path):
    """Protects from an endless walk: a link back up is not followed, be it to the class, the split or beyond."""
    for name in ("cat/1.jpg", "cat/deep/2.jpg", "dog/3.jpg"):
        save_picture(tmp_path / "train" / name)
    for link, target in (("cat/deep/self", "cat"), ("cat/all", "."), ("dog/up", ".."), ("cat/deep/here", "cat/deep")):
        (tmp_path / "train" / link).symlink_to(tmp_path / "train" / target)
    (tmp_path / "train/cat/loop").symlink_to("loop")
    # Each class within the other: as torchvision follows them, once.
    (tmp_path / "train/cat/dogs").symlink_to(tmp_path / "train/dog")
    (tmp_path / "train/dog/cats").symlink_to(tmp_path / "train/cat")
    cat, dog = ["1.jpg", "deep/2.jpg", "dogs/3.jpg"], ["3.jpg", "cats/1.jpg", "cats/deep/2.jpg"]
    assert list_class_pictures(tmp_path / "train") == {"cat": cat, "dog": dog}


def test_what_systems_put_among_pictures(tmp_path):
    """Protects from a class of thumbnails: Synology's, macOS', Windows' and hidden folders, and folders named x.jpg."""
    names = ("train/cat/1.jpg", "train/dog/2.jpg")
    for name in names:
        save_picture(tmp_path / name)
    for place in ("train", "train/cat", "train/cat/deep"):
        for junk in ("@eaDir", "__MACOSX", ".git", "#recycle", "$RECYCLE.BIN", "lost+found", ".ipynb_checkpoints"):
            save_picture(tmp_path / place / junk / "1.jpg" / "SYNOPHOTO_THUMB_M.jpg")
            save_picture(tmp_path / place / junk / "thumb.jpg")
        for file in (".DS_Store", "._1.jpg", "Thumbs.db", ".hidden.jpg"):
            (tmp_path / place / file).write_bytes(b"\0\5\26\7")
    (tmp_path / "train/cat/album.jpg").mkdir()
    (tmp_path / "train/x.jpg").mkdir()
    os.mkfifo(tmp_path / "train/cat/pipe.jpg")
    with pytest.raises(UserError, match=r"train/x\.jpg holds no picture"):  # a folder, whatever its name
        any_folder.load_split(tmp_path, "train")
    (tmp_path / "train/x.jpg").rmdir()
    split = any_folder.load_split(tmp_path, "train")
    assert (split.ids, split.class_names) == (("cat/1.jpg", "dog/2.jpg"), ("cat", "dog"))
    (tmp_path / "train/cat/pipe.jpg").unlink()
    assert find_pictures([str(tmp_path / "train")]) == [tmp_path / name for name in names]


def test_training_on_nested_classes(tmp_path, capsys):
    """Protects train.py from leaving half of the pictures out: all are counted, and a folder of thumbnails is none."""
    for number in range(6):
        save_noise(
            tmp_path / "data/train" / f"c{number % 3}" / ("deep" if number > 2 else "") / f"{number}.png", number
        )
    save_noise(tmp_path / "data/train/@eaDir/0.png/thumb.png", 9)
    assert run_training("--dataset-dir", tmp_path / "data", *OWN_TRAINING, "--epochs", 1) == 0
    output = capsys.readouterr().out
    assert "train: 6 pictures, 3 classes" in output and "3 pictures in sub-folders of their class" in output


# --- class folders without a picture: refused where they are to be learnt, told where they are to be found


def test_empty_classes_in_training(tmp_path):
    """Protects from a class that nothing teaches, in every data set."""
    save_picture(tmp_path / "train/cat/1.jpg")
    (tmp_path / "train/dog/deep").mkdir(parents=True)
    for load in (any_folder.load_split, CUB.DataLoader.load_split, ILSVRC.DataLoader.load_split):
        with pytest.raises(UserError, match="train/dog holds no picture .*, as 1 of 2 class folders do; unpack"):
            load(tmp_path, "train")


def test_empty_classes_in_tests(tmp_path):
    """Protects parts of a test set: a class folder without pictures keeps its label and is told, in every data set."""
    for name in ("train/ant/1.jpg", "train/bee/1.jpg", "test/bee/2.jpg"):
        save_picture(tmp_path / "own" / name)
    (tmp_path / "own/test/ant").mkdir()
    told = "1 of 2 class folders without a picture, the first ant"
    split = any_folder.load_split(tmp_path / "own", "test")
    assert split.labels.tolist() == [1] and told in split.layout
    (tmp_path / "own/test/bee/2.jpg").unlink()
    with pytest.raises(UserError, match="test/ant holds no picture .* 2 of 2 class folders"):
        any_folder.load_split(tmp_path / "own", "test")

    authors = make_authors(tmp_path / "authors")
    (authors / "test/000.Empty").mkdir()
    assert len(CUB.DataLoader.load_split(authors, "test")) == 3

    for number, make_boxes in enumerate((make_csv, make_authors_lists)):
        root = tmp_path / f"ilsvrc{number}"
        make_val(root / "val", nested=True)
        make_train(root / "train")
        make_boxes(root)
        for picture in (root / "val" / WNIDS[1]).iterdir():
            picture.unlink()
        split = ILSVRC.DataLoader.load_split(root, "test")
        assert split.labels.tolist() == [2, 0, 0] and split.class_names == WNIDS
        assert f"1 of 3 class folders without a picture, the first {WNIDS[1]}" in split.layout


def test_nested_validation_pictures(tmp_path):
    """Protects ILSVRC's val/<wnid>/images/: boxes go by the pictures' names, the class by the first folder."""
    root = make_ilsvrc(tmp_path, [(0, True, (0, 0, 9, 9)), (1, False, (1, 2, 30, 40)), (0, False, (3, 4, 50, 60))], 2)
    for number, wnid in ((1, "n00000001"), (2, "n00000000")):
        (root / "val" / wnid / "images").mkdir(parents=True)
        name = f"picture_{number}.JPEG"
        (root / "val" / name).rename(root / "val" / wnid / "images" / name)
    (root / "val" / "@eaDir").mkdir()
    split = ILSVRC.DataLoader.load_split(root, "test")
    assert (split.ids, split.labels.tolist()) == (("picture_1.JPEG", "picture_2.JPEG"), [1, 0])
    assert all(path.is_file() for path in split.paths)


def test_boxes_and_masks_of_nested_pictures(tmp_path):
    """Protects the ids of pictures in sub-folders: boxes.csv and masks/ name them by their whole path."""
    save_picture(tmp_path / "test/cat/2020/x.jpg")
    save_picture(tmp_path / "masks/cat/2020/x.png")
    write_lines(tmp_path / "boxes.csv", ["id,x0,y0,x1,y1", "cat/2020/x.jpg,1,2,30,25"])
    split = any_folder.load_split(tmp_path, "test")
    assert list(split.boxes) == list(split.masks) == ["cat/2020/x.jpg"]
