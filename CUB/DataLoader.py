"""CUB-200-2011: its files, in either of two layouts, become a Split; or it is downloaded.

The owners' layout (`CUB_200_2011.tgz`), in the given folder or in `CUB_200_2011` below it:
    images/<class>/<name>.jpg, images.txt (`id path`), image_class_labels.txt (`id label`, from 1), classes.txt (`id
    name`), train_test_split.txt (`id is_train`), bounding_boxes.txt (`id x y w h`), and, if wanted, segmentations.tgz
    unpacked to segmentations/<class>/<name>.png inside or beside it. Folders of the same files with fewer classes
    work too.
The layout of the authors of BAS:
    train/<class>/<name>.jpg, test/<class>/<name>.jpg, test_list.txt (`class/name.jpg;label`) and test_gt.txt
    (`x0 y0 x1 y1 h w`, one line an image in the order of test_list.txt).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from utils.data.class_names import read_class_names
from utils.data.images import ImageError, read_image_size
from utils.data.listing import list_folders, require_pictures
from utils.data.masks import MaskFiles, find_masks
from utils.data.split import Line, Split, check_split_name, parse_box, parse_number, read_lines, split_of_class_folders
from utils.system.errors import UserError

FOLDER = "CUB_200_2011"
PAGE = "https://www.vision.caltech.edu/datasets/cub_200_2011/"
URL = "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz"
MD5 = "97eceeb196236b17998738112f37df78"
HINT = (
    f"get CUB_200_2011.tgz (md5 {MD5}) from {PAGE} and unpack it, or let --download do both; "
    "--root names the folder that holds it"
)

_OWNERS_FILES = ("images.txt", "image_class_labels.txt", "classes.txt", "train_test_split.txt", "bounding_boxes.txt")
_OWNERS_PIECES = ("images", *_OWNERS_FILES)
_AUTHORS_BOXES = ("test_gt.txt", "test_bounding_box.txt")  # of the first paper's code, of the second's
_AUTHORS_PIECES = ("train", "test", "test_list.txt")


def load_split(root: Path, split: str) -> Split:
    """Reads "train" or "test", as :meth:`utils.data.dataset.Dataset.load_split`; boxes are demanded for "test" alone,
    and masks read for it.

    Ids are `<class>/<name>.jpg`, labels the classes' order in classes.txt or, in the authors' layout, the rank of the
    class folder.
    """
    check_split_name(split)
    root = Path(root)
    found = _find_layout(root, all) or _find_layout(root, any)
    if found is None:
        looked_for = ", ".join(_OWNERS_PIECES + _AUTHORS_PIECES + _AUTHORS_BOXES)
        raise UserError(f"no CUB-200-2011 in {root} (looked for {looked_for}); {HINT}")
    folder, is_owners = found
    if is_owners:
        return _load_owners_layout(folder, split)
    return _load_authors_train(folder) if split == "train" else _load_authors_test(folder)


def _find_layout(root: Path, enough: Callable[[Iterable[bool]], bool]) -> tuple[Path, bool] | None:
    """The folder that holds `enough` of a layout's pieces, all or any, and whether that is its owners' layout."""
    authors = (*_AUTHORS_PIECES, _authors_boxes(root))
    for folder, pieces in ((root, _OWNERS_PIECES), (root / FOLDER, _OWNERS_PIECES), (root, authors)):
        if enough((folder / piece).exists() for piece in pieces):
            return folder, pieces is _OWNERS_PIECES
    return None


def download(root: Path, url: str = URL, md5: str = MD5) -> Path:
    """Fetches the data set from its owners and unpacks it, unless it is there.

    Args:
        root: the folder to hold CUB_200_2011.tgz (kept; one fetched by hand is used) and CUB_200_2011.
        url: where the archive is fetched from.
        md5: the archive's checksum.

    Returns:
        The folder that holds the data set in either layout.

    Raises:
        UserError: the network fails, the archive is not the published one, or the disk is full.
    """
    root = Path(root)
    found = _find_layout(root, all)
    if found:
        return found[0]
    from utils.data.download import download_dataset  # here, since it takes a second for torchvision

    download_dataset(root / FOLDER, url, md5, PAGE)
    return root / FOLDER


def class_names() -> tuple[str, ...]:
    """The 200 classes' names for people, in the order of the labels: "Black footed Albatross".

    They are the names in classes.txt of CUB-200-2011 without number and underscores, by way of CUB_CATEGORIES in
    OpenMMLab's mmpretrain 1.2.0 (Apache-2.0).

    Raises:
        UserError: class_names.txt, which is shipped beside this file, is missing or unreadable.
    """
    return read_class_names(Path(__file__).with_name("class_names.txt"), "get this project's files anew")


# --- the owners' layout


def _load_owners_layout(folder: Path, split: str) -> Split:
    flags = _read_by_id(folder / "train_test_split.txt")
    images = _read_by_id(folder / "images.txt")
    wanted = {"train": "1", "test": "0"}[split]
    keys = []
    for key, flag in zip(images, _select(flags, images, folder / "train_test_split.txt"), strict=True):
        if flag.text not in ("0", "1"):
            raise flag.error(f"{flag.text!r} is neither 1 (train) nor 0 (test)")
        if flag.text == wanted:
            keys.append(key)
    ids = tuple(images[key].text for key in keys)
    class_names = _read_class_names(folder / "classes.txt")
    labels_file, boxes_file = folder / "image_class_labels.txt", folder / "bounding_boxes.txt"
    label_lines = _select(_read_by_id(labels_file), keys, labels_file)
    labels = [_parse_label(line, len(class_names)) for line in label_lines]
    for image_id, label, line in zip(ids, labels, label_lines, strict=True):
        place = image_id.partition("/")[0]
        if place != class_names[label] and place in class_names:
            raise line.error(f"the class of {image_id} is {class_names[label]}, but it lies in another class's folder")
    layout = f"CUB-200-2011 as its owners ship it, in {folder}"
    unlisted = len(flags.keys() - images.keys())
    if unlisted:  # a part of the data set, or a list that was cut short
        layout += f", {unlisted} images of train_test_split.txt not in images.txt"
    boxes, masks = {}, {}
    if split == "test":
        lines = _select(_read_by_id(boxes_file), keys, boxes_file)
        boxes = {image_id: _parse_xywh(line) for image_id, line in zip(ids, lines, strict=True)}
    elif boxes_file.exists():
        # Training needs no boxes; those there are serve to choose a threshold without touching the test pictures.
        lines_by_id = _read_by_id(boxes_file)
        boxes = {images[key].text: _parse_xywh(lines_by_id[key]) for key in keys if key in lines_by_id}
    if split == "test":
        masks = _find_masks((folder, folder.parent), ids)
        layout += f", masks for {len(masks)} of {len(ids)} images"
    require_pictures(folder / "images", ids, folder / "images.txt", HINT)
    return Split(
        name=split,
        layout=layout,
        ids=ids,
        paths=tuple(folder / "images" / name for name in ids),
        labels=np.array(labels, dtype=np.int64),
        boxes=boxes,
        class_names=class_names,
        masks=masks,
    )


def _read_by_id(path: Path) -> dict[str, Line]:
    """The lines `id text` of a file, as id -> (where, text)."""
    lines: dict[str, Line] = {}
    for line in read_lines(path, HINT):
        key, *rest = line.text.split(maxsplit=1)
        if not rest:
            raise line.error(f"{line.text!r} is not an id and a value")
        if key in lines:
            raise line.error(f"the id {key} comes a second time")
        lines[key] = Line(line.where, rest[0].strip())
    return lines


def _select(lines: dict[str, Line], keys: Iterable[str], path: Path) -> list[Line]:
    keys = list(keys)
    missing = [key for key in keys if key not in lines]
    if missing:
        raise UserError(f"{path} has no line for image {missing[0]}, as for {len(missing)} of {len(keys)}; {HINT}")
    return [lines[key] for key in keys]


def _read_class_names(path: Path) -> tuple[str, ...]:
    lines = _read_by_id(path)
    for rank, (key, line) in enumerate(lines.items(), start=1):
        if key != str(rank):
            raise line.error(f"the class number is {key} where {rank} is expected")
    return tuple(line.text for line in lines.values())


def _parse_label(line: Line, class_count: int) -> int:
    label = parse_number(line.text, line, int)
    if not 1 <= label <= class_count:
        raise line.error(f"the label {label} is not between 1 and {class_count}, the number of lines of classes.txt")
    return label - 1


def _parse_xywh(line: Line) -> np.ndarray:
    """`x y w h` -> (1, 4) `xyxy` in original pixels."""
    return parse_box(line.text.split(), line, strict=True, widths=True)


def _find_masks(folders: Sequence[Path], ids: Sequence[str]) -> dict[str, MaskFiles]:
    segmentations = next((path / "segmentations" for path in folders if (path / "segmentations").is_dir()), None)
    return find_masks(segmentations, ids) if segmentations else {}


# --- the authors' layout


def _load_authors_train(root: Path) -> Split:
    if not (root / "train").is_dir():
        raise UserError(f"{root / 'train'} is missing; {HINT}")
    return split_of_class_folders(
        "train", root / "train", f"CUB-200-2011 as the authors of BAS lay it out, in {root / 'train'}"
    )


def _authors_boxes(root: Path) -> str:
    return next((name for name in _AUTHORS_BOXES if (root / name).exists()), _AUTHORS_BOXES[0])


def _load_authors_test(root: Path) -> Split:
    list_file, boxes_file = root / "test_list.txt", root / _authors_boxes(root)
    listed, truths = read_lines(list_file, HINT), read_lines(boxes_file, HINT)
    if len(listed) != len(truths):
        raise UserError(
            f"{boxes_file} has {len(truths)} lines and {list_file} {len(listed)}, but a box belongs to the image on "
            "the same line; get both files anew from one place"
        )
    class_folder = next((root / name for name in ("train", "test") if (root / name).is_dir()), None)
    if class_folder is None:
        raise UserError(f"{root / 'test'} is missing; {HINT}")
    class_names = tuple(list_folders(class_folder))
    ids, labels, first_label = _parse_test_list(listed, class_names, class_folder)
    require_pictures(root / "test", ids, list_file, HINT)
    paths = tuple(root / "test" / name for name in ids)
    masks = _find_masks((root,), ids)
    return Split(
        name="test",
        layout=f"CUB-200-2011 as the authors of BAS lay it out, in {root}, test_list.txt counting classes from "
        f"{first_label}, masks for {len(masks)} of {len(ids)} images",
        ids=ids,
        paths=paths,
        labels=labels,
        boxes={name: _parse_truth(line, path) for name, line, path in zip(ids, truths, paths, strict=True)},
        class_names=class_names,
        masks=masks,
    )


def _parse_test_list(
    lines: Sequence[Line], class_names: tuple[str, ...], class_folder: Path
) -> tuple[tuple[str, ...], np.ndarray, int]:
    """Returns ids, labels from 0, and the label (0 or 1) that the list gives to the first class."""
    rank_of = {name: rank for rank, name in enumerate(class_names)}
    ids, ranks, labels = [], [], []
    for line in lines:
        image_id, _, label = line.text.rpartition(";")
        class_name = image_id.partition("/")[0]
        if class_name not in rank_of:
            raise line.error(
                f"{line.text!r} is not class/name.jpg;label with a class that is a folder in {class_folder}"
            )
        ids.append(image_id)
        ranks.append(rank_of[class_name])
        labels.append(parse_number(label, line, int))
    first_label = 1 if labels[0] == ranks[0] + 1 else 0
    for line, rank, told in zip(lines, ranks, labels, strict=True):
        if told != rank + first_label:
            raise line.error(
                f"the label is {told}, but {class_names[rank]} is class {rank + first_label} of the sorted folders in "
                f"{class_folder}, counted from {first_label}"
            )
    return tuple(ids), np.array(ranks, dtype=np.int64), first_label


def _parse_truth(line: Line, path: Path) -> np.ndarray:
    """`x0 y0 x1 y1 h w` -> (1, 4) `xyxy` in original pixels, once h and w have been found to be the picture's."""
    numbers = line.text.split()
    if len(numbers) != 6:
        raise line.error(f"{len(numbers)} numbers where x0 y0 x1 y1 h w are expected")
    box = parse_box(numbers[:4], line, strict=True)
    height, width = (parse_number(number, line) for number in numbers[4:])
    # An unreadable picture is the evaluation's to count; it says nothing against the line.
    with suppress(ImageError):
        found = read_image_size(path)
        if found != (width, height):
            raise line.error(
                f"the line is for a picture of {width:g}x{height:g} pixels, but {path} has {found[0]}x{found[1]}: "
                "the lines are not in the order of test_list.txt, or the pictures have been resized or turned since"
            )
    return box
