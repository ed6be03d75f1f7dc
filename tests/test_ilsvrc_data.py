"""Protects ILSVRC's reading: every layout and box source gives the same split, boxes matched by name."""

from __future__ import annotations

import os

import pytest

from ILSVRC.DataLoader import load_split
from tests.test_cub_data import boxes_of, edit, write_lines
from tests.test_images import save_picture
from utils.system.errors import UsageError, UserError

# stem: (wnid, size, boxes); the names' order is not the classes'.
IMAGES = {
    "ILSVRC2012_val_00000001": ("n03000000", (50, 40), [(1, 2, 30, 31)]),
    "ILSVRC2012_val_00000002": ("n01000000", (30, 60), [(0, 0, 5, 6), (7, 8, 20, 50)]),
    "ILSVRC2012_val_00000003": ("n02000000", (33, 44), [(3, 3, 13, 14)]),
    "ILSVRC2012_val_00000004": ("n01000000", (21, 26), [(4, 5, 14, 15)]),
}
WNIDS = ("n01000000", "n02000000", "n03000000")
SHUFFLED = sorted(IMAGES, key=lambda stem: stem[-1] in "13")


def make_train(folder):
    for wnid in reversed(WNIDS):
        for number in (10, 2):
            save_picture(folder / wnid / f"{wnid}_{number}.JPEG")


def make_val(folder, nested):
    for stem, (wnid, size, _) in IMAGES.items():
        save_picture(folder / (wnid if nested else "") / f"{stem}.JPEG", size)


def make_xml(folder):
    folder.mkdir(parents=True)
    for stem, (wnid, (width, height), boxes) in IMAGES.items():
        objects = "".join(
            f"<object>\n<name>{wnid}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax>"
            f"<ymax>{y1}</ymax></bndbox></object>\n"
            for x0, y0, x1, y1 in boxes
        )
        size = f"<size><width>{width}</width><height>{height}</height></size>"
        (folder / f"{stem}.xml").write_text(
            f"<annotation>\n<filename>{stem}</filename>{size}\n{objects}</annotation>\n"
        )


def make_csv(root):
    rows = []
    for stem in SHUFFLED:
        wnid, _, boxes = IMAGES[stem]
        rows.append(f"{stem},{' '.join(f'{wnid} {x0} {y0} {x1} {y1}' for x0, y0, x1, y1 in boxes)} ")
    write_lines(root / "LOC_val_solution.csv", ["ImageId,PredictionString", *rows])


def make_authors_lists(root):
    boxes, listed = [], []
    for stem in SHUFFLED:
        wnid, (width, height), image_boxes = IMAGES[stem]
        numbers = " ".join(str(number) for box in image_boxes for number in box)
        boxes.append(rf"{wnid}\\{stem}.JPEG {width} {height} ; {numbers}")
        listed.append(f"{wnid}/{stem}.JPEG;{WNIDS.index(wnid)}")
    write_lines(root / "val_gt.txt", boxes)
    write_lines(root / "val_list.txt", reversed(listed))


def make_mapping(root):
    write_lines(root / "LOC_synset_mapping.txt", [f"{wnid} name, other name" for wnid in reversed(WNIDS)])


def check_validation(split):
    assert split.ids == tuple(f"{stem}.JPEG" for stem in IMAGES)
    assert [path.name for path in split.paths] == list(split.ids) and all(path.is_file() for path in split.paths)
    assert split.labels.tolist() == [2, 0, 1, 0] and split.labels.dtype == "int64"
    assert boxes_of(split) == {f"{stem}.JPEG": [list(box) for box in boxes] for stem, (_, _, boxes) in IMAGES.items()}
    assert split.class_names == WNIDS


# --- layouts


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize(
    ("source", "make_boxes"),
    [
        ("Annotations/CLS-LOC/val", lambda root: make_xml(root / "Annotations" / "CLS-LOC" / "val")),
        ("Annotations/val", lambda root: make_xml(root / "Annotations" / "val")),
        ("LOC_val_solution.csv", make_csv),
        ("val_gt.txt", make_authors_lists),
    ],
)
def test_every_box_source_gives_the_same_split(tmp_path, nested, source, make_boxes):
    """Boxes and labels belong to the image of that name, in class folders or a flat folder, named in the layout."""
    make_val(tmp_path / "val", nested)
    make_boxes(tmp_path)
    split = load_split(tmp_path, "test")
    check_validation(split)
    assert source in split.layout and "4 of its 4 images" in split.layout
    assert ("class folders" if nested else "flat") in split.layout


