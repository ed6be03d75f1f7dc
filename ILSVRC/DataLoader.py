"""ILSVRC2012 (ImageNet): its files, in any of three layouts, become a Split. "test" is the 50,000 validation images.

The owners' layout:
    train/<wnid>/*.JPEG; val/<wnid>/*.JPEG or the flat val/*.JPEG; Annotations/CLS-LOC/val/*.xml (or
    Annotations/val/*.xml), PASCAL-style with one or more objects.
Kaggle's tree, under the folder that holds them:
    ILSVRC/Data/CLS-LOC/{train,val}, ILSVRC/Annotations/CLS-LOC/val, LOC_synset_mapping.txt (`wnid names`) and
    LOC_val_solution.csv (`ImageId,PredictionString` with `wnid x0 y0 x1 y1 ...`).
The layout of the authors of BAS:
    train/ and val/ as above, val_list.txt (`wnid/name.JPEG;label`) and val_gt.txt
    (`wnid\\\\name.JPEG W H ; x0 y0 x1 y1 ...`, with two backslashes).
Boxes of any of these sources go with any of the folders, matched by the images' names. A class index is the rank of
its wnid in sorted order.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence, Set
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np

from utils.data.listing import describe_folders, list_class_pictures, list_folders, list_pictures, passed_over_phrase
from utils.data.split import (
    Line,
    Split,
    check_split_name,
    parse_boxes,
    parse_number,
    read_lines,
    read_table,
    split_of_class_folders,
)
from utils.data.voc_xml import Annotation, read_voc_xml
from utils.system.errors import UserError

HINT = (
    "get ILSVRC2012 (CLS-LOC) from https://www.image-net.org/ or Kaggle's imagenet-object-localization-challenge; "
    "--root names the folder that holds it"
)

_PICTURE_FOLDERS = ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")
_XML_FOLDERS = ("Annotations/CLS-LOC/val", "Annotations/val", "ILSVRC/Annotations/CLS-LOC/val")
_SYNSETS, _CSV = "LOC_synset_mapping.txt", "LOC_val_solution.csv"
_AUTHORS_BOXES, _AUTHORS_LIST = "val_gt.txt", "val_list.txt"


def load_split(root: Path, split: str) -> Split:
    """Reads "train", which needs no boxes, or "test", the validation images, as
    :meth:`utils.data.dataset.Dataset.load_split`.

    Ids are `<wnid>/<name>.JPEG` for training and `<name>.JPEG` for testing, class names are wnids.
    """
    check_split_name(split)
    root = Path(root)
    return _load_train(root) if split == "train" else _load_validation(root)


def class_names() -> tuple[str, ...]:
    """ImageNet's 1000 classes' names for people, as torchvision has them; a label is the rank of the sorted wnid."""
    from torchvision.models import ResNet50_Weights  # here, since the import takes a second

    return tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])


def _load_train(root: Path) -> Split:
    folder = _require_picture_folder(root, "train")
    layout = f"ILSVRC2012, class folders in {folder}"
    return split_of_class_folders("train", folder, layout, _read_synset_mapping(root))


def _load_validation(root: Path) -> Split:
    folder = _require_picture_folder(root, "val")
    passed_over: Counter[str] = Counter()
    pictures, kind = _list_validation_pictures(folder, passed_over)
    source, truths = _read_truths(root, frozenset(map(_stem, pictures)))
    names = sorted(pictures)
    without = [name for name in names if _stem(name) not in truths]
    if without:
        raise UserError(
            f"{source} has no box for {without[0]}, as for {len(without)} of the {len(names)} pictures in {folder}; "
            f"get the boxes anew or remove the pictures that are not of the validation set ({HINT})"
        )
    class_names = _find_class_names(root, pictures, truths)
    label_of = {wnid: label for label, wnid in enumerate(class_names)}
    listed = _read_authors_list(root / _AUTHORS_LIST, label_of)
    wnids = [_wnid(pictures[name]) or listed.get(_stem(name)) or truths[_stem(name)].names[0] for name in names]
    _require_agreement(names, wnids, truths, label_of, folder, source)
    unknown = [(name, wnid) for name, wnid in zip(names, wnids, strict=True) if wnid not in label_of]
    if unknown:
        raise UserError(
            f"{folder}: {unknown[0][0]} is of the class {unknown[0][1]}, which is none of the {len(class_names)} known "
            f"ones, as are {len(unknown)} of {len(names)} pictures; complete {_SYNSETS} or the class folders of train/"
        )
    sizes = {name: truths[_stem(name)].size for name in names}
    return Split(
        name="test",
        layout=f"ILSVRC2012 validation, {kind}, boxes from {source} ({len(names)} of its {len(truths)} images are "
        f"here){passed_over_phrase(passed_over)}",
        ids=tuple(names),
        paths=tuple(folder / pictures[name] for name in names),
        labels=np.array([label_of[wnid] for wnid in wnids], dtype=np.int64),
        boxes={name: truths[_stem(name)].boxes for name in names},
        class_names=class_names,
        masks={},
        sizes={name: size for name, size in sizes.items() if size is not None},
    )


# --- pictures and classes


def _find_picture_folder(root: Path, name: str) -> Path | None:
    return next((root / prefix / name for prefix in _PICTURE_FOLDERS if (root / prefix / name).is_dir()), None)


def _require_picture_folder(root: Path, name: str) -> Path:
    folder = _find_picture_folder(root, name)
    if folder is None:
        raise UserError(f"no folder {' or '.join(str(root / prefix / name) for prefix in _PICTURE_FOLDERS)}; {HINT}")
    return folder


def _list_validation_pictures(folder: Path, passed_over: Counter[str]) -> tuple[dict[str, str], str]:
    """The pictures, below class folders or flat; other files are counted by suffix.

    Returns:
        Picture name -> its path in `folder`; and a phrase that says how they lie.
    """
    others: Counter[str] = Counter()
    loose = list_pictures(folder, others)
    if not list_folders(folder):
        passed_over.update(others)  # beside class folders they are counted with these
        if not loose:
            told = passed_over_phrase(passed_over)
            raise UserError(f"{folder} holds neither pictures nor class folders{told}; {HINT}")
        pictures = {name: name for name in loose}
        _require_one_each(pictures, folder)
        return pictures, f"one flat folder in {folder}"
    if loose:
        raise UserError(
            f"{folder} holds class folders and {len(loose)} loose pictures, the first {loose[0]}; put all into class "
            "folders or none"
        )
    pictures = {}
    groups = list_class_pictures(folder, passed_over, may_be_empty=True)
    for path in (f"{wnid}/{picture}" for wnid, members in groups.items() for picture in members):
        place, _, name = path.rpartition("/")
        if name in pictures:
            first = (folder / pictures[name]).parent
            raise UserError(f"{name} lies in {first} and in {folder / place}; remove the wrong one")
        pictures[name] = path
    _require_one_each(pictures, folder)
    return pictures, f"class folders in {folder}{describe_folders(groups)}"


def _require_one_each(pictures: dict[str, str], folder: Path) -> None:
    """UserError if two files are one picture, as a.JPEG and a.jpg are: boxes go by the name without its suffix."""
    path_of: dict[str, str] = {}
    for name, path in pictures.items():
        if (other := path_of.setdefault(_stem(name), path)) != path:
            raise UserError(f"{folder} holds {other} and {path}, one picture twice; remove one of them")


def _require_agreement(
    names: Sequence[str],
    wnids: Sequence[str],
    truths: dict[str, Annotation],
    label_of: dict[str, int],
    folder: Path,
    source: str,
) -> None:
    """UserError if pictures lie in, or are listed under, another class than their boxes'. Boxes may have names that are
    no class here."""
    told = [truths[_stem(name)].names for name in names]
    wrong = [
        index
        for index, wnid in enumerate(wnids)
        if wnid not in told[index] and any(one in label_of for one in told[index])
    ]
    if wrong:
        raise UserError(
            f"{names[wrong[0]]} is of the class {wnids[wrong[0]]} by its place in {folder} or {_AUTHORS_LIST}, but "
            f"{source} says {told[wrong[0]][0]}, and so for {len(wrong)} of {len(names)} pictures; sort the pictures "
            "anew, or get the right list"
        )


def _wnid(path: str) -> str:
    """The class folder of a validation picture's path; "" in a flat folder."""
    return path.partition("/")[0] if "/" in path else ""


