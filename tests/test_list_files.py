"""Protects every list that describes a data set: whatever its file holds or is, one sentence names it, at once."""

from __future__ import annotations

import os

import pytest

import CUB.DataLoader
import ILSVRC.DataLoader
from tests import test_cub_data, test_ilsvrc_data, test_image_folder, test_metadata
from tests.test_cub_data import write_lines
from utils.data import any_folder
from utils.data.class_names import read_class_names
from utils.system.errors import UserError


def make_ilsvrc(root, make_boxes):
    test_ilsvrc_data.make_val(root / "val", nested=True)
    test_ilsvrc_data.make_mapping(root)
    make_boxes(root)


def make_xml(root):
    make_ilsvrc(root, lambda root: test_ilsvrc_data.make_xml(root / "Annotations" / "val"))


def make_folder(root):
    test_image_folder.make_folder(root)
    test_image_folder.write_boxes(root, "ant/5.jpg,1,2,30,4")


def make_metadata(root):
    test_metadata.make_boxes(root)
    write_lines(root / "classes.txt", ["1 wren", "2 gull"])


def make_names(root):
    root.mkdir(exist_ok=True)
    write_lines(root / "names.txt", ["0 wren", "1 gull"])


def load_names(root, _):
    read_class_names(root / "names.txt")


XML = "Annotations/val/ILSVRC2012_val_00000002.xml"
# layout: (maker, reader, its lists, each with one of its numbers: what stands before it and the number itself)
LAYOUTS = {
    "CUB, owners'": (
        test_cub_data.make_owners,
        CUB.DataLoader.load_split,
        {
            "images.txt": None,
            "image_class_labels.txt": ("3 ", "1"),
            "train_test_split.txt": ("4 ", "0"),
            "classes.txt": ("", "2"),
            "bounding_boxes.txt": ("3 ", "2.0"),
        },
    ),
    "CUB, authors'": (
        test_cub_data.make_authors,
        CUB.DataLoader.load_split,
        {"test_list.txt": ("a.jpg;", "0"), "test_gt.txt": ("10.5 ", "1.0")},
    ),
    "ILSVRC, XML": (
        make_xml,
        ILSVRC.DataLoader.load_split,
        {"LOC_synset_mapping.txt": None, XML: ("<xmin>", "0")},
    ),
    "ILSVRC, XML's size": (make_xml, ILSVRC.DataLoader.load_split, {XML: ("<width>", "30")}),
    "ILSVRC, CSV": (
        lambda root: make_ilsvrc(root, test_ilsvrc_data.make_csv),
        ILSVRC.DataLoader.load_split,
        {"LOC_val_solution.csv": ("n01000000 ", "0")},
    ),
    "ILSVRC, authors'": (
        lambda root: make_ilsvrc(root, test_ilsvrc_data.make_authors_lists),
        ILSVRC.DataLoader.load_split,
        {"val_gt.txt": ("; ", "0"), "val_list.txt": ("JPEG;", "1")},
    ),
    "class folders": (make_folder, any_folder.load_split, {"boxes.csv": ("5.jpg,", "1")}),
    "metadata": (
        make_metadata,
        any_folder.load_split,
        {
            "test/image_ids.txt": None,
            "test/class_labels.txt": ("c.jpg,", "0"),
            "test/localization.txt": ("a.jpg,1,", "2"),
            "test/image_sizes.txt": ("a.jpg,", "40"),
            "classes.txt": ("", "2"),
        },
    ),
    "names of classes": (make_names, load_names, {"names.txt": ("", "1")}),
}
LISTS = [(layout, name) for layout, (_, _, lists) in LAYOUTS.items() for name in lists]
NUMBERS = [(layout, name) for layout, name in LISTS if LAYOUTS[layout][2][name] is not None]


def no_file(path, make):
    path.unlink()
    make(path)


# What a list may turn out to be.
DAMAGES = {
    "FIFO": lambda path: no_file(path, os.mkfifo),
    "folder": lambda path: no_file(path, os.mkdir),
    "device": lambda path: no_file(path, lambda path: path.symlink_to("/dev/zero")),
    "Latin-1": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\xe4\n"),
    "UTF-16": lambda path: path.write_bytes(path.read_text().encode("utf-16")),
    "NUL": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\0\n"),
    "empty": lambda path: path.write_bytes(b""),
    "huge line": lambda path: path.write_bytes(path.read_bytes() + b"n/" * 200_000),
    "backslashes": lambda path: path.write_bytes(b"n" + b"\\" * 9_000 + b"\n" + path.read_bytes()),
    "nested": lambda path: path.write_bytes(b"<a>" * 100_000),
}