@pytest.mark.parametrize("with_csv", [True, False])
def test_kaggles_tree(tmp_path, with_csv):
    """Kaggle's archive works as it unpacks, by its CSV or its XML files."""
    make_train(tmp_path / "ILSVRC" / "Data" / "CLS-LOC" / "train")
    make_val(tmp_path / "ILSVRC" / "Data" / "CLS-LOC" / "val", nested=False)
    make_xml(tmp_path / "ILSVRC" / "Annotations" / "CLS-LOC" / "val")
    make_mapping(tmp_path)
    if with_csv:
        make_csv(tmp_path)
    split = load_split(tmp_path, "test")
    check_validation(split)
    assert ("LOC_val_solution.csv" in split.layout) is with_csv
    assert load_split(tmp_path, "train").class_names == WNIDS


def test_training_needs_no_boxes(tmp_path):
    """Training reads class folders alone: sorted, labels by rank, hidden files and other suffixes left out."""
    make_train(tmp_path / "train")
    (tmp_path / "train" / WNIDS[0] / "._x.JPEG").touch()
    (tmp_path / "train" / WNIDS[0] / "urls.txt").touch()
    split = load_split(tmp_path, "train")
    assert split.ids[:3] == ("n01000000/n01000000_10.JPEG", "n01000000/n01000000_2.JPEG", "n02000000/n02000000_10.JPEG")
    assert split.paths[2] == tmp_path / "train" / split.ids[2]
    assert split.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert split.class_names == WNIDS and split.boxes == {}


def test_classes_come_from_the_whole_data_set(tmp_path):
    """A label is the rank among all classes, also where the validation folder holds but some of them."""
    make_val(tmp_path / "val", nested=True)
    make_csv(tmp_path)
    for name in os.listdir(tmp_path / "val" / WNIDS[0]):
        (tmp_path / "val" / WNIDS[0] / name).unlink()
    (tmp_path / "val" / WNIDS[0]).rmdir()
    assert load_split(tmp_path, "test").labels.tolist() == [1, 0]
    make_train(tmp_path / "train")
    assert load_split(tmp_path, "test").labels.tolist() == [2, 1]
    write_lines(tmp_path / "LOC_synset_mapping.txt", ["n00000000 first", *WNIDS])
    assert load_split(tmp_path, "test").labels.tolist() == [3, 2]
    assert load_split(tmp_path, "train").labels.tolist() == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("make_boxes", [make_csv, make_authors_lists])
def test_flat_subset_keeps_its_labels(tmp_path, make_boxes):
    """A few pictures without class folders are labelled among all the classes that the boxes name."""
    make_val(tmp_path / "val", nested=False)
    (tmp_path / "val" / "ILSVRC2012_val_00000002.JPEG").unlink()
    (tmp_path / "val" / "ILSVRC2012_val_00000004.JPEG").unlink()
    make_boxes(tmp_path)
    split = load_split(tmp_path, "test")
    assert split.labels.tolist() == [2, 1]
    assert "2 of its 4 images are here" in split.layout


# --- what is missing


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("root", [".", "nowhere"])
def test_no_data_set_at_all(tmp_path, root, split):
    """The folders that were looked for are named, and where to get the data."""
    folder = "train" if split == "train" else "val"
    with pytest.raises(
        UserError,
        match=f"no folder .*{folder} or .*CLS-LOC.*image-net.org.*imagenet-object-localization-challenge.*--root",
    ):
        load_split(tmp_path / root, split)
    with pytest.raises(UsageError, match="no split 'val'; choose one of train, test"):
        load_split(tmp_path, "val")


def test_empty_folders(tmp_path):
    """An empty val/, an empty train/ and a class without pictures are each said."""
    (tmp_path / "val").mkdir()
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match="val holds neither pictures nor class folders; get ILSVRC2012"):
        load_split(tmp_path, "test")
    with pytest.raises(UserError, match="train holds no class folders; put"):
        load_split(tmp_path, "train")
    make_train(tmp_path / "train")
    (tmp_path / "train" / "n04000000").mkdir()
    with pytest.raises(UserError, match="n04000000 holds no picture.*unpack"):
        load_split(tmp_path, "train")


def test_no_boxes(tmp_path):
    """Testing without any box source lists the three."""
    make_val(tmp_path / "val", nested=True)
    with pytest.raises(
        UserError, match=r"no boxes in .*LOC_val_solution.*Annotations/CLS-LOC/val.*val_gt\.txt.*get ILSV"
    ):
        load_split(tmp_path, "test")
    (tmp_path / "Annotations" / "val").mkdir(parents=True)
    with pytest.raises(UserError, match=r"Annotations/val holds no \.xml files; get ILSVRC2012"):
        load_split(tmp_path, "test")