def _find_class_names(root: Path, pictures: dict[str, str], truths: dict[str, Annotation]) -> tuple[str, ...]:
    """The sorted wnids: of LOC_synset_mapping.txt, else train/'s folders, else val/'s folders, else the boxes'."""
    mapped = _read_synset_mapping(root)
    if mapped:
        return mapped
    train = _find_picture_folder(root, "train")
    folders = list_folders(train) if train else ()
    nested = {wnid for path in pictures.values() if (wnid := _wnid(path))}
    wnids = folders or nested or {truth.names[0] for truth in truths.values()}
    return tuple(sorted(wnids))


def _read_synset_mapping(root: Path) -> tuple[str, ...] | None:
    path = root / _SYNSETS
    if not path.exists():
        return None
    wnids: set[str] = set()
    for line in read_lines(path, HINT):
        wnid = line.text.split()[0]
        if wnid in wnids:
            raise line.error(f"the class {wnid} comes a second time")
        wnids.add(wnid)
    return tuple(sorted(wnids))


def _read_authors_list(path: Path, label_of: dict[str, int]) -> dict[str, str]:
    """Image stem -> wnid of val_list.txt, if there is one; its labels must count the classes as we do."""
    if not path.exists():
        return {}
    wnids = {}
    for line in read_lines(path, HINT):
        image, _, label = line.text.rpartition(";")
        wnid, _, name = image.partition("/")
        if not name:
            raise line.error(f"{line.text!r} is not wnid/name.JPEG;label")
        number = parse_number(label, line, int)
        if label_of.get(wnid, number) != number:
            raise line.error(
                f"the label is {number}, but {wnid} is class {label_of[wnid]} of the {len(label_of)} sorted wnids (for "
                f"a part of the classes, {_SYNSETS} names them all)"
            )
        wnids[_stem(name)] = wnid
    return wnids


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


