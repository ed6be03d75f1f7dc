"""Maps as files, `<folder>/<image id>.npy`, as wsolevaluation names and lays them out: other tools score ours, ours
scores theirs.

A file holds one map (h, w) of any size and range, of the square that the protocol looks at: the centre crop under the
authors' protocols, the whole picture under wsolevaluation's. Ours are (S, S), as thresholds see them, which the
folder's `maps.json` says; they are taken as they are. All others go a network's maps' road: normalised, upsampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.localization.sweep import ROUNDING
from utils.system.errors import UserError
from utils.system.files import read_json, write_atomically, write_json

RECORD = "maps.json"
SAME = ("protocol", "resize_size", "crop_size")


def path_of_map(folder: Path, image_id: str) -> Path:
    """The file of a picture's map, there or not.

    Raises:
        UserError: the id leads out of the folder.
    """
    name = Path(f"{image_id}.npy")
    if name.is_absolute() or ".." in name.parts:
        raise UserError(f"the image id {image_id} leads out of {folder}; it names no map")
    return folder / name


def are_scored(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether the maps were saved by :func:`save_map`, so that they are as thresholds see them.

    Args:
        folder: with maps.
        settings: protocol, sizes and the like, of now; those of `SAME` must be as `RECORD` has them.

    Raises:
        UserError: they were, under other rules.
    """
    path = folder / RECORD
    if not path.is_file():
        return False
    hint = "move it away to take the maps as another tool's"
    found = read_json(path, "does not describe maps", hint, lambda content: {name: content[name] for name in SAME})
    other = [f"{name} {value}" for name, value in found.items() if value != settings[name]]
    if other:
        raise UserError(f"the maps in {folder} were scored with {', '.join(other)}; give the same, or save them anew")
    return True


def begin_maps(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes what the maps are that are to be saved in a folder.

    Raises:
        UserError: it holds other maps, which nobody could tell from these afterwards.
    """
    path = folder / RECORD
    found = read_json(path, "does not describe maps", "choose another folder", dict) if path.is_file() else {}
    other = [f"{name} {found[name]}" for name, value in record.items() if found.get(name, value) != value]
    if (other or not found) and next(folder.rglob("*.np[yz]"), None) is not None:
        what = f"with {', '.join(other)}" if found else "of unknown origin"
        raise UserError(f"--save-maps: {folder} holds maps {what}; choose another folder, or remove it")
    write_json(path, record)


def save_map(folder: Path, image_id: str, score_map: np.ndarray) -> Path:
    """Saves a map as it was scored: (S, S) in [0, 1], float32 or float64.

    Raises:
        UserError: it cannot be written.
    """
    return write_atomically(path_of_map(folder, image_id), lambda file: np.save(file, score_map))


def read_map(folder: Path, image_id: str, shape: tuple[int, int] | None = None) -> np.ndarray:
    """Reads one map: (h, w) float32 or float64, finite.

    Args:
        folder: with maps.
        image_id: the picture's.
        shape: that a map which was scored already must have, and then values in [0, 1].

    Raises:
        UserError: there is none, it is damaged, or no map.
    """
    path = path_of_map(folder, image_id)
    if not path.is_file():
        raise UserError(f"there is no map {path}")
    try:
        values = np.load(path, allow_pickle=False)
    except Exception as error:  # numpy raises whatever a damaged header makes it stumble over
        raise UserError(f"{path} cannot be read as a map ({error})") from error
    if not (isinstance(values, np.ndarray) and values.ndim == 2 and values.size and values.dtype.kind in "fiub"):
        what = f"shape {values.shape} and type {values.dtype}" if isinstance(values, np.ndarray) else "several arrays"
        raise UserError(f"{path} holds {what}, not one map (height, width)")
    values = values.astype(values.dtype if values.dtype in (np.float32, np.float64) else np.float64)
    if not np.isfinite(values).all():
        raise UserError(f"{path} holds NaN or infinite values")
    if shape is not None and (values.shape != shape or values.min() < 0 or values.max() > 1 + ROUNDING):
        raise UserError(f"{path} is no map of shape {shape} with values from 0 to 1, as {RECORD} says")
    return values


def count_maps(folder: Path, image_ids: Sequence[str]) -> int:
    """How many of the pictures have a map in the folder.

    Raises:
        UserError: none of them has one.
    """
    count = sum(path_of_map(folder, image_id).is_file() for image_id in image_ids)
    if not count:
        raise UserError(
            f"there is no map of the {len(image_ids)} pictures in {folder}; wanted are files such as "
            f"{path_of_map(folder, image_ids[0])}"
        )
    return count
