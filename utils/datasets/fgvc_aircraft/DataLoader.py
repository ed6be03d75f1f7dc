"""FGVC-Aircraft 2013b as its owners ship it becomes a Split.

    images/<id>.jpg; images_variant_{train,val,trainval,test}.txt (`id variant`); variants.txt (their order is the
    labels'); images_box.txt (`id xmin ymin xmax ymax`), in the given folder, or in data/ or fgvc-aircraft-2013b/data/
    below it.
Boxes count pixels from 1, both corners within. The lowest 20 rows of every picture are a banner with its copyright, and
are cut off.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from utils.data.listing import require_pictures
from utils.data.split import SPLITS_WITH_VAL, Split, check_split_name, parse_one_based_box, read_lines
from utils.system.errors import UserError

PAGE = "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/"
HINT = (
    f"get fgvc-aircraft-2013b.tar.gz from {PAGE}, which has its md5; --root names the folder that holds "
    "fgvc-aircraft-2013b"
)
PLACES = ("", "data", "fgvc-aircraft-2013b/data")
BANNER = 20  # rows
LIST_OF = {"train": "trainval", "val": "val", "test": "test"}  # of 6,667, 3,333 of these, and 3,333 pictures


def load_split(root: Path, split: str) -> Split:
    """Reads a split by variant, as :meth:`utils.data.dataset.Dataset.load_split`: "train", the owners' trainval as the
    authors take it, "val", the second half of these, or "test".

    Ids are `<id>.jpg`, labels the order of variants.txt.
    """
    check_split_name(split, SPLITS_WITH_VAL)
    folder = next(
        (Path(root) / place for place in PLACES if (Path(root) / place / "variants.txt").exists()), Path(root)
    )
    class_names = tuple(line.text for line in read_lines(folder / "variants.txt", HINT))
    label_of = {name: label for label, name in enumerate(class_names)}
    if len(label_of) < len(class_names):
        raise UserError(f"{folder / 'variants.txt'} names a variant twice; {HINT}")
    listed = folder / f"images_variant_{LIST_OF[split]}.txt"
    labels: dict[str, int] = {}
    for line in read_lines(listed, HINT):
        number, variant = [*line.text.split(maxsplit=1), ""][:2]  # a variant's name may have blanks
        if variant not in label_of:
            raise line.error(f"{variant!r} is no variant of variants.txt")
        if f"{number}.jpg" in labels:
            raise line.error(f"{number} comes a second time")
        labels[f"{number}.jpg"] = label_of[variant]
    boxes: dict[str, np.ndarray] = {}
    for line in read_lines(folder / "images_box.txt", HINT):
        number, *corners = line.text.split()
        if f"{number}.jpg" in boxes:
            raise line.error(f"{number} comes a second time")
        if f"{number}.jpg" in labels:
            boxes[f"{number}.jpg"] = parse_one_based_box(corners, line)
    require_pictures(folder / "images", list(labels), listed, HINT)
    return Split(
        name=split,
        layout=f"FGVC-Aircraft by variant as its owners ship it, by {listed}, boxes for {len(boxes)} of {len(labels)} "
        f"images, the {BANNER} rows of the copyright banner cut off",
        ids=tuple(labels),
        paths=tuple(folder / "images" / name for name in labels),
        labels=np.array(list(labels.values()), dtype=np.int64),
        boxes=boxes,
        class_names=class_names,
        masks={},
        banner=BANNER,
    )
