"""Any folder of class folders, as torchvision's ImageFolder reads it, becomes a Split; boxes and masks are optional.

    <folder>/{train,val,test}/<class>/<picture>, sub-folders of the class included; "test" is read from val/ where there
        is no test/.
    <folder>/boxes.csv with the heading id,x0,y0,x1,y1: one line a box in original pixels; the id is
        `<split>/<class>/<picture>` or, where no other split has a picture of that name, `<class>/<picture>`.
    <folder>/masks/<split>/<class>/<name>.png for <class>/<name>.jpg or the like; or masks/<class>/<name>.png where no
        other split has a picture of that name.
Boxes and masks refer to the stored pixels: an EXIF rotation is not applied.

The classes are the sorted class folders of train/, or of the split itself where there is no train/.
"""

from __future__ import annotations

import functools
import os
import posixpath
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from utils.data.listing import list_folders, list_pictures
from utils.data.masks import MaskFiles, find_masks
from utils.data.split import (
    SPLITS_WITH_VAL,
    Split,
    check_split_name,
    group_boxes,
    parse_box,
    read_table,
    shorten,
    split_of_class_folders,
)
from utils.system.errors import UserError

BOXES, MASKS = "boxes.csv", "masks"
HEADING = ("id", "x0", "y0", "x1", "y1")
HINT = "see the head of utils/data/image_folder.py for the layout"


def load_split(folder: Path, split: str) -> Split:
    """Reads a split with the boxes and masks that are there, as :meth:`utils.data.dataset.Dataset.load_split`; ids are
    `<class>/<picture>`."""
    check_split_name(split, SPLITS_WITH_VAL)
    folder = Path(folder)
    names = (split, "val") if split == "test" else (split,)
    source = next((name for name in names if (folder / name).is_dir()), None)
    if source is None:
        raise UserError(f"no folder {' or '.join(str(folder / name) for name in names)}; {HINT}")
    class_names = tuple(list_folders(folder / "train")) if (folder / "train").is_dir() else None
    pictures = split_of_class_folders(split, folder / source, f"class folders in {folder / source}", class_names)
    boxes, said = _read_boxes(folder, source, frozenset(pictures.ids))
    masks = _find_masks(folder, source, pictures.ids)
    if (folder / MASKS).is_dir():
        first = Path(MASKS, source, pictures.ids[0]).with_suffix(".png")
        said += f", masks for {len(masks)} of {len(pictures)} images"
        said += "" if masks else f" (looked for files such as {first.as_posix()})"
    return replace(pictures, layout=f"{pictures.layout}, {said}", boxes=boxes, masks=masks)


def _find_masks(folder: Path, source: str, ids: Sequence[str]) -> dict[str, MaskFiles]:
    shared = find_masks(folder / MASKS, ids)
    others = [folder / name for name in SPLITS_WITH_VAL if name != source and (folder / name).is_dir()]

    @functools.cache
    def stems(place: Path) -> set[str]:
        return {os.path.splitext(name)[0] for name in list_pictures(place)} if place.is_dir() else set()

    def has_namesake(image_id: str) -> bool:
        paths = [other / image_id for other in others]
        return any(path.stem in stems(path.parent) for path in paths)

    # A mask without its split's name could be that of another split's picture of the same name.
    own = {image_id: files for image_id, files in shared.items() if not has_namesake(image_id)}
    return own | find_masks(folder / MASKS / source, ids)


def _read_boxes(folder: Path, source: str, ids: frozenset[str]) -> tuple[dict[str, np.ndarray], str]:
    """The boxes of a split's images, and a phrase that says how many there are and what was passed over."""
    path = folder / BOXES
    if not path.exists():
        return {}, f"no boxes (there is no {BOXES})"
    others = [name for name in SPLITS_WITH_VAL if name != source and (folder / name).is_dir()]
    boxes, strays = [], []
    for line, (written, *numbers) in read_table(path, HEADING, HINT):
        box = parse_box(numbers, line)
        for root in (folder.absolute(), folder.resolve()):
            written = written.removeprefix(f"{root.as_posix()}/")
        name = posixpath.normpath(written)  # ./train/cat//x.jpg
        image_id = name.removeprefix(f"{source}/")
        if image_id not in ids:
            if os.path.isabs(name) or not any(os.path.isfile(folder / place / name) for place in ("", *others)):
                strays.append(name)
            continue
        if name == image_id and (twin := next((other for other in others if (folder / other / name).is_file()), None)):
            raise line.error(f"{name} is a picture in {source}/ and in {twin}/; write the split before the class")
        boxes.append((image_id, box))
    grouped = group_boxes(boxes, once=True)
    said = f"boxes for {len(grouped)} of {len(ids)} images"
    if strays:
        said += f" ({len(strays)} lines of {BOXES} name no picture, the first {shorten(strays[0])})"
    return grouped, said
