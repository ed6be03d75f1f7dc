"""Any data set described in wsolevaluation's metadata format becomes a Split.

In `<folder>/<split>/` or `<folder>/metadata/<split>/`, for the splits "train", "val" and "test" that there are:
    image_ids.txt     one image id a line: the picture's path below the pictures' folder.
    class_labels.txt  `id,label`, labels from 0.
    localization.txt  `id,x0,y0,x1,y1` in original pixels, one line a box, or `id,mask,ignore`, one line a mask; ignore
                      is a mask of pixels that do not count, given once an image or left empty. May be missing.
    image_sizes.txt   `id,width,height` of the pictures that the boxes were drawn on. May be missing.
The pictures lie at `<folder>/<id>`, `<folder>/images/<id>` or `<folder>/<split>/<id>`, masks in one of the same places.
`<folder>/classes.txt`, if there, names the classes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from utils.data.class_names import read_class_names
from utils.data.listing import require_pictures
from utils.data.masks import MaskFiles
from utils.data.split import (
    SPLITS_WITH_VAL,
    Line,
    Split,
    check_split_name,
    group_boxes,
    parse_box,
    parse_label,
    parse_number,
    read_lines,
    shorten,
)
from utils.system.errors import UserError

IDS, LABELS, TRUTHS, CLASSES = "image_ids.txt", "class_labels.txt", "localization.txt", "classes.txt"
SIZES = "image_sizes.txt"
HINT = "wsolevaluation's metadata format needs it: see the head of utils/data/metadata.py"

# So many files are looked for in each place before it is taken for the wrong one.
_PROBES = 100


def load_split(folder: Path, split: str, pictures: Path | None = None) -> Split:
    """Reads a split with the boxes or masks that are there, as :meth:`utils.data.dataset.Dataset.load_split`.

    `pictures` is where the ids start, if not at one of the usual places; also those of the masks.
    """
    check_split_name(split, SPLITS_WITH_VAL)
    folder = Path(folder)
    lists = find_lists(folder)
    if split not in lists:
        raise UserError(f"no {split} split in {folder} (looked for {split}/{IDS} and metadata/{split}/{IDS}); {HINT}")
    here = lists[split]
    ids = tuple(line.text for line in read_lines(here / IDS, HINT))
    twice = [image_id for image_id, count in Counter(ids).items() if count > 1]
    if twice:
        raise UserError(f"{here / IDS} names {shorten(twice[0])} twice; keep one of the two lines")
    labels = {name: _read_labels(path) for name, path in lists.items()}
    unlabelled = [image_id for image_id in ids if image_id not in labels[split]]
    if unlabelled:
        raise UserError(
            f"{here / LABELS} has no label for {shorten(unlabelled[0])}, as for {len(unlabelled)} of the {len(ids)} "
            f"images of {here / IDS}; add the lines or get the file anew"
        )
    places = (Path(pictures),) if pictures else (folder, folder / "images", folder / split)
    root = _find_place(places, ids)
    if root is None:
        raise UserError(
            f"the picture {shorten(ids[0])}, as others that {here / IDS} names, is in none of "
            f"{', '.join(map(str, places))}; put the pictures into one of these"
        )
    require_pictures(root, ids, here / IDS, "fetch them or take their lines out of the list")
    boxes, masks, truths = _read_truths(here / TRUTHS, frozenset(ids), tuple(dict.fromkeys((*places, folder))))
    others = len(labels[split]) - len(set(ids))
    more = f"; {LABELS} has labels of {others} images that {IDS} does not name" if others else ""
    return Split(
        name=split,
        layout=f"wsolevaluation's metadata in {here}, pictures in {root}, {truths}{more}",
        ids=ids,
        paths=tuple(root / image_id for image_id in ids),
        labels=np.array([labels[split][image_id] for image_id in ids], dtype=np.int64),
        boxes=boxes,
        class_names=_name_classes(folder / CLASSES, labels),
        masks=masks,
        sizes=_read_sizes(here / SIZES) if boxes else {},
    )


def find_lists(folder: Path) -> dict[str, Path]:
    """Finds the metadata's folders: split -> the folder of its lists, for the splits that there are.

    One of two lists is enough, so that the other one is missed by its name.
    """
    found = {}
    for split in SPLITS_WITH_VAL:
        places = (folder / split, folder / "metadata" / split)
        found[split] = next((place for place in places if any((place / name).exists() for name in (IDS, LABELS))), None)
    return {split: place for split, place in found.items() if place is not None}


def _find_place(places: Sequence[Path], names: Sequence[str]) -> Path | None:
    probes = names[:_PROBES]
    return next((place for place in places if any(os.path.isfile(place / name) for name in probes)), None)


# --- labels and classes


def _read_labels(folder: Path) -> dict[str, int]:
    labels: dict[str, int] = {}
    for line in read_lines(folder / LABELS, HINT):
        image_id, _, text = line.text.rpartition(",")
        if not image_id:
            raise line.error(f"{line.text!r} is not id,label")
        label = parse_label(text, line)
        if labels.setdefault(image_id, label) != label:
            raise line.error(f"the label of {image_id} is {label}, but {labels[image_id]} in an earlier line")
    return labels


def _name_classes(path: Path, labels: Mapping[str, Mapping[str, int]]) -> tuple[str, ...]:
    """The names of classes.txt, else of the classes' folders where each has its own, else the labels' numbers."""
    count = max(max(members.values()) for members in labels.values()) + 1
    if path.exists():
        names = read_class_names(path)
        if len(names) < count:
            raise UserError(f"{path} names {len(names)} classes, but labels go up to {count - 1}; add the others")
        return names
    # The first part of the ids as in CUB's, or the last folder as in train/n01440764/x.JPEG.
    folder_name_of = {label: str(label) for label in range(count)}
    candidates = ((members, part) for members in labels.values() for part in (0, -2))
    folder_name_of |= next(filter(None, (_name_by_folder(*candidate) for candidate in candidates)), {})
    return tuple(folder_name_of.values())


def _name_by_folder(labels: Mapping[str, int], part: int) -> dict[int, str]:
    """Label -> the one part of its ids' paths that no other label has, or nothing where that does not hold for all."""
    names: dict[int, str] = {}
    for image_id, label in labels.items():
        parts = image_id.split("/")
        if len(parts) < 2 or names.setdefault(label, parts[part]) != parts[part]:
            return {}
    return names if len(set(names.values())) == len(names) else {}