# XML says its encoding itself; any text is a name, or that of an image of another split.
FINE = {("UTF-16", XML)}
FINE |= {
    ("backslashes", name) for name in ("LOC_synset_mapping.txt", "names.txt", "classes.txt", "test/localization.txt")
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("layout", "name"), LISTS)
def test_no_content_is_a_traceback_or_a_hang(tmp_path, layout, name, damage):
    """Protects from FIFOs that never end, other encodings, binary files, lines of any length: the file is named."""
    make, load, _ = LAYOUTS[layout]
    make(tmp_path)
    load(tmp_path, "test")
    DAMAGES[damage](tmp_path / name)
    try:
        load(tmp_path, "test")
    except UserError as error:
        assert name in str(error) and len(str(error)) < 1000 and "\n" not in str(error)
    else:
        assert (damage, name) in FINE


@pytest.mark.parametrize("number", ["9" * 400, "9" * 5000, "1e999", "1_0", "٣", "²", "0x1", "-", "100000000"])
@pytest.mark.parametrize(("layout", "name"), NUMBERS)
def test_no_number_is_a_traceback_or_eats_the_memory(tmp_path, layout, name, number):
    """Protects from numbers that Python reads and nobody meant, or cannot hold: the file is named, and the line."""
    make, load, lists = LAYOUTS[layout]
    make(tmp_path)
    path, (before, right) = tmp_path / name, lists[name]
    lines = path.read_text().splitlines()
    line = next(line for line in lines if before + right in line and (before or line.startswith(right)))
    changed = line.replace(before + right, before + number, 1)
    path.write_text("\n".join(changed if each == line else each for each in lines) + "\n")
    try:
        load(tmp_path, "test")
    except UserError as error:
        assert f"{name}{'' if name == XML else ', line '}" in str(error) and len(str(error)) < 1000
    else:
        # A name may begin like a number; a size of another picture is the evaluation's to find.
        assert name in ("names.txt", "classes.txt") or (number == "100000000" and "size" in layout + name)


@pytest.mark.parametrize(("layout", "name"), [pair for pair in NUMBERS if "box" in pair[1] or "ILSVRC" in pair[0]])
def test_inverted_boxes_are_refused(tmp_path, layout, name):
    """Protects from a box drawn from right to left, which would be scored like any other, in every reader."""
    if name == "val_list.txt" or "size" in layout:
        return
    make, load, lists = LAYOUTS[layout]
    make(tmp_path)
    before, right = lists[name]
    text, new = (tmp_path / name).read_text(), before + "900"
    if name == "bounding_boxes.txt":  # x y w h
        before, right, new = "2.0 3.0 ", "40.0", "2.0 3.0 -40.0"
    assert before + right in text
    (tmp_path / name).write_text(text.replace(before + right, new, 1))
    with pytest.raises(UserError, match=rf"{os.path.basename(name)}.*is no box x.*; correct it or get the file anew"):
        load(tmp_path, "test")


@pytest.mark.parametrize("box", ["0,0,2000000000,3", "-2e9,0,1,3", "1e9,1e9,1e9,1e9", "0,0,1e300,3"])
def test_boxes_beyond_any_picture(tmp_path, box):
    """Protects from corners that no picture has, which overflow whatever is computed of them."""
    make_folder(tmp_path)
    test_image_folder.write_boxes(tmp_path, f"ant/5.jpg,{box}")
    with pytest.raises(UserError, match=r"boxes\.csv, line 2: .* lies beyond any picture's edge; correct"):
        any_folder.load_split(tmp_path, "test")


def test_labels_have_a_limit(tmp_path):
    """Protects from a class for each number up to a slip of the pen: refused with its line, not counted up to."""
    make_metadata(tmp_path)
    (tmp_path / "classes.txt").unlink()
    test_cub_data.edit(tmp_path / "test/class_labels.txt", "c.jpg,0", "c.jpg,100000")
    with pytest.raises(UserError, match=r"class_labels\.txt, line 1: the label is 100000, but more than 100,000 cla"):
        any_folder.load_split(tmp_path, "test")


def test_deeply_nested_xml_is_read(tmp_path):
    """Protects from a crash of the interpreter by elements within elements."""
    make_xml(tmp_path)
    test_cub_data.edit(tmp_path / XML, "<annotation>", "<annotation>" + "<a>" * 200_000 + "</a>" * 200_000)
    assert len(ILSVRC.DataLoader.load_split(tmp_path, "test")) == 4


@pytest.mark.parametrize("name", ["x" * 300 + ".jpg", "y/" * 3000 + "x.jpg"])
def test_names_longer_than_a_file_can_have(tmp_path, name):
    """Protects from what the system says of such names, which names no list."""
    make_metadata(tmp_path)
    lists = tmp_path / "test"
    for file, line in (("image_ids.txt", name), ("class_labels.txt", f"{name},0")):
        write_lines(lists / file, [line, *(lists / file).read_text().split()])
    with pytest.raises(UserError, match="is missing: 1 of the 4 pictures that .*image_ids.txt"):
        any_folder.load_split(tmp_path, "test")
    make_folder(tmp_path / "own")
    test_image_folder.write_boxes(tmp_path / "own", f"{name},1,2,3,4", "ant/5.jpg,1,2,3,4")
    assert "1 lines of boxes.csv name no picture" in any_folder.load_split(tmp_path / "own", "test").layout