# --- boxes


def _read_truths(root: Path, stems: Set[str]) -> tuple[str, dict[str, Annotation]]:
    """The box source's name, and image stem -> truth; one CSV or text file is read in a moment, 50,000 XML are not.

    `stems` are the pictures that there are: what is wrong with another picture's XML does not matter.
    """
    if (root / _CSV).exists():
        return str(root / _CSV), _read_csv(root / _CSV)
    for name in _XML_FOLDERS:
        if (root / name).is_dir():
            return str(root / name), _read_xml_folder(root / name, stems)
    if (root / _AUTHORS_BOXES).exists():
        return str(root / _AUTHORS_BOXES), _read_authors_boxes(root / _AUTHORS_BOXES)
    raise UserError(f"no boxes in {root} (looked for {_CSV}, {', '.join(_XML_FOLDERS)} and {_AUTHORS_BOXES}); {HINT}")


def _read_csv(path: Path) -> dict[str, Annotation]:
    truths: dict[str, Annotation] = {}
    for line, (stem, prediction) in read_table(path, ("ImageId", "PredictionString"), HINT):
        fields = prediction.split()
        if not fields or len(fields) % 5:
            raise line.error(f"{len(fields)} words where boxes of five (wnid x0 y0 x1 y1) are expected")
        numbers = [field for position, field in enumerate(fields) if position % 5]
        stem = re.sub(r"(?i)\.jpe?g$", "", stem)
        _add(truths, stem, Annotation(tuple(fields[::5]), parse_boxes(numbers, line), None), line)
    return truths


def _read_xml_folder(folder: Path, stems: Set[str]) -> dict[str, Annotation]:
    names = sorted(name for name in os.listdir(folder) if name.lower().endswith(".xml") and not name.startswith("."))
    if not names:
        raise UserError(f"{folder} holds no .xml files; {HINT}")
    truths: dict[str, Annotation] = {}
    for name in names:
        if _stem(name) in truths:
            raise UserError(f"{folder} holds two files for {_stem(name)}; remove the wrong one")
        with nullcontext() if _stem(name) in stems else suppress(UserError):
            truths[_stem(name)] = read_voc_xml(folder / name, HINT)
    return truths


def _read_authors_boxes(path: Path) -> dict[str, Annotation]:
    truths: dict[str, Annotation] = {}
    for line in read_lines(path, HINT):
        head, _, numbers = line.text.partition(";")
        # wnid\\name.JPEG W H
        match = re.fullmatch(r"([^\\/\s]+)[\\/]+([^\\/\s]+)\s+([0-9]+)\s+([0-9]+)", head.strip())
        if match is None:
            raise line.error(rf"{head.strip()!r} is not wnid\\name.JPEG W H, as must stand before the ;")
        wnid, name, width, height = match.groups()
        size = parse_number(width, line), parse_number(height, line)
        _add(truths, _stem(name), Annotation((wnid,), parse_boxes(numbers.split(), line), size), line)
    return truths


def _add(truths: dict[str, Annotation], stem: str, truth: Annotation, line: Line) -> None:
    if stem in truths:
        raise line.error(f"{stem} comes a second time")
    truths[stem] = truth