# --- boxes and masks


def _read_truths(
    path: Path, ids: frozenset[str], places: Sequence[Path]
) -> tuple[dict[str, np.ndarray], dict[str, MaskFiles], str]:
    """Boxes, masks and a phrase that says which and for how many images; lines of other images are passed over."""
    if not path.exists():
        return {}, {}, f"no boxes and no masks (there is no {path.name})"
    listed_rows = [(line, _fields(line.text, ids)) for line in read_lines(path, HINT)]
    rows = [(line, fields) for line, fields in listed_rows if fields[0] in ids]
    count, strays = len(listed_rows), [fields[0] for _, fields in listed_rows if fields[0] not in ids]
    if count and not rows:
        return {}, {}, f"no boxes and no masks ({path.name} has {count} lines, none of them of an image of {IDS})"
    told = f" ({len(strays)} lines of {path.name} name none of {IDS}, the first {shorten(strays[0])})" if strays else ""
    if not rows or not _names_a_mask(rows[0][1]):
        boxes = group_boxes(((fields[0], parse_box(fields[1:], line)) for line, fields in rows), once=True)
        return boxes, {}, f"boxes for {len(boxes)} of {len(ids)} images{told}"
    listed = _list_masks(rows)
    names = [name for objects, _ in listed.values() for name in objects]
    root = _find_place(places, names)
    if root is None:
        looked = ", ".join(map(str, places))
        return {}, {}, f"no boxes, and no masks: {names[0]} and the others of {path.name} are in none of {looked}"
    masks = {
        image_id: MaskFiles(tuple(root / name for name in objects), root / ignore if ignore else None)
        for image_id, (objects, ignore) in listed.items()
    }
    return {}, masks, f"no boxes, masks for {len(masks)} of {len(ids)} images{told}"


def _fields(text: str, ids: frozenset[str]) -> list[str]:
    """A line's fields, the first of them an image's id if it can be: a name may hold commas."""
    ways = (text.split(","), text.rsplit(",", 4), text.rsplit(",", 2), text.rsplit(",", 1))
    found = next((fields for fields in ways if fields[0].strip() in ids), ways[0])
    return [field.strip() for field in found]


def _read_sizes(path: Path) -> dict[str, tuple[float, float]]:
    """Image id -> (width, height), for the images of the list, if there is one."""
    if not path.exists():
        return {}
    sizes = {}
    for line in read_lines(path, HINT):
        image_id, *numbers = line.text.rsplit(",", maxsplit=2)
        if len(numbers) != 2:
            raise line.error(f"{line.text!r} is not id,width,height")
        sizes[image_id] = (parse_number(numbers[0], line), parse_number(numbers[1], line))
    return sizes


def _names_a_mask(fields: Sequence[str]) -> bool:
    if len(fields) not in (2, 3):
        return False
    try:
        float(fields[1])
    except ValueError:
        return True
    return False


def _list_masks(rows: Sequence[tuple[Line, list[str]]]) -> dict[str, tuple[list[str], str]]:
    """Image id -> names of its object masks, and of its ignore mask or ""."""
    masks: dict[str, tuple[list[str], str]] = {}
    for line, fields in rows:
        if len(fields) not in (2, 3) or not fields[1]:
            raise line.error(f"{line.text!r} is not id,mask,ignore")
        image_id, name, ignore = (*fields, "")[:3]
        objects, known = masks.get(image_id, ([], ""))
        if known and ignore and ignore != known:
            raise line.error(f"{image_id} has a second ignore mask, {ignore}, after {known}; an image has one at most")
        masks[image_id] = ([*objects, name], known or ignore)
    return masks
