"""Sheets of segments: picture, truth and mask, in VOC's colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from utils.data.images import read_image
from utils.data.split import Split
from utils.metrics.segmentation import IGNORED, Confusion
from utils.results.sheet import SIDE, Cell, Entry, save_sheet
from utils.segmentation.store import find_mask, palette, read_mask

OPACITY = 0.65
GROUPS = 2  # pictures in a row


def save_mask_sheet(path: Path, split: Split, indices: Sequence[int], masks: Path) -> Path:
    """Draws pictures, their true masks where there are some, and masks of a folder side by side; returns `path`.

    Args:
        path: the PNG to write.
        split: the pictures.
        indices: which of them.
        masks: the folder of the masks; pictures without one show nothing.

    Raises:
        UserError: a picture or mask cannot be read, matplotlib is missing, or the file cannot be written.
    """
    groups, seen = [], set()
    for index in indices:
        group, classes = _draw_group(split, index, masks)
        groups.append(group)
        seen |= classes
    rows = [sum(groups[start : start + GROUPS], []) for start in range(0, len(groups), GROUPS)]
    colours = palette()
    key = [Entry(split.class_names[number - 1], tuple(colours[number].tolist())) for number in sorted(seen)]
    return save_sheet(path, rows, key, group=3)


def _draw_group(split: Split, index: int, masks: Path) -> tuple[list[Cell], set[int]]:
    """The three cells of a picture, and the classes that they show."""
    image_id = split.ids[index]
    picture = np.asarray(read_image(split.paths[index]))
    positives = split.positives
    labels = [] if positives is None else [split.class_names[label] for label in np.flatnonzero(positives[index])]
    cells, seen = [Cell(_fit(picture), (", ".join(labels),))], set()
    truth = read_mask(split.masks[image_id].objects[0], len(split.class_names)) if image_id in split.masks else None
    found_at = find_mask(masks, image_id)
    found = None if found_at is None else read_mask(found_at, len(split.class_names))
    for mask, words in ((truth, "truth"), (found, _describe(found, truth, len(split.class_names)))):
        if mask is None or mask.shape != picture.shape[:2]:
            cells.append(Cell(np.full((SIDE, SIDE, 3), 255, np.uint8), ("no mask",)))
            continue
        cells.append(Cell(_fit(overlay(picture, mask)), (words,)))
        seen |= set(np.unique(mask[(mask != 0) & (mask != IGNORED)]).tolist())
    return cells, seen


def _describe(found: np.ndarray | None, truth: np.ndarray | None, num_classes: int) -> str:
    if found is None or truth is None or found.shape != truth.shape:
        return ""
    confusion = Confusion(num_classes)
    confusion.update(found, truth)
    return f"mean IoU {confusion.summary()['miou']:.1f}" if confusion.counts.any() else ""


def overlay(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Lays a mask's colours over a grey picture: (H, W, 3) and (H, W) uint8 -> (H, W, 3); what is to be ignored is
    white."""
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    colours = palette()
    colours[IGNORED] = 255
    blend = cv2.addWeighted(grey, 1 - OPACITY, colours[mask], OPACITY, 0)
    return np.where((mask == 0)[..., None], grey, blend)


def _fit(picture: np.ndarray) -> np.ndarray:
    """The whole picture, its longer side as long as a cell's, on white."""
    height, width = picture.shape[:2]
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    shrunk = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    cell = np.full((SIDE, SIDE, 3), 255, np.uint8)
    top, left = (SIDE - size[1]) // 2, (SIDE - size[0]) // 2
    cell[top : top + size[1], left : left + size[0]] = shrunk
    return cell
