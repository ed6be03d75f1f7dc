"""Protects CUB's reading: boxes by image, both layouts, a download that never looks complete when it is not."""

from __future__ import annotations

import hashlib
import io
import shutil
import socket
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from CUB.DataLoader import FOLDER, MD5, PAGE, download, load_split
from tests.test_images import save_picture
from utils.data.masks import MaskFiles
from utils.system.errors import UsageError, UserError

# id: (picture, size, label from 1, is_train, x y w h); ids are out of order and lines of the files will be, too.
IMAGES = {
    "7": ("002.Gull/b.jpg", (50, 40), 2, 0, (10.5, 1.0, 20.0, 30.0)),
    "3": ("001.Wren/a.jpg", (30, 60), 1, 0, (2.0, 3.0, 40.0, 50.0)),
    "9": ("001.Wren/c.jpg", (33, 44), 1, 1, (1.0, 1.0, 5.0, 6.0)),
    "5": ("003.Finch/d.jpg", (20, 25), 3, 1, (4.0, 4.0, 8.0, 9.0)),
    "4": ("003.Finch/e.jpg", (21, 26), 3, 0, (5.0, 6.0, 7.0, 8.0)),
}
EXPECTED_BOXES = {
    "002.Gull/b.jpg": [[10.5, 1, 30.5, 31]],
    "001.Wren/a.jpg": [[2, 3, 42, 53]],
    "003.Finch/e.jpg": [[5, 6, 12, 14]],
}
CLASSES = ("001.Wren", "002.Gull", "003.Finch")


def write_lines(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines))


def make_owners(folder):
    """The owners' layout, with every file in another order."""
    for name, size, *_ in IMAGES.values():
        save_picture(folder / "images" / name, size)
    keys = list(IMAGES)
    write_lines(folder / "images.txt", [f"{key} {IMAGES[key][0]}" for key in keys])
    write_lines(folder / "image_class_labels.txt", [f"{key} {IMAGES[key][2]}" for key in sorted(keys)])
    write_lines(folder / "train_test_split.txt", [f"{key} {IMAGES[key][3]}" for key in reversed(keys)])
    write_lines(folder / "bounding_boxes.txt", [f"{key} {' '.join(map(str, IMAGES[key][4]))}" for key in sorted(keys)])
    write_lines(folder / "classes.txt", [f"{rank} {name}" for rank, name in enumerate(CLASSES, start=1)])
    return folder


def make_authors(root, first_label=0):
    """The authors' layout; the lists' order is not the folders'."""
    for name, size, _, is_train, _ in IMAGES.values():
        save_picture(root / ("train" if is_train else "test") / name, size)
    save_picture(root / "train" / "002.Gull" / "f.jpg")
    listed, boxes = [], []
    for name, (width, height), label, is_train, (x, y, w, h) in IMAGES.values():
        if not is_train:
            listed.append(f"{name};{label - 1 + first_label}")
            boxes.append(f"{x} {y} {x + w} {y + h} {height} {width}")
    write_lines(root / "test_list.txt", listed)
    write_lines(root / "test_gt.txt", boxes)
    return root


def boxes_of(split):
    return {name: boxes.tolist() for name, boxes in split.boxes.items()}


