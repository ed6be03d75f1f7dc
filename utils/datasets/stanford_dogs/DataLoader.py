"""Stanford Dogs as its owners ship it becomes a Split.

Images/<wnid>-<name>/<wnid>_<n>.jpg: images.tar.
Annotation/<wnid>-<name>/<wnid>_<n>, PASCAL VOC's XML without a suffix, with one or more dogs: annotation.tar.
train_list.mat, test_list.mat (`file_list`, `annotation_list`, `labels` from 1), beside these or in lists/: lists.tar.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from utils.data.listing import require_pictures
from utils.data.matlab import read_matlab
from utils.data.split import Line, Split, check_split_name, parse_one_based_label
from utils.data.voc_xml import read_voc_xml
from utils.system.errors import UserError

PAGE = "http://vision.stanford.edu/aditya86/ImageNetDogs/"
HINT = f"get images.tar, annotation.tar and lists.tar from {PAGE}; --root names the folder that holds Images"
ARRAYS = ("file_list", "annotation_list", "labels")


def load_split(root: Path, split: str) -> Split:
    """Reads "train" or "test", with boxes for both, as :meth:`utils.data.dataset.Dataset.load_split`.

    Ids are `<wnid>-<name>/<file>.jpg`, labels those of the lists, from 0.
    """
    check_split_name(split)
    root = Path(root)
    lists = next((root / place for place in ("", "lists") if (root / place / "train_list.mat").exists()), root)
    path = lists / f"{split}_list.mat"
    ids, labels, annotations = _read_list(path)
    folder_of = _name_classes(path, ids, labels)
    if split == "test" and (lists / "train_list.mat").exists():  # which has all classes
        folder_of |= _name_classes(lists / "train_list.mat", *_read_list(lists / "train_list.mat")[:2])
    missing = [label for label in range(max(folder_of) + 1) if label not in folder_of]
    if missing:
        raise UserError(f"{path} has no picture of class {missing[0] + 1}; {HINT}")
    require_pictures(root / "Images", ids, path, HINT)
    boxes = {
        image_id: read_voc_xml(root / "Annotation" / name, HINT).boxes
        for image_id, name in zip(ids, annotations, strict=True)
    }
    return Split(
        name=split,
        layout=f"Stanford Dogs as its owners ship it, in {root}, boxes for all {len(ids)} images",
        ids=ids,
        paths=tuple(root / "Images" / image_id for image_id in ids),
        labels=labels,
        boxes=boxes,
        class_names=tuple(
            folder_of[label].partition("-")[2].replace("_", " ") or folder_of[label] for label in sorted(folder_of)
        ),
        masks={},
    )


def _read_list(path: Path) -> tuple[tuple[str, ...], np.ndarray, list[str]]:
    """The pictures' ids, labels from 0, and the names of their annotations."""
    columns = read_matlab(path, ARRAYS, HINT)
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        counted = ", ".join(f"{count} {name}" for name, count in lengths.items())
        raise UserError(f"{path} holds {counted}, which must be equal; {HINT}")
    labels = []
    for number, (name, label) in enumerate(zip(columns["file_list"], columns["labels"], strict=True), start=1):
        line = Line(f"{path}, image {number}", str(name))
        if "/" not in line.text:
            raise line.error(f"{line.text!r} is not <wnid>-<name>/<file>.jpg")
        labels.append(parse_one_based_label(str(label), line))
    ids = tuple(str(name) for name in columns["file_list"])
    return ids, np.array(labels, dtype=np.int64), [str(name) for name in columns["annotation_list"]]


def _name_classes(path: Path, ids: tuple[str, ...], labels: np.ndarray) -> dict[int, str]:
    """Label -> class folder."""
    folder_of: dict[int, str] = {}
    for number, (image_id, label) in enumerate(zip(ids, labels.tolist(), strict=True), start=1):
        folder = image_id.partition("/")[0]
        if folder_of.setdefault(label, folder) != folder:
            line = Line(f"{path}, image {number}", image_id)
            raise line.error(f"the label of {folder} is {label + 1}, as that of {folder_of[label]}")
    return folder_of
