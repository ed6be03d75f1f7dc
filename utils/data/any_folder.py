"""A data set of one's own, in whichever of the two general layouts it comes."""

from __future__ import annotations

from pathlib import Path

from utils.data import image_folder, metadata
from utils.data.split import SPLITS_WITH_VAL, Split, check_split_name
from utils.system.errors import UserError


def load_split(folder: Path, split: str) -> Split:
    """Reads a split in wsolevaluation's metadata format (:mod:`utils.data.metadata`), or else of class folders
    (:mod:`utils.data.image_folder`), as :meth:`utils.data.dataset.Dataset.load_split`; its layout says which.

    A folder with neither layout is a UserError.
    """
    check_split_name(split, SPLITS_WITH_VAL)
    folder = Path(folder)
    if metadata.find_lists(folder):
        return metadata.load_split(folder, split)
    if any((folder / name).is_dir() for name in SPLITS_WITH_VAL):
        return image_folder.load_split(folder, split)
    raise UserError(
        f"no data set in {folder}: looked for {metadata.IDS} of wsolevaluation's format in "
        f"{{{','.join(SPLITS_WITH_VAL)}}} and metadata/{{{','.join(SPLITS_WITH_VAL)}}}, and for class folders in "
        f"{{{','.join(SPLITS_WITH_VAL)}}}; check --dataset-dir"
    )