def edit(path, old, new):
    """Replaces text that must be there."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


# --- the owners' layout


@pytest.mark.parametrize("below", ["", FOLDER])
def test_owners_layout(tmp_path, below):
    """Labels and boxes belong to the image of the same id, whatever the order of the lines."""
    make_owners(tmp_path / below)
    test, train = load_split(tmp_path, "test"), load_split(tmp_path, "train")
    assert test.ids == ("002.Gull/b.jpg", "001.Wren/a.jpg", "003.Finch/e.jpg")
    assert test.paths == tuple(tmp_path / below / "images" / name for name in test.ids)
    assert test.labels.tolist() == [1, 0, 2] and test.labels.dtype == "int64"
    assert boxes_of(test) == EXPECTED_BOXES
    assert test.class_names == train.class_names == CLASSES
    assert (train.ids, train.labels.tolist()) == (("001.Wren/c.jpg", "003.Finch/d.jpg"), [0, 2])
    assert "owners" in test.layout and test.masks == {}


@pytest.mark.parametrize("beside", [False, True])
def test_masks_where_they_exist(tmp_path, beside):
    """A mask is found inside or beside the folder and paired by name; the layout says how many there are."""
    folder = make_owners(tmp_path / FOLDER)
    segmentations = (tmp_path if beside else folder) / "segmentations"
    save_picture(segmentations / "001.Wren" / "a.png")
    save_picture(segmentations / "001.Wren" / "c.png")
    split = load_split(tmp_path, "test")
    assert split.masks == {"001.Wren/a.jpg": MaskFiles((segmentations / "001.Wren" / "a.png",))}
    assert "masks for 1 of 3" in split.layout


def test_training_needs_no_boxes(tmp_path):
    """The task is weakly supervised: a box file is never demanded for training, but for testing it is."""
    make_owners(tmp_path)
    (tmp_path / "bounding_boxes.txt").unlink()
    assert len(load_split(tmp_path, "train")) == 2
    with pytest.raises(UserError, match=rf"bounding_boxes\.txt is missing; .*{MD5}.*{PAGE}.*--download.*--root"):
        load_split(tmp_path, "test")


@pytest.mark.parametrize("name", ["images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt"])
def test_missing_or_empty_list_is_named(tmp_path, name):
    """Each list that is missing or empty is named with where to get it."""
    make_owners(tmp_path)
    (tmp_path / name).write_text("\n")
    with pytest.raises(UserError, match=f"{name} is empty; .*{PAGE}"):
        load_split(tmp_path, "train")
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing; .*{PAGE}.*--download"):
        load_split(tmp_path, "train")


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("bounding_boxes.txt", "2.0 3.0", "nan 3.0", r"bounding_boxes\.txt, line 1: 'nan' is not a finite .*correct"),
        ("bounding_boxes.txt", "2.0 3.0", "two 3.0", r"bounding_boxes\.txt, line 1: 'two' is not a number.*correct"),
        ("bounding_boxes.txt", "2.0 3.0 ", "3.0 ", r"line 1: 3 numbers where boxes need a multiple of four; correct"),
        ("bounding_boxes.txt", "40.0", "-40.0", "line 1: .*positive w and h; correct"),
        ("bounding_boxes.txt", "3 2.0", "33 2.0", "bounding_boxes.txt has no line for image 3, as for 1 of 3; get"),
        ("train_test_split.txt", "3 0", "3 2", r"train_test_split\.txt, line 4: '2' is neither 1 .*correct"),
        ("train_test_split.txt", "3 0", "33 0", "train_test_split.txt has no line for image 3, as for 1 of 5; get"),
        ("image_class_labels.txt", "3 1", "3 4", r"labels\.txt, line 1: the label 4 is not between 1 and 3.*correct"),
        ("image_class_labels.txt", "3 1", "3 0", r"labels\.txt, line 1: the label 0 is not between 1 and 3.*correct"),
        ("image_class_labels.txt", "3 1", "3 1.5", r"labels\.txt, line 1: '1\.5' is not a whole number; correct"),
        ("classes.txt", "2 002", "4 002", r"classes\.txt, line 2: the class number is 4 where 2 is expected; correct"),
        ("images.txt", "3 001", "7 001", r"images\.txt, line 2: the id 7 comes a second time; correct"),
        ("images.txt", "3 001.Wren/a.jpg", "3", r"images\.txt, line 2: '3' is not an id and a value; correct"),
        ("images.txt", "001.Wren/a.jpg", "002.Gull/b.jpg", "the class of 002.Gull/b.jpg is 001.Wren, but it lies"),
        (
            "images.txt",
            "Wren/a.jpg",
            "Wren/z.jpg",
            r"001\.Wren/z\.jpg is missing: 1 of the 3 .*images\.txt.*--download",
        ),
    ],
)
def test_malformed_owners_files(tmp_path, name, old, new, words):
    """Every malformed line is named by file and number, with the hint."""
    make_owners(tmp_path)
    edit(tmp_path / name, old, new)
    with pytest.raises(UserError, match=words):
        load_split(tmp_path, "test")


def test_binary_list_is_named(tmp_path):
    """A list that is no text, such as a picture of that name, is one sentence."""
    make_owners(tmp_path)
    (tmp_path / "images.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"cannot read .*images\.txt.*get CUB_200_2011\.tgz"):
        load_split(tmp_path, "test")


def test_pictures_that_were_not_unpacked(tmp_path):
    """Without images/ all pictures are counted as missing."""
    make_owners(tmp_path)
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(UserError, match=r"b\.jpg is missing: 3 of the 3 pictures"):
        load_split(tmp_path, "test")


def test_split_without_images(tmp_path):
    """A list that gives every image to training leaves nothing to test on."""
    make_owners(tmp_path)
    write_lines(tmp_path / "train_test_split.txt", [f"{key} 1" for key in IMAGES])
    with pytest.raises(UserError, match="test split is empty.*complete"):
        load_split(tmp_path, "test")


@pytest.mark.parametrize("root", [".", "nowhere"])
def test_no_data_set_at_all(tmp_path, root):
    """An empty or missing folder says what was looked for and where to get it."""
    with pytest.raises(UserError, match=rf"no CUB-200-2011 in .*images\.txt.*test_gt\.txt.*{MD5}.*{PAGE}.*--root"):
        load_split(tmp_path / root, "test")
    with pytest.raises(UsageError, match="no split 'val'; choose one of train, test"):
        load_split(tmp_path, "val")


def test_a_list_of_pictures_that_was_cut_short_is_said(tmp_path):
    """Protects from training on fewer pictures without a word; a part of the data set stays possible."""
    make_owners(tmp_path)
    assert "not in images.txt" not in load_split(tmp_path, "test").layout
    lines = (tmp_path / "images.txt").read_text().splitlines()
    write_lines(tmp_path / "images.txt", lines[1:])
    split = load_split(tmp_path, "test")
    assert len(split) == 2 and "1 images of train_test_split.txt not in images.txt" in split.layout


# --- the authors' layout


@pytest.mark.parametrize(("first_label", "boxes_file"), [(0, "test_gt.txt"), (1, "test_bounding_box.txt")])
def test_authors_layout(tmp_path, first_label, boxes_file):
    """Labels are the class folders' ranks whether the list counts from 0 or 1; boxes are those of the same line, in the
    first paper's file or the second's."""
    make_authors(tmp_path, first_label)
    (tmp_path / "test_gt.txt").rename(tmp_path / boxes_file)
    test, train = load_split(tmp_path, "test"), load_split(tmp_path, "train")
    assert test.ids == ("002.Gull/b.jpg", "001.Wren/a.jpg", "003.Finch/e.jpg")
    assert test.paths == tuple(tmp_path / "test" / name for name in test.ids)
    assert test.labels.tolist() == [1, 0, 2]
    assert boxes_of(test) == EXPECTED_BOXES
    assert f"counting classes from {first_label}" in test.layout
    assert train.ids == ("001.Wren/c.jpg", "002.Gull/f.jpg", "003.Finch/d.jpg")
    assert train.labels.tolist() == [0, 1, 2] and train.boxes == {}
    assert test.class_names == train.class_names == CLASSES


def test_authors_test_folder_alone(tmp_path):
    """Evaluation does not need the training pictures."""
    make_authors(tmp_path)
    shutil.rmtree(tmp_path / "train")
    assert load_split(tmp_path, "test").labels.tolist() == [1, 0, 2]
    with pytest.raises(UserError, match=f"train is missing; .*{PAGE}"):
        load_split(tmp_path, "train")


def test_authors_boxes_in_another_order_are_refused(tmp_path):
    """Boxes that belong to other images would silently ruin the scores: the pictures' sizes give them away."""
    make_authors(tmp_path)
    lines = (tmp_path / "test_gt.txt").read_text().splitlines()
    write_lines(tmp_path / "test_gt.txt", [lines[0], lines[2], lines[1]])
    with pytest.raises(UserError, match=r"test_gt\.txt, line 2: .*21x26 pixels, but .*a\.jpg has 30x60.*get the file"):
        load_split(tmp_path, "test")


