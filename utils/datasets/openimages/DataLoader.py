"""OpenImages30k (Choe et al., CVPR 2020) as its owners ship it becomes a Split.

{train,val,test}/<class>/<id>.jpg: OpenImages_images.zip.
{val,test}/<class>/<id>_m<class>_<hash>.png, one an object, and <id>_ignore.png: OpenImages_annotations.zip, unpacked
    into the same folder.
{train,val,test}/{image_ids,class_labels,localization}.txt, or in metadata/ or metadata/OpenImages/: wsolevaluation's
    lists, see the head of `utils/data/metadata.py`.
"""

from __future__ import annotations

from pathlib import Path

from utils.data import metadata
from utils.data.split import SPLITS_WITH_VAL, Split, check_split_name
from utils.system.errors import UserError

IMAGES = "https://drive.google.com/file/d/1oOb4WQ-lb8SYppHEg3lWnpHk1X8WVO4e/view"
MASKS = "https://drive.google.com/file/d/1eu1YvcZlsEalhXTS_5Ni5tkImCliIPie/view"
LISTS = "https://github.com/clovaai/wsolevaluation (metadata/OpenImages)"
HINT = (
    f"get OpenImages_images.zip ({IMAGES}), OpenImages_annotations.zip ({MASKS}) and the lists of {LISTS}; --root "
    "names the folder that holds train, val, test and metadata"
)


def load_split(root: Path, split: str) -> Split:
    """Reads "train", which has no masks, "val" or "test", as :meth:`utils.data.dataset.Dataset.load_split`.

    Ids are `<split>/<class>/<id>.jpg`, class names those of the class folders.
    """
    check_split_name(split, SPLITS_WITH_VAL)
    root = Path(root)
    for folder in (root, root / "metadata" / "OpenImages"):
        if split in metadata.find_lists(folder):
            found = metadata.load_split(folder, split, pictures=root)
            if split != "train" and not found.masks:
                raise UserError(f"no masks for the {split} split ({found.layout}); {HINT}")
            return found
    places = ", ".join(str(root / place / split) for place in ("", "metadata", "metadata/OpenImages"))
    raise UserError(f"no OpenImages30k in {root} (looked for {metadata.IDS} in {places}); {HINT}")
