"""Stanford Cars as its owners shipped it, in either of two layouts, becomes a Split.

    cars_train/<n>.jpg, cars_test/<n>.jpg; devkit/cars_train_annos.mat, devkit/cars_meta.mat (`class_names`) and
        cars_test_annos_withlabels.mat, beside devkit/ or in it (`annotations`: `fname`, `class` from 1, `bbox_x1`,
        `bbox_y1`, `bbox_x2`, `bbox_y2`).
    The older one: car_ims/<n>.jpg and cars_annos.mat (`class_names`, `annotations` with `relative_im_path` and `test`).
Either in the given folder or in `stanford_cars` below it. Boxes count pixels from 1, both corners within.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.data.listing import require_pictures
from utils.data.matlab import read_matlab
from utils.data.split import Line, Split, check_split_name, parse_one_based_box, parse_one_based_label
from utils.system.errors import UserError

FOLDER = "stanford_cars"
TRAIN, META = "devkit/cars_train_annos.mat", "devkit/cars_meta.mat"
TEST = "cars_test_annos_withlabels.mat"
OLDER = "cars_annos.mat"
MD5 = {
    "cars_train.tgz": "065e5b463ae28d29e77c1b4b166cfe61",
    "cars_test.tgz": "4ce7ebf6a94d07f1952d94dd34c4d501",
    "car_devkit.tgz": "c3b158d763b6e2245038c8ad08e45376",
    TEST: "b0a2b23655a3edd16d84508592a98d10",
}
HINT = (
    "the owners' page, ai.stanford.edu/~jkrause/cars/car_dataset.html, is gone: find "
    f"{', '.join(f'{name} (md5 {md5})' for name, md5 in MD5.items())} elsewhere; --root names the folder that holds "
    "devkit"
)
CORNERS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


def load_split(root: Path, split: str) -> Split:
    """Reads "train" or "test", with boxes for both, as :meth:`utils.data.dataset.Dataset.load_split`; ids are the
    pictures' paths."""
    check_split_name(split)
    root = next((place for place in (Path(root), Path(root) / FOLDER) if _is_here(place)), Path(root))
    if (root / OLDER).exists():
        path, names_of, name_field = root / OLDER, root / OLDER, "relative_im_path"
    elif split == "train":
        path, names_of, name_field = root / TRAIN, root / META, "fname"
    else:
        path = next((root / place / TEST for place in ("", "devkit") if (root / place / TEST).exists()), root / TEST)
        names_of, name_field = root / META, "fname"
    records = read_matlab(path, ("annotations",), HINT)["annotations"]
    class_names = tuple(str(name) for name in read_matlab(names_of, ("class_names",), HINT)["class_names"])
    wanted = (name_field, "class", *CORNERS, *(("test",) if path.name == OLDER else ()))
    _require_fields(path, records, wanted)
    if path.name == OLDER:
        is_test = np.array([str(record["test"]) in ("1", "1.0") for record in records], dtype=bool)
        records = records[is_test == (split == "test")]
    folder = "" if path.name == OLDER else f"cars_{split}/"
    ids, labels, boxes = [], [], {}
    for record in records:
        image_id = folder + str(record[name_field])
        line = Line(f"{path}, {image_id}", image_id)
        ids.append(image_id)
        labels.append(parse_one_based_label(str(record["class"]), line))
        boxes[image_id] = parse_one_based_box([str(record[corner]) for corner in CORNERS], line)
    require_pictures(root, ids, path, HINT)
    return Split(
        name=split,
        layout=f"Stanford Cars as its owners shipped it, by {path}, boxes for all {len(ids)} images",
        ids=tuple(ids),
        paths=tuple(root / image_id for image_id in ids),
        labels=np.array(labels, dtype=np.int64),
        boxes=boxes,
        class_names=class_names,
        masks={},
    )


def _is_here(root: Path) -> bool:
    return any((root / name).exists() for name in (TRAIN, META, TEST, OLDER))


def _require_fields(path: Path, records: np.ndarray, wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in (records.dtype.names or ())]
    if missing:
        raise UserError(f"{path} has annotations without {missing[0]}; {HINT}")