def test_authors_unreadable_picture_is_left_to_the_evaluation(tmp_path):
    """One corrupt picture does not stop the reading of the lists."""
    make_authors(tmp_path)
    (tmp_path / "test" / "001.Wren" / "a.jpg").write_text("corrupt")
    assert boxes_of(load_split(tmp_path, "test")) == EXPECTED_BOXES


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("test_gt.txt", "10.5 1.0 30.5 31.0 40 50\n", "", r"test_gt\.txt has 2 lines and .*test_list\.txt 3.*get both"),
        ("test_gt.txt", "40 50", "40", r"test_gt\.txt, line 1: 5 numbers where x0 y0 x1 y1 h w are expected; correct"),
        ("test_gt.txt", "10.5", "inf", r"test_gt\.txt, line 1: 'inf' is not a finite number; correct"),
        ("test_gt.txt", "10.5", "40", r"test_gt\.txt, line 1: .*x0 < x1 and y0 < y1; correct"),
        ("test_list.txt", "a.jpg;0", "a.jpg;2", r"test_list\.txt, line 2: the label is 2, but 001\.Wren is class 0"),
        ("test_list.txt", "a.jpg;0", "a.jpg;x", r"test_list\.txt, line 2: 'x' is not a whole number; correct"),
        ("test_list.txt", "001.Wren/a.jpg;0", "a.jpg", r"test_list\.txt, line 2: 'a\.jpg' is not class/name.*correct"),
        ("test_list.txt", "Wren/a.jpg", "Wren/z.jpg", r"z\.jpg is missing: 1 of the 3 .*test_list\.txt"),
    ],
)
def test_malformed_authors_files(tmp_path, name, old, new, words):
    """Every malformed line is named by file and number, with the hint."""
    make_authors(tmp_path)
    edit(tmp_path / name, old, new)
    with pytest.raises(UserError, match=words):
        load_split(tmp_path, "test")