def test_images_without_a_box_are_counted(tmp_path):
    """An image that could never be right must not lower the score unseen."""
    make_val(tmp_path / "val", nested=True)
    make_xml(tmp_path / "Annotations" / "val")
    for number in (3, 4):
        (tmp_path / "Annotations" / "val" / f"ILSVRC2012_val_0000000{number}.xml").unlink()
    with pytest.raises(
        UserError, match=r"val has no box for ILSVRC2012_val_00000003\.JPEG, as for 2 of the 4 .*get the"
    ):
        load_split(tmp_path, "test")


def test_classes_that_nobody_knows(tmp_path):
    """A picture of a class beyond the mapping or the training folders has no label."""
    make_val(tmp_path / "val", nested=False)
    make_csv(tmp_path)
    make_train(tmp_path / "train")
    write_lines(tmp_path / "LOC_synset_mapping.txt", WNIDS[:2])
    with pytest.raises(
        UserError, match=r"00000001\.JPEG is of the class n03000000, .*none of the 2 .*1 of 4 .*complete"
    ):
        load_split(tmp_path, "test")
    with pytest.raises(UserError, match="n03000000 is none of the 2 classes; remove it"):
        load_split(tmp_path, "train")


def test_half_sorted_validation_folder(tmp_path):
    """A sorting into class folders that was interrupted, or that copied, is refused."""
    make_val(tmp_path / "val", nested=True)
    make_csv(tmp_path)
    loose = save_picture(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(UserError, match=r"class folders and 1 loose pictures, the first .*00000001\.JPEG; put all"):
        load_split(tmp_path, "test")
    loose.rename(tmp_path / "val" / WNIDS[0] / loose.name)
    with pytest.raises(UserError, match=r"00000001\.JPEG lies in .*n01000000 and in .*n03000000; remove"):
        load_split(tmp_path, "test")


# --- what is malformed


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("LOC_val_solution.csv", "ImageId", "Image", r"solution\.csv, line 1: the heading is not ImageId,Pr.*; get"),
        (
            "LOC_val_solution.csv",
            " 0 0 5 6",
            " 0 0 5",
            r"solution\.csv, line 2: 9 words where boxes of five .*; correct",
        ),
        ("LOC_val_solution.csv", " 0 0 5 6", " 0 0 5 nan", r"solution\.csv, line 2: 'nan' is not a finite .*; correct"),
        ("LOC_val_solution.csv", " 0 0 5 6", " 0 0 5 six", r"solution\.csv, line 2: 'six' is not a number; correct"),
        (
            "LOC_val_solution.csv",
            "_00000004,",
            "_00000002,",
            r"line 3: ILSVRC2012_val_00000002 comes a second .*; correct",
        ),
        ("LOC_val_solution.csv", "_00000004,", "_00000004,,", r"solution\.csv, line 3: 3 fields where .*; correct"),
        (
            "val_gt.txt",
            "; 0 0 5 6",
            "; 0 5 6",
            r"val_gt\.txt, line 1: 7 numbers where boxes need a multiple of four; cor",
        ),
        ("val_gt.txt", "; 0 0 5 6 7 8 20 50", ";", r"val_gt\.txt, line 1: 0 numbers where boxes need .*; correct"),
        ("val_gt.txt", "; 0 0 5 6", "; 0 0 5 inf", r"val_gt\.txt, line 1: 'inf' is not a finite number; correct"),
        ("val_gt.txt", " 30 60 ;", " ;", r"val_gt\.txt, line 1: .* is not wnid\\\\name\.JPEG W H, .*; correct"),
        ("val_gt.txt", "_00000004.", "_00000002.", r"val_gt\.txt, line 2: .*00000002 comes a second time; correct"),
        (
            "val_list.txt",
            "JPEG;1",
            "JPEG;2",
            r"val_list\.txt, line 1: the label is 2, but n02000000 is class 1.*; correct",
        ),
        ("val_list.txt", "JPEG;1", "JPEG;one", r"val_list\.txt, line 1: 'one' is not a whole number; correct"),
        ("val_list.txt", "n02000000/", "", r"val_list\.txt, line 1: .* is not wnid/name\.JPEG;label; correct"),
        (
            "LOC_synset_mapping.txt",
            WNIDS[1],
            WNIDS[2],
            r"mapping\.txt, line 2: the class n03000000 comes a second .*; cor",
        ),
    ],
)
def test_malformed_lines(tmp_path, name, old, new, words):
    """Every malformed line is named by file and number, with the hint."""
    make_val(tmp_path / "val", nested=False)
    if name.endswith("csv"):
        make_csv(tmp_path)
    else:
        make_authors_lists(tmp_path)
        make_mapping(tmp_path)
    check_validation(load_split(tmp_path, "test"))
    edit(tmp_path / name, old, new)
    with pytest.raises(UserError, match=words):
        load_split(tmp_path, "test")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("</object>", "", "no well-formed XML .*line 7"),
        ("<xmin>0</xmin>", "", "an object lacks its name or a corner"),
        ("<name>n01000000</name>", "", "an object lacks its name or a corner"),
        ("<xmin>0</xmin>", "<xmin>NaN</xmin>", "'NaN' is not a finite number"),
        ("<xmin>0</xmin>", "<xmin>left</xmin>", "'left' is not a number"),
        ("object", "subject", "no well-formed XML"),
        ("<annotation>", "<?xml version='1.0' encoding='nonsense'?><annotation>", "no well-formed XML .*encoding"),
    ],
)
def test_malformed_xml(tmp_path, old, new, words):
    """Every malformed XML file is named, with the hint."""
    make_val(tmp_path / "val", nested=True)
    make_xml(tmp_path / "Annotations" / "val")
    edit(tmp_path / "Annotations" / "val" / "ILSVRC2012_val_00000002.xml", old, new)
    with pytest.raises(UserError, match=rf"00000002\.xml: {words}.*; correct it or get the file anew"):
        load_split(tmp_path, "test")


