"""PASCAL VOC 2012 as its owners ship it becomes a Split, whose pictures have several classes.

    JPEGImages/<id>.jpg, Annotations/<id>.xml, SegmentationClass/<id>.png (palette: 0 background, 1 to 20 the classes,
        255 to be ignored), ImageSets/Segmentation/{train,val}.txt, in the given folder, or in VOC2012/ or
        VOCdevkit/VOC2012/ below it: VOCtrainval_11-May-2012.tar.
    train_aug.txt in the given folder, this one or ImageSets/Segmentation/: the 10,582 pictures that methods train on,
        by the list of IRN's authors, of bare ids or of `/JPEGImages/<id>.jpg /SegmentationClassAug/<id>.png`. Without
        it, train.txt is trained on.
Labels are the classes of all objects in the XML, difficult ones included, as the authors have them; where there is no
Annotations/, those of cls_labels.npy (IRN's: a dictionary from the id as a number to 20 numbers, 0 or 1) or of
train_cls.txt and val_cls.txt (`id class ...`, classes from 0).
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from utils.data.listing import require_pictures
from utils.data.masks import MaskFiles
from utils.data.split import SPLITS_WITH_VAL, Split, check_split_name, parse_number, read_bytes, read_lines
from utils.data.voc_xml import read_voc_xml
from utils.system.errors import UsageError, UserError, reason_of

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
LISTS = ("train", "train_aug", "val")
PAGE = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"
URL = f"{PAGE}VOCtrainval_11-May-2012.tar"
MD5 = "6cd6e144f989b92b3379bac3b3de84fd"
HINT = (
    f"get VOCtrainval_11-May-2012.tar (md5 {MD5}) from {PAGE}, or let train.py --download do it; --root names the "
    "folder that holds VOCdevkit"
)
AUG_HINT = (
    "train_aug.txt (md5 215992f6fd958f89800449fdb4bbabe6) is in voc12/ of https://github.com/jiwoon-ahn/irn; put it "
    "into ImageSets/Segmentation"
)
PLACES = ("", "VOC2012", "VOCdevkit/VOC2012")
CLS_LABELS = "cls_labels.npy"


def load_split(root: Path, split: str) -> Split:
    """Reads "train", train_aug where its list is there, or "val", as :meth:`utils.data.dataset.Dataset.load_split`; its
    "test" has no public truth.

    All labels are the split's `positives`, the first one is its label.
    """
    check_split_name(split, SPLITS_WITH_VAL)
    if split == "test":
        raise UserError(
            "VOC's pictures have several classes, and its test set no public truth; score maps and masks by `python -m "
            "utils.segmentation`"
        )
    if split == "val":
        return load_list(root, "val")
    has_aug = any((place / "train_aug.txt").exists() for place in _places_of_lists(Path(root)))
    if has_aug:
        return load_list(root, "train_aug")
    found = load_list(root, "train")
    return replace(found, layout=f"{found.layout} (for the 10,582 pictures that methods train on: {AUG_HINT})")


def load_list(root: Path, name: str) -> Split:
    """As :func:`load_split`, of a list of LISTS (UsageError for another), with masks as far as there are; the split is
    called "train" or "val"."""
    if name not in LISTS:
        raise UsageError(f"no list is called {name!r}; choose one of {', '.join(LISTS)}")
    root = Path(root)
    folder = _find_folder(root)
    path = next(
        (place / f"{name}.txt" for place in _places_of_lists(root) if (place / f"{name}.txt").exists()),
        folder / "ImageSets" / "Segmentation" / f"{name}.txt",
    )
    lines = read_lines(path, AUG_HINT if name == "train_aug" else HINT)
    ids = tuple(PurePosixPath(line.text.split()[0]).stem for line in lines)
    require_pictures(folder / "JPEGImages", [f"{image_id}.jpg" for image_id in ids], path, HINT)
    positives, source = _read_labels(root, folder, name, ids)
    without = np.flatnonzero(~positives.any(axis=1))
    if len(without):
        first = ids[without[0]]
        raise UserError(
            f"{first} of {path} has no label in {source}, as {len(without)} of {len(ids)} pictures; take their lines "
            "out of the list, or get the labels anew"
        )
    masks = folder / "SegmentationClass"
    present = {entry.stem for entry in masks.glob("*.png")} if masks.is_dir() else set()
    masks_of = {image_id: MaskFiles((masks / f"{image_id}.png",)) for image_id in ids if image_id in present}
    return Split(
        name="val" if name == "val" else "train",
        layout=f"PASCAL VOC 2012 in {folder}, {path.name}, labels from {source} "
        f"({positives.sum() / len(ids):.2f} a picture), masks for {len(masks_of)} of {len(ids)} images",
        ids=ids,
        paths=tuple(folder / "JPEGImages" / f"{image_id}.jpg" for image_id in ids),
        labels=positives.argmax(axis=1).astype(np.int64),
        boxes={},
        class_names=CLASSES,
        masks=masks_of,
        positives=positives,
    )


def download(root: Path, url: str = URL, md5: str = MD5) -> None:
    """Fetches the data set from its owners into `root`/VOCdevkit, unless it is there; arguments and errors as for
    :func:`utils.data.download.download_dataset`."""
    from utils.data.download import download_dataset  # here, since it takes a second for torchvision

    if not any((Path(root) / place / "JPEGImages").is_dir() for place in PLACES):
        download_dataset(Path(root) / "VOCdevkit", url, md5, PAGE)


def class_names() -> tuple[str, ...]:
    """The 20 classes, in the order of the labels."""
    return CLASSES


def _find_folder(root: Path) -> Path:
    folder = next((root / place for place in PLACES if (root / place / "JPEGImages").is_dir()), None)
    if folder is None:
        raise UserError(f"no PASCAL VOC in {root} (looked for JPEGImages in it, VOC2012 and VOCdevkit/VOC2012); {HINT}")
    return folder


def _places_of_lists(root: Path) -> list[Path]:
    folder = _find_folder(root)
    return [folder / "ImageSets" / "Segmentation", folder, root]


# --- labels


def _read_labels(root: Path, folder: Path, name: str, ids: Sequence[str]) -> tuple[np.ndarray, str]:
    """(N, 20) bool, and where they are from."""
    if (folder / "Annotations").is_dir():
        rows = [_read_xml(folder / "Annotations" / f"{image_id}.xml") for image_id in ids]
        return np.stack(rows), str(folder / "Annotations")
    files = [CLS_LABELS, f"{'val' if name == 'val' else 'train'}_cls.txt"]
    path = next((place / file for place in (folder, root) for file in files if (place / file).exists()), None)
    if path is None:
        raise UserError(f"no labels in {folder} (looked for Annotations, {' and '.join(files)}); {HINT}")
    known = _read_cls_labels(path) if path.name == CLS_LABELS else _read_cls_list(path)
    missing = [image_id for image_id in ids if image_id not in known]
    if missing:
        raise UserError(f"{path} has no labels for {missing[0]}, as for {len(missing)} of {len(ids)} pictures; {HINT}")
    return np.stack([known[image_id] for image_id in ids]), str(path)


def _read_xml(path: Path) -> np.ndarray:
    found = np.zeros(len(CLASSES), dtype=bool)
    for name in read_voc_xml(path, HINT).names:
        if name not in CLASSES:
            raise UserError(f"{path} has an object of the class {name!r}, which is none of VOC's 20; {HINT}")
        found[CLASSES.index(name)] = True
    return found


def _read_cls_list(path: Path) -> dict[str, np.ndarray]:
    known: dict[str, np.ndarray] = {}
    for line in read_lines(path, HINT):
        image_id, *classes = line.text.split()
        row = np.zeros(len(CLASSES), dtype=bool)
        for word in classes:
            number = parse_number(word, line, int)
            if not 0 <= number < len(CLASSES):
                raise line.error(f"the class {number} is not between 0 and {len(CLASSES) - 1}")
            row[number] = True
        known[image_id] = known.get(image_id, row) | row  # a line each, or one for all
    return known


_OF_ARRAYS = ("_reconstruct", "ndarray", "dtype", "_frombuffer", "scalar")


class _NumpyUnpickler(pickle.Unpickler):
    """Makes arrays of numbers out of a pickle, and nothing else that it asks for."""

    def find_class(self, module: str, name: str) -> Any:
        is_numpys = module.split(".")[0] == "numpy" and name in _OF_ARRAYS
        if is_numpys or (module, name) == ("_codecs", "encode"):  # by which Python 2's protocol writes bytes
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _read_cls_labels(path: Path) -> Mapping[str, np.ndarray]:
    """IRN's dictionary: the id as a number -> 20 numbers, as `np.save` wrote it."""
    content = io.BytesIO(read_bytes(path, HINT))
    try:
        version = np.lib.format.read_magic(content)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        read_header(content)
        (found,) = np.atleast_1d(_NumpyUnpickler(content).load())
        known = {}
        for number, values in found.items():
            row = np.asarray(values)
            if row.shape != (len(CLASSES),) or not np.isin(row, (0, 1)).all():
                raise ValueError(f"the labels of {number} are not {len(CLASSES)} numbers, 0 or 1")
            digits = f"{int(number):010d}"  # 2007000032 is 2007_000032
            known[f"{digits[:4]}_{digits[4:]}"] = row.astype(bool)
    except Exception as error:  # of a damaged file, of whatever kind
        raise UserError(f"{path} is no {CLS_LABELS} that can be read ({reason_of(error)}); {HINT}") from error
    return known
