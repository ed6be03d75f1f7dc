"""Maps and masks as files: `<id>.npz` and IRN's `<id>.npy` for maps, `<id>.png` or `<id>.npy` for masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from utils.data.images import ImageError, open_picture
from utils.metrics.segmentation import IGNORED
from utils.segmentation.maps import PictureMaps
from utils.system.errors import UserError, reason_of
from utils.system.files import write_atomically

RECORD = "maps.json"


def save_maps(folder: Path, image_id: str, maps: PictureMaps, npy: bool = False) -> None:
    """Writes `<id>.npz`, and with `npy` beside it the dictionary that IRN's programs read (a pickle of tensors).

    Raises:
        UserError: a file cannot be written.
    """
    write_atomically(folder / f"{image_id}.npz", lambda path: np.savez(path, **maps._asdict()))
    if npy:
        content = {"keys": torch.from_numpy(maps.keys), "cam": torch.from_numpy(maps.cam), "high_res": maps.high_res}
        write_atomically(folder / f"{image_id}.npy", lambda path: np.save(path, np.array(content, dtype=object)))


def read_maps(folder: Path, image_id: str) -> PictureMaps:
    """Reads `<id>.npz`; no pickle is opened.

    Raises:
        UserError: it is missing, damaged or no such file.
    """
    path = folder / f"{image_id}.npz"
    try:
        with np.load(path, allow_pickle=False) as content:
            maps = PictureMaps(*(content[name] for name in PictureMaps._fields))
        if maps.high_res.ndim != 3 or len(maps.keys) != len(maps.high_res) or maps.keys.dtype.kind not in "iu":
            raise ValueError(f"{maps.keys.shape} classes for maps of shape {maps.high_res.shape}")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; make the maps of this list first") from error
    except Exception as error:  # of a damaged file, of whatever kind
        raise UserError(f"{path} is no file of maps ({reason_of(error)}); make it anew") from error
    return maps


def require_maps(folder: Path, ids: Sequence[str]) -> None:
    """UserError if the maps of some pictures are not there; the first is named and all are counted."""
    present = {path.stem for path in folder.glob("*.npz")} if folder.is_dir() else set()
    missing = [image_id for image_id in ids if image_id not in present]
    if missing:
        raise UserError(
            f"{folder} has no maps of {missing[0]}, as of {len(missing)} of {len(ids)} pictures of the list; make them "
            "by `python -m utils.segmentation maps`, which goes on where it stopped"
        )


def save_mask(path: Path, mask: np.ndarray) -> None:
    """Writes a mask (H, W) uint8 of class indices as a PNG with VOC's palette."""
    image = Image.fromarray(mask, mode="P")
    image.putpalette(palette().ravel().tolist())
    write_atomically(path, lambda temporary: image.save(temporary, format="PNG"))


def read_mask(path: Path, num_classes: int) -> np.ndarray:
    """Reads the class indices of a mask: a palette's numbers, never its colours, a grey picture's levels, or an array.

    Args:
        path: a picture, or an `.npy` file.
        num_classes: K, without the background.

    Returns:
        (H, W) uint8, 0 the background, 255 to be ignored.

    Raises:
        UserError: it cannot be read, or has other numbers.
    """
    if path.suffix == ".npy":
        try:
            values = np.load(path, allow_pickle=False)
        except Exception as error:
            raise UserError(f"the mask {path} cannot be read ({error}); save an array of numbers there") from error
    else:
        try:
            with open_picture(path) as image:
                mode, values, colours = image.mode, np.asarray(image), image.getpalette() or []
        except ImageError as error:
            raise UserError(str(error).replace("the picture", "the mask", 1)) from error
        if mode not in ("P", "L", "1", "I", "I;16"):
            raise UserError(
                f"the mask {path} is a picture in colours ({mode}); save class indices, with or without a palette"
            )
        if mode == "P":
            _require_known_palette(path, values, np.array(colours, dtype=np.uint8).reshape(-1, 3))
    if values.ndim != 2 or values.dtype.kind not in "iub":
        raise UserError(f"the mask {path} holds {values.dtype} of shape {values.shape}, where (H, W) indices are meant")
    wrong = np.unique(values[(values != IGNORED) & ((values > num_classes) | (values < 0))])
    if len(wrong):
        raise UserError(
            f"the mask {path} has the class {wrong[0]}, where 0 to {num_classes} and {IGNORED} are known; it is of "
            "another data set, or its colours were saved in place of its indices"
        )
    return values.astype(np.uint8)


def _require_known_palette(path: Path, values: np.ndarray, colours: np.ndarray) -> None:
    """UserError if a mask's numbers and colours say different classes: some tools number the colours anew that are
    used. A palette of other colours than VOC's, such as levels of grey, says nothing."""
    class_of = {tuple(colour): index for index, colour in enumerate(palette().tolist())}
    shown = {int(index): tuple(colours[index].tolist()) for index in np.unique(values) if index < len(colours)}
    told = {index: class_of.get(colour) for index, colour in shown.items()}
    if all(red == green == blue for red, green, blue in shown.values()):
        return
    wrong = [index for index, other in told.items() if other not in (0, None, index)]
    if wrong and None not in told.values():
        raise UserError(
            f"the mask {path} shows its number {wrong[0]} in the colour of class {told[wrong[0]]}: its colours were "
            "numbered anew when it was saved; save the class indices with VOC's palette, or as levels of grey"
        )


def find_mask(folder: Path, image_id: str) -> Path | None:
    """`<id>.png` or `<id>.npy`, if there."""
    return next((path for suffix in (".png", ".npy") if (path := folder / f"{image_id}{suffix}").is_file()), None)


def palette() -> np.ndarray:
    """VOC's colours: (256, 3) uint8; the bits of an index, dealt out to red, green and blue from the highest down."""
    index = np.arange(256)[:, None]
    colours = np.zeros((256, 3), dtype=np.int64)
    for place in range(8):
        bits = (index >> (3 * place + np.arange(3))) & 1
        colours |= bits << (7 - place)
    return colours.astype(np.uint8)