def test_xml_without_an_object(tmp_path):
    """A well-formed file that describes nothing is no ground truth."""
    make_val(tmp_path / "val", nested=True)
    make_xml(tmp_path / "Annotations" / "val")
    (tmp_path / "Annotations" / "val" / "ILSVRC2012_val_00000002.xml").write_text("<annotation></annotation>")
    with pytest.raises(UserError, match=r"00000002\.xml: it describes no object; correct"):
        load_split(tmp_path, "test")


@pytest.mark.parametrize("source", [make_csv, make_authors_lists, lambda root: make_xml(root / "Annotations" / "val")])
def test_pictures_in_the_wrong_class_folder(tmp_path, source):
    """Protects from labels by a folder that the boxes' file contradicts, as after a sorting script that went wrong."""
    make_train(tmp_path / "train")
    make_val(tmp_path / "val", nested=True)
    source(tmp_path)
    stem = "ILSVRC2012_val_00000001"
    (tmp_path / "val" / "n03000000" / f"{stem}.JPEG").rename(tmp_path / "val" / "n01000000" / f"{stem}.JPEG")
    with pytest.raises(UserError, match=rf"{stem}.JPEG is of the class n01000000 .* says n03000000, and so for 1 of 4"):
        load_split(tmp_path, "test")


def test_one_picture_twice(tmp_path):
    """Protects the count from a picture that lies there under two suffixes."""
    make_val(tmp_path / "val", nested=False)
    make_csv(tmp_path)
    save_picture(tmp_path / "val" / "ILSVRC2012_val_00000001.jpg")
    with pytest.raises(UserError, match="holds ILSVRC2012_val_00000001.JPEG and .*0001.jpg, one picture twice"):
        load_split(tmp_path, "test")


def test_other_spellings_of_boxes(tmp_path):
    """Protects lists whose ids have a suffix, XML in a namespace or named .XML, and the test set from an XML that
    belongs to no picture and is broken."""
    make_val(tmp_path / "csv" / "val", nested=False)
    make_train(tmp_path / "csv" / "train")
    make_csv(tmp_path / "csv")
    path = tmp_path / "csv" / "LOC_val_solution.csv"
    path.write_text(path.read_text().replace(",n0", ".JPEG,n0"))
    check_validation(load_split(tmp_path / "csv", "test"))
    make_val(tmp_path / "xml" / "val", nested=False)
    make_train(tmp_path / "xml" / "train")
    folder = tmp_path / "xml" / "Annotations" / "val"
    make_xml(folder)
    for file in list(folder.iterdir()):
        file.write_text(file.read_text().replace("<annotation>", '<annotation xmlns="http://example.org/voc">'))
        file.rename(file.with_suffix(".XML"))
    (folder / "ILSVRC2012_val_00000099.xml").write_text("")
    check_validation(load_split(tmp_path / "xml", "test"))