@pytest.mark.parametrize("name", ["test_list.txt", "test_gt.txt"])
def test_missing_authors_list(tmp_path, name):
    """The missing list is named with where to get the data set."""
    make_authors(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing; .*{PAGE}"):
        load_split(tmp_path, "test")


# --- the download


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class _CutShort(_Handler):
    def copyfile(self, source, outputfile):
        outputfile.write(source.read(100))


@pytest.fixture
def served(tmp_path):
    """A small archive in the owners' layout on a local server: function of a handler -> (url, md5)."""
    folder = tmp_path / "server"
    make_owners(folder / "made" / FOLDER)
    archive = folder / f"{FOLDER}.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder / "made" / FOLDER, FOLDER)
    servers = []

    def serve(handler=_Handler):
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/{archive.name}", hashlib.md5(archive.read_bytes()).hexdigest()

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def content(root):
    return sorted(path.name for path in root.iterdir()) if root.exists() else []


def test_download_then_load(tmp_path, served):
    """What is fetched loads, no temporary files stay, and a second call asks nobody."""
    root = tmp_path / "new" / "root"
    assert download(root, *served()) == root / FOLDER
    assert content(root) == [FOLDER, f"{FOLDER}.tgz"]
    assert boxes_of(load_split(root, "test")) == EXPECTED_BOXES
    assert download(root, "http://127.0.0.1:1/nobody", "0") == root / FOLDER


def test_download_leaves_present_data_alone(tmp_path):
    """Either layout, in place, is found before the network is asked."""
    assert download(make_owners(tmp_path / "a"), "http://127.0.0.1:1/nobody") == tmp_path / "a"
    assert download(make_authors(tmp_path / "b"), "http://127.0.0.1:1/nobody") == tmp_path / "b"


def test_archive_fetched_by_hand_is_used(tmp_path, served):
    """The right archive in its place is unpacked without the network."""
    _, md5 = served()
    root = tmp_path / "root"
    root.mkdir()
    shutil.copy(tmp_path / "server" / f"{FOLDER}.tgz", root)
    assert download(root, "http://127.0.0.1:1/nobody", md5) == root / FOLDER
    assert len(load_split(root, "test")) == 3


def test_wrong_or_partial_archive_is_refused(tmp_path, served):
    """An archive of another checksum is never unpacked, and never deleted either: it is the user's."""
    url, md5 = served()
    archive = tmp_path / "root" / f"{FOLDER}.tgz"
    archive.parent.mkdir()
    archive.write_bytes((tmp_path / "server" / archive.name).read_bytes()[:100])
    with pytest.raises(
        UserError, match=rf"{FOLDER}\.tgz is not the published archive \(md5 .* instead of {md5}\).*delete"
    ):
        download(archive.parent, url, md5)
    assert content(archive.parent) == [archive.name]


@pytest.mark.parametrize(
    ("handler", "md5"),
    [(_Handler, MD5), (_CutShort, None)],
)
def test_download_of_something_else(tmp_path, served, handler, md5):
    """What arrives altered or cut short leaves nothing behind."""
    url, right = served(handler)
    with pytest.raises(UserError, match=f"what {url} sent is not the published archive.*try again or fetch.*{PAGE}"):
        download(tmp_path / "root", url, md5 or right)
    assert content(tmp_path / "root") == []


def test_network_failures_are_one_sentence(tmp_path, served):
    """A page that is gone, a host that does not answer and an address that is none point to the owners' page."""
    url, md5 = served()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}/x.tgz"
        for address, reason in ((f"{url}.gone", "not found"), (closed, "refused"), ("nonsense://x/y.tgz", "unknown")):
            with pytest.raises(
                UserError, match=f"cannot download {address}: (?i:.*{reason}.*); .* by hand from {PAGE}"
            ):
                download(tmp_path / "root", address, md5)
    assert content(tmp_path / "root") == []


