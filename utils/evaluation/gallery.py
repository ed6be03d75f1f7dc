"""Sheets of test pictures: each picture with its true boxes, then its maps with the boxes that are found; outlines
where there are masks and no boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from utils.data.class_names import short_name
from utils.data.evaluation import EvaluationBatch, read_pictures
from utils.data.mask_levels import OBJECT
from utils.data.split import Split
from utils.data.transforms import as_image, centre_crop
from utils.evaluation.kinds import TITLES, MapKind
from utils.evaluation.maps import make_maps
from utils.evaluation.run import cut_crops, true_boxes
from utils.evaluation.spec import EvaluationSpec
from utils.localization.boxes import best_ious
from utils.metrics import pixel_iou
from utils.models.bas import BAS
from utils.results.drawing import PREDICTED_COLOUR, TRUE_COLOUR, draw_boxes, draw_outline, overlay_map
from utils.results.sheet import SCALE, SIDE, Cell, Entry, save_sheet

COLUMNS = 6
BATCH = 16
LIMIT = 0.5  # the IoU above or from which a box is right


class Subject(NamedTuple):
    """A picture as the network sees it."""

    image: np.ndarray  # (S, S, 3) uint8 RGB, the centre crop
    name: str  # of its class
    boxes: np.ndarray  # (n, 4) true ones, xyxy in crop pixels; perhaps none
    mask: np.ndarray | None = None  # (S, S), see `utils.data.masks.read_mask`, of a data set without boxes


class Found(NamedTuple):
    score_map: np.ndarray  # (S, S) in [0, 1]
    box: np.ndarray  # (4,) where it finds the object, xyxy in crop pixels


def save_gallery(
    path: Path, model: BAS, split: Split, indices: Sequence[int], spec: EvaluationSpec, device: torch.device
) -> Path:
    """Localises a few pictures of a split and saves the sheet; returns its `path`.

    Args:
        path: the PNG to write.
        model: on `device`.
        split: pictures and true boxes.
        indices: which pictures; all must be readable.
        spec: sizes, and the kinds of maps to show with their thresholds.
        device: where the model is.

    Raises:
        UserError: a picture cannot be read, matplotlib is missing, or the file cannot be written.
    """
    spec = replace(spec, ten_crops=False, grid=())
    groups = []
    for start in range(0, len(indices), BATCH):
        found = localize_pictures(model, split, indices[start : start + BATCH], spec, device)
        groups += [draw_group(*one, spec) for one in found]
    size = 1 + len(spec.thresholds)
    per_row = max(1, COLUMNS // size)
    rows = [sum(groups[i : i + per_row], []) for i in range(0, len(groups), per_row)]
    return save_sheet(path, rows, build_key(spec, spec.with_masks and not split.boxes), group=size)


def read_subjects(split: Split, indices: Sequence[int], spec: EvaluationSpec) -> tuple[EvaluationBatch, list[Subject]]:
    """Reads pictures, as a batch for the network and as they are shown.

    Raises:
        UserError: a picture cannot be read.
    """
    with_masks = spec.with_masks and not split.boxes
    any_level = spec.protocol.any_level
    batch = read_pictures(split, indices, spec.resize_size, spec.crop_size, with_masks, any_level)
    masks = [None] * len(indices) if batch.masks is None else list(batch.masks.numpy())
    subjects = []
    crops = as_image(centre_crop(batch.images, spec.crop_size))
    for crop, index, size, mask in zip(crops, indices, batch.sizes.tolist(), masks, strict=True):
        has_boxes = len(split.boxes.get(split.ids[index], ())) > 0
        boxes = true_boxes(split, index, size, spec) if has_boxes else np.empty((0, 4))
        subjects.append(Subject(crop, short_name(split.class_names[split.labels[index]]), boxes, mask))
    return batch, subjects


@torch.no_grad()
def localize_pictures(
    model: BAS, split: Split, indices: Sequence[int], spec: EvaluationSpec, device: torch.device
) -> list[tuple[Subject, dict[MapKind, Found]]]:
    """Localises a batch of pictures; arguments and errors as for :func:`save_gallery`."""
    model.eval()
    batch, subjects = read_subjects(split, indices, spec)
    with torch.autocast(device.type, enabled=spec.amp):
        encoding = model.encode_crops(*cut_crops(batch.images.to(device), spec))
        maps = make_maps(model, encoding, tuple(spec.thresholds), batch.labels.to(device))
    found: list[dict[MapKind, Found]] = [{} for _ in subjects]
    for kind, threshold in spec.thresholds.items():
        for one, spatial_map in zip(found, maps[kind][:, 0].float().cpu().numpy(), strict=True):
            score_map = spec.score_map(model, kind, spatial_map)
            one[kind] = Found(score_map, spec.protocol.boxes(score_map, (threshold,))[0])
    return list(zip(subjects, found, strict=True))


def draw_group(subject: Subject, found: Mapping[MapKind, Found], spec: EvaluationSpec) -> list[Cell]:
    """The cells of one picture: itself with its true boxes, then each map with the true boxes and its own."""
    image = cv2.resize(subject.image, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    cells = [Cell(image.copy(), (subject.name,))]
    if subject.mask is not None:
        return cells + _draw_masks(image, cells[0], subject.mask, found, spec)
    scale = SIDE / len(subject.image)
    cells += [
        Cell(overlay_map(image, one.score_map), (kind.title, *_describe_hit(one.box, subject.boxes, spec)))
        for kind, one in found.items()
    ]
    for cell, box in zip(cells, (None, *(one.box * scale for one in found.values())), strict=True):
        draw_boxes(cell.image, subject.boxes * scale, box)
    return cells


def _draw_masks(
    image: np.ndarray, first: Cell, mask: np.ndarray, found: Mapping[MapKind, Found], spec: EvaluationSpec
) -> list[Cell]:
    """The cells of the maps, with outlines of mask and map; the picture's own cell gets the mask's."""
    draw_outline(first.image, mask == OBJECT, TRUE_COLOUR)
    cells = []
    for kind, one in found.items():
        threshold = spec.thresholds[kind]
        iou = pixel_iou(one.score_map, threshold, mask)
        cell = Cell(overlay_map(image, one.score_map), (kind.title, *(() if iou is None else (f"IoU {iou:.2f}",))))
        draw_outline(cell.image, mask == OBJECT, TRUE_COLOUR)
        draw_outline(cell.image, one.score_map >= threshold, PREDICTED_COLOUR)
        cells.append(cell)
    return cells


def build_key(spec: EvaluationSpec, of_masks: bool = False) -> list[Entry]:
    """What colours, marks and maps mean; for outlines of masks, or for boxes."""
    rule = "above 0.5" if spec.protocol.strict else "0.5 or more"
    of_class = [TITLES[kind.kind] for kind in spec.thresholds if kind.kind in ("cam", "gradcam")]
    return [
        Entry("true mask" if of_masks else "true box", TRUE_COLOUR),
        Entry("map at its threshold" if of_masks else "predicted box", PREDICTED_COLOUR),
        Entry("map, low to high", SCALE),
        Entry("IoU of pixels" if of_masks else f"✓ ✗  IoU {rule} or not"),
        *([Entry(f"{' and '.join(of_class)} of the true class")] if of_class else []),
    ]


def _describe_hit(box: np.ndarray, boxes: np.ndarray, spec: EvaluationSpec) -> tuple[str, ...]:
    """The IoU and whether it is right; with more decimals than two where it would be rounded to the limit."""
    if not len(boxes):
        return ()
    iou = float(best_ious([box], boxes)[0])
    digits = next((digits for digits in (2, 3, 4) if iou == LIMIT or round(iou, digits) != LIMIT), 5)
    return (f"IoU {iou:.{digits}f}  {'✓' if spec.protocol.is_right(iou) else '✗'}",)