def _archive_of(path, name, data):
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))


def test_unpacking_failures_leave_nothing(tmp_path):
    """A damaged archive and one without the data set: one sentence each, nothing half done."""
    archive = tmp_path / f"{FOLDER}.tgz"
    cases = [
        (lambda: _archive_of(archive, "other/file.txt", b"x"), f"{FOLDER}.tgz holds no folder {FOLDER}; delete it"),
        (lambda: archive.write_bytes(b"no archive"), rf"{FOLDER}\.tgz is damaged .*; delete it"),
        (lambda: _archive_of(archive, f"{FOLDER}/x", bytes(9999)), None),
    ]
    for make, words in cases:
        make()
        if words is None:  # a checksum that was taken of a cut archive
            archive.write_bytes(archive.read_bytes()[:60])
            words = rf"{FOLDER}\.tgz is damaged .*; delete it"
        with pytest.raises(UserError, match=words):
            download(tmp_path, "http://127.0.0.1:1/nobody", hashlib.md5(archive.read_bytes()).hexdigest())
        assert content(tmp_path) == [archive.name]


HOSTILE = {
    "a path upwards": {"name": "../outside.txt"},
    "a path from the root": {"name": "{outside}/outside.txt"},
    "a link to the root": {"type": tarfile.SYMTYPE, "linkname": "/etc"},
    "a link upwards": {"type": tarfile.SYMTYPE, "linkname": "../../outside"},
    "a hard link upwards": {"type": tarfile.LNKTYPE, "linkname": "../../outside"},
    "a device": {"type": tarfile.CHRTYPE},
    "a FIFO": {"type": tarfile.FIFOTYPE},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_archive_that_would_write_elsewhere(tmp_path, kind):
    """Protects the user's files: such an archive is one sentence that names the entry, and nothing is left of it."""
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    archive = root / f"{FOLDER}.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, fields in ((f"{FOLDER}/images.txt", {}), (f"{FOLDER}/x", HOSTILE[kind])):
            member = tarfile.TarInfo(name)
            for field, value in fields.items():
                setattr(member, field, value.format(outside=outside) if field == "name" else value)
            tar.addfile(member, io.BytesIO(b""))
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    if kind == "a path from the root":  # is taken for one within the archive
        with pytest.raises(UserError):
            load_split(download(root, "http://127.0.0.1:1/nobody", md5), "test")
    else:
        with pytest.raises(
            UserError, match=rf"{FOLDER}\.tgz is no archive of pictures: its '.*' would be .*; delete it"
        ):
            download(root, "http://127.0.0.1:1/nobody", md5)
        assert content(root) == [archive.name]
    assert content(outside) == [] and content(tmp_path) == ["outside", "root"]


@pytest.mark.parametrize("linked", [True, False])
def test_archive_whose_folder_is_none(tmp_path, linked):
    """Protects from a data set that is a link to something else, or a file."""
    archive = tmp_path / f"{FOLDER}.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo(FOLDER)
        member.type, member.linkname = (tarfile.SYMTYPE, "other") if linked else (tarfile.REGTYPE, "")
        tar.addfile(member, io.BytesIO(b""))
    with pytest.raises(UserError, match=f"holds no folder {FOLDER}; delete it"):
        download(tmp_path, "http://127.0.0.1:1/nobody", hashlib.md5(archive.read_bytes()).hexdigest())
    assert content(tmp_path) == [archive.name]


def test_half_a_data_set_in_the_way(tmp_path):
    """A folder that is not complete is neither overwritten nor fetched beside: the network is not even asked."""
    save_picture(tmp_path / FOLDER / "images" / "half.jpg")
    with pytest.raises(UserError, match=f"{FOLDER} exists but is not the complete data set; remove or rename"):
        download(tmp_path, "http://127.0.0.1:1/nobody")
    assert content(tmp_path) == [FOLDER]


def test_labels_that_the_class_folders_contradict(tmp_path):
    """Protects from a list of labels of other pictures: the class of a picture is named by its folder as well."""
    make_owners(tmp_path)
    edit(tmp_path / "image_class_labels.txt", "7 2", "7 3")
    with pytest.raises(
        UserError, match=r"image_class_labels.txt.*: the class of 002.Gull/b.jpg is 003.Finch, but it lies"
    ):
        load_split(tmp_path, "test")


def test_tabs_in_lists(tmp_path):
    """Protects lists that a spreadsheet has saved."""
    make_owners(tmp_path)
    for path in tmp_path.glob("*.txt"):
        path.write_text(path.read_text().replace(" ", "\t"))
    assert boxes_of(load_split(tmp_path, "test")) == EXPECTED_BOXES


def test_the_place_that_has_all_of_it(tmp_path):
    """Protects a whole data set from a folder called images beside it."""
    make_owners(tmp_path / FOLDER)
    (tmp_path / "images").mkdir()
    assert boxes_of(load_split(tmp_path, "test")) == EXPECTED_BOXES
    make_authors(tmp_path / "theirs")
    (tmp_path / "theirs" / "images").mkdir()
    assert load_split(tmp_path / "theirs", "test").ids
